"""The graphs of a bundle: one encoder, the decoder's stages, the head, and what policies need.

The contract (names, shapes, types) is in ``docs/bundle.md``. In short: the encoder emits the keys
and values that every decoder layer's cross-attention will read, once; a stage takes any number of
new tokens and writes its caches in place; the head turns any stage's output into logits.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from edgedec.errors import InputError
from edgedec.export.blocks.attention import Layer, keys_values
from edgedec.export.blocks.builder import Builder
from edgedec.export.blocks.embedding import embed, head
from edgedec.export.blocks.layers import decoder_layer, encoder_layer
from edgedec.export.blocks.linear import norm
from edgedec.export.blocks.positions import (
    MASKED,
    DecoderBias,
    EncoderBias,
    RotaryAngles,
    length,
    span,
)
from edgedec.export.spec import Learned, ModelSpec, Rotary, Sinusoidal
from edgedec.export.variants import fill_graph, low_rank_graph, meta_graph, router_graph
from edgedec.export.weights import Weights
from edgedec.runtime.depth.layout import Layout, Needs
from edgedec.runtime.manifest import Stage

FLOAT, INT64 = ir.DataType.FLOAT, ir.DataType.INT64
NOTHING = Needs()
VARIANTS = {"fill": fill_graph, "low-rank": low_rank_graph}
"""Kind of a stage's variant -> what emits it."""


@dataclass(frozen=True)
class StageRange:
    """Decoder layers ``first <= layer < last`` as one graph."""

    first: int
    last: int


def parse_stages(text: str | Sequence[int] | None, layers: int) -> tuple[StageRange, ...]:
    """Cut the decoder: ``None`` is one stage, ``"all"`` one per layer, ``"0,1,4"`` cuts there.

    Raises:
        InputError: cuts that are not increasing layer numbers of this decoder.
    """
    if text is None:
        cuts = [0]
    elif text == "all":
        cuts = list(range(layers))
    else:
        try:
            if isinstance(text, str):
                cuts = [int(cut) for cut in text.split(",")]
            else:
                cuts = [operator.index(cut) for cut in text]
        except (ValueError, TypeError):
            raise InputError(
                f"stages {text!r}: give layer numbers such as 0,1,4, or 'all'."
            ) from None
        cuts = cuts if cuts[:1] == [0] else [0, *cuts]
    if cuts != sorted(set(cuts)) or cuts[-1] >= layers or cuts[0] < 0:
        raise InputError(
            f"stages {text}: cuts must be increasing layer numbers from 0 to {layers - 1} "
            f"(the decoder has {layers} layers)."
        )
    return tuple(StageRange(a, z) for a, z in zip(cuts, [*cuts[1:], layers], strict=True))


def encoder_graph(b: Builder, spec: ModelSpec, *, with_mean: bool) -> None:
    """Emit the encoder.

    Inputs: ``input_ids [B, S]``, ``attention_mask [B, S]`` (int64; 1 is a token, 0 padding).
    Outputs: ``cross.{i}.key`` and ``cross.{i}.value [B, S, kv_heads * head_dim]`` of every decoder
    layer, and ``cross.mask [B, 1, 1, S]``, added to cross-attention's scores; with the mean,
    ``source.mean [B, d_model]`` of the last hidden states over tokens, which routers read.
    """
    stack = spec.encoder
    assert stack is not None
    input_ids = b.input("input_ids", INT64, ["batch", "source"])
    attention_mask = b.input("attention_mask", INT64, ["batch", "source"])
    with b.scope("encoder"):
        seen = b.op("Cast", attention_mask, to=ir.DataType.BOOL, name="padding.seen")
        padding = b.op("Where", seen, 0.0, MASKED, name="padding")
        padding = b.op("Unsqueeze", padding, [1, 2], name="padding.mask")
        place = None
        rotary = None
        if isinstance(stack.positions, Learned | Sinusoidal | Rotary):
            place = span(b, length(b, input_ids, 1, "source"), "positions.range")
        if isinstance(stack.positions, Rotary):
            assert place is not None
            shape = b.op("Shape", input_ids, name="positions.shape")
            rotary = RotaryAngles(b, stack.positions, b.op("Expand", place, shape))
        x = embed(b, spec, stack, input_ids, place, spec.max_source)
    bias = EncoderBias(b, stack, input_ids, padding)
    for i in range(stack.layers):
        layer_bias = bias.layer(i)
        with b.scope("encoder", i):
            x = encoder_layer(Layer(b, stack, spec.d_model, layer_bias, rotary), x)
    if stack.final_norm:
        with b.scope("encoder"):
            x = norm(b, x, stack, spec.d_model)
    for i in range(spec.decoder.layers):
        with b.scope("decoder", i, "cross_attn"):
            key, value = keys_values(b, x, spec.decoder, spec.d_model)
        shape_kv: list[str | int] = ["batch", "source", spec.decoder.kv_width]
        b.output(f"cross.{i}.key", key, FLOAT, shape_kv)
        b.output(f"cross.{i}.value", value, FLOAT, shape_kv)
    b.output("cross.mask", padding, FLOAT, ["batch", 1, 1, "source"])
    if with_mean:
        mean = _mean(b, x, seen)
        b.output("source.mean", mean, FLOAT, ["batch", spec.d_model])


