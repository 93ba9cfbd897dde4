"""What the steps of a ladder share: a device, and sessions on it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedec.devices.gpu.arena import CudaArena, arena
from edgedec.errors import DeviceError
from edgedec.runtime.session import Session

if TYPE_CHECKING:
    from edgedec.devices.gpu.build import Profile

TIME_LIMIT = 600
"""Seconds that an export of the built-in model may take."""


class Ground:
    """A device that is tried step by step.

    Args:
        device: its name.
        folder: for what is written on the way.

    Attributes:
        device: its name.
    """

    def __init__(self, device: str, folder: str) -> None:
        self.device = device
        self._folder = Path(folder)

    @property
    def arena(self) -> CudaArena:
        """The GPU's memory."""
        return arena()

    @cached_property
    def module(self) -> Any:
        """TensorRT's module."""
        from edgedec.devices.gpu.bindings import load

        return load(self.device)

    def build(self, graph: bytes, profiles: Sequence[Profile], *, plugin: bool = False) -> bytes:
        """An engine of a graph."""
        from edgedec.devices.gpu.build import build_engine

        return build_engine(self.module, graph, profiles, plugin=plugin)

    def open(
        self, graph: bytes, profiles: Sequence[Profile], name: str, *, plugin: bool = False
    ) -> Session:
        """A graph, ready to run on the GPU."""
        if self.device == "cuda":
            from edgedec.devices.cuda import Cuda

            return Cuda().open_graph(graph, name)
        from edgedec.devices.gpu.contexts import Contexts
        from edgedec.devices.gpu.engine import Engine
        from edgedec.devices.gpu.engine_session import EngineSession

        built = self.build(graph, profiles, plugin=plugin)
        engine = Engine(self.module, built, name, self.arena)
        return EngineSession(name, engine, self.arena, Contexts(engine, None))

    def open_attention(self) -> Session:
        """Attention over a cache (`edgedec.devices.gpu.probes.attention`), opened anew."""
        from edgedec.devices.gpu.probes.attention import attention, attention_profiles

        graph = attention(decomposable=self.device != "cuda")
        return self.open(graph, attention_profiles(), "attention")

    @cached_property
    def attention(self) -> Session:
        """The same, opened once."""
        return self.open_attention()

    @cached_property
    def coded(self) -> Path:
        """The built-in model with codes of 4 bits, as a bundle; the CPU rounds no inputs.

        Raises:
            DeviceError: it cannot be exported.
        """
        folder = self._folder / "g2p"
        # Devices know nothing of exports: the command line does.
        words = ["export", "g2p", "--quant", "cb4", "--compute", "fp32", "--method", "kmeans"]
        words += ["--no-verify", "--output", str(folder), "--quiet"]
        done = subprocess.run(
            [sys.executable, "-m", "edgedec", *words],
            capture_output=True,
            text=True,
            timeout=TIME_LIMIT,
            check=False,
        )
        if done.returncode:
            raise DeviceError(f"edgedec {' '.join(words)} failed: {done.stderr.strip()[-300:]}")
        return folder
