"""k-means against exhaustive search and theory, on easy, odd and hostile matrices."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from edgedec.kernels.packing import pack
from edgedec.quantize.baselines import kmeans as module
from edgedec.quantize.baselines.kmeans import kmeans
from edgedec.quantize.codebook import CodebookTensor

BITS = st.sampled_from([2, 3, 4])
MATRICES = hnp.arrays(
    st.sampled_from([np.float16, np.float32, np.float64]),
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=70),
    elements=st.floats(-(2.0**15), 2.0**15, width=16),
)


def error(weight: NDArray[Any], tensor: CodebookTensor) -> float:
    """Relative: the norm of the difference over the norm of the weights."""
    exact = weight.astype(np.float64)
    return float(np.linalg.norm(tensor.dequantize() - exact) / np.linalg.norm(exact))


@given(MATRICES, BITS, st.sampled_from([16, 32, 64]))
def test_any_matrix(weight: NDArray[Any], bits: int, group_rows: int) -> None:
    tensor = kmeans(weight, bits, group_rows)
    assert tensor.shape == weight.shape
    assert tensor.row_order is None
    assert len(tensor.codebooks) == -(-len(weight) // group_rows)
    # ascending, so that a code says something
    assert (np.diff(tensor.codebooks, axis=1) >= 0).all()
    values = tensor.dequantize()
    # With a scale fitted to its codes no row is further off than a row of zeros.
    rows = np.linalg.norm(weight.astype(np.float64), axis=1)
    assert (np.linalg.norm(values - weight.astype(np.float64), axis=1) <= rows * 1.00001).all()
    # The levels are those of the kernels already.
    np.testing.assert_array_equal(pack(tensor).dequantize(), values)
    again = kmeans(weight, bits, group_rows)
    np.testing.assert_array_equal(again.dequantize(), values)


def test_pieces_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = np.random.default_rng(0).standard_normal((200, 30)).astype(np.float32)
    whole = kmeans(weight, 3)
    monkeypatch.setattr(module, "PIECE", 1)
    np.testing.assert_array_equal(kmeans(weight, 3).dequantize(), whole.dequantize())


# Lloyd's and Max's quantizer of a normal distribution, the best there is for one (Max 1960,
# table I): its error, of which ours is a root. Dividing by the row's largest value helps a little.
@pytest.mark.parametrize(("bits", "best"), [(2, 0.1175), (3, 0.03454), (4, 0.009497)])
def test_normal_weights_come_near_the_optimum(bits: int, best: float) -> None:
    weight = np.random.default_rng(0).standard_normal((512, 512)).astype(np.float32)
    weight *= np.exp(np.random.default_rng(1).standard_normal((512, 1))).astype(np.float32)
    assert error(weight, kmeans(weight, bits)) == pytest.approx(best**0.5, rel=0.02)


def test_one_row_against_all_partitions() -> None:
    """1-D clusters are intervals, so for few weights every partition can be tried."""
    ratios = []
    for seed in range(40):
        weight = np.sort(np.random.default_rng(seed).standard_normal(12))
        clusters = [
            np.split(weight, cuts) for cuts in itertools.combinations(range(1, len(weight)), 3)
        ]
        best = min(sum(((c - c.mean()) ** 2).sum() for c in parts) for parts in clusters)
        found = (kmeans(weight[None], 2).dequantize() - weight) ** 2
        ratios.append(found.sum() / best)
    # levels of 7 bits lose a little, a local optimum more
    assert min(ratios) > 0.999
    assert np.median(ratios) < 1.02
    assert max(ratios) < 3


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize(
    "weight",
    [
        np.ones((17, 1)),
        np.full((70, 5), -3e-5, np.float16),
        np.array([[1.0, -1.0, 0.0]]),
        np.eye(100),
        np.array([[1e30, -1e30, 0.0]]),
        np.outer(np.arange(1, 30), [1.0, -1.0, 1.0]),
    ],
    ids=["one column", "constant", "ternary", "unit", "huge", "signs"],
)
def test_few_values_are_kept(weight: NDArray[Any], bits: int) -> None:
    np.testing.assert_allclose(kmeans(weight, bits).dequantize(), weight, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("tiny", [0.0, 1e-45, -3e-39, 1e-31])
def test_rows_of_nothing_become_zero_and_disturb_no_other(tiny: float) -> None:
    weight = np.random.default_rng(0).standard_normal((40, 64)).astype(np.float32)
    weight[[0, 17, 39]] = tiny
    values = kmeans(weight, 4).dequantize()
    assert not values[[0, 17, 39]].any()
    others = np.delete(np.arange(40), [0, 17, 39])
    assert np.linalg.norm(values[others] - weight[others]) < 0.11 * np.linalg.norm(weight[others])
    assert not kmeans(np.full((3, 4), tiny, np.float32), 2).dequantize().any()


def test_rows_of_any_size_share_a_codebook() -> None:
    rows = np.random.default_rng(0).standard_normal((64, 256)).astype(np.float32)
    scale = np.logspace(-20, 20, 64, dtype=np.float32)[:, None]
    plain, scaled = kmeans(rows, 4), kmeans(rows * scale, 4)
    np.testing.assert_allclose(scaled.dequantize() / scale, plain.dequantize(), rtol=0, atol=0.1)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e31])
def test_weights_that_are_no_numbers(bad: float) -> None:
    weight = np.ones((200, 30), np.float32)
    weight[150, 7] = bad
    with pytest.raises(ValueError, match="NaN, infinity"):
        kmeans(weight, 4)


@pytest.mark.parametrize(
    ("shape", "bits", "group_rows", "sentence"),
    [
        ((4, 4), 8, 64, "not 8"),
        ((4, 4), 1, 64, "not 1"),
        ((4, 4), 4, 0, "multiple of 16"),
        ((4, 4), 4, 24, "multiple of 16"),
        ((4, 4), 4, -16, "multiple of 16"),
        ((4,), 4, 64, r"\[4\]"),
        ((0, 4), 4, 64, r"\[0, 4\]"),
        ((4, 0), 4, 64, r"\[4, 0\]"),
        (((1 << 20) + 1, 1), 4, 16, "65537 codebooks"),
    ],
)
def test_refuses(shape: tuple[int, ...], bits: int, group_rows: int, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        kmeans(np.ones(shape, np.float32), bits, group_rows)


def test_every_bin_has_the_nearest_level() -> None:
    levels = np.array([[-1.0, -0.25, 0.125, 0.9], [-0.5, -0.5, 0.0, 0.0001]])
    centers = (np.arange(module.BINS) + 0.5) / (module.BINS / 2) - 1
    distance = np.abs(centers - levels[:, :, None])
    codes = module._nearest(levels)
    chosen = np.take_along_axis(distance, codes[:, None].astype(np.int64), axis=1)[:, 0]
    np.testing.assert_array_equal(chosen, distance.min(axis=1))
