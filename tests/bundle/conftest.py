"""A checkpoint and bundles of a few kilobytes, made without torch."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from click.testing import CliRunner
from safetensors.numpy import save_file

import edgedec
from edgedec.cli import cli
from edgedec.devices.npu.lower import TARGETS, Shapes, lower_static
from edgedec.devices.npu.precision import apply_precision
from edgedec.errors import BundleError, EdgedecError
from edgedec.export import export_checkpoint
from edgedec.export.npu.writing import write_bundle
from edgedec.export.places import Place
from edgedec.runtime.bundle import open_bundle
from edgedec.runtime.manifest import dump_manifest

WORDS = ["<pad>", "</s>", "<unk>", *"abcdefghijklmnopqrstuvwxyz", ".", ",", "!"]
CONFIG: dict[str, Any] = {
    "model_type": "t5",
    "d_model": 16,
    "d_kv": 8,
    "num_heads": 2,
    "d_ff": 24,
    "num_layers": 1,
    "num_decoder_layers": 2,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 20,
    "feed_forward_proj": "relu",
    "tie_word_embeddings": True,
    "vocab_size": len(WORDS),
    "decoder_start_token_id": 0,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "max_length": 12,
}


def tokenizer_json() -> dict[str, Any]:
    """One token per letter, `</s>` at the end."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": index,
                "content": WORDS[index],
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for index in range(3)
        ],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"Regex": "."},
            "behavior": "Isolated",
            "invert": False,
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "</s>", "type_id": 0}},
            ],
            "pair": [
                {"Sequence": {"id": "A", "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 0}},
            ],
            "special_tokens": {"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}},
        },
        "decoder": None,
        "model": {
            "type": "WordLevel",
            "vocab": {word: index for index, word in enumerate(WORDS)},
            "unk_token": "<unk>",
        },
    }


def tensors(config: dict[str, Any], seed: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    """Random weights of a T5 with a tied head."""
    rng = np.random.default_rng(seed)
    d, ff, inner = config["d_model"], config["d_ff"], config["num_heads"] * config["d_kv"]
    shapes: dict[str, tuple[int, ...]] = {"shared.weight": (config["vocab_size"], d)}
    for stack, layers in (
        ("encoder", config["num_layers"]),
        ("decoder", config["num_decoder_layers"]),
    ):
        shapes[f"{stack}.final_layer_norm.weight"] = (d,)
        blocks = ["SelfAttention", *(["EncDecAttention"] if stack == "decoder" else [])]
        for i in range(layers):
            at = f"{stack}.block.{i}.layer"
            for n, block in enumerate(blocks):
                shapes[f"{at}.{n}.layer_norm.weight"] = (d,)
                for part in "qkv":
                    shapes[f"{at}.{n}.{block}.{part}.weight"] = (inner, d)
                shapes[f"{at}.{n}.{block}.o.weight"] = (d, inner)
            last = f"{at}.{len(blocks)}"
            shapes[f"{last}.layer_norm.weight"] = (d,)
            shapes[f"{last}.DenseReluDense.wi.weight"] = (ff, d)
            shapes[f"{last}.DenseReluDense.wo.weight"] = (d, ff)
        shapes[f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"] = (
            config["relative_attention_num_buckets"],
            config["num_heads"],
        )
    return {
        name: (0.4 * rng.normal(size=shape) + name.endswith("norm.weight")).astype(np.float32)
        for name, shape in shapes.items()
    }


def write_checkpoint(folder: Path, seed: int = 0, **changes: Any) -> Path:
    """Write a T5 checkpoint with random weights, and return its folder."""
    config = {**CONFIG, **changes}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json()))
    (folder / "LICENSE").write_text("Nobody's.\n")
    save_file(tensors(config, seed), folder / "model.safetensors")
    return folder


