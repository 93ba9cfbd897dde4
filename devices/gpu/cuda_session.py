"""A graph in ONNX Runtime's CUDA provider, with every input and output in the GPU's memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgedec.devices.gpu.arena import CudaArena
from edgedec.devices.gpu.driver import Address, CudaError
from edgedec.devices.gpu.engine_plan import CHOSEN, Staging
from edgedec.devices.gpu.nonsense import refuse_nonsense, unwanted
from edgedec.errors import DeviceError, EdgedecError
from edgedec.runtime.resident.arena import Buffer
from edgedec.runtime.session import Array, Binding, OnnxSession, host_array

Copy = tuple[Address, Address, int]
"""Where to, where from, bytes."""


class CudaSession(OnnxSession):
    """A session whose work is on the arena's stream.

    ONNX Runtime would copy the host's arrays once, when they are bound, and not see what is written
    into them later. So they are moved here, before and after every run.

    Args:
        name: the graph's file, for messages.
        inference: an ``onnxruntime.InferenceSession`` on the arena's stream.
        arena: memory of the GPU.
    """

    def __init__(self, name: str, inference: Any, arena: CudaArena) -> None:
        super().__init__(name, inference, self._of_cuda, memory=arena.kind)
        self._arena = arena
        self._in_range = False

    def bind(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> Binding:
        """Let the graph read and write arrays."""
        return self._steps(inputs, outputs, {}, 1)

    def bind_steps(
        self,
        inputs: Mapping[str, Array],
        outputs: Mapping[str, Array],
        carried: Mapping[str, str],
        steps: int,
    ) -> Binding:
        """Let one run be several of the graph; what is carried stays on the GPU."""
        return self._steps(inputs, outputs, carried, steps)

    def _steps(
        self,
        inputs: Mapping[str, Array],
        outputs: Mapping[str, Array],
        carried: Mapping[str, str],
        steps: int,
    ) -> Binding:
        arena = self._arena
        inputs = {name: inputs[name] for name in self.inputs}
        outputs = dict(outputs)
        given, taken = Staging(arena, _hosts(inputs)), Staging(arena, _hosts(outputs))
        reads = {name: _placed(array, given, name) for name, array in inputs.items()}
        writes = {name: _placed(array, taken, name) for name, array in outputs.items()}
        before, after = [], []
        for name, into in carried.items():
            array = host_array(into, inputs[into])
            writes[name] = found = arena.empty(array.shape, array.dtype)
            before.append((given.device[into], found.address, found.nbytes))
        if carried:
            chosen = host_array(CHOSEN, outputs[CHOSEN])
            if CHOSEN not in carried:
                writes[CHOSEN] = arena.empty(chosen.shape[1:], chosen.dtype)
            size = prod(chosen.shape[1:]) * chosen.dtype.itemsize
            after = [
                (taken.device[CHOSEN] + step * size, writes[CHOSEN].address, size)
                for step in range(steps)
            ]
        if not self._in_range:
            more = unwanted((self.inputs, self.outputs), inputs, writes)
            writes |= {name: arena.empty(*like) for name, like in more.items()}
        launch, alive = self._bound(reads, writes)
        once = partial(self._run, launch, (inputs, given), (outputs, taken), (before, after), steps)
        return Binding(self, partial(self._looked_at, once, writes), alive)

    def _looked_at(self, run: Callable[[], None], writes: Mapping[str, Buffer]) -> None:
        """Run, and look at what the graph's first run gave."""
        run()
        if self._in_range:
            return
        refuse_nonsense(self.name, {name: self._arena.read(b) for name, b in writes.items()})
        self._in_range = True

    def _run(
        self,
        launch: Callable[[], object],
        reads: tuple[Mapping[str, Array], Staging],
        writes: tuple[Mapping[str, Array], Staging],
        copies: tuple[list[Copy], list[Copy]],
        steps: int,
    ) -> None:
        """Move the host's arrays in, run, and move them out.

        Args:
            launch: puts the graph on the stream.
            reads: arrays and where those of the host are moved through.
            writes: likewise.
            copies: what each step but the first begins with, and the one that each step ends with.
            steps: how many.
        """
        arena, (before, after) = self._arena, copies
        (inputs, given), (outputs, taken) = reads, writes
        with arena.lock:
            arena.device.enter()
            for name, staged in given.host.items():
                np.copyto(staged, host_array(name, inputs[name]), casting="no")
            given.upload(arena)
            for step in range(steps):
                for copy in before if step else ():
                    arena.device.copy(*copy, arena.stream)
                launch()
                for copy in after[step : step + 1]:
                    arena.device.copy(*copy, arena.stream)
            taken.download(arena)
            arena.device.synchronize(arena.stream)
            for name, staged in taken.host.items():
                np.copyto(host_array(name, outputs[name]), staged, casting="no")

    def _of_cuda(self, error: Exception) -> EdgedecError | None:
        """What an error of CUDA's means to the user; None of one that is not."""
        if isinstance(error, EdgedecError):
            return error
        if not isinstance(error, CudaError) and "CUDA" not in str(error).partition("\n")[0]:
            return None
        return DeviceError(
            f"the GPU failed while {self.name} ran ({str(error).splitlines()[0][:300]}): look at "
            "nvidia-smi, start again, and use --device cpu if it stays."
        )


def _hosts(arrays: Mapping[str, Array]) -> dict[str, NDArray[Any]]:
    return {name: array for name, array in arrays.items() if not isinstance(array, Buffer)}


def _placed(array: Array, staging: Staging, name: str) -> Buffer:
    """Where the GPU finds an array."""
    if isinstance(array, Buffer):
        return array
    return Buffer(array.shape, array.dtype, staging.device[name], staging)
