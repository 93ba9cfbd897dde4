"""NVIDIA's driver: a thin wrapper of what we call of it, and the only file that imports it."""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

from edgedec.errors import DeviceError, InputError, MissingDependencyError, MissingDeviceError

CALLS = (
    "cuCtxSetCurrent",
    "cuDeviceGet",
    "cuDeviceGetAttribute",
    "cuDeviceGetCount",
    "cuDeviceGetName",
    "cuDevicePrimaryCtxRetain",
    "cuDeviceTotalMem",
    "cuDriverGetVersion",
    "cuEventCreate",
    "cuEventDestroy",
    "cuEventElapsedTime",
    "cuEventRecord",
    "cuEventSynchronize",
    "cuGetErrorString",
    "cuGraphDestroy",
    "cuGraphExecDestroy",
    "cuGraphInstantiate",
    "cuGraphLaunch",
    "cuInit",
    "cuLaunchKernel",
    "cuMemAlloc",
    "cuMemAllocHost",
    "cuMemFree",
    "cuMemFreeHost",
    "cuMemGetInfo",
    "cuMemcpyDtoDAsync",
    "cuMemcpyDtoHAsync",
    "cuMemcpyHtoDAsync",
    "cuMemsetD8Async",
    "cuModuleGetFunction",
    "cuModuleLoadData",
    "cuStreamBeginCapture",
    "cuStreamCreate",
    "cuStreamEndCapture",
    "cuStreamSynchronize",
)
"""Every function of ``cuda.bindings.driver`` that this file calls."""
INSTALL = "pip install 'edgedec[tensorrt-rtx]'"
Address = int
"""Of memory, on the device or pinned on the host."""


class CudaError(Exception):
    """A call of the driver failed.

    Attributes:
        call: its name.
        code: the name of what it returned.
    """

    def __init__(self, call: str, code: str, reason: str) -> None:
        super().__init__(f"{call}: {reason}")
        self.call = call
        self.code = code


@dataclass(frozen=True)
class Gpu:
    """A GPU.

    Attributes:
        name: as its maker calls it.
        sm: its compute capability, as 10 * major + minor.
        memory: bytes.
        driver: the newest version of CUDA that its driver runs, such as 13.0.
    """

    name: str
    sm: int
    memory: int
    driver: str


