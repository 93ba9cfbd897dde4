"""Stands for ``tensorrt`` or ``tensorrt_rtx``: engines whose graphs ONNX Runtime runs on the CPU.

It checks what the documentation demands and the real one does not always tell: all shapes and
addresses are given, addresses are aligned, caches are in place, memory is the GPU's and alive,
activations are large enough and used by one run at a time, and what is recorded was run before.
"""

from __future__ import annotations

import ctypes
import json
import zlib
from collections.abc import Callable
from enum import Enum
from math import prod
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
from tests.gpu.fakes import network
from tests.gpu.fakes.cuda import ALIGNED, FakeCuda

MAGIC = b"fake engine"
TYPES = {"FLOAT": "f4", "HALF": "f2", "INT32": "i4", "INT64": "i8", "BOOL": "?"}


class DataType(Enum):
    """Types of tensors."""

    FLOAT = 0
    HALF = 1
    INT32 = 3
    BOOL = 4
    INT64 = 8


class TensorLocation(Enum):
    """Whose memory a tensor is."""

    DEVICE = 0
    HOST = 1


class TensorIOMode(Enum):
    """Which way a tensor goes."""

    NONE = 0
    INPUT = 1
    OUTPUT = 2


class ExecutionContextAllocationStrategy(Enum):
    """Whose activations are."""

    STATIC = 0
    USER_MANAGED = 2


class Severity(Enum):
    """Kinds of messages."""

    ERROR = 1
    WARNING = 2
    INFO = 3


class ILogger:
    """Base of loggers."""

    def __init__(self) -> None:
        self.begun = True

    def log(self, severity: Severity, msg: str) -> None:
        raise NotImplementedError


class HostMemory(bytearray):
    """What the builder gives: anything with the buffer protocol."""


class FakeTrt:
    """The module.

    Args:
        cuda: the driver's fake.
        name: ``tensorrt`` or ``tensorrt_rtx``.
        version: its version.

    Attributes:
        registered: whether our plugin is registered.
        built: how many engines were built.
        loaded: how many were loaded.
        flags: of the last network.
        damage: changes outputs before they are written; None for none.
        refuse: said in the place of building; None to build.
    """

    DataType = DataType
    TensorLocation = TensorLocation
    TensorIOMode = TensorIOMode
    ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy

    def __init__(self, cuda: FakeCuda, name: str, version: str) -> None:
        self.cuda = cuda
        self.__name__, self.__version__ = name, version
        self.ILogger = ILogger
        self.registered = False
        self.built = self.loaded = 0
        self.flags = 0
        self.damage: Callable[[str, np.ndarray[Any, Any]], Any] | None = None
        self.refuse: str | None = None
        self.logger: ILogger | None = None
        self.rtx = name == "tensorrt_rtx"
        major = int(version.split(".", maxsplit=1)[0])
        # Numbers differ between versions, as the real ones do.
        names = ["STRONGLY_TYPED", "PREFER_JIT_PYTHON_PLUGINS", "PREFER_AOT_PYTHON_PLUGINS"]
        first = 1 if major == 10 and not self.rtx else 0
        members = dict(zip(names[: 1 if self.rtx else 3], range(first, 9), strict=False))
        self.NetworkDefinitionCreationFlag = SimpleNamespace(**members)
        self.must_be_typed = 1 << members["STRONGLY_TYPED"] if first else 0
        flags = {"TF32": 5, **({"REQUIRE_USER_ALLOCATION": 24} if self.rtx else {})}
        self.BuilderFlag = SimpleNamespace(**flags)
        if self.rtx:
            self.IRuntimeCache = RuntimeCache
            self.DynamicShapesKernelSpecializationStrategy = Specialization

    def Builder(self, logger: ILogger) -> Builder:  # noqa: N802 - the bindings' names
        if not self.rtx and not self.cuda.gpus:
            raise TypeError("pybind11::init(): factory function returned nullptr")
        return Builder(self, self._only(logger))

    def OnnxParser(self, net: Network, logger: ILogger) -> OnnxParser:  # noqa: N802
        return OnnxParser(self, net, self._only(logger))

    def Runtime(self, logger: ILogger) -> Runtime:  # noqa: N802
        return Runtime(self, self._only(logger))

    def _only(self, logger: ILogger) -> ILogger:
        """TensorRT keeps the first logger that it gets, and ignores all others."""
        if self.logger not in {None, logger}:
            raise self.cuda.breach("a second logger, which would be told nothing")
        self.logger = logger
        return logger


