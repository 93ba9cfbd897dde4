"""Options of ONNX Runtime's sessions that every device sets alike."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from edgedec.errors import InputError

MAX_DEFAULT_THREADS = 4
"""Decoding one sequence is bound by memory: more threads than this rarely help and often hurt."""
MOST_THREADS = 1024


def session_options(threads: int | None, shared: bool, records: Path | None) -> Any:
    """Options for a session, as `Device.open` was asked for it.

    Raises:
        InputError: so many threads cannot be.
    """
    import onnxruntime

    if threads is None:
        threads = default_threads()
    if not 1 <= threads <= MOST_THREADS:
        raise InputError(
            f"threads must be a whole number from 1 to {MOST_THREADS:,}, not {threads!r}."
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # warnings speak of graph internals; errors come as exceptions
    # Shapes change from step to step, and a plan per shape would be kept for each.
    options.enable_mem_pattern = False
    # ONNX Runtime 1.32 makes one operator of a product with integer weights, and rounds its inputs
    # to 8 bits, where the graph has 16, unless it is told not to.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    if shared and threads > 1:
        # Idle threads of one session would spin on the cores that the next one wants.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if records is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(records)
    return options


def default_threads(cores: int | None = None) -> int:
    """Threads of a session that was asked for none, on a machine of so many cores; None: here."""
    return min(available_cores() if cores is None else cores, MAX_DEFAULT_THREADS)


def available_cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
