"""Checkpoints with adapters, routers, classifiers and LoRA are recognised in every family."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.export.tiny import (
    ATTENTIONS,
    CONFIGS,
    LAYERS,
    WIDTH,
    Arrays,
    lora,
    random,
    tensors,
    write,
    write_adapter,
)

from edgedec.errors import CheckpointError, EdgedecError, InputError
from edgedec.export import export_checkpoint
from edgedec.export.checkpoint import open_checkpoint
from edgedec.export.depth import DepthFacts, LoraDrop, Routers
from edgedec.export.families import depth_of, open_model
from edgedec.export.offers import read_offers
from edgedec.export.quantized import quantize_source
from edgedec.export.reference import Reference
from edgedec.export.weights import Weights
from edgedec.quantize.options import QuantizeOptions
from edgedec.runtime.bundle import open_bundle
from edgedec.runtime.manifest import Manifest

FAMILIES = list(CONFIGS)
LAYER = {f: a.partition(".layer.0")[0].partition(".self_attn")[0] for f, a in ATTENTIONS.items()}
LAYER["mu"] = "transformer.h.{i}"


def adapters(family: str, *layers: int, rank: int = 2) -> Arrays:
    """LoRA-Drop's tensors of these layers."""
    found: Arrays = {}
    for i in layers:
        at = f"{LAYER[family].replace('{i}', str(i))}.lora_adapter"
        found[f"{at}.A.weight"] = random(rank, WIDTH, seed=i)
        found[f"{at}.B.weight"] = random(WIDTH, rank, seed=i)
    return found


def routers(*layers: int) -> Arrays:
    """FiRST's tensors of these layers; even ones have a bias."""
    found = {f"router.{i}.weight": random(1, WIDTH, seed=i) for i in layers}
    return found | {f"router.{i}.bias": random(1, seed=i) for i in layers if i % 2 == 0}


def opened(folder: Path, **options: Any) -> tuple[DepthFacts, Weights]:
    checkpoint = open_checkpoint(folder, **options)
    spec, weights = open_model(checkpoint.config, checkpoint.tensors)
    return depth_of(checkpoint.config, checkpoint.tensors, spec), weights


def logits(folder: Path, **options: Any) -> NDArray[np.float32]:
    """What the NumPy reference computes of a checkpoint."""
    checkpoint = open_checkpoint(folder, **options)
    spec, weights = open_model(checkpoint.config, checkpoint.tensors)
    rng = np.random.default_rng(4)
    target = rng.integers(3, spec.vocab_size, (2, 5))
    source = None if spec.encoder is None else rng.integers(3, spec.vocab_size, (2, 4))
    mask = None if source is None else np.ones_like(source)
    return Reference(spec, weights).logits(source, mask, target)


def exported(folder: Path, out: Path, *depth: str, **options: Any) -> Manifest:
    return open_bundle(export_checkpoint(folder, out, depth=depth, **options)).manifest


@pytest.mark.parametrize("family", FAMILIES)
def test_what_adapt_writes_is_recognised(family: str, tmp_path: Path) -> None:
    extra = adapters(family, 1, 3) | routers(1, 2) | {"meta.weight": random(1, WIDTH)}
    own = {"exit_layers": [2, 3, LAYERS], "depth": {"first": {"threshold": 0.4}}}
    config = {"drop_cycle": 3, "lora_rank": 2, "lora_alpha": 8, "edgedec": own}
    facts, weights = opened(write(tmp_path / "c", family, extra, **config))
    assert facts == DepthFacts(
        LAYERS,
        LoraDrop((1, 3), 2, 8.0, 3),
        Routers((1, 2), 0.4),
        "linear",
        (2, 3),
        {"first": {"threshold": 0.4}},
    )
    a, b = (extra[f"{LAYER[family]}.lora_adapter.{x}.weight".replace("{i}", "3")] for x in "AB")
    np.testing.assert_array_equal(weights["decoder.3.lora_adapter.A.weight"].read(), a)
    np.testing.assert_allclose(weights["decoder.3.lora_adapter.B.weight"].read(), 4 * b, rtol=1e-6)
    assert "decoder.2.lora_adapter.A.weight" not in weights
    np.testing.assert_array_equal(weights["router.1.bias"].read(), [0])
    np.testing.assert_array_equal(weights["router.2.bias"].read(), extra["router.2.bias"])
    np.testing.assert_array_equal(weights["meta.bias"].read(), [0])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_plain_checkpoint_offers_nothing_trained(family: str, tmp_path: Path) -> None:
    facts, _ = opened(write(tmp_path / "c", family))
    assert facts == DepthFacts(LAYERS)


