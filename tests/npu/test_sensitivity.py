"""Which weights keep 8 bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from tests.export.tiny import tensors, write

from edgedec.devices.npu.precision import (
    Weight,
    bits_per_weight,
    get_precision,
    round_weight,
    weight_bits,
)
from edgedec.errors import InputError
from edgedec.export import export_checkpoint
from edgedec.export.floats import float_graphs
from edgedec.export.learn import find_sites
from edgedec.export.npu.sensitivity import choose_eight
from edgedec.quantize.calibration.calibrate import score
from edgedec.quantize.calibration.segments import cut
from edgedec.quantize.matrices import Matrix
from edgedec.quantize.method import Array, Settings
from edgedec.quantize.pool import Pool
from edgedec.quantize.text.batches import Batch, make_batches
from edgedec.quantize.text.samples import Sample
from edgedec.runtime.bundle import Bundle, open_bundle

PRECISION = "w4a16"
ODD = "decoder.block.3.layer.2.DenseReluDense.wi.weight"
FRAGILE = "decoder.3.mlp.up.weight"


@dataclass(frozen=True)
class Model:
    bundle: Bundle
    batches: list[Batch]
    weights: list[Weight]
    scratch: Path

    def choose(
        self,
        budget: float,
        weights: Sequence[Weight] | None = None,
        precision: str = PRECISION,
    ) -> tuple[str, ...]:
        with Pool(2) as pool:
            return choose_eight(
                self.bundle,
                self.batches,
                self.weights if weights is None else weights,
                precision,
                budget,
                pool=pool,
                scratch=self.scratch,
                progress=lambda _what, _fraction: None,
            )

    def mean(self, eight: Sequence[str]) -> float:
        sizes = [w.rows * w.columns for w in self.weights]
        bits = [bits_per_weight(PRECISION, w, eight) for w in self.weights]
        return float(np.average(bits, weights=sizes))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A random T5, one of whose matrices cannot be rounded: each block has one large value."""
    folder = tmp_path_factory.mktemp("sensitivity")
    odd = tensors("t5")[ODD].copy()
    odd[:, 3] = 12.0
    checkpoint = write(folder / "t5", "t5", {ODD: odd})
    bundle = open_bundle(export_checkpoint(checkpoint, folder / "bundle", verify=False))
    rng = np.random.default_rng(0)
    rows = [tuple(rng.integers(2, 30, 8).tolist()) for _ in range(24)]
    samples = [Sample(row, row[::-1]) for row in rows]
    weights: list[Weight] = []
    for some in find_sites(float_graphs(bundle, Settings())).values():
        for matrix in (site.matrix for site in some):
            known = {(w.name, w.role == "embedding") for w in weights}
            if (matrix.name, matrix.role == "embedding") not in known:
                weights.append(
                    Weight(
                        matrix.name,
                        matrix.rows,
                        matrix.columns,
                        matrix.role,
                        matrix.transposed,
                        {},
                    )
                )
    return Model(bundle, make_batches(samples, pad=0, start=0), weights, folder)


def test_the_most_fragile_matrix_keeps_its_bits(model: Model) -> None:
    assert model.choose(model.mean((FRAGILE,)) + 1e-6) == (FRAGILE,)


@pytest.mark.parametrize("share", [0.0, 0.35, 1.0])
def test_the_budget_is_kept_and_used(model: Model, share: float) -> None:
    names = list(dict.fromkeys(w.name for w in model.weights))
    least, most = model.mean(()), model.mean(names)
    budget = least + share * (most - least)
    eight = model.choose(budget)
    assert least <= model.mean(eight) <= budget + 1e-9
    assert set(eight) <= set(names)
    assert list(eight) == [name for name in names if name in eight]
    for name in set(names) - set(eight):
        # whatever stays would not fit
        assert model.mean([*eight, name]) > budget


def test_more_bits_are_closer_to_the_float_model(model: Model) -> None:
    graphs = float_graphs(model.bundle, Settings())
    program = cut(graphs, find_sites(graphs))

    def loss(eight: Sequence[str]) -> float:
        def values(matrix: Matrix) -> Array:
            bits = 8 if matrix.name in eight else 4
            return round_weight(matrix.read(), matrix.role, PRECISION, bits)

        with Pool(2) as pool:
            return score(program, model.batches, {"some": values}, pool)["some"].kl

    least, most = model.mean(()), model.mean([w.name for w in model.weights])
    none, half, every = (
        loss(model.choose(least + share * (most - least))) for share in (0.0, 0.5, 1.0)
    )
    assert none > 1.5 * half > 1.5 * 1.5 * every


def test_what_cannot_be_measured_keeps_its_bits(model: Model) -> None:
    hidden = Weight("router.weight", 8, 8, "linear", True, {"decoder": ("router",)})
    assert model.choose(model.mean(()) + 0.3, [*model.weights, hidden])[-1] == hidden.name


def test_a_budget_below_four_bits_is_refused(model: Model) -> None:
    with pytest.raises(InputError, match=r"--budget 4: 4 bits per weight are too few.*smallest"):
        model.choose(4.0)


def test_what_does_not_divide_into_blocks_has_no_choice(model: Model) -> None:
    blocks = get_precision("nbits4")
    fixed = {w.name for w in model.weights if weight_bits(blocks, w) == 16}
    assert FRAGILE not in fixed
    every = model.choose(16.0, precision="nbits4")
    assert set(every) == {w.name for w in model.weights} - fixed
    assert fixed
