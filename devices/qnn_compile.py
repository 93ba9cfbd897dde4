"""The process that compiles context binaries: ``python -m edgedec.devices.qnn_compile REQUEST``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgedec.devices.assigned import NO_FALLBACK
from edgedec.devices.context_file import write_plainly
from edgedec.devices.qnn import open_inference
from edgedec.devices.socs import find_soc
from edgedec.errors import DeviceError, EdgedecError

# ONNX Runtime's words for types of ports -> NumPy's.
FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
INTEGERS = {
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(int16)": "int16",
    "tensor(uint16)": "uint16",
}


def main(text: str) -> None:
    """Do what a `edgedec.devices.qnn_context.Request` asks, and print how it went as JSON."""
    request = json.loads(text)
    error = None
    try:
        compile_graphs(
            [Path(path) for path in request["graphs"]],
            [Path(path) for path in request["outs"]],
            request["socs"],
        )
    except EdgedecError as failure:
        error = str(failure)
    print(json.dumps({"error": error}))  # noqa: T201 - what the parent process reads


def compile_graphs(graphs: list[Path], outs: list[Path], names: list[str]) -> None:
    """Compile graphs into one binary, and compare it where it can be loaded.

    Raises:
        EdgedecError: QNN refuses, or what it made computes something else.
    """
    socs = [find_soc(name) for name in names]
    shared = len(graphs) > 1
    sessions = []
    for number, (graph, out) in enumerate(zip(graphs, outs, strict=True)):
        entries = {
            **NO_FALLBACK,
            "ep.context_enable": "1",
            "ep.context_file_path": str(out),
            "ep.context_embed_mode": "0",
        }
        if shared:
            entries["ep.share_ep_contexts"] = "1"
        if shared and number == len(graphs) - 1:
            entries["ep.stop_share_ep_contexts"] = "1"
        sessions.append(open_inference(graph, socs, entries))
    for out in outs:
        write_plainly(out, shared=shared)
    if not shared and len(socs) == 1:
        compare(graphs[0], sessions[0], outs[0], names[0])


def compare(graph: Path, prepared: Any, out: Path, soc: str) -> None:
    """Run a graph and its context on random inputs; indices are 0, which every table has.

    Args:
        graph: the graph's file.
        prepared: an ``onnxruntime.InferenceSession`` of it.
        out: the context's file.
        soc: name of the SoC of both.

    Raises:
        DeviceError: their outputs differ in a bit.
    """
    rng = np.random.default_rng(0)
    feeds = {port.name: _some(rng, port.type, port.shape) for port in prepared.get_inputs()}
    names = [port.name for port in prepared.get_outputs()]
    loaded = open_inference(out, [], NO_FALLBACK)
    for name, wanted, got in zip(
        names, prepared.run(names, feeds), loaded.run(names, feeds), strict=True
    ):
        if wanted.tobytes() != got.tobytes():
            raise DeviceError(
                f"the context of {graph.name} for {soc} computes another {name!r} "
                f"than the graph it was compiled from: use another --soc, or --quant fp16."
            )


def _some(rng: np.random.Generator, kind: str, shape: list[int]) -> NDArray[Any]:
    if kind in FLOATS:
        return rng.standard_normal(shape).astype(FLOATS[kind])
    if kind in INTEGERS:
        dtype = np.dtype(INTEGERS[kind])
        count = int(np.prod(shape)) * dtype.itemsize
        return np.frombuffer(rng.bytes(count), dtype).reshape(shape)
    return np.zeros(shape, np.int32)


if __name__ == "__main__":
    main(sys.argv[1])
