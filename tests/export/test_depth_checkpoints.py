"""Checkpoints with adapters, routers, classifiers and exits are recognised in every family."""

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
    CONFIGS,
    LAYERS,
    WIDTH,
    Arrays,
    logits,
    lora,
    random,
    tensors,
    write,
    write_adapter,
)

from edgedec.errors import CheckpointError, InputError
from edgedec.export import export_checkpoint
from edgedec.export.checkpoint import open_checkpoint
from edgedec.export.depth import DepthFacts, LoraDrop, Routers, read_depth
from edgedec.export.depth_plan import plan_depth
from edgedec.export.families import depth_of, open_model
from edgedec.export.offers import read_offers
from edgedec.export.quantized import quantize_source
from edgedec.export.weights import Tensor, Weights
from edgedec.quantize.options import QuantizeOptions
from edgedec.runtime.bundle import open_bundle
from edgedec.runtime.depth.options import POLICIES, policy_from
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
        ("auto:quality=0.99", "auto is for edgedec run, on a bundle that edgedec calibrate-depth"),
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


def test_first_with_lora(tmp_path: Path) -> None:
    """What `edgedec adapt` writes for FiRST: routers among the weights, LoRA beside them."""
    folder = write(tmp_path / "c", "llama", routers(*range(LAYERS)))
    write_adapter(folder, lora(tensors("llama"), ATTENTIONS["llama"].format(i=1, part="q")))
    manifest = exported(folder, tmp_path / "b", "first:layers=3")
    assert manifest.routed == (1, 2, 3)
    assert manifest.policies["first"]["layers"] == 3


def test_offers(tmp_path: Path) -> None:
    own = {"depth": {"layerskip": {"exit": 2}, "free": {"exit": 7}}}
    folder = write(tmp_path / "c", "llama", routers(1, 2, 3), edgedec=own)
    adapter = lora(tensors("llama"), ATTENTIONS["llama"].format(i=1, part="q"))
    offers = read_offers(write_adapter(folder, adapter))
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


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from([10**400, 2, "x"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from([*POLICIES, "threshold", "exit", "layers"]), inner)
    ),
    max_leaves=6,
)
OWN = st.fixed_dictionaries({}, optional={"exit_layers": JSON, "depth": JSON})
CONFIG = st.fixed_dictionaries(
    {"lora_alpha": JSON | st.just(4)},
    optional={"lora_rank": JSON, "drop_cycle": JSON, "edgedec": OWN | JSON},
)
EXTRA = adapters("llama", 1, 2) | routers(1, 2)


@given(config=CONFIG)
def test_any_configuration_ends_in_a_plan_or_a_sentence(config: dict[str, Any]) -> None:
    found = {
        name.removeprefix("model."): Tensor(name, array.shape, "float32", partial(np.copy, array))
        for name, array in EXTRA.items()
    }
    try:
        facts = read_depth(config, found, "layers.{i}", LAYERS, WIDTH)
    except CheckpointError:
        return
    assert facts.lora_drop is not None
    for policy in POLICIES:
        try:
            plan = plan_depth([policy], facts)
        except InputError:
            continue
        # The runtime makes the same policy of what is recorded.
        policy_from(policy, json.loads(json.dumps(plan.policies[policy])))
