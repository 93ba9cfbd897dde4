"""``benchmarks/gpu.py`` without a GPU: what it feeds, checks, times and prints."""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from tests.gpu.fakes.cuda import FakeCuda

from edgedec.devices.gpu.arena import CudaArena, arena
from edgedec.devices.gpu.driver import driver
from edgedec.errors import DeviceError, MissingDependencyError
from edgedec.kernels.ptx import Dtype, Kernel, Tactic, kernel
from edgedec.kernels.words import reference

Import = Callable[[str], Any]
BESIDE = {key: value for key, value in os.environ.items() if key != "PYTHONSAFEPATH"}
"""An environment in which a script finds the modules beside it, as at a prompt."""
FORMS: list[tuple[Tactic, int, Dtype]] = [
    (tactic, bits, dtype)
    for tactic in get_args(Tactic)
    for bits in (2, 3, 4, 8)
    for dtype in get_args(Dtype)
]


@pytest.fixture
def benchmark(root: Path, monkeypatch: pytest.MonkeyPatch) -> Import:
    """Imports a module of the folder ``benchmarks``."""
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    monkeypatch.syspath_prepend(str(root / "benchmarks" / "programs"))
    return importlib.import_module


@pytest.fixture
def gpu(benchmark: Import, cuda: FakeCuda) -> CudaArena:
    """A GPU whose kernels are computed with NumPy, from what lies at the addresses they get."""
    codes = benchmark("gpus.codes")
    codes._function.cache_clear()
    for form in FORMS:
        shipped = kernel(*form)
        cuda.kernels[shipped.name] = _stand_in(codes, shipped)
    return arena()


