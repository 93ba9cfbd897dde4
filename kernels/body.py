"""Function bodies: our operators in standard ones, for runtimes that do not have the library.

Bodies are written in ONNX's textual syntax. They contain no control flow, no defaults, and one body
serves all bits, because ONNX Runtime 1.31 takes one overload of a function for all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgedec.kernels.operator import DOMAIN, OPSET, Operator
from edgedec.kernels.packing import PANEL_BLOCKS
from edgedec.quantize.codebook import BLOCK_ROWS

if TYPE_CHECKING:
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


# Bits -> how a byte of low bits is looked up; for 3 bits together with 4 more, one for each code.
_LOOKUPS = {
    # bits: (table entries, codes per entry, bytes of low bits in a unit, bits and mask of one code,
    #        whether a third bit is elsewhere)
    2: (256, 4, 1, 2, 3, 0),
    3: (4096, 4, 2, 2, 3, 1),
    4: (256, 2, 1, 4, 15, 0),
    8: (256, 1, 1, 8, 255, 0),
}
_BY_BITS = ", ".join(
    str(_LOOKUPS[bits][i] if bits in _LOOKUPS else 0) for i in range(6) for bits in range(9)
)

UNPACK = f"""
    panel_shape = Constant <value = int64[6] {{0, 0, {PANEL_BLOCKS}, -1, {BLOCK_ROWS}, 4}}> ()
    by_unit = Reshape (W, panel_shape)
    by_row = Transpose <perm=[0, 2, 4, 1, 3, 5]> (by_unit)
    line = Constant <value_ints=[-1]> ()
    row_shape = Shape <start=3> (by_row)
    stored_shape = Concat <axis=0> (line, row_shape)
    stored = Reshape (by_row, stored_shape)
    bytes = Gather <axis=0> (stored, rows)

    zero = Constant <value_int=0> ()
    one = Constant <value_int=1> ()
    first = Constant <value_ints=[0]> ()
    second = Constant <value_ints=[1]> ()
    third = Constant <value_ints=[2]> ()
    bits = Constant <value_int: int = @bits> ()
    by_bits = Constant <value = int64[6, 9] {{{_BY_BITS}}}> ()
    facts = Gather <axis=1> (by_bits, bits)
    entries, codes, words, code_bits, code_mask, split = Split <axis=0, num_outputs=6> (facts)

    entry_count = Squeeze (entries)
    entry_range = Range (zero, entry_count, one)
    entry_row = Cast <to=12> (entry_range)
    entry = Unsqueeze (entry_row, second)
    code_count = Squeeze (codes)
    code_range = Range (zero, code_count, one)
    low_place = Mul (code_range, code_bits)
    low_shift = Cast <to=12> (low_place)
    low_mask = Cast <to=12> (code_mask)
    low_field = BitShift <direction="RIGHT"> (entry, low_shift)
    low_code = BitwiseAnd (low_field, low_mask)
    byte_bits = Constant <value_int=8> ()
    high_place = Add (code_range, byte_bits)
    high_shift = Cast <to=12> (high_place)
    high_mask = Cast <to=12> (split)
    high_field = BitShift <direction="RIGHT"> (entry, high_shift)
    high_bit = BitwiseAnd (high_field, high_mask)
    two = Constant <value = uint32 {{2}}> ()
    high_code = BitShift <direction="LEFT"> (high_bit, two)
    code = BitwiseOr (low_code, high_code)
    code_index = Cast <to=6> (code)
    level = Cast <to=1> (levels)
    level_table = Gather <axis=1> (level, code_index)
    table_shape = Concat <axis=0> (line, codes)
    table = Reshape (level_table, table_shape)

    low_bytes = Slice (bytes, first, words, third)
    low_index = Cast <to=6> (low_bytes)
    units = Shape <start=1, end=2> (bytes)
    is_split = Greater (split, first)
    split_units = Where (is_split, units, second)
    split_from = Sub (first, second)
    split_part = Slice (bytes, first, split_units, second)
    chunks = Shape <start=2, end=3> (bytes)
    split_bytes = Slice (split_part, split_from, chunks, third)
    word_count = Squeeze (words)
    word_range = Range (zero, word_count, one)
    nibble_bits = Constant <value_int=4> ()
    nibble_place = Mul (word_range, nibble_bits)
    nibble_bytes = Cast <to=2> (nibble_place)
    nibble_shift = Unsqueeze (nibble_bytes, second)
    nibble_field = BitShift <direction="RIGHT"> (split_bytes, nibble_shift)
    fifteen = Constant <value_int=15> ()
    nibble_limit = Mul (split, fifteen)
    nibble_mask = Cast <to=2> (nibble_limit)
    nibble = BitwiseAnd (nibble_field, nibble_mask)
    nibble_index = Cast <to=6> (nibble)
    byte_entries = Constant <value = int32 {{256}}> ()
    high_index = Mul (nibble_index, byte_entries)

    block_rows = Constant <value_int={BLOCK_ROWS}> ()
    block = Div (rows, block_rows)
    group = Gather <axis=0> (group_of_block, block)
    group_entries = Cast <to=6> (entries)
    group_start = Mul (group, group_entries)
    row_axes = Constant <value_ints=[1, 2, 3]> ()
    row_start = Unsqueeze (group_start, row_axes)
    start_index = Add (high_index, row_start)
    index = Add (low_index, start_index)

    unpacked = Gather <axis=0> (table, index)
    ordered = Transpose <perm=[0, 1, 2, 4, 3]> (unpacked)
    integers = Flatten <axis=1> (ordered)
    scale = Gather <axis=0> (row_scale, rows)
    row_factor = Unsqueeze (scale, second)
    matrix = Mul (integers, row_factor)
"""
"""``matrix``, float32 ``[R, unit * U]``: the packed rows ``rows``, int64 ``[R]``.

Every byte is looked up in a table that holds the levels of all of its codes. ONNX Runtime computes
all of this once, at load, and keeps each result until the end: 22 bytes per weight of 4 bits. It
does not fold Compress (1.31), which is why a table is indexed by the bits instead. The third bits
cost nothing where there are none, because then only one unit of them is read.
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
    formal = f" <{attributes}>" if attributes else ""
    return onnx.parser.parse_function(
        f'<domain: "{DOMAIN}", opset_import: ["" : {OPSET}]>\n'
        f"{op.name}{formal} ({names}) => ({results}) {{{statements}}}"
    )
