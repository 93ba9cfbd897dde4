"""Relative errors of trained weights; `pytest -s` prints them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgedec.kernels.packing import pack
from edgedec.quantize.baselines.kmeans import GROUP_ROWS, kmeans
from edgedec.quantize.baselines.nearest import round_to_nearest
from edgedec.quantize.codebook import CodebookTensor

Weights = list[NDArray[np.float32]]


@pytest.fixture(scope="module", params=["g2p-t5", "lm-layerskip"])
def weights(request: pytest.FixtureRequest, shared: Path) -> Weights:
    """The matrices of a checkpoint, without the tables of position biases."""
    safetensors = pytest.importorskip("safetensors.numpy")
    tensors = safetensors.load_file(shared / "checkpoints" / request.param / "model.safetensors")
    return [w.astype(np.float32) for w in tensors.values() if w.ndim == 2 and min(w.shape) >= 64]


def mean_error(weights: Weights, quantize: Any, *options: int) -> float:
    """The mean over matrices of the norm of the difference over the norm."""

    def error(weight: NDArray[np.float32]) -> float:
        tensor: CodebookTensor = quantize(weight, *options)
        difference = pack(tensor).dequantize() - weight
        return float(np.linalg.norm(difference) / np.linalg.norm(weight))

    return float(np.mean([error(weight) for weight in weights]))


@pytest.mark.parametrize(("bits", "most"), [(4, 0.095), (3, 0.186), (2, 0.344)])
def test_kmeans(weights: Weights, bits: int, most: float) -> None:
    found = mean_error(weights, kmeans, bits)
    even = mean_error(weights, round_to_nearest, bits)
    print(f"{bits} bits: {found:.4f}, evenly spaced levels {even:.4f}")  # noqa: T201
    assert found < most
    assert found < 0.8 * even


def test_eight_bits(weights: Weights) -> None:
    assert mean_error(weights, round_to_nearest, 8) < 0.008


@pytest.mark.slow
def test_what_is_said_of_group_sizes(weights: Weights) -> None:
    errors = {rows: mean_error(weights, kmeans, 4, rows) for rows in (16, GROUP_ROWS, 1 << 20)}
    print({rows: round(error, 5) for rows, error in errors.items()})  # noqa: T201
    default = errors.pop(GROUP_ROWS)
    assert 0.990 < errors[16] / default < 1
    assert 1 <= errors[1 << 20] / default < 1.003
