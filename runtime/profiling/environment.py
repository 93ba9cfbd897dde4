"""The machine, and what runs on it, as a profile records them."""

from __future__ import annotations

import datetime as dt
import platform
from collections.abc import Iterable

from edgedec.runtime.profiling import bandwidth, machine
from edgedec.runtime.profiling.energy import why_not
from edgedec.runtime.profiling.record import Environment


def environment(threads: Iterable[int | None]) -> Environment:
    """Describe this machine, and measure how fast it reads memory.

    Args:
        threads: numbers of threads that are going to be used, None for the device's choice.
    """
    from edgedec.devices.options import MOST_THREADS, available_cores, default_threads

    numbers = {default_threads() if number is None else number for number in threads}
    # Before the measurement, which is a load itself.
    load = machine.load()
    return Environment(
        date=dt.datetime.now(dt.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        system=platform.platform(),
        machine=platform.machine(),
        python=platform.python_version(),
        cpu=machine.cpu_model(),
        instruction_set=_instruction_set(),
        cores=available_cores(),
        cache_bytes=machine.cache_bytes(),
        memory_bytes=machine.memory_bytes(),
        governor=machine.governor(),
        boost=machine.boost(),
        hypervisor=machine.is_virtual(),
        versions=_versions(),
        bandwidth_gb_s={
            str(number): round(bandwidth.measure(number), 2)
            for number in sorted(numbers)
            if 1 <= number <= MOST_THREADS  # others fail their rows
        },
        load=load,
        energy_missing=why_not(),
    )


def _instruction_set() -> str | None:
    from edgedec.devices.base import get_device

    return get_device("cpu").report().operators[0].instruction_set


def _versions() -> dict[str, str]:
    import numpy as np
    import onnxruntime
    import tokenizers

    import edgedec

    # Asked of the modules: ONNX Runtime's distribution has several names.
    return {
        "edgedec": edgedec.__version__,
        "numpy": np.__version__,
        "onnxruntime": onnxruntime.__version__,
        "tokenizers": tokenizers.__version__,
    }
