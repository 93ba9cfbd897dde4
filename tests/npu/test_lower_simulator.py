"""Graphs of fixed shapes in float32 run on the simulated NPU, every node of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from tests.export.tiny import VOCAB, write
from tests.npu.lowering import Array, Host, Run, dynamic_logits, host, lower

from edgedec.devices.npu.model import StaticModel
from edgedec.devices.qnn import Qnn
from edgedec.export import export_checkpoint

NEAR = 0.03
"""Between float32 and the NPU's 16 bits, of the range of the logits."""
TYPES = {"tensor(float)": np.float32, "tensor(int32)": np.int32}


def runner(device: Qnn, model: ir.Model, path: Path) -> Run:
    """A graph on a device that runs all of it or refuses to open it."""
    ir.save(model, path, external_data=f"{path.stem}.bin")
    session = device.open(path, threads=1, shared=False)

    def run(feeds: Mapping[str, Array]) -> dict[str, Array]:
        outputs = {
            name: np.empty([int(n or 0) for n in port.shape], TYPES[port.type])
            for name, port in session.outputs.items()
        }
        arrays = {name: np.ascontiguousarray(value) for name, value in feeds.items()}
        session.bind(arrays, outputs).run()
        return outputs

    return run


def on_device(device: Qnn, model: StaticModel, folder: Path) -> Host:
    runs = {
        name: runner(device, graph, folder / f"{name}.onnx") for name, graph in model.models.items()
    }
    return Host(model, runs)


@pytest.mark.parametrize("family", ["t5", "bart", "mu", "llama", "opt"])
def test_steps_and_chunks(simulator: Qnn, tmp_path: Path, family: str) -> None:
    folder = export_checkpoint(write(tmp_path / "checkpoint", family), tmp_path / "bundle")
    rng = np.random.default_rng(3)
    target = rng.integers(3, VOCAB, 6).tolist()
    source = None if family in ("llama", "opt") else rng.integers(3, VOCAB, 7).tolist()
    model = lower(folder, None if source is None else 10, 12, chunk=4)
    npu = on_device(simulator, model, tmp_path)
    if source is not None:
        npu.encode(source)
    expected = dynamic_logits(folder, source, target)
    bound = NEAR * np.ptp(expected)
    if source is None:
        prompted = npu.prefill(target[:3])
        np.testing.assert_allclose(prompted, expected[2], atol=bound, rtol=0)
    found = npu.logits(target[npu.length :])
    np.testing.assert_allclose(found, expected[-len(found) :], atol=bound, rtol=0)


def test_unrolled_steps(simulator: Qnn, tmp_path: Path) -> None:
    folder = export_checkpoint(write(tmp_path / "checkpoint", "bart"), tmp_path / "bundle")
    source = np.random.default_rng(3).integers(3, VOCAB, 7).tolist()
    model = lower(folder, 10, 12, unroll=3)
    npu, cpu = on_device(simulator, model, tmp_path), host(model)
    for side in (npu, cpu):
        side.encode(source)
    assert npu.greedy(5, runs=3) == cpu.greedy(5, runs=3)
