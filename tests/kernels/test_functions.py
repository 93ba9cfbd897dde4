"""The function bodies in ONNX Runtime without our library, against the references."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from numpy.typing import NDArray
from tests.kernels.models import make_model, random_matrix, run_model, weight_inputs

from edgedec.kernels import codebook_gather, codebook_matmul, decode_attention, memory_attention
from edgedec.kernels.functions import function
from edgedec.kernels.operator import DOMAIN, OPSET
from edgedec.kernels.packing import pack
from edgedec.runtime.onnx_file import read_onnx

Array = NDArray[np.float32]
Nodes = list[tuple[Mapping[str, NDArray[Any]], Mapping[str, Any], int]]
BITS = (2, 3, 4, 8)
SPLITS = {1: (80, 0, 0), 2: (64, 16, 0), 3: (16, 32, 32)}
OPERATORS = {
    module.OP.name: module.OP
    for module in (codebook_matmul, codebook_gather, decode_attention, memory_attention)
}

optimized = pytest.mark.parametrize("optimized", [True, False], ids=["folded", "node by node"])
row_order = pytest.mark.parametrize("row_order", [False, True], ids=["in order", "reordered"])


def draw(rng: np.random.Generator, *shape: int) -> Array:
    return rng.standard_normal(shape).astype(np.float32)


def products(columns: int, order: bool) -> tuple[Nodes, list[Array], list[Array]]:
    """Nodes of all bits, numbers of results, with and without bias; what they give, and how exact.

    The tolerance is the bound that the function states.
    """
    rng = np.random.default_rng(columns)
    nodes: Nodes = []
    expected: list[Array] = []
    tolerance: list[Array] = []
    for bits in BITS:
        packed = pack(random_matrix(80, columns, bits, order=order, seed=bits))
        sizes = np.abs(packed.dequantize()).astype(np.float32).T
        for outputs, splits in SPLITS.items():
            for biased in (False, True):
                x = draw(rng, 2, 3, columns)
                inputs = {"X": x, **weight_inputs(packed)}
                if biased:
                    inputs["bias"] = draw(rng, 80)
                attributes = {"bits": bits, "compute": "int8", "splits": list(splits)}
                nodes.append((inputs, attributes, outputs))
                bias = inputs.get("bias")
                found = codebook_matmul.reference(x, packed, bias, compute="fp32", splits=splits)
                expected += found[:outputs]
                within = (
                    (np.abs(x) @ sizes + np.abs(inputs.get("bias", 0))) * (columns + 3) * 2.0**-23
                )
                tolerance += np.split(within, np.cumsum(splits)[:2], axis=-1)[:outputs]
    return nodes, expected, tolerance


@optimized
@row_order
@pytest.mark.parametrize("columns", [96, 91, 1])
def test_matmul(optimized: bool, row_order: bool, columns: int) -> None:
    nodes, expected, tolerance = products(columns, row_order)
    for ragged in {True, columns % 32 != 0}:
        body = codebook_matmul.function(row_order=row_order, ragged=ragged)
        results = run_model(codebook_matmul.OP, body, nodes, optimized=optimized)
        for result, want, within in zip(results, expected, tolerance, strict=True):
            assert result.shape == want.shape
            assert (np.abs(result - want) <= within).all()


@pytest.mark.parametrize("shape", [(33,), (1, 33), (0, 33), (2, 0, 33), (2, 1, 3, 33)])
def test_matmul_of_any_rank(shape: tuple[int, ...]) -> None:
    packed = pack(random_matrix(20, 33, 4))
    x = draw(np.random.default_rng(0), *shape)
    attributes = {"bits": 4, "compute": "fp32", "splits": [20, 0, 0]}
    nodes: Nodes = [({"X": x, **weight_inputs(packed)}, attributes, 1)]
    (result,) = run_model(codebook_matmul.OP, codebook_matmul.function(), nodes)
    expected, *_ = codebook_matmul.reference(x, packed, compute="fp32")
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)


@row_order
def test_one_matrix_per_panel_and_many(row_order: bool) -> None:
    """Sizes around the 16 rows of a block and the 64 of a panel, in one model."""
    nodes: Nodes = []
    expected = []
    for rows in (1, 15, 16, 17, 63, 64, 65, 130):
        for bits in BITS:
            packed = pack(random_matrix(rows, 40, bits, order=row_order, seed=rows))
            x = draw(np.random.default_rng(rows), 2, 40)
            attributes = {"bits": bits, "compute": "fp32", "splits": [rows, 0, 0]}
            nodes.append(({"X": x, **weight_inputs(packed)}, attributes, 1))
            expected.append(codebook_matmul.reference(x, packed, compute="fp32")[0])
    body = codebook_matmul.function(row_order=row_order)
    for result, want in zip(run_model(codebook_matmul.OP, body, nodes), expected, strict=True):
        # 40 products of levels up to 127 and scales up to 2
        np.testing.assert_allclose(
            result, want, rtol=0, atol=40 * 2.0**-23 * np.abs(want).max() * 9
        )


@row_order
@pytest.mark.parametrize("ragged", [False, True], ids=["even", "ragged"])
def test_weights_are_unpacked_once(row_order: bool, ragged: bool, tmp_path: Path) -> None:
    """ONNX Runtime folds everything that does not depend on X; else each step would unpack."""
    nodes, *_ = products(96, row_order)
    body = codebook_matmul.function(row_order=row_order, ragged=ragged)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    model = make_model(codebook_matmul.OP, body, nodes)
    onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    left = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    padding = {"Sub", "Pad"} if ragged else set()
    assert set(left) <= {"Flatten", "Gemm", "Shape", "Concat", "Reshape", "Split"} | padding
    assert left["Gemm"] == len(nodes)


@optimized
@row_order
@pytest.mark.parametrize("columns", [64, 45, 1])
def test_gather(optimized: bool, row_order: bool, columns: int) -> None:
    rng = np.random.default_rng(columns)
    nodes: Nodes = []
    expected = []
    for bits in BITS:
        packed = pack(random_matrix(90, columns, bits, order=row_order, seed=bits))
        for shape in ((), (1,), (3, 4), (2, 0), (2, 1, 5)):
            indices = rng.integers(0, 90, shape)
            attributes = {"bits": bits, "K": columns}
            inputs = {"indices": np.asarray(indices), **weight_inputs(packed)}
            nodes.append((inputs, attributes, 1))
            expected.append(codebook_gather.reference(np.asarray(indices), packed))
    body = codebook_gather.function(row_order=row_order)
    results = run_model(codebook_gather.OP, body, nodes, optimized=optimized)
    for result, want in zip(results, expected, strict=True):
        np.testing.assert_array_equal(result, want, strict=True)


@row_order
@pytest.mark.parametrize("index", [-1, 90, 1 << 40, -(1 << 40)])
def test_gather_refuses(row_order: bool, index: int) -> None:
    packed = pack(random_matrix(90, 8, 4, order=row_order))
    inputs = {"indices": np.array([3, index]), **weight_inputs(packed)}
    nodes: Nodes = [(inputs, {"bits": 4, "K": 8}, 1)]
    with pytest.raises(Exception, match="Gather"):
        run_model(codebook_gather.OP, codebook_gather.function(row_order=row_order), nodes)


HEADS = [(4, 4), (4, 2), (6, 1)]


@optimized
@pytest.mark.parametrize(("heads", "kv_heads"), HEADS)
@pytest.mark.parametrize("new", [1, 2, 7])
def test_decode_attention(optimized: bool, heads: int, kv_heads: int, new: int) -> None:
    rng = np.random.default_rng(heads)
    nodes: Nodes = []
    expected: list[Array] = []
    for bias_heads in (1, heads):
        for origin, length in ((0, 1), (1, 6), (-2, 6), (3, 40)):
            inputs: dict[str, Any] = {
                "query": draw(rng, 3, new, heads * 8),
                "key": draw(rng, 3, new, kv_heads * 8),
                "value": draw(rng, 3, new, kv_heads * 8),
                "past_key": draw(rng, 3, 20, kv_heads * 8),
                "past_value": draw(rng, 3, 20, kv_heads * 8),
                "past_length": np.array([0, 5, 20 - new]),
                "bias": draw(rng, bias_heads, length),
            }
            attributes: dict[str, Any] = {
                "q_num_heads": heads,
                "kv_num_heads": kv_heads,
                "scale": 0.4,
                "origin": origin,
            }
            nodes.append((inputs, attributes, 3))
            expected += decode_attention.reference(**inputs, **attributes)
    body = decode_attention.function()
    results = run_model(decode_attention.OP, body, nodes, optimized=optimized)
    for i, (result, want) in enumerate(zip(results, expected, strict=True)):
        # the tolerance of the operator; caches are copies
        np.testing.assert_allclose(result, want, rtol=0, atol=0 if i % 3 else 1e-5)


@pytest.mark.parametrize("length", [-1, 8])
def test_decode_attention_refuses_what_does_not_fit(length: int) -> None:
    new, past = np.zeros((1, 2, 4), np.float32), np.zeros((1, 9, 4), np.float32)
    inputs = {
        "query": new,
        "key": new,
        "value": new,
        "past_key": past,
        "past_value": past,
        "past_length": np.array([length]),
        "bias": np.zeros((1, 1), np.float32),
    }
    attributes = {"q_num_heads": 1, "kv_num_heads": 1, "scale": 1.0, "origin": 0}
    with pytest.raises(Exception, match="TensorScatter"):
        run_model(decode_attention.OP, decode_attention.function(), [(inputs, attributes, 3)])


@optimized
@pytest.mark.parametrize(("heads", "kv_heads"), HEADS)
@pytest.mark.parametrize("new", [1, 7])
def test_memory_attention(optimized: bool, heads: int, kv_heads: int, new: int) -> None:
    rng = np.random.default_rng(heads)
    nodes: Nodes = []
    expected: list[Array] = []
    for bias_heads in (1, heads):
        for origin, length in ((0, 1), (7, 15), (-2, 6)):
            mask = np.zeros((3, 1, 1, 11), np.float32)
            mask[1, ..., 4:] = -1e9
            inputs: dict[str, Any] = {
                "query": draw(rng, 3, new, heads * 8),
                "key": draw(rng, 3, 11, kv_heads * 8),
                "value": draw(rng, 3, 11, kv_heads * 8),
                "mask": mask,
                "bias": draw(rng, bias_heads, length),
            }
            attributes: dict[str, Any] = {
                "q_num_heads": heads,
                "kv_num_heads": kv_heads,
                "scale": 0.4,
                "origin": origin,
            }
            nodes.append((inputs, attributes, 1))
            expected.append(memory_attention.reference(**inputs, **attributes))
    body = memory_attention.function()
    results = run_model(memory_attention.OP, body, nodes, optimized=optimized)
    for result, want in zip(results, expected, strict=True):
        np.testing.assert_allclose(result, want, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", OPERATORS)
@row_order
def test_bodies_match_their_schemas(name: str, row_order: bool) -> None:
    op, body = OPERATORS[name], function(name, row_order=row_order)
    assert isinstance(body, ir.Function)
    assert body.identifier() == (DOMAIN, name, "")
    assert body.opset_imports == {"": OPSET}
    names = [tensor.name for tensor in op.inputs if row_order or tensor.name != "row_order"]
    assert [value.name for value in body.inputs] == names
    assert [value.name for value in body.outputs] == [tensor.name for tensor in op.outputs]
    assert list(body.attributes) == [attribute.name for attribute in op.attributes]
    assert all(node.domain == "" for node in body)
    assert not {node.op_type for node in body} & {"If", "Loop", "Scan", "Compress"}
    # what a bundle may contain
    model = make_model(op, ir.to_proto(body), [])
    assert read_onnx(model.SerializeToString()).opsets == {"": OPSET, DOMAIN: 1}


def test_bodies_are_the_same_every_time() -> None:
    for name in OPERATORS:
        first, second = (ir.to_proto(function(name)).SerializeToString() for _ in range(2))
        assert first == second
