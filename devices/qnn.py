"""Qualcomm's NPU (HTP), through ONNX Runtime's QNN provider: graphs of fixed shapes only."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedec.devices.assigned import RECORD, listed, nodes_on_cpu
from edgedec.devices.options import session_options
from edgedec.devices.qnn_errors import explain
from edgedec.devices.qnn_library import installed, is_simulator, load, missing, sdk
from edgedec.devices.socs import DEFAULT_SOC, SOCS, Soc, find_soc
from edgedec.errors import DeviceError
from edgedec.runtime.manifest import Component
from edgedec.runtime.session import Session

if TYPE_CHECKING:
    from edgedec.devices.report import DeviceReport

NO_FALLBACK = "session.disable_cpu_ep_fallback"
ONE_NODE = """<ir_version: 10, opset_import: ["": 21]>
probe (float[1, 8] x) => (float[1, 8] y) { y = Relu(x) }"""
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Qnn:
    """The NPU of a system on chip, or its simulator.

    Attributes:
        soc: as its graphs are prepared; None for a component's own, or `DEFAULT_SOC`.
        allow_fallback: run on the CPU what the NPU does not, and say which nodes those are.
    """

    soc: Soc | None = None
    allow_fallback: bool = False
    name: str = "qnn"

    def file(self, component: Component) -> str:
        """The graph, or the context of this SoC; without a SoC of one's own, the first context.

        Raises:
            DeviceError: it was compiled for other SoCs only.
        """
        if not component.contexts or self.soc is None:
            return component.file
        for names, file in component.contexts.items():
            if self.soc.name in names.split("+"):
                return file
        raise DeviceError(
            f"{component.file} is compiled for {', '.join(component.contexts)}, not for "
            f"{self.soc.name}: export with --soc {self.soc.name}."
        )

    def fallback(self) -> str | None:
        """None: graphs for this device contain none of our operators."""
        return None

    def report(self) -> DeviceReport:
        """Whether it can be used here, and by which versions."""
        import onnxruntime

        from edgedec.devices.report import DeviceReport

        reason = missing()
        runtime = None
        if reason is None:
            runtime = f"ONNX Runtime {onnxruntime.__version__}, onnxruntime-qnn {installed()}"
            runtime += f", QNN {sdk()}" + (", simulator" if is_simulator() else "")
        return DeviceReport(
            device=self.name,
            available=reason is None,
            reason=reason,
            runtime=runtime,
            threads=None,
            library=None,
            instruction_sets=(),
            operators=(),
        )

    def open(
        self, graph: Path, *, threads: int | None, shared: bool, records: Path | None = None
    ) -> Session:
        """Open a graph, or a context; preparing a graph takes the seconds that a context saves.

        Without `allow_fallback`, a node that the NPU does not run is an error that names it.

        Args:
            graph: an ``.onnx`` file of a checked bundle.
            threads: of nodes that fall back to the CPU.
            shared: as for every device.
            records: as for every device.

        Raises:
            DeviceError: the NPU does not run it, or is not there.
            BundleError: it is damaged.
        """
        try:
            inference = self._inference(graph, threads, shared, records)
        except Exception as error:  # ONNX Runtime's exceptions share no other base
            raise explain(error, graph, self) from error
        if self.allow_fallback:
            fallen, every = nodes_on_cpu(inference)
            if fallen:
                logger.warning(
                    "%s: %d of %d nodes run on the CPU instead of the NPU: %s",
                    graph.name,
                    len(fallen),
                    every,
                    listed(fallen),
                )
        return Session(graph.name, inference)

    @property
    def target(self) -> Soc:
        """The SoC that graphs are prepared for."""
        return self.soc or SOCS[DEFAULT_SOC]

    def fallen_back(self, graph: Path) -> Any:
        """An ``InferenceSession`` of a graph whose other nodes run on the CPU."""
        return replace(self, allow_fallback=True)._inference(graph, 1, True, None)

    def works(self) -> bool:
        """Whether the NPU runs a graph of one node."""
        from onnx import parser

        model = parser.parse_model(ONE_NODE)
        try:
            replace(self, allow_fallback=False)._inference(model.SerializeToString(), 1, True, None)
        except Exception:  # noqa: BLE001 - whatever it is, it does not work
            return False
        return True

    def _inference(
        self, graph: Path | bytes, threads: int | None, shared: bool, records: Path | None
    ) -> Any:
        import onnxruntime

        devices, backend = load()
        options = session_options(threads, shared, records)
        if self.allow_fallback:
            options.add_session_config_entry(RECORD, "1")
        else:
            options.add_session_config_entry(NO_FALLBACK, "1")
        options.add_provider_for_devices(devices, provider_options(backend, (self.target,)))
        return onnxruntime.InferenceSession(graph, options, enable_fallback=0)


def provider_options(backend: str, socs: Sequence[Soc]) -> dict[str, str]:
    """Options of the QNN provider, for one SoC or several in one context.

    The SoC is always named: without one, QNN takes the oldest and computes in float32.
    """
    options = {
        "backend_path": backend,
        "soc_model": ",".join(str(soc.number) for soc in socs),
        "enable_htp_fp16_precision": "1",
    }
    if len(socs) > 1:
        options["htp_arch"] = ",".join(str(soc.arch) for soc in socs)
    return options


def device(option: str | None, allow_fallback: bool) -> Qnn:
    """The NPU.

    Args:
        option: a SoC's name (`edgedec.devices.socs`), or None.
        allow_fallback: run on the CPU what the NPU does not.

    Raises:
        DeviceError: there is no such SoC.
    """
    return Qnn(None if option is None else find_soc(option), allow_fallback)
