"""Walking through a model in pieces computes what the whole graphs compute."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from tests.quantize.graphs import (
    Array,
    Graphs,
    batches,
    g2p,
    llama,
    noise,
    program,
    run_whole,
    samples,
    sites,
    t5,
    with_weights,
)

from edgedec.devices.passes.linear import Linear
from edgedec.quantize.calibration.segments import Program, cut
from edgedec.quantize.calibration.walk import FLOAT, Walk
from edgedec.quantize.pool import Pool
from edgedec.quantize.text.batches import Batch, make_batches

CLOSE = 1e-5
"""Of the logits' range: the same products, which ONNX Runtime may fuse otherwise."""
MODELS = {"encoder-decoder": t5, "decoder-only": llama}

Open = Callable[..., Graphs]


@pytest.fixture(params=[*MODELS.values()], ids=[*MODELS])
def opened(request: pytest.FixtureRequest) -> Open:
    found: Open = request.param
    return found


def all_logits(program: Program, text: Sequence[Batch], threads: int = 2) -> list[list[Array]]:
    """Of both paths, batch by batch."""
    with Pool(threads) as pool, Walk(program, text, pool, paths=["noisy"]) as walk:
        for step in walk:
            step.use("noisy", {m.name: noise(m.name, m.read()) for m in step.matrices})
        return [[walk.logits(p, b) for b in range(len(text))] for p in (FLOAT, "noisy")]


def all_inputs(program: Program, text: Sequence[Batch], path: str) -> list[Array]:
    """Of every step, the batches one after another."""
    found = []
    with Pool(2) as pool, Walk(program, text, pool, paths=["noisy"]) as walk:
        for step in walk:
            if step.has_inputs:
                found.append(np.concatenate([step.inputs(path, b) for b in range(len(text))]))
            step.use("noisy", {m.name: noise(m.name, m.read()) for m in step.matrices})
    return found


@pytest.mark.parametrize("stages", [None, "all"])
def test_both_paths_are_the_whole_graphs(opened: Open, stages: str | None) -> None:
    graphs = opened(stages)
    cut = program(graphs)
    text = batches(graphs)
    found = all_logits(cut, text)
    changed = {m.name: noise(m.name, m.read()) for step in cut.steps for m in step.matrices}
    for path, model in enumerate((graphs, with_weights(opened(stages), changed))):
        for logits, expected in zip(found[path], run_whole(model, text), strict=True):
            assert logits.shape == expected.shape
            np.testing.assert_allclose(
                logits, expected, atol=CLOSE * float(np.ptp(expected)), rtol=0
            )
    assert all(np.abs(a - b).max() > 0.1 for a, b in zip(*found, strict=True))


def test_threads_change_nothing(opened: Open) -> None:
    graphs = opened()
    cut, text = program(graphs), batches(graphs)
    assert len(text) >= 3
    for one, three in zip(all_logits(cut, text, 1), all_logits(cut, text, 3), strict=True):
        for a, b in zip(one, three, strict=True):
            assert (a == b).all()


def test_padding_and_batches_change_nothing(opened: Open) -> None:
    graphs = opened()
    cut = program(graphs)
    alone, together = batches(graphs, tokens=1), batches(graphs, tokens=1000)
    assert len(alone) == 12
    assert len(together) == 1
    assert not together[0].target_mask.all()
    for path in (FLOAT, "noisy"):
        pairs = zip(all_inputs(cut, alone, path), all_inputs(cut, together, path), strict=True)
        for one, other in pairs:
            assert one.shape == other.shape
            np.testing.assert_allclose(one, other, atol=1e-6 * np.abs(one).max(), rtol=0)


def test_what_fills_up_does_not_matter(opened: Open) -> None:
    graphs = opened()
    cut = program(graphs)
    start = 0 if "encoder" in graphs else None
    text = [make_batches(samples(graphs), pad=pad, start=start) for pad in (0, 7)]
    for one, other in zip(*(all_inputs(cut, t, "noisy") for t in text), strict=True):
        assert (one == other).all()


def test_only_valid_tokens_are_inputs(opened: Open) -> None:
    graphs = opened()
    cut, text = program(graphs), batches(graphs)
    with Pool(1) as pool, Walk(cut, text, pool) as walk:
        for step in walk:
            for number, batch in enumerate(text):
                if not step.has_inputs:
                    continue
                encodes = step.component == "encoder"
                mask = batch.source_mask if encodes else batch.target_mask
                assert mask is not None
                found = step.inputs(FLOAT, number)
                assert found.shape == (mask.sum(), step.matrices[0].columns)
                assert found.dtype == np.float32


