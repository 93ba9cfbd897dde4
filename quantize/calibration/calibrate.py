"""Walk through a model once, and learn its matrices one after another on what they read.

Each matrix can be learned on the inputs that the already quantized part of the model computes, next
to the original ones, so that later matrices make up for what earlier ones lost (as GPTQ does layer
by layer, arXiv 2210.17323; the corrected target is `Statistics.drift`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgedec.quantize.calibration.inputs import Inputs
from edgedec.quantize.calibration.moments import mean_product
from edgedec.quantize.calibration.scores import (
    Deviation,
    Divergence,
    Sums,
    compare_arrays,
    compare_logits,
)
from edgedec.quantize.calibration.segments import Program
from edgedec.quantize.calibration.walk import FLOAT, Step, Walk
from edgedec.quantize.matrices import Matrix
from edgedec.quantize.pool import Pool
from edgedec.quantize.statistics import Square, Statistics
from edgedec.quantize.text.batches import Batch

Array = NDArray[np.float32]
Learn = Callable[[Sequence[Matrix], Statistics | None], Mapping[str, Array]]
"""Given matrices that read the same inputs, and statistics of these (None for an embedding): values
``[rows, columns]`` by matrix name to go on with. Matrices that it leaves out stay as they are."""
LOGITS = 3 << 28
"""Bytes of logits at a time, in all threads."""
COPIES = 4
"""Logits of a batch alive in a thread: of two paths, and ONNX Runtime's own of one."""


@dataclass(frozen=True)
class Learner:
    """A way to change a model's matrices.

    Attributes:
        learn: called once for every step, in execution order.
        sequential: whether it wants to know what the matrices changed before do to their inputs;
            otherwise statistics are those of the original model.
    """

    learn: Learn
    sequential: bool


def calibrate(
    program: Program,
    batches: Sequence[Batch],
    learners: Mapping[str, Learner],
    pool: Pool,
    *,
    scratch: Path | None = None,
    progress: Callable[[float], None] = lambda _: None,
) -> dict[str, Divergence]:
    """Let learners change a model's matrices, each its own way, in one walk over a text.

    Args:
        program: the model.
        batches: the text.
        learners: by name; they share what is computed of the original model.
        pool: threads; learners are called outside of them and may use them.
        scratch: a folder for values that are too large to keep in memory.
        progress: told which part of the weights is done.

    Returns:
        How far each learner's model is from the original, on the same text.
    """
    with Walk(program, batches, pool, paths=tuple(learners), scratch=scratch) as walk:
        learn_steps(walk, learners, pool, progress)
        return _compare(walk, batches, pool)


def learn_steps(
    walk: Walk,
    learners: Mapping[str, Learner],
    pool: Pool,
    progress: Callable[[float], None] = lambda _: None,
) -> None:
    """Let learners change the matrices of a walk that has a path for each, up to its end.

    Args:
        walk: one that has not begun.
        learners: by path.
        pool: threads; learners are called outside of them and may use them.
        progress: told which part of the weights is done.
    """
    done = 0
    for step in walk:
        plain = _moment(walk, step, FLOAT, pool) if step.has_inputs else None
        for path, learner in learners.items():
            statistics = None
            if plain is not None:
                seen = path if learner.sequential else FLOAT
                statistics = _statistics(walk, step, *plain, seen, pool)
            step.use(path, learner.learn(step.matrices, statistics))
        done += sum(matrix.rows * matrix.columns for matrix in step.matrices)
        progress(done / walk.program.weights)


def compare_outputs(walk: Walk, path: str, pool: Pool) -> list[float]:
    """How far a path's outputs are from the original's, each over all batches.

    Args:
        walk: one that has come to its end.
        path: whose outputs.
        pool: threads.

    Returns:
        `Deviation.relative` for every output of the program.
    """

    def compare(batch: int) -> list[Deviation]:
        pairs = zip(walk.outputs(FLOAT, batch), walk.outputs(path, batch), strict=True)
        return [compare_arrays(original, changed) for original, changed in pairs]

    sums = [Deviation() for _ in walk.program.outputs]
    for found in pool.map(compare, range(len(walk.batches))):
        sums = [total + one for total, one in zip(sums, found, strict=True)]
    return [total.relative for total in sums]


