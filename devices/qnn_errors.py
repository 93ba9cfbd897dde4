"""What QNN and its provider say when they refuse a graph, in words that help."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgedec.devices.assigned import FALLBACK, listed, nodes_on_cpu
from edgedec.devices.messages import tail
from edgedec.devices.qnn_library import is_simulator
from edgedec.devices.qnn_session import open_raw, works
from edgedec.devices.socs import Soc
from edgedec.errors import BundleError, DeviceError, EdgedecError, MissingDeviceError
from edgedec.runtime.session import first_line

DOCTOR = "see `edgedec devices --doctor`"
OTHER = ("Inconsistent", "does not match QNN tensor", "Tensor name not found")
"""Of messages about inputs and outputs that the binary has otherwise than the graph's file."""


def explain(error: Exception, graph: Path, socs: Sequence[Soc]) -> EdgedecError:
    """The error for the user.

    Args:
        error: what opening the graph raised.
        graph: the file.
        socs: that it was opened for.
    """
    reason = first_line(error)
    names = "+".join(soc.name for soc in socs)
    if isinstance(error, EdgedecError):
        return error
    known = explain_run(graph, error)
    if known is not None:
        return known
    if "fallback to CPU EP has been explicitly disabled" in reason:
        return _not_taken(graph, socs, names)
    if "Failed to finalize QNN graph" in reason:
        # It says MEM_ALLOC whatever the cause.
        return DeviceError(
            f"{graph.name} cannot be prepared for {names}, most likely because that SoC lacks a "
            f"combination of types in it: export with another --soc or --quant ({tail(error)})."
        )
    if "EpContext" in reason:
        other = "" if is_simulator() else ", for another SoC"
        return BundleError(
            f"the compiled graph {graph.name} cannot be loaded: it is damaged{other}, or made by a "
            f"newer QNN; export the bundle again ({tail(error)})."
        )
    if "Error creating execution provider" in reason:
        return MissingDeviceError(
            f"the NPU cannot be opened for {names} ({tail(error)}): {DOCTOR}."
        )
    return BundleError(
        f"{graph.name} cannot be opened by QNN: copy or export the bundle again ({_status(error)})."
    )


def explain_run(graph: Path, error: Exception) -> BundleError | None:
    """The error for the user where a binary does not belong to the graph's file; else None.

    QNN finds that out when the graph runs for the first time.
    """
    if not any(words in str(error) for words in OTHER):
        return None
    return BundleError(
        f"the binary of {graph.name} is not the one that this graph was compiled into: copy or "
        f"export the bundle again ({_status(error)})."
    )


def _status(error: Exception) -> str:
    """A message without the names of nodes that the provider made up."""
    return tail(error).rpartition("Status Message: ")[2]


def _not_taken(graph: Path, socs: Sequence[Soc], names: str) -> EdgedecError:
    """Name the nodes that QNN left to the CPU; the runtime says only that there are some."""
    which = "some of its nodes"
    try:
        fallen, every = nodes_on_cpu(open_raw(graph, socs, FALLBACK))
        if fallen:
            which = f"{len(fallen)} of {every} nodes: {listed(fallen)}"
    except Exception:  # noqa: BLE001 - ONNX Runtime's share no other base; it has said enough
        fallen, every = [], -1
    if len(fallen) == every and not works(socs):
        return MissingDeviceError(
            f"the NPU cannot be opened for {names}, not even for a graph of one node: {DOCTOR}."
        )
    return DeviceError(
        f"{graph.name} does not run entirely on the NPU ({names}), which leaves to the CPU "
        f"{which}; put that component on the CPU (such as --device encoder=qnn,decoder=cpu), or "
        "let those nodes fall back (--allow-fallback)."
    )