def test_released_lora_drop(tmp_path: Path) -> None:
    """The authors' form: its own model_type, adapters on all layers, an unused norm."""
    extra = adapters("qwen2", *range(LAYERS))
    norms = {f"model.layers.{i}.post_lora_layernorm.weight": random(WIDTH) for i in range(LAYERS)}
    config = {"model_type": "qwen2_lora_drop", "drop_parity": 0, "lora_rank": 2, "lora_alpha": 4}
    folder = write(tmp_path / "c", "qwen2", extra | norms, **config, drop_cycle=4)
    facts, _ = opened(folder)
    assert facts.lora_drop == LoraDrop((1, 2, 3), 2, 4.0, 4)
    np.testing.assert_array_equal(logits(folder), logits(write(tmp_path / "plain", "qwen2")))
    manifest = exported(folder, tmp_path / "b", "lora-drop")
    assert [(s.first, s.last, *s.variants) for s in manifest.stages] == [
        (0, 1), (1, 4, "low-rank"), (4, 5)
    ]  # fmt: skip
    assert manifest.policies["lora-drop"] == {"cycle": 4, "layers": [1, 2, 3]}


def test_free_classifier(tmp_path: Path) -> None:
    extra = {"cm_head.0.weight": random(WIDTH, WIDTH), "cm_head.2.weight": random(2, WIDTH)}
    folder = write(tmp_path / "c", "t5", extra)
    facts, weights = opened(folder)
    assert facts.meta == "mlp"
    np.testing.assert_array_equal(weights["meta.2.weight"].read(), extra["cm_head.2.weight"])
    manifest = exported(folder, tmp_path / "b", "free:exit=2,measure=meta")
    assert (manifest.meta, len(manifest.stages)) == ("meta", 2)


A1, B1, NOT = "lora_adapter.A.weight", "lora_adapter.B.weight", random(WIDTH, WIDTH)
NAN = np.full((1, WIDTH), np.nan, np.float32)
GOOD: dict[str, Any] = {"lora_alpha": 4, "lora_rank": 2}
DAMAGED: list[tuple[Arrays, dict[str, Any], str]] = [
    (adapters("llama", 1, rank=3), GOOD, r"'model.layers.1.lora_adapter.A.weight' has shape \[3,"),
    (adapters("llama", 1), {"lora_rank": 2}, "config.json has no number 'lora_alpha'"),
    (adapters("llama", 1), GOOD | {"lora_alpha": "8"}, "config.json has no number 'lora_alpha'"),
    (adapters("llama", 1), GOOD | {"lora_rank": 0}, "'lora_rank' of config.json cannot be '0'"),
    (adapters("llama", 1), GOOD | {"drop_cycle": 0}, "'drop_cycle' of config.json cannot be '0'"),
    (adapters("llama", 99), GOOD, "lora_adapter.A.weight' is for layer 99, but the decoder has 5"),
    (
        {"model.layers.1." + A1: random(2, WIDTH)},
        GOOD,
        "no tensor 'layers.1.lora_adapter.B.weight'",
    ),
    (
        {"model.layers.1." + B1: random(WIDTH, 2)},
        GOOD,
        "no tensor 'layers.1.lora_adapter.A.weight'",
    ),
    (adapters("llama", 1) | {"model.layers.1." + B1: NOT}, GOOD, f"1.{B1}' has shape"),
    ({"model.layers.1.lora_adapter.C.weight": NOT}, GOOD, r"lora_adapter.C.weight' is not known"),
    (routers(99), {}, "'router.99.weight' is for layer 99, but the decoder has 5 layers"),
    ({"router.01.weight": random(1, WIDTH)}, {}, "'router.01.weight' is for layer 01"),
    ({"router.1.bias": random(1)}, {}, "no tensor 'router.1.weight'"),
    ({"router.1.weight": random(WIDTH, 1)}, {}, r"'router.1.weight' has shape \[16, 1\]"),
    (routers(2) | {"router.2.bias": random(2)}, {}, "'router.2.bias' has shape"),
    ({"router.1.scale": random(1)}, {}, "'router.1.scale' is not known"),
    ({"meta.weight": NOT}, {}, "'meta.weight' has shape"),
    ({"meta.0.weight": NOT}, {}, "'meta.0.weight' is no part of a classifier"),
    ({"cm_head.0.weight": NOT}, {}, "no tensor 'cm_head.2.weight'"),
    ({"cm_head.0.weight": NOT, "meta.weight": NAN}, {}, "both classifiers"),
    ({}, {"edgedec": [1]}, "'edgedec' of config.json is not an object"),
    ({}, {"edgedec": {"exit_layers": [6]}}, "exit_layers.*numbers of layers from 1 to 5"),
    ({}, {"edgedec": {"exit_layers": 3}}, "exit_layers.*numbers of layers from 1 to 5"),
    ({}, {"edgedec": {"exit_layers": [True]}}, "exit_layers.*numbers of layers from 1 to 5"),
    ({}, {"edgedec": {"depth": {"first": 1}}}, "'edgedec.depth' of config.json must be"),
    (routers(1), {"edgedec": {"depth": {"first": {"threshold": "x"}}}}, "threshold.*cannot be 'x'"),
]


