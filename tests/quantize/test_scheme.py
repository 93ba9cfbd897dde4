"""Which matrix gets how many bits."""

from __future__ import annotations

import numpy as np
import pytest

from edgedec.quantize.scheme import SCHEMES, SMALL_TABLE, quantize


@pytest.mark.parametrize(
    ("name", "linear", "embedding", "small"),
    [("cb4", 4, 4, 8), ("cb3", 3, 4, 8), ("cb2", 2, 4, 8), ("int8", 8, 8, 8)],
)
def test_bits(name: str, linear: int, embedding: int, small: int) -> None:
    scheme = SCHEMES[name]
    assert scheme.name == name
    weight = np.random.default_rng(0).standard_normal((SMALL_TABLE, 8)).astype(np.float32)
    assert quantize(weight, scheme).bits == linear
    assert quantize(weight, scheme, embedding=True).bits == embedding
    assert quantize(weight[1:], scheme).bits == linear
    assert quantize(weight[1:], scheme, embedding=True).bits == small


def test_schemes_cannot_be_changed() -> None:
    assert list(SCHEMES) == ["cb4", "cb3", "cb2", "int8"]
    with pytest.raises(TypeError):
        SCHEMES["cb5"] = SCHEMES["cb4"]  # type: ignore[index]
