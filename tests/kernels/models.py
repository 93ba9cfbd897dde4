"""Models of one of our operators, for ONNX Runtime without any library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgedec.kernels.operator import DOMAIN, OPSET, VERSION, Operator
from edgedec.kernels.packing import Packed
from edgedec.quantize.codebook import CodebookTensor

Array = NDArray[Any]


def random_matrix(
    rows: int, columns: int, bits: int, *, groups: int = 3, order: bool = False, seed: int = 0
) -> CodebookTensor:
    """Random codes, codebooks and scales; consecutive groups of whole blocks."""
    rng = np.random.default_rng(seed)
    blocks = -(-rows // 16)
    if bits == 8:
        books = np.arange(-128, 128, dtype=np.float32)[None]
    else:
        books = rng.standard_normal((groups, 1 << bits)).astype(np.float32)
    group_of_block = np.sort(rng.integers(0, len(books), blocks))
    return CodebookTensor(
        codes=rng.integers(bits == 8, 1 << bits, (rows, columns), dtype=np.uint8),
        codebooks=books,
        row_scale=rng.uniform(0.5, 2, rows).astype(np.float32),
        group_of_row=np.repeat(group_of_block, 16)[:rows].astype(np.uint16),
        bits=bits,
        row_order=rng.permutation(rows).astype(np.int32) if order else None,
    )


def weight_inputs(packed: Packed) -> dict[str, Array]:
    """The initializers of a packed matrix by the names of the schemas."""
    inputs: dict[str, Array] = {
        "W": packed.weight,
        "levels": packed.levels,
        "row_scale": packed.row_scale,
        "group_of_block": packed.group_of_block,
    }
    return inputs if packed.row_order is None else {**inputs, "row_order": packed.row_order}


def make_model(
    op: Operator,
    body: onnx.FunctionProto | None,
    nodes: Sequence[tuple[Mapping[str, Array], Mapping[str, Any], int]],
) -> onnx.ModelProto:
    """A model whose nodes are all of one operator.

    Args:
        op: the operator.
        body: its function.
        nodes: inputs by name (constant ones become initializers, what is left out is omitted),
            attributes, and the number of outputs. Node i's tensors are called ``{i}.{name}``.
    """
    proto = helper.make_model(
        graph := helper.make_graph([], "graph", [], []),
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, VERSION)],
        functions=[] if body is None else [body],
        ir_version=11,
    )
    graph = proto.graph
    for i, (inputs, attributes, outputs) in enumerate(nodes):
        names = []
        for tensor in op.inputs:
            names.append(f"{i}.{tensor.name}" if tensor.name in inputs else "")
            if tensor.name not in inputs:
                assert tensor.optional
                continue
            value = inputs[tensor.name]
            assert value.dtype == tensor.dtype, tensor.name
            if tensor.constant:
                graph.initializer.append(numpy_helper.from_array(value, names[-1]))
            else:
                kind = helper.np_dtype_to_tensor_dtype(value.dtype)
                shape = [None] * value.ndim
                graph.input.append(helper.make_tensor_value_info(names[-1], kind, shape))
        while not names[-1]:
            names.pop()
        assert set(attributes) == {attribute.name for attribute in op.attributes}
        results = [f"{i}.{tensor.name}" for tensor in op.outputs[:outputs]]
        unused = [""] * (len(op.outputs) - outputs)
        graph.node.append(
            helper.make_node(op.name, names, results + unused, domain=DOMAIN, **dict(attributes))
        )
        # "..." stands for as many axes in the results as in the first input
        first = op.inputs[0]
        free = inputs[first.name].ndim - len([axis for axis in first.shape if axis != "..."])
        for result, tensor in zip(results, op.outputs, strict=False):
            rank = sum(free if axis == "..." else 1 for axis in tensor.shape)
            graph.output.append(
                helper.make_tensor_value_info(result, onnx.TensorProto.FLOAT, [None] * rank)
            )
    return proto


def run_model(
    op: Operator,
    body: onnx.FunctionProto,
    nodes: Sequence[tuple[Mapping[str, Array], Mapping[str, Any], int]],
    *,
    optimized: bool = True,
) -> list[Array]:
    """The outputs of all nodes, one after the other, from ONNX Runtime without a library."""
    model = make_model(op, body, nodes)
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feeds = {
        f"{i}.{tensor.name}": inputs[tensor.name]
        for i, (inputs, _, _) in enumerate(nodes)
        for tensor in op.inputs
        if tensor.name in inputs and not tensor.constant
    }
    outputs: list[Array] = session.run(None, feeds)
    return outputs
