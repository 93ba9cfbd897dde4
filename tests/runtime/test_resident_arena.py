"""Memory of a device, as the host has it."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgedec.errors import InputError
from edgedec.runtime.resident.arena import HostArena

DTYPES = st.sampled_from([np.float16, np.float32, np.int64])


@given(
    dtype=DTYPES,
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple),
    data=st.data(),
)
def test_rows_are_taken(dtype: type, shape: tuple[int, ...], data: st.DataObject) -> None:
    arena = HostArena()
    source = arena.empty(shape, dtype)
    assert source.nbytes == np.zeros(shape, dtype).nbytes
    assert not arena.read(source).any()
    values: NDArray[Any] = np.arange(prod(shape), dtype=dtype).reshape(shape)
    arena.write(source, values)
    first = data.draw(st.integers(0, shape[0] - 1))
    count = data.draw(st.integers(1, shape[0] - first))
    np.testing.assert_array_equal(
        arena.read(source.rows(first, count)), values[first : first + count]
    )
    rows = data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=5))
    target = arena.empty((len(rows), *shape[1:]), dtype)
    arena.take(target, source.rows(first, count), rows)
    np.testing.assert_array_equal(arena.read(target), values[first : first + count][rows])
    arena.read(source)[...] = 0  # a copy
    np.testing.assert_array_equal(arena.read(source), values)


def test_what_does_not_fit_is_refused() -> None:
    arena = HostArena()
    buffer = arena.empty((3, 2), np.float32)
    with pytest.raises(ValueError, match=r"int64 \(3, 2\) does not fit a buffer of float32"):
        arena.write(buffer, np.zeros((3, 2), np.int64))
    with pytest.raises(ValueError, match="cannot be rows"):
        arena.take(buffer, arena.empty((3, 2), np.float32), [0, 1, 3])
    with pytest.raises(ValueError, match="within one piece of memory"):
        arena.take(buffer.rows(0, 2), buffer, [2, 2])
    with pytest.raises(ValueError, match="3 rows have no rows 2 to 4"):
        buffer.rows(2, 2)
    with pytest.raises(InputError, match=r"needs about .* GB of memory"):
        arena.empty((1 << 40, 1 << 10), np.float32)