def test_a_path_differs_from_where_it_was_changed() -> None:
    graphs = llama()
    cut, text = program(graphs), batches(graphs)
    name = "decoder.1.mlp.up.weight"
    seen = []
    with Pool(2) as pool, Walk(cut, text, pool, paths=["one", "none"]) as walk:
        for step in walk:
            assert not step.changed("none")
            same = [
                (step.inputs("one", b) == step.inputs(FLOAT, b)).all()
                for b in range(len(text))
                if step.has_inputs
            ]
            assert all(same) is not step.changed("one")
            seen.append(step.changed("one"))
            for matrix in step.matrices:
                if matrix.name == name:
                    step.use("one", {name: 2 * matrix.read()})
                    assert not step.changed("one")
        assert (walk.logits("none", 0) == walk.logits(FLOAT, 0)).all()
        assert (walk.logits("one", 0) != walk.logits(FLOAT, 0)).any()
    where = [name in [m.name for m in step.matrices] for step in cut.steps].index(True)
    assert seen == [False] * (where + 1) + [True] * (len(seen) - where - 1)


@pytest.mark.parametrize("embeddings", [True, False], ids=["embedding", "no embedding"])
def test_inputs_can_be_changed(opened: Open, embeddings: bool, tmp_path: Path) -> None:
    """Norms and attention feed nothing but products here: larger inputs are larger weights."""
    graphs = opened()
    found = {
        name: [site for site in those if embeddings or isinstance(site, Linear)]
        for name, those in sites(graphs).items()
    }
    paths = ["weights", "inputs", "after weights"]
    cut_up, text = cut(graphs, found), batches(graphs)
    with (
        Pool(2) as pool,
        Walk(cut_up, text, pool, paths=paths, scratch=tmp_path, keep=2000) as walk,
    ):
        for step in walk:
            if step.has_inputs:
                larger = {m.name: 2 * m.read() for m in step.matrices}
                step.use("weights", larger)
                step.change_inputs("inputs", lambda x: 2 * x)
                step.use("after weights", larger)
                step.change_inputs("after weights", lambda x: x + 0)
                assert step.changed("inputs")
                assert not step.changed(FLOAT)
        for batch in range(len(text)):
            before, expected, *others = (walk.logits(p, batch) for p in (FLOAT, *paths))
            assert np.abs(before - expected).max() > 0.1
            for logits in others:
                np.testing.assert_allclose(logits, expected, atol=CLOSE * float(np.ptp(expected)))
    assert not list(tmp_path.iterdir())


def test_large_values_go_to_files(tmp_path: Path) -> None:
    graphs = t5()
    cut, text = program(graphs), batches(graphs)
    expected = all_logits(cut, text)
    most = 0
    with (
        Pool(3) as pool,
        Walk(cut, text, pool, paths=["noisy"], scratch=tmp_path, keep=2000) as walk,
    ):
        for step in walk:
            step.use("noisy", {m.name: noise(m.name, m.read()) for m in step.matrices})
            most = max(most, len(list(tmp_path.iterdir())))
        for path, logits in zip((FLOAT, "noisy"), expected, strict=True):
            for batch, wanted in enumerate(logits):
                assert (walk.logits(path, batch) == wanted).all()
    assert 0 < most < 200
    assert not list(tmp_path.iterdir())


def test_misuse() -> None:
    graphs = llama()
    cut, text = program(graphs), batches(graphs)
    with Pool(1) as pool, Walk(cut, text, pool, paths=["q"]) as walk:
        steps = iter(walk)
        first = next(steps)
        (matrix,) = first.matrices
        with pytest.raises(ValueError, match="no matrix of this step"):
            first.use("q", {"other": matrix.read()})
        with pytest.raises(ValueError, match="shape"):
            first.use("q", {matrix.name: matrix.read().T})
        with pytest.raises(ValueError, match="no inputs"):
            first.change_inputs("q", np.negative)
        next(steps)
        with pytest.raises(ValueError, match="left this step"):
            first.use("q", {matrix.name: matrix.read()})
        with pytest.raises(ValueError, match="left this step"):
            first.change_inputs("q", np.negative)


def test_the_builtin_model() -> None:
    graphs = g2p()
    text = batches(graphs, count=6)
    found, _ = all_logits(program(graphs), text)
    for logits, expected in zip(found, run_whole(graphs, text), strict=True):
        np.testing.assert_allclose(logits, expected, atol=CLOSE * float(np.ptp(expected)), rtol=0)