def moments(
    program: Program,
    batches: Sequence[Inputs],
    pool: Pool,
    receive: Callable[[Sequence[Matrix], Statistics], None],
    *,
    wanted: Callable[[Matrix], bool] = lambda _: True,
    scratch: Path | None = None,
) -> None:
    """Tell the statistics of the original model's matrices, step by step.

    Args:
        program: the model.
        batches: the text.
        pool: threads.
        receive: called with matrices that read the same inputs, and statistics of these.
        wanted: of which matrices; steps without any are passed over, and after the last with one
            the walk ends.
        scratch: a folder for values that are too large to keep in memory.
    """
    left = [
        number
        for number, step in enumerate(program.steps)
        if step.x is not None and any(map(wanted, step.matrices))
    ]
    if not left:
        return
    with Walk(program, batches, pool, scratch=scratch) as walk:
        for step in walk:
            if step.number in left:
                tokens, plain = _moment(walk, step, FLOAT, pool)
                receive(step.matrices, Statistics(tokens, plain, plain, None))
            if step.number == left[-1]:
                return


def score(
    program: Program,
    batches: Sequence[Batch],
    values: Mapping[str, Callable[[Matrix], Array | None]],
    pool: Pool,
    *,
    scratch: Path | None = None,
) -> dict[str, Divergence]:
    """How far models with other weights are from the original, on a text.

    Args:
        program: the original.
        batches: the text.
        values: by name a function that gives a matrix's values ``[rows, columns]``, None where
            they are the original's. It is called when they are needed.
        pool: threads.
        scratch: a folder for values that are too large to keep in memory.
    """
    with Walk(program, batches, pool, paths=tuple(values), scratch=scratch) as walk:
        for step in walk:
            for path, function in values.items():
                found = {matrix.name: function(matrix) for matrix in step.matrices}
                step.use(path, {n: array for n, array in found.items() if array is not None})
        return _compare(walk, batches, pool)


def _moment(walk: Walk, step: Step, path: str, pool: Pool) -> tuple[int, Square]:
    """Tokens, and X^T X per token of a path's inputs X."""
    inputs = (step.inputs(path, batch) for batch in range(len(walk.batches)))
    return mean_product(((x, x) for x in inputs), pool)


def _statistics(
    walk: Walk, step: Step, tokens: int, plain: Square, path: str, pool: Pool
) -> Statistics:
    """What is known of a path's inputs X', next to the original X."""
    if not step.changed(path):
        return Statistics(tokens, plain, plain, None)
    batches = range(len(walk.batches))
    _, inputs = _moment(walk, step, path, pool)
    # Not as a difference of two moments, which would cancel.
    changed = ((step.inputs(path, b), step.inputs(FLOAT, b)) for b in batches)
    _, drift = mean_product(((own, original - own) for own, original in changed), pool)
    return Statistics(tokens, plain, inputs, drift)


def _compare(walk: Walk, batches: Sequence[Batch], pool: Pool) -> dict[str, Divergence]:
    def compare(batch: int) -> dict[str, Sums]:
        original = walk.logits(FLOAT, batch)
        labels, mask = batches[batch].labels, batches[batch].target_mask
        return {
            path: compare_logits(original, walk.logits(path, batch), labels, mask)
            for path in walk.paths
        }

    sums = dict.fromkeys(walk.paths, Sums())
    largest = max(batch.target.size for batch in batches)
    size = walk.logits(FLOAT, 0).nbytes // batches[0].target.size * largest
    side = max(1, LOGITS // (COPIES * size))
    for start in range(0, len(batches), side):
        group = range(start, min(start + side, len(batches)))
        for found in pool.map(compare, group):
            sums = {path: sums[path] + found[path] for path in sums}
    return {path: total.mean() for path, total in sums.items()}
