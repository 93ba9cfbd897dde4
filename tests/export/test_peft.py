"""LoRA adapters in PEFT's format: merged or kept, and refused where they do not fit."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.export.tiny import (
    ATTENTIONS,
    WIDTH,
    Arrays,
    logits,
    lora,
    random,
    tensors,
    write,
    write_adapter,
)

from edgedec.errors import CheckpointError, EdgedecError, InputError
from edgedec.export import export_checkpoint
from edgedec.export.checkpoint import open_checkpoint
from edgedec.export.families import open_model
from edgedec.export.peft import REFUSED, apply_adapter
from edgedec.export.weights import Tensor
from edgedec.runtime.bundle import open_bundle


@pytest.mark.parametrize("how", ["beside", "alone", "absolute", "given"])
@pytest.mark.parametrize("family", ["t5", "llama", "mu"])
def test_merged_lora_is_base_and_change(family: str, how: str, tmp_path: Path) -> None:
    """Mu's query heads are permuted after merging: all matrices of attention are adapted."""
    base = tensors(family)
    parts = ("q", "k", "v", "out" if family == "mu" else "o")
    modules = [ATTENTIONS[family].format(i=i, part=part) for i in (0, 3) for part in parts]
    stored = lora(base, *modules)
    merged = dict(base)
    for module in modules:
        at = f"base_model.model.{module}"
        change = stored[f"{at}.lora_B.weight"] @ stored[f"{at}.lora_A.weight"]
        merged[f"{module}.weight"] = base[f"{module}.weight"] + 3 * change
    expected = logits(write(tmp_path / "expected", family, merged))
    folder = write(tmp_path / "base", family)
    assert np.abs(logits(folder) - expected).max() > 0.01
    adapter, options = tmp_path / "adapter", {}
    if how == "beside":
        adapter = write_adapter(folder, stored)
    elif how == "alone":
        write_adapter(adapter, stored, base_model_name_or_path="../base")
    elif how == "absolute":
        write_adapter(adapter, stored, base_model_name_or_path=str(folder))
    else:
        write_adapter(adapter, stored, base_model_name_or_path="someone/base")
        options = {"base": folder}
    np.testing.assert_allclose(logits(adapter, **options), expected, atol=2e-5)


def test_ranks_scales_and_whole_tensors(tmp_path: Path) -> None:
    """rslora, patterns for single modules, 16-bit adapters, biases and modules to save."""
    base = tensors("qwen2")
    q, v = (ATTENTIONS["qwen2"].format(i=1, part=part) for part in "qv")
    stored = lora(base, q) | lora(base, v, rank=4)
    stored = {name: value.astype(np.float16) for name, value in stored.items()}
    norm, bias = random(WIDTH, seed=8), random(8, seed=9)
    whole = {
        "base_model.model.model.norm.weight": norm,
        f"base_model.model.{v}.base_layer.bias": bias,
    }
    settings = {"rank_pattern": {"v_proj": 4}, "alpha_pattern": {r"layers\.1\..*v_proj": 10}}
    folder = write(tmp_path / "base", "qwen2")
    write_adapter(folder, stored | whole, use_rslora=True, **settings)
    merged = dict(base)
    for module, scale in ((q, 6 / np.sqrt(2)), (v, 10 / np.sqrt(4))):
        a, b = (
            stored[f"base_model.model.{module}.lora_{x}.weight"].astype(np.float32) for x in "AB"
        )
        merged[f"{module}.weight"] = base[f"{module}.weight"] + np.float32(scale) * (b @ a)
    merged |= {"model.norm.weight": norm, f"{v}.bias": bias}
    expected = logits(write(tmp_path / "expected", "qwen2", merged))
    np.testing.assert_allclose(logits(folder), expected, atol=2e-5)
    facts = open_checkpoint(folder).lora
    assert facts is not None
    assert (facts.ranks, facts.modules, facts.replaced) == ((2, 4), 2, 2)


def test_an_untied_head_may_be_adapted(tmp_path: Path) -> None:
    """Merged, a head that was its embedding's equal is so no more."""
    head = {"lm_head.weight": tensors("llama")["model.embed_tokens.weight"]}
    folder = write(tmp_path / "base", "llama", head)
    stored = lora(tensors("llama") | head, "lm_head")
    change = np.float32(3) * stored["base_model.model.lm_head.lora_B.weight"]
    change = change @ stored["base_model.model.lm_head.lora_A.weight"]
    merged = {"lm_head.weight": head["lm_head.weight"] + change}
    expected = logits(write(tmp_path / "expected", "llama", merged))
    write_adapter(folder, stored)
    np.testing.assert_allclose(logits(folder), expected, atol=2e-5)
    with pytest.raises(CheckpointError, match="beside which no adapter can be kept"):
        logits(folder, keep_lora=True)