def write_llama(folder: Path) -> Path:
    """Write a Llama checkpoint with random weights and no tokenizer, and return its folder."""
    config = {
        "model_type": "llama",
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 24,
        "vocab_size": 30,
        "eos_token_id": 1,
        "tie_word_embeddings": False,
    }
    rng = np.random.default_rng(1)
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (30, 16),
        "lm_head.weight": (30, 16),
        "model.norm.weight": (16,),
    }
    for i in range(2):
        at = f"model.layers.{i}"
        shapes[f"{at}.input_layernorm.weight"] = shapes[f"{at}.post_attention_layernorm.weight"] = (
            16,
        )
        for part, width in (("q", 16), ("k", 8), ("v", 8), ("o", 16)):
            shapes[f"{at}.self_attn.{part}_proj.weight"] = (width, 16)
        for part, shape in (("gate", (24, 16)), ("up", (24, 16)), ("down", (16, 24))):
            shapes[f"{at}.mlp.{part}_proj.weight"] = shape
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    weights = {
        name: (0.4 * rng.normal(size=shape)).astype(np.float32) for name, shape in shapes.items()
    }
    save_file(weights, folder / "model.safetensors")
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random T5 of one encoder and two decoder layers; do not change it."""
    return write_checkpoint(tmp_path_factory.mktemp("tiny") / "tiny-t5")


@pytest.fixture(scope="session")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its bundle; do not change it."""
    return export_checkpoint(checkpoint, tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="session")
