"""NVIDIA GPUs through ONNX Runtime's CUDA provider, over graphs whose caches stay in their memory.

Codes whose levels are equally spaced stay codes there (MatMulNBits); others become numbers.
"""

from __future__ import annotations

import ctypes
import io
import logging
import re
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedec.devices.assigned import FALLBACK, Node, listed, nodes_on_cpu
from edgedec.devices.gpu.arena import CudaArena, arena
from edgedec.devices.onnxruntimes import CUDA, clash
from edgedec.devices.options import session_options
from edgedec.errors import (
    BundleError,
    DeviceError,
    EdgedecError,
    InputError,
    MissingDependencyError,
)
from edgedec.runtime.bundle import Bundle, verify_files
from edgedec.runtime.manifest import Limits
from edgedec.runtime.session import Session, first_line

if TYPE_CHECKING:
    from edgedec.devices.gpu.lowering import Resident
    from edgedec.devices.report import DeviceReport

PROVIDER = "CUDAExecutionProvider"
INSTALL = f"pip install edgedec cuda-bindings && pip uninstall -y onnxruntime && pip install {CUDA}"
"""Leaves exactly one ONNX Runtime: onnxruntime-gpu has the same files as onnxruntime."""
VERIFIED = (
    "never executed on a GPU: its graphs ran on the CPU, and onnxruntime-gpu was only asked which "
    "of their nodes it has kernels for"
)
# fmt: off
HOST = frozenset({
    "Add", "Cast", "Concat", "ConstantOfShape", "Div", "Equal", "Expand", "Gather", "Identity",
    "Max", "Min", "Mod", "Mul", "Range", "Reshape", "Shape", "Size", "Slice", "Squeeze", "Sub",
    "Unsqueeze", "Where",
})
# fmt: on
"""Operators with which ONNX Runtime computes shapes, which it keeps on the host by design."""
SILENT = 4
"""Severity of the only messages that a session of ONNX Runtime's may still log: fatal ones."""
FAILURE = re.compile(r"(CUDA|CUDNN|CUBLAS) failure [^;\n]+(?<! )")
"""What a library of CUDA says, in errors of ONNX Runtime that begin with where that was."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cuda:
    """ONNX Runtime's CUDA provider on the first GPU.

    Attributes:
        allow_fallback: run on the CPU what it has no kernels for, and say which nodes those are.
    """

    allow_fallback: bool = False
    name: str = "cuda"

    def fallback(self) -> str | None:
        """None: graphs for this device contain none of our operators."""
        return None

    def arena(self) -> CudaArena:
        """The GPU's memory.

        Raises:
            MissingDeviceError: there is no driver, or no GPU.
            MissingDependencyError: the package that calls the driver is not installed.
        """
        return arena()

    def report(self) -> DeviceReport:
        """Whether it can be used here, and by which versions."""
        import onnxruntime

        from edgedec.devices.report import DeviceReport

        runtime, reason = None, missing()
        if reason is None:
            try:
                gpu = self.arena().device.gpu
                runtime = f"ONNX Runtime {onnxruntime.__version__} with CUDA, {gpu.name}"
            except EdgedecError as error:
                reason = str(error)
        return DeviceReport(
            self.name,
            available=reason is None,
            reason=reason,
            runtime=runtime,
            verified=VERIFIED,
        )

    def open_resident(
        self,
        bundle: Bundle,
        component: str,
        limits: Limits,
        *,
        threads: int | None,
        records: Path | None = None,
    ) -> Session:
        """Open a component's resident graph, which is made first where the cache has none.

        Raises:
            DeviceError: the provider cannot run it.
            MissingDependencyError: this environment's ONNX Runtime has no CUDA.
            MissingDeviceError: there is no GPU.
        """
        import onnxruntime

        from edgedec.devices.gpu.engine_cache import EngineCache, key_of
        from edgedec.devices.gpu.graph_cache import kept_graph

        check_installed()
        self.arena()  # without a GPU, nothing needs to be lowered
        key = key_of(
            bundle,
            component,
            limits,
            device=self.name,
            form="cuda",
            runtime=onnxruntime.__version__,
            gpu=None,
        )
        graph, kept = kept_graph(EngineCache(), key, partial(_lowered, bundle, component, limits))
        if kept.expanded:
            logger.warning(
                "%s: codes that ONNX Runtime has no CUDA kernels for take %.0f MB as float16 on "
                "the GPU; --device tensorrt or tensorrt-rtx keeps them as codes.",
                *(component, kept.expanded / 1e6),
            )
        name = bundle.manifest.components[component].file
        return self.open_graph(graph, name, threads=threads, records=records)

    def open_graph(
        self,
        graph: Path | bytes,
        name: str,
        *,
        threads: int | None = None,
        records: Path | None = None,
    ) -> Session:
        """Open a graph that needs no lowering.

        Args:
            graph: a file, or what is in one that has all its weights inside.
            name: of it, for messages.
            threads: of what runs on the host.
            records: as of `edgedec.devices.base.Device.open`.

        Raises:
            DeviceError: the provider cannot run it, or leaves work to the CPU.
            MissingDependencyError: this environment's ONNX Runtime has no CUDA.
            MissingDeviceError: there is no GPU.
        """
        from edgedec.devices.gpu.cuda_session import CudaSession

        check_installed()
        memory = self.arena()
        inference = open_provider(
            graph, name, session_options(threads, shared=True, records=records), memory
        )
        fallen, every = nodes_on_cpu(inference)
        working = [node for node in fallen if node.operator not in HOST]
        if working:
            self._left_to_cpu(working, every, name)
        return CudaSession(name, inference, memory)

    def _left_to_cpu(self, nodes: list[Node], every: int, name: str) -> None:
        what = f"{len(nodes)} of {every} nodes to the CPU: {listed(nodes)}"
        if not self.allow_fallback:
            raise DeviceError(
                f"ONNX Runtime leaves in {name} {what}; use --allow-fallback, or another device, "
                "such as --device tensorrt-rtx or --device cpu."
            )
        logger.warning("%s: ONNX Runtime leaves %s", name, what)


def _lowered(bundle: Bundle, component: str, limits: Limits) -> Resident:
    # Opening what is cached needs nothing of this.
    from edgedec.devices.gpu.engine_cache import files_of
    from edgedec.devices.gpu.lowering import resident_graph

    verify_files(bundle, files_of(bundle, component))  # the graph of these hashes is kept
    return resident_graph(bundle, component, limits, "cuda")


def open_provider(graph: Path | bytes, name: str, options: Any, memory: CudaArena) -> Any:
    """An ``InferenceSession`` of the CUDA provider on the arena's stream.

    Raises:
        DeviceError: the provider does not start, or refuses the graph.
        BundleError: the graph is damaged.
    """
    import onnxruntime

    for key, value in FALLBACK.items():
        options.add_session_config_entry(key, value)
    # By default it rounds what is multiplied in float32 to 10 bits.
    settings = {
        "device_id": "0",
        "user_compute_stream": str(int(memory.stream)),
        "use_tf32": "0",
    }
    # It would warn of every session that the provider is no plugin, and tell errors twice.
    options.log_severity_level = SILENT
    preload()
    try:
        inference = onnxruntime.InferenceSession(
            graph, options, providers=[(PROVIDER, settings)], enable_fallback=0
        )
    except Exception as error:  # ONNX Runtime's exceptions share no other base
        reason = first_line(error)
        failure = FAILURE.search(str(error))
        if failure is not None:
            raise _not_starting(failure[0]) from error
        if "NO_SUCHFILE" in reason or "INVALID_PROTOBUF" in reason:
            raise BundleError(
                f"{name} cannot be opened ({reason}): delete the folder of its cache."
            ) from error
        raise DeviceError(
            f"ONNX Runtime's CUDA provider refuses {name} ({reason}): use another device, such as "
            "--device tensorrt-rtx or --device cpu."
        ) from error
    # Where a library of CUDA's is missing, it goes on without the provider, and without an error.
    if PROVIDER not in inference.get_providers():
        raise _not_starting(_lacking())
    return inference


def _not_starting(reason: str) -> DeviceError:
    return DeviceError(
        f"ONNX Runtime's CUDA provider does not start ({reason[-300:].rstrip('.')}): pip install "
        f"-U {CUDA} brings its libraries, and nvidia-smi shows the driver that they need."
    )


def _lacking() -> str:
    """Which library the provider does not find: ONNX Runtime tells that to its log only."""
    import onnxruntime

    (path, *_) = [*Path(onnxruntime.__file__).parent.glob("capi/*onnxruntime_providers_cuda*"), ""]
    try:
        ctypes.CDLL(str(path))
    except OSError as error:
        return first_line(error)
    return "a library of CUDA or cuDNN is missing"


@cache
def preload() -> None:
    """Load the libraries of CUDA that came as packages, once; it prints what it does not find."""
    import onnxruntime

    said = io.StringIO()
    with redirect_stdout(said):
        onnxruntime.preload_dlls()
    logger.debug("onnxruntime.preload_dlls: %s", said.getvalue().strip() or "everything is there")


def missing() -> str | None:
    """Why the CUDA provider cannot be used here, in a sentence; None if it is installed."""
    import onnxruntime

    broken = clash()
    if broken is not None:
        return ": ".join(broken)
    if PROVIDER in onnxruntime.get_available_providers():
        return None
    return f"this environment's ONNX Runtime is built without CUDA: {INSTALL}"


def check_installed() -> None:
    """Raise MissingDependencyError where ONNX Runtime's CUDA provider is not installed."""
    reason = missing()
    if reason is not None:
        raise MissingDependencyError(f"the device 'cuda' is not available here: {reason}")


def device(option: str | None, allow_fallback: bool) -> Cuda:
    """ONNX Runtime's CUDA provider.

    Args:
        option: there is none.
        allow_fallback: run on the CPU what it has no kernels for.

    Raises:
        InputError: there is no such option.
    """
    if option is not None:
        raise InputError(f"the device 'cuda' has no option {option!r}: write --device cuda.")
    return Cuda(allow_fallback)
