"""`weights.bin`: every distinct tensor once, aligned, hashed while it is written."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgedec.export.bundle import ALIGNMENT, INLINE_LIMIT, WEIGHTS, WeightFile

TYPES = (np.float32, np.float16, np.int64, np.uint8)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A new folder for every example."""
    root, number = tmp_path_factory.mktemp("weights"), itertools.count()

    def make() -> Path:
        folder = root / str(next(number))
        folder.mkdir()
        return folder

    return make


def array(length: int, kind: int, seed: int) -> NDArray[Any]:
    """Few values and sizes, so that equal tensors come up often."""
    return np.full(length, seed, TYPES[kind])


arrays = st.builds(
    array, st.integers(INLINE_LIMIT, INLINE_LIMIT + 70), st.integers(0, 3), st.integers(0, 2)
)


@given(st.lists(arrays, max_size=12))
def test_every_tensor_once_and_aligned(folders: Any, tensors: list[NDArray[Any]]) -> None:
    file = WeightFile(folders() / WEIGHTS)
    stored = [file.store(ir.tensor(t, name=f"t{i}")) for i, t in enumerate(tensors)]
    entry = file.close()
    data = file.path.read_bytes()
    assert entry.bytes == len(data)
    assert entry.sha256 == hashlib.sha256(data).hexdigest()
    places: dict[bytes, int] = {}
    for values, reference in zip(tensors, stored, strict=True):
        assert isinstance(reference, ir.ExternalTensor)
        assert reference.location == WEIGHTS
        assert reference.offset is not None
        assert reference.offset % ALIGNMENT == 0
        assert reference.length == values.nbytes
        assert data[reference.offset : reference.offset + values.nbytes] == values.tobytes()
        assert places.setdefault(values.tobytes(), reference.offset) == reference.offset
        np.testing.assert_array_equal(reference.numpy(), values)
    assert len(set(places.values())) == len(places)
    assert file.parameters == sum(
        next(t.size for t in tensors if t.tobytes() == key)
        for key in places
        if any(t.tobytes() == key and t.dtype.kind == "f" for t in tensors)
    )
    room = sum(-(-len(key) // ALIGNMENT) * ALIGNMENT for key in places)
    assert room - ALIGNMENT < len(data) <= room


def test_half_precision_is_stored_as_such(tmp_path: Path) -> None:
    file = WeightFile(tmp_path / WEIGHTS)
    values = np.linspace(-1, 1, INLINE_LIMIT, dtype=np.float32)
    for dtype in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16):
        reference = file.store(ir.Tensor(values.astype(dtype.numpy()), dtype=dtype, name="t"))
        assert isinstance(reference, ir.ExternalTensor)
        assert (reference.dtype, reference.length) == (dtype, 2 * INLINE_LIMIT)
    assert file.close().bytes == 4 * INLINE_LIMIT


def test_a_small_tensor_stays_in_its_graph_and_counts(tmp_path: Path) -> None:
    file = WeightFile(tmp_path / WEIGHTS)
    for values in (np.ones(8, np.float32), np.float32(3), np.arange(9)):
        kept = file.store(ir.tensor(values, name="t"))
        assert isinstance(kept, ir.Tensor)
        np.testing.assert_array_equal(kept.numpy(), values)
    assert file.close().bytes == 0
    assert file.parameters == 8, "neither scalars nor integers are parameters"


@given(st.lists(st.integers(-8, 7), min_size=1, max_size=3), st.integers(1, 3000))
def test_two_of_four_bits_to_a_byte(folders: Any, pattern: list[int], size: int) -> None:
    values = np.resize(np.array(pattern), size).astype(ml_dtypes.int4)
    file = WeightFile(folders() / WEIGHTS)
    stored = file.store(ir.Tensor(values, dtype=ir.DataType.INT4, name="t"))
    entry = file.close()
    inside = (size + 1) // 2 < INLINE_LIMIT
    assert entry.bytes == (0 if inside else (size + 1) // 2)
    assert stored.dtype == ir.DataType.INT4
    assert np.array_equal(stored.numpy().astype(int), values.astype(int))
    assert file.parameters == 0
