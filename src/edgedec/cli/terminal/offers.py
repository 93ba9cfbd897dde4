"""What a checkpoint offers, as tables for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgedec.runtime.report.columns import columns

if TYPE_CHECKING:
    from edgedec.export.depth import DepthFacts
    from edgedec.export.offers import Offers
    from edgedec.export.peft import LoraFacts


def offers_tables(offers: Offers) -> list[list[str]]:
    """Lists of lines, one list per table: the model, what was trained for depth, policies."""
    encoder = f"encoder {offers.encoder_layers}, " if offers.encoder_layers is not None else ""
    facts = [
        ["source", f"{offers.source.id}, sha256 {offers.source.sha256[:12]}"],
        ["model", f"{offers.family}, {offers.architecture}"],
        ["parameters", f"{offers.parameters:,} stored"],
        ["layers", f"{encoder}decoder {offers.depth.layers}"],
        ["vocabulary", f"{offers.vocab_size:,}"],
        ["width", f"{offers.d_model:,}"],
    ]
    trained = _trained(offers.depth) + ([] if offers.lora is None else [_lora(offers.lora)])
    policies = [[offer.policy, offer.depth or f"no: {offer.reason}"] for offer in offers.policies]
    tables = [
        facts,
        [["trained for depth", "what"], *trained],
        [["policy", "edgedec export --depth"], *policies],
    ]
    return [columns(rows) for rows in tables if len(rows) > 1]


def _trained(facts: DepthFacts) -> list[list[str]]:
    from edgedec.runtime.depth.options import ranges

    rows = []
    if facts.exits:
        rows.append(["exits", f"after layers {ranges(facts.exits)}"])
    if facts.lora_drop is not None:
        drop = facts.lora_drop
        how = f"rank {drop.rank}, alpha {drop.alpha:g}, cycle {drop.cycle}"
        rows.append(["lora-drop", f"adapters of layers {ranges(drop.layers)}, {how}"])
    if facts.routers is not None:
        routed = ranges(facts.routers.layers)
        rows.append(["first", f"routers of layers {routed}, threshold {facts.routers.threshold:g}"])
    if facts.meta is not None:
        rows.append(["classifier", f"{facts.meta}, for measure=meta of early-exit and free"])
    return rows


def _lora(lora: LoraFacts) -> list[str]:
    ranks = " and ".join(map(str, lora.ranks))
    whole = f", and {lora.replaced} whole tensors" if lora.replaced else ""
    return ["LoRA", f"of rank {ranks} in {lora.modules} modules{whole} (PEFT)"]
