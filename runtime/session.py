"""One opened graph, fed through pointers: nothing is copied on the way in or out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgedec.errors import BundleError, EdgedecError, InputError
from edgedec.runtime.spans import Spans

Explain = Callable[[Exception], EdgedecError | None]
"""What a device makes of an error of ONNX Runtime's; None of one that it does not know."""


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


class Session:
    """An ONNX Runtime session whose inputs and outputs are NumPy memory.

    ``run()`` with feeds copies caches and costs 80 us for 49 tensors where bound buffers cost 10;
    binding the same memory as input and output is what makes a cache update happen in place.

    Args:
        name: the graph's file, for messages.
        inference: an ``onnxruntime.InferenceSession`` on a device that reads host memory.
        explain: what the device knows of an error of a run; None for nothing.

    Attributes:
        component: what its runs are called.
        spans: are told of every run.
    """

    def __init__(self, name: str, inference: Any, explain: Explain = lambda _: None) -> None:
        self.name = name
        self._explain = explain
        self.component = name.removesuffix(".onnx")
        self.spans = Spans()
        self._inference = inference
        self.inputs = {i.name: Port(i.type, tuple(i.shape)) for i in inference.get_inputs()}
        self.outputs = {o.name: Port(o.type, tuple(o.shape)) for o in inference.get_outputs()}

    def bind(
        self, inputs: Mapping[str, NDArray[Any]], outputs: Mapping[str, NDArray[Any]]
    ) -> Binding:
        """Let the graph read and write arrays, all of them C-contiguous.

        Several bindings of a session live side by side; each keeps its arrays alive.

        Args:
            inputs: name -> array, for every input of the graph; others are left out.
            outputs: name -> array for the outputs that are wanted.
        """
        return Binding(
            self.name,
            self.component,
            self._inference,
            {name: inputs[name] for name in self.inputs},
            outputs,
            self.spans,
            self._explain,
        )

    def end_records(self) -> Path:
        """The file with ONNX Runtime's records of every operator, which ends here.

        Only of a session that was opened with ``records``.
        """
        return Path(self._inference.end_profiling())


class Binding:
    """A graph and the memory that it reads and writes; later changes to that are seen."""

    def __init__(
        self,
        name: str,
        component: str,
        inference: Any,
        inputs: Mapping[str, NDArray[Any]],
        outputs: Mapping[str, NDArray[Any]],
        spans: Spans,
        explain: Explain,
    ) -> None:
        self._name = name
        self._explain = explain
        self._component = component
        self._spans = spans
        self._inference = inference
        self._binding = inference.io_binding()
        # The runtime holds bare pointers: whatever is bound must live as long as its binding.
        self._alive = [*inputs.values(), *outputs.values()]
        for bind, arrays in (
            (self._binding.bind_input, inputs),
            (self._binding.bind_output, outputs),
        ):
            for port, array in arrays.items():
                if not array.flags.c_contiguous:
                    raise ValueError(f"{port} is not C-contiguous")
                bind(port, "cpu", 0, array.dtype, array.shape, array.ctypes.data)

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
            self._inference.run_with_iobinding(self._binding)
        except Exception as error:  # ONNX Runtime's exceptions share no other base
            known = self._explain(error)
            if known is not None:
                raise known from error
            reason = first_line(error)
            if "alloc" in reason:
                raise InputError(
                    f"there is not enough memory to run {self._name} on this input: use a shorter "
                    f"one, or fewer at a time ({reason})."
                ) from error
            raise BundleError(
                f"{self._name} fails in ONNX Runtime ({reason}): export the bundle again."
            ) from error
        seconds = perf_counter() - began
        if self._spans.on:
            self._spans.ran(self._component, began, seconds)
        return seconds


def first_line(error: Exception) -> str:
    """What ONNX Runtime says, without the traces that some of its messages carry."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    # It quotes names from graphs, and a terminal obeys control characters.
    return "".join(letter if letter.isprintable() else "?" for letter in lines[0][:300])


def empty(*shape: int) -> NDArray[np.float32]:
    """Float32 memory for an output."""
    return np.empty(shape, np.float32)
