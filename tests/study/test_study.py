"""The tiny models, made and measured for real."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgedec.errors import InputError
from edgedec.runtime.profiling.record import Effort
from edgedec.study import Study, render, study
from edgedec.study.shapes import ARCHITECTURES, SHAPES

Bundles = dict[tuple[str, str], Path]
TINY = SHAPES["tiny"]
PROMPT, NEW = 1040, 6  # beyond the block of the paper's model


def ask(progress: Callable[[str, float], None], *, fresh: bool) -> Study:
    return study(
        shapes=["tiny"],
        prompts=[PROMPT],
        new_tokens=NEW,
        threads=1,
        quant="cb4",
        effort=Effort(rounds=1, repetitions=2, warmup=0, fresh=fresh, seed=0),
        note=lambda _: None,
        progress=progress,
    )


def test_both_models_are_measured(tiny: Bundles) -> None:
    done: list[tuple[str, float]] = []
    found = ask(lambda what, fraction: done.append((what, fraction)), fresh=True)
    assert [what for what, _ in done] == ["measuring"] * 3
    assert [fraction for _, fraction in done] == [0.0, 0.5, 1.0]
    assert found.profile.complete
    assert [m.error for m in found.measurements] == [None, None]
    assert all(answer.ratio is not None for answer in found.answers)
    kv = 2 * 4 * TINY.kv_heads * TINY.head_dim / 1e6  # keys and values of a position in a layer
    layers = {"encoder-decoder": TINY.decoder_layers, "decoder-only": 13}
    for measured in found.measurements:
        assert measured.ttft_ms is not None
        assert measured.e2e_ms is not None
        assert measured.cache_mb is not None
        assert measured.ttft_ms.n == 2
        assert 0 < measured.ttft_ms.p50 < measured.e2e_ms.p50
        crossed = measured.architecture == "encoder-decoder"
        positions = NEW if crossed else PROMPT + NEW - 1
        per_position = kv * layers[measured.architecture]
        # Room for all positions; not more than doubling may leave, from the smallest on.
        assert positions * per_position <= measured.cache_mb.p50
        assert measured.cache_mb.p50 <= 2 * max(positions, 64) * per_position
        if crossed:
            assert measured.cross_mb is not None
            # and a mask, a number per position
            assert measured.cross_mb.p50 == pytest.approx(PROMPT * (per_position + 4e-6), rel=0.01)
    for row in found.profile.rows:
        assert [s.new_tokens for turn in row.turns for s in turn.samples] == [NEW, NEW]
    assert "time to first token" in render(found, "table")


def test_an_interruption_keeps_what_was_measured(tiny: Bundles) -> None:
    def stop(what: str, fraction: float) -> None:
        if what == "measuring" and fraction > 0:
            raise KeyboardInterrupt

    found = ask(stop, fresh=False)
    assert not found.profile.complete
    one, other = found.measurements
    assert (one.architecture, other.architecture) == ARCHITECTURES
    assert one.ttft_ms is not None
    assert other.ttft_ms is None
    assert "Interrupted" in render(found, "md")


def test_unknown_shapes_are_refused() -> None:
    with pytest.raises(InputError, match="tiny, small, paper"):
        study(
            shapes=["huge"],
            prompts=[1],
            new_tokens=1,
            threads=1,
            quant="none",
            effort=Effort(1, 1, 0, True, 0),
            note=print,
            progress=lambda *_: None,
        )
