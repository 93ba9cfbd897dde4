"""Numbers, biases and memory of graphs of fixed shapes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from edgedec.errors import BundleError
from edgedec.runtime.encoder import Memory
from edgedec.runtime.manifest import BiasTable, Grid
from edgedec.runtime.session import Port
from edgedec.runtime.static.bias import MASKED, Bias, decoder_bias, encoder_bias, hide, read_bias
from edgedec.runtime.static.memory import (
    StaticMemory,
    join_heads,
    split_heads,
    to_standard,
    to_static,
)
from edgedec.runtime.static.numbers import INTEGERS, Numbers, numbers_of

seeds = st.integers(0, 2**32 - 1)


def table(seed: int, heads: int, reach: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """A causal table: its value for a distance is told apart from every other."""
    values = np.random.default_rng(seed).normal(size=(heads, 2 * reach)).astype(np.float32)
    values[:, reach:] = -40
    return values


@given(seeds, st.integers(1, 3), st.integers(1, 9), st.integers(1, 5), st.data())
def test_bias_of_a_decoder(seed: int, heads: int, past: int, new: int, data: st.DataObject) -> None:
    known = data.draw(st.integers(0, past))
    reach = past + new + data.draw(st.integers(0, 2))
    values = table(seed, heads, reach)
    out = np.empty((1, heads, new, past + new), np.float32)
    decoder_bias(Bias(values), past, known, out)
    for head in range(heads):
        for row in range(new):
            for column in range(past + new):
                query = known + row
                key = column if column < past else known + column - past
                seen = key <= query and (column < known or column >= past)
                expected = values[head, reach - 1 - (query - key)] if seen else MASKED
                assert out[0, head, row, column] == expected


@given(seeds, st.integers(1, 3), st.integers(1, 9), st.data())
def test_bias_of_an_encoder(seed: int, heads: int, source: int, data: st.DataObject) -> None:
    length = data.draw(st.integers(1, source))
    reach = source + data.draw(st.integers(0, 2))
    values = np.random.default_rng(seed).normal(0, 30, (heads, 2 * reach)).astype(np.float32)
    found = encoder_bias(Bias(values), source, source)
    hide(found, length)
    places = reach - 1 - (np.arange(source)[:, None] - np.arange(source))
    expected = np.where(np.arange(source) < length, values[:, places], MASKED)
    assert np.array_equal(found[0], np.maximum(expected, MASKED))


def test_a_table_has_an_end() -> None:
    bias = Bias(np.zeros((1, 8), np.float32))
    assert bias.window(3, 8).shape == (1, 8)
    with pytest.raises(ValueError, match="not in the table"):
        bias.window(4, 1)
    with pytest.raises(ValueError, match="not in the table"):
        bias.window(3, 9)


def test_a_table_is_read_with_care(tmp_path: Path) -> None:
    path = tmp_path / "decoder.bias.bin"
    described = BiasTable(path.name, 2, 3)
    values = np.arange(12, dtype="<f4").reshape(2, 6)
    path.write_bytes(values.tobytes())
    assert np.array_equal(read_bias(path, described).window(2, 6), values)
    for wrong in (values[:1], np.full((2, 6), np.nan, "<f4")):
        path.write_bytes(wrong.tobytes())
        with pytest.raises(BundleError, match="is no table of biases"):
            read_bias(path, described)
    path.unlink()
    with pytest.raises(BundleError, match="cannot be read"):
        read_bias(path, described)


@given(seeds, st.sampled_from(sorted(INTEGERS)), st.floats(1e-4, 1e2), st.data())
def test_integers_stand_for_the_nearest_numbers(
    seed: int, kind: str, scale: float, data: st.DataObject
) -> None:
    dtype: np.dtype[Any] = np.dtype(INTEGERS[kind])
    limits = np.iinfo(dtype)
    zero = data.draw(st.integers(int(limits.min), int(limits.max)))
    numbers = Numbers(dtype, Grid(scale, zero))
    lowest, highest = (scale * (float(end) - zero) for end in (limits.min, limits.max))
    values = np.random.default_rng(seed).uniform(2 * lowest - 1, 2 * highest + 1, 50)
    values = values.astype(np.float32)
    stored = numbers.store(values)
    assert stored.dtype == dtype
    off = np.abs(numbers.load(stored) - np.clip(values, lowest, highest))
    assert (off <= scale * 0.501 + 1e-6 * np.abs(values)).all()
    assert np.array_equal(numbers.store(numbers.load(stored)), stored)
    assert not numbers.load(numbers.empty(2, 3)).any()


def test_rounding_is_that_of_onnx_runtime() -> None:
    """A cache that the host quantises and one that a graph does must not differ."""
    scale, zero = 0.037, 117
    node = helper.make_node("QuantizeLinear", ["x", "s", "z"], ["y"])
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None])],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, [None])],
        [
            helper.make_tensor("s", TensorProto.FLOAT, [], [scale]),
            helper.make_tensor("z", TensorProto.UINT8, [], [zero]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    halves = (np.arange(-300, 300) + 0.5) * np.float32(scale)
    values = np.concatenate([halves, np.random.default_rng(0).normal(0, 5, 5000)])
    values = values.astype(np.float32)
    (expected,) = session.run(None, {"x": values})
    numbers = Numbers(np.dtype(np.uint8), Grid(scale, zero))
    assert np.array_equal(numbers.store(values), expected)


def test_halves_do_not_become_infinite() -> None:
    numbers = Numbers(np.dtype(np.float16))
    stored = numbers.store(np.array([1e9, -1e9, 0.1], np.float32))
    assert stored.dtype == np.float16
    assert np.isfinite(stored).all()
    assert abs(numbers.load(stored)[2] - 0.1) < 1e-4


GRIDS = {"past.0.self.key": Grid(0.1, 3), "cross.0.key": Grid(0.1, 300)}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("new.0.self.key", "tensor(uint8)"),
        ("past.0.self.key", "tensor(int16)"),
        ("past.0.self.value", "tensor(float16)"),
        ("cross.0.key", "tensor(uint16)"),
    ],
)
def test_ports_that_go_with_their_grids(name: str, kind: str) -> None:
    found = numbers_of("g.onnx", name, Port(kind, (1, 2)), GRIDS)
    assert (found.grid is None) == (kind == "tensor(float16)")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("past.0.self.value", "tensor(uint8)"),  # integers of which nobody says what they are
        ("past.0.self.key", "tensor(float)"),
        ("past.0.self.value", "tensor(int64)"),
        ("cross.0.key", "tensor(uint8)"),  # 300 is no uint8
    ],
)
def test_ports_that_do_not(name: str, kind: str) -> None:
    with pytest.raises(BundleError, match=f"'{name}' of g.onnx is"):
        numbers_of("g.onnx", name, Port(kind, (1, 2)), GRIDS)


@given(seeds, st.integers(1, 3), st.integers(1, 4), st.integers(1, 3), st.integers(1, 4))
def test_heads_split_and_joined(seed: int, rows: int, time: int, heads: int, depth: int) -> None:
    array = np.random.default_rng(seed).normal(size=(rows, time, heads * depth))
    key, value = (split_heads(array, heads, part) for part in ("key", "value"))
    assert key.shape == (rows, heads, depth, time)
    assert value.shape == (rows, heads, time, depth)
    assert np.array_equal(key[:, heads - 1, :, 0], array[:, 0, (heads - 1) * depth :])
    assert np.array_equal(join_heads(key, "key"), array)
    assert np.array_equal(join_heads(value, "value"), array)


PLAIN = Numbers(np.dtype(np.float32))
FINE = Numbers(np.dtype(np.uint16), Grid(2e-4, 32768))


@given(
    seeds,
    st.lists(st.integers(1, 5), min_size=1, max_size=3),
    st.sampled_from([PLAIN, FINE]),
)
def test_memory_there_and_back(seed: int, lengths: list[int], numbers: Numbers) -> None:
    """What an encoder of any length gave comes back from the form of fixed shapes."""
    rng, longest, heads, width, source = np.random.default_rng(seed), max(lengths), 2, 6, 7
    live = np.arange(longest) < np.array(lengths)[:, None]
    arrays = {"cross.mask": np.where(live, 0, -1e9).astype(np.float32)[:, None, None]}
    for part in ("key", "value"):
        given = rng.normal(size=(len(lengths), longest, width)).clip(-3, 3)
        arrays[f"cross.0.{part}"] = given.astype(np.float32)
    kinds = {name: numbers for name in arrays if name != "cross.mask"}
    static = to_static(Memory(arrays), kinds, heads, source)
    assert static.lengths.tolist() == lengths
    assert static.arrays["cross.0.key"].shape == (len(lengths), heads, width // heads, source)
    assert to_static(static, kinds, heads, source) is static
    back = to_standard(static.fork(2))
    assert back.arrays.keys() == arrays.keys()
    tolerance = 0 if numbers.grid is None else 0.6 * numbers.grid.scale
    for name, array in arrays.items():
        assert np.abs(back.arrays[name][::2] - array).max() <= (0 if "mask" in name else tolerance)
        assert np.array_equal(back.arrays[name][::2], back.arrays[name][1::2])


def test_memory_of_one_grid_for_a_decoder_of_another() -> None:
    coarse, fine = (Numbers(np.dtype(np.uint8), Grid(scale, 128)) for scale in (0.02, 0.01))
    values = np.linspace(-1, 1, 12, dtype=np.float32).reshape(1, 2, 3, 2)
    name = "cross.0.key"
    memory = StaticMemory({name: coarse.store(values)}, {name: coarse}, np.ones(1, np.int64))
    found = to_static(memory, {name: fine}, 2, 2)
    assert np.abs(fine.load(found.arrays[name]) - values).max() < 0.016
