"""The library in the oldest and the newest ONNX Runtime it is for, and in one that is too old."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest

from edgedec.kernels import library

pytestmark = [pytest.mark.network, pytest.mark.slow]

# Runs in a process of its own, with another ONNX Runtime in front: prints what it saw as JSON.
PROGRAM = """
import json, sys
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper
from edgedec.kernels import library
from edgedec.kernels.codebook_matmul import reference
from edgedec.kernels.packing import pack
from edgedec.quantize.baselines.nearest import round_to_nearest

random = np.random.default_rng(0)
weight = random.standard_normal((48, 40), np.float32)
x = random.standard_normal((3, 40), np.float32)
packed = pack(round_to_nearest(weight))
constants = {
    "W": packed.weight,
    "levels": packed.levels,
    "row_scale": packed.row_scale,
    "group_of_block": packed.group_of_block,
}
product = helper.make_node(
    "CodebookMatMul", ["X", *constants], ["Y"], domain="edgedec",
    bits=packed.bits, compute="int8", splits=[48, 0, 0],
)
graph = helper.make_graph(
    [product], "test",
    [helper.make_tensor_value_info("X", TensorProto.FLOAT, [3, 40])],
    [helper.make_tensor_value_info("Y", TensorProto.FLOAT, [3, 48])],
    [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
)
imports = [helper.make_opsetid("", 21), helper.make_opsetid("edgedec", 1)]
model = helper.make_model(graph, opset_imports=imports, ir_version=10)

seen = {"version": onnxruntime.__version__}
options = onnxruntime.SessionOptions()
seen["register"] = library.register(options)
if seen["register"] is None:
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    expected = reference(x, packed, compute="int8")[0]
    seen["equal"] = bool((session.run(None, {"X": x})[0] == expected).all())
try:
    raw = onnxruntime.SessionOptions()
    raw.register_custom_ops_library(str(library.library_path()))
except Exception as error:
    seen["raw"] = str(error)
print(json.dumps(seen))
"""


@pytest.fixture(scope="module", autouse=True)
def _library() -> None:
    if library.library_path() is None:
        pytest.skip("edgedec was installed without its operator library")


def seen_with(version: str, folder: Path) -> dict[str, object]:
    """What `PROGRAM` sees with that ONNX Runtime."""
    if version != onnxruntime.__version__:
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        done = subprocess.run(
            [*install, "--target", folder, f"onnxruntime=={version}"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"no onnxruntime {version} from a package index here: {done.stderr[-200:]}")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen: dict[str, object] = json.loads(done.stdout)
    assert seen["version"] == version
    return seen


@pytest.mark.parametrize("version", ["1.24.1", "1.31.1", "1.32.0"])
def test_computes_in(version: str, tmp_path: Path) -> None:
    seen = seen_with(version, tmp_path)
    assert seen["register"] is None
    assert seen["equal"] is True
    assert "raw" not in seen


def test_refuses_an_older_one(tmp_path: Path) -> None:
    seen = seen_with("1.23.2", tmp_path)
    assert "ONNX Runtime 1.24 to 1.32" in str(seen["register"])
    assert "this is 1.23.2" in str(seen["register"])
    # the library itself says so too, to programs that load it without edgedec
    assert "1.23.2" in str(seen["raw"])
    assert "1.24" in str(seen["raw"])