@pytest.mark.parametrize(("extra", "config", "sentence"), DAMAGED, ids=range(len(DAMAGED)))
def test_what_cannot_be_is_one_sentence(
    extra: Arrays, config: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    folder = write(tmp_path / "c", "llama", extra, **config)
    with pytest.raises(CheckpointError, match=sentence) as caught:
        opened(folder)
    assert str(caught.value).count(". ") == 0


def test_values_that_are_not_finite_are_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "c", "llama", routers(1, 2) | {"router.3.weight": NAN})
    with pytest.raises(CheckpointError, match=r"'router.3.weight' of the checkpoint holds NaN"):
        exported(folder, tmp_path / "b", "first", verify=False)


# Export with --depth


def test_policies_cut_together(tmp_path: Path) -> None:
    """Cuts are united, variants given, parameters recorded in full; --stages adds to them."""
    own = {"exit_layers": [2, 4, 5], "depth": {"layerskip": {"exit": 2, "drafts": 3}}}
    folder = write(tmp_path / "c", "t5", edgedec=own)
    depth = ("early-exit:threshold=0.8", "layerskip:drafts=6")
    manifest = exported(folder, tmp_path / "b", *depth, stages="0,1")
    assert [(s.first, s.last, dict(s.variants)) for s in manifest.stages] == [
        (0, 1, {}),
        (1, 2, {}),
        (2, 4, {"fill": "decoder.2-4.fill"}),
        (4, 5, {"fill": "decoder.4-5.fill"}),
    ]
    assert manifest.policies["full"] == {}
    assert manifest.policies["layerskip"] == {"exit": 2, "drafts": 6}
    assert manifest.policies["early-exit"]["exits"] == [2, 4]
    assert manifest.policies["early-exit"]["threshold"] == 0.8
    assert manifest.policies["early-exit"]["measure"] == "softmax_diff"


def test_nothing_is_cut_without_depth(tmp_path: Path) -> None:
    own = {"exit_layers": [2, 4], "depth": {"layerskip": {"exit": 2}}}
    manifest = exported(write(tmp_path / "c", "llama", edgedec=own), tmp_path / "b")
    assert len(manifest.stages) == 1
    assert manifest.policies == {"full": {}}
    ngram = exported(tmp_path / "c", tmp_path / "n", "ngram")
    assert len(ngram.stages) == 1
    assert list(ngram.policies) == ["full", "ngram"]


@pytest.mark.parametrize("family", ["t5", "llama", "mu"])
def test_routers_and_adapters_are_exported(family: str, tmp_path: Path) -> None:
    """Neighbours that may be dropped are one stage; other policies cut them apart."""
    extra = adapters(family, 1, 2, 4) | routers(1, 2, 3)
    folder = write(tmp_path / "c", family, extra, lora_alpha=4)
    alone = exported(folder, tmp_path / "alone", "lora-drop")
    assert [(s.first, s.last, "low-rank" in s.variants) for s in alone.stages] == [
        (0, 1, False), (1, 3, True), (3, 4, False), (4, 5, True)
    ]  # fmt: skip
    both = exported(folder, tmp_path / "both", "lora-drop", "first")
    assert [(s.first, s.last, "low-rank" in s.variants) for s in both.stages] == [
        (i, i + 1, i in (1, 2, 4)) for i in range(LAYERS)
    ]
    assert (both.router, both.routed, both.meta) == ("router", (1, 2, 3), None)
    assert both.policies["first"]["threshold"] == 0.5


