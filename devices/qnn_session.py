"""Sessions of ONNX Runtime's QNN provider, as it makes them: errors are explained elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgedec.devices.assigned import NO_FALLBACK
from edgedec.devices.options import session_options
from edgedec.devices.qnn_library import load
from edgedec.devices.socs import Soc

ONE_NODE = """<ir_version: 10, opset_import: ["": 21]>
probe (float[1, 8] x) => (float[1, 8] y) { y = Relu(x) }"""


def open_raw(
    graph: Path | bytes,
    socs: Sequence[Soc],
    entries: Mapping[str, str] = NO_FALLBACK,
    options: Any = None,
) -> Any:
    """An ``onnxruntime.InferenceSession`` on the NPU.

    Args:
        graph: a file, or what would be in it.
        socs: to prepare the graph for; none for a compiled one, several if it is to be compiled.
        entries: of the session's configuration; they also say whether nodes may fall back.
        options: of the session; None for the default.

    Raises:
        EdgedecError: the NPU's runtime is not there.
        Exception: whatever ONNX Runtime raises.
    """
    import onnxruntime

    devices, backend = load()
    if options is None:
        options = session_options(None, shared=True, records=None)
    for key, value in entries.items():
        options.add_session_config_entry(key, value)
    options.add_provider_for_devices(devices, _provider_options(backend, socs))
    # Without this, it would try again on the CPU, print() that, and hide the reason.
    return onnxruntime.InferenceSession(graph, options, enable_fallback=0)


def works(socs: Sequence[Soc]) -> bool:
    """Whether the NPU takes a graph of one node."""
    from onnx import parser

    try:
        open_raw(parser.parse_model(ONE_NODE).SerializeToString(), socs)
    except Exception:  # noqa: BLE001 - whatever it is, it does not
        return False
    return True


def _provider_options(backend: str, socs: Sequence[Soc]) -> dict[str, str]:
    """The SoC is always named: without one, QNN takes the oldest and computes in float32."""
    options = {"backend_path": backend}
    if socs:
        options["soc_model"] = ",".join(str(soc.number) for soc in socs)
        options["enable_htp_fp16_precision"] = "1"
    if len(socs) > 1:
        options["htp_arch"] = ",".join(str(soc.arch) for soc in socs)
    return options
