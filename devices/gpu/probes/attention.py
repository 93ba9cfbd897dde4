"""Attention over a cache that is written in place, and what NumPy computes for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from edgedec.devices.gpu.build import Profile

HEADS, WIDTH, CAPACITY, NEW, ROWS = 2, 16, 32, 8, 3
"""Heads, numbers per head, positions of a cache, the most new ones in a run, rows."""
CACHES = ("key", "value")
ATTENTION = """
<ir_version: 11, opset_import: ["": 24]>
attention (
    float16[B, T, 96] hidden, int64[B] past_length,
    float16[B, 2, 32, 16] past_key, float16[B, 2, 32, 16] past_value
) => (
    float[B, T, 32] hidden_out,
    float16[B, 2, 32, 16] present_key, float16[B, 2, 32, 16] present_value
) <int64[4] heads = {0, 0, 2, 16}, int64[3] joined = {0, 0, 32}, int64[1] one = {1},
   int64 zero = {0}, int64 step = {1}, int64[1] first_axis = {0}, int64[2] sides = {1, 3},
   float seen = {0}, float masked = {-30000},
   int64[1, 1, 1, 32] places = {
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
    16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31}>
{
    q0, k0, v0 = Split <axis = 2, num_outputs = 3> (hidden)
    q1 = Reshape (q0, heads)
    q = Transpose <perm = [0, 2, 1, 3]> (q1)
    k1 = Reshape (k0, heads)
    k = Transpose <perm = [0, 2, 1, 3]> (k1)
    v1 = Reshape (v0, heads)
    v = Transpose <perm = [0, 2, 1, 3]> (v1)
    present_key = TensorScatter <axis = 2> (past_key, k, past_length)
    present_value = TensorScatter <axis = 2> (past_value, v, past_length)
    lengths = Shape <start = 1, end = 2> (hidden)
    length = Squeeze (lengths, first_axis)
    steps = Range (zero, length, step)
    begin = Unsqueeze (past_length, one)
    place = Add (begin, steps)
    rows = Unsqueeze (place, sides)
    visible = LessOrEqual (places, rows)
    wide = Where (visible, seen, masked)
    mask = Cast <to = 10> (wide)
    y0 = Attention <scale = 0.25 DECOMPOSABLE> (q, present_key, present_value, mask)
    y1 = Transpose <perm = [0, 2, 1, 3]> (y0)
    y2 = Reshape (y1, joined)
    hidden_out = Cast <to = 1> (y2)
}
"""


def attention(*, decomposable: bool) -> bytes:
    """Attention over a cache that is written in place, as a decoder's layer has it.

    Args:
        decomposable: let TensorRT compute it in parts where it has no kernel for all of it.
    """
    from onnx import parser

    text = ATTENTION.replace("DECOMPOSABLE", ", TRT_decomposable = 1" if decomposable else "")
    data: bytes = parser.parse_model(text).SerializeToString()
    return data


def attention_profiles() -> list[Profile]:
    """One new position, and several: as of every decoder."""
    cache = {
        f"past_{name}": tuple((rows, HEADS, CAPACITY, WIDTH) for rows in (1, 1, ROWS))
        for name in CACHES
    }
    width = 3 * HEADS * WIDTH
    return [
        {
            "hidden": ((1, least, width), (1, usual, width), (ROWS, most, width)),
            "past_length": ((1,), (1,), (ROWS,)),
            **cache,  # type: ignore[dict-item]  # three shapes each
        }
        for least, usual, most in ((1, 1, 1), (2, NEW // 2, NEW))
    ]


class AttentionReference:
    """What the attention computes, in float64.

    Attributes:
        caches: float16 ``[rows, HEADS, CAPACITY, WIDTH]`` by name, as the device must have them.
        lengths: int64 ``[rows]``.
    """

    def __init__(self, rows: int) -> None:
        shape = (rows, HEADS, CAPACITY, WIDTH)
        self.caches = {name: np.zeros(shape, np.float16) for name in CACHES}
        self.lengths = np.zeros(rows, np.int64)

    def step(self, hidden: NDArray[np.float16]) -> NDArray[np.float64]:
        """Take new positions; returns float64 ``[rows, T, HEADS * WIDTH]``."""
        rows, new, _ = hidden.shape
        split = hidden.reshape(rows, new, 3, HEADS, WIDTH)
        result = np.empty((rows, new, HEADS, WIDTH))
        for row, length in enumerate(self.lengths):
            for index, name in enumerate(CACHES, start=1):
                written = split[row, :, index].swapaxes(0, 1)
                self.caches[name][row, :, length : length + new] = written
            key, value = (self.caches[name][row].astype(np.float64) for name in CACHES)
            for place in range(new):
                seen = length + place + 1
                query = split[row, place, 0].astype(np.float64)
                scores = np.einsum("hd,hmd->hm", query, key[:, :seen]) / np.sqrt(WIDTH)
                weights = np.exp(scores - scores.max(axis=1, keepdims=True))
                weights /= weights.sum(axis=1, keepdims=True)
                result[row, place] = np.einsum("hm,hmd->hd", weights, value[:, :seen])
        self.lengths += new
        return result.reshape(rows, new, HEADS * WIDTH)
