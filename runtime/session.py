"""One opened graph, and the memory that it reads and writes: nothing is copied on the way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgedec.errors import BundleError, EdgedecError, InputError
from edgedec.runtime.resident.arena import Buffer
from edgedec.runtime.spans import Spans

Explain = Callable[[Exception], EdgedecError | None]
"""What a device makes of an error of its runtime's; None of one that it does not know."""
Array = NDArray[Any] | Buffer
"""What can be bound: the host's memory, which is read and written in every run, or the device's."""


@dataclass(frozen=True)
class Port:
    """An input or output as its graph declares it.

    ``type`` is ONNX Runtime's word for it, such as ``tensor(int64)``; in ``shape``, a number is a
    fixed length and anything else one that may vary.
    """

    type: str
    shape: tuple[str | int | None, ...]

    @property
    def lengths(self) -> tuple[int, ...]:
        """The shape of a port whose lengths are all fixed."""
        return tuple(length for length in self.shape if isinstance(length, int))


class Session(ABC):
    """An opened graph.

    Args:
        name: the graph's file, for messages.
        inputs: of the graph, by name.
        outputs: of the graph, by name.

    Attributes:
        component: what its runs are called.
        spans: are told of every run.
    """

    def __init__(self, name: str, inputs: dict[str, Port], outputs: dict[str, Port]) -> None:
        self.name = name
        self.component = name.removesuffix(".onnx")
        self.spans = Spans()
        self.inputs = inputs
        self.outputs = outputs

    @abstractmethod
    def bind(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> Binding:
        """Let the graph read and write arrays, all of them C-contiguous.

        Several bindings of a session live side by side; each keeps its arrays alive. NumPy arrays
        are the host's memory: they are read and written in every run. A `Buffer` is the device's,
        and used where it is; the same one as input and output makes an update happen in place.

        Args:
            inputs: name -> array, for every input of the graph; others are left out.
            outputs: name -> array for the outputs that are wanted.
        """

    @abstractmethod
    def bind_steps(
        self,
        inputs: Mapping[str, Array],
        outputs: Mapping[str, Array],
        carried: Mapping[str, str],
        steps: int,
    ) -> Binding:
        """Let one run of the binding be several of the graph, each fed what the last one gave.

        Args:
            inputs: as of `bind`; what is carried into is read in the first run only, and the
                caller's arrays stay as they are.
            outputs: as of `bind`; the array for ``next_token`` is the host's, int64
                ``[steps, rows, 1]``, and gets every run's.
            carried: output -> input of the same shape and type that it becomes in the next run.
            steps: how many runs.
        """

    @abstractmethod
    def end_records(self) -> Path:
        """The file with the runtime's records of every operator, which ends here.

        Only of a session that was opened with ``records``.
        """

    def explain(self, error: Exception) -> EdgedecError | None:  # noqa: ARG002 - knows none
        """What an error of a run means to the user; None of one that is raised as it is."""
        return None


class Binding:
    """A graph and the memory that it reads and writes; later changes to that are seen.

    Args:
        session: whose graph it is.
        launch: runs the graph, and returns when its outputs are there.
        alive: what must live as long as the binding: runtimes hold bare pointers.
    """

    def __init__(self, session: Session, launch: Callable[[], object], alive: object) -> None:
        self._launch = launch
        self._alive = alive
        self._component = session.component
        self._spans = session.spans
        self._explain = session.explain

    def run(self) -> float:
        """Run once over what is bound.

        Returns:
            The seconds that it took.

        Raises:
            BundleError: the graph fails on it.
            InputError: there is not enough memory for it.
        """
        began = perf_counter()
        try:
            self._launch()
        except Exception as error:  # those of runtimes share no other base
            known = self._explain(error)
            if known is None:
                raise
            raise known from error
        seconds = perf_counter() - began
        if self._spans.on:
            self._spans.ran(self._component, began, seconds)
        return seconds


class OnnxSession(Session):
    """An ONNX Runtime session whose inputs and outputs are bound by pointer.

    ``run()`` with feeds copies caches and costs 80 us for 49 tensors where bound buffers cost 10;
    binding the same memory as input and output is what makes a cache update happen in place.

    Args:
        name: the graph's file, for messages.
        inference: an ``onnxruntime.InferenceSession`` on a device that reads host memory.
        explain: what the device knows of an error of a run; None for nothing.
        memory: ONNX Runtime's word for where a `Buffer` lies.
    """

    def __init__(
        self,
        name: str,
        inference: Any,
        explain: Explain = lambda _: None,
        *,
        memory: str = "cpu",
    ) -> None:
        super().__init__(
            name,
            {i.name: Port(i.type, tuple(i.shape)) for i in inference.get_inputs()},
            {o.name: Port(o.type, tuple(o.shape)) for o in inference.get_outputs()},
        )
        self._inference = inference
        self._known = explain
        self._memory = memory

    def bind(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> Binding:
        """Let the graph read and write arrays."""
        return Binding(self, *self._bound(inputs, outputs))

    def bind_steps(
        self,
        inputs: Mapping[str, Array],
        outputs: Mapping[str, Array],
        carried: Mapping[str, str],
        steps: int,
    ) -> Binding:
        """Let one run be several of the graph; what is carried goes through the host's memory."""
        given = {name: host_array(name, inputs[name]) for name in carried.values()}
        fed = {name: array.copy() for name, array in given.items()}
        found = {name: np.empty_like(fed[into]) for name, into in carried.items()}
        chosen = host_array("next_token", outputs["next_token"])
        token = found.setdefault("next_token", np.empty(chosen.shape[1:], np.int64))
        launch, alive = self._bound({**inputs, **fed}, {**outputs, **found})

        def run() -> None:
            for name, array in fed.items():
                array[...] = given[name]
            for step in range(steps):
                launch()
                chosen[step] = token
                for name, into in carried.items():
                    fed[into][...] = found[name]

        return Binding(self, run, alive)

    def end_records(self) -> Path:
        """The file with ONNX Runtime's records of every operator, which ends here."""
        return Path(self._inference.end_profiling())

    def explain(self, error: Exception) -> EdgedecError:
        """What the device knows of the error, or that memory is short, or that the graph fails."""
        known = self._known(error)
        if known is not None:
            return known
        reason = first_line(error)
        if "alloc" in reason:
            return InputError(
                f"there is not enough memory to run {self.name} on this input: use a shorter one, "
                f"or fewer at a time ({reason})."
            )
        return BundleError(
            f"{self.name} fails in ONNX Runtime ({reason}): export the bundle again."
        )

    def _bound(
        self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]
    ) -> tuple[Callable[[], object], object]:
        """What runs the graph over arrays, and what must live as long."""
        binding = self._inference.io_binding()
        inputs = {name: inputs[name] for name in self.inputs}
        for bind, arrays in ((binding.bind_input, inputs), (binding.bind_output, outputs)):
            for port, array in arrays.items():
                if isinstance(array, Buffer):
                    bind(port, self._memory, 0, array.dtype, array.shape, array.address)
                elif not array.flags.c_contiguous:
                    raise ValueError(f"{port} is not C-contiguous")
                else:
                    bind(port, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        return partial(self._inference.run_with_iobinding, binding), (inputs, dict(outputs))


def host_array(name: str, array: Array) -> NDArray[Any]:
    """The array of a port that must be the host's memory; raises TypeError for a `Buffer`."""
    if isinstance(array, Buffer):
        raise TypeError(f"{name} must be the host's memory")
    return array


def first_line(error: Exception) -> str:
    """What ONNX Runtime says, without the traces that some of its messages carry."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    # It quotes names from graphs, and a terminal obeys control characters.
    return "".join(letter if letter.isprintable() else "?" for letter in lines[0][:300])


def empty(*shape: int) -> NDArray[np.float32]:
    """Float32 memory for an output."""
    return np.empty(shape, np.float32)
