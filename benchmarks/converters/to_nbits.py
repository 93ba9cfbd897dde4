"""The graphs of a float32 bundle with 4-bit MatMulNBits in the place of every MatMul and Gemm.

    python to_nbits.py BUNDLE FOLDER

ONNX Runtime's own quantizer: block size 32, symmetric, accuracy level 4 (int8 arithmetic, its
fastest). The embedding stays float32: a token reads one row of it.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import onnx
from onnx import helper, numpy_helper
from onnxruntime.quantization.matmul_nbits_quantizer import (
    DefaultWeightOnlyQuantConfig,
    MatMulNBitsQuantizer,
)

SCHEME = DefaultWeightOnlyQuantConfig(block_size=32, is_symmetric=True, accuracy_level=4, bits=4)


def gemm_to_matmul(model: onnx.ModelProto) -> None:
    """Rewrite ``Gemm(x, W [N, K], transB=1)`` without bias, which the quantizer leaves alone."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type != "Gemm":
            continue
        found = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if len([name for name in node.input if name]) != 2 or found != {"transB": 1}:
            sys.exit(f"{node.name}: a Gemm with {found} and {len(node.input)} inputs")
        weight = numpy_helper.to_array(weights[node.input[1]])
        transposed = numpy_helper.from_array(weight.T.copy(), f"{node.input[1]}.transposed")
        model.graph.initializer.append(transposed)
        node.CopyFrom(
            helper.make_node(
                "MatMul", [node.input[0], transposed.name], list(node.output), node.name
            )
        )


def main(bundle: str, folder: str) -> None:
    """Convert every graph and copy the rest of the bundle but its weights."""
    target = Path(folder)
    target.mkdir(exist_ok=True)
    for path in Path(bundle).iterdir():
        if path.suffix == ".onnx":
            model = onnx.load(path)
            gemm_to_matmul(model)
            quantizer = MatMulNBitsQuantizer(model, algo_config=SCHEME)
            quantizer.process()
            data = f"{path.stem}.weights"
            (target / data).unlink(missing_ok=True)  # onnx appends to what is there
            onnx.save(
                quantizer.model.model, target / path.name, save_as_external_data=True, location=data
            )
        elif path.suffix == ".json":
            shutil.copy(path, target)


if __name__ == "__main__":
    main(*sys.argv[1:])
