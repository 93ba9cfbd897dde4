"""What tests of NPUs share: the simulator of Qualcomm's, where its wheel can be installed."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.export.tiny import write

from edgedec.devices.qnn import Qnn, device
from edgedec.devices.qnn_library import is_simulator, missing
from edgedec.export import export_checkpoint


@pytest.fixture(scope="session")
def simulator() -> Qnn:
    """The simulated NPU of the default SoC, without fallback to the CPU."""
    reason = missing()
    if reason is None and not is_simulator():
        reason = "the wheel for this processor contains no simulator"
    if reason is not None:
        pytest.skip(f"needs the NPU's simulator: {reason}")
    return device(None, allow_fallback=False)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Family -> a random checkpoint of it without a tokenizer."""
    root = tmp_path_factory.mktemp("checkpoints")
    return {family: write(root / family, family) for family in ("t5", "llama")}


@pytest.fixture(scope="session")
def plain(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The T5 as a bundle as docs/bundle.md has it."""
    out = tmp_path_factory.mktemp("plain") / "t5"
    return export_checkpoint(checkpoints["t5"], out, verify=False)


@pytest.fixture(scope="session")
def coded(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with codes of 8 bits."""
    out = tmp_path_factory.mktemp("coded") / "t5"
    return export_checkpoint(checkpoints["t5"], out, quant="int8", compute="fp32", verify=False)
