"""Codes in resident graphs: every form computes with the numbers that codes stand for."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.export.tiny import write
from tests.gpu.resident import LIMITS, Pair, Run, on_cpu, session

from edgedec.devices.gpu.lowering import Form, Resident, lower_resident, resident_graph
from edgedec.export import export_checkpoint
from edgedec.kernels.operator import DOMAIN
from edgedec.kernels.packing import Packed, pack
from edgedec.quantize.codebook import CodebookTensor
from edgedec.runtime.bundle import Bundle, open_bundle
from edgedec.runtime.manifest import CodebookMatrix, CodebookPart

FORMS: tuple[Form, ...] = get_args(Form)
RUNS = (Run([3, 0, 5], 1, [5, 2, 9]), Run([0, 2, 4], 6, [4, 12, 1], seed=1))
TOLERANCE = 1e-2
"""As in test_lowering, of weights that differ more from each other."""
KINDS = [("t5", "cb4"), ("llama", "cb3"), ("mu", "int8")]


@pytest.fixture(scope="module", params=KINDS, ids="-".join)
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A small model with a tied head and codes."""
    family, quant = request.param
    root = tmp_path_factory.mktemp(family)
    method = None if quant == "int8" else "kmeans"
    checkpoint = write(root / "checkpoint", family)
    return open_bundle(
        export_checkpoint(
            checkpoint, root / "bundle", quant=quant, method=method, compute="fp32", verify=False
        )
    )


@pytest.mark.parametrize("form", FORMS)
def test_models(bundle: Bundle, form: Form, tmp_path: Path) -> None:
    for component in bundle.manifest.components:
        pair = Pair(bundle, component, form, tmp_path / component)
        for run in RUNS:
            found = pair.differences(run)
            assert max(found.values()) < TOLERANCE, (component, found)


def test_what_is_stored(bundle: Bundle) -> None:
    manifest = bundle.manifest
    component = manifest.stages[0].component
    before = ir.load(bundle.path(manifest.components[component].file))
    codes = {n.inputs[1]: n for n in before.graph if n.op_type.startswith("Codebook")}
    products = {n.inputs[1] for n in before.graph if n.op_type == "CodebookMatMul"}
    assert len(codes) > 5

    native = resident_graph(bundle, component, LIMITS, "native")
    assert _count(native, 2, ir.DataType.INT4, ir.DataType.INT8) == len(codes)
    few = [node for node in codes.values() if node.attributes["bits"].as_int() < 8]
    assert _count(native, 2, ir.DataType.INT4) == len(few)
    assert native.expanded == 0

    plugin = resident_graph(bundle, component, LIMITS, "plugin")
    assert _count(plugin, 2, ir.DataType.INT32) == len(products)
    # the embedding's, whose rows are picked
    assert _count(plugin, 2, ir.DataType.INT4, ir.DataType.INT8) == 1
    assert plugin.expanded == 0

    cuda = resident_graph(bundle, component, LIMITS, "cuda")
    assert manifest.codebooks is not None
    listed = manifest.codebooks.matrices[component]
    spaced = {"int8"} & {manifest.codebooks.scheme}  # levels that MatMulNBits has
    tied = {stored for stored in codes if stored and len(stored.uses()) > 1} if spaced else {*codes}
    numbers = [listed[str(codes[stored].name)] for stored in tied]
    weights = sum(matrix.rows * matrix.columns for matrix in numbers)
    assert 2 * weights <= cuda.expanded <= 4 * weights
    blocks = [node for node in cuda.model.graph if node.op_type == "MatMulNBits"]
    assert len(blocks) == (len(codes) - len(tied))


def _count(resident: Resident, rank: int, *dtypes: ir.DataType) -> int:
    stored = resident.model.graph.initializers.values()
    return sum(v.dtype in dtypes and v.shape is not None and len(v.shape) == rank for v in stored)


