"""Run a cut model piece by piece over a text, with several sets of weights side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgedec.quantize.calibration.inputs import Inputs
from edgedec.quantize.calibration.segments import Program, Segment, StepPlan
from edgedec.quantize.calibration.shelf import KEEP, Shelf
from edgedec.quantize.pool import Pool

Array = NDArray[np.float32]
FLOAT = "float"
"""The path with the weights of the checkpoint; every walk has it."""


class Walk:
    """One pass over a text: a context manager to iterate over once, step by step.

    Batches run side by side, each in one thread, so that results do not depend on the number of
    threads. Of the weights one segment's are in memory, and what paths were given until it is read.

    Args:
        program: the model.
        batches: the text, or whatever the model reads; at least one.
        pool: threads.
        paths: names of sets of weights; each begins as `FLOAT` and is computed from where
            `Step.use` first changed it.
        scratch: a folder for values between segments that are too large to keep in memory; None
            keeps them there.
        keep: bytes of them that stay in memory all the same.
    """

    def __init__(
        self,
        program: Program,
        batches: Sequence[Inputs],
        pool: Pool,
        *,
        paths: Sequence[str] = (),
        scratch: Path | None = None,
        keep: int = KEEP,
    ) -> None:
        self.program, self.batches = program, batches
        self.paths = tuple(paths)
        self._pool = pool
        self._shelf = Shelf(scratch, keep)
        self._feeds = [_feeds(program, batch) for batch in batches]
        self._used = dict.fromkeys([FLOAT, *paths], 0)
        """Path -> bits of the slots and inputs that are its own."""
        self._values: dict[tuple[str, str], Array] = {}
        """(path, slot) -> these weights as they are stored."""
        self.current: Step | None = None
        self._last: _Runner | None = None

    def __enter__(self) -> Walk:  # noqa: PYI034 - Self came with Python 3.11
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._last = None
        self._shelf.clear()

    def __iter__(self) -> Iterator[Step]:
        """Every step, after what it needs was computed; use its matrices before the next."""
        *segments, final = self.program.segments
        for number, (plan, segment) in enumerate(zip(self.program.steps, segments, strict=True)):
            self._run(segment)
            self.current = Step(self, plan, number)
            yield self.current
        self.current = None
        self._last = self._runner(final)

    def logits(self, path: str, batch: int) -> Array:
        """The first of `outputs`."""
        logits: Array = self.outputs(path, batch)[0]
        return logits

    def outputs(self, path: str, batch: int) -> list[NDArray[Any]]:
        """The program's outputs for a batch, computed now; after the last step only.

        Several threads may ask for different ones.
        """
        assert self._last is not None, "the walk has not come to its end"
        outputs = self.program.outputs
        if not any(self.differs(path, output) for output in outputs):
            path = FLOAT
        found = self._last.run(path, batch)
        # A step's inputs may be an output too: they were computed before.
        return [found[o] if o in found else self.value(path, o, batch) for o in outputs]

    def differs(self, path: str, value: str) -> bool:
        """Whether a path has its own values of something."""
        return bool(self.program.upstream[value] & self._used[path])

    def value(self, path: str, value: str, batch: int) -> NDArray[Any]:
        """What a segment computed, or was fed."""
        if value in self._feeds[batch]:
            return self._feeds[batch][value]
        return self._shelf.get((path if self.differs(path, value) else FLOAT, value, batch))

    def change(
        self, path: str, value: str, bit: int, function: Callable[[NDArray[Any]], NDArray[Any]]
    ) -> None:
        """Let a path go on with what a function makes of a value."""
        numbers = range(len(self.batches))
        changed = self._pool.map(lambda batch: function(self.value(path, value, batch)), numbers)
        self._used[path] |= bit
        for batch, array in enumerate(changed):
            self._shelf.put((path, value, batch), array)

    def give(self, path: str, slot: str, bit: int, values: Array) -> None:
        """Let a path go on with such weights, in the order in which they are stored."""
        self._used[path] |= bit
        self._values[path, slot] = values

    def _run(self, segment: Segment) -> None:
        """Run a segment for all paths that differ in what it gives, and all batches."""
        if segment.gives:
            runner = self._runner(segment)
            paths = [p for p in self._used if any(self.differs(p, v) for v in segment.gives)]
            jobs = [
                (p, b) for b in range(len(self.batches)) for p in dict.fromkeys([FLOAT, *paths])
            ]

            def run(job: tuple[str, int]) -> None:
                path, batch = job
                for name, array in runner.run(path, batch).items():
                    if path == FLOAT or self.differs(path, name):
                        self._shelf.put((path, name, batch), array)

            self._pool.map(run, jobs)
        for name in segment.expires:
            for path in self._used:
                for batch in range(len(self.batches)):
                    self._shelf.drop((path, name, batch))
        for slot in segment.slots:
            for path in self.paths:
                self._values.pop((path, slot), None)

    def _runner(self, segment: Segment) -> _Runner:
        return _Runner(self, segment, {p: self._weights(p, segment) for p in self._used})

    def _weights(self, path: str, segment: Segment) -> dict[str, Array]:
        return {s: self._values[path, s] for s in segment.slots if (path, s) in self._values}


class Step:
    """Matrices that read the same input; made by `Walk`.

    Attributes:
        component: the graph that they are in.
        number: of the step, from 0.
        matrices: in execution order.
    """

    def __init__(self, walk: Walk, plan: StepPlan, number: int) -> None:
        self.component, self.number, self.matrices = plan.component, number, plan.matrices
        self._walk, self._plan = walk, plan

    @property
    def has_inputs(self) -> bool:
        """Whether there are inputs to multiply with; an embedding has none."""
        return self._plan.x is not None

    def changed(self, path: str) -> bool:
        """Whether a path's inputs differ from `FLOAT`'s, because earlier matrices do."""
        return self._plan.x is not None and self._walk.differs(path, self._plan.x)

    def inputs(self, path: str, batch: int) -> Array:
        """The inputs ``[tokens, K]`` of a batch, float32, without those of padding."""
        assert self._plan.x is not None
        walk = self._walk
        x = walk.value(path, self._plan.x, batch)
        mask = walk.batches[batch].mask(walk.program.inputs[self.component])
        rows = np.ascontiguousarray(x.reshape(-1, x.shape[-1]), np.float32)
        if mask is None or mask.all():
            return rows
        # Tokens are [B, T], or flattened for Gemm; anything else is not of tokens.
        return rows[mask.ravel()] if x.shape[:-1] in (mask.shape, (mask.size,)) else rows

    def use(self, path: str, values: Mapping[str, Array]) -> None:
        """Let a path go on with such values ``[rows, columns]`` of matrices, by name.

        Raises:
            ValueError: not the walk's current step, no matrix of this name or shape.
        """
        if self._walk.current is not self:
            raise ValueError("the walk has left this step: its weights were used already")
        known = {matrix.name: i for i, matrix in enumerate(self.matrices)}
        for name, array in values.items():
            if name not in known:
                raise ValueError(f"{name!r} is no matrix of this step")
            i = known[name]
            matrix = self.matrices[i]
            if array.shape != (matrix.rows, matrix.columns):
                raise ValueError(f"{name!r} cannot have values of shape {list(array.shape)}")
            stored = np.ascontiguousarray(array.T if matrix.transposed else array, np.float32)
            self._walk.give(path, self._plan.slots[i], self._plan.bits[i], stored)

    def change_inputs(self, path: str, function: Callable[[Array], Array]) -> None:
        """Let a path's matrices read what a function makes of ``[..., K]`` inputs.

        So does whatever else reads this value. The function is called for several batches at once.

        Raises:
            ValueError: not the walk's current step, or the inputs are fed to the graph as they are.
        """
        if self._walk.current is not self:
            raise ValueError("the walk has left this step: its inputs were read already")
        x = self._plan.x
        if x is None or not self._walk.program.upstream[x]:
            raise ValueError("this step has no inputs that a graph computes")
        self._walk.change(path, x, self._plan.x_bit, function)


class _Runner:
    """A segment's session, and its weights."""

    def __init__(
        self, walk: Walk, segment: Segment, weights: Mapping[str, Mapping[str, Array]]
    ) -> None:
        self._walk, self._segment = walk, segment
        own = {name: matrix.as_stored() for name, matrix in segment.slots.items()}
        self._weights = {path: {**own, **changed} for path, changed in weights.items()}
        self._session = _session(
            segment.model({name: walk.value(FLOAT, name, 0) for name in segment.takes})
        )

    def run(self, path: str, batch: int) -> dict[str, NDArray[Any]]:
        """What the segment gives."""
        walk, segment = self._walk, self._segment
        names = [*segment.takes, *segment.fed]
        values: dict[str, NDArray[Any]] = {n: walk.value(path, n, batch) for n in names}
        outputs = self._session.run(list(segment.gives), values | self._weights[path])
        return dict(zip(segment.gives, outputs, strict=True))


def _session(model: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # Batches run side by side; and more threads in one would sum in another order.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.enable_mem_pattern = False
    options.enable_cpu_mem_arena = False  # its memory would not come back before the session ends
    return onnxruntime.InferenceSession(
        model, options, providers=["CPUExecutionProvider"], enable_fallback=0
    )


def _feeds(program: Program, batch: Inputs) -> dict[str, NDArray[Any]]:
    return {
        f"{component}/{name}": array
        for component, inputs in program.inputs.items()
        for name, array in batch.feeds(inputs).items()
    }
