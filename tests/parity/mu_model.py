"""Mu in torch, from the facts of its paper and tensors: the oracle that transformers lacks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tests.parity.harness import NEW_TOKENS, Array, Rows, padded, torch, transformers, until_eos

F = torch.nn.functional


@dataclass(frozen=True)
class MuShape:
    """Sizes, under the names of Mu's configuration."""

    n_encoder_layer: int = 3
    n_decoder_layer: int = 2
    n_embd: int = 40
    qkv_embd: int = 48
    hidden_dim: int = 72
    n_head: int = 6
    n_kv_head: int = 2
    block_size: int = 64
    rope_theta: float = 10000
    vocab_size: int = 96
    is_interleaved: bool = False


def random_state(shape: MuShape, seed: int = 0) -> dict[str, Any]:
    """A state dictionary under Mu's names; the head is the embedding, stored twice."""
    g = torch.Generator().manual_seed(seed)
    state: dict[str, Any] = {}

    def normal(name: str, *size: int, std: float, mean: float = 0.0) -> None:
        state[name] = torch.randn(size, generator=g) * std + mean

    def linear(name: str, out: int, width: int) -> None:
        normal(f"{name}.weight", out, width, std=2.5 * width**-0.5)
        normal(f"{name}.bias", out, std=0.2)

    d, q = shape.n_embd, shape.qkv_embd
    kv = q // shape.n_head * shape.n_kv_head
    blocks = {
        "e": (shape.n_encoder_layer, ("attn",)),
        "h": (shape.n_decoder_layer, ("causal_attn", "cross_attn")),
    }
    normal("transformer.wte.weight", shape.vocab_size, d, std=0.5)
    for stack, (layers, attentions) in blocks.items():
        for i in range(layers):
            block = f"transformer.{stack}.{i}"
            for n in range(len(attentions) + 1):
                normal(f"{block}.ln{n + 1}.weight", d, std=0.2, mean=1.0)
            for attention in attentions:
                for part, size in (("q", q), ("k", kv), ("v", kv)):
                    linear(f"{block}.{attention}.{part}_linear", size, d)
                linear(f"{block}.{attention}.out_linear", d, q)
            linear(f"{block}.mlp.fc1", shape.hidden_dim, d)
            linear(f"{block}.mlp.fc2", d, shape.hidden_dim)
        normal(f"transformer.ln_{'e' if stack == 'e' else 'f'}.weight", d, std=0.2, mean=1.0)
    state["lm_head.weight"] = state["transformer.wte.weight"].clone()
    return state