@pytest.mark.parametrize(
    ("depth", "sentence"),
    [
        ("lora-drop", "the checkpoint has no adapters.*'edgedec adapt"),
        ("first", "the checkpoint has no routers.*'edgedec adapt"),
        ("early-exit:measure=meta", "measure=meta needs a classifier.*'edgedec adapt"),
        ("free:exit=2,measure=meta", "measure=meta needs a classifier.*'edgedec adapt"),
        ("layerskip:exit=5", "exit"),
        ("early-exit:exits=9", "exits"),
        ("skipdecode:min=2,max=6", "the decoder has 5 layers"),
        ("unified:layers=6", "the decoder has 5"),
        ("layerskip", "needs exit"),
        ("layerskip:exit=2,gamma=3", "no parameter 'gamma'"),
        ("deeper", "there is no such policy"),
        ("auto:quality=0.99", "there is no such policy"),
    ],
)
def test_impossible_depths(depth: str, sentence: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "c", "llama")
    with pytest.raises(InputError, match=sentence):
        export_checkpoint(folder, tmp_path / "b", depth=depth, verify=False)
    assert not (tmp_path / "b").exists()


def test_depths_that_contradict(tmp_path: Path) -> None:
    folder = write(tmp_path / "c", "llama", adapters("llama", 1), lora_alpha=4)
    with pytest.raises(InputError, match="given twice"):
        export_checkpoint(folder, tmp_path / "b", depth=["layerskip:exit=1", "layerskip:exit=2"])
    with pytest.raises(InputError, match="adapters of layers 1 only, and layers 2 would need one"):
        export_checkpoint(folder, tmp_path / "b", depth="lora-drop:layers=1-2")
    with pytest.raises(InputError, match=r"--depth layerskip with --via optimum.*full and ngram"):
        export_checkpoint(folder, tmp_path / "b", depth="layerskip:exit=1", via="optimum")


def test_codes_keep_stages_variants_and_policies(tmp_path: Path) -> None:
    folder = write(tmp_path / "c", "llama", adapters("llama", 1, 2), lora_alpha=4)
    depth = ("early-exit:min=2", "lora-drop")
    plain = exported(folder, tmp_path / "plain", *depth)
    exported(folder, tmp_path / "coded", *depth, quant="int8")
    how = QuantizeOptions(bits=8)
    quantize_source(tmp_path / "plain", tmp_path / "again", how, lambda *_: None, report=False)
    for name in ("coded", "again"):
        coded = open_bundle(tmp_path / name).manifest
        assert coded.stages == plain.stages
        assert coded.policies == plain.policies
        assert coded.components.keys() == plain.components.keys()


# LoRA in PEFT's format


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
    _, weights = opened(folder, keep_lora=True)
    assert weights["decoder.2.self_attn.q.lora_A.weight"].shape == (2, WIDTH)
    np.testing.assert_allclose(logits(folder, keep_lora=True), logits(folder), atol=2e-5)
    kept = exported(folder, tmp_path / "kept", lora="keep")  # verified against the reference
    merged = exported(folder, tmp_path / "merged")
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
FITTING = lora(tensors("llama"), "model.layers.1.self_attn.q_proj")
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


def test_first_with_lora(tmp_path: Path) -> None:
    """What `edgedec adapt` writes for FiRST: routers among the weights, LoRA beside them."""
    folder = write(tmp_path / "c", "llama", routers(*range(LAYERS)))
    write_adapter(folder, FITTING)
    manifest = exported(folder, tmp_path / "b", "first:layers=3")
    assert manifest.routed == (1, 2, 3)
    assert manifest.policies["first"]["layers"] == 3


def test_offers(tmp_path: Path) -> None:
    own = {"depth": {"layerskip": {"exit": 2}, "free": {"exit": 7}}}
    folder = write(tmp_path / "c", "llama", routers(1, 2, 3), edgedec=own)
    offers = read_offers(write_adapter(folder, FITTING))
    found = {offer.policy: offer.depth for offer in offers.policies}
    assert found["full"] == "full"
    assert found["layerskip"] == "layerskip:exit=2"
    assert found["first"] == "first"
    assert found["unified"] == "unified:layers=..."
    reasons = {offer.policy: offer.reason for offer in offers.policies if offer.depth is None}
    assert reasons.keys() == {"lora-drop", "free"}
    assert "edgedec adapt" in str(reasons["lora-drop"])
    assert "5 layers" in str(reasons["free"])
    assert offers.lora is not None
    assert offers.depth.routers == Routers((1, 2, 3), 0.5)


def test_damaged_files_end_in_sentences(tmp_path: Path) -> None:
    folder = write_adapter(write(tmp_path / "base", "llama"), FITTING)
    for name, data in (("adapter_config.json", b"[1"), ("adapter_model.safetensors", b"x" * 20)):
        good = (folder / name).read_bytes()
        (folder / name).write_bytes(data)
        with pytest.raises(EdgedecError, match=name):
            open_checkpoint(folder)
        (folder / name).write_bytes(good)
    assert json.loads((folder / "adapter_config.json").read_text())["r"] == 2
