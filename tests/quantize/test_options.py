"""Which method quantizes where none is named, and what is refused (more in test_report.py)."""

from __future__ import annotations

import pytest

from edgedec.errors import InputError
from edgedec.quantize.method import Settings
from edgedec.quantize.methods import METHODS
from edgedec.quantize.options import LEARNED, ROUNDED, QuantizeOptions


def test_the_method_is_that_which_runs() -> None:
    assert next(iter(METHODS)) == LEARNED
    assert QuantizeOptions().method == LEARNED
    assert QuantizeOptions(bits="mixed", budget=5.0).method == LEARNED
    assert QuantizeOptions(bits=3, embedding_bits=8).method == LEARNED
    assert QuantizeOptions(bits=3, method="kmeans").method == "kmeans"
    assert QuantizeOptions(bits=8).method == ROUNDED
    assert QuantizeOptions(bits=8) == QuantizeOptions(bits=8, method=ROUNDED)


@pytest.mark.parametrize("method", [name for name in METHODS if name != ROUNDED])
def test_eight_bits_are_only_rounded(method: str) -> None:
    with pytest.raises(InputError, match=r"^--bits 8 is only rounded: leave out --method, or use"):
        QuantizeOptions(bits=8, method=method)


def test_an_embedding_beside_eight_bits_may_be_learned() -> None:
    assert QuantizeOptions(bits=8, embedding_bits=4).method == LEARNED
    assert QuantizeOptions(bits=8, embedding_bits=4, method="gptq").method == "gptq"


def test_a_seed_is_not_negative() -> None:
    QuantizeOptions(settings=Settings(seed=0))
    with pytest.raises(InputError, match=r"^--seed -1: give at least 0\.$"):
        QuantizeOptions(settings=Settings(seed=-1))
