"""What TensorRT and TensorRT-RTX have in common: engines, built once and kept."""

from __future__ import annotations

import hashlib
import logging
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedec.devices.gpu.arena import CudaArena, arena
from edgedec.devices.gpu.bindings import load
from edgedec.devices.gpu.build import build_engine
from edgedec.devices.gpu.contexts import Contexts
from edgedec.devices.gpu.driver import driver
from edgedec.devices.gpu.engine import Engine, Facts, Form, Wire
from edgedec.devices.gpu.engine_cache import EngineCache, Key, key_of
from edgedec.devices.gpu.engine_session import EngineSession
from edgedec.errors import DeviceError, EdgedecError, MissingDeviceError
from edgedec.runtime.bundle import Bundle, verify_files
from edgedec.runtime.manifest import Limits
from edgedec.runtime.session import Session

if TYPE_CHECKING:  # a cached engine needs neither
    from edgedec.devices.gpu.lowering import Resident
    from edgedec.devices.report import DeviceReport

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineDevice:
    """A device that runs engines of TensorRT's or TensorRT-RTX's.

    Attributes:
        name: of the device.
        title: of what runs its engines.
        forms: how graphs may have their codes, the best first.
        portable: its engines are for every GPU of its kind, and are built without one.
        verified: how far it was ever tried, in a sentence.
    """

    name: str
    title: str
    forms: tuple[Form, ...]
    portable: bool
    verified: str

    def fallback(self) -> str | None:
        """None: graphs for this device contain none of our operators but the plugin's."""
        return None

    def arena(self) -> CudaArena:
        """The GPU's memory.

        Raises:
            MissingDeviceError: there is no driver, or no GPU.
        """
        return arena()

    def report(self) -> DeviceReport:
        """Whether it can be used here, and by which versions."""
        from edgedec.devices.report import DeviceReport

        runtime, reason = None, None
        try:
            runtime = f"{self.title} {load(self.name).__version__}"
            gpu = driver().gpu
            runtime += f", {gpu.name}, CUDA {gpu.driver}"
        except EdgedecError as error:
            reason = str(error)
        return DeviceReport(
            self.name,
            available=reason is None,
            reason=reason,
            runtime=runtime,
            verified=self.verified,
        )

    def open_resident(
        self,
        bundle: Bundle,
        component: str,
        limits: Limits,
        *,
        threads: int | None,  # noqa: ARG002 - the GPU has its own
        records: Path | None = None,
    ) -> Session:
        """Open a component's engine, which is built first where the cache has none.

        Raises:
            DeviceError: TensorRT cannot build or load it, or records of operators are asked for.
            MissingDeviceError: there is no GPU.
            MissingDependencyError: a package is not installed.
        """
        if records is not None:
            raise DeviceError(
                f"{self.title} keeps no records of operators: profile with --device cuda or cpu."
            )
        first, *others = self._forms(bundle, component)
        try:
            return self._open(bundle, component, limits, first)
        except DeviceError as error:
            if not others or isinstance(error, MissingDeviceError):
                raise
            logger.warning("%s runs without our plugin for TensorRT: %s", component, error)
        return self._open(bundle, component, limits, others[0])

    def build(
        self, bundle: Bundle, component: str, limits: Limits, form: Form
    ) -> tuple[bytes, Facts]:
        """Build a component's engine; lowers its graph.

        Raises:
            DeviceError: TensorRT cannot build it here.
            MissingDependencyError: a package is not installed.
        """
        from edgedec.devices.gpu.lowering import resident_graph

        resident = resident_graph(bundle, component, limits, form)
        return self.build_graph(resident, component, limits, form)

    def build_graph(
        self, resident: Resident, component: str, limits: Limits, form: Form
    ) -> tuple[bytes, Facts]:
        """Build the engine of a graph that was lowered already; raises as `build`."""
        from edgedec.devices.gpu.lowering import save_resident

        module = load(self.name)
        with ExitStack() as stack:
            try:
                name = stack.enter_context(tempfile.TemporaryDirectory())
                path = save_resident(resident, Path(name))
            except OSError as error:
                raise DeviceError(
                    f"cannot write the graph of {component} to {tempfile.gettempdir()} "
                    f"({error.strerror}): set TMPDIR to a folder with room for its weights."
                ) from error
            engine = build_engine(module, path, resident.profiles, plugin=form == "plugin")
        return engine, self._facts(resident, component, limits, form, engine)

    def _forms(self, bundle: Bundle, component: str) -> tuple[Form, ...]:
        """The forms that are worth trying: without codes, one is like the other."""
        codes = bundle.manifest.codebooks
        if codes is not None and codes.matrices.get(component):
            return self.forms
        return ("native",)

    def _open(self, bundle: Bundle, component: str, limits: Limits, form: Form) -> Session:
        module, memory = load(self.name), self.arena()
        key = key_of(
            bundle,
            component,
            limits,
            device=self.name,
            form=form,
            runtime=module.__version__,
            gpu=self._gpu(),
        )
        if form == "plugin":
            from edgedec.kernels.tensorrt.plugin import register

            register(module)
        cache = EngineCache()
        with cache.lock(key):
            engine = self._find(cache, key, memory, module)
            if engine is None:
                logger.warning(
                    "Building an engine of %s for this GPU, once; it may take minutes.", component
                )
                verify_files(bundle, key.files)  # the engine of these hashes is kept for others
                data, facts = self.build(bundle, component, limits, form)
                cache.keep(key, data, facts)
                engine = Engine(module, data, component, memory)
        name = bundle.manifest.components[component].file
        return EngineSession(name, engine, memory, Contexts(engine, cache.kernels(key)))

    def _find(self, cache: EngineCache, key: Key, memory: CudaArena, module: Any) -> Engine | None:
        """The cached engine; None where there is none that this machine loads."""
        data = cache.find(key)
        if data is None:
            return None
        try:
            return Engine(module, data, key.component, memory)
        except DeviceError as error:
            logger.info("it is built again: %s", error)
            return None

    def _gpu(self) -> str | None:
        """What engines depend on, of this machine."""
        if self.portable:
            return None
        gpu = driver().gpu
        return f"{gpu.name}, sm_{gpu.sm}, CUDA {gpu.driver}"

    def _facts(
        self, resident: Resident, component: str, limits: Limits, form: Form, engine: bytes
    ) -> Facts:
        graph = resident.model.graph
        inputs = {value.name or "": _wire(value) for value in graph.inputs}
        return Facts(
            device=self.name,
            form=form,
            component=component,
            runtime=load(self.name).__version__,
            gpu=self._gpu(),
            edgedec=version("edgedec"),
            limits=limits,
            inputs=inputs,
            outputs={value.name or "": _wire(value, inputs) for value in graph.outputs},
            profiles=tuple(dict(profile) for profile in resident.profiles),
            expanded=resident.expanded,
            size=len(engine),
            sha256=hashlib.sha256(engine).hexdigest(),
        )


def _wire(value: Any, inputs: dict[str, Wire] | None = None) -> Wire:
    """What readers of facts learn of an ``ir.Value``; of outputs, ``inputs`` are given too."""
    alias = value.name.replace("present.", "past.", 1)
    return Wire(
        type=value.dtype.numpy().name,
        shape=tuple(length if isinstance(length, int) else -1 for length in value.shape),
        alias=alias if inputs is not None and alias != value.name and alias in inputs else None,
    )
