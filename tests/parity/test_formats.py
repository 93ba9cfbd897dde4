"""The same model from every kind of checkpoint file, and into every kind of bundle."""

from __future__ import annotations

import json
import pickle
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from tests.parity import decoder_only, seq2seq
from tests.parity.harness import Case, Transformers, difference, torch
from tests.parity.huggingface import build, edit_json, edit_tensors, open_oracle
from tests.parity.mu_model import MuShape, random_state
from tests.parity.subject import Subject

from edgedec.cli import cli
from edgedec.errors import CheckpointError, EdgedecError, InputError
from edgedec.export import export_checkpoint
from edgedec.export.verify import TOLERANCE
from edgedec.runtime.generator import load

WIDE = {**seq2seq.GATED, "vocab_size": 1000, "d_model": 64, "d_ff": 128, "num_heads": 2}
OVERHEAD = 400_000
"""Bytes of a bundle besides its weights: graphs and JSON, which don't grow with the model."""

Prepare = Callable[[Path, Any], None]


@pytest.fixture(scope="module")
def model() -> Any:
    """A tied T5."""
    return build(seq2seq.t5, WIDE)


@pytest.fixture(scope="module")
def saved(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as transformers saves it."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def plain(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its bundle."""
    out: Path = export_checkpoint(saved, tmp_path_factory.mktemp("plain") / "bundle")
    return out


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    """The checkpoint, to be damaged."""
    return Path(shutil.copytree(saved, tmp_path / "checkpoint"))


def without_weights(folder: Path, model: Any) -> None:
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)


def sharded(folder: Path, model: Any) -> None:
    model.save_pretrained(folder, max_shard_size="50KB")
    assert len(list(folder.glob("*.safetensors"))) > 3


def pickled(folder: Path, model: Any) -> None:
    without_weights(folder, model)
    state = model.state_dict()
    assert {"shared.weight", "lm_head.weight", "encoder.embed_tokens.weight"} <= state.keys()
    torch.save(state, folder / "pytorch_model.bin")


def in_doubles(folder: Path, model: Any) -> None:
    model.save_pretrained(folder)
    edit_tensors(lambda tensors: {k: v.double() for k, v in tensors.items()})(folder)


def pickled_as_before_2020(folder: Path, model: Any) -> None:
    without_weights(folder, model)
    torch.save(
        model.state_dict(), folder / "pytorch_model.bin", _use_new_zipfile_serialization=False
    )