def _mean(b: Builder, x: ir.Value, seen: ir.Value) -> ir.Value:
    """The mean ``[B, d_model]`` of ``x [B, S, d_model]`` where ``seen [B, S]``; 0 of nothing."""
    with b.scope("encoder", "mean"):
        weights = b.op("Cast", seen, to=FLOAT, name="weights")
        count = b.op("ReduceSum", weights, [1], keepdims=1, name="count")
        weights = b.op("Div", weights, b.op("Max", count, 1.0, name="divisor"), name="share")
        total = b.op("MatMul", b.op("Unsqueeze", weights, [1], name="row"), x, name="total")
        return b.op("Squeeze", total, [1], name="states")


def stage_graph(
    b: Builder,
    spec: ModelSpec,
    stage: StageRange,
    *,
    with_head: bool = False,
    with_states: bool = False,
) -> None:
    """Emit one stage of the decoder, for any number T' >= 1 of new tokens.

    Inputs: ``input_ids [B, T']`` (first stage) or ``hidden [B, T', d_model]``; ``past_length [B]``,
    where each row's new tokens go in its caches; ``positions [B, T']``, their absolute positions
    (only models that embed positions); ``past.{i}.self.{key,value} [B, M, kv_heads * head_dim]``;
    ``cross.{i}.{key,value}`` and ``cross.mask`` as the encoder emits them.
    Outputs: ``hidden_out``, or with the head what `head_graph` emits;
    ``present.{i}.self.{key,value}``, which the runtime binds to the buffers of ``past``; and with
    states ``hidden.{i} [B, T', d_model]``, what every layer but the last gives.
    """
    stack = spec.decoder
    first = stage.first == 0
    if first:
        new = x = b.input("input_ids", INT64, ["batch", "new"])
    else:
        new = x = b.input("hidden", FLOAT, ["batch", "new", spec.d_model])
    past_length = b.input("past_length", INT64, ["batch"])
    embeds = first and isinstance(stack.positions, Learned | Sinusoidal)
    positions = None
    if embeds or isinstance(stack.positions, Rotary):
        positions = b.input("positions", INT64, ["batch", "new"])
    layers = range(stage.first, stage.last)
    shape_past: list[str | int] = ["batch", "capacity", stack.kv_width]
    past = {
        i: (
            b.input(f"past.{i}.self.key", FLOAT, shape_past),
            b.input(f"past.{i}.self.value", FLOAT, shape_past),
        )
        for i in layers
    }
    cross = _cross_inputs(b, spec, layers, new)
    rotary = None
    if isinstance(stack.positions, Rotary):
        assert positions is not None
        with b.scope("decoder"):
            rotary = RotaryAngles(b, stack.positions, positions)
    if first:
        with b.scope("decoder"):
            x = embed(b, spec, stack, x, positions, spec.max_target)
    bias = DecoderBias(b, stack, past_length, new, past[stage.first][0])
    present = {}
    for i in layers:
        layer_bias = bias.layer(i)
        with b.scope("decoder", i):
            layer = Layer(b, stack, spec.d_model, layer_bias, rotary)
            x, present[i] = decoder_layer(layer, x, past[i], past_length, cross.get(i))
        if with_states and i < stage.last - 1:
            b.output(f"hidden.{i}", x, FLOAT, ["batch", "new", spec.d_model])
    if with_head:
        _emit_head(b, spec, x)
    else:
        b.output("hidden_out", x, FLOAT, ["batch", "new", spec.d_model])
    for i in layers:
        for part, value in zip(("key", "value"), present[i], strict=True):
            b.output(f"present.{i}.self.{part}", value, FLOAT, shape_past)


