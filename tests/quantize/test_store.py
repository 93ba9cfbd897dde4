"""Finished matrices in a folder: what was saved comes back, anything else does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedec.errors import InputError
from edgedec.quantize.baselines.kmeans import kmeans
from edgedec.quantize.codebook import CodebookTensor
from edgedec.quantize.method import Quantized
from edgedec.quantize.store import Store

NAMES = st.text(max_size=80)


def example(seed: int = 0, bits: int = 3, *, order: bool = False) -> Quantized:
    rng = np.random.default_rng(seed)
    tensor = kmeans(rng.standard_normal((40, 24), np.float32), bits, 16)
    if order:
        rows = rng.permutation(40).astype(np.int32)
        tensor = CodebookTensor(
            tensor.codes, tensor.codebooks, tensor.row_scale, tensor.group_of_row, bits, rows
        )
    return Quantized(tensor, None, 3.7, (0.5, 0.25 / 3))


def same(left: Quantized | None, right: Quantized) -> bool:
    if left is None or (left.tensor is None) != (right.tensor is None):
        return False
    facts = (left.bits_per_weight, left.trace) == (right.bits_per_weight, right.trace)
    values = np.array_equal(left.dequantize(), right.dequantize())
    if left.tensor is not None and right.tensor is not None:
        values = values and np.array_equal(left.tensor.codes, right.tensor.codes)
        values = values and (left.tensor.row_order is None) == (right.tensor.row_order is None)
    return facts and values


def only(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


@pytest.mark.parametrize(
    "quantized",
    [
        example(),
        example(bits=2, order=True),
        Quantized(None, np.eye(3, 5, dtype=np.float32), 4.5),
    ],
)
def test_round_trip(tmp_path: Path, quantized: Quantized) -> None:
    store = Store(tmp_path / "a" / "work", "key")
    assert store.load("m") is None
    store.save("m", quantized)
    assert same(store.load("m"), quantized)
    assert same(Store(tmp_path / "a" / "work", "key").load("m"), quantized)


def test_the_last_save_counts(tmp_path: Path) -> None:
    store = Store(tmp_path, "key")
    store.save("m", example(1))
    store.save("m", example(2))
    assert same(store.load("m"), example(2))
    assert len(list(tmp_path.iterdir())) == 1


def test_other_work_is_not_taken_for_this(tmp_path: Path) -> None:
    Store(tmp_path, "one").save("m", example())
    assert Store(tmp_path, "two").load("m") is None
    assert Store(tmp_path, "one").load("m") is not None


@given(st.lists(NAMES, unique=True, min_size=2, max_size=4))
def test_any_name_is_a_name(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    store = Store(tmp_path_factory.mktemp("work"), "key")
    for seed, name in enumerate(names):
        store.save(name, example(seed))
    for seed, name in enumerate(names):
        assert same(store.load(name), example(seed))
    assert all(path.parent == store.folder for path in store.folder.rglob("*"))


def test_a_renamed_file_is_not_another_matrix(tmp_path: Path) -> None:
    store = Store(tmp_path, "key")
    store.save("a", example(1))
    of_a = only(tmp_path)
    store.save("b", example(2))
    (of_b,) = set(tmp_path.iterdir()) - {of_a}
    of_a.replace(of_b)
    assert store.load("b") is None


@given(st.data())
def test_damage_is_noticed(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """One flipped bit anywhere, or any cut: nothing, or exactly what was saved."""
    folder = tmp_path_factory.mktemp("work")
    store = Store(folder, "key")
    store.save("m", example())
    whole = only(folder).read_bytes()
    if data.draw(st.booleans()):
        damaged = whole[: data.draw(st.integers(0, len(whole) - 1))]
    else:
        at = data.draw(st.integers(0, 8 * len(whole) - 1))
        changed = bytearray(whole)
        changed[at // 8] ^= 1 << at % 8
        damaged = bytes(changed)
    only(folder).write_bytes(damaged)
    found = store.load("m")
    assert found is None or same(found, example())


def test_a_file_that_is_something_else(tmp_path: Path) -> None:
    store = Store(tmp_path, "key")
    store.save("m", example())
    for content in (b"", b"\xff" * 300, b"{}"):
        only(tmp_path).write_bytes(content)
        assert store.load("m") is None
    only(tmp_path).unlink()
    (tmp_path / "x").touch()
    assert store.load("m") is None


def test_a_killed_save_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path, "key")
    store.save("m", example(1))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        store.save("m", example(2))
    assert same(store.load("m"), example(1))


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot keep finished matrices"):
        Store(tmp_path / "file", "key")
    store = Store(tmp_path / "work", "key")
    (tmp_path / "work").rmdir()
    with pytest.raises(InputError, match="cannot keep finished matrices"):
        store.save("m", example())
