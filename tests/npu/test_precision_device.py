"""Every precision on the simulator: all nodes run there, and compute what the CPU does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from tests.npu.precisions import applied, difference, numbers, run, stored
from tests.npu.small import Array, feeds

from edgedec.devices.npu.precision import PRECISIONS
from edgedec.devices.qnn import Qnn

CASES = [
    ("t5", "encoder", "nbits8", "fp16"),
    ("t5", "decoder", "nbits4", "fp16"),
    ("bart", "decoder", "fp16", "u8"),
    ("t5", "decoder", "w8a16", "u8"),
    ("bart", "encoder", "w8a16", "s16"),
    ("bart", "decoder", "w4a16", "u8"),
    ("t5", "decoder", "lpbq", "s16"),
]
LIMIT = {"fp16": 0.005, "u8": 0.015, "s16": 0.005}
"""Of errors relative to values: float16 products, or integers of the caches that fall to the other
side because of them."""


@pytest.mark.parametrize(("style", "component", "precision", "kv"), CASES)
def test_the_device_computes_what_the_cpu_does(
    simulator: Qnn, tmp_path: Path, style: str, component: str, precision: str, kv: str
) -> None:
    assert kv in PRECISIONS[precision].kv
    model = applied(style, precision, kv)
    graph = model.models[component]
    fed = stored(model, component, feeds(component, 3))
    wanted = run(graph, fed)
    path = tmp_path / f"{component}.onnx"
    path.write_bytes(ir.serde.serialize_model(graph).SerializeToString())
    found: dict[str, Array] = {name: np.zeros_like(value) for name, value in wanted.items()}
    simulator.open(path, threads=None, shared=False).bind(fed, found).run()
    grids = model.static.grids
    assert difference(numbers(found, grids), numbers(wanted, grids)) < LIMIT[kv]
