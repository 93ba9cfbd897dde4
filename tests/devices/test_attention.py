"""Attention with a bias from a table over distances becomes one of our operators."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from tests.devices.models import CLOSE, WAYS, deepcopy_model, graph, lower, nodes, operators, run

HEADS, GROUPS, WIDTH = 4, 2, 8
"""Heads of queries, of keys and values, and channels of one."""
BATCH, NEW, SOURCE, CAPACITY = 2, 3, 5, 12
Q, KV = HEADS * WIDTH, GROUPS * WIDTH
MASKED = -1e9

CACHED = """
g (float[batch, new, 32] q, float[batch, new, 16] k, float[batch, new, 16] v, int64[batch] length,
   float[batch, capacity, 16] past_key, float[batch, capacity, 16] past_value,
   int64[batch, new] input_ids)
=> (float[batch, new, 32] y, float[batch, capacity, 16] key, float[batch, capacity, 16] value) {
    zero = Constant <value_int = 0> ()
    one = Constant <value_int = 1> ()
    first = Constant <value_ints = [1]> ()
    second = Constant <value_ints = [2]> ()
    new_shape = Shape <start = 1, end = 2> (input_ids)
    new_count = Squeeze (new_shape)
    steps = Range (zero, new_count, one)
    cache_shape = Shape <start = 1, end = 2> (past_key)
    cache_count = Squeeze (cache_shape)
    keys = Range (zero, cache_count, one)
    start = Unsqueeze (length, first)
    place = Add (start, steps)
    column = Unsqueeze (place, second)
    distance = Sub (column, keys)
    index = Add (distance, one)
    last = Constant <value_int = 6> ()
    clipped = Clip (index, zero, last)
    bias = Gather <axis = 1> (table, clipped)
    mask = Transpose <perm = [1, 0, 2, 3]> (bias)
    key = TensorScatter <axis = 1> (past_key, k, length)
    value = TensorScatter <axis = 1> (past_value, v, length)
    y = Attention <q_num_heads = 4, kv_num_heads = 2, scale = 0.5> (q, key, value, mask) # attend
}
"""
REMEMBERED = """
g (float[batch, new, 32] q, float[batch, source, 16] k, float[batch, source, 16] v,
   float[batch, 1, 1, source] mask, int64[batch, new] input_ids, int64[batch, source] memory)
=> (float[batch, new, 32] y) {
    zero = Constant <value_int = 0> ()
    one = Constant <value_int = 1> ()
    axis0 = Constant <value_ints = [0]> ()
    axis1 = Constant <value_ints = [1]> ()
    new_shape = Shape <start = 1, end = 2> (input_ids)
    new_count = Squeeze (new_shape)
    steps = Range (zero, new_count, one)
    source_shape = Shape <start = 1, end = 2> (memory)
    source_count = Squeeze (source_shape)
    places = Range (zero, source_count, one)
    row = Unsqueeze (steps, axis1)
    column = Unsqueeze (places, axis0)
    distance = Sub (row, column)
    low = Constant <value_int = -2> ()
    high = Constant <value_int = 2> ()
    clipped = Clip (distance, low, high)
    index = Add (clipped, high)
    bias = Gather <axis = 1> (table, index)
    every = Unsqueeze (bias, axis0)
    total = Add (every, mask)
    y = Attention <q_num_heads = 4, kv_num_heads = 2, scale = 0.5> (q, k, v, total) # attend
}
"""
CROSS = """
g (float[batch, new, 32] q, float[batch, source, 16] k, float[batch, source, 16] v,
   float[batch, 1, 1, source] mask, int64[batch, new] input_ids)
