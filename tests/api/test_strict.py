"""Strict decoding: paths, short values, limits, and the translation of pydantic's errors."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, field_validator

from api.base import ApiModel
from api.strict import MAX_DEPTH, MAX_VALUES, DecodeError, Problem, decode, join, plain, show


class Colour(StrEnum):
    RED = "Red"
    BLUE = "Blue"


class Inner(ApiModel):
    colour: Colour | None = None
    wheels: Annotated[int, Field(gt=0, lt=10)] = 4


class Part(ApiModel):
    number: int
    names: Annotated[list[str], Field(min_length=1, max_length=2)] = Field(default_factory=list)
    pair: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=2)] = Field(default_factory=list)


class Outer(ApiModel):
    version: Literal["v1"] = "v1"
    inner_part: Inner | None = None
    parts: list[Inner] = Field(default_factory=list)
    by_name: dict[str, Inner] = Field(default_factory=dict)
    size: float = 0.0
    even: int = 0

    @field_validator("even")
    @classmethod
    def _even(cls, value: int) -> int:
        if value % 2:
            raise ValueError("must be even")
        return value


def problems(data: object, path: str = "") -> list[str]:
    with pytest.raises(DecodeError) as caught:
        decode(Outer, data, path=path)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"parts": [{}, {"color": 1}]}, "parts[1].color: unknown field, did you mean colour?"),
        ({"byName": {"a b": {"weels": 1}}}, 'byName["a b"].weels: unknown field, did you mean wheels?'),
        ({"byName": {"a": {"colour": "blue"}}}, ('byName.a.colour: must be one of Red, Blue, not "blue", did you mean '
                                                "Blue?")),
        ({"inner_part": {}}, "inner_part: unknown field, did you mean innerPart?"),
        ({"wheels": 1}, "wheels: unknown field, it belongs under innerPart"),
        ({"version": "v2"}, 'version: must be v1, not "v2"'),
        ({"parts": {}}, "parts: must be a list, not an object"),
        ({"parts": [5]}, "parts[0]: must be an object, not 5"),
        ({"innerPart": {"wheels": 0}}, "innerPart.wheels: must be more than 0, not 0"),
        ({"innerPart": {"wheels": 10}}, "innerPart.wheels: must be less than 10, not 10"),
        ({"size": []}, "size: must be a number, not a list"),
        ({"even": 3}, "even: must be even"),
        ({"[key]": 1}, '["[key]"]: unknown field, known fields: version, innerPart, parts, byName, size, even'),
        ({"byName": {"[key]": 1}}, 'byName["[key]"]: must be an object, not 1'),
        ([], "must be an object, not a list"),
    ],
)  # fmt: skip
def test_messages(data: object, expected: str) -> None:
    assert problems(data) == [expected]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"numbr": 1}, ["numbr: unknown field, did you mean number?"]),
        ({"other": 1}, ["number: required", "other: unknown field, known fields: number, names, pair"]),
        ({"nam": [], "number": 1}, ["nam: unknown field, did you mean names?"]),
        ({"number": 1, "names": []}, ["names: must have at least one entry"]),
        ({"number": 1, "names": ["a", "b", "c"]}, ["names: must have at most 2 entries"]),
        ({"number": 1, "pair": ["a"]}, ["pair: must have at least 2 entries"]),
        ({"number": 1, "pair": ["a", ""]}, ["pair[1]: must not be empty"]),
    ],
)
def test_a_misspelt_field_is_one_problem_and_lists_have_words(data: object, expected: list[str]) -> None:
    with pytest.raises(DecodeError) as caught:
        decode(Part, data)
    assert [str(problem) for problem in caught.value.problems] == expected


def test_problems_come_in_the_order_of_the_fields() -> None:
    assert [line.split(":")[0] for line in problems({"even": 1, "parts": 1, "other": 1}, "spec")] == [
        "spec.parts",
        "spec.even",
        "spec.other",
    ]


def test_join() -> None:
    assert join("", "a", 0, "b-c") == "a[0].b-c"
    assert join("spec", "x/y", "0") == 'spec["x/y"]["0"]'
    assert join("", 'say "hi"') == '["say \\"hi\\""]'
    assert len(join("", "k" * 1000)) < 100


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "null"),
        (True, "true"),
        (False, "false"),
        (5, "5"),
        (-(2**63), "-9223372036854775808"),
        pytest.param(10**5000, "a number of 16610 bits", id="huge"),
        (1.5, "1.5"),
        ("x", '"x"'),
        ("\ud800\n", '"\\ud800\\n"'),
        ("y" * 500, '"' + "y" * 77 + '..."'),
        ({"a": 1}, "an object"),
        ([1], "a list"),
        ((1,), "a Python tuple"),
        (b"", "a Python bytes"),
    ],
)
def test_show_is_short_whatever_it_is_given(value: object, shown: str) -> None:
    assert show(value) == shown


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def test_plain_copies() -> None:
    class Text(str):
        __slots__ = ()

    data = {Text("a"): [1, 2.5, None, True, Text("b")], "c": {}}
    copy = plain(data)
    assert copy == data
    assert copy is not data
    assert {type(key) for key in copy} == {str}
    assert [type(item) for item in copy["a"]] == [int, float, type(None), bool, str]
    assert plain(nested(MAX_DEPTH)) == nested(MAX_DEPTH)


def contains_itself() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (nested(MAX_DEPTH + 1), "nested deeper than 32 levels"),
        (nested(100_000), "nested deeper than 32 levels"),
        (contains_itself(), "nested deeper than 32 levels"),
        ([0] * MAX_VALUES, f"more than {MAX_VALUES} values"),
        ({str(number): 0 for number in range(MAX_VALUES)}, f"more than {MAX_VALUES} values"),
        (float("inf"), "must be a finite number"),
        ({None: 1}, "keys must be text, not null"),
        ({(1,): 1}, "keys must be text, not a Python tuple"),
        (object(), "must be a JSON value, not a Python object"),
        (bytearray(b"x"), "must be a JSON value, not a Python bytearray"),
        (memoryview(b"x"), "must be a JSON value, not a Python memoryview"),
        ({1, 2}, "must be a JSON value, not a Python set"),
    ],
)
def test_plain_refuses_what_is_not_json_or_too_much(data: object, message: str) -> None:
    with pytest.raises(DecodeError, match=message):
        plain(data)


def test_a_doubling_structure_ends_at_the_limit() -> None:
    data: list[Any] = [1]
    for _ in range(30):
        data = [data, data]
    with pytest.raises(DecodeError, match="more than"):
        plain(data)


def test_plain_names_every_place() -> None:
    with pytest.raises(DecodeError) as caught:
        plain({"a": [1, float("nan")], "b": {2: 3}}, "spec")
    assert [problem.path for problem in caught.value.problems] == ["spec.a[1]", "spec.b"]


def test_the_text_of_many_problems_is_cut() -> None:
    error = DecodeError(Problem(f"p{number}", None, "wrong") for number in range(25))
    assert len(error.problems) == 25
    assert str(error).startswith("p0: wrong; p1: wrong; ")
    assert str(error).endswith("p19: wrong; and 5 more problems")


def test_problems_are_values() -> None:
    assert Problem("a", [1], "m") == Problem("a", [2], "m")
    assert len({Problem("a", [1], "m"), Problem("a", [2], "m")}) == 1
