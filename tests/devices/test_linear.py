"""Products with constant matrices: what becomes CodebookMatMul, and that it computes the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from tests.devices.models import codes_of, graph, lower, lowered_like, nodes, operators

from edgedec.quantize.baselines.nearest import round_to_nearest
from edgedec.quantize.codebook import BITS, CodebookTensor
from edgedec.quantize.matrices import Matrix

RNG = np.random.default_rng(1)
Shapes = dict[str, tuple[int, ...]]


def x(*shape: int) -> dict[str, NDArray[Any]]:
    return {"x": RNG.normal(size=shape).astype(np.float32)}


PRODUCT = "edgedec::CodebookMatMul"
ONE: dict[str, tuple[str, Shapes]] = {
    "MatMul": ("y = MatMul (x, w) # a.q", {}),
    "with a bias": ("p = MatMul (x, w) # a.q\n y = Add (p, c)", {"c": (24,)}),
    "with a bias before": ("p = MatMul (x, w) # a.q\n y = Add (c, p)", {"c": (24,)}),
    "with a bias row": ("p = MatMul (x, w) # a.q\n y = Add (p, c)", {"c": (1, 24)}),
}


@pytest.mark.parametrize("kind", ONE)
def test_a_product_becomes_one_node(kind: str) -> None:
    text, shapes = ONE[kind]
    head = "g (float[b, t, 40] x) => (float[b, t, 24] y) {\n"
    model = graph(f"{head} {text} \n}}", w=(40, 24), **shapes)
    (matrix,) = lowered_like(model, x(2, 3, 40))
    assert operators(model) == [PRODUCT]
    assert [v.name for v in model.graph.outputs] == ["y"]
    assert (matrix.name, [part.name for part in matrix.parts]) == ("a.q", ["w"])
    assert (matrix.packed.rows, matrix.packed.columns) == (24, 40)
    (node,) = model.graph
    assert len(node.outputs) == 3, "ONNX Runtime wants as many as the body has"
    assert list(node.attributes["splits"].as_ints()) == [24, 0, 0]
    assert set(model.functions) == {("edgedec", "CodebookMatMul", "")}
    assert model.opset_imports == {"": 24, "edgedec": 1}


GEMM: dict[str, tuple[str, Shapes]] = {
    "Gemm": ("Gemm (x, w)", {"w": (40, 24)}),
    "transposed": ("Gemm <transB=1> (x, w)", {"w": (24, 40)}),
    "with C": ("Gemm <transB=1> (x, w, c)", {"w": (24, 40), "c": (24,)}),
    "with a row C": ("Gemm <transB=1> (x, w, c)", {"w": (24, 40), "c": (1, 24)}),
}


@pytest.mark.parametrize("kind", GEMM)
def test_gemm(kind: str) -> None:
    text, shapes = GEMM[kind]
    model = graph(f"g (float[n, 40] x) => (float[n, 24] y) {{\n y = {text} \n}}", **shapes)
    (matrix,) = lowered_like(model, x(5, 40))
    assert operators(model) == [PRODUCT]
    assert matrix.name == "y", "the node has no name"


STAYS: dict[str, tuple[str, Shapes]] = {
    "alpha": ("y = Gemm <transB=1, alpha=2.0> (x, w)", {"w": (24, 40)}),
    "beta": ("y = Gemm <transB=1, beta=2.0> (x, w, c)", {"w": (24, 40), "c": (24,)}),
    "transA": ("y = Gemm <transA=1> (x, w)", {"w": (40, 24)}),
    "C of other rows": ("y = Gemm <transB=1> (x, w, c)", {"w": (24, 40), "c": (40, 24)}),
    "a matrix that is computed": ("v = Relu (w)\n y = MatMul (x, v)", {"w": (40, 24)}),
    "a constant on the left": ("y = MatMul (w, x)", {"w": (24, 40)}),
    "a stack of matrices": ("y = MatMul (x, w)", {"w": (2, 40, 24)}),
    "a matrix of no weight": ("y = MatMul (x, w)", {"w": (40, 4)}),
}


@pytest.mark.parametrize("kind", STAYS)
def test_what_is_no_such_product_stays(kind: str) -> None:
    text, shapes = STAYS[kind]
    model = graph(f"g (float[40, 40] x) => (float[n, m] y) {{\n {text} \n}}", **shapes)
    before = operators(model)
    assert lower(model) == []
    assert operators(model) == before
    assert not model.functions
    assert model.opset_imports == {"": 24}


@pytest.mark.parametrize("term", ["c", "x", "p"])
def test_additions_that_are_no_bias(term: str) -> None:
    """The product is read twice, or what is added is no constant."""
    text = f"""
    g (float[n, 40] x) => (float[n, 40] y, float[n, 40] z) {{
        p = MatMul (x, w)
        y = Add (p, {term})
        z = Relu (p)
    }}"""
    model = graph(text, w=(40, 40), **({"c": (40,)} if term == "c" else {}))
    lowered_like(model, x(4, 40))
    assert operators(model) == [PRODUCT, "Add", "Relu"]


def test_a_product_that_is_itself_an_output() -> None:
    text = """
    g (float[n, 40] x) => (float[n, 24] p, float[n, 24] y) {
        p = MatMul (x, w)
        y = Add (p, c)
    }"""
    model = graph(text, w=(40, 24), c=(24,))
    lowered_like(model, x(4, 40))
    assert operators(model) == [PRODUCT, "Add"]


def test_a_chain() -> None:
    text = """
    g (float[n, 40] x) => (float[n, 16] y) {
        p = MatMul (x, w) # a
        y = MatMul (p, v) # b
    }"""
    model = graph(text, w=(40, 24), v=(24, 16))
    assert [m.name for m in lowered_like(model, x(4, 40))] == ["a", "b"]
    assert operators(model) == [PRODUCT, PRODUCT]


HEAD = """
g (float[b, p, 40] x, int64[b, p] at) => (float[b, p, 24] y) {{
    flat = Constant <value = int64[2] {{-1, 40}}> ()
    rows = {before}
    found = Gemm <transB=1> (rows, w, c) # head
    picked = Shape (at)
    one = Constant <value = int64[1] {{-1}}> ()
    shape = Concat <axis=0> (picked, one)
    y = Reshape (found, shape)
}}
"""


@pytest.mark.parametrize("before", ["Reshape (x, flat)", "Flatten <axis=-1> (x)"])
def test_the_reshapes_around_a_gemm_go(before: str) -> None:
    model = graph(HEAD.format(before=before), w=(24, 40), c=(1, 24))
    lowered_like(model, {**x(2, 3, 40), "at": np.zeros((2, 3), np.int64)})
    assert operators(model) == [PRODUCT]


def test_reshapes_that_mean_something_stay() -> None:
    """Two rows of 20 become one of 40: the product needs that."""
    text = """
    g (float[b, p, 20] x) => (float[b, q, 24] y) {
        flat = Constant <value = int64[2] {-1, 40}> ()
        rows = Reshape (x, flat)
        found = Gemm <transB=1> (rows, w)
        shape = Constant <value = int64[3] {1, -1, 24}> ()
        y = Reshape (found, shape)
    }
    """
    model = graph(text, w=(24, 40))
    lowered_like(model, x(1, 6, 20))
    assert operators(model).count("Reshape") == 2


ATTENTION: Shapes = {"wq": (40, 32), "wk": (40, 16), "wv": (40, 16), "wo": (40, 16), "b": (32,)}


def attention(fourth: str = "a.0.self_attn.o") -> ir.Model:
    """Four products that read the same value, three of them of one module."""
    text = f"""
    g (float[n, 40] x) => (float[n, 32] q, float[n, 16] k, float[n, 16] v, float[n, 16] o) {{
        p = MatMul (x, wq) # a.0.self_attn.q
        q = Add (p, b)
        k = MatMul (x, wk) # a.0.self_attn.k
        v = MatMul (x, wv) # a.0.self_attn.v
        o = MatMul (x, wo) # {fourth}
    }}
    """
    return graph(text, **ATTENTION)


def test_three_that_read_the_same_are_one() -> None:
    model = attention("a.0.other.o")
    matrices = lowered_like(model, x(5, 40))
    assert [m.name for m in matrices] == ["a.0.self_attn.qkv", "a.0.other.o"]
    assert [part.name for part in matrices[0].parts] == ["wq", "wk", "wv"]
    node = nodes(model, "CodebookMatMul")[0]
    assert list(node.attributes["splits"].as_ints()) == [32, 16, 16]
    assert node.inputs[5] is not None
    bias = node.inputs[5].const_value
    assert bias is not None
    assert bias.numpy()[:32].any()
    assert not bias.numpy()[32:].any()


def test_a_fourth_is_another() -> None:
    names = [m.name for m in lowered_like(attention(), x(5, 40))]
    assert names == ["a.0.self_attn.qkv", "a.0.self_attn.o"]


@pytest.mark.parametrize(("rows", "names"), [(24, ["m.up", "m.gate"]), (32, ["m.up_gate"])])
def test_rows_that_are_no_whole_blocks_are_alone(rows: int, names: list[str]) -> None:
    """A block of 16 rows shares a codebook, which two matrices do not."""
    text = f"""
    g (float[n, 40] x) => (float[n, {rows}] q, float[n, {rows}] k) {{
        q = MatMul (x, w) # m.up
        k = MatMul (x, v) # m.gate
    }}
    """
    model = graph(text, w=(40, rows), v=(40, rows))
    assert [m.name for m in lowered_like(model, x(3, 40))] == names


def test_names_of_optimum() -> None:
    text = """
    g (float[n, 40] x) => (float[n, 32] q, float[n, 32] k, float[n, 32] o) {
        q = MatMul (x, w) # /l.0/attn/q_proj/MatMul
        k = MatMul (x, v) # /l.0/attn/k_proj/MatMul_1
        o = MatMul (x, u) # /l.1/q/MatMul
    }
    """
    model = graph(text, w=(40, 32), v=(40, 32), u=(40, 32))
    names = [m.name for m in lowered_like(model, x(3, 40))]
    assert names == ["/l.0/attn/q_proj_k_proj", "/l.1/q/MatMul"]


def test_a_node_that_is_called_like_what_another_one_computes() -> None:
    text = """
    g (float[n, 40] x) => (float[n, 16] y, float[n, 16] z) {
        y = MatMul (x, w) # z
        p = Relu (x)
        z = MatMul (p, v)
    }
    """
    lowered_like(graph(text, w=(40, 16), v=(40, 16)), x(3, 40))


@pytest.mark.parametrize("bits", BITS)
def test_every_format(bits: int) -> None:
    matrices = lowered_like(attention(), x(5, 40), codes_of(bits))
    assert {m.packed.bits for m in matrices} == {bits}


def shuffled(matrix: Matrix) -> CodebookTensor:
    """Rows of some matrices in another order than the matrix's own."""
    tensor = round_to_nearest(matrix.read())
    if matrix.name == "wo":
        return tensor
    order = np.random.default_rng(matrix.rows).permutation(matrix.rows).astype(np.int32)
    return CodebookTensor(
        tensor.codes[order],
        tensor.codebooks,
        tensor.row_scale[order],
        tensor.group_of_row[order],
        tensor.bits,
        order,
    )


