"""What the extras bring: never a second ONNX Runtime, as all own the same files."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from edgedec.devices.cuda import INSTALL
from edgedec.devices.gpu.bindings import PACKAGES
from edgedec.devices.onnxruntimes import CUDA, DISTRIBUTIONS

GPU = ("gpu", "tensorrt-rtx", "tensorrt")


@pytest.fixture(scope="module")
def extras(root: Path) -> dict[str, list[str]]:
    """Extra -> requirements; those of the base install under ``""``."""
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML")
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {"": project["dependencies"], **project["optional-dependencies"]}


def name(requirement: str) -> str:
    return re.split(r"[\s\[<>=!~;]", requirement)[0]


def test_only_the_base_install_asks_for_an_onnx_runtime(extras: dict[str, list[str]]) -> None:
    for extra, requirements in extras.items():
        found = {name(requirement) for requirement in requirements} & {*DISTRIBUTIONS}
        assert found == (set() if extra else {"onnxruntime"}), extra


def test_sentences_name_extras_and_packages_that_exist(extras: dict[str, list[str]]) -> None:
    assert {*GPU} <= extras.keys()
    commands = [INSTALL, *(package.install for package in PACKAGES.values())]
    for command in commands:
        for extra in re.findall(r"edgedec\[([\w-]+)\]", command):
            assert extra in extras, command


def test_an_extra_brings_what_its_device_imports(extras: dict[str, list[str]]) -> None:
    for device, package in PACKAGES.items():
        names = {name(requirement) for requirement in extras[device]}
        assert names == {package.module.replace("_", "-"), "cuda-bindings"}


def resolved(*what: str, cwd: Path) -> dict[str, str]:
    """Distribution -> version, as pip would install them into an empty environment."""
    report = cwd / "report.json"
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
    done = subprocess.run(
        [*command, "--report", str(report), *what],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"pip resolves nothing here: {done.stderr.strip().splitlines()[-1][:200]}")
    found = json.loads(report.read_text())["install"]
    return {item["metadata"]["name"].lower(): item["metadata"]["version"] for item in found}


@pytest.mark.slow
@pytest.mark.network
def test_a_users_one_command_leaves_exactly_one_onnx_runtime(
    extras: dict[str, list[str]], tmp_path: Path
) -> None:
    """By what pip says of the requirements that may bring one."""
    (base,) = (text for text in extras[""] if name(text) in DISTRIBUTIONS)
    first = resolved(base, *extras["tensorrt-rtx"], cwd=tmp_path)
    assert first.keys() & {*DISTRIBUTIONS} == {"onnxruntime"}
    assert {"tensorrt_rtx", "cuda-bindings"} <= first.keys()
    # the rest of the command for `--device cuda`
    *_, uninstall, install = INSTALL.split(" && ")
    assert uninstall == "pip uninstall -y onnxruntime"
    assert install == f"pip install {CUDA}"
    second = resolved(CUDA.strip("'"), cwd=tmp_path)
    assert second.keys() & {*DISTRIBUTIONS} == {"onnxruntime-gpu"}
    assert any(distribution.startswith("nvidia-cudnn") for distribution in second)
