"""Products with codes, one in a graph or several, and what NumPy computes for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx

    from edgedec.devices.gpu.build import Profile

Bits = Literal[2, 3, 4, 8]
Half = Literal["fp16", "bf16"]
OPSET, IR_VERSION = 24, 11
MOST_ROWS = 64
"""Of a product's input."""
ALL: tuple[tuple[Bits, Half], ...] = (
    *((2, "fp16"), (3, "fp16"), (4, "fp16"), (8, "fp16")),
    *((2, "bf16"), (3, "bf16"), (4, "bf16"), (8, "bf16")),
)
ROUNDING: dict[Half, float] = {"fp16": 2.0**-10, "bf16": 2.0**-7}
"""Twice what the type's last bit is worth: a product is rounded to it once."""
BLOCK = 16
"""Rows that share a table."""


@dataclass(frozen=True, eq=False)
class Codes:
    """A matrix ``[N, K]`` of codes, with a table of levels for every 16 rows.

    Attributes:
        codes: uint8 ``[N, K]``.
        levels: integers ``[G, 2**bits]``, within ``+-63``; ``-128 ... 127`` for 8 bits.
        groups: int32 ``[N / 16]``.
        scales: float32 ``[N]``.
        bits: of a code.
    """

    codes: NDArray[np.uint8]
    levels: NDArray[np.int8]
    groups: NDArray[np.int32]
    scales: NDArray[np.float32]
    bits: Bits

    def matrix(self) -> NDArray[np.float32]:
        """The numbers that it stands for."""
        table = self.levels[np.repeat(self.groups, BLOCK)]
        levels = np.take_along_axis(table, self.codes.astype(np.intp), axis=1)
        return levels.astype(np.float32) * self.scales[:, None]


def make_codes(bits: Bits, rows: int = 192, columns: int = 264) -> Codes:
    """Some matrix, always the same; its columns fill no whole number of words."""
    random = np.random.default_rng(bits)
    tables = 1 if bits == 8 else 3
    levels = np.sort(random.integers(-63, 64, (tables, 1 << bits)), axis=1).astype(np.int8)
    if bits == 8:
        levels = np.arange(-128, 128, dtype=np.int8)[None]
    return Codes(
        codes=random.integers(0, 1 << bits, (rows, columns)).astype(np.uint8),
        levels=levels,
        groups=random.integers(0, tables, rows // BLOCK).astype(np.int32),
        scales=(random.uniform(0.5, 1.5, rows) / 1024).astype(np.float32),
        bits=bits,
    )


def make_input(rows: int, columns: int) -> NDArray[np.float16]:
    """Input of a product, always the same for a number of rows; bfloat16 holds it as well."""
    random = np.random.default_rng(rows)
    return (random.integers(-128, 129, (rows, columns)) / 64).astype(np.float16)


def deviation(found: NDArray[Any], x: NDArray[Any], matrix: NDArray[np.float32]) -> float:
    """The largest error of ``x . matrix^T``, by the sum of the absolute products."""
    wide = x.astype(np.float64)
    error = np.abs(found.astype(np.float64) - wide @ matrix.T.astype(np.float64))
    return float((error / (np.abs(wide) @ np.abs(matrix.T))).max())


def plugin_products(products: Sequence[tuple[Bits, Half]]) -> bytes:
    """A graph of products of one input ``x`` by the plugin; each has the output of `output_of`."""
    from onnx import TensorProto, helper

    from edgedec.kernels.words import pack_words

    nodes, stored = [], []
    for bits, half in products:
        codes, name = make_codes(bits), output_of(bits, half)
        kind = TensorProto.FLOAT16 if half == "fp16" else TensorProto.BFLOAT16
        words = pack_words(codes.codes, bits)
        stored += [
            helper.make_tensor(f"{name}.words", TensorProto.INT32, words.shape, words.ravel()),
            helper.make_tensor(
                f"{name}.levels", kind, codes.levels.shape, codes.levels.ravel().astype(float)
            ),
            helper.make_tensor(
                f"{name}.groups", TensorProto.INT32, codes.groups.shape, codes.groups
            ),
            helper.make_tensor(
                f"{name}.scales", TensorProto.FLOAT, codes.scales.shape, codes.scales
            ),
        ]
        tables = [f"{name}.{part}" for part in ("words", "levels", "groups", "scales")]
        nodes += [
            helper.make_node("Cast", ["x"], [f"{name}.x"], f"{name}.cast", to=kind),
            helper.make_node(
                *("CodebookMatMul", [f"{name}.x", *tables], [f"{name}.y"], name),
                domain="edgedec",
                plugin_namespace="edgedec",
            ),
            helper.make_node("Cast", [f"{name}.y"], [name], f"{name}.widen", to=TensorProto.FLOAT),
        ]
    return _product_graph(nodes, stored, [output_of(*product) for product in products])


def native_product() -> bytes:
    """A product with 4-bit codes in the form that TensorRT keeps at 4 bits without a plugin."""
    from onnx import TensorProto, helper

    codes, name = make_codes(4), output_of(4, "fp16")
    shifts = 8 + 16 * np.repeat(codes.groups, BLOCK)[:, None].astype(np.int32)
    halves = codes.levels.ravel().astype(np.float16)
    stored = [
        helper.make_tensor(
            *("q", TensorProto.INT4, codes.codes.shape),
            codes.codes.ravel().astype(np.int8) - 8,
        ),
        helper.make_tensor("one", TensorProto.FLOAT16, (), [1.0]),
        helper.make_tensor("shifts", TensorProto.INT32, shifts.shape, shifts.ravel()),
        helper.make_tensor("levels", TensorProto.FLOAT16, halves.shape, halves),
        helper.make_tensor(
            "scales", TensorProto.FLOAT16, codes.scales.shape, codes.scales.astype(np.float16)
        ),
    ]
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "one"], ["numbers"], "dequantize"),
        helper.make_node("Cast", ["numbers"], ["signed"], "cast", to=TensorProto.INT32),
        helper.make_node("Add", ["signed", "shifts"], ["index"], "shift"),
        helper.make_node("Gather", ["levels", "index"], ["matrix"], "look_up"),
        helper.make_node("Transpose", ["matrix"], ["turned"], "turn", perm=[1, 0]),
        helper.make_node("MatMul", ["x", "turned"], ["product"], "multiply"),
        helper.make_node("Mul", ["product", "scales"], ["scaled"], "scale"),
        helper.make_node("Cast", ["scaled"], [name], "widen", to=TensorProto.FLOAT),
    ]
    return _product_graph(nodes, stored, [name])


