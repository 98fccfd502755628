"""Quantities: apimachinery's forms in, its canonical form out, exact arithmetic between."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dra_driver.quantity import Format, Quantity

# Text, canonical form, whole value. Canonical forms are those of apimachinery's quantity_test.go and of recorded slices.
CANONICAL = [
    ("0", "0", 0),
    ("0Gi", "0", 0),
    ("-0", "0", 0),
    ("007", "7", 7),
    ("1", "1", 1),
    ("+5", "5", 5),
    ("100", "100", 100),
    ("1000", "1k", 1000),
    ("1500", "1500", 1500),
    ("1024Mi", "1Gi", 2**30),
    ("1.5Gi", "1536Mi", 1536 * 2**20),
    ("81152Mi", "81152Mi", 81152 * 2**20),
    ("80Gi", "80Gi", 80 * 2**30),
    ("0.5Ki", "512", 512),
    ("1000Ki", "1000Ki", 1_024_000),
    ("0.3Ki", "307200m", 308),
    ("1.0001Ki", "1024102400u", 1025),
    ("-2Ki", "-2Ki", -2048),
    ("8Ei", "9223372036854775807", 2**63 - 1),
    ("0.5", "500m", 1),
    (".5", "500m", 1),
    ("1.", "1", 1),
    ("1.5k", "1500", 1500),
    ("1500m", "1500m", 2),
    ("2000m", "2", 2),
    ("-1500m", "-1500m", -2),
    ("1.5n", "2n", 1),
    ("100u", "100u", 1),
    ("12E", "12E", 12 * 10**18),
    ("1000E", "1e21", 10**21),
    ("1e3", "1e3", 1000),
    ("1E3", "1e3", 1000),
    ("12e6", "12e6", 12_000_000),
    ("100e3", "100e3", 100_000),
    ("1e-3", "1e-3", 1),
    ("5e0", "5", 5),
]
REFUSED = [
    "", " ", " 1 ", "1 ", "1 Gi", "NaN", "nan", "inf", "Infinity", "1_000", "1K", "1i", "1mi", "1e", "1e-", "1E+",
    "1e1000", "1e99999999999", "k", "Gi", "+", "-", ".", "--1", "1.1.M", "1+1", "0x10", "0b1", "1,5", "١", "1" * 2000,
]  # fmt: skip


@pytest.mark.parametrize(("text", "canonical", "value"), CANONICAL)
def test_prints_the_canonical_form(text: str, canonical: str, value: int) -> None:
    quantity = Quantity.parse(text)
    assert str(quantity) == canonical
    assert quantity.value() == value
    assert Quantity.parse(canonical) == quantity
    assert str(Quantity.parse(canonical)) == canonical


@pytest.mark.parametrize("text", REFUSED)
def test_refuses_what_the_api_server_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="quantity"):
        Quantity.parse(text)


@pytest.mark.parametrize("value", [True, None, [], float("nan"), float("inf")])
def test_refuses_other_json_values(value: object) -> None:
    with pytest.raises(ValueError, match="quantity"):
        Quantity.parse(value)  # type: ignore[arg-type]


def test_json_numbers_are_read_as_their_text() -> None:
    assert Quantity.parse(85899345920) == Quantity.parse("80Gi")
    assert Quantity.parse(1.5) == Quantity.parse("1500m")
    assert Quantity.parse(1e30) == Quantity.parse("1e30")


def test_equality_goes_by_value_and_printing_by_format() -> None:
    assert Quantity.parse("1Gi") == Quantity.of(2**30) == Quantity.binary(2**30)
    assert len({Quantity.parse("1Gi"), Quantity.parse("1024Mi"), Quantity.of(2**30)}) == 1
    assert str(Quantity.of(2**30)) == "1073741824"
    assert str(Quantity.binary(2**30)) == "1Gi"
    assert Quantity.of(1) != 1
    assert not Quantity.of(0)


def test_sum_keeps_the_format_of_its_first_part_that_is_not_zero() -> None:
    total = Quantity.of(0) + Quantity.parse("1Gi") + Quantity.parse("1024Mi")
    assert str(total) == "2Gi"
    assert str(total - Quantity.parse("512Mi")) == "1536Mi"
    assert (Quantity.parse("1k") + Quantity.parse("1Ki")).format is Format.DECIMAL_SI


quantities = st.builds(Quantity, st.integers(-(10**30), 10**30), st.sampled_from(Format))


@given(quantities)
def test_canonical_form_is_read_back_as_the_same_value(quantity: Quantity) -> None:
    beyond_binary = quantity.format is Format.BINARY_SI and abs(quantity.value()) >= 2**63
    if not beyond_binary:  # apimachinery caps binary quantities when it reads them
        assert Quantity.parse(str(quantity)) == quantity
    assert repr(quantity) == f"Quantity({str(quantity)!r})"


@given(quantities, quantities)
def test_arithmetic_and_order_are_exact(left: Quantity, right: Quantity) -> None:
    assert (left + right) - right == left
    assert (left < right) == (left.nanos < right.nanos)
    assert (left <= right) == (not left > right)
    whole = Fraction(left.nanos, 10**9)
    assert abs(left.value()) >= abs(whole)
    assert abs(left.value()) - abs(whole) < 1


@given(st.text(max_size=12))
def test_any_text_is_a_quantity_or_a_value_error(text: str) -> None:
    try:
        quantity = Quantity.parse(text)
    except ValueError:
        return
    assert str(Quantity.parse(str(quantity))) == str(quantity)


@given(st.decimals(min_value=-(10**12), max_value=10**12, places=9, allow_nan=False, allow_infinity=False))
def test_reads_decimals_exactly(number: object) -> None:
    text = f"{number:f}"
    assert Fraction(Quantity.parse(text).nanos, 10**9) == Fraction(text)