class Network:
    """A parsed graph."""

    def __init__(self) -> None:
        self.model: Any = None
        self.warnings: list[str] = []

    @property
    def num_inputs(self) -> int:
        return len(self.model.graph.input)

    def get_input(self, index: int) -> Any:
        value = self.model.graph.input[index]
        return SimpleNamespace(name=value.name, shape=network.shape(value))


class OnnxParser:
    """Reads ONNX into a network."""

    def __init__(self, trt: FakeTrt, net: Network, logger: ILogger) -> None:
        self._trt, self._net, self._logger = trt, net, logger
        self._errors: list[network.ParseError] = []

    def parse_from_file(self, path: str) -> bool:
        return self._read(Path(path))

    def parse(self, data: bytes) -> bool:
        return self._read(data)

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> Any:
        error = self._errors[index]
        return SimpleNamespace(
            node=lambda: error.index,
            node_name=lambda: error.node.name,
            node_operator=lambda: error.node.op_type,
            desc=lambda: str(error),
        )

    def _read(self, graph: bytes | Path) -> bool:
        model = network.read(graph)
        if self._trt.rtx and any(node.domain == "edgedec" for node in model.graph.node):
            raise self._trt.cuda.breach("TensorRT-RTX ends the process at a plugin's node")
        try:
            warnings = network.check(model, plugins=self._trt.registered)
        except network.ParseError as error:
            self._errors.append(error)
            return False
        self._net.model, self._net.warnings = model, warnings
        return True


class Profile(dict[str, tuple[tuple[int, ...], ...]]):
    """Ranges of shapes."""

    def set_shape(
        self, name: str, least: tuple[int, ...], usual: tuple[int, ...], most: tuple[int, ...]
    ) -> None:
        self[name] = (least, usual, most)


class Config:
    """How to build."""

    def __init__(self) -> None:
        self.profiles: list[Profile] = []
        self.flags: set[Any] = set()

    def add_optimization_profile(self, profile: Profile) -> int:
        for shapes in profile.values():
            if not all(a <= b <= c for a, b, c in zip(*shapes, strict=True)):
                return -1
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def set_flag(self, flag: Any) -> None:
        self.flags.add(flag)


class Builder:
    """Builds engines."""

    def __init__(self, trt: FakeTrt, logger: Any) -> None:
        if not isinstance(logger, ILogger) or not getattr(logger, "begun", False):
            raise TypeError("ILogger.__init__() must be called when overriding __init__")
        self._trt, self._logger = trt, logger

    def create_network(self, flags: int) -> Network:
        if flags & self._trt.must_be_typed != self._trt.must_be_typed:
            raise self._trt.cuda.breach("TensorRT 10 may choose types, unless the network has them")
        self._trt.flags = flags
        return Network()

    def create_builder_config(self) -> Config:
        return Config()

    def create_optimization_profile(self) -> Profile:
        return Profile()

    def build_serialized_network(self, net: Network, config: Config) -> HostMemory | None:
        reason = self._trt.refuse or self._refused(net, config)
        if reason:
            self._logger.log(Severity.ERROR, reason)
            return None
        for warning in net.warnings:
            self._logger.log(Severity.WARNING, warning)
        self._trt.built += 1
        cuda = self._trt.cuda
        head = {
            "version": self._trt.__version__,
            "gpu": None if self._trt.rtx else [cuda.name, cuda.sm],
            "profiles": config.profiles,
            "plugin": any(node.domain for node in net.model.graph.node),
            "recordable": bool(config.flags) or not self._trt.rtx,
        }
        text = json.dumps(head).encode()
        body = zlib.compress(net.model.SerializeToString(), 1)
        return HostMemory(MAGIC + len(text).to_bytes(8, "little") + text + body)

    def _refused(self, net: Network, config: Config) -> str | None:
        if not config.profiles:
            return "Network has dynamic or shape inputs, but no optimization profile"
        for value in net.model.graph.input:
            given = network.shape(value)
            if all(isinstance(length, int) for length in given):
                continue
            for profile in config.profiles:
                if value.name not in profile:
                    return f"dynamic input {value.name} is missing dimensions in profile"
                for shape in profile[value.name]:
                    fits = len(shape) == len(given) and all(
                        isinstance(a, str) or a == b for a, b in zip(given, shape, strict=True)
                    )
                    if not fits:
                        return f"profile has {shape} for {value.name} {given}"
        return None


