"""What tests of NPUs share: the simulator of Qualcomm's, where its wheel can be installed."""

from __future__ import annotations

import pytest

from edgedec.devices.qnn import Qnn, device
from edgedec.devices.qnn_library import is_simulator, missing


@pytest.fixture(scope="session")
def simulator() -> Qnn:
    """The simulated NPU of the default SoC, without fallback to the CPU."""
    reason = missing()
    if reason is None and not is_simulator():
        reason = "the wheel for this processor contains no simulator"
    if reason is not None:
        pytest.skip(f"needs the NPU's simulator: {reason}")
    return device(None, allow_fallback=False)