@pytest.mark.parametrize("family", ["t5", "llama"])
def test_kept_lora_computes_the_same(family: str, tmp_path: Path) -> None:
    base = tensors(family)
    modules = [ATTENTIONS[family].format(i=2, part=part) for part in "qvo"]
    if family == "t5":
        modules.append("decoder.block.1.layer.1.EncDecAttention.k")
        modules.append("encoder.block.0.layer.1.DenseReluDense.wi")
    folder = write_adapter(write(tmp_path / "base", family), lora(base, *modules))
    checkpoint = open_checkpoint(folder, keep_lora=True)
    _, weights = open_model(checkpoint.config, checkpoint.tensors)
    assert weights["decoder.2.self_attn.q.lora_A.weight"].shape == (2, WIDTH)
    np.testing.assert_allclose(logits(folder, keep_lora=True), logits(folder), atol=2e-5)
    # verified against the reference
    export_checkpoint(folder, tmp_path / "kept", lora="keep")
    export_checkpoint(folder, tmp_path / "merged")
    kept, merged = (open_bundle(tmp_path / name).manifest for name in ("kept", "merged"))
    ends = sum(sum(base[f"{module}.weight"].shape) for module in modules)
    assert kept.parameters == merged.parameters + 2 * ends


def test_kept_lora_beside_permuted_heads_is_refused(tmp_path: Path) -> None:
    stored = lora(tensors("mu"), ATTENTIONS["mu"].format(i=1, part="q"))
    folder = write_adapter(write(tmp_path / "base", "mu"), stored)
    with pytest.raises(CheckpointError, match=r"q_linear.*use --lora merge"):
        export_checkpoint(folder, tmp_path / "b", lora="keep")
    with pytest.raises(InputError, match="--lora keep is for floating-point weights"):
        export_checkpoint(folder, tmp_path / "b", lora="keep", quant="int8")
    with pytest.raises(InputError, match="--lora 'drop': choose one of merge, keep"):
        export_checkpoint(folder, tmp_path / "b", lora="drop")