=> (float[batch, new, 32] y) {
    count = Shape <start = 1, end = 2> (input_ids)
    ones = Constant <value_ints = [1, 1]> ()
    one = Constant <value_ints = [1]> ()
    shape = Concat <axis = 0> (ones, count, one)
    total = Expand (mask, shape)
    y = Attention <q_num_heads = 4, kv_num_heads = 2, scale = 0.5> (q, k, v, total) # attend
}
"""
RNG = np.random.default_rng(2)


def floats(*shape: int) -> NDArray[np.float32]:
    return RNG.normal(size=shape).astype(np.float32)


def cached(text: str = CACHED, rows: int = HEADS, hidden: float = MASKED) -> ir.Model:
    """A graph whose table hides the distances below 0."""
    model = graph(text, table=(rows, 7))
    set_table(model, rows, hidden)
    return model


def set_table(model: ir.Model, rows: int, hidden: float) -> None:
    values = floats(rows, 7)
    values[:, 0] = hidden
    model.graph.initializers["table"].const_value = ir.tensor(values, name="table")


def feeds(*, memory: bool = False) -> dict[str, NDArray[np.generic]]:
    common: dict[str, NDArray[np.generic]] = {
        "q": floats(BATCH, NEW, Q),
        "input_ids": np.zeros((BATCH, NEW), np.int64),
    }
    if memory:
        mask = np.zeros((BATCH, 1, 1, SOURCE), np.float32)
        mask[1, ..., 3:] = MASKED
        seen = floats(BATCH, SOURCE, KV), floats(BATCH, SOURCE, KV)
        return {**common, "k": seen[0], "v": seen[1], "mask": mask}
    return {
        **common,
        "k": floats(BATCH, NEW, KV),
        "v": floats(BATCH, NEW, KV),
        "length": np.array([0, 7], np.int64),
        "past_key": floats(BATCH, CAPACITY, KV),
        "past_value": floats(BATCH, CAPACITY, KV),
    }


def check(model: ir.Model, given: dict[str, NDArray[np.generic]], op_type: str) -> ir.Node:
    """Lower a graph; all of it must become one node that computes the same."""
    expected = run(model, given)
    lowered = deepcopy_model(model)
    lower(lowered)
    assert operators(lowered) == [f"edgedec::{op_type}"]
    for library in WAYS:
        for found, wanted in zip(run(lowered, given, library=library), expected, strict=True):
            np.testing.assert_allclose(found, wanted, atol=CLOSE, rtol=0)
    (node,) = lowered.graph
    assert node.name == "attend"
    assert set(lowered.functions) == {("edgedec", op_type, "")}
    return node


@pytest.mark.parametrize("rows", [1, HEADS])
def test_cached(rows: int) -> None:
    node = check(cached(rows=rows), feeds(), "DecodeAttention")
    assert node.attributes["origin"].as_int() == 1
    assert math.isclose(node.attributes["scale"].as_float(), 0.5)
    assert [v.name for v in node.outputs] == ["y", "key", "value"]


@pytest.mark.parametrize("rows", [1, HEADS])
def test_relative(rows: int) -> None:
    model = graph(REMEMBERED, table=(rows, 5))
    given = {**feeds(memory=True), "memory": np.zeros((BATCH, SOURCE), np.int64)}
    assert check(model, given, "MemoryAttention").attributes["origin"].as_int() == 2


def test_cross() -> None:
    node = check(graph(CROSS), feeds(memory=True), "MemoryAttention")
    assert node.attributes["origin"].as_int() == 0
    table = node.inputs[4]
    assert table is not None
    assert table.const_value is not None
    assert table.const_value.numpy().tolist() == [[0]]


def test_portable_attention_stays() -> None:
    model = cached()
    before = operators(model)
    lower(model, portable=True)
    assert operators(model) == before


CACHED_STAYS = {
    "another start": ("Add (distance, one)", "Add (distance, zero)"),
    "another direction": ("Sub (column, keys)", "Sub (keys, column)"),
    "a wider clip": ("value_int = 6", "value_int = 7"),
    "a clip that starts later": ("Clip (index, zero", "Clip (index, one"),
    "another order of axes": ("[1, 0, 2, 3]", "[1, 0, 3, 2]"),
    "lengths of another kind": ("Add (start, steps)", "Add (steps, start)"),
    "steps from 1": ("Range (zero, new_count", "Range (one, new_count"),
    "steps of 2": ("new_count, one)", "new_count, two)"),
    "a circular cache": ("<axis = 1> (past_key", '<axis = 1, mode = "circular"> (past_key'),
    "keys written elsewhere": ("(past_key, k, length)", "(past_key, k, other)"),
    "a softcap": ("scale = 0.5>", "scale = 0.5, softcap = 2.0>"),
    "a causal flag": ("scale = 0.5>", "scale = 0.5, is_causal = 1>"),
    "no scale": (", scale = 0.5>", ">"),
    "a bias that is changed": ("(q, key, value, mask)", "(q, key, value, double)"),
    "a cache that is read twice": ("# attend\n", "# attend\n more = Relu (key)\n"),
}
EXTRA = {
    "steps of 2": "two = Constant <value_int = 2> ()\n",
    "keys written elsewhere": "other = Identity (length)\n",
}


@pytest.mark.parametrize("kind", CACHED_STAYS)
def test_what_is_no_such_attention_stays(kind: str) -> None:
    old, new = CACHED_STAYS[kind]
    assert old in CACHED
    text = CACHED.replace(old, new)
    text = text.replace("    zero =", f"    {EXTRA.get(kind, '')}    zero =", 1)
    if kind == "a bias that is changed":
        text = text.replace("    y =", "    double = Add (mask, mask)\n    y =")
    if kind == "a cache that is read twice":
        text = text.replace("16] value) {", "16] value, float[batch, capacity, 16] more) {")
    model = cached(text)
    before = operators(model)
    lower(model)
    assert operators(model) == before


@pytest.mark.parametrize("hidden", [0.0, -1e3])
def test_a_table_that_hides_nothing_stays(hidden: float) -> None:
    model = cached(hidden=hidden)
    lower(model)
    assert nodes(model, "Attention")


REMEMBERED_STAYS = {
    "another middle": ("value_int = -2", "value_int = -3"),
    "another direction": ("Sub (row, column)", "Sub (column, row)"),
    "no middle": ("Add (clipped, high)", "Add (clipped, one)"),
    "steps from 1": ("Range (zero, new_count", "Range (one, new_count"),
    "a mask per query": ("mask, int64", "bad, int64"),
}


@pytest.mark.parametrize("kind", REMEMBERED_STAYS)
def test_other_biases_over_distances_stay(kind: str) -> None:
    old, new = REMEMBERED_STAYS[kind]
    assert old in REMEMBERED
    text = REMEMBERED.replace(old, new)
    if kind == "a mask per query":
        text = REMEMBERED.replace("[batch, 1, 1, source] mask", "[batch, 1, new, source] mask")
    model = graph(text, table=(HEADS, 5))
    lower(model)
    assert nodes(model, "Attention")
    assert not nodes(model, "MemoryAttention")


def test_an_even_table_stays() -> None:
    model = graph(REMEMBERED, table=(HEADS, 6))
    lower(model)
    assert nodes(model, "Attention")
