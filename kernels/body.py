"""Function bodies: our operators in standard ones, for runtimes that do not have the library.

Bodies are written in ONNX's textual syntax. They contain no control flow, no defaults, and one body
serves all bits, because ONNX Runtime 1.31 takes one overload of a function for all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgedec.kernels.operator import DOMAIN, OPSET, Operator
from edgedec.kernels.packing import PANEL_BLOCKS, UNIT_COLUMNS
from edgedec.quantize.codebook import BITS, BLOCK_ROWS

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx

ORDER = """
    order_from = Constant <value_int=0> ()
    order_step = Constant <value_int=1> ()
    order_rows = Shape (row_order)
    order_end = Squeeze (order_rows)
    order_all = Range (order_from, order_end, order_step)
    order_to = Cast <to=7> (row_order)
    packed_row = ScatterElements <axis=0> (order_to, order_to, order_all)
"""
"""``packed_row``, int64 ``[N]``: where each row of the matrix is; needs ``row_order``."""


def unpack() -> str:
    """``matrix``, float32 ``[R, unit * U]``: the packed rows ``rows``, int64 ``[R]``.

    Codes are cut out of the bytes by tables: of the columns 4q to 4q+3 of a unit, the low bits are
    ``bytes[word] >> shift & mask``, and the third bit, which has a word of its own, the same with
    other tables; a mask of 0 says that there is none.
    """
    entries = list(_cuts())
    widths = ", ".join(str(entry[0]) for entry in entries)
    tables = ", ".join(str(entry[i]) for i in range(1, 7) for entry in entries)
    return f"""
    panel_shape = Constant <value = int64[6] {{0, 0, {PANEL_BLOCKS}, -1, {BLOCK_ROWS}, 4}}> ()
    by_unit = Reshape (W, panel_shape)
    by_row = Transpose <perm=[0, 2, 4, 1, 3, 5]> (by_unit)
    merged = Constant <value_ints=[-1]> ()
    row_shape = Shape <start=3> (by_row)
    stored_shape = Concat <axis=0> (merged, row_shape)
    stored = Reshape (by_row, stored_shape)
    bytes = Gather <axis=0> (stored, rows)

    width = Constant <value_int: int = @bits> ()
    widths = Constant <value = int64[{len(entries)}] {{{widths}}}> ()
    tables = Constant <value = uint8[6, {len(entries)}] {{{tables}}}> ()
    fits = Equal (widths, width)
    chosen = Compress <axis=1> (tables, fits)
    last = Constant <value_ints=[2]> ()
    columns = Unsqueeze (chosen, last)
    w0, s0, m0, w1, s1, m1 = Split <axis=0, num_outputs=6> (columns)
    word0 = Cast <to=6> (w0)
    word1 = Cast <to=6> (w1)
    flat = Constant <value_ints=[-1]> ()
    at0 = Reshape (word0, flat)
    at1 = Reshape (word1, flat)
    bytes0 = Gather <axis=2> (bytes, at0)
    bytes1 = Gather <axis=2> (bytes, at1)
    moved0 = BitShift <direction="RIGHT"> (bytes0, s0)
    moved1 = BitShift <direction="RIGHT"> (bytes1, s1)
    low = BitwiseAnd (moved0, m0)
    third = BitwiseAnd (moved1, m1)
    two = Constant <value = uint8 {{2}}> ()
    high = BitShift <direction="LEFT"> (third, two)
    code = BitwiseOr (low, high)

    block_rows = Constant <value_int={BLOCK_ROWS}> ()
    block = Div (rows, block_rows)
    group = Gather <axis=0> (group_of_block, block)
    table_length = Shape <start=1> (levels)
    table_size = Cast <to=6> (table_length)
    table_start = Mul (group, table_size)
    row_axes = Constant <value_ints=[1, 2, 3]> ()
    row_start = Unsqueeze (table_start, row_axes)
    wide_code = Cast <to=6> (code)
    place = Add (wide_code, row_start)
    integers = Reshape (levels, flat)
    table = Cast <to=1> (integers)
    level = Gather <axis=0> (table, place)
    scale = Gather <axis=0> (row_scale, rows)
    row_factor = Unsqueeze (scale, row_axes)
    weights = Mul (level, row_factor)
    matrix = Flatten <axis=1> (weights)
"""


def build(op: Operator, statements: str, inputs: int | None = None) -> onnx.FunctionProto:
    """A model-local function of an operator's name, with its formal inputs, outputs, attributes.

    Args:
        op: the operator.
        statements: the body in ONNX's textual syntax.
        inputs: how many of the operator's inputs the function has, as a slice ends; all if None.
    """
    import onnx.parser

    names = ", ".join(tensor.name for tensor in op.inputs[:inputs])
    results = ", ".join(tensor.name for tensor in op.outputs)
    attributes = ", ".join(attribute.name for attribute in op.attributes)
    return onnx.parser.parse_function(
        f'<domain: "{DOMAIN}", opset_import: ["" : {OPSET}]>\n'
        f"{op.name} <{attributes}> ({names}) => ({results}) {{{statements}}}"
    )


def _cuts() -> Iterator[tuple[int, ...]]:
    """Bits, and the two words, shifts and masks, of each 4 columns of a unit."""
    for bits in BITS:
        for q in range(UNIT_COLUMNS[bits] // 4):
            if bits == 3:
                yield bits, q // 4, 2 * (q % 4), 3, 2, q, 1
            else:
                yield bits, 0, bits * q, (1 << bits) - 1, 0, 0, 0
