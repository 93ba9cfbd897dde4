"""The model in torch against the reference in NumPy, at full depth and under plans."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.depth.models import (
    CUTS,
    EVERYTHING,
    LAYERS,
    RANK,
    STACKS,
    VOCAB,
    WIDTH,
    Invented,
    spec_of,
)

from edgedec.adapt.actions import FULL, LOW, SKIP, follow
from edgedec.adapt.lora import fresh
from edgedec.adapt.twin import LowRank, Twin, modules
from edgedec.export.graphs import model_graphs, parse_stages
from edgedec.export.reference import Reference
from edgedec.export.replay import Action, Fed, replay

torch = pytest.importorskip("torch")

ACTIONS: dict[int, Action] = {FULL: "full", LOW: "low-rank", SKIP: "skip"}
TOLERANCE = 1e-5
"""Of float32 sums in another order, as a fraction of the largest value."""


@cache
def weights_of(kind: str) -> Invented:
    """Invented weights; emitting the graphs asks for every one of them."""
    weights = Invented()
    for side in ("encoder", "decoder"):
        weights.invent(f"{side}.0.self_attn.relative_bias.weight", (8, 4))
    for i in range(LAYERS):
        weights.invent(f"decoder.{i}.lora_adapter.A.weight", (RANK, WIDTH))
        weights.invent(f"decoder.{i}.lora_adapter.B.weight", (WIDTH, RANK))
    model_graphs(spec_of(kind), weights, parse_stages(CUTS, LAYERS), "fp32", EVERYTHING)
    return weights


def close(actual: NDArray[np.float32], expected: NDArray[np.float32]) -> bool:
    return bool(np.abs(actual - expected).max() <= TOLERANCE * np.abs(expected).max())


def tokens(rows: int, length: int, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, VOCAB, (rows, length))


@pytest.mark.parametrize("kind", STACKS)
def test_logits_of_a_padded_batch(kind: str) -> None:
    spec, weights = spec_of(kind), weights_of(kind)
    source, target = tokens(3, 30, 1), tokens(3, 25, 2)
    mask = (np.arange(30) < np.array([[30], [4], [17]])).astype(np.int64)
    reads = spec.encoder is not None
    expected = Reference(spec, weights).logits(
        source if reads else None, mask if reads else None, target
    )

    twin = Twin(spec, weights)
    memory = twin.encode(torch.from_numpy(source), torch.from_numpy(mask))
    assert (memory is not None) == reads
    states = twin.decode(torch.from_numpy(target), memory)
    assert len(states) == LAYERS + 1
    assert close(twin.head(states[-1]).numpy(), expected)


@st.composite
def tables(draw: st.DrawFn) -> NDArray[np.int8]:
    """Actions ``[positions, layers]`` as a runtime could carry them out.

    The prompt and layer 0 run in full, and a layer that skipped once is done.
    """
    positions = draw(st.integers(1, 9))
    table = np.full((positions, LAYERS), FULL, np.int8)
    for layer in range(1, LAYERS):
        kept = draw(st.integers(1, positions))
        column = draw(st.lists(st.sampled_from([FULL, LOW]), min_size=kept, max_size=kept))
        table[:kept, layer], table[kept:, layer] = column, SKIP
    table[0] = FULL
    return table


@pytest.mark.parametrize("kind", STACKS)
@settings(max_examples=5)
@given(table=tables(), seed=st.integers(0, 9))
def test_states_under_a_plan(kind: str, table: NDArray[np.int8], seed: int) -> None:
    spec, weights = spec_of(kind), weights_of(kind)
    row = tokens(1, len(table), seed)
    source = None if spec.encoder is None else tokens(1, 5, seed + 10)
    fed = [
        Fed(int(token), tuple(ACTIONS[action] for action in actions))
        for token, actions in zip(row[0], table.tolist(), strict=True)
    ]
    listed = None if source is None else source[0].tolist()
    expected = replay(Reference(spec, weights), listed, fed).states

    twin = Twin(spec, weights)
    low = {
        i: LowRank(
            twin.read(f"decoder.{i}.lora_adapter.A.weight"),
            twin.read(f"decoder.{i}.lora_adapter.B.weight"),
            1.0,
        )
        for i in range(LAYERS)
    }
    ids = None if source is None else torch.from_numpy(source)
    memory = twin.encode(ids, None if ids is None else torch.ones_like(ids))
    states = twin.decode(torch.from_numpy(row), memory, hook=follow(table, low))
    assert close(torch.stack(states, 2)[0].numpy(), expected)


@pytest.mark.parametrize("kind", STACKS)
def test_corrections_are_the_weights_plus_their_product(kind: str) -> None:
    spec, weights = spec_of(kind), weights_of(kind)
    target = torch.from_numpy(tokens(2, 6, 0))
    source = None if spec.encoder is None else torch.from_numpy(tokens(2, 5, 1))
    twin = Twin(spec, weights)
    memory = twin.encode(source, None if source is None else torch.ones_like(source))
    lora = fresh(modules(spec), 3, 6.0, 0, "cpu")
    plain = twin.decode(target, memory)[-1]
    assert torch.equal(twin.decode(target, memory, adapters=lora)[-1], plain)  # B is zero

    merged = Twin(spec, weights)
    with torch.no_grad():
        for name, correction in lora.items():
            correction.b.normal_(generator=torch.Generator().manual_seed(1)).mul_(0.1)
            merged._tensors[f"{name}.weight"] = (
                merged.read(f"{name}.weight") + 2.0 * correction.b @ correction.a
            )
        corrected = twin.decode(target, memory, adapters=lora)[-1]
        assert close(corrected.numpy(), merged.decode(target, memory)[-1].numpy())
        assert not torch.allclose(corrected, plain)
