"""Lists and ranges of sweeps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedec.errors import InputError
from edgedec.runtime.profiling.sweep import Sweep, numbers, policies


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("8", (8,)),
        ("8,1", (8, 1)),
        ("1-4", (1, 2, 3, 4)),
        ("16-64+16", (16, 32, 48, 64)),
        ("1-8+3", (1, 4, 7)),
        ("32-512*2", (32, 64, 128, 256, 512)),
        ("1-100*3", (1, 3, 9, 27, 81)),
        ("1,2,1-3", (1, 2, 3)),
        (" 4 , 5-5 ", (4, 5)),
    ],
)
def test_lists(text: str, found: tuple[int, ...]) -> None:
    assert numbers(text, "-s") == found


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "1,", "4-1", "1-8+0", "1-8*1", "1-8-2", "a", "1.5", "1e3", "8+2", "１"]
)
def test_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"-s .* is not a list of whole numbers"):
        numbers(text, "-s")


def test_not_endless() -> None:
    with pytest.raises(InputError, match="at most 1,000"):
        numbers("1-999999999", "-n")


@given(st.integers(1, 99), st.integers(0, 99), st.integers(1, 20))
def test_ranges_are_pythons(first: int, more: int, step: int) -> None:
    last = first + more
    assert numbers(f"{first}-{last}+{step}", "-t") == tuple(range(first, last + 1, step))


def test_policies() -> None:
    texts = ("full,early-exit:threshold=0.9,tau=0,free:exit=2", "ngram", "auto:quality=0.9", "full")
    assert policies(texts) == (
        "full",
        "early-exit:threshold=0.9,tau=0",
        "free:exit=2",
        "ngram",
        "auto:quality=0.9",
    )


def test_an_unknown_policy_stays_for_the_bundle_to_refuse() -> None:
    assert policies(("ful,threshold=1",)) == ("ful,threshold=1",)


def _sweep(**changes: object) -> Sweep:
    values: dict[str, object] = {
        "bundles": ("a", "b"),
        "devices": ("cpu",),
        "threads": (1, 4),
        "batches": (1,),
        "depths": ("full",),
        "source_tokens": (32, 128),
        "new_tokens": (16,),
    }
    return Sweep(**{**values, **changes})  # type: ignore[arg-type]


def test_all_combinations_with_bundles_side_by_side() -> None:
    found = _sweep().configurations()
    assert len(set(found)) == 8
    assert [(c.source_tokens, c.threads, c.bundle) for c in found[:4]] == [
        (32, 1, "a"),
        (32, 1, "b"),
        (32, 4, "a"),
        (32, 4, "b"),
    ]


def test_too_many() -> None:
    with pytest.raises(InputError, match="1,200 rows"):
        _sweep(new_tokens=tuple(range(1, 151))).configurations()
