"""Qualcomm's NPU (HTP), through ONNX Runtime's QNN provider: graphs of fixed shapes only."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedec.devices.assigned import FALLBACK, NO_FALLBACK, listed, nodes_on_cpu
from edgedec.devices.context_file import ContextFile, read_context
from edgedec.devices.options import session_options
from edgedec.devices.qnn_errors import explain, explain_run
from edgedec.devices.qnn_library import installed, is_simulator, missing, sdk
from edgedec.devices.qnn_session import open_raw
from edgedec.devices.socs import DEFAULT_SOC, SOCS, Soc, find_soc
from edgedec.errors import BundleError, DeviceError
from edgedec.runtime.manifest import Component
from edgedec.runtime.session import OnnxSession, Session

if TYPE_CHECKING:
    from edgedec.devices.report import DeviceReport

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
        return DeviceReport(self.name, available=reason is None, reason=reason, runtime=runtime)

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
        context = _context(graph)
        if context is not None and (context.several or context.shared) and is_simulator():
            what = "for several SoCs" if context.several else "that several graphs share"
            raise DeviceError(
                f"{graph.name} is compiled into a binary {what}, which hardware loads and the "
                "simulator does not: export for one SoC, or without --soc, to run it here."
            )
        entries = dict(FALLBACK if self.allow_fallback else NO_FALLBACK)
        if context is not None and context.shared:
            entries["ep.share_ep_contexts"] = "1"
        options = session_options(threads, shared, records)
        socs = [self.target] if context is None else []
        inference = open_inference(graph, socs, entries, options)
        if self.allow_fallback:
            fallen, every = nodes_on_cpu(inference)
            if fallen:
                logger.warning(
                    "%s: %d of %d nodes run on the CPU instead of the NPU: %s",
                    *(graph.name, len(fallen), every, listed(fallen)),
                )
        return OnnxSession(graph.name, inference, partial(explain_run, graph))

    @property
    def target(self) -> Soc:
        """The SoC that graphs are prepared for."""
        return self.soc or SOCS[DEFAULT_SOC]


def open_inference(
    graph: Path, socs: Sequence[Soc], entries: Mapping[str, str], options: Any = None
) -> Any:
    """As `open_raw`, with errors for the user.

    Raises:
        DeviceError: the NPU does not run the graph, or is not there.
        BundleError: it is damaged.
    """
    try:
        return open_raw(graph, socs, entries, options)
    except Exception as error:  # ONNX Runtime's exceptions share no other base
        raise explain(error, graph, socs) from error


def _context(graph: Path) -> ContextFile | None:
    try:
        return read_context(graph)
    except (OSError, ValueError) as error:
        raise BundleError(f"{graph.name} cannot be read: {error}; export it again.") from error


def device(option: str | None, allow_fallback: bool) -> Qnn:
    """The NPU.

    Args:
        option: a SoC's name (`edgedec.devices.socs`), or None.
        allow_fallback: run on the CPU what the NPU does not.

    Raises:
        InputError: there is no such SoC.
    """
    return Qnn(None if option is None else find_soc(option), allow_fallback)
