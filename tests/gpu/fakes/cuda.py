"""Stands for ``cuda.bindings.driver`` of a machine with one GPU, whose memory is the host's.

It is stricter than a driver: what is put on a stream runs only when the stream is waited for, every
address is looked up, and memory that was freed is never given again. A breach is raised, and kept
in `violations`, where code that catches it cannot hide it.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from enum import IntEnum
from itertools import count
from time import perf_counter
from typing import Any

ALIGNED = 256
Operation = Callable[[], None]


class BreachError(AssertionError):
    """Something that the real driver would not forgive, or not tell."""


class CUresult(IntEnum):
    """What calls return."""

    CUDA_SUCCESS = 0
    CUDA_ERROR_INVALID_VALUE = 1
    CUDA_ERROR_OUT_OF_MEMORY = 2
    CUDA_ERROR_INVALID_CONTEXT = 201
    CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED = 900
    CUDA_ERROR_STREAM_CAPTURE_INVALIDATED = 901


OK = CUresult.CUDA_SUCCESS


class CUdevice_attribute(IntEnum):  # noqa: N801 - the bindings' name
    """What can be asked of a GPU."""

    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR = 75
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR = 76


class CUstream_flags(IntEnum):  # noqa: N801
    """Kinds of streams."""

    CU_STREAM_NON_BLOCKING = 1


class CUevent_flags(IntEnum):  # noqa: N801
    """Kinds of events."""

    CU_EVENT_DEFAULT = 0


class CUstreamCaptureMode(IntEnum):
    """Whom a recording forbids what."""

    CU_STREAM_CAPTURE_MODE_THREAD_LOCAL = 1


class Memory:
    """Pieces of memory at real addresses."""

    def __init__(self) -> None:
        self.live: dict[int, int] = {}
        self._held: dict[int, Any] = {}

    def new(self, nbytes: int) -> int:
        raw = ctypes.create_string_buffer(nbytes + ALIGNED)
        address = -(-ctypes.addressof(raw) // ALIGNED) * ALIGNED
        ctypes.memset(address, 0xCD, nbytes)  # never zero by chance
        self.live[address] = nbytes
        self._held[address] = raw  # for good: no address is given twice
        return address

    def free(self, address: int) -> bool:
        nbytes = self.live.pop(address, None)
        if nbytes is None:
            return False
        ctypes.memset(address, 0xDD, nbytes)
        return True

    def holds(self, address: int, nbytes: int) -> bool:
        return any(
            begin <= address and address + nbytes <= begin + size
            for begin, size in self.live.items()
        )


class Stream:
    """What waits to be done, and what is being recorded."""

    def __init__(self) -> None:
        self.pending: list[Operation] = []
        self.recording: list[Operation] | None = None
        self.broken = False


class Event:
    """The time at which a stream got somewhere."""

    def __init__(self) -> None:
        self.at: float | None = None


class FakeCuda:
    """The module.

    Attributes:
        capacity: bytes of the GPU's memory.
        gpus: how many there are.
        no_recording: recordings fail.
        kernels: name -> Python that stands for a kernel: called with grid, threads, shared memory
            and arguments.
        violations: every breach.
        recorded: recordings made.
        launched: recordings launched.
        calls: names of the calls that were made.
    """

    CUresult = CUresult
    CUdevice_attribute = CUdevice_attribute
    CUstream_flags = CUstream_flags
    CUevent_flags = CUevent_flags
    CUstreamCaptureMode = CUstreamCaptureMode

    def __init__(self, capacity: int = 1 << 30, sm: int = 89, name: str = "Fake GPU") -> None:
        self.capacity, self.sm, self.name, self.gpus = capacity, sm, name, 1
        self.device, self.pinned = Memory(), Memory()
        self.no_recording = False
        self.kernels: dict[str, Callable[..., None]] = {}
        self.violations: list[str] = []
        self.recorded = self.launched = 0
        self.calls: set[str] = set()
        self._numbers = count(0x1000)
        self._streams: dict[int, Stream] = {}
        self._graphs: dict[int, list[Operation]] = {}
        self._ready: dict[int, list[Operation]] = {}
        self._events: dict[int, Event] = {}
        self._thread = threading.local()

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("cu") and name not in {"cuInit", "cuGetErrorString"}:
            self.calls.add(name)
            free = {"cuDeviceGet", "cuDeviceGetCount", "cuDevicePrimaryCtxRetain"}
            if name not in {*free, "cuCtxSetCurrent"} and not hasattr(self._thread, "context"):
                return lambda *_: (CUresult.CUDA_ERROR_INVALID_CONTEXT, None)
        return super().__getattribute__(name)

    # What the fake of TensorRT uses too.

    def breach(self, what: str) -> BreachError:
        self.violations.append(what)
        return BreachError(what)

    def stream(self, handle: Any) -> Stream:
        if int(handle) not in self._streams:
            raise self.breach(f"{handle} is no stream of ours")
        return self._streams[int(handle)]

    def put(self, handle: Any, operation: Operation) -> None:
        """Put something on a stream, or into what is being recorded on it."""
        stream = self.stream(handle)
        (stream.pending if stream.recording is None else stream.recording).append(operation)

    def recording(self) -> bool:
        return any(stream.recording is not None for stream in self._streams.values())

    def on_device(self, address: int, nbytes: int, what: str) -> None:
        if not self.device.holds(address, nbytes):
            raise self.breach(f"{what}: {nbytes} bytes at {address:#x} are not the GPU's memory")

    def flush(self, handle: Any) -> None:
        stream = self.stream(handle)
        pending, stream.pending = stream.pending, []
        for operation in pending:
            operation()

    # The driver's functions; docstrings are the driver's.

    def cuInit(self, flags: int) -> tuple[Any, ...]:  # noqa: N802
        return (OK,)

    def cuDeviceGetCount(self) -> tuple[Any, ...]:  # noqa: N802
        return OK, self.gpus

    def cuDeviceGet(self, ordinal: int) -> tuple[Any, ...]:  # noqa: N802
        return OK, ordinal

    def cuDevicePrimaryCtxRetain(self, device: int) -> tuple[Any, ...]:  # noqa: N802
        return OK, "primary"

    def cuCtxSetCurrent(self, context: str) -> tuple[Any, ...]:  # noqa: N802
        if context != "primary":
            raise self.breach("another context than the primary one")
        self._thread.context = context
        return (OK,)

    def cuDriverGetVersion(self) -> tuple[Any, ...]:  # noqa: N802
        return OK, 13000

    def cuDeviceGetName(self, length: int, device: int) -> tuple[Any, ...]:  # noqa: N802
        return OK, self.name.encode().ljust(length, b"\0")

    def cuDeviceGetAttribute(self, attribute: int, device: int) -> tuple[Any, ...]:  # noqa: N802
        return OK, self.sm // 10 if attribute == 75 else self.sm % 10

    def cuDeviceTotalMem(self, device: int) -> tuple[Any, ...]:  # noqa: N802
        return OK, self.capacity

    def cuMemGetInfo(self) -> tuple[Any, ...]:  # noqa: N802
        return OK, self.capacity - sum(self.device.live.values()), self.capacity

    def cuGetErrorString(self, code: IntEnum) -> tuple[Any, ...]:  # noqa: N802
        return OK, code.name.encode()

    def cuMemAlloc(self, nbytes: int) -> tuple[Any, ...]:  # noqa: N802
        if self._breaks_recording():
            return CUresult.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, 0
        if nbytes <= 0:
            return CUresult.CUDA_ERROR_INVALID_VALUE, 0
        if sum(self.device.live.values()) + nbytes > self.capacity:
            return CUresult.CUDA_ERROR_OUT_OF_MEMORY, 0
        return OK, self.device.new(nbytes)

    def cuMemFree(self, address: int) -> tuple[Any, ...]:  # noqa: N802
        if self._breaks_recording():
            return (CUresult.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,)
        for handle in self._streams:
            self.flush(handle)
        if not self.device.free(int(address)):
            raise self.breach(f"{address:#x} is freed, and was not allocated")
        return (OK,)

    def cuMemAllocHost(self, nbytes: int) -> tuple[Any, ...]:  # noqa: N802
        if self._breaks_recording():
            return CUresult.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, 0
        return OK, self.pinned.new(nbytes)

    def cuMemFreeHost(self, address: int) -> tuple[Any, ...]:  # noqa: N802
        if self._breaks_recording():
            return (CUresult.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,)
        if not self.pinned.free(int(address)):
            raise self.breach(f"{address:#x} is freed, and was not allocated")
        return (OK,)

    def cuMemsetD8Async(  # noqa: N802
        self, target: int, value: int, nbytes: int, stream: Any
    ) -> tuple[Any, ...]:
        def run() -> None:
            self.on_device(target, nbytes, "clear")
            ctypes.memset(target, value, nbytes)

        self.put(stream, run)
        return (OK,)

    def cuMemcpyHtoDAsync(  # noqa: N802
        self, target: int, source: int, nbytes: int, stream: Any
    ) -> tuple[Any, ...]:
        def run() -> None:
            self.on_device(target, nbytes, "copy to the GPU")
            if pinned and not self.pinned.holds(source, nbytes):
                raise self.breach("copy from pinned memory that was freed")
            ctypes.memmove(target, source, nbytes)

        pinned = self.pinned.holds(source, nbytes)
        self._copy(stream, run, pinned=pinned)
        return (OK,)

    def cuMemcpyDtoHAsync(  # noqa: N802
        self, target: int, source: int, nbytes: int, stream: Any
    ) -> tuple[Any, ...]:
        def run() -> None:
            self.on_device(source, nbytes, "copy from the GPU")
            if pinned and not self.pinned.holds(target, nbytes):
                raise self.breach("copy to pinned memory that was freed")
            ctypes.memmove(target, source, nbytes)

        pinned = self.pinned.holds(target, nbytes)
        self._copy(stream, run, pinned=pinned)
        return (OK,)

    def cuMemcpyDtoDAsync(  # noqa: N802
        self, target: int, source: int, nbytes: int, stream: Any
    ) -> tuple[Any, ...]:
        def run() -> None:
            self.on_device(target, nbytes, "copy on the GPU")
            self.on_device(source, nbytes, "copy on the GPU")
            if target < source + nbytes and source < target + nbytes:
                raise self.breach("copy between pieces that overlap")
            ctypes.memmove(target, source, nbytes)

        self.put(stream, run)
        return (OK,)

    def cuStreamCreate(self, flags: int) -> tuple[Any, ...]:  # noqa: N802
        if flags != CUstream_flags.CU_STREAM_NON_BLOCKING:
            raise self.breach("a stream that waits for the default one")
        handle = next(self._numbers)
        self._streams[handle] = Stream()
        return OK, handle

    def cuStreamSynchronize(self, stream: Any) -> tuple[Any, ...]:  # noqa: N802
        if self._breaks_recording():
            return (CUresult.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,)
        self.flush(stream)
        return (OK,)

    def cuStreamBeginCapture(self, stream: Any, mode: int) -> tuple[Any, ...]:  # noqa: N802
        if self.no_recording:
            return (CUresult.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,)
        if mode != CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL:
            raise self.breach("other threads could not allocate during a recording")
        self.stream(stream).recording = []
        return (OK,)

    def cuStreamEndCapture(self, stream: Any) -> tuple[Any, ...]:  # noqa: N802
        found = self.stream(stream)
        if found.recording is None:
            return CUresult.CUDA_ERROR_INVALID_VALUE, None
        operations, found.recording = found.recording, None
        broken, found.broken = found.broken, False
        if broken:
            return CUresult.CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, None
        handle = next(self._numbers)
        self._graphs[handle] = operations
        return OK, handle

    def cuGraphInstantiate(self, graph: int, flags: int) -> tuple[Any, ...]:  # noqa: N802
        handle = next(self._numbers)
        self._ready[handle] = list(self._graphs[graph])
        self.recorded += 1
        return OK, handle

    def cuGraphDestroy(self, graph: int) -> tuple[Any, ...]:  # noqa: N802
        del self._graphs[graph]
        return (OK,)

    def cuGraphLaunch(self, graph: int, stream: Any) -> tuple[Any, ...]:  # noqa: N802
        if graph not in self._ready:
            raise self.breach("a graph is launched that was given back")
        self.launched += 1
        for operation in self._ready[graph]:
            self.put(stream, operation)
        return (OK,)

    def cuGraphExecDestroy(self, graph: int) -> tuple[Any, ...]:  # noqa: N802
        del self._ready[graph]
        return (OK,)

    def cuEventCreate(self, flags: int) -> tuple[Any, ...]:  # noqa: N802
        handle = next(self._numbers)
        self._events[handle] = Event()
        return OK, handle

    def cuEventRecord(self, event: int, stream: Any) -> tuple[Any, ...]:  # noqa: N802
        self.put(stream, lambda: setattr(self._events[event], "at", perf_counter()))
        return (OK,)

    def cuEventSynchronize(self, event: int) -> tuple[Any, ...]:  # noqa: N802
        for handle in self._streams:
            self.flush(handle)
        return (OK,)

    def cuEventElapsedTime(self, begin: int, end: int) -> tuple[Any, ...]:  # noqa: N802
        first, last = self._events[begin].at, self._events[end].at
        if first is None or last is None:
            raise self.breach("the time of an event that was not reached")
        return OK, (last - first) * 1e3

    def cuEventDestroy(self, event: int) -> tuple[Any, ...]:  # noqa: N802
        del self._events[event]
        return (OK,)

    def cuModuleLoadData(self, image: bytes) -> tuple[Any, ...]:  # noqa: N802
        if not image.endswith(b"\0"):
            raise self.breach("a text of PTX ends with a zero")
        return OK, image

    def cuModuleGetFunction(self, module: bytes, name: bytes) -> tuple[Any, ...]:  # noqa: N802
        if name not in module:
            return CUresult.CUDA_ERROR_INVALID_VALUE, None
        return OK, self.kernels[name.decode()]

    def cuLaunchKernel(  # noqa: N802
        self,
        function: Callable[..., None],
        x: int,
        y: int,
        z: int,
        block_x: int,
        block_y: int,
        block_z: int,
        shared: int,
        stream: Any,
        arguments: tuple[tuple[Any, ...], tuple[Any, ...]],
        extra: int,
    ) -> tuple[Any, ...]:
        values, types = arguments
        if len(values) != len(types) or (block_y, block_z, extra) != (1, 1, 0):
            raise self.breach("arguments of a kernel that are not as they should be")
        self.put(stream, lambda: function((x, y, z), block_x, shared, *values))
        return (OK,)

    def _copy(self, stream: Any, run: Operation, *, pinned: bool) -> None:
        """Memory that is not pinned is copied at once, after all that waits."""
        if pinned:
            self.put(stream, run)
        elif self.recording():
            raise self.breach("memory of the host in a recording that is not pinned")
        else:
            self.flush(stream)
            run()

    def _breaks_recording(self) -> bool:
        """Whether the call is one that a recording forbids; it is lost then."""
        found = [stream for stream in self._streams.values() if stream.recording is not None]
        for stream in found:
            stream.broken = True
        return bool(found)
