"""Rewire graphs that somebody else exported until they fit the contract in ``docs/bundle.md``.

Optimum's decoders take a past of exactly the live length, ``[B, heads, P, head_dim]``, and return
it with the new entries joined on. Nothing inside of them is touched: in front, the live entries of
our caches are gathered into the past that the graph wants; behind, the new entries alone are
written into our caches, in place.

A row with fewer live entries than the longest finds them at the end of its past, behind a gap that
the attention mask hides. That is the left padding these decoders are made for, so whatever they
compute from distances or from the mask (windows, ALiBi, positions) stays right.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from onnxscript import GraphBuilder

from edgedec.errors import CheckpointError
from edgedec.export.blocks.positions import MASKED

FLOAT, INT64, BOOL = ir.DataType.FLOAT, ir.DataType.INT64, ir.DataType.BOOL
PAST, PRESENT = "past_key_values", "present"
LAYOUT = ("Reshape", "Transpose", "Identity")
"""Nodes between a projection to keys or values and the layout of its cache."""
POINTWISE = ("Add", "Sub", "Mul", "Div", "Cast", "Identity", "Tanh")
"""Nodes of a head that treat every position alike, next to products with a matrix."""
END = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Caches:
    """Keys and values ``[B, heads, T, head_dim]`` of ``layers`` decoder layers."""

    layers: int
    heads: int
    head_dim: int

    @property
    def width(self) -> int:
        """Channels of one position's keys in one layer."""
        return self.heads * self.head_dim

    @property
    def entries(self) -> list[tuple[int, str]]:
        """Layer and part of every cache, in order."""
        return [(i, part) for i in range(self.layers) for part in ("key", "value")]


def read_caches(decoder: ir.Graph) -> Caches:
    """The caches of a decoder with a past.

    Raises:
        CheckpointError: there are none, or not the same for every layer and kind of attention.
    """
    pasts = {str(v.name): tuple(v.shape or ()) for v in decoder.inputs if v.name and PAST in v.name}
    layers = sum(name.endswith(".key") and ".encoder." not in name for name in pasts)
    sizes = {(shape[1], shape[3]) if len(shape) == 4 else (None, None) for shape in pasts.values()}
    heads, head_dim = sizes.pop() if len(sizes) == 1 else (None, None)
    if layers == 0 or not isinstance(heads, int) or not isinstance(head_dim, int):
        raise CheckpointError(
            "optimum exported a decoder whose caches edgedec's runtime does not know: this "
            "architecture can't be exported through optimum."
        )
    return Caches(layers, heads, head_dim)


def rewire_encoder(encoder: ir.Graph, projecting: ir.Graph, caches: Caches) -> None:
    """Let an encoder emit the keys and values that cross-attention reads, in place.

    Args:
        encoder: ``input_ids [B, S]``, ``attention_mask [B, S]`` -> hidden states ``[B, S, d]``.
        projecting: the decoder without a past, which projects ``encoder_hidden_states``. Its
            projections move over.
        caches: what the decoder caches.

    Raises:
        CheckpointError: inputs that the runtime does not feed, or projections that cannot be told
            from the rest of the decoder.
    """
    inputs = _inputs(encoder, required=("input_ids", "attention_mask"))
    joined = {str(value.name): value for value in projecting.outputs}
    projected = [_projection(joined[f"{PRESENT}.{i}.encoder.{part}"]) for i, part in caches.entries]
    try:
        cut = ir.convenience.extract(projecting, ["encoder_hidden_states"], projected)
    except ValueError as error:
        raise CheckpointError(
            "cross-attention's keys and values can't be computed ahead of the decoder: this "
            "architecture can't be exported through optimum."
        ) from error
    hidden = encoder.outputs[0]
    encoder.outputs.clear()
    edit = _Edit(encoder, "cross")
    moved = _move(cut, [hidden], encoder, "decoder.")
    for (i, part), value in zip(caches.entries, moved, strict=True):
        flat = edit.op("Reshape", value, [0, 0, caches.width])
        edit.output(f"cross.{i}.{part}", flat, ["batch", "source", caches.width])
    seen = edit.op("Cast", inputs["attention_mask"], to=BOOL)
    additive = edit.op("Where", seen, edit.number(0), edit.number(MASKED))
    additive = edit.op("Unsqueeze", additive, [1, 2])
    edit.output("cross.mask", additive, ["batch", 1, 1, "source"])
    encoder.sort()


