"""What learners are told, and what is said of their results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from tests.quantize.graphs import (
    Array,
    batches,
    g2p,
    llama,
    noise,
    program,
    run_whole,
    t5,
    with_weights,
)

from edgedec.quantize.calibration.calibrate import Learner, calibrate, moments, score
from edgedec.quantize.calibration.scores import Sums, compare_logits
from edgedec.quantize.calibration.segments import Program
from edgedec.quantize.calibration.walk import FLOAT, Walk
from edgedec.quantize.matrices import Matrix
from edgedec.quantize.pool import Pool
from edgedec.quantize.statistics import Statistics
from edgedec.quantize.text.batches import Batch

Told = list[tuple[list[str], Statistics | None]]


def keep(matrices: Sequence[Matrix], _: Statistics | None) -> Mapping[str, Array]:
    return {matrix.name: matrix.read() for matrix in matrices}


def disturb(matrices: Sequence[Matrix], _: Statistics | None) -> Mapping[str, Array]:
    return {matrix.name: noise(matrix.name, matrix.read()) for matrix in matrices}


def noticed(
    program: Program, text: Sequence[Batch], *, sequential: bool, threads: int = 2
) -> tuple[Told, object]:
    """What a learner is told that disturbs every matrix, and how far that leads."""
    told: Told = []

    def learn(matrices: Sequence[Matrix], statistics: Statistics | None) -> Mapping[str, Array]:
        told.append(([m.name for m in matrices], statistics))
        return disturb(matrices, statistics)

    with Pool(threads) as pool:
        found = calibrate(program, text, {"q": Learner(learn, sequential)}, pool)
    return told, found["q"]


@pytest.mark.parametrize("model", [t5, llama])
def test_statistics_are_those_of_the_inputs(model: type) -> None:
    graphs = model()
    cut, text = program(graphs), batches(graphs)
    told, _ = noticed(cut, text, sequential=True)
    assert len(told) == len(cut.steps)
    with Pool(1) as pool, Walk(cut, text, pool, paths=["q"]) as walk:
        for step, (names, statistics) in zip(walk, told, strict=True):
            assert names == [m.name for m in step.matrices]
            assert (statistics is None) is not step.has_inputs
            if statistics is not None:
                x, changed = (
                    np.concatenate([step.inputs(p, b) for b in range(len(text))]).astype(np.float64)
                    for p in (FLOAT, "q")
                )
                assert statistics.tokens == len(x)
                close(statistics.plain, x.T @ x / len(x))
                close(statistics.inputs, changed.T @ changed / len(x))
                assert statistics.drift is not None
                close(statistics.drift, changed.T @ (x - changed) / len(x))
            step.use("q", disturb(step.matrices, None))


def close(found: Array, expected: np.ndarray) -> None:
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max(), rtol=0)


def test_all_inputs_are_plain_unless_sequential() -> None:
    graphs = llama()
    cut, text = program(graphs), batches(graphs)
    plain, _ = noticed(cut, text, sequential=False)
    for (_, one), (_, other) in zip(plain, noticed(cut, text, sequential=True)[0], strict=True):
        if one is not None and other is not None:
            assert one.drift is None
            assert one.inputs is one.plain
            assert (one.plain == other.plain).all()
            assert other.inputs is not other.plain


def test_nothing_drifts_before_something_changed() -> None:
    graphs = t5()
    cut, text = program(graphs), batches(graphs)
    drifts = {}

    def learn(matrices: Sequence[Matrix], statistics: Statistics | None) -> Mapping[str, Array]:
        if statistics is not None:
            drifts[matrices[0].name] = statistics.drift is not None
            assert (statistics.inputs is statistics.plain) is (statistics.drift is None)
        changed = [m for m in matrices if m.name == "encoder.1.mlp.up.weight"]
        return disturb(changed, statistics)

    with Pool(2) as pool:
        calibrate(cut, text, {"q": Learner(learn, sequential=True)}, pool)
    assert not drifts["encoder.1.mlp.up.weight"]
    assert drifts["encoder.1.mlp.down.weight"]
    assert drifts["decoder.0.cross_attn.k.weight"]
    # The decoder has not looked at its source yet.
    assert not drifts["decoder.0.self_attn.q.weight"]
    assert not drifts["decoder.0.cross_attn.q.weight"]
    assert drifts["decoder.0.cross_attn.o.weight"]
    assert drifts["head.weight"]


@pytest.mark.parametrize("model", [t5, llama])
def test_the_same_weights_change_nothing(model: type) -> None:
    graphs = model()
    cut, text = program(graphs), batches(graphs)

    def learn(matrices: Sequence[Matrix], statistics: Statistics | None) -> Mapping[str, Array]:
        assert statistics is None or statistics.drift is None or not statistics.drift.any()
        return keep(matrices, statistics)

    with Pool(2) as pool:
        found = calibrate(cut, text, {"q": Learner(learn, sequential=True)}, pool)["q"]
    assert found.kl == 0
    assert found.agreement == 1
    assert found.loss_after == found.loss_before
    assert found.tokens == sum(batch.predictions for batch in text)


def test_distances_are_those_of_the_whole_graphs() -> None:
    cut, text = program(t5()), batches(t5())
    _, found = noticed(cut, text, sequential=True)
    changed = {m.name: noise(m.name, m.read()) for step in cut.steps for m in step.matrices}
    logits = [run_whole(graphs, text) for graphs in (t5(), with_weights(t5(), changed))]
    sums = Sums()
    for one, other, batch in zip(*logits, text, strict=True):
        sums += compare_logits(one, other, batch.labels, batch.target_mask)
    expected = sums.mean()
    assert expected.kl > 0.01
    assert vars(found) == pytest.approx(vars(expected), rel=1e-3)


def test_threads_change_nothing() -> None:
    graphs = g2p()
    cut, text = program(graphs), batches(graphs, count=6)
    one, three = (noticed(cut, text, sequential=True, threads=n) for n in (1, 3))
    assert one[1] == three[1]
    for (_, a), (_, b) in zip(one[0], three[0], strict=True):
        if a is not None and b is not None:
            assert (a.plain == b.plain).all()
            assert (a.inputs == b.inputs).all()
            assert np.array_equal(a.drift, b.drift)  # type: ignore[arg-type]


def test_learners_side_by_side_do_not_meet() -> None:
    graphs = llama()
    cut, text = program(graphs), batches(graphs)
    told: list[Statistics | None] = []

    def learn(matrices: Sequence[Matrix], statistics: Statistics | None) -> Mapping[str, Array]:
        told.append(statistics)
        return disturb(matrices, statistics)

    learners = {
        "kept": Learner(keep, sequential=True),
        "q": Learner(learn, sequential=True),
        "left": Learner(lambda _, __: {}, sequential=False),
    }
    with Pool(3) as pool:
        found = calibrate(cut, text, learners, pool)
    alone, expected = noticed(cut, text, sequential=True)
    assert found["q"] == expected
    assert found["kept"].kl == found["left"].kl == 0
    for (_, one), other in zip(alone, told, strict=True):
        if one is not None and other is not None:
            assert (one.inputs == other.inputs).all()


def test_scores_of_given_weights_are_those_of_learned_ones() -> None:
    graphs = t5()
    cut, text = program(graphs), batches(graphs)
    _, expected = noticed(cut, text, sequential=False)
    with Pool(2) as pool:
        found = score(
            cut,
            text,
            {"q": lambda matrix: noise(matrix.name, matrix.read()), "none": lambda _: None},
            pool,
        )
    assert found["q"] == expected
    assert found["none"].kl == 0


def test_moments_of_some_matrices() -> None:
    graphs = t5()
    cut, text = program(graphs), batches(graphs)
    told, _ = noticed(cut, text, sequential=False)
    expected = {names[0]: s.plain for names, s in told if s is not None}
    heads: dict[str, Array] = {}
    every: dict[str, Array] = {}
    with Pool(2) as pool:
        moments(
            cut,
            text,
            pool,
            lambda m, s: heads.update({m[0].name: s.plain}),
            wanted=lambda matrix: matrix.role == "head",
        )
        moments(cut, text, pool, lambda m, s: every.update({m[0].name: s.plain}))
        moments(cut, text, pool, lambda m, s: pytest.fail("none"), wanted=lambda _: False)
    assert list(heads) == ["head.weight"]
    assert (heads["head.weight"] == expected["head.weight"]).all()
    assert list(every) == list(expected)
    assert all((every[name] == expected[name]).all() for name in every)


def test_progress_ends_with_all() -> None:
    graphs = llama()
    done: list[float] = []
    with Pool(1) as pool:
        learners = {"q": Learner(keep, sequential=False)}
        calibrate(program(graphs), batches(graphs), learners, pool, progress=done.append)
    assert done == sorted(done)
    assert done[-1] == 1
    assert 0 < done[0] < 1