class Runtime:
    """Loads engines."""

    def __init__(self, trt: FakeTrt, logger: ILogger) -> None:
        self._trt, self._logger = trt, logger

    def deserialize_cuda_engine(self, data: bytes) -> Engine | None:
        cuda = self._trt.cuda
        if not data.startswith(MAGIC):
            self._logger.log(Severity.ERROR, "the engine plan file is damaged")
            return None
        begin = len(MAGIC) + 8
        end = begin + int.from_bytes(data[len(MAGIC) : begin], "little")
        head = json.loads(data[begin:end])
        gpu = None if self._trt.rtx else [cuda.name, cuda.sm]
        if head["version"] != self._trt.__version__ or head["gpu"] != gpu:
            self._logger.log(Severity.ERROR, "the engine plan file is not compatible")
            return None
        if head["plugin"] and not self._trt.registered:
            self._logger.log(Severity.ERROR, "could not find the plugin's creator")
            return None
        self._trt.loaded += 1
        return Engine(self._trt, head, zlib.decompress(data[end:]), self._logger)


class RuntimeCache:
    """What TensorRT-RTX has compiled."""

    def __init__(self) -> None:
        self.content = b""

    def serialize(self) -> HostMemory:
        return HostMemory(b"kernels" + self.content)

    def deserialize(self, blob: bytes) -> bool:
        self.content = blob.removeprefix(b"kernels")
        return blob.startswith(b"kernels")


class Specialization(Enum):
    """When TensorRT-RTX compiles kernels for the shapes at hand."""

    LAZY = 0
    EAGER = 1
    NONE = 2


class RuntimeConfig:
    """How contexts are made."""

    def __init__(self) -> None:
        self.strategy = ExecutionContextAllocationStrategy.STATIC
        self.dynamic_shapes_kernel_specialization_strategy = Specialization.LAZY
        self.cache: RuntimeCache | None = None

    def set_execution_context_allocation_strategy(
        self, strategy: ExecutionContextAllocationStrategy
    ) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> RuntimeCache:
        return RuntimeCache()

    def set_runtime_cache(self, cache: RuntimeCache) -> bool:
        self.cache = cache
        return True


class Engine:
    """A loaded engine."""

    def __init__(self, trt: FakeTrt, head: Any, model: bytes, logger: ILogger) -> None:
        self.trt, self.logger, self.head = trt, logger, head
        proto = network.read(model)
        self.ports = {v.name: v for v in (*proto.graph.input, *proto.graph.output)}
        self.fed = [v.name for v in proto.graph.input]
        self.given = [v.name for v in proto.graph.output]
        self.aliases = network.aliases(proto)
        self.profiles = [
            {name: [tuple(shape) for shape in shapes] for name, shapes in profile.items()}
            for profile in head["profiles"]
        ]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        self.session = onnxruntime.InferenceSession(network.for_cpu(network.folded(proto)), options)
        self.num_io_tensors = len(self.ports)
        self.num_optimization_profiles = len(self.profiles)

    def get_tensor_name(self, index: int) -> str:
        names: list[str] = [*self.fed, *self.given]
        return names[index]

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType[network.kind(self.ports[name])]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(n if isinstance(n, int) else -1 for n in network.shape(self.ports[name]))

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self.fed else TensorIOMode.OUTPUT

    def get_tensor_location(self, name: str) -> TensorLocation:
        return TensorLocation.DEVICE

    def get_tensor_profile_shape(self, name: str, index: int) -> list[tuple[int, ...]]:
        fixed = self.get_tensor_shape(name)
        return self.profiles[index].get(name, [fixed, fixed, fixed])

    def get_aliased_input_tensor(self, name: str) -> str | None:
        return self.aliases.get(name)

    def create_runtime_config(self) -> RuntimeConfig:
        return RuntimeConfig()

    def create_execution_context(self, how: Any) -> Context:
        strategy = how.strategy if isinstance(how, RuntimeConfig) else how
        if strategy != ExecutionContextAllocationStrategy.USER_MANAGED:
            raise self.trt.cuda.breach("every context would have activations of its own")
        if not isinstance(how, RuntimeConfig):
            return Context(self)
        if how.cache is not None:
            how.cache.content += b"."
        lazy = how.dynamic_shapes_kernel_specialization_strategy == Specialization.LAZY
        return RtxContext(self, lazy=lazy)