class Mu:
    """Answers of a Mu with such weights."""

    def __init__(
        self, shape: MuShape, state: dict[str, Any], *, start: int, eos: int | None, pad: int
    ) -> None:
        self.shape = shape
        self.state = {name: tensor.float() for name, tensor in state.items()}
        self.start, self.eos, self.pad = start, eos, pad

    def logits(self, sources: Rows | None, targets: Rows) -> list[Array]:
        """See `Oracle`."""
        assert sources is not None
        memory, seen = self.encode(sources)
        logits = self.decode(torch.tensor(targets), memory, seen)
        return [row.numpy() for row in logits]

    def generate(self, inputs: Rows, beams: int) -> Rows:
        """See `Oracle`; the search is transformers', over this model without a cache."""
        model = _searchable(self, inputs)
        settings = transformers.GenerationConfig(
            max_new_tokens=NEW_TOKENS,
            num_beams=beams,
            do_sample=False,
            use_cache=False,
            eos_token_id=self.eos,
            pad_token_id=self.pad,
        )
        start = torch.full((len(inputs), 1), self.start)
        with torch.no_grad():
            output = model.generate(
                input_ids=start,
                attention_mask=torch.ones_like(start),
                generation_config=settings,
            )
        return [until_eos(row[1:], [self.eos or -1]) for row in output.tolist()]

    def encode(self, sources: Rows) -> tuple[Any, Any]:
        """Hidden states ``[B, S, d]``, and which of them are tokens."""
        ids, mask = (torch.from_numpy(a) for a in padded(sources, self.pad))
        seen = mask.bool()[:, None, None, :]
        x = self.state["transformer.wte.weight"][ids]
        for i in range(self.shape.n_encoder_layer):
            block = f"transformer.e.{i}"
            y = self._norm(f"{block}.ln1", x)
            # Positions are counted from the middle; only their differences matter.
            place = torch.arange(x.shape[1]) - (x.shape[1] - 1) // 2
            x = x + self._attend(f"{block}.attn", y, y, seen, place)
            x = x + self._mlp(f"{block}.mlp", self._norm(f"{block}.ln2", x))
        return self._norm("transformer.ln_e", x), seen

    def decode(self, ids: Any, memory: Any, seen: Any) -> Any:
        """Logits ``[B, T, vocab]``."""
        steps = ids.shape[1]
        causal = torch.ones(steps, steps, dtype=torch.bool).tril()[None, None]
        x = self.state["transformer.wte.weight"][ids]
        for i in range(self.shape.n_decoder_layer):
            block = f"transformer.h.{i}"
            y = self._norm(f"{block}.ln1", x)
            x = x + self._attend(f"{block}.causal_attn", y, y, causal, torch.arange(steps))
            y = self._norm(f"{block}.ln2", x)
            x = x + self._attend(f"{block}.cross_attn", y, memory, seen, None)
            x = x + self._mlp(f"{block}.mlp", self._norm(f"{block}.ln3", x))
        return self._norm("transformer.ln_f", x) @ self.state["lm_head.weight"].T

    def _linear(self, name: str, x: Any) -> Any:
        return F.linear(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"])

    def _norm(self, name: str, x: Any) -> Any:
        return F.rms_norm(x, x.shape[-1:], self.state[f"{name}.weight"], eps=1e-6)

    def _mlp(self, name: str, x: Any) -> Any:
        inner = F.gelu(self._linear(f"{name}.fc1", x), approximate="tanh")
        return self._linear(f"{name}.fc2", inner)

    def _attend(self, name: str, x: Any, memory: Any, seen: Any, place: Any) -> Any:
        """Query head h reads key and value head ``h mod n_kv_head``."""
        head_dim = self.shape.qkv_embd // self.shape.n_head
        q, k, v = (
            self._linear(f"{name}.{part}_linear", y).unflatten(-1, (-1, head_dim))
            for part, y in (("q", x), ("k", memory), ("v", memory))
        )
        if place is not None:
            q, k = self._rotate(q, place), self._rotate(k, place)
        mixed = []
        for h in range(self.shape.n_head):
            key, value = k[:, :, h % self.shape.n_kv_head], v[:, :, h % self.shape.n_kv_head]
            scores = q[:, :, h] @ key.transpose(1, 2) / math.sqrt(head_dim)
            weights = scores.masked_fill(~seen[:, 0], -math.inf).softmax(-1)
            mixed.append(weights @ value)
        return self._linear(f"{name}.out_linear", torch.cat(mixed, -1))

    def _rotate(self, x: Any, place: Any) -> Any:
        """Turn channel pairs (c, c + d/2) of ``x [B, T, H, d]``, as complex numbers."""
        half = x.shape[-1] // 2
        speed = self.shape.rope_theta ** (-torch.arange(half, dtype=torch.float64) / half)
        turn = torch.polar(torch.ones(1, dtype=torch.float64), place[:, None] * speed)
        turned = torch.complex(*x.double().split(half, -1)) * turn[:, None]
        return torch.cat([turned.real, turned.imag], -1).float()


def _searchable(mu: Mu, sources: Rows) -> Any:
    """A decoder-only face of the model, for transformers to search with."""
    memory, seen = mu.encode(sources)

    class Face(transformers.PreTrainedModel, transformers.GenerationMixin):  # type: ignore[name-defined,misc]
        config_class = transformers.PretrainedConfig
        main_input_name = "input_ids"

        def __init__(self) -> None:
            super().__init__(transformers.PretrainedConfig(vocab_size=mu.shape.vocab_size))
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, input_ids: Any, **_: Any) -> Any:
            from transformers.modeling_outputs import CausalLMOutput

            copies = len(input_ids) // len(sources)  # beams of a source stand side by side
            rows = torch.arange(len(sources)).repeat_interleave(copies)
            return CausalLMOutput(logits=mu.decode(input_ids, memory[rows], seen[rows]))

        def prepare_inputs_for_generation(
            self, input_ids: Any, attention_mask: Any = None, **_: Any
        ) -> dict[str, Any]:
            return {"input_ids": input_ids}

    return Face()
