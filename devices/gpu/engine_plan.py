"""One engine ready to run over given shapes and addresses, as launches or as a CUDA graph."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgedec.devices.gpu.arena import ALIGNED, CudaArena
from edgedec.devices.gpu.driver import Address, CudaError, Driver
from edgedec.devices.gpu.engine import Engine
from edgedec.errors import DeviceError
from edgedec.runtime.resident.arena import Buffer
from edgedec.runtime.session import Array

logger = logging.getLogger(__name__)
CHOSEN = "next_token"
"""The output that several steps in one run give of each."""


class Staging:
    """Pinned arrays of the host beside each other, and as much of the GPU: one copy moves all.

    Args:
        arena: gives both.
        arrays: name -> an array of the shape and type that will be moved.

    Attributes:
        device: name -> address on the GPU.
        host: name -> pinned array.
        nbytes: of all.
    """

    def __init__(self, arena: CudaArena, arrays: Mapping[str, NDArray[Any]]) -> None:
        places: dict[str, int] = {}
        self.nbytes = 0
        for name, array in arrays.items():
            places[name] = self.nbytes
            self.nbytes += -(-array.nbytes // ALIGNED) * ALIGNED
        self._memory = arena.block(self.nbytes)
        self._pinned, whole = arena.pinned(self.nbytes)
        self.device = {name: self._memory.address + place for name, place in places.items()}
        self.host: dict[str, NDArray[Any]] = {
            name: whole[place : place + arrays[name].nbytes]
            .view(arrays[name].dtype)
            .reshape(arrays[name].shape)
            for name, place in places.items()
        }

    def upload(self, arena: CudaArena) -> None:
        """Put the copy to the GPU on the stream."""
        if self.nbytes:
            arena.device.upload(
                self._memory.address, self._pinned.address, self.nbytes, arena.stream
            )

    def download(self, arena: CudaArena) -> None:
        """Put the copy from the GPU on the stream."""
        if self.nbytes:
            arena.device.download(
                self._pinned.address, self._memory.address, self.nbytes, arena.stream
            )


class Recording:
    """Whether runs of an engine are recorded as CUDA graphs; until that fails once, they are."""

    def __init__(self) -> None:
        self.works = True


class Plan:
    """An execution context with shapes and addresses, and what goes to and from the host.

    It holds none of its caller's memory: addresses in its graph are valid as long as somebody holds
    the buffers that it was made for, or others at the same addresses.

    Args:
        engine: the engine.
        arena: memory of the GPU.
        context: TensorRT's ``IExecutionContext``, new, for this plan alone: a recorded graph uses
            what belongs to it.
        profile: index of the engine's profile that has the shapes.
        inputs: name -> array, for every input.
        outputs: name -> array for the outputs that are wanted.
        carried: output -> input that it becomes in the next step.
        steps: how often the engine runs in one run.
        recording: says whether the second run shall be recorded as a CUDA graph; None: not.
        name: of the engine, for messages.
    """

    def __init__(
        self,
        engine: Engine,
        arena: CudaArena,
        context: Any,
        profile: int,
        inputs: Mapping[str, Array],
        outputs: Mapping[str, Array],
        *,
        carried: Mapping[str, str],
        steps: int,
        recording: Recording | None,
        name: str,
    ) -> None:
        self._engine = engine
        self._arena = arena
        self._context = context
        self._steps = steps
        self._name = name
        self._recording = recording
        self._graph: Any = None
        self.runs = 0
        self._in = Staging(arena, _hosts(inputs))
        self._out = Staging(arena, _hosts(outputs))
        self._given = {**{k: _address(v) for k, v in inputs.items()}, **self._in.device}
        if not context.set_optimization_profile_async(profile, int(arena.stream)):
            raise self._failure("choose its profile")
        arena.device.synchronize(arena.stream)
        for port in engine.inputs:
            if not context.set_input_shape(port, inputs[port].shape):
                raise self._failure(f"take {port!r} of {inputs[port].shape}")
        wanted = {k: _address(v) for k, v in outputs.items()} | self._out.device
        if carried:
            # Its array is of all steps: each step's goes elsewhere first, and is copied from there.
            wanted.pop(CHOSEN, None)
        self._bind(wanted)
        self._copies = self._carry(carried, inputs)
        self._chosen = self._out.device.get(CHOSEN) if CHOSEN not in wanted else None

    def _bind(self, wanted: Mapping[str, Address]) -> None:
        """Give the context every address; what nobody wants gets memory of ours."""
        context, engine = self._context, self._engine
        insufficient = context.infer_shapes()
        if insufficient:
            raise self._failure(f"infer shapes without {', '.join(insufficient)}")
        addresses = dict(self._given)
        self._scratch: dict[str, Buffer] = {}
        self._sizes: dict[str, int] = {}
        for port, kind in engine.outputs.items():
            shape = tuple(context.get_tensor_shape(port))
            self._sizes[port] = prod(shape) * itemsize(kind.type)
            if port in wanted:
                addresses[port] = wanted[port]
            elif port in engine.aliases:
                addresses[port] = addresses[engine.aliases[port]]
            else:
                block = self._arena.block(self._sizes[port])
                self._scratch[port] = Buffer(shape, dtype_of(kind.type), block.address, block)
                addresses[port] = block.address
        for output, source in engine.aliases.items():
            if addresses[output] != addresses[source]:
                raise ValueError(f"{output} must be the memory of {source}")
        for port, address in addresses.items():
            if not context.set_tensor_address(port, address):
                raise self._failure(f"take memory for {port!r}")
        self._addresses = addresses
        need = context.update_device_memory_size_for_shapes()
        self._activations = self._arena.activations(max(need, 1))
        context.set_device_memory(self._activations.address, self._activations.nbytes)

    def _carry(
        self, carried: Mapping[str, str], inputs: Mapping[str, Array]
    ) -> list[tuple[Address, Address, int]]:
        found = []
        for output, into in carried.items():
            if isinstance(inputs[into], Buffer) or self._sizes[output] != inputs[into].nbytes:
                raise ValueError(f"{output} cannot be carried into {into}")
            found.append((self._addresses[into], self._addresses[output], self._sizes[output]))
        return found

    def run(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        """Run over arrays that have the shapes and addresses that the plan was made for.

        Raises:
            DeviceError: TensorRT fails.
        """
        arena = self._arena
        with arena.lock:
            arena.device.enter()
            for name, staged in self._in.host.items():
                np.copyto(staged, inputs[name], casting="no")  # type: ignore[arg-type]
            # The first run settles what TensorRT defers until a run, which no recording may hold.
            if self.runs == 1 and self._recording is not None and self._recording.works:
                self._capture(self._recording)
            if self._graph is None:
                self._enqueue()
            else:
                arena.device.launch(self._graph, arena.stream)
            arena.device.synchronize(arena.stream)
            self.runs += 1
            for name, staged in self._out.host.items():
                np.copyto(outputs[name], staged, casting="no")  # type: ignore[arg-type]

    def unasked(self) -> dict[str, NDArray[Any]]:
        """What the last run gave that nobody asked for."""
        return {name: self._arena.read(buffer) for name, buffer in self._scratch.items()}

    def _enqueue(self) -> None:
        """Put everything that a run is on the stream."""
        arena = self._arena
        self._in.upload(arena)
        for step in range(self._steps):
            if not self._context.execute_async_v3(int(arena.stream)):
                raise self._failure("run")
            if self._chosen is not None:
                size = self._sizes[CHOSEN]
                source = self._addresses[CHOSEN]
                arena.device.copy(self._chosen + step * size, source, size, arena.stream)
            if step + 1 < self._steps:
                for target, source, size in self._copies:
                    arena.device.copy(target, source, size, arena.stream)
        self._out.download(arena)

    def _capture(self, recording: Recording) -> None:
        """Record a run; where that fails, runs stay what they are."""
        arena = self._arena
        # Of TensorRT-RTX, which may still be compiling.
        capturable = getattr(self._context, "is_stream_capturable", None)
        if capturable is not None and not capturable(int(arena.stream)):
            self._give_up(recording, "TensorRT-RTX does not let this engine be recorded")
            return
        try:
            arena.device.begin_capture(arena.stream)
            try:
                self._enqueue()
            except BaseException:
                arena.device.drop_capture(arena.stream)
                raise
            self._graph = arena.device.end_capture(arena.stream)
        except (CudaError, DeviceError) as error:  # plain launches do the same
            reason = str(error) if isinstance(error, CudaError) else self._engine.last_error()
            self._give_up(recording, reason)
            return
        weakref.finalize(self, _forget, arena.device, self._graph).atexit = False

    def _give_up(self, recording: Recording, reason: str) -> None:
        """Say once that runs stay plain launches."""
        recording.works = False
        logger.warning(
            "%s runs without a CUDA graph, which is slower: recording one failed (%s).",
            *(self._name, reason),
        )

    def _failure(self, what: str) -> DeviceError:
        return DeviceError(
            f"TensorRT cannot {what} in {self._name} ({self._engine.last_error()}): delete the "
            "engine cache, or use --device cpu."
        )


def _forget(device: Driver, graph: Any) -> None:
    device.enter()
    device.forget(graph)


def itemsize(word: str) -> int:
    """Bytes of one number of a type of `Port`."""
    return dtype_of(word).itemsize


def dtype_of(word: str) -> np.dtype[Any]:
    """NumPy's type for a type of `Port`."""
    kind = word.removeprefix("tensor(").removesuffix(")")
    return np.dtype({"float": "float32"}.get(kind, kind))


def _hosts(arrays: Mapping[str, Array]) -> dict[str, NDArray[Any]]:
    return {name: array for name, array in arrays.items() if not isinstance(array, Buffer)}


def _address(array: Array) -> Address:
    return array.address if isinstance(array, Buffer) else 0