class Context:
    """An engine with shapes and addresses."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._cuda = engine.trt.cuda
        self._profile = 0
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._memory: tuple[int, int] | None = None
        self._state = 0  # changes with all that a recording depends on
        self._ran: int | None = None

    def set_optimization_profile_async(self, index: int, stream: Any) -> bool:
        if (
            not isinstance(stream, int)
            or self._cuda.recording()
            or not 0 <= index < len(self._engine.profiles)
        ):
            return False
        self._profile, self._shapes = index, {}
        self._change()
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        least, _, most = self._engine.get_tensor_profile_shape(name, self._profile)
        fits = len(shape) == len(least) and all(
            low <= length <= high for low, length, high in zip(least, shape, most, strict=True)
        )
        if not fits:
            message = f"{name} {shape} does not satisfy profile {self._profile}"
            self._engine.logger.log(Severity.ERROR, message)
            return False
        self._shapes[name] = shape
        self._change()
        return True

    def infer_shapes(self) -> list[str]:
        missing = [name for name in self._engine.fed if name not in self._shapes]
        if not missing:
            self._lengths()
        return missing

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if name in self._shapes:
            return self._shapes[name]
        found = network.lengths(network.shape(self._engine.ports[name]), self._lengths())
        return (-1,) if found is None else found

    def set_tensor_address(self, name: str, address: int) -> bool:
        if name not in self._engine.ports or not address or address % ALIGNED:
            return False
        self._addresses[name] = address
        return True

    def update_device_memory_size_for_shapes(self) -> int:
        if self.infer_shapes():
            raise self._cuda.breach("the size of activations without all shapes")
        return 256 * (1 + sum(prod(shape) for shape in self._shapes.values()) % 97)

    def set_device_memory(self, address: int, size: int) -> None:
        need = self.update_device_memory_size_for_shapes()
        if address % ALIGNED or size < need:
            raise self._cuda.breach(f"{size} bytes for {need} of activations at {address:#x}")
        self._memory = (address, size)
        self._change()

    def execute_async_v3(self, stream: int) -> bool:
        engine, cuda = self._engine, self._cuda
        missing = [name for name in engine.ports if name not in self._addresses]
        if missing or self.infer_shapes() or self._memory is None or not stream:
            raise cuda.breach(f"a run without everything that it needs: {missing}")
        for output, source in engine.aliases.items():
            if self._addresses[output] != self._addresses[source]:
                raise cuda.breach(f"{output} must be the memory of {source}")
        if cuda.recording():
            if self._ran != self._state:
                raise cuda.breach("a recording of what was not run before")
            if not engine.head["recordable"]:
                return False
        self._ran = self._state
        cuda.put(stream, self._operation(dict(self._addresses), self._memory, self._state))
        return True

    def _change(self) -> None:
        self._state += 1

    def _operation(
        self, addresses: dict[str, int], memory: tuple[int, int], state: int
    ) -> Callable[[], None]:
        """A run with what the context was given until now."""
        shapes = {name: self.get_tensor_shape(name) for name in self._engine.ports}

        def run() -> None:
            if state != self._state:
                raise self._cuda.breach("the context was changed after it was recorded")
            self._cuda.on_device(*memory, "activations")
            ctypes.memset(memory[0], 0xA5, memory[1])
            arrays = {name: self._array(name, addresses[name], shapes[name]) for name in shapes}
            feeds = {name: arrays[name].copy() for name in self._engine.fed}
            found = self._engine.session.run(self._engine.given, feeds)
            for name, values in zip(self._engine.given, found, strict=True):
                if values.shape != shapes[name]:
                    raise self._cuda.breach(f"{name} is {values.shape}, not {shapes[name]}")
                damage = self._engine.trt.damage
                arrays[name][...] = values if damage is None else damage(name, values)

        return run

    def _array(self, name: str, address: int, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
        dtype = np.dtype(TYPES[network.kind(self._engine.ports[name])])
        nbytes = prod(shape) * dtype.itemsize
        self._cuda.on_device(address, nbytes, name)
        raw: Any = (ctypes.c_uint8 * nbytes).from_address(address)
        return np.frombuffer(raw, dtype).reshape(shape)

    def _lengths(self) -> dict[str, int]:
        """The lengths that names stand for."""
        found: dict[str, int] = {}
        for name, shape in self._shapes.items():
            for word, length in zip(network.shape(self._engine.ports[name]), shape, strict=True):
                if isinstance(word, str) and found.setdefault(word, length) != length:
                    raise RuntimeError(f"{word} is {found[word]} and {length}")
        return found


class RtxContext(Context):
    """A context of TensorRT-RTX, which compiles kernels for shapes while it runs."""

    def __init__(self, engine: Engine, *, lazy: bool) -> None:
        super().__init__(engine)
        self._lazy = lazy

    def is_stream_capturable(self, stream: int) -> bool:
        return bool(stream) and bool(self._engine.head["recordable"])

    def execute_async_v3(self, stream: int) -> bool:
        if self._lazy and self._cuda.recording():
            raise self._cuda.breach("a recording of kernels that are about to be replaced")
        return super().execute_async_v3(stream)
