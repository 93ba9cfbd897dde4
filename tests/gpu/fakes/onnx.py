"""Stands for ONNX Runtime's CUDA provider: its CPU provider, on the memory of the fake driver."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from edgedec.devices import cuda
from edgedec.devices.gpu.arena import CudaArena


class Inference:
    """A session that runs when the stream gets there: what was put on it before is done."""

    def __init__(self, session: onnxruntime.InferenceSession, memory: CudaArena) -> None:
        self._session, self._memory = session, memory
        self.runs = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run_with_iobinding(self, binding: Any) -> None:
        self._memory.device.synchronize(self._memory.stream)
        self._session.run_with_iobinding(binding)
        self.runs += 1

    def get_provider_graph_assignment_info(self) -> list[Any]:
        return []


def install(patch: pytest.MonkeyPatch) -> list[Inference]:
    """Let the device `cuda` run on the CPU; returns a list that gets what it opens."""
    opened = []

    def open_provider(graph: Path | bytes, name: str, options: Any, memory: CudaArena) -> Inference:
        session = onnxruntime.InferenceSession(
            graph, options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
        opened.append(Inference(session, memory))
        return opened[-1]

    patch.setattr(CudaArena, "kind", "cpu")
    patch.setattr(cuda, "check_installed", lambda: None)
    patch.setattr(cuda, "open_provider", open_provider)
    return opened
