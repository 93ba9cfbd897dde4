"""A decoder with fixed shapes: one step, several greedy ones, or a chunk of a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgedec.devices.npu.attention import (
    DECODE,
    MEMORY,
    Bias,
    Cache,
    CachedAttention,
    CrossAttention,
    heads_of,
)
from edgedec.devices.npu.bias import Tables, find_tables
from edgedec.devices.npu.emit import Emitter, Handler, copy, needed
from edgedec.devices.npu.heads import Heads
from edgedec.devices.npu.known import (
    NOTHING,
    POSITIONS,
    Arrays,
    computed,
    evaluate,
    frontier,
    varying,
)
from edgedec.devices.npu.model import Target
from edgedec.devices.npu.operators import COMMON
from edgedec.devices.npu.writer import Writer
from edgedec.devices.passes.match import attribute, axis, producer
from edgedec.devices.passes.refusal import RefusalError

FLOAT, INT32 = ir.DataType.FLOAT, ir.DataType.INT32
PICK = ("", "GatherND")


@dataclass(frozen=True)
class Lengths:
    """What a decoder graph is fixed to.

    Attributes:
        past: positions that its caches hold.
        source: of the encoder's; None without.
        count: tokens of one step.
        steps: greedy steps of one run; more than one only with single tokens.
    """

    past: int
    source: int | None
    count: int
    steps: int

    @property
    def new(self) -> int:
        """Positions that one run adds."""
        return self.count * self.steps


@dataclass(frozen=True, eq=False)
class DecoderGraph:
    """A decoder as `standardise` gives it, with what is the same in all its static forms.

    Attributes:
        model: the graph.
        heads: of its attention.
        tables: that its bias is made of.
    """

    model: ir.Model
    heads: Heads
    tables: Tables


def decoder_graph(model: ir.Model, reach: int) -> DecoderGraph:
    """Look at a decoder.

    Args:
        model: as `standardise` gives it.
        reach: of the table of its bias.

    Raises:
        RefusalError: its attention is of no form that is known.
    """
    attention = [n for n in model.graph if (n.domain, n.op_type) in (DECODE, MEMORY)]
    cached = [node for node in attention if (node.domain, node.op_type) == DECODE]
    plain = next((n for n in model.graph if n.op_type in ("Attention", "TensorScatter")), None)
    if not cached or plain is not None:
        raise RefusalError(plain, "its attention has no form that is known")
    heads = heads_of(cached[0])
    for node in attention:
        if heads_of(node) != heads:
            raise RefusalError(node, "its heads differ from those of the first layer")
    return DecoderGraph(model, heads, find_tables(cached, reach))


def static_decoder(source: DecoderGraph, lengths: Lengths, target: Target, name: str) -> ir.Model:
    """Write a decoder; docs/bundle.md has its inputs and outputs.

    Raises:
        RefusalError: it cannot be written.
    """
    writing = _Writing(source, lengths, target, name)
    ids = writing.ids
    tokens = []
    for number in range(lengths.steps):
        ids, logits = writing.step(number, ids)
        tokens.append(ids)
    return writing.finish(tokens, logits)


class _Writing:
    """A decoder graph under construction, step by step."""

    def __init__(self, source: DecoderGraph, lengths: Lengths, target: Target, name: str) -> None:
        graph = source.model.graph
        self._source, self._lengths = source, lengths
        self._given = {str(value.name): value for value in graph.inputs}
        outputs = {str(value.name): value for value in graph.outputs}
        self._token, self._logits = outputs["next_token"], outputs["logits"]
        reads = varying(graph)
        ready = computed(reads, frozenset({POSITIONS}))
        self._nodes = needed(graph, [self._token, self._logits], ready)
        self._constants, self._tables = self._evaluate(ready, computed(reads, NOTHING))
        self._w = Writer(name, target)
        self._inputs()

    def step(self, number: int, ids: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Write one step for the tokens ``ids``; returns the greedy choice and the logits."""
        w, lengths = self._w, self._lengths
        w.suffix = f".step{number}" if number else ""
        first = number * lengths.count
        last = first + lengths.count
        bias, positions = self._bias, self._positions
        if lengths.steps > 1:
            seen = {2: (first, last), 3: (0, lengths.past + last)}
            bias = w.slice(bias, seen, "self.bias.row")
            if positions is not None:
                positions = w.slice(positions, {1: (first, last)}, "position")
        rows = Bias(w, bias, lengths.count, lengths.past + last, self._source.tables)
        handlers: dict[tuple[str, str], Handler] = {
            **COMMON,
            PICK: self._pick,
            MEMORY: self._cross,
            DECODE: CachedAttention(rows, self._caches),
        }
        bound = self._bound | {self._given["input_ids"]: ids}
        emitter = Emitter(
            w, handlers, bound, self._constants, self._tables, positions, lengths.count
        )
        emitter.emit(self._nodes)
        token = w.op("Cast", [emitter.read(self._token)], "chosen_token", to=INT32)
        return token, emitter.read(self._logits)

    def finish(self, tokens: Sequence[ir.Value], logits: ir.Value) -> ir.Model:
        """Declare the outputs."""
        w = self._w
        w.suffix = ""
        token = tokens[0]
        if len(tokens) > 1:
            token = w.op("Concat", tokens, "chosen_tokens", axis=1)
        w.output(token, "next_token")
        if len(tokens) == 1:
            w.output(logits, "logits")
        for past, cache in self._caches.items():
            layer = str(past.name).split(".")[1]
            for part, rows in zip(("key", "value"), cache.rows, strict=True):
                new = rows[0]
                if len(rows) > 1:
                    new = w.op("Concat", rows, f"new.{layer}.{part}", axis=1)
                w.output(new, f"new.{layer}.self.{part}")
        return w.model(self._source.model)

    def _evaluate(
        self, ready: frozenset[ir.Value], fixed: frozenset[ir.Value]
    ) -> tuple[Arrays, Arrays]:
        """What depends on lengths alone, and on positions: a row for each that there can be."""
        model, count = self._source.model, self._lengths.past + 1
        border = frontier(self._nodes, ready)
        constants = evaluate(
            model, [v for v in border if v in fixed], self._feeds(self._lengths.count)
        )
        placed = evaluate(model, [v for v in border if v not in fixed], self._feeds(count))
        for value, rows in placed.items():
            if rows.dtype != np.float32 or rows.shape[:2] != (1, count):
                raise RefusalError(
                    value.producer(), "what it makes of positions is no row for each"
                )
        return constants, {value: rows[0] for value, rows in placed.items()}

    def _feeds(self, count: int) -> dict[str, NDArray[Any]]:
        """Inputs of the graph for tokens at the positions from 0 on."""
        given: dict[str, NDArray[Any]] = {
            "input_ids": np.zeros((1, count), np.int64),
            POSITIONS: np.arange(count)[None],
            "past_length": np.zeros(1, np.int64),
            "logit_positions": np.zeros((1, 1), np.int64),
        }
        heads = self._source.heads
        channels = heads.kv * heads.width
        for name in self._given.keys() - given.keys():
            length = count if name.startswith("past.") else self._lengths.source or 1
            given[name] = np.zeros((1, length, channels), np.float32)
        if "cross.mask" in self._given:
            given["cross.mask"] = np.zeros((1, 1, 1, self._lengths.source or 1), np.float32)
        return given

    def _inputs(self) -> None:
        """Declare the inputs."""
        w, lengths, heads = self._w, self._lengths, self._source.heads
        self.ids = w.input("input_ids", INT32, [1, lengths.count])
        self._positions = None
        if self._tables:
            self._positions = w.input(POSITIONS, INT32, [1, lengths.new])
        shape = [1, self._source.tables.heads, lengths.new, lengths.past + lengths.new]
        self._bias = w.input("self.bias", FLOAT, shape)
        self._cross: Handler = copy
        if lengths.source is not None:
            mask = w.input("cross.bias", FLOAT, [1, 1, 1, lengths.source])
            self._cross = CrossAttention(self._given["cross.mask"], mask)
        self._caches: dict[ir.Value, Cache] = {}
        self._bound: dict[ir.Value, ir.Value] = {}
        shapes = {
            ("past", "key"): (heads.width, lengths.past),
            ("past", "value"): (lengths.past, heads.width),
            ("cross", "key"): (heads.width, lengths.source or 0),
            ("cross", "value"): (lengths.source or 0, heads.width),
        }
        for name, value in self._given.items():
            kind = name.partition(".")[0], name.rpartition(".")[2]
            if kind in shapes:
                self._bound[value] = w.input(name, FLOAT, [1, heads.kv, *shapes[kind]])
        for name, key in self._given.items():
            if name.startswith("past.") and name.endswith(".key"):
                value = self._given[f"{name.removesuffix('key')}value"]
                self._caches[key] = Cache([self._bound[key]], [self._bound[value]])
        self._pick: Handler = _first
        if lengths.count > 1:
            self._pick = _Pick(w.input("logit_positions", INT32, [1, 1]))


def _first(emitter: Emitter, node: ir.Node) -> None:
    """The only token."""
    _check_pick(node)
    emitter.give(node.outputs[0], emitter.read(node.inputs[0]))


@dataclass(frozen=True, eq=False)
class _Pick:
    """Writes which of the tokens is scored: the one at ``position [1, 1]``."""

    position: ir.Value

    def __call__(self, emitter: Emitter, node: ir.Node) -> None:
        _check_pick(node)
        w, x, name = emitter.writer, node.inputs[0], str(node.name)
        picked = w.op("Gather", [emitter.read(x), self.position], f"{name}.token", axis=1)
        width = axis(x, -1)
        if not isinstance(width, int):
            raise RefusalError(node, "the width of what it picks is not known")
        emitter.give(node.outputs[0], w.reshape(picked, [1, 1, width], name))


def _check_pick(node: ir.Node) -> None:
    """Refuse to pick anything but whole tokens at the head's positions."""
    index = producer(node.inputs[1], "Unsqueeze")
    at = index.inputs[0] if index is not None else None
    if at is None or at.name != "logit_positions" or attribute(node, "batch_dims", 0) != 1:
        raise RefusalError(node, "it picks something else than tokens to score")
