"""What QNN and its provider say when they refuse a graph, in words that help."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgedec.devices.assigned import listed, nodes_on_cpu
from edgedec.devices.qnn_library import is_simulator
from edgedec.errors import BundleError, DeviceError, EdgedecError
from edgedec.runtime.session import first_line

if TYPE_CHECKING:
    from edgedec.devices.qnn import Qnn

WAY_OUT = (
    "run that component on the CPU (--device encoder=qnn,decoder=cpu or the other way round), or "
    "let those nodes fall back (--allow-fallback)"
)


def explain(error: Exception, graph: Path, device: Qnn) -> EdgedecError:
    """The error for the user.

    Args:
        error: what opening the graph raised.
        graph: the file.
        device: what was to open it.
    """
    reason = first_line(error)
    if "fallback to CPU EP has been explicitly disabled" in reason:
        return _not_taken(graph, device)
    if "Failed to finalize QNN graph" in reason:
        # It says MEM_ALLOC whatever the cause.
        return DeviceError(
            f"{graph.name} cannot be prepared for {device.target.name}, most likely because that "
            f"SoC lacks a combination of types in it: export for another --soc or with another "
            f"--quant ({_tail(error)})."
        )
    if "EpContext" in reason:
        also = ", or for several SoCs in one, which the simulator cannot load"
        return BundleError(
            f"the compiled form of {graph.name} cannot be loaded: it is damaged, or made by a "
            f"newer QNN{also if is_simulator() else ' or for another SoC'}; export it again "
            f"({_tail(error)})."
        )
    if "Error creating execution provider" in reason:
        return DeviceError(
            f"the NPU cannot be opened for {device.target.name}: see `edgedec devices --doctor` "
            f"({_tail(error)})."
        )
    return BundleError(f"{graph.name} cannot be opened by QNN: {reason}")


def _not_taken(graph: Path, device: Qnn) -> EdgedecError:
    """Name the nodes that QNN left to the CPU; the runtime says only that there are some."""
    try:
        fallen, every = nodes_on_cpu(device.fallen_back(graph))
    except Exception as error:  # noqa: BLE001 - ONNX Runtime's exceptions share no other base
        fallen, every = [], 0
        reason = first_line(error)
    else:
        reason = f"{len(fallen)} of {every} nodes: {listed(fallen)}"
    if fallen and len(fallen) == every and not device.works():
        return DeviceError(
            f"the NPU cannot be opened for {device.target.name}, not even for a graph of one node: "
            "see `edgedec devices --doctor`."
        )
    return DeviceError(
        f"{graph.name} does not run entirely on the NPU ({device.target.name}), which leaves to "
        f"the CPU {reason}; {WAY_OUT}."
    )


def _tail(error: Exception) -> str:
    """The end of a message: its beginning says where in the provider it arose."""
    return first_line(ValueError(str(error).strip().rsplit(" : ", 1)[-1])).rstrip(". ")
