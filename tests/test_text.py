"""Texts that are cut: by bytes, between characters, with a mark."""

from __future__ import annotations

import pytest

from dra_driver.text import MESSAGE_BYTES, first_bytes, shortened


@pytest.mark.parametrize("character", ["x", "ü", "…", "😀"])
@pytest.mark.parametrize("limit", [16, 17, 18, 19, MESSAGE_BYTES])
def test_a_cut_text_fits_and_has_no_half_of_a_character(character: str, limit: int) -> None:
    cut = shortened(character * 2000, limit)
    width = len(character.encode())
    assert cut == character * ((limit - 3) // width) + "…"
    assert first_bytes(character * 2000, limit) == character * (limit // width)


def test_a_text_that_fits_stays() -> None:
    fitting = "ü" * (MESSAGE_BYTES // 2)
    assert shortened(fitting) == fitting
    assert shortened(f"{fitting}x").endswith("ü…")