def block_product() -> tuple[bytes, NDArray[np.float32]]:
    """A product by ONNX Runtime's MatMulNBits, and its matrix: 4 bits, blocks of 32."""
    from onnx import TensorProto, helper

    random = np.random.default_rng(0)
    rows, columns, size = 192, 256, 32
    codes = random.integers(0, 16, (rows, columns // size, size)).astype(np.uint8)
    scales = (random.uniform(0.5, 1.5, codes.shape[:2]) / 128).astype(np.float16)
    packed = codes[..., ::2] | codes[..., 1::2] << 4
    name = output_of(4, "fp16")
    stored = [
        helper.make_tensor("packed", TensorProto.UINT8, packed.shape, packed.ravel()),
        helper.make_tensor("scales", TensorProto.FLOAT16, scales.shape, scales.ravel()),
    ]
    nodes = [
        helper.make_node(
            *("MatMulNBits", ["x", "packed", "scales"], ["y"], "product"),
            domain="com.microsoft",
            N=rows,
            K=columns,
            bits=4,
            block_size=size,
        ),
        helper.make_node("Cast", ["y"], [name], "widen", to=TensorProto.FLOAT),
    ]
    matrix = (codes.astype(np.float32) - 8) * scales.astype(np.float32)[..., None]
    return _product_graph(nodes, stored, [name], columns), matrix.reshape(rows, columns)


def output_of(bits: Bits, half: Half) -> str:
    """The output of a product with codes of so many bits, computed in a type."""
    return f"product.{bits}.{half}"


def product_profile(columns: int = 264) -> Profile:
    """The shapes that products are asked for."""
    return {"x": ((1, columns), (1, columns), (MOST_ROWS, columns))}


def _product_graph(
    nodes: list[onnx.NodeProto],
    stored: list[onnx.TensorProto],
    outputs: Sequence[str],
    columns: int = 264,
) -> bytes:
    from onnx import TensorProto, helper

    x = helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["M", columns])
    results = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["M", 192]) for name in outputs
    ]
    known = [
        helper.make_tensor_value_info(node.output[0], node.attribute[0].i, ["M", columns])
        for node in nodes
        if list(node.input) == ["x"] and node.op_type == "Cast"
    ]
    graph = helper.make_graph(nodes, "products", [x], results, stored, value_info=known)
    domains = {"", *(node.domain for node in nodes)}
    sets = [helper.make_opsetid(name, OPSET if not name else 1) for name in sorted(domains)]
    model = helper.make_model(graph, opset_imports=sets, ir_version=IR_VERSION)
    data: bytes = model.SerializeToString()
    return data