def rewire_decoder(decoder: ir.Graph, caches: Caches, vocab_size: int) -> None:
    """Give a decoder with a past our inputs and outputs (`graphs.stage_graph`), in place.

    Args:
        decoder: ``input_ids [B, T']``, a past ``[B, heads, P, head_dim]`` per layer, and
            ``encoder_attention_mask [B, S]``, ``attention_mask [B, P + T']``,
            ``position_ids [B, T']`` where it needs them -> ``logits [B, T', vocab]`` and every
            layer's past and new entries.
        caches: what the decoder caches.
        vocab_size: width of the logits.

    Raises:
        CheckpointError: inputs that the runtime does not feed.
    """
    cross = any(v.name == f"{PAST}.0.encoder.key" for v in decoder.inputs)
    own = [f"{i}.decoder.{part}" if cross else f"{i}.{part}" for i, part in caches.entries]
    memory = [f"{i}.encoder.{part}" for i, part in caches.entries] if cross else []
    old = _inputs(
        decoder,
        required=("input_ids", *(f"{PAST}.{name}" for name in own + memory)),
        optional=("encoder_attention_mask", "attention_mask", "position_ids"),
    )
    outputs = {str(value.name): value for value in decoder.outputs}
    decoder.inputs.clear()
    decoder.inputs.append(old["input_ids"])
    decoder.outputs.clear()

    edit = _Edit(decoder, "caches")
    past_length = edit.input("past_length", INT64, ["batch"])
    past = _Past(edit, old["input_ids"], past_length)
    if "position_ids" in old:
        edit.replace(old["position_ids"], edit.input("positions", INT64, ["batch", "new"]))
    if "attention_mask" in old:
        edit.replace(old["attention_mask"], past.mask())
    buffers = []
    for (i, part), name in zip(caches.entries, own, strict=True):
        buffer = edit.input(f"past.{i}.self.{part}", FLOAT, ["batch", "capacity", caches.width])
        buffers.append(buffer)
        edit.replace(old[f"{PAST}.{name}"], edit.split_heads(past.gather(buffer), caches))
    for (i, part), name in zip(caches.entries, memory, strict=cross):
        value = edit.input(f"cross.{i}.{part}", FLOAT, ["batch", "source", caches.width])
        edit.replace(old[f"{PAST}.{name}"], edit.split_heads(value, caches))
    if "encoder_attention_mask" in old:
        additive = edit.input("cross.mask", FLOAT, ["batch", 1, 1, "source"])
        seen = edit.op("Equal", edit.op("Squeeze", additive, [1, 2]), edit.number(0))
        edit.replace(old["encoder_attention_mask"], edit.op("Cast", seen, to=INT64))

    logits = _score(edit, decoder, outputs["logits"])
    token = edit.op("ArgMax", logits, axis=-1, keepdims=0)
    edit.output("next_token", token, ["batch", "picked"], INT64)
    edit.output("logits", logits, ["batch", "picked", vocab_size])
    for (i, part), name, buffer in zip(caches.entries, own, buffers, strict=True):
        new = past.new_entries(outputs[f"{PRESENT}.{name}"])
        written = edit.op("TensorScatter", buffer, new, past_length, axis=1)
        edit.output(f"present.{i}.self.{part}", written, ["batch", "capacity", caches.width])
    decoder.sort()


