"""A model in torch, straight from its spec: what adapters are trained in.

The same computation as `edgedec.export.reference`, for batches and with gradients. Weights are
frozen; what is trained sits beside them in `LowRank` corrections of single products, or in what an
objective makes of the hidden states between layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedec.export.blocks.positions import MASKED, relative_bucket
from edgedec.export.spec import Learned, ModelSpec, RelativeBias, Rotary, Stack
from edgedec.export.weights import Weights

if TYPE_CHECKING:
    from torch import Tensor
else:
    Tensor = Any

Run = Callable[[Tensor], Tensor]
Hook = Callable[[int, Tensor, Run], Tensor]
"""``(layer, x [B, T, d_model], run) -> y``: what becomes of a layer's input; ``run`` is the layer,
and may be given the first positions only."""


@dataclass(frozen=True, eq=False)
class LowRank:
    """A correction of one product, ``y + scaling * (x A^T) B^T`` (LoRA, arXiv 2106.09685).

    Attributes:
        a: ``[rank, inputs]``.
        b: ``[outputs, rank]``.
        scaling: alpha / rank.
    """

    a: Tensor
    b: Tensor
    scaling: float


@dataclass(frozen=True, eq=False)
class Source:
    """What the decoder knows of the source.

    Attributes:
        memory: the encoder's hidden states ``[B, S, d_model]``.
        padding: added to scores ``[B, 1, 1, S]``.
        mean: mean of the states over tokens ``[B, d_model]``.
    """

    memory: Tensor
    padding: Tensor
    mean: Tensor


class Twin:
    """A frozen model on a device. Arrays are float32; ``B`` rows, ``S`` source, ``T`` target.

    Args:
        spec: the model.
        weights: its tensors.
        device: a torch device.
    """

    def __init__(self, spec: ModelSpec, weights: Weights, device: str = "cpu") -> None:
        self.spec = spec
        self.device = device
        self._weights = weights
        self._tensors: dict[str, Tensor] = {}

    def read(self, name: str) -> Tensor:
        """A tensor of the model by its name there, e.g. ``decoder.0.mlp.up.weight``."""
        import torch

        if name not in self._tensors:
            values = np.ascontiguousarray(self._weights[name].read())
            self._tensors[name] = torch.from_numpy(values).to(self.device)
        return self._tensors[name]

    def encode(self, ids: Tensor | None, mask: Tensor | None) -> Source | None:
        """Run the encoder on ``ids [B, S]`` with ``mask [B, S]``; None for a decoder-only model."""
        import torch

        stack = self.spec.encoder
        if stack is None or ids is None or mask is None:
            return None
        with torch.no_grad():
            shown = mask != 0
            padding = torch.where(shown[:, None, None, :], 0.0, MASKED)
            x = self._embed("encoder", stack, ids)
            for i in range(stack.layers):
                bias = padding + self._relative("encoder", i, stack, ids.shape[1])
                x = self._layer("encoder", i, stack, x, {}, bias, None)
            if stack.final_norm:
                x = self._norm("encoder.norm", stack, x)
            kept = shown[..., None].to(x.dtype)
            mean = (x * kept).sum(1) / kept.sum(1).clamp(min=1.0)
            return Source(x, padding, mean)

    def decode(
        self,
        target: Tensor,
        source: Source | None,
        *,
        adapters: Mapping[str, LowRank] | None = None,
        hook: Hook | None = None,
    ) -> list[Tensor]:
        """Hidden states ``[B, T, d_model]``: the first layer's input, and every layer's output.

        Args:
            target: decoder input ``[B, T]``, padded at the end.
            source: of an encoder-decoder.
            adapters: module name -> correction of its product.
            hook: decides what becomes of every layer's input.
        """
        import torch

        stack = self.spec.decoder
        steps = target.shape[1]
        ones = torch.full((steps, steps), MASKED, device=target.device)
        causal = torch.triu(ones, 1)
        x = self._embed("decoder", stack, target)
        states = [x]
        for i in range(stack.layers):
            bias = causal + self._relative("decoder", i, stack, steps)

            def run(x: Tensor, i: int = i, bias: Tensor = bias) -> Tensor:
                new = x.shape[1]
                bias = bias[..., :new, :new]
                return self._layer("decoder", i, stack, x, adapters or {}, bias, source)

            x = run(x) if hook is None else hook(i, x, run)
            states.append(x)
        return states

    def head(self, x: Tensor) -> Tensor:
        """Logits ``[..., vocab]`` of hidden states ``[..., d_model]`` after any decoder layer."""
        spec, stack = self.spec, self.spec.decoder
        if stack.final_norm:
            x = self._norm("decoder.norm", stack, x)
        x = x * spec.logit_scale
        if spec.d_embedding != spec.d_model:
            x = x @ self.read("decoder.embed_out.weight").T
        logits = x @ self.read("head.weight").T
        return logits + self.read("logit_bias") if spec.logit_bias else logits

    def _layer(
        self,
        side: str,
        i: int,
        stack: Stack,
        x: Tensor,
        adapters: Mapping[str, LowRank],
        bias: Tensor,
        source: Source | None,
    ) -> Tensor:
        name = f"{side}.{i}"

        def residual(part: str, x: Tensor, block: Callable[[str, Tensor], Tensor]) -> Tensor:
            if stack.norm_first:
                return x + block(part, self._norm(f"{part}.norm", stack, x))
            return self._norm(f"{part}.norm", stack, x + block(part, x))

        def own(part: str, x: Tensor) -> Tensor:
            return self._attend(part, stack, x, x, adapters, bias, turn=True)

        def other(part: str, x: Tensor) -> Tensor:
            assert source is not None
            memory, padding = source.memory, source.padding
            return self._attend(part, stack, x, memory, adapters, padding, turn=False)

        def mlp(part: str, x: Tensor) -> Tensor:
            return self._mlp(part, stack, x, adapters)

        x = residual(f"{name}.self_attn", x, own)
        if source is not None:
            x = residual(f"{name}.cross_attn", x, other)
        return residual(f"{name}.mlp", x, mlp)

    def _linear(self, name: str, x: Tensor, bias: bool, adapters: Mapping[str, LowRank]) -> Tensor:
        from torch.nn import functional

        y = functional.linear(
            x, self.read(f"{name}.weight"), self.read(f"{name}.bias") if bias else None
        )
        low = adapters.get(name)
        return y if low is None else y + low.scaling * ((x @ low.a.T) @ low.b.T)

    def _norm(self, name: str, stack: Stack, x: Tensor) -> Tensor:
        import torch

        if stack.norm == "layer":
            x = x - x.mean(-1, keepdim=True)
        x = x * torch.rsqrt((x * x).mean(-1, keepdim=True) + stack.norm_epsilon)
        x = x * self.read(f"{name}.weight")
        return x + self.read(f"{name}.bias") if stack.norm == "layer" else x

    def _mlp(self, name: str, stack: Stack, x: Tensor, adapters: Mapping[str, LowRank]) -> Tensor:
        act = _activation(stack.activation)
        up = self._linear(f"{name}.up", x, stack.mlp_bias, adapters)
        if stack.gated:
            up = act(self._linear(f"{name}.gate", x, stack.mlp_bias, adapters)) * up
        else:
            up = act(up)
        return self._linear(f"{name}.down", up, stack.mlp_bias, adapters)

    def _attend(
        self,
        name: str,
        stack: Stack,
        x: Tensor,
        y: Tensor,
        adapters: Mapping[str, LowRank],
        bias: Tensor,
        *,
        turn: bool,
    ) -> Tensor:
        from torch.nn import functional

        def heads(part: str, value: Tensor, count: int) -> Tensor:
            flat = self._linear(f"{name}.{part}", value, stack.qkv_bias, adapters)
            split = flat.view(*flat.shape[:2], count, stack.head_dim).transpose(1, 2)
            if turn and part != "v" and isinstance(stack.positions, Rotary):
                return _rotate(split, stack.positions)
            return split

        group = stack.heads // stack.kv_heads
        q = heads("q", x, stack.heads)
        k = heads("k", y, stack.kv_heads).repeat_interleave(group, 1)
        v = heads("v", y, stack.kv_heads).repeat_interleave(group, 1)
        scores = q @ k.transpose(-1, -2) * stack.attention_scale + bias
        mixed = functional.softmax(scores, -1) @ v
        flat = mixed.transpose(1, 2).flatten(-2)
        return self._linear(f"{name}.o", flat, stack.out_bias, adapters)

    def _relative(self, side: str, layer: int, stack: Stack, size: int) -> Tensor | float:
        """T5's bias ``[1, H, size, size]``, or zero."""
        import torch

        positions = stack.positions
        if not isinstance(positions, RelativeBias):
            return 0.0
        owner = layer if positions.per_layer else 0
        table = self.read(f"{side}.{owner}.self_attn.relative_bias.weight")
        place = np.arange(size)
        bucket = relative_bucket(
            place[:, None] - place[None, :],
            positions.buckets,
            positions.max_distance,
            bidirectional=side == "encoder",
        )
        return table[torch.from_numpy(bucket).to(self.device)].permute(2, 0, 1)[None]

    def _embed(self, side: str, stack: Stack, ids: Tensor) -> Tensor:
        spec, positions = self.spec, stack.positions
        x = self.read(f"{side}.embed.weight")[ids] * spec.embedding_scale
        if spec.d_embedding != spec.d_model:
            x = x @ self.read(f"{side}.embed_in.weight").T
        if not isinstance(positions, RelativeBias | Rotary):
            offset = positions.offset if isinstance(positions, Learned) else 0
            x = x + self.read(f"{side}.positions.weight")[offset : offset + ids.shape[1]]
        return self._norm(f"{side}.embed_norm", stack, x) if stack.embedding_norm else x


