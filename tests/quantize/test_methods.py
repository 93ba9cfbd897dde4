"""What all methods promise, on easy, odd and hostile matrices."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from edgedec.kernels.packing import pack
from edgedec.quantize.baselines.kmeans import kmeans
from edgedec.quantize.baselines.kmeans_rows import kmeans_rows
from edgedec.quantize.method import Method, Quantized, Settings
from edgedec.quantize.methods import METHODS
from edgedec.quantize.pool import Pool
from edgedec.quantize.size import stored_bits
from edgedec.quantize.statistics import Statistics

Array = NDArray[np.float32]

STORED = {"jlcm", "rtn", "nf4", "kmeans", "gptq", "gptq-codebook"}
CASES = [pytest.param(m, bits, id=f"{m.name}-{bits}") for m in METHODS.values() for bits in m.bits]


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool(2) as pool:
        yield pool


def correlated(columns: int, tokens: int = 512, seed: int = 0) -> Statistics:
    """Inputs that say much about each other, as those of trained models do."""
    random = np.random.default_rng(seed)
    mix = random.standard_normal((columns, columns)) / columns**0.5
    inputs = random.standard_normal((tokens, columns)) @ (np.eye(columns) + 2 * mix)
    inputs *= np.exp(0.5 * random.standard_normal(columns))
    plain = (inputs.T @ inputs / tokens).astype(np.float32)
    return Statistics(tokens, plain, plain, None)


def trained(rows: int, columns: int, seed: int = 1) -> Array:
    """Rows of different sizes with a few heavy tails."""
    random = np.random.default_rng(seed)
    weight = random.standard_normal((rows, columns)) * np.exp(
        0.3 * random.standard_normal((rows, 1))
    )
    weight[::7] = random.standard_t(3, weight[::7].shape)
    return weight.astype(np.float32)


def error(result: Quantized, weight: Array, statistics: Statistics) -> float:
    """Relative, of the outputs."""
    difference = result.dequantize() - weight
    lost = np.vdot(difference @ statistics.inputs, difference)
    return float((lost / np.vdot(weight @ statistics.inputs, weight)) ** 0.5)


def run(
    name: str, weights: list[Array], statistics: Statistics, bits: int, pool: Pool
) -> list[Quantized]:
    return METHODS[name].function(weights, statistics, bits, Settings(), pool)


def test_the_table() -> None:
    assert next(iter(METHODS)) == "jlcm"
    assert {name for name, method in METHODS.items() if method.stored} == STORED
    assert all(name == method.name for name, method in METHODS.items())
    assert all(set(method.bits) <= {2, 3, 4, 8} for method in METHODS.values())
    assert [name for name, method in METHODS.items() if 8 in method.bits] == ["rtn"]
    assert all(re.fullmatch(r"[^.]{10,75}", method.summary) for method in METHODS.values())
    with pytest.raises(TypeError):
        METHODS["best"] = METHODS["jlcm"]  # type: ignore[index]


@pytest.mark.parametrize(("method", "bits"), CASES)
def test_what_comes_out(method: Method, bits: int, pool: Pool) -> None:
    weights = [trained(48, 72, 1), trained(33, 72, 2)]
    statistics = correlated(72)
    before = [weight.copy() for weight in weights]
    results = method.function(weights, statistics, bits, Settings(), pool)
    assert len(results) == 2
    for weight, copy, result in zip(weights, before, results, strict=True):
        np.testing.assert_array_equal(weight, copy)
        values = result.dequantize()
        assert values.shape == weight.shape
        assert values.dtype == np.float32
        assert error(result, weight, statistics) < {2: 0.75, 3: 0.45, 4: 0.25, 8: 0.02}[bits]
        if method.stored:
            assert result.tensor is not None
            assert result.values is None
            assert result.tensor.bits == bits
            assert result.bits_per_weight == stored_bits(result.tensor)
            np.testing.assert_array_equal(pack(result.tensor).dequantize(), values)
        else:
            assert result.tensor is None
            assert bits < result.bits_per_weight <= bits + 2  # of short rows


@pytest.mark.parametrize(("method", "bits"), CASES)
def test_threads_change_nothing(method: Method, bits: int) -> None:
    weights, statistics = [trained(80, 64, 1), trained(16, 64, 2)], correlated(64)
    found = []
    for threads in (1, 3):
        with Pool(threads) as pool:
            found.append(method.function(weights, statistics, bits, Settings(), pool))
    for one, three in zip(*found, strict=True):
        np.testing.assert_array_equal(one.dequantize(), three.dequantize())


HOSTILE = {
    "zero": np.zeros((20, 40), np.float32),
    "zero row": np.concatenate([trained(18, 40), np.zeros((1, 40), np.float32)]),
    "constant rows": np.repeat(np.linspace(-1, 1, 17, dtype=np.float32)[:, None], 40, axis=1),
    "one row": trained(1, 40),
    "outlier": np.eye(16, 40, dtype=np.float32) * 1000 + trained(16, 40),
    "small": trained(16, 40) * np.float32(1e-4),
    "narrow": trained(40, 8),
    "one column": trained(16, 1),
}


@pytest.mark.parametrize(("method", "bits"), CASES)
@pytest.mark.parametrize("name", HOSTILE)
def test_odd_matrices_and_inputs(method: Method, bits: int, name: str, pool: Pool) -> None:
    weight = HOSTILE[name]
    columns = weight.shape[1]
    singular = correlated(columns, tokens=3)
    dead = singular.plain.copy()
    dead[: columns // 2] = dead[:, : columns // 2] = 0
    for plain in (singular.plain, dead, np.zeros_like(dead)):
        statistics = Statistics(3, plain, plain, None)
        (result,) = method.function([weight], statistics, bits, Settings(), pool)
        values = result.dequantize()
        assert np.isfinite(values).all()
        assert np.abs(values).max() <= 3 * np.abs(weight).max() + 1e-6
        assert not values[~weight.any(axis=1)].any()


def test_nothing_in_is_nothing_out(pool: Pool) -> None:
    for method in METHODS.values():
        bits = method.bits[-1]
        assert method.function([], correlated(8), bits, Settings(), pool) == []


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_order_of_errors(bits: int, pool: Pool) -> None:
    """What the comparison is about, on inputs that are correlated."""
    weights, statistics = [trained(96, 128)], correlated(128, 2048)

    def of(name: str) -> float:
        (result,) = run(name, weights, statistics, bits, pool)
        return error(result, weights[0], statistics)

    assert of("rtn-block32") < of("rtn")
    assert of("kmeans") < of("rtn")
    assert of("kmeans-rows") < of("kmeans")
    # The even levels of 2 bits lie further apart than those of rtn, as none is 0.
    part = 1 if bits == 2 else 0.9
    assert of("gptq") < part * of("rtn")
    assert of("gptq-block32") < part * of("rtn-block32")
    assert of("gptq-codebook") < 0.9 * of("kmeans")


def test_kmeans_is_what_exports_use(pool: Pool) -> None:
    weight = trained(130, 40)
    (result,) = run("kmeans", [weight], correlated(40), 3, pool)
    np.testing.assert_array_equal(result.dequantize(), kmeans(weight, 3).dequantize())


def test_rows_are_weighted_by_the_float_model_s_inputs(pool: Pool) -> None:
    weight = trained(20, 64)
    plain, inputs = correlated(64, seed=2).plain, correlated(64, seed=3).plain
    statistics = Statistics(512, plain, inputs, None)
    (result,) = METHODS["kmeans-rows"].function([weight], statistics, 3, Settings(), pool)
    expected = kmeans_rows(weight, plain.diagonal(), 3)
    np.testing.assert_array_equal(result.dequantize(), expected)


def test_importing_the_table_imports_no_method() -> None:
    code = (
        "import sys, edgedec.quantize.methods\n"
        "print(sorted(m for m in sys.modules if m in ('onnx_ir', 'onnxruntime', 'scipy', 'torch',"
        " 'edgedec.quantize.jlcm', 'edgedec.quantize.baselines.gptq',"
        " 'edgedec.quantize.baselines.kmeans')))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