def store_matrices(graph: ir.Graph, dtype: ir.DataType) -> None:
    """Store every matrix as ``dtype`` and cast it back where it is used."""
    edit = _Edit(graph, "stored")
    for value in list(graph.initializers.values()):
        tensor = value.const_value
        if tensor is None or tensor.dtype != FLOAT or sum(d > 1 for d in tensor.shape.numpy()) < 2:
            continue
        narrow = ir.Tensor(tensor.numpy().astype(dtype.numpy()), dtype=dtype, name=value.name)
        users = list(value.uses())
        value.const_value, value.dtype = narrow, dtype
        cast = edit.op("Cast", value, to=FLOAT)
        for user in users:
            user.node.replace_input_with(user.idx, cast)
    graph.sort()


class _Edit:
    """Adds nodes, inputs and outputs to a graph; somebody sorts the nodes afterwards."""

    def __init__(self, graph: ir.Graph, scope: str) -> None:
        self._graph, self._scope, self._count = graph, scope, 0
        self._builder = GraphBuilder(graph)

    def op(self, op_type: str, *inputs: Any, **attributes: Any) -> ir.Value:
        self._count += 1
        name = f"{self._scope}.{self._count}.{op_type}"
        value: ir.Value = getattr(self._builder.op, op_type)(*inputs, _name=name, **attributes)
        value.name = name
        return value

    def number(self, value: float) -> ir.Value:
        return self.op("Constant", value=ir.tensor(np.float32(value)))

    def input(self, name: str, dtype: ir.DataType, shape: list[str | int]) -> ir.Value:
        value: ir.Value = self._builder.input(name, dtype, shape)
        return value

    def output(
        self, name: str, value: ir.Value, shape: list[str | int], dtype: ir.DataType = FLOAT
    ) -> None:
        value.name, value.dtype, value.shape = name, dtype, ir.Shape(shape)
        self._graph.outputs.append(value)

    def replace(self, old: ir.Value, new: ir.Value) -> None:
        ir.convenience.replace_all_uses_with(old, new)

    def split_heads(self, value: ir.Value, caches: Caches) -> ir.Value:
        split = self.op("Reshape", value, [0, 0, caches.heads, caches.head_dim])
        return self.op("Transpose", split, perm=[0, 2, 1, 3])


class _Past:
    """The past that a decoder wants, out of caches that have room for more.

    With ``P`` the length of the longest row, entry ``j`` of row ``b`` comes from cache entry
    ``j - (P - past_length[b])``; where that is negative, there is the gap.
    """

    def __init__(self, edit: _Edit, tokens: ir.Value, past_length: ir.Value) -> None:
        self._edit = edit
        self._tokens = tokens
        self._longest = edit.op("ReduceMax", past_length, keepdims=0)
        gap = edit.op("Sub", self._longest, past_length)
        self._gap = edit.op("Unsqueeze", gap, [1])
        place = edit.op("Sub", edit.op("Range", 0, self._longest, 1), self._gap)
        self._index = edit.op("Unsqueeze", edit.op("Max", place, 0), [2])

    def gather(self, cache: ir.Value) -> ir.Value:
        """The live entries ``[B, P, width]`` of a cache."""
        return self._edit.op("GatherND", cache, self._index, batch_dims=1)

    def mask(self) -> ir.Value:
        """``[B, P + T']``: 0 in the gap, else 1."""
        edit = self._edit
        new = edit.op("Squeeze", edit.op("Shape", self._tokens, start=1, end=2))
        place = edit.op("Range", 0, edit.op("Add", self._longest, new), 1)
        return edit.op("Cast", edit.op("GreaterOrEqual", place, self._gap), to=INT64)

    def new_entries(self, joined: ir.Value) -> ir.Value:
        """The entries ``[B, T', width]`` that a decoder added to its past."""
        edit = self._edit
        start = edit.op("Unsqueeze", self._longest, [0])
        new = edit.op("Slice", joined, start, [END], [2])
        return edit.op("Reshape", edit.op("Transpose", new, perm=[0, 2, 1, 3]), [0, 0, -1])


