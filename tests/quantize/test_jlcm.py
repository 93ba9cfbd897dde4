"""JLCM on easy, odd and hostile matrices: never worse than its start, whatever the threads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.quantize.problems import (
    BITS,
    INPUTS,
    ROWS,
    SEEDS,
    SHAPES,
    matrix,
    objective,
    same,
    statistics,
)

from edgedec.kernels.packing import pack
from edgedec.quantize import jlcm as module
from edgedec.quantize.baselines.kmeans import kmeans
from edgedec.quantize.fitting.damping import damped
from edgedec.quantize.fitting.objective import relative_error
from edgedec.quantize.jlcm import jlcm
from edgedec.quantize.method import Array, Quantized, Settings
from edgedec.quantize.pool import Pool
from edgedec.quantize.size import stored_bits
from edgedec.quantize.statistics import Statistics


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool(2) as pool:
        yield pool


def one(weight: Array, known: Statistics, bits: int, pool: Pool, **options: object) -> Quantized:
    (result,) = jlcm([weight], known, bits, replace(Settings(), **options), pool)  # type: ignore[arg-type]
    return result


@given(
    st.sampled_from(sorted(ROWS)),
    st.sampled_from(sorted(INPUTS)),
    SHAPES,
    BITS,
    st.sampled_from(["contiguous", "distribution", "auto"]),
    SEEDS,
)
@settings(max_examples=60)
def test_any_matrix(
    pool: Pool,
    rows: str,
    inputs: str,
    shape: tuple[int, int],
    bits: int,
    grouping: str,
    seed: int,
) -> None:
    weight = matrix(rows, shape, seed)
    known = statistics(inputs, shape[1], seed)
    result = one(weight, known, bits, pool, grouping=grouping, groups=1 + seed % 5)
    tensor = result.tensor
    assert tensor is not None
    values = result.dequantize()
    assert np.isfinite(values).all()
    # The levels are those of the kernels already.
    np.testing.assert_array_equal(pack(tensor).dequantize(), values)
    assert (tensor.codebooks == np.rint(tensor.codebooks)).all()
    assert (np.diff(tensor.codebooks, axis=1) >= 0).all()
    assert result.bits_per_weight == stored_bits(tensor)
    assert (np.diff(np.unique(tensor.group_of_row)) == 1).all()
    assert len(np.unique(tensor.group_of_row)) == len(tensor.codebooks)
    if grouping == "contiguous":
        assert tensor.row_order is None
    assert not values[~weight.any(axis=1)].any()
    assert (np.diff(result.trace) <= 0).all()
    # The trace says what the result is: float32 products of 40 numbers near 1e-7 of the whole.
    hessian = damped(known.inputs, Settings().damping)
    whole = objective(np.zeros(shape), weight, hessian)
    if whole > 0:
        found = objective(values, weight, hessian) / whole
        assert found == pytest.approx(result.trace[-1], rel=1e-3, abs=1e-6)
    else:
        assert result.trace[-1] == 0


@given(SHAPES, BITS, st.sampled_from(["contiguous", "auto"]), st.booleans(), SEEDS)
@settings(max_examples=6)
def test_threads_do_not_matter(
    shape: tuple[int, int], bits: int, grouping: str, joint: bool, seed: int
) -> None:
    weights = [matrix("heavy tails", (4 * shape[0], shape[1]), seed + i) for i in range(2)]
    known = statistics("correlated", shape[1], seed)
    known = replace(known, drift=known.plain * np.float32(0.1))
    options = Settings(grouping=grouping, joint=joint)  # type: ignore[arg-type]
    with Pool(1) as pool:
        alone = jlcm(weights, known, bits, options, pool)
    with Pool(3) as pool:
        together = jlcm(weights, known, bits, options, pool)
    for first, second in zip(alone, together, strict=True):
        assert first.tensor is not None
        assert second.tensor is not None
        assert same(first.tensor, second.tensor)
        assert first.trace == second.trace


def test_more_rows_than_a_piece_and_more_columns_than_a_block(pool: Pool) -> None:
    """Sizes at which all loops run more than once, and the last time for a part."""
    weight = matrix("normal", (2500, 131), 0)
    known = statistics("correlated", 131, 0)
    result = one(weight, known, 3, pool)
    with Pool(1) as alone:
        other = one(weight, known, 3, alone)
    assert result.tensor is not None
    assert other.tensor is not None
    assert same(result.tensor, other.tensor)
    hessian = damped(known.inputs, 0.1)
    found = relative_error(result.dequantize(), weight, hessian) ** 2
    assert found == pytest.approx(result.trace[-1], rel=1e-4)
    # what the recipe is for: inputs that are correlated
    assert result.trace[-1] < 0.5 * result.trace[0]


def test_stacks_hold_what_single_calls_give(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = [matrix(kind, (40, 30), 3) for kind in sorted(ROWS)]
    known = statistics("correlated", 30, 3)
    together = jlcm(weights, known, 3, Settings(), pool)
    for weight, result in zip(weights, together, strict=True):
        assert result.dequantize().shape == weight.shape
        (single,) = jlcm([weight], known, 3, Settings(), pool)
        # rounds end when no group of a stack gains: neighbours may cause more rounds, not fewer
        assert result.trace[-1] <= single.trace[-1] * 1.01 + 1e-9
    monkeypatch.setattr(module, "MOST", 1)
    for whole, split in zip(together, jlcm(weights, known, 3, Settings(), pool), strict=True):
        assert split.trace[0] == pytest.approx(whole.trace[0], rel=1e-4, abs=1e-9)
    assert jlcm([], known, 3, Settings(), pool) == []


@pytest.mark.parametrize("rows", [16, 48])
def test_sizes_of_neighbours_do_not_matter(pool: Pool, rows: int) -> None:
    """Not even where squares of one matrix are nothing beside those of the other."""
    small, large = matrix("normal", (rows, 64), 0), matrix("normal", (32, 64), 1)
    known = statistics("correlated", 64, 0)
    options = Settings(groups=1)
    (alone,) = jlcm([small], known, 4, options, pool)
    for size, other in ((1.0, 1e4), (1e-20, 1e4), (1e-25, 1e25), (1e25, 1e-25)):
        weights = [small * np.float32(size), large * np.float32(other)]
        beside, _ = jlcm(weights, known, 4, options, pool)
        assert beside.trace[-1] == pytest.approx(alone.trace[-1], rel=0.02)
        error = relative_error(beside.dequantize() / np.float32(size), small, known.inputs)
        assert error == pytest.approx(
            relative_error(alone.dequantize(), small, known.inputs), rel=0.02
        )


def test_rows_too_small_to_count_are_no_zeros(pool: Pool) -> None:
    weight = matrix("normal", (32, 64), 0)
    weight[3] *= np.float32(1e-25)
    known = statistics("correlated", 64, 0)
    found = one(weight, known, 4, pool).dequantize()
    error = relative_error(
        found[3:4] * np.float32(1e25), weight[3:4] * np.float32(1e25), known.inputs
    )
    assert 0 < error < 0.2


def test_rows_of_odd_size_disturb_no_others(pool: Pool) -> None:
    """A row 30 times larger counts 900 times, but leaves codebooks that serve the others."""
    plain = matrix("normal", (64, 256), 0)
    large = plain.copy()
    large[5] *= 30
    known = statistics("correlated", 256, 0)
    hessian = damped(known.inputs, 0.1)
    others = np.delete(np.arange(64), 5)
    for bits in (2, 3, 4):
        error = [
            relative_error(
                one(weight, known, bits, pool).dequantize()[others], weight[others], hessian
            )
            for weight in (plain, large)
        ]
        assert error[1] < 1.1 * error[0]


def test_distributions_that_differ_are_worth_an_order(pool: Pool) -> None:
    weight = matrix("normal", (256, 128), 0)
    weight[::4, 7] *= 30
    known = statistics("correlated", 128, 0)
    plain, sorted_rows, auto = (
        one(weight, known, 4, pool, grouping=grouping)
        for grouping in ("contiguous", "distribution", "auto")
    )
    assert sorted_rows.trace[-1] < 0.8 * plain.trace[-1]
    assert auto.trace == sorted_rows.trace
    # and where all rows are alike they stay as they are
    alike = one(matrix("normal", (256, 128), 0), known, 4, pool, grouping="auto")
    assert alike.tensor is not None
    assert alike.tensor.row_order is None


@pytest.mark.parametrize("rows", [32, 64])
def test_corrected_target(pool: Pool, rows: int) -> None:
    """With drift, products with the changed inputs come closer to those with the original ones."""
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((400, 48)) @ rng.standard_normal((48, 48))
    changed = inputs + rng.standard_normal((400, 48)) @ rng.standard_normal((48, 48)) * 0.2
    weight = matrix("normal", (rows, 48), 0)

    def moments(left: NDArray[np.float64], right: NDArray[np.float64]) -> Array:
        return (left.T @ right / len(left)).astype(np.float32)

    plain, second = moments(inputs, inputs), moments(changed, changed)
    wanted = inputs @ weight.T
    error = {}
    for name, drift in (("plain", None), ("corrected", moments(changed, inputs - changed))):
        known = Statistics(400, plain, second, drift)
        result = one(weight, known, 4, pool)
        error[name] = np.linalg.norm(changed @ result.dequantize().T - wanted)
        assert (np.diff(result.trace) <= 0).all()
    assert error["corrected"] < 0.9 * error["plain"]


@pytest.mark.parametrize(("bits", "most"), [(2, 0.8), (3, 0.75), (4, 0.7)])
def test_a_trained_layer(shared: Path, pool: Pool, bits: int, most: float) -> None:
    """Against k-means with far more codebooks; measured .69, .61 and .60 with these inputs."""
    safetensors = pytest.importorskip("safetensors.numpy")
    tensors = safetensors.load_file(shared / "checkpoints/lm-layerskip/model.safetensors")
    weight = tensors["model.layers.3.self_attn.o_proj.weight"].astype(np.float32)
    known = statistics("correlated", weight.shape[1], 0)
    found = one(weight, known, bits, pool).dequantize()
    start = kmeans(weight, bits).dequantize()
    ratio = relative_error(found, weight, known.plain) / relative_error(start, weight, known.plain)
    assert ratio < most


@pytest.mark.parametrize(
    ("weight", "moments", "bits", "options", "sentence"),
    [
        (np.ones((4, 4)), np.eye(4), 8, {}, "not 8"),
        (np.ones((4, 4)), np.eye(5), 4, {}, "does not take 5 inputs"),
        (np.ones((4, 0)), np.eye(4), 4, {}, "no matrix"),
        (np.full((4, 4), np.nan), np.eye(4), 4, {}, "NaN"),
        (np.ones((4, 4)), np.full((4, 4), np.inf), 4, {}, "second moments hold"),
        (np.ones((4, 4)), np.ones((4, 3)), 4, {}, "no square matrix"),
        (np.ones((4, 4)), np.eye(4), 4, {"groups": 0}, "too few"),
    ],
)
def test_refuses(
    pool: Pool,
    weight: Array,
    moments: Array,
    bits: int,
    options: dict[str, object],
    sentence: str,
) -> None:
    known = Statistics(1, moments.astype(np.float32), moments.astype(np.float32), None)
    with pytest.raises(ValueError, match=sentence):
        one(weight.astype(np.float32), known, bits, pool, **options)
