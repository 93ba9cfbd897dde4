"""An engine of TensorRT's in memory, and what is written down beside one."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Literal

from edgedec.devices.gpu.arena import CudaArena
from edgedec.devices.gpu.bindings import titled
from edgedec.devices.gpu.build import Profile
from edgedec.devices.gpu.log import SILENT, line, log_of
from edgedec.devices.gpu.signals import held_signals
from edgedec.errors import DeviceError
from edgedec.runtime.manifest import Limits
from edgedec.runtime.session import Port

Form = Literal["plugin", "native", "cuda"]
"""How a graph for GPUs has its codes (docs/gpu.md)."""
TYPES = {
    "FLOAT": "tensor(float)",
    "HALF": "tensor(float16)",
    "INT32": "tensor(int32)",
    "INT64": "tensor(int64)",
    "BOOL": "tensor(bool)",
}
"""TensorRT's word for a type that crosses an engine's border -> ONNX Runtime's."""


@dataclass(frozen=True)
class Wire:
    """An input or output of an engine, for readers of its facts.

    Attributes:
        type: of its numbers: ``float32``, ``float16``, ``int64``.
        shape: -1 where the length may vary.
        alias: of an output that is the memory of an input: which one.
    """

    type: str
    shape: tuple[int, ...]
    alias: str | None = None


@dataclass(frozen=True)
class Facts:
    """What is written beside an engine, as JSON (docs/gpu.md).

    Attributes:
        device: that it is for.
        form: how it has its codes.
        component: of the bundle.
        runtime: TensorRT's version.
        gpu: the GPU that it was built on and for; None for any that TensorRT-RTX knows.
        edgedec: the version of edgedec that made its graph.
        limits: how far it reaches.
        inputs: by name.
        outputs: by name.
        profiles: input -> least, usual and greatest shape, of every range that it has kernels for.
        expanded: bytes of codes that had to become floating-point numbers.
        size: of the engine, in bytes.
        sha256: of the engine.
    """

    device: str
    form: Form
    component: str
    runtime: str
    gpu: str | None
    edgedec: str
    limits: Limits
    inputs: dict[str, Wire]
    outputs: dict[str, Wire]
    profiles: tuple[dict[str, tuple[tuple[int, ...], ...]], ...]
    expanded: int
    size: int
    sha256: str

    def fits(self, engine: bytes) -> bool:
        """Whether an engine is the one that they are of."""
        return len(engine) == self.size and hashlib.sha256(engine).hexdigest() == self.sha256


class Engine:
    """An engine that is ready to run on the GPU.

    Args:
        module: ``tensorrt`` or ``tensorrt_rtx``.
        data: the engine, as it is written to a file.
        name: of it, for messages.
        arena: memory of the GPU.

    Attributes:
        module: as given.
        cuda: TensorRT's ``ICudaEngine``.
        inputs: as ONNX Runtime would declare them.
        outputs: likewise.
        profiles: ranges of shapes, in the engine's order.
        aliases: output -> input whose memory it must be given.

    Raises:
        DeviceError: TensorRT does not take it: it is of another version, GPU or system.
    """

    def __init__(self, module: Any, data: bytes, name: str, arena: CudaArena) -> None:
        arena.device.enter()
        self.module = module
        self._log = log_of(module)
        mark = self._log.mark()
        try:
            # It must outlive the engine.
            self._runtime = module.Runtime(self._log.logger)
            with held_signals():
                self.cuda = self._runtime.deserialize_cuda_engine(data)
        except Exception as error:  # of the bindings, which name no types
            raise self._refused(name, self._log.first(mark) or line(str(error))) from error
        if self.cuda is None:
            raise self._refused(name, self._log.first(mark) or SILENT)
        self.inputs: dict[str, Port] = {}
        self.outputs: dict[str, Port] = {}
        self.aliases: dict[str, str] = {}
        for index in range(self.cuda.num_io_tensors):
            self._read(self.cuda.get_tensor_name(index), name)
        self.profiles = tuple(map(self._profile, range(self.cuda.num_optimization_profiles)))

    def _read(self, tensor: str, name: str) -> None:
        """Note an input or output."""
        cuda, module = self.cuda, self.module
        kind = TYPES.get(cuda.get_tensor_dtype(tensor).name)
        if kind is None or cuda.get_tensor_location(tensor) != module.TensorLocation.DEVICE:
            raise DeviceError(f"{name} has an input or output {tensor!r} that edgedec cannot feed.")
        shape = tuple(None if length < 0 else length for length in cuda.get_tensor_shape(tensor))
        if cuda.get_tensor_mode(tensor) == module.TensorIOMode.INPUT:
            self.inputs[tensor] = Port(kind, shape)
            return
        self.outputs[tensor] = Port(kind, shape)
        alias = cuda.get_aliased_input_tensor(tensor)
        if alias:
            self.aliases[tensor] = alias

    def _profile(self, index: int) -> Profile:
        found = {}
        for tensor in self.inputs:
            least, usual, greatest = self.cuda.get_tensor_profile_shape(tensor, index)
            found[tensor] = (tuple(least), tuple(usual), tuple(greatest))
        return found

    def _refused(self, name: str, reason: str) -> DeviceError:
        return DeviceError(
            f"{titled(self.module)} does not load the engine {name} "
            f"({reason}): look at nvidia-smi for a driver that is too old for it."
        )

    def last_error(self) -> str:
        """What TensorRT said of its last failure."""
        return self._log.last()
