"""Where `--stages` cuts a decoder."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedec.errors import InputError
from edgedec.export.graphs import parse_stages


@given(layers=st.integers(1, 40), data=st.data())
def test_stages_cover_the_decoder_in_order(layers: int, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(0, layers - 1))))
    spellings: list[str | tuple[int, ...]] = [
        tuple(cuts),
        ",".join(map(str, cuts)) or "0",
        " , ".join(map(str, cuts)) or " 0",
    ]
    for spelling in spellings:
        stages = parse_stages(spelling, layers)
        covered = [layer for stage in stages for layer in range(stage.first, stage.last)]
        assert covered == list(range(layers))
        assert [stage.first for stage in stages] == sorted({0, *cuts})


def test_shorthands() -> None:
    assert [(s.first, s.last) for s in parse_stages(None, 3)] == [(0, 3)]
    assert [(s.first, s.last) for s in parse_stages("all", 3)] == [(0, 1), (1, 2), (2, 3)]


@pytest.mark.parametrize(
    "text",
    ["", ",", "one", "0,,1", "0;1", "-1", "0,3", "0,1,1", "2,1", "1.5", "0x1", "9" * 5000, "none"],
)
def test_cuts_that_do_not_exist(text: str) -> None:
    with pytest.raises(InputError, match=r"^stages "):
        parse_stages(text, 3)


@given(st.lists(st.integers(-3, 9), max_size=5) | st.text(max_size=9))
def test_anything_else_is_one_sentence(cuts: list[int] | str) -> None:
    try:
        stages = parse_stages(cuts, 4)
    except InputError:
        return
    assert stages[0].first == 0
    assert stages[-1].last == 4
