"""A graph with what is special about resident ones: a cache in place, steps that go on alone."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto as T
from onnx import helper, numpy_helper

ROWS, TARGET, VOCAB, WIDTH = 4, 32, 29, 2
CACHE = (1, TARGET, WIDTH)
"""Shape of a row of the cache."""
CARRIED = {"next_token": "input_ids", "next.past_length": "past_length"}


def graph() -> bytes:
    """``next_token`` is the sum of all tokens in the row's cache and 1, modulo `VOCAB`."""
    nodes = [
        helper.make_node("Cast", ["input_ids"], ["wide"], to=T.FLOAT16),
        helper.make_node("Unsqueeze", ["wide", "axes"], ["four"]),
        helper.make_node("Mul", ["four", "ones"], ["update"]),
        helper.make_node("TensorScatter", [PAST, "update", "past_length"], [PRESENT], axis=2),
        helper.make_node("Slice", [PRESENT, "zero", "one", "three"], ["column"]),
        helper.make_node("Cast", ["column"], ["column32"], to=T.FLOAT),
        helper.make_node("ReduceSum", ["column32", "sums"], ["total"], keepdims=0),
        helper.make_node("Add", ["total", "onef"], ["more"]),
        helper.make_node("Cast", ["more"], ["whole"], to=T.INT64),
        helper.make_node("Mod", ["whole", "vocab"], ["token"]),
        helper.make_node("Unsqueeze", ["token", "one"], ["tokens"]),
        helper.make_node("Shape", ["logit_positions"], ["scored"]),
        helper.make_node("Expand", ["tokens", "scored"], ["next_token"]),
        helper.make_node("Unsqueeze", ["next_token", "two"], ["tokens3"]),
        helper.make_node("Cast", ["tokens3"], ["tokens3f"], to=T.FLOAT),
        helper.make_node("Mul", ["tokens3f", "row"], ["logits"]),
        helper.make_node("Shape", ["input_ids"], ["new"], start=1, end=2),
        helper.make_node("Add", ["past_length", "new"], ["next.past_length"]),
    ]
    arrays = {
        "axes": np.array([1, 3]),
        "ones": np.ones((1, 1, 1, WIDTH), np.float16),
        "zero": np.array([0]),
        "one": np.array([1]),
        "two": np.array([2]),
        "three": np.array([3]),
        "sums": np.array([1, 2, 3]),
        "onef": np.ones(1, np.float32),
        "vocab": np.array([VOCAB]),
        "row": np.linspace(0, 1, VOCAB, dtype=np.float32),
    }
    value = helper.make_tensor_value_info
    cache: list[str | int | None] = ["batch", *CACHE]
    inputs = [
        value("input_ids", T.INT64, ["batch", "new"]),
        value("past_length", T.INT64, ["batch"]),
        value(PAST, T.FLOAT16, cache),
        value("logit_positions", T.INT64, ["batch", "picked"]),
    ]
    outputs = [
        value("next_token", T.INT64, ["batch", "picked"]),
        value("logits", T.FLOAT, ["batch", "picked", VOCAB]),
        value(PRESENT, T.FLOAT16, cache),
        value("next.past_length", T.INT64, ["batch"]),
    ]
    weights = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "small", inputs, outputs, weights),
        opset_imports=[helper.make_opsetid("", 24)],
        ir_version=10,
    )
    return bytes(model.SerializeToString())


PAST, PRESENT = "past.0.self.key", "present.0.self.key"
PROFILES = tuple(
    {
        "input_ids": ((1, least), (1, least), (ROWS, most)),
        "past_length": ((1,), (1,), (ROWS,)),
        PAST: ((1, *CACHE), (1, *CACHE), (ROWS, *CACHE)),
        "logit_positions": ((1, 1), (1, 1), (ROWS, 4)),
    }
    for least, most in ((1, 1), (2, TARGET))
)


def expected(prompts: list[list[int]], steps: int) -> list[list[int]]:
    """What greedy decoding chooses after each of several prompts."""
    found = []
    for prompt in prompts:
        tokens = list(prompt)
        for _ in range(steps):
            tokens.append((sum(tokens) + 1) % VOCAB)
        found.append(tokens[len(prompt) :])
    return found