def staged(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its bundle with one graph per decoder layer; do not change it."""
    folder = tmp_path_factory.mktemp("bundles") / "staged"
    return export_checkpoint(checkpoint, folder, stages="all")


@pytest.fixture(scope="session")
def decoder_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a Llama of two layers, which has no tokenizer; do not change it."""
    folder = tmp_path_factory.mktemp("llama")
    return export_checkpoint(write_llama(folder / "tiny-llama"), folder / "llama")


@pytest.fixture(scope="session")
def coded(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of the T5 with codes of 4 bits; do not change it."""
    return export_checkpoint(
        checkpoint, tmp_path_factory.mktemp("bundles") / "coded", quant="cb4", method="kmeans"
    )


@pytest.fixture(scope="session")
def coded_staged(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with codes of 2 bits, and one graph per decoder layer; do not change it."""
    folder = tmp_path_factory.mktemp("bundles") / "coded-staged"
    return export_checkpoint(
        checkpoint, folder, quant="cb2", method="kmeans", compute="bf16", stages="all"
    )


@pytest.fixture(scope="session")
def coded_portable(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with codes of 8 bits and standard attention; do not change it."""
    folder = tmp_path_factory.mktemp("bundles") / "coded-portable"
    return export_checkpoint(checkpoint, folder, quant="int8", compute="fp32", portable=True)


@pytest.fixture(scope="session")
def coded_decoder_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a Llama with codes of 3 bits; do not change it."""
    folder = tmp_path_factory.mktemp("llama")
    checkpoint = write_llama(folder / "tiny-llama")
    return export_checkpoint(
        checkpoint, folder / "llama", quant="cb3", method="kmeans", compute="int8-block"
    )


def fix_shapes(
    bundle: Path,
    out: Path,
    precision: str | None = None,
    *,
    parts: frozenset[str] = frozenset({"encoder", "decoder"}),
    **lengths: int,
) -> Path:
    """Write a bundle again with graphs of fixed shapes, for the CPU; in float32 without precision.

    Sources have up to 9 tokens, targets up to 12.
    """
    base = open_bundle(bundle)
    encodes = base.manifest.encoder is not None
    shapes = Shapes(9 if encodes else None, 12, **lengths)
    models = {name: ir.load(base.path(c.file)) for name, c in base.manifest.components.items()}
    model = lower_static(models, base.manifest, shapes, TARGETS["qnn"], parts)
    if precision is not None:
        apply_precision(model, precision, kv="fp16")
    out.mkdir(parents=True)
    written = write_bundle(
        base, model, shapes, Place("cpu", parts), precision or "fp32", out, lambda *_: None
    )
    (out / "edgedec.json").write_text(dump_manifest(written.manifest))
    return out


@pytest.fixture(scope="session")
def fix(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`fix_shapes` into a folder of a name."""
    folder = tmp_path_factory.mktemp("fix")
    return lambda base, name, *args, **options: fix_shapes(base, folder / name, *args, **options)


@pytest.fixture(scope="session")
def fixed(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The T5 with fixed shapes; do not change it."""
    return fix_shapes(exported, tmp_path_factory.mktemp("fixed") / "t5")


@pytest.fixture(scope="session")
def fixed_decoder_only(decoder_only: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Llama with fixed shapes, which reads prompts in threes; do not change it."""
    return fix_shapes(decoder_only, tmp_path_factory.mktemp("fixed") / "llama", chunk=3)


@pytest.fixture(scope="session")
def fixed_blocks(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The T5 with fixed shapes and weights of 8 bits in blocks; do not change it."""
    return fix_shapes(exported, tmp_path_factory.mktemp("fixed") / "blocks", "nbits8")


@pytest.fixture
def copy(tmp_path: Path) -> Callable[[Path], Path]:
    """Copies a bundle to a place where it may be damaged."""

    def make(bundle: Path) -> Path:
        return Path(shutil.copytree(bundle, tmp_path / f"{bundle.name}-copy"))

    return make


Manifest = dict[str, Any]


@dataclass(frozen=True)
class Victim:
    """A bundle to damage, and what edgedec says about it."""

    folder: Path

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    def manifest(self, change: Callable[[Manifest], object]) -> None:
        """Change the manifest by a function that gets it as JSON."""
        value = json.loads((self / "edgedec.json").read_text())
        change(value)
        (self / "edgedec.json").write_text(json.dumps(value))

    def rehash(self) -> None:
        """Let the manifest agree with the files, as an attacker would."""

        def update(manifest: Manifest) -> None:
            for name, entry in manifest["files"].items():
                data = (self / name).read_bytes()
                entry.update(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())

        self.manifest(update)

    def graph(self, name: str, change: Callable[[onnx.ModelProto], object]) -> None:
        """Change a graph, with its hash."""
        model = onnx.load(self / name, load_external_data=False)
        change(model)
        (self / name).write_bytes(model.SerializeToString())
        self.rehash()

    def complaint(self, kind: type[EdgedecError] = BundleError) -> str:
        """The one sentence that `edgedec run` ends in, which Python code gets as an exception."""
        inputs: list[str | list[int]] = [[3, 4, 5, 1], [6, 1]]
        with pytest.raises(EdgedecError) as caught:
            edgedec.load(self.folder, threads=1).generate(inputs, max_new_tokens=3)
        assert type(caught.value) is kind
        result = CliRunner().invoke(cli, ["run", str(self.folder), "--ids", "3 4 1"])
        assert result.exit_code == 2
        assert result.stdout == ""
        assert result.stderr.startswith("Error: ")
        assert result.stderr.count("\n") == 1
        sentence = str(caught.value)
        assert len(sentence) < 700
        assert sentence.isprintable()
        return sentence


@pytest.fixture
def victim(exported: Path, copy: Callable[[Path], Path]) -> Victim:
    """A bundle that may be damaged."""
    return Victim(copy(exported))


@pytest.fixture
def coded_victim(coded: Path, copy: Callable[[Path], Path]) -> Victim:
    """One with codebook weights."""
    return Victim(copy(coded))


@pytest.fixture
def fixed_victim(fixed: Path, copy: Callable[[Path], Path]) -> Victim:
    """One with graphs of fixed shapes."""
    return Victim(copy(fixed))


@pytest.fixture
def blocks_victim(fixed_blocks: Path, copy: Callable[[Path], Path]) -> Victim:
    """One with graphs of fixed shapes and weights in blocks."""
    return Victim(copy(fixed_blocks))


@pytest.fixture
def staged_victim(staged: Path, copy: Callable[[Path], Path]) -> Victim:
    """One with a graph for every layer."""
    return Victim(copy(staged))