def test_orders_of_rows() -> None:
    """One body serves all nodes of a graph: where one has an order, all do."""
    model = attention()
    matrices = lowered_like(model, x(5, 40), shuffled)
    assert [m.packed.row_order is None for m in matrices] == [False, True]
    assert {len(node.inputs) for node in nodes(model, "CodebookMatMul")} == {7}


def test_bits_that_differ_within_a_group() -> None:
    """A packed matrix has one width of codes."""

    def mixed(matrix: Matrix) -> CodebookTensor:
        return codes_of(8 if matrix.name == "wk" else 4)(matrix)

    matrices = lowered_like(attention(), x(5, 40), mixed)
    assert [(m.name[-1], m.packed.bits) for m in matrices] == [
        ("q", 4),
        ("k", 8),
        ("v", 4),
        ("o", 4),
    ]


def test_compute_is_written_down() -> None:
    text = "g (float[n, 40] x) => (float[n, 16] y) {\n y = MatMul (x, w) \n}"
    model = graph(text, w=(40, 16))
    lower(model, compute="int8-block")
    (node,) = model.graph
    assert node.attributes["compute"].as_string() == "int8-block"


def test_dead_nodes_and_weights_go() -> None:
    text = """
    g (float[n, 40] x) => (float[n, 16] y) {
        p = MatMul (x, w)
        q = Relu (p)
        y = MatMul (x, w)
    }
    """
    model = graph(text, w=(40, 16))
    lower(model)
    assert "Relu" not in operators(model)
    assert "w" not in model.graph.initializers


def test_every_matrix_is_asked_for_alone() -> None:
    """Memory: one matrix of floats at a time."""
    asked: list[Any] = []

    def count(matrix: Matrix) -> CodebookTensor:
        asked.append((matrix.name, matrix.role, matrix.rows, matrix.columns))
        return round_to_nearest(matrix.read())

    text = """
    g (float[n, 40] x) => (float[n, 24] logits) {
        p = MatMul (x, w)
        logits = MatMul (p, v)
    }
    """
    lower(graph(text, w=(40, 16), v=(16, 24)), count)
    assert asked == [("w", "linear", 16, 40), ("v", "head", 24, 16)]
