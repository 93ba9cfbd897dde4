"""Several bindings of one session, each with its memory."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgedec.devices.base import get_device
from edgedec.errors import BundleError
from edgedec.runtime.resident.arena import HostArena
from edgedec.runtime.session import Session


@pytest.fixture
def session(tmp_path: Path) -> Session:
    """Sum and difference of ``a [N]`` and ``b [N]``."""
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n"]) for n in "abcd"]
    nodes = [helper.make_node("Add", ["a", "b"], ["c"]), helper.make_node("Sub", ["a", "b"], ["d"])]
    graph = helper.make_graph(nodes, "g", values[:2], values[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, tmp_path / "g.onnx")
    return get_device("cpu").open(tmp_path / "g.onnx", threads=1, shared=True)


def test_bindings_live_side_by_side(session: Session) -> None:
    one, out = np.array([1, 2], np.float32), np.zeros(2, np.float32)
    first = session.bind({"a": one, "b": one, "unknown": one}, {"c": out})
    difference = np.zeros(3, np.float32)
    second = session.bind(
        {"a": np.array([5, 5, 5], np.float32), "b": np.array([1, 2, 3], np.float32)},
        {"d": difference},
    )
    gc.collect()  # what is bound is kept alive by its binding
    for _ in range(2):
        second.run()
        first.run()
    assert difference.tolist() == [4, 3, 2]
    assert out.tolist() == [2, 4]
    one[:] = 7  # read at the next run
    first.run()
    assert out.tolist() == [14, 14]


def test_in_place(session: Session) -> None:
    a = np.array([1, 2], np.float32)
    binding = session.bind({"a": a, "b": np.ones(2, np.float32)}, {"c": a})
    binding.run()
    binding.run()
    assert a.tolist() == [3, 4]


def test_what_cannot_be_bound(session: Session) -> None:
    a = np.ones(4, np.float32)
    with pytest.raises(ValueError, match="b is not C-contiguous"):
        session.bind({"a": a[:2], "b": a[::2]}, {})
    with pytest.raises(BundleError, match=r"g\.onnx fails in ONNX Runtime .*: export the bundle"):
        session.bind({"a": a, "b": a[:3]}, {"c": np.empty(4, np.float32)}).run()


def test_memory_of_a_device_is_used_where_it_is(session: Session) -> None:
    arena = HostArena()
    a, b = arena.empty((2,), np.float32), arena.empty((2,), np.float32)
    arena.write(a, np.array([1, 2], np.float32))
    arena.write(b, np.array([5, 5], np.float32))
    difference = np.zeros(2, np.float32)
    binding = session.bind({"a": a, "b": b}, {"c": a, "d": difference})
    for _ in range(2):
        binding.run()
    assert arena.read(a).tolist() == [11, 12]
    assert difference.tolist() == [1, 2]  # of the second run, which read what the first wrote


@pytest.fixture
def counter(tmp_path: Path) -> Session:
    """Twice ``input_ids [N, 1]`` plus ``past_length [N]``, and one more than the latter."""
    value, kind = helper.make_tensor_value_info, TensorProto.INT64
    one = helper.make_tensor("one", kind, [1], [1])
    nodes = [
        helper.make_node("Add", ["input_ids", "input_ids"], ["twice"]),
        helper.make_node("Unsqueeze", ["past_length", "one"], ["column"]),
        helper.make_node("Add", ["twice", "column"], ["next_token"]),
        helper.make_node("Add", ["past_length", "one"], ["next.past_length"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [value("input_ids", kind, ["n", 1]), value("past_length", kind, ["n"])],
        [value("next_token", kind, ["n", 1]), value("next.past_length", kind, ["n"])],
        [one],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, tmp_path / "counter.onnx")
    return get_device("cpu").open(tmp_path / "counter.onnx", threads=1, shared=True)


def test_several_steps_in_one_run(counter: Session) -> None:
    ids, past = np.array([[1], [2]]), np.array([10, 20])
    chosen = np.zeros((3, 2, 1), np.int64)
    carried = {"next_token": "input_ids", "next.past_length": "past_length"}
    binding = counter.bind_steps(
        {"input_ids": ids, "past_length": past}, {"next_token": chosen}, carried, 3
    )
    for _ in range(2):  # it begins with the caller's arrays every time
        binding.run()
        assert chosen[:, :, 0].tolist() == [[12, 24], [35, 69], [82, 160]]
    assert (ids.tolist(), past.tolist()) == ([[1], [2]], [10, 20])
    ids[0] = 0
    binding.run()
    assert chosen[:, 0, 0].tolist() == [10, 31, 74]