def test_pickled_adapter(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    stored = lora(tensors("llama"), ATTENTIONS["llama"].format(i=1, part="q"))
    folder = write_adapter(write(tmp_path / "base", "llama"), stored)
    expected = logits(folder)
    (folder / "adapter_model.safetensors").unlink()
    torch.save({k: torch.from_numpy(v) for k, v in stored.items()}, folder / "adapter_model.bin")
    np.testing.assert_array_equal(logits(folder), expected)


Q = "base_model.model.model.layers.1.self_attn.q_proj"
BASE = tensors("llama")
FITTING = lora(BASE, "model.layers.1.self_attn.q_proj")
EMBEDDING = {"base_model.model.model.embed_tokens.lora_embedding_A": random(2, 30)}
ADAPTERS: list[tuple[Arrays, dict[str, Any], str]] = [
    (FITTING, {"peft_type": "IA3"}, "adapter_config.json is of type 'IA3'"),
    (FITTING, {"use_dora": True}, "DoRA"),
    (FITTING, {"layer_replication": [[0, 4]]}, "layer_replication"),
    (FITTING, {"init_lora_weights": "pissa"}, "init_lora_weights 'pissa'"),
    (FITTING, {"r": 3}, rf"'{Q}.lora_A.weight' has shape \[2, 16\], but .* rank 3"),
    (FITTING, {"r": None}, "'r' of adapter_config.json cannot be 'None'"),
    (FITTING, {"lora_alpha": "x"}, "'lora_alpha' of adapter_config.json cannot be 'x'"),
    (FITTING, {"rank_pattern": {"q_proj": 4}}, "rank 4"),
    (FITTING, {"rank_pattern": {"(": 4}}, "'rank_pattern' .* has a pattern that is none"),
    (FITTING, {"alpha_pattern": 3}, "'alpha_pattern' of adapter_config.json is not an object"),
    ({f"{Q}.lora_A.weight": random(2, 16)}, {}, f"'{Q}.lora_A.weight' but no lora_B"),
    ({f"{Q}.lora_B.weight": random(16, 2)}, {}, f"'{Q}.lora_B.weight' but no lora_A"),
    ({}, {}, "has no lora_A and lora_B"),
    (EMBEDDING, {}, "embed_tokens.lora_embedding_A' .* not supported"),
    (FITTING | {f"{Q}.lora_magnitude_vector": random(16)}, {}, "lora_magnitude_vector"),
    ({"layers.1.q.lora_A.weight": random(2, 16)}, {}, "does not begin with 'base_model.model.'"),
    (
        {k.replace("layers.1", "layers.7"): v for k, v in FITTING.items()},
        {},
        "adapts 'model.layers.7.self_attn.q_proj', which its base does not have",
    ),
    (FITTING | {f"{Q}.lora_B.weight": random(8, 2)}, {}, r"make a matrix of \[8, 16\]"),
    (FITTING | {f"{Q}.lora_B.weight": random(16, 3)}, {}, "does not fit"),
    (
        FITTING | {"base_model.model.lm_head.weight": random(30, 16)},
        {},
        "replaces 'lm_head.weight'",
    ),
    (
        FITTING | {"base_model.model.model.norm.weight": random(4)},
        {},
        "does not have in that shape",
    ),
]


@pytest.mark.parametrize(("stored", "config", "sentence"), ADAPTERS, ids=range(len(ADAPTERS)))
def test_adapters_that_do_not_fit(
    stored: Arrays, config: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    folder = write_adapter(write(tmp_path / "base", "llama"), stored, **config)
    with pytest.raises(CheckpointError, match=sentence):
        open_checkpoint(folder)


def test_an_adapter_that_is_not_finite(tmp_path: Path) -> None:
    stored = FITTING | {f"{Q}.lora_A.weight": np.full((2, WIDTH), np.inf, np.float32)}
    folder = write_adapter(write(tmp_path / "base", "llama"), stored)
    with pytest.raises(CheckpointError, match=rf"'{Q}.lora_A.weight' .*NaN or infinity"):
        logits(folder)


def test_nothing_is_fetched_because_a_file_names_it(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "a", FITTING, base_model_name_or_path="someone/llama")
    with pytest.raises(CheckpointError, match=r"adapter of 'someone/llama'.*--base"):
        open_checkpoint(folder)
    write_adapter(folder, FITTING, base_model_name_or_path=".")  # itself
    with pytest.raises(CheckpointError, match="is an adapter itself"):
        open_checkpoint(folder)
    write(tmp_path / "c", "llama")
    with pytest.raises(CheckpointError, match="--base is for adapters"):
        open_checkpoint(tmp_path / "c", base=tmp_path / "c")
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"no adapter_model.safetensors"):
        open_checkpoint(folder)


def test_the_source_names_the_adapter_and_hashes_both(tmp_path: Path) -> None:
    folder = write(tmp_path / "base", "llama")
    adapter = write_adapter(tmp_path / "a", FITTING, base_model_name_or_path="../base")
    source = open_checkpoint(adapter).source
    assert source.id == str(adapter)
    assert source.sha256 != open_checkpoint(folder).source.sha256
    write(folder, "llama", {"router.1.weight": random(1, WIDTH)})
    assert open_checkpoint(adapter).source.sha256 != source.sha256


def test_damaged_files_end_in_sentences(tmp_path: Path) -> None:
    folder = write_adapter(write(tmp_path / "base", "llama"), FITTING)
    for name, data in (("adapter_config.json", b"[1"), ("adapter_model.safetensors", b"x" * 20)):
        good = (folder / name).read_bytes()
        (folder / name).write_bytes(data)
        with pytest.raises(EdgedecError, match=name):
            open_checkpoint(folder)
        (folder / name).write_bytes(good)
    assert json.loads((folder / "adapter_config.json").read_text())["r"] == 2


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, 0, 2, 6])
    | st.floats()
    | st.sampled_from(["", "LORA", "q_proj", "(", ".*"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)
OTHERS = "peft_type r lora_alpha rank_pattern alpha_pattern use_rslora init_lora_weights"
KEYS = st.sampled_from([*REFUSED, *OTHERS.split(), "fan_in_fan_out"])


@given(changes=st.dictionaries(KEYS, JSON, max_size=3), keep=st.booleans())
def test_any_configuration_ends_in_tensors_or_a_sentence(
    changes: dict[str, Any], keep: bool
) -> None:
    def stored(arrays: Arrays) -> dict[str, Tensor]:
        return {n: Tensor(n, a.shape, "float32", partial(np.copy, a)) for n, a in arrays.items()}

    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 6} | changes
    try:
        found, facts = apply_adapter(config, stored(FITTING), stored(BASE), keep=keep)
        merged = found["model.layers.1.self_attn.q_proj.weight"].read()
    except CheckpointError:
        return
    assert facts.modules == 1
    assert np.isfinite(merged).all()