def head_graph(b: Builder, spec: ModelSpec) -> None:
    """Emit the head as a graph of its own.

    Inputs: ``hidden [B, T', d_model]``, ``logit_positions [B, P]`` (which of the T' to score).
    Outputs: ``logits [B, P, vocab]`` and ``next_token [B, P]``, their greedy choice.
    """
    _emit_head(b, spec, b.input("hidden", FLOAT, ["batch", "new", spec.d_model]))


def _emit_head(b: Builder, spec: ModelSpec, hidden: ir.Value) -> None:
    logit_positions = b.input("logit_positions", INT64, ["batch", "picked"])
    logits = head(b, spec, hidden, logit_positions)
    with b.scope("head"):
        token = b.op("ArgMax", logits, axis=-1, keepdims=0, name="next_token")
    b.output("next_token", token, INT64, ["batch", "picked"])
    b.output("logits", logits, FLOAT, ["batch", "picked", spec.vocab_size])


def _cross_inputs(
    b: Builder, spec: ModelSpec, layers: range, new: ir.Value
) -> dict[int, tuple[tuple[ir.Value, ir.Value], ir.Value]]:
    """The inputs that the encoder provides, with its mask repeated for the T' new tokens."""
    if spec.encoder is None:
        return {}
    width = spec.decoder.kv_width
    pairs = {
        i: (
            b.input(f"cross.{i}.key", FLOAT, ["batch", "source", width]),
            b.input(f"cross.{i}.value", FLOAT, ["batch", "source", width]),
        )
        for i in layers
    }
    mask = b.input("cross.mask", FLOAT, ["batch", 1, 1, "source"])
    with b.scope("decoder", "cross_bias"):
        count = b.op("Shape", new, start=1, end=2, name="new")
        rows = b.op("Concat", [1, 1], count, [1], axis=0, name="shape")
        bias = b.op("Expand", mask, rows, name="mask")
    return {i: (pair, bias) for i, pair in pairs.items()}


def decoder_stages(stages: Sequence[StageRange], needs: Needs) -> tuple[Stage, ...]:
    """The stages as a manifest lists them, with the variants that policies need.

    Raises:
        InputError: a stage would need a variant for some of its layers only, or the first one does.
    """
    layout = Layout(tuple((stage.first, stage.last) for stage in stages))
    wanted = {
        "fill": layout.of_layers(needs.fill),
        "low-rank": layout.of_layers(needs.low_rank),
    }
    if any(0 in indices for indices in wanted.values()):
        raise InputError("layer 0 always runs in full: a depth policy cannot replace it.")
    names = ["decoder" if len(stages) == 1 else f"decoder.{s.first}-{s.last}" for s in stages]
    return tuple(
        Stage(
            name,
            stage.first,
            stage.last,
            {v: f"{name}.{v}" for v, indices in wanted.items() if index in indices},
        )
        for index, (name, stage) in enumerate(zip(names, stages, strict=True))
    )


def model_graphs(
    spec: ModelSpec,
    weights: Weights,
    stages: Sequence[StageRange],
    storage: str,
    needs: Needs = NOTHING,
) -> dict[str, Builder]:
    """Every graph of a bundle by component name: the model's in order, then those of policies.

    A decoder of one stage holds embedding, layers and head: one session run per token.

    Args:
        spec: the model.
        weights: its tensors; adapters, routers and classifier among them where they are needed.
        stages: where the decoder is cut.
        storage: how matrices are stored.
        needs: the variants, routers and classifier to emit; its cuts are not looked at.

    Raises:
        InputError: as `decoder_stages`.
        CheckpointError: a tensor is missing, or has another shape.
    """
    graphs: dict[str, Builder] = {}

    def new(name: str) -> Builder:
        graphs[name] = Builder(name, weights, storage)
        return graphs[name]

    if spec.encoder is not None:
        encoder_graph(new("encoder"), spec, with_mean=bool(needs.routers))
    whole = len(stages) == 1
    named = decoder_stages(stages, needs)
    for stage, found in zip(stages, named, strict=True):
        states = "low-rank" in found.variants
        stage_graph(new(found.component), spec, stage, with_head=whole, with_states=states)
    if not whole:
        head_graph(new("head"), spec)
    for found in named:
        for variant, name in found.variants.items():
            VARIANTS[variant](new(name), spec, range(found.first, found.last))
    if needs.meta:
        meta_graph(new("meta"), spec)
    if needs.routers:
        router_graph(new("router"), spec, weights, needs.routers)
    return graphs
