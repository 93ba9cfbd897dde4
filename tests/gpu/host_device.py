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


def device(option: str | None, allow_fallback: bool) -> Host:
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
    graph = model.graph
    for value in graph.initializers.values():
        assert value.const_value is not None
        value.const_value = _wide(value.const_value)
    values = [*graph.initializers.values(), *graph.inputs, *graph.outputs]
    for node in graph:
        values += node.outputs
        for name, attribute in list(node.attributes.items()):
            if attribute.type == ir.AttributeType.TENSOR:
                node.attributes[name] = ir.AttrTensor(name, _wide(attribute.as_tensor()))
            elif name == "to" and attribute.as_int() == HALF:
                node.attributes[name] = ir.AttrInt64(name, FLOAT)
    for value in values:
        if value.dtype == HALF:
            value.dtype = FLOAT


def _wide(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    if tensor.dtype != HALF:
        return tensor
    return ir.tensor(tensor.numpy().astype(np.float32), name=tensor.name)