def _score(edit: _Edit, graph: ir.Graph, logits: ir.Value) -> ir.Value:
    """Logits at ``logit_positions``; the others are not computed where the head can be told."""
    positions = edit.input("logit_positions", INT64, ["batch", "picked"])
    index = edit.op("Unsqueeze", positions, [2])
    logits.name = "logits.every"
    head = _head(logits)
    if head is None:
        return edit.op("GatherND", logits, index, batch_dims=1)
    picked = edit.op("GatherND", head.inputs[0], index, batch_dims=1)
    head.replace_input_with(0, picked)
    embedding = _turned(graph, head.inputs[1])
    if embedding is None:
        return logits
    # A tied head was folded to a second, transposed copy of the embedding: read the first.
    rows = edit.op("Flatten", picked, axis=-1)
    scores = edit.op("Gemm", rows, embedding, transB=1)
    shape = edit.op("Concat", edit.op("Shape", positions), [-1], axis=0)
    scores = edit.op("Reshape", scores, shape)
    if head.outputs[0] is logits:
        return scores
    edit.replace(head.outputs[0], scores)
    return logits


def _turned(graph: ir.Graph, matrix: ir.Value | None) -> ir.Value | None:
    """The stored tensor that is the transpose of ``matrix``, if there is one."""
    assert matrix is not None
    assert matrix.const_value is not None
    values = matrix.const_value.numpy().T
    for other in graph.initializers.values():
        tensor = other.const_value
        if tensor is None or other is matrix or tensor.shape != values.shape:
            continue
        if tensor.dtype == FLOAT and np.array_equal(tensor.numpy(), values):
            return other
    return None


def _head(logits: ir.Value) -> ir.Node | None:
    """The product with a matrix that gives the logits, but for pointwise changes after it."""
    value: ir.Value | None = logits
    while value is not None:
        node = value.producer()
        if node is None or (value is not logits and len(value.uses()) != 1):
            return None
        if node.op_type == "MatMul":
            return node if _is_constant(node.inputs[1]) else None
        varying = [v for v in node.inputs if v is not None and not _is_constant(v)]
        value = varying[0] if node.op_type in POINTWISE and len(varying) == 1 else None
    return None


def _is_constant(value: ir.Value | None) -> bool:
    return value is not None and ir.convenience.get_const_tensor(value) is not None


def _projection(value: ir.Value) -> ir.Value:
    """The keys or values ``[B, S, width]`` that ``value`` holds in a cache's layout."""
    while (node := value.producer()) is not None and node.op_type in LAYOUT:
        inner = node.inputs[0]
        assert inner is not None
        value = inner
    return value


def _inputs(
    graph: ir.Graph, required: Iterable[str], optional: Iterable[str] = ()
) -> dict[str, ir.Value]:
    """The inputs by name, once they are what the runtime can feed."""
    inputs = {str(value.name): value for value in graph.inputs}
    missing = sorted(set(required) - set(inputs))
    unknown = sorted(set(inputs) - set(required) - set(optional))
    if missing or unknown:
        says = " and ".join(
            f"{verb} {', '.join(names[:3])}"
            for verb, names in (("lacks", missing), ("wants", unknown))
            if names
        )
        raise CheckpointError(
            f"the graph that optimum exported {says}, which edgedec's runtime does not feed: this "
            "architecture can't be exported through optimum."
        )
    return inputs


def _move(
    part: ir.Graph, inputs: Sequence[ir.Value], graph: ir.Graph, prefix: str
) -> list[ir.Value]:
    """Move all of ``part`` into ``graph``, fed by ``inputs``; returns its outputs."""
    outputs = list(part.outputs)
    part.outputs.clear()
    for theirs, ours in zip(part.inputs, inputs, strict=True):
        ir.convenience.replace_all_uses_with(theirs, ours)
    for name, value in sorted(part.initializers.items()):  # they come out of a set
        del part.initializers[name]
        value.name = f"{prefix}{name}"
        graph.register_initializer(value)
    for node in list(part):
        part.remove(node)
        node.name = f"{prefix}{node.name}"
        for output in node.outputs:
            output.name = f"{prefix}{output.name}"
        graph.append(node)
    return outputs
