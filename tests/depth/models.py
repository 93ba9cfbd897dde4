"""Small models of every kind with invented weights, adapters, routers and classifier."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgedec.export.bundle import save_graphs
from edgedec.export.graphs import decoder_stages, model_graphs, parse_stages
from edgedec.export.reference import Reference
from edgedec.export.spec import Learned, ModelSpec, RelativeBias, Rotary, Stack
from edgedec.export.weights import Array, Tensor, Weights
from edgedec.runtime.bundle import Bundle
from edgedec.runtime.depth.layout import Needs
from edgedec.runtime.generation import GenerationConfig
from edgedec.runtime.manifest import (
    MANIFEST,
    SCHEMA_VERSION,
    Component,
    Interface,
    Manifest,
    Source,
    dump_manifest,
)

WIDTH, LAYERS, VOCAB, RANK = 32, 4, 40, 4
CUTS = (0, 1, 3)
"""A stage of two layers, and two of one."""
EVERYTHING = Needs(
    fill=frozenset({1, 2, 3}),
    low_rank=frozenset({1, 2, 3}),
    routers=frozenset({1, 3}),
    meta=True,
)
T5 = Stack(
    layers=LAYERS,
    heads=4,
    kv_heads=4,
    head_dim=8,
    d_ff=48,
    activation="relu",
    gated=False,
    norm="rms",
    norm_epsilon=1e-6,
    norm_first=True,
    embedding_norm=False,
    final_norm=True,
    positions=RelativeBias(buckets=8, max_distance=20, per_layer=False),
    attention_scale=1.0,
    qkv_bias=False,
    out_bias=False,
    mlp_bias=False,
)
BART = replace(
    T5,
    activation="gelu",
    norm="layer",
    norm_first=False,
    embedding_norm=True,
    final_norm=False,
    positions=Learned(offset=2),
    attention_scale=8**-0.5,
    qkv_bias=True,
    out_bias=True,
    mlp_bias=True,
)
QWEN = replace(
    T5,
    kv_heads=2,
    activation="silu",
    gated=True,
    positions=Rotary(inverse_frequencies=(1.0, 0.3, 0.1, 0.03)),
    attention_scale=8**-0.5,
    qkv_bias=True,
)
OPT = replace(BART, norm_first=True, embedding_norm=False, final_norm=True)
MU = replace(QWEN, qkv_bias=False)
STACKS: dict[str, tuple[Stack | None, Stack]] = {
    "t5": (replace(T5, layers=1), T5),
    "bart": (replace(BART, layers=1), BART),
    "qwen": (None, QWEN),
    "opt": (None, OPT),
    "mu": (replace(MU, layers=1), MU),
}


class Invented(Weights):
    """Whatever is asked for exists, and has values that depend on its name."""

    def __init__(self) -> None:
        super().__init__({}, {}, {})

    def expect(self, name: str, shape: tuple[int, ...]) -> Tensor:
        if name not in self:
            self.invent(name, shape)
        return super().expect(name, shape)

    def invent(self, name: str, shape: tuple[int, ...]) -> None:
        def load() -> Array:
            rng = np.random.default_rng(zlib.crc32(name.encode()))
            values = rng.standard_normal(shape, np.float32)
            if name.endswith("norm.weight"):
                return 1 + 0.2 * values
            return values * np.float32(shape[-1] ** -0.5)

        self.put(name, Tensor(name, shape, "float32", load))


@dataclass(frozen=True, eq=False)
class Made:
    """A bundle, and the same model in NumPy."""

    bundle: Bundle
    reference: Reference
    weights: Invented


def spec_of(kind: str, width: int = WIDTH) -> ModelSpec:
    """The facts of a small model."""
    encoder, decoder = STACKS[kind]
    return ModelSpec(
        family=kind,
        vocab_size=VOCAB,
        d_model=width,
        d_embedding=width,
        embedding_scale=1.0,
        encoder=encoder,
        decoder=decoder,
        logit_scale=1.0,
        logit_bias=False,
        tied_head=False,
        max_source=64,
        max_target=64,
    )


def make(
    kind: str,
    folder: Path,
    needs: Needs = EVERYTHING,
    *,
    meta: str = "linear",
    cuts: Sequence[int] = CUTS,
) -> Made:
    """Write a bundle whose layer 2 keeps a LoRA branch beside two of its matrices.

    Args:
        kind: of model.
        folder: a new one.
        needs: variants, routers and classifier.
        meta: the classifier's form, ``linear`` or ``mlp``.
        cuts: layers before which the decoder is cut.
    """
    spec = spec_of(kind)
    weights = Invented()
    for stack in ("encoder", "decoder"):
        weights.invent(f"{stack}.0.self_attn.relative_bias.weight", (8, 4))
    for i in range(LAYERS):
        weights.invent(f"decoder.{i}.lora_adapter.A.weight", (RANK, WIDTH))
        weights.invent(f"decoder.{i}.lora_adapter.B.weight", (WIDTH, RANK))
        weights.invent(f"router.{i}.bias", (1,))
    if meta == "linear":
        weights.invent("meta.weight", (1, WIDTH))
    for path, rows in (("self_attn.k", spec.decoder.kv_width), ("mlp.up", spec.decoder.d_ff)):
        weights.invent(f"decoder.2.{path}.lora_A.weight", (RANK, WIDTH))
        weights.invent(f"decoder.2.{path}.lora_B.weight", (rows, RANK))
    stages = parse_stages(cuts, LAYERS)
    graphs = {
        name: builder.model("edgedec", "0")
        for name, builder in model_graphs(spec, weights, stages, "fp32", needs).items()
    }
    folder.mkdir()
    files, parameters = save_graphs(graphs, folder, lambda _what, _fraction: None)
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        producer="edgedec 0",
        source=Source(kind, None, "0" * 64),
        model=spec.to_json(),
        interface=Interface(
            architecture="decoder-only" if spec.encoder is None else "encoder-decoder",
            vocab_size=VOCAB,
            d_model=WIDTH,
            decoder_layers=LAYERS,
            kv_width=spec.decoder.kv_width,
            max_source=64,
            max_target=64,
        ),
        components={name: Component(f"{name}.onnx", "cpu", "fp32") for name in graphs},
        encoder=None if spec.encoder is None else "encoder",
        stages=decoder_stages(stages, needs),
        head="head",
        generation=GenerationConfig(),
        parameters=parameters,
        verified=None,
        files=files,
        meta="meta" if needs.meta else None,
        router="router" if needs.routers else None,
        routed=tuple(sorted(needs.routers)),
    )
    (folder / MANIFEST).write_text(dump_manifest(manifest))
    return Made(Bundle(folder, manifest), Reference(spec, weights), weights)
