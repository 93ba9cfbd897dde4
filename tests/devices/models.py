"""Small graphs with weights, lowered, and run with and without the operator library."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray
from onnx import numpy_helper

from edgedec.devices.lowering import lower_graphs
from edgedec.devices.matrices import PackedMatrix
from edgedec.kernels.codebook_matmul import Compute
from edgedec.kernels.library import library_path, refused, register
from edgedec.kernels.operator import DOMAIN
from edgedec.quantize.baselines.kmeans import kmeans
from edgedec.quantize.baselines.nearest import round_to_nearest
from edgedec.quantize.codebook import CodebookTensor
from edgedec.quantize.matrices import Matrix

Array = NDArray[Any]
CLOSE = 2e-5
"""Between float32 products with the same weights in different orders; values are of unit size."""
HAS_LIBRARY = library_path() is not None and refused(onnxruntime.__version__) is None
WAYS = [True, False] if HAS_LIBRARY else [False]
"""Ways to run a lowered graph: by the library where there is one, and by function bodies."""


def graph(text: str, **shapes: tuple[int, ...]) -> ir.Model:
    """A model in ONNX's textual syntax, with random constants of such names and shapes.

    A comment ``# name`` behind a node names it; the parser knows no names with dots.
    """
    code, names = [], []
    for line in text.splitlines():
        statement, _, name = line.partition("#")
        code.append(statement)
        names += [name.strip()] if "= " in statement else []
    joined = "\n".join(code)
    proto = onnx.parser.parse_model(f'<ir_version: 11, opset_import: ["": 24]> {joined}')
    for node, name in zip(proto.graph.node, names, strict=True):
        node.name = name
    rng = np.random.default_rng(0)
    for name, shape in shapes.items():
        values = (rng.normal(size=shape) / shape[-1] ** 0.5).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(values, name))
    return ir.serde.deserialize_model(proto)


def nearest(matrix: Matrix) -> CodebookTensor:
    """8 bits, rounded."""
    return round_to_nearest(matrix.read())


def codes_of(bits: int) -> Callable[[Matrix], CodebookTensor]:
    """Codes of so many bits, by methods that need no text."""
    return lambda m: round_to_nearest(m.read()) if bits == 8 else kmeans(m.read(), bits)


def lower(
    model: ir.Model,
    quantize: Callable[[Matrix], CodebookTensor] = nearest,
    *,
    compute: Compute = "fp32",
    portable: bool = False,
) -> list[PackedMatrix]:
    """Lower a graph in place; returns the matrices that it holds."""
    return lower_graphs({"g": model}, quantize, compute=compute, portable=portable)["g"]


def with_codes(model: ir.Model, matrices: list[PackedMatrix]) -> ir.Model:
    """A floating-point graph with the weights that the codes of its lowered form stand for."""
    changed = deepcopy_model(model)
    for packed in matrices:
        first = 0
        for part in packed.parts:
            values = packed.packed.dequantize()[first : first + part.rows]
            stored = changed.graph.initializers[part.name]
            stored.const_value = ir.tensor(values.T if part.transposed else values, name=part.name)
            first += part.rows
    return changed


def deepcopy_model(model: ir.Model) -> ir.Model:
    return ir.serde.deserialize_model(deepcopy(ir.serde.serialize_model(model)))


def run(model: ir.Model, feeds: Mapping[str, Array], *, library: bool = False) -> list[Array]:
    """Outputs of a model from ONNX Runtime."""
    proto = ir.serde.serialize_model(model)
    onnx.checker.check_model(proto)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    if library:
        assert register(options) is None
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    outputs: list[Array] = session.run(None, dict(feeds))
    return outputs


def lowered_like(
    model: ir.Model,
    feeds: Mapping[str, Array],
    quantize: Callable[[Matrix], CodebookTensor] = nearest,
) -> list[PackedMatrix]:
    """Lower a graph in place, and assert that it computes what it did with such weights."""
    before = deepcopy_model(model)
    matrices = lower(model, quantize)
    expected = run(with_codes(before, matrices), feeds)
    for library in WAYS:
        for found, wanted in zip(run(model, feeds, library=library), expected, strict=True):
            assert found.shape == wanted.shape
            np.testing.assert_allclose(found, wanted, atol=CLOSE, rtol=0)
    return matrices


def nodes(model: ir.Model, op_type: str) -> list[ir.Node]:
    return [node for node in model.graph if node.op_type == op_type]


def operators(model: ir.Model) -> list[str]:
    """Operators of a graph in order, ours with their domain."""
    return [f"{DOMAIN}::{n.op_type}" if n.domain == DOMAIN else n.op_type for n in model.graph]