@st.composite
def matrices(draw: st.DrawFn) -> CodebookTensor:
    """Codes of any size, of several tables, with rows in another order."""
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    bits = draw(st.sampled_from((2, 3, 4, 8)))
    rows, columns = draw(st.integers(8, 70)), draw(st.integers(8, 70))
    tables = 1 if bits == 8 else draw(st.integers(1, 3))
    books = np.arange(-128, 128)[None] if bits == 8 else rng.integers(-63, 64, (tables, 1 << bits))
    if bits < 8 and draw(st.booleans()):  # equally spaced, around a zero of their own
        zeros = rng.integers(0, 1 << bits, (tables, 1))
        books = (np.arange(1 << bits) - zeros) * rng.choice((-4, -1, 1, 3), (tables, 1))
    groups = np.repeat(rng.integers(0, tables, -(-rows // 16)), 16)[:rows]
    return CodebookTensor(
        codes=rng.integers(bits == 8, 1 << bits, (rows, columns)).astype(np.uint8),
        codebooks=books.astype(np.float32),
        row_scale=rng.uniform(0.001, 0.02, rows).astype(np.float32),
        group_of_row=groups.astype(np.uint16),
        bits=bits,
        row_order=rng.permutation(rows).astype(np.int32) if draw(st.booleans()) else None,
    )


@settings(max_examples=40, deadline=None)
@given(tensor=matrices(), form=st.sampled_from(FORMS), biased=st.booleans(), parts=st.booleans())
def test_any_matrix(
    tensor: CodebookTensor,
    form: Form,
    biased: bool,
    parts: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    packed = pack(tensor)
    rows = packed.rows
    splits = [rows - 7, 0, 7] if parts else [rows, 0, 0]
    rng = np.random.default_rng(1)
    bias = rng.standard_normal(rows).astype(np.float32) if biased else None
    resident = _one_product(packed, bias, splits, form)
    x = rng.standard_normal((2, 3, packed.columns)).astype(np.float32)
    after = session(on_cpu(resident, tmp_path_factory.mktemp("one")))
    found = np.concatenate([np.asarray(y) for y in after.run(None, {"hidden": x})], axis=-1)
    expected = np.maximum(x, 0) @ packed.dequantize().T + (0 if bias is None else bias)
    # float32 here: what TensorRT computes in bfloat16 the CPU does not
    assert np.abs(found - expected).max() < 1e-4 * max(1.0, float(np.abs(expected).max()))


def _one_product(
    packed: Packed, bias: NDArray[np.float32] | None, splits: list[int], form: Form
) -> Resident:
    """A graph of one node as bundles have it, lowered."""
    order = packed.row_order
    stored: dict[str, NDArray[Any]] = {
        "codes": packed.weight,
        "levels": packed.levels,
        "row_scale": packed.row_scale,
        "group_of_block": packed.group_of_block,
        "bias": np.zeros(packed.rows, np.float32) if bias is None else bias,
        "row_order": np.arange(packed.rows, dtype=np.int32) if order is None else order,
    }
    values = [ir.Value(name=n, const_value=ir.tensor(a, name=n)) for n, a in stored.items()]
    x = ir.Value(
        name="hidden",
        shape=ir.Shape(["batch", "new", packed.columns]),
        type=ir.TensorType(ir.DataType.FLOAT),
    )
    # products with what comes out of activations are the exact ones here
    unit = ir.node("Relu", [x], name="activation")
    unit.outputs[0].name, unit.outputs[0].type = "activation", ir.TensorType(ir.DataType.FLOAT)
    unit.outputs[0].shape = x.shape
    node = ir.node(
        "CodebookMatMul",
        [unit.outputs[0], *values],
        {"bits": packed.bits, "compute": "fp32", "splits": splits},
        domain=DOMAIN,
        num_outputs=3,
        name="product",
    )
    outputs = [y for y, width in zip(node.outputs, splits, strict=True) if width]
    for i, y in enumerate(node.outputs):
        y.name, y.type = f"part.{i}", ir.TensorType(ir.DataType.FLOAT)
    imports = {"": 24, DOMAIN: 1}
    graph = ir.Graph(
        [x], outputs, nodes=[unit, node], initializers=values, opset_imports=imports, name="one"
    )
    named = tuple(CodebookPart(f"w{i}", n) for i, n in enumerate(splits) if n)
    matrix = CodebookMatrix(packed.rows, packed.columns, packed.bits, len(packed.levels), named)
    model = ir.Model(graph, ir_version=11)
    return lower_resident(model, {"product": matrix}, LIMITS, form, chains=False)