def _stand_in(codes: Any, shipped: Kernel) -> Callable[..., None]:
    def run(
        grid: tuple[int, int, int],
        threads: int,
        shared: int,
        x: int,
        words: int,
        levels: int,
        groups: int,
        scales: int,
        m: int,
        n: int,
        k: int,
        y: int,
    ) -> None:
        assert (threads, shared) == (shipped.threads, shipped.shared)
        assert grid[0] * shipped.block_n >= n
        assert grid[1] * shipped.block_m >= m
        bits, dtype = shipped.bits, shipped.dtype
        table = _at(groups, (-(-n // 16),), np.int32)
        tables = _at(levels, (int(table.max()) + 1, 1 << bits), np.uint16)
        result = reference(
            codes.floats(_at(x, (m, k), np.uint16), dtype),
            _at(words, (n, -(-k // 32) * bits), np.int32),
            codes.floats(tables, dtype),
            table,
            _at(scales, (n,), np.float32),
        )
        _at(y, (m, n), np.uint16)[...] = codes.stored(result, dtype)

    return run


def _at(address: int, shape: tuple[int, ...], dtype: Any) -> Any:
    nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_uint8 * nbytes).from_address(address), dtype).reshape(shape)


@pytest.mark.parametrize(("tactic", "bits", "dtype"), FORMS)
def test_codes_are_what_the_kernel_reads(
    benchmark: Import, gpu: CudaArena, tactic: Tactic, bits: int, dtype: Dtype
) -> None:
    codes, points = benchmark("gpus.codes"), benchmark("gpus.points")
    form = codes.Form(tactic, bits, dtype, tables=3)
    product = codes.CodesProduct(points.Point(3, 50, 100), points.Place("cuda", 9000), form, gpu)
    assert np.isnan(product.error())  # what was not written is not right
    product.launch(product.copies - 1)
    assert product.error() < benchmark("gpus.contestants").TOLERANCES[dtype]
    assert product.copies * product.nbytes >= 9000


def test_a_kernel_that_errs_is_wrong(benchmark: Import, cuda: FakeCuda, gpu: CudaArena) -> None:
    codes, points = benchmark("gpus.codes"), benchmark("gpus.points")
    name = kernel("gemv", 4, "fp16").name
    right = cuda.kernels[name]

    errs = [True]

    def off(*arguments: Any) -> None:
        right(*arguments)
        if errs.pop():
            _at(arguments[-1], (50,), np.uint16)[17] ^= 1 << 12

    cuda.kernels[name] = off
    form = codes.Form("gemv", 4)
    product = codes.CodesProduct(points.Point(1, 50, 100), points.Place("cuda", 0), form, gpu)
    product.launch(0)
    wrong = benchmark("gpus.rounds").wrong
    assert wrong("cb4 gemv", product.error()) is not None
    errs.append(False)
    product.launch(0)
    assert wrong("cb4 gemv", product.error()) is None


def test_launches_are_recorded_once_and_read_every_copy(
    benchmark: Import, cuda: FakeCuda, gpu: CudaArena
) -> None:
    codes, points = benchmark("gpus.codes"), benchmark("gpus.points")
    read = set()
    shipped = kernel("gemv", 2, "fp16")
    cuda.kernels[shipped.name] = lambda *arguments: read.add(arguments[4])
    place = points.Place("cuda", 4000)
    product = codes.CodesProduct(points.Point(1, 16, 96), place, codes.Form("gemv", 2), gpu)
    timed = benchmark("gpus.lanes").Timed(codes.DriverLane(gpu), product, 20)
    assert timed.microseconds(1e-4) > 0
    assert len(read) == product.copies == 11
    assert cuda.recorded == 1 < cuda.launched


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("name", ["cublas fp16", "torch int4", "copy"])
def test_others_are_right_too(benchmark: Import, name: str, rows: int) -> None:
    pytest.importorskip("torch")
    contestants, points = benchmark("gpus.contestants"), benchmark("gpus.points")
    lane, make = contestants.contestant(name, points.Place("cpu", 20_000))
    product = make(points.Point(rows, 96, 256))
    assert benchmark("gpus.lanes").Timed(lane, product, 2).microseconds(1e-4) > 0
    assert product.error() <= contestants.tolerance(name)


class Answers:
    """Stands for running contestants."""

    def __init__(self, answers: dict[str, list[dict[str, Any]]]) -> None:
        self.running: dict[str, Any] = dict.fromkeys(answers)
        self.failures = {"gone": "no such package"}
        self.restarted: list[str] = []
        self._answers = {name: iter(own) for name, own in answers.items()}

    def ask(self, name: str, request: object) -> dict[str, Any]:
        return next(self._answers[name])

    def restart(self, name: str) -> None:
        self.restarted.append(name)


def test_what_is_wrong_is_not_timed(benchmark: Import) -> None:
    right = {"error": 1e-4, "nbytes": 5}
    answers: dict[str, list[dict[str, Any]]] = {
        "copy": [right, *({**right, "us": us} for us in (3.0, 9.0, 4.0))],
        "cb4 gemv": [{**right, "error": float("nan")}],
        "cb4 gemm": [right, {**right, "us": 1.0}, {**right, "us": 1.0, "error": 0.5}],
        "torch int4": [{"failure": "RuntimeError: no"}],
    }
    workers = Answers(answers)
    found = benchmark("gpus.rounds").time_products(workers, {}, 1.0, 3)
    assert found["us"] == {"copy": 4.0}
    assert set(found["failures"]) == {"gone", "cb4 gemv", "cb4 gemm", "torch int4"}
    assert found["failures"]["cb4 gemm"].startswith("wrong: 5.0e-01")
    assert workers.restarted == ["cb4 gemv", "torch int4", "cb4 gemm"]


def test_tables_say_what_was_reached(benchmark: Import, capsys: pytest.CaptureFixture[str]) -> None:
    us = {"copy": 1000.0, "read": 1000.0, "cublas fp16": 12.0, "cb4 gemv": 4.0, "cb4 gemm": 5.0}
    nbytes = {"copy": 3_000_000_000, "read": 2_000_000_000, "cb4 gemv": 8_400_000}
    facts = {"gpu": "Fake", "sm": 90, "driver": "13.0", "date": "2026-01-01"}
    steps = {"first_ms": 3.0, "per_token_ms": 0.5, "version": "torch 2"}
    benchmark("gpus.tables").print_tables(
        [
            {
                "kind": "product",
                "shape": "4096x4096",
                "rows": 1,
                "us": us,
                "nbytes": nbytes,
                "failures": {"torch int4": "no"},
                **facts,
            },
            {
                "kind": "steps",
                "model": "t5-small",
                "rows": 1,
                "source": 64,
                "new_tokens": 64,
                "programs": {"a": steps},
                "reference": "b",
                "failures": {},
                **facts,
            },
            {"kind": "check", "kernel": "cb4 gemv", "products": 40, "error": 0.1, "right": False}
            | facts,
        ]
    )
    printed = capsys.readouterr().out
    assert "| 4096x4096 cb4 gemv, of bandwidth | 0.70 | >= 0.6 | met |" in printed
    assert "| 4096x4096 cb4 gemv, cublas fp16 : cb4 gemv | 3.00 | >= 2.5 | met |" in printed
    assert "WRONG" in printed
    assert "4.0 gemv" in printed


def test_first_tokens_decide(benchmark: Import) -> None:
    common = benchmark("gpus.rounds").common
    assert common([1, 2, 3], [1, 2, 4]) == 2
    assert common([1, 2], [1, 2, 4]) == 2
    assert common([], [1]) == 0


def test_ends_in_a_sentence_where_there_is_no_gpu(root: Path, tmp_path: Path) -> None:
    try:
        driver()
    except (DeviceError, MissingDependencyError) as error:
        reason = str(error)
    else:
        pytest.skip("there is a GPU")
    command = [sys.executable, str(root / "benchmarks" / "gpu.py"), "check"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=tmp_path, env=BESIDE
    )
    assert done.returncode == 3
    assert done.stderr == f"Error: {reason}\n"
    assert not [*tmp_path.iterdir()]


def test_a_benchmark_that_was_stopped_goes_on(root: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    results = tmp_path / "results.jsonl"
    command = [sys.executable, str(root / "benchmarks" / "gpu.py"), "products", "--device", "cpu"]
    command += ["--json", str(results), "--shape", "64x32", "--contestant", "cublas fp16"]
    command += ["--budget", "0.001", "--rounds", "1", "--launches", "2", "--rotate", "0"]
    for rows in (["-m", "1"], ["-m", "1", "-m", "2"]):
        subprocess.run([*command, *rows], check=True, capture_output=True, cwd=tmp_path, env=BESIDE)
    found = [json.loads(line) for line in results.read_text().splitlines()]
    assert [result["rows"] for result in found] == [1, 2]
    assert all(result["us"]["cublas fp16"] > 0 for result in found)


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["t5", "llama"])
def test_a_compiled_step_chooses_what_torch_chooses(
    benchmark: Import, tmp_path: Path, shape: str
) -> None:
    torch = pytest.importorskip("torch")
    write = importlib.import_module("tests.export.tiny").write
    decode = benchmark("gpu_decode")
    folder = write(tmp_path / shape, shape)
    sources = [[5, 6, 7, 8], [9, 8, 7, 6]]
    tokens = []
    for setting in ("eager", "compiled"):
        task = benchmark("protocol").Task(folder, setting, 1, sources, 12)
        torch.manual_seed(0)  # the head of the tiny Llama is not in its checkpoint
        generate = decode.checkpoint(task, "cpu", "eager")
        assert generate(6) == generate(12)[:6]
        tokens.append(generate(12))
    assert tokens[0] == tokens[1]


@pytest.mark.gpu
def test_shipped_kernels_equal_numpy_on_this_gpu(benchmark: Import) -> None:
    found = [*benchmark("gpus.checking").check(arena())]
    assert [result["kernel"] for result in found if not result["right"]] == []