def pickled_in_shards(folder: Path, model: Any) -> None:
    without_weights(folder, model)
    names = list(model.state_dict())
    shards = {f"pytorch_model-0000{i + 1}-of-00003.bin": names[i::3] for i in range(3)}
    for file, part in shards.items():
        torch.save({name: model.state_dict()[name] for name in part}, folder / file)
    index = {"weight_map": {name: file for file, part in shards.items() for name in part}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def stored_thrice(folder: Path, model: Any) -> None:
    model.save_pretrained(folder)
    again = ("lm_head.weight", "decoder.embed_tokens.weight")
    edit_tensors(lambda tensors: {**tensors, **dict.fromkeys(again, tensors["shared.weight"])})(
        folder
    )


@pytest.mark.parametrize(
    "prepare",
    [sharded, in_doubles, pickled, pickled_as_before_2020, pickled_in_shards, stored_thrice],
    ids=lambda prepare: prepare.__name__,
)
def test_same_model_same_weights(prepare: Prepare, model: Any, plain: Path, tmp_path: Path) -> None:
    """Graphs and weights are the same bytes whatever the checkpoint's files."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    prepare(folder, model)
    bundle = export_checkpoint(folder, tmp_path / "bundle", verify=False)
    for file in ("weights.bin", "encoder.onnx", "decoder.onnx"):
        assert (bundle / file).read_bytes() == (plain / file).read_bytes()


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def test_a_tied_bundle_is_no_larger_than_its_checkpoint(saved: Path, plain: Path) -> None:
    tensors = (saved / "model.safetensors").stat().st_size
    assert (plain / "weights.bin").stat().st_size <= tensors
    assert size(plain) <= tensors + OVERHEAD


def test_halves_are_half_the_size(saved: Path, plain: Path, tmp_path: Path) -> None:
    half = export_checkpoint(saved, tmp_path / "half", dtype="fp16")
    assert (half / "weights.bin").stat().st_size < 0.52 * (plain / "weights.bin").stat().st_size


BUILDS: dict[str, tuple[str, dict[str, Any]]] = {
    "t5": (seq2seq.t5, seq2seq.GATED),
    "bart": (seq2seq.bart, seq2seq.BART),
    "marian": (seq2seq.marian, seq2seq.MARIAN),
    "llama": (decoder_only.llama, decoder_only.LLAMA),
    "opt": (decoder_only.opt, decoder_only.OPT),
}


def narrow(kind: str, stored: str, folder: Path) -> Subject:
    """A checkpoint stored in another type, and transformers reading the same file in fp32."""
    architecture, config = BUILDS[kind]
    model = build(architecture, config, gain=1.0).to(getattr(torch, stored))
    model.save_pretrained(folder / "checkpoint")
    oracle: Transformers = open_oracle(folder / "checkpoint", architecture)
    assert next(oracle.model.parameters()).dtype == torch.float32
    case = Case(kind, lambda path: (path, oracle))
    return Subject(case, folder, folder / "checkpoint", oracle)


def distance(subject: Subject, dtype: str) -> float:
    """How far a bundle of this type is from transformers; as it was verified, not at all."""
    bundle = export_checkpoint(subject.checkpoint, subject.folder / dtype, dtype=dtype)
    verified = json.loads((bundle / "edgedec.json").read_text())["verified"]
    assert verified["max_abs_difference"] <= TOLERANCE["fp32"] * verified["logit_range"]
    subject.generators[dtype] = load(bundle, threads=1)
    return difference(subject.by_steps(dtype), subject.compared)


@pytest.mark.parametrize("stored", ["float16", "bfloat16"])
@pytest.mark.parametrize("kind", BUILDS)
def test_stored_in_halves(kind: str, stored: str, tmp_path: Path) -> None:
    """Half-precision files are read exactly, into fp32 and into bundles of their own type."""
    subject = narrow(kind, stored, tmp_path)
    assert distance(subject, "fp32") <= TOLERANCE["fp32"]
    if kind != "marian":  # whose positions are a formula, exact where they are not stored
        same = {"float16": "fp16", "bfloat16": "bf16"}[stored]
        assert distance(subject, same) <= TOLERANCE["fp32"]


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
@pytest.mark.parametrize("kind", BUILDS)
def test_bundles_in_halves(kind: str, dtype: str, tmp_path: Path) -> None:
    """Rounded weights, fp32 arithmetic: off by what rounding makes, and not by nothing."""
    assert 1e-5 < distance(narrow(kind, "float32", tmp_path), dtype) <= TOLERANCE[dtype]


def test_too_large_for_fp16(copy: Path, tmp_path: Path) -> None:
    name = "decoder.block.0.layer.2.DenseReluDense.wo.weight"
    edit_tensors(lambda tensors: {**tensors, name: tensors[name] * 1e6})(copy)
    with pytest.raises(CheckpointError, match=f"{name}.* fp16 cannot hold"):
        export_checkpoint(copy, tmp_path / "bundle", dtype="fp16")
    export_checkpoint(copy, tmp_path / "bundle", dtype="bf16")


class Malice:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.trace,))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("plainly", [True, False], ids=["pickle", "torch"])
@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt"])
def test_pickles_run_nothing(name: str, plainly: bool, saved: Path, tmp_path: Path) -> None:
    folder, trace = tmp_path / "checkpoint", tmp_path / "trace"
    folder.mkdir()
    shutil.copy(saved / "config.json", folder)
    bad = {"shared.weight": Malice(trace)}
    if plainly:
        (folder / name).write_bytes(pickle.dumps(bad))
    else:
        torch.save(bad, folder / name)
    with pytest.raises(CheckpointError, match=name) as caught:
        export_checkpoint(folder, tmp_path / "bundle")
    assert_one_sentence(str(caught.value))
    assert not trace.exists()
    assert not (tmp_path / "bundle").exists()


def test_mu_without_configuration(tmp_path: Path) -> None:
    """Sizes that nobody wrote down are the published model's: this one is smaller."""
    torch.save({"model_state_dict": random_state(MuShape())}, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=r"no tensor 'transformer\.e\.3\."):
        export_checkpoint(tmp_path, tmp_path / "bundle")


def cut_short(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def not_tensors(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"<html>not found</html>" * 10)


def shard_missing(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    index = {"weight_map": {"shared.weight": "model-1.safetensors", "x": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def shard_outside(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "model-1.safetensors")
    index = {"weight_map": {"shared.weight": "../model-1.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@edit_tensors
def tensor_missing(tensors: dict[str, Any]) -> dict[str, Any]:
    del tensors["decoder.block.1.layer.1.EncDecAttention.k.weight"]
    return tensors


@edit_tensors
def not_a_number(tensors: dict[str, Any]) -> dict[str, Any]:
    tensors["decoder.final_layer_norm.weight"][3] = float("nan")
    return tensors


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (cut_short, "model.safetensors is damaged or cut short"),
        (not_tensors, "model.safetensors is damaged or cut short"),
        (shard_missing, "'model-2.safetensors' .* is missing"),
        (shard_outside, "outside its folder"),
        (tensor_missing, r"no tensor 'decoder\.block\.1\.layer\.1\.EncDecAttention\.k\.weight'"),
        (not_a_number, "'decoder.final_layer_norm.weight' .* NaN"),
        (edit_json(d_ff=100), r"has shape \[128, 64\].* \[100, 64\]"),
        (edit_json("d_ff"), "has no 'd_ff'"),
        (edit_json(model_type="gpt_neo"), "'gpt_neo' .* t5, .*--via optimum"),
        (edit_json(quantization_config={"quant_method": "gptq"}), r"quantized already \(gptq\)"),
        (edit_json(dense_act_fn="mish"), "activation 'mish'"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json cannot be read"),
        (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
        (lambda folder: (folder / "model.safetensors").unlink(), "has no weights"),
    ],
)
def test_damaged(damage: Callable[[Path], Any], said: str, copy: Path, tmp_path: Path) -> None:
    damage(copy)
    with pytest.raises(CheckpointError, match=said) as caught:
        export_checkpoint(copy, tmp_path / "bundle")
    assert_one_sentence(str(caught.value))
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "rotary scaling 'yarn'"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rotary scaling 'dynamic'"),
        ({"partial_rotary_factor": 0.5}, "partial rotary"),
        ({"use_sliding_window": True, "model_type": "qwen2"}, "sliding-window"),
    ],
)
def test_what_no_graph_computes(config: dict[str, Any], said: str, tmp_path: Path) -> None:
    build(decoder_only.llama, decoder_only.LLAMA).save_pretrained(tmp_path / "checkpoint")
    edit_json("rope_parameters", **config)(tmp_path / "checkpoint")
    with pytest.raises(CheckpointError, match=said) as caught:
        export_checkpoint(tmp_path / "checkpoint", tmp_path / "bundle")
    assert_one_sentence(str(caught.value))


def test_tokenizer_from_another_folder(saved: Path, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {word: i for i, word in enumerate(["<pad>", "</s>", "<unk>", "one", "two", "three"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    (tmp_path / "words").mkdir()
    tokenizer.save(str(tmp_path / "words" / "tokenizer.json"))

    bundle = export_checkpoint(saved, tmp_path / "bundle", tokenizer=tmp_path / "words")
    generator = load(bundle, threads=1)
    told = generator.generate("two three one", max_new_tokens=5)
    assert told[0].tokens == generator.generate([4, 5, 3], max_new_tokens=5)[0].tokens
    with pytest.raises(InputError, match="not a folder"):
        export_checkpoint(saved, tmp_path / "other", tokenizer=tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(EdgedecError, match="no tokenizer"):
        export_checkpoint(saved, tmp_path / "other", tokenizer=tmp_path / "empty")


def test_without_tokenizer(plain: Path) -> None:
    generator = load(plain, threads=1)
    result = generator.generate([5, 6, 7], max_new_tokens=3)[0]
    assert result.text is None
    assert np.shape(result.tokens) == (3,)
    with pytest.raises(InputError, match="no tokenizer"):
        generator.generate("text")


def run_export(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["export", *map(str, arguments)])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nobody/nothing"], "'nobody/nothing' .*hub"),
        (["nobody/nothing", "--revision", "v1"], "'nobody/nothing' .*hub.* 'v1'"),
        (["nobody/no thing"], "neither a folder nor a valid hub id"),
        (["nowhere"], "neither a folder nor a file"),
        (["a/b/c"], "neither a folder nor a file"),
        (["./nowhere"], "neither a folder nor a file"),
    ],
)
def test_no_such_checkpoint(arguments: Sequence[str], said: str, tmp_path: Path) -> None:
    """Offline, as all tests are: `tests/conftest.py`."""
    result = run_export(*arguments, "-o", tmp_path / "bundle")
    assert result.exit_code == 2
    assert result.stdout == ""
    message = result.stderr.removeprefix("Error: ").rstrip("\n")
    assert_one_sentence(message)
    assert re.search(said, message)
    assert not (tmp_path / "bundle").exists()


def test_revision_of_a_folder(saved: Path, tmp_path: Path) -> None:
    result = run_export(saved, "-o", tmp_path / "bundle", "--revision", "main")
    assert result.exit_code == 2
    assert "--revision" in result.stderr


def assert_one_sentence(message: str) -> None:
    assert message.strip()
    assert "\n" not in message
    assert "Traceback" not in message