def modules(spec: ModelSpec) -> dict[str, tuple[int, int]]:
    """Products of the decoder that can be corrected: name -> (inputs, outputs).

    They are queries, keys, values and outputs of self- and cross-attention, and the feed-forward
    matrices.
    """
    stack, d = spec.decoder, spec.d_model
    sizes = {
        "q": (d, stack.q_width),
        "k": (d, stack.kv_width),
        "v": (d, stack.kv_width),
        "o": (stack.q_width, d),
    }
    mlp = {"up": (d, stack.d_ff), "down": (stack.d_ff, d)}
    if stack.gated:
        mlp["gate"] = (d, stack.d_ff)
    found: dict[str, tuple[int, int]] = {}
    for i in range(stack.layers):
        found |= {f"decoder.{i}.self_attn.{part}": size for part, size in sizes.items()}
        if spec.encoder is not None:
            found |= {f"decoder.{i}.cross_attn.{part}": size for part, size in sizes.items()}
        found |= {f"decoder.{i}.mlp.{part}": size for part, size in mlp.items()}
    return found


def _activation(name: str) -> Callable[[Tensor], Tensor]:
    from functools import partial

    from torch.nn import functional

    known: dict[str, Callable[[Tensor], Tensor]] = {
        "relu": functional.relu,
        "gelu": functional.gelu,
        "gelu_tanh": partial(functional.gelu, approximate="tanh"),
        "silu": functional.silu,
    }
    return known[name]


def _rotate(x: Tensor, rotary: Rotary) -> Tensor:
    """Rotate pairs (c, c + d/2) of ``x [B, H, T, d]`` by position times frequency."""
    import torch

    angle = np.arange(x.shape[2])[:, None] * np.array(rotary.inverse_frequencies)
    cos = torch.from_numpy(np.cos(angle).astype(np.float32)).to(x.device)
    sin = torch.from_numpy(np.sin(angle).astype(np.float32)).to(x.device)
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)
