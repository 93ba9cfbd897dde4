"""The kernels that are shipped: what they are made of, and that assemblers take them.

No GPU runs them here.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from edgedec.errors import DeviceError
from edgedec.kernels import ptx
from edgedec.kernels.ptx import Kernel, kernel, kernels
from edgedec.quantize.codebook import BITS

TARGETS = (80, 86, 87, 89, 90, 100, 120)
MOST_SHARED = 48 << 10
"""Bytes that a launch has without asking for more."""
MOST_REGISTERS = 168
"""Of a thread, so that an SM holds three blocks of four warps."""
KERNELS = pytest.mark.parametrize("shipped", kernels(), ids=lambda k: k.name)


@cache
def assembler() -> str:
    """NVIDIA's ``ptxas``: the one of CUDA, or the one that knows Blackwell of Triton."""
    found = shutil.which("ptxas")
    if found is None and (spec := importlib.util.find_spec("triton")) and spec.origin:
        beside = Path(spec.origin).parent / "backends" / "nvidia" / "bin" / "ptxas-blackwell"
        found = str(beside) if beside.is_file() else None
    if found is None:
        pytest.skip("there is no ptxas: install CUDA's nvcc or Triton")
    return found


def test_there_is_a_kernel_for_every_form() -> None:
    forms = {(k.tactic, k.bits, k.dtype) for k in kernels()}
    assert forms == {(t, b, d) for t in ("gemv", "gemm") for b in BITS for d in ("fp16", "bf16")}
    assert len({k.name for k in kernels()}) == len(kernels()) == len(forms)
    assert {path.name for path in ptx.FOLDER.glob("*.ptx")} == {k.file for k in kernels()}
    with pytest.raises(ValueError, match="no gemv kernel for codes of 5 bits"):
        kernel("gemv", 5, "fp16")


@KERNELS
def test_the_text_is_what_the_manifest_says(shipped: Kernel) -> None:
    text = shipped.ptx()
    entry = re.search(r"\.entry (\w+)\(([^)]*)\)\s*\.reqntid (\d+)", text)
    assert entry
    assert entry[1] == shipped.name
    # one that TensorRT does not pass would be read from beyond the last
    types = [line.split()[1] for line in entry[2].split(",")]
    assert types == [".u64"] * 5 + [".u32"] * 3 + [".u64"]
    assert shipped.parameters == ("x", "words", "levels", "groups", "scales", "M", "N", "K", "y")
    assert int(entry[3]) == shipped.threads
    assert ".version 8.0" in text
    assert ".target sm_80" in text
    assert "//" not in text
    assert 0 < shipped.shared <= MOST_SHARED


def test_grids_cover_the_result_and_no_more() -> None:
    for shipped in kernels():
        for m, n in ((1, 1), (16, 512), (17, 4097)):
            x, y, z = shipped.grid(m, n)
            assert (x - 1) * shipped.block_n < n <= x * shipped.block_n
            assert (y - 1) * shipped.block_m < m <= y * shipped.block_m
            assert z == 1


@pytest.mark.parametrize("target", TARGETS)
def test_assemblers_take_it_for_every_target(target: int, tmp_path: Path) -> None:
    files = [ptx.FOLDER / k.file for k in kernels()]
    for file in files:
        result = subprocess.run(
            [assembler(), "-v", f"-arch=sm_{target}", "-o", str(tmp_path / "out"), str(file)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        assert "0 bytes spill stores, 0 bytes spill loads" in result.stderr
        registers = re.search(r"Used (\d+) registers", result.stderr)
        assert registers
        assert int(registers[1]) <= MOST_REGISTERS, file.name


def test_damage_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = kernel("gemv", 4, "fp16")
    monkeypatch.setattr(ptx, "FOLDER", tmp_path)
    with pytest.raises(DeviceError, match="missing or damaged: install edgedec again"):
        shipped.ptx()
    (tmp_path / shipped.file).write_text("other")
    with pytest.raises(DeviceError, match=r"gemv_cb4_fp16\.ptx is missing or damaged"):
        shipped.ptx()
    with pytest.raises(dataclasses.FrozenInstanceError):
        shipped.warps = 8  # type: ignore[misc]


COMPILE = """
import sys
from pathlib import Path
from edgedec.kernels.triton.compile import RECIPES, compiled
for tactic, bits, dtype in (("gemv", 4, "fp16"), ("gemm", 3, "bf16")):
    recipe = next(r for r in RECIPES if (r.tactic, r.bits) == (tactic, bits))
    kernel, text = compiled(recipe, dtype)
    Path(sys.argv[1], kernel.file).write_text(text, newline="")
"""


def test_the_source_compiles_to_what_is_shipped(tmp_path: Path) -> None:
    # two of them, which have all of the source between them; Triton may abort the process
    triton = pytest.importorskip("triton", reason="Triton is not installed")
    if f'"triton": "{triton.__version__}"' not in ptx.MANIFEST.read_text(encoding="utf-8"):
        pytest.skip(f"the kernels were not compiled by Triton {triton.__version__}")
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path / "cache"), "PYTHONSAFEPATH": "1"}
    folder = tmp_path / "ptx"
    folder.mkdir()
    command = [sys.executable, "-c", COMPILE, str(folder)]
    subprocess.run(command, check=True, env=environment, cwd=tmp_path)
    written = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert len(written) == 2
    assert written == {name: (ptx.FOLDER / name).read_bytes() for name in written}
