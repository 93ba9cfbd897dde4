"""Which matrix gets how many bits."""

from __future__ import annotations

import pytest

from edgedec.quantize.scheme import SCHEMES, SMALL_TABLE


@pytest.mark.parametrize(
    ("name", "linear", "embedding", "small"),
    [("cb4", 4, 4, 8), ("cb3", 3, 4, 8), ("cb2", 2, 4, 8), ("int8", 8, 8, 8)],
)
def test_bits(name: str, linear: int, embedding: int, small: int) -> None:
    scheme = SCHEMES[name]
    assert scheme.name == name
    assert scheme.bits_of(SMALL_TABLE, embedding=False) == linear
    assert scheme.bits_of(SMALL_TABLE, embedding=True) == embedding
    assert scheme.bits_of(SMALL_TABLE - 1, embedding=False) == linear
    assert scheme.bits_of(SMALL_TABLE - 1, embedding=True) == small


def test_schemes_cannot_be_changed() -> None:
    assert list(SCHEMES) == ["cb4", "cb3", "cb2", "int8"]
    with pytest.raises(TypeError):
        SCHEMES["cb5"] = SCHEMES["cb4"]  # type: ignore[index]
