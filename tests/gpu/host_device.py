"""A device with resident memory that is the host's: graphs for GPUs, run by ONNX Runtime there."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from edgedec.devices import base
from edgedec.devices.gpu.lowering import resident_graph, save_resident
from edgedec.devices.options import session_options
from edgedec.devices.report import DeviceReport
from edgedec.errors import InputError, MissingDeviceError
from edgedec.runtime.bundle import Bundle
from edgedec.runtime.manifest import Limits
from edgedec.runtime.resident.arena import HostArena
from edgedec.runtime.session import OnnxSession, Session

NAME = "host"
HALF, FLOAT = ir.DataType.FLOAT16, ir.DataType.FLOAT


@dataclass(frozen=True)
class Host:
    """Runs what the `cuda` device would, in float32 unless it is asked for float16.

    Attributes:
        half: leave the graphs in float16, as they are lowered.
        absent: fail as a device does that is not there.
        opened: components, in order.
    """

    half: bool = False
    absent: bool = False
    name: str = NAME
    opened: list[str] = field(default_factory=list)

    def fallback(self) -> None:
        """Nothing is lost."""

    def report(self) -> DeviceReport:
        return DeviceReport(self.name, available=not self.absent, reason=None, runtime=None)

    def arena(self) -> HostArena:
        return arena()

    def open_resident(
        self,
        bundle: Bundle,
        component: str,
        limits: Limits,
        *,
        threads: int | None,
        records: Path | None = None,
    ) -> Session:
        if self.absent:
            raise MissingDeviceError("the device 'host' is not available here: it is hidden.")
        resident = resident_graph(bundle, component, limits, "cuda")
        if not self.half:
            widen(resident.model)
        options = session_options(threads, True, records)
        with tempfile.TemporaryDirectory() as folder:
            path = save_resident(resident, Path(folder))
            inference = onnxruntime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"]
            )
        self.opened.append(component)
        return OnnxSession(f"{component}.onnx", inference)


@cache
def arena() -> HostArena:
    """The only one, as of every device."""
    return HostArena()


def device(option: str | None, allow_fallback: bool) -> Host:  # noqa: ARG001
    """What edgedec asks a device's module for; options are ``half`` and ``absent``."""
    if option not in {None, "half", "absent"}:
        raise InputError(f"the device {NAME!r} has no option {option!r}.")
    return Host(half=option == "half", absent=option == "absent")


def offer(patch: pytest.MonkeyPatch) -> None:
    """Let there be a device ``host``."""
    patch.setitem(base.DEVICES, NAME, __name__)
    patch.setattr(base, "RESIDENT", base.RESIDENT | {NAME})


def widen(model: ir.Model) -> None:
    """Compute in float32 what a lowered graph computes in float16, in place."""
    for value in model.graph.initializers.values():
        assert value.const_value is not None
        if value.const_value.dtype == HALF:
            wide = value.const_value.numpy().astype(np.float32)
            value.const_value = ir.tensor(wide, name=value.name)
            value.dtype = FLOAT
    for value in (*model.graph.inputs, *model.graph.outputs):
        if value.dtype == HALF:
            value.dtype = FLOAT
    for node in model.graph:
        if node.op_type == "Cast" and node.attributes["to"].as_int() == HALF:
            node.attributes["to"] = ir.AttrInt64("to", FLOAT)
        for value in node.outputs:
            if value.dtype == HALF:
                value.dtype = FLOAT
        for name, attribute in list(node.attributes.items()):
            if attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype == HALF:
                wide = attribute.as_tensor().numpy().astype(np.float32)
                node.attributes[name] = ir.AttrTensor(name, ir.tensor(wide))