class Driver:
    """The first GPU, in its primary context, which CUDA's runtime (and so TensorRT) uses as well.

    Streams, graphs, events, modules and functions are the driver's handles. Methods raise
    `CudaError` unless they say something else.

    Args:
        cuda: ``cuda.bindings.driver``.

    Attributes:
        gpu: what it is.

    Raises:
        MissingDeviceError: there is no driver, or no GPU.
    """

    def __init__(self, cuda: Any) -> None:
        self._cuda = cuda
        try:
            self._call("cuInit", 0)
            count = self._call("cuDeviceGetCount")
        except CudaError as error:
            raise MissingDeviceError(
                f"NVIDIA's driver does not start ({error}): look at nvidia-smi."
            ) from error
        except Exception as error:  # of the package that looks for the driver's library
            raise MissingDeviceError(
                "there is no NVIDIA driver on this machine: install the one of its GPU (nvidia-smi "
                "must list the GPU)."
            ) from error
        if not count:
            raise MissingDeviceError(
                "NVIDIA's driver finds no GPU: look at nvidia-smi and at CUDA_VISIBLE_DEVICES."
            )
        device = self._call("cuDeviceGet", 0)
        self._context = self._call("cuDevicePrimaryCtxRetain", device)
        self.enter()
        self.gpu = self._describe(device)

    def _describe(self, device: Any) -> Gpu:
        attribute = self._cuda.CUdevice_attribute
        major = self._call(
            "cuDeviceGetAttribute",
            attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
            device,
        )
        minor = self._call(
            "cuDeviceGetAttribute",
            attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
            device,
        )
        number = self._call("cuDriverGetVersion")
        name: bytes = self._call("cuDeviceGetName", 256, device)
        return Gpu(
            name=name.split(b"\0")[0].decode("utf-8", "replace").strip(),
            sm=10 * int(major) + int(minor),
            memory=int(self._call("cuDeviceTotalMem", device)),
            driver=f"{number // 1000}.{number % 1000 // 10}",
        )

    def _call(self, name: str, *arguments: Any) -> Any:
        """Call a function; returns what it gives besides the error, None if that is nothing."""
        code, *found = getattr(self._cuda, name)(*arguments)
        if int(code) != 0:
            _, text = self._cuda.cuGetErrorString(code)
            reason = text.decode("utf-8", "replace") if isinstance(text, bytes) else str(code)
            raise CudaError(name, getattr(code, "name", str(code)), reason)
        return found[0] if found else None

    def enter(self) -> None:
        """Make the GPU the one that the calling thread speaks to."""
        self._call("cuCtxSetCurrent", self._context)

    def memory(self) -> tuple[int, int]:
        """Bytes of the GPU's memory that are free, and all."""
        code, free, total = self._cuda.cuMemGetInfo()
        if int(code) != 0:
            raise CudaError("cuMemGetInfo", str(code), "the driver does not tell its memory")
        return int(free), int(total)

    def allocate(self, nbytes: int) -> Address:
        """Memory on the GPU, 256-byte aligned, of any content.

        Raises:
            InputError: there is not so much left.
        """
        try:
            return int(self._call("cuMemAlloc", nbytes))
        except CudaError as error:
            raise self._short(error, nbytes, "the GPU") from error

    def free(self, address: Address) -> None:
        """Give memory on the GPU back; waits for what still runs."""
        self._call("cuMemFree", address)

    def allocate_host(self, nbytes: int) -> Address:
        """Pinned memory on the host, which copies need that are to run beside the host.

        Raises:
            InputError: there is not so much left.
        """
        try:
            return int(self._call("cuMemAllocHost", nbytes))
        except CudaError as error:
            raise self._short(error, nbytes, "the host") from error

    def free_host(self, address: Address) -> None:
        """Give pinned memory back."""
        self._call("cuMemFreeHost", address)

    def clear(self, target: Address, nbytes: int, stream: Any) -> None:
        """Set memory on the GPU to zero."""
        self._call("cuMemsetD8Async", target, 0, nbytes, stream)

    def upload(self, target: Address, source: Address, nbytes: int, stream: Any) -> None:
        """Copy from the host to the GPU."""
        self._call("cuMemcpyHtoDAsync", target, source, nbytes, stream)

    def download(self, target: Address, source: Address, nbytes: int, stream: Any) -> None:
        """Copy from the GPU to the host."""
        self._call("cuMemcpyDtoHAsync", target, source, nbytes, stream)

    def copy(self, target: Address, source: Address, nbytes: int, stream: Any) -> None:
        """Copy on the GPU."""
        self._call("cuMemcpyDtoDAsync", target, source, nbytes, stream)

    def stream(self) -> Any:
        """A new stream that does not wait for the default one."""
        return self._call("cuStreamCreate", self._cuda.CUstream_flags.CU_STREAM_NON_BLOCKING)

    def synchronize(self, stream: Any) -> None:
        """Wait until everything on a stream is done."""
        self._call("cuStreamSynchronize", stream)

    def begin_capture(self, stream: Any) -> None:
        """From now on, what is put on the stream is recorded and not run."""
        mode = self._cuda.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._call("cuStreamBeginCapture", stream, mode)

    def end_capture(self, stream: Any) -> Any:
        """Stop recording.

        Returns:
            What was recorded, ready for `launch`.
        """
        graph = self._call("cuStreamEndCapture", stream)
        try:
            return self._call("cuGraphInstantiate", graph, 0)
        finally:
            self._call("cuGraphDestroy", graph)

    def drop_capture(self, stream: Any) -> None:
        """Stop recording what failed; nothing is kept."""
        with suppress(CudaError):  # most often there is nothing to be had any more
            self._call("cuGraphDestroy", self._call("cuStreamEndCapture", stream))

    def launch(self, graph: Any, stream: Any) -> None:
        """Put what was recorded on a stream."""
        self._call("cuGraphLaunch", graph, stream)

    def forget(self, graph: Any) -> None:
        """Give a recording's memory back."""
        self._call("cuGraphExecDestroy", graph)

    def event(self) -> Any:
        """A new event that takes the time."""
        return self._call("cuEventCreate", self._cuda.CUevent_flags.CU_EVENT_DEFAULT)

    def record(self, event: Any, stream: Any) -> None:
        """Let an event take the time when the stream gets here."""
        self._call("cuEventRecord", event, stream)

    def elapsed(self, begin: Any, end: Any) -> float:
        """Seconds between two events, which are waited for and given back."""
        self._call("cuEventSynchronize", end)
        milliseconds: float = self._call("cuEventElapsedTime", begin, end)
        for event in (begin, end):
            self._call("cuEventDestroy", event)
        return milliseconds / 1e3

    def function(self, ptx: str, name: str) -> Any:
        """A kernel of a PTX text, compiled by the driver; it stays loaded."""
        module = self._call("cuModuleLoadData", ptx.encode("ascii") + b"\0")
        return self._call("cuModuleGetFunction", module, name.encode("ascii"))

    def start(
        self,
        function: Any,
        grid: tuple[int, int, int],
        threads: int,
        shared: int,
        arguments: Sequence[tuple[int, Any]],
        stream: Any,
    ) -> None:
        """Put a kernel on a stream.

        Args:
            function: of `function`.
            grid: blocks along x, y and z.
            threads: of a block, along x.
            shared: bytes of shared memory that the launch adds.
            arguments: values with their types of `ctypes` (`POINTER` and `SCALAR`).
            stream: where to.
        """
        values = tuple(value for value, _ in arguments)
        types = tuple(kind for _, kind in arguments)
        self._call(
            "cuLaunchKernel", function, *grid, threads, 1, 1, shared, stream, (values, types), 0
        )

    def _short(self, error: CudaError, nbytes: int, where: str) -> Exception:
        if error.code != "CUDA_ERROR_OUT_OF_MEMORY":
            return error
        free = self.memory()[0] if where == "the GPU" else None
        left = "" if free is None else f", of which {free / 1e6:,.0f} MB are free"
        return InputError(
            f"there is not enough memory on {where} for {nbytes / 1e6:,.0f} MB more{left}: decode "
            "fewer rows at a time, or use a shorter input."
        )


POINTER, SCALAR = ctypes.c_void_p, ctypes.c_int32
"""Types of a kernel's arguments."""


@cache
def driver() -> Driver:
    """The driver of this process.

    Raises:
        MissingDependencyError: the package that calls it is not installed.
        MissingDeviceError: there is no driver, or no GPU.
        DeviceError: the package is too old.
    """
    try:
        cuda = importlib.import_module("cuda.bindings.driver")
    except ImportError as error:
        raise MissingDependencyError(
            f"NVIDIA GPUs need the package cuda-bindings: {INSTALL}."
        ) from error
    lacking = [name for name in CALLS if not hasattr(cuda, name)]
    if lacking:
        raise DeviceError(
            f"cuda-bindings has no {lacking[0]}: it is too old; {INSTALL} -U brings a newer one."
        )
    return Driver(cuda)
