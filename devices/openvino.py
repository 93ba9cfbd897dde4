"""Intel's CPUs, GPUs and NPUs, through ONNX Runtime's OpenVINO provider: fixed shapes only.

Only the CPU was ever tried; an NPU can be selected, and that is all that is known of it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedec.devices.assigned import FALLBACK, NO_FALLBACK, listed, nodes_on_cpu
from edgedec.devices.messages import tail
from edgedec.devices.options import session_options
from edgedec.errors import (
    BundleError,
    DeviceError,
    EdgedecError,
    InputError,
    MissingDeviceError,
)
from edgedec.runtime.manifest import Component
from edgedec.runtime.session import OnnxSession, Session

if TYPE_CHECKING:
    from edgedec.devices.report import DeviceReport

PROVIDER = "OpenVINOExecutionProvider"
KINDS = ("CPU", "GPU", "NPU")
INSTALL = (
    "python -m venv ov && ov/bin/pip install edgedec && ov/bin/pip uninstall -y onnxruntime && "
    "ov/bin/pip install onnxruntime-openvino"
)
"""Its ONNX Runtime takes the usual one's place and is older: no bundle for CPUs runs there."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class OpenVino:
    """A device of OpenVINO.

    Attributes:
        kind: one of `KINDS`.
        allow_fallback: let ONNX Runtime's CPU provider run what OpenVINO does not, and say what.
    """

    kind: str = "CPU"
    allow_fallback: bool = False
    name: str = "openvino"

    def file(self, component: Component) -> str:
        """Its graph.

        Raises:
            DeviceError: there is none, but compiled forms of it only.
        """
        if component.contexts:
            raise DeviceError(
                f"{component.file} is compiled for {', '.join(component.contexts)} and cannot run "
                "on OpenVINO: export with --device openvino."
            )
        return component.file

    def fallback(self) -> str | None:
        """None: graphs for this device contain none of our operators."""
        return None

    def report(self) -> DeviceReport:
        """Whether it can be used here, and what it would run on."""
        import onnxruntime

        from edgedec.devices.report import DeviceReport

        reason = missing()
        runtime = None
        if reason is None:
            kinds = ", ".join(available())
            runtime = f"ONNX Runtime {onnxruntime.__version__} with OpenVINO ({kinds})"
        return DeviceReport(self.name, available=reason is None, reason=reason, runtime=runtime)

    def open(
        self, graph: Path, *, threads: int | None, shared: bool, records: Path | None = None
    ) -> Session:
        """Open a graph, which OpenVINO compiles for the device.

        Args:
            graph: an ``.onnx`` file of a checked bundle.
            threads: that a CPU computes with; OpenVINO's own choice by default.
            shared: as for every device.
            records: as for every device.

        Raises:
            DeviceError: OpenVINO does not run it, or is not there.
            BundleError: it is damaged.
        """
        options = session_options(threads, shared, records)
        entries = FALLBACK if self.allow_fallback else NO_FALLBACK
        try:
            inference = self._inference(graph, options, entries, threads)
        except EdgedecError:
            raise
        except Exception as error:  # ONNX Runtime's exceptions share no other base
            raise self._explain(error, graph) from error
        if self.allow_fallback:
            fallen, every = nodes_on_cpu(inference)
            if fallen:
                logger.warning(
                    "%s: %d of %d nodes run on the CPU instead of OpenVINO: %s",
                    *(graph.name, len(fallen), every, listed(fallen)),
                )
        return OnnxSession(graph.name, inference)

    def _inference(
        self, graph: Path, options: Any, entries: Mapping[str, str], threads: int | None
    ) -> Any:
        import onnxruntime

        reason = missing()
        if reason is None and self.kind not in available():
            kinds = ", ".join(available())
            reason = f"OpenVINO finds no {self.kind} on this machine, only {kinds}."
        if reason is not None:
            raise MissingDeviceError(
                f"the device 'openvino:{self.kind}' is not available here: {reason}"
            )
        for key, value in entries.items():
            options.add_session_config_entry(key, value)
        provider = {"device_type": self.kind}
        if threads is not None and self.kind == "CPU":
            provider["num_of_threads"] = str(threads)
        return onnxruntime.InferenceSession(
            graph, options, providers=[(PROVIDER, provider)], enable_fallback=0
        )

    def _explain(self, error: Exception, graph: Path) -> EdgedecError:
        """Name the nodes that OpenVINO left to the CPU, if that is why it failed."""
        reason = tail(error)
        if "NO_SUCHFILE" in str(error) or "INVALID_PROTOBUF" in str(error):
            return BundleError(f"{graph.name} cannot be opened: {reason}; export it again.")
        try:
            options = session_options(None, shared=True, records=None)
            fallen, every = nodes_on_cpu(self._inference(graph, options, FALLBACK, None))
            if fallen:
                reason = f"it leaves {len(fallen)} of {every} nodes to the CPU: {listed(fallen)}"
        except Exception:  # noqa: BLE001 - ONNX Runtime's share no other base; it has said enough
            logger.debug("%s cannot be opened with fallback either", graph.name)
        return DeviceError(
            f"{graph.name} does not run on OpenVINO's {self.kind} ({reason}): export with "
            "--device openvino, or put that component on the CPU (such as --device "
            "encoder=openvino,decoder=cpu)."
        )


def missing() -> str | None:
    """Why OpenVINO cannot be used here, in a sentence; None if it is installed."""
    import onnxruntime

    if PROVIDER in onnxruntime.get_available_providers():
        return None
    return f"OpenVINO has an ONNX Runtime and takes an environment of its own: {INSTALL}"


def available() -> list[str]:
    """The kinds of devices that OpenVINO finds on this machine."""
    from onnxruntime.capi import _pybind_state

    found = _pybind_state.get_available_openvino_device_ids()
    return [kind for kind in KINDS if any(name.split(".")[0] == kind for name in found)]


def device(option: str | None, allow_fallback: bool) -> OpenVino:
    """OpenVINO.

    Args:
        option: one of `KINDS`; None for the CPU.
        allow_fallback: let ONNX Runtime's CPU provider run what OpenVINO does not.

    Raises:
        InputError: there is no such kind of device.
    """
    kind = (option or "CPU").upper()
    if kind not in KINDS:
        raise InputError(f"OpenVINO has no device {option!r}; there are: {', '.join(KINDS)}.")
    return OpenVino(kind, allow_fallback)
