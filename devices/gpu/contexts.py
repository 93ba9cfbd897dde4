"""Execution contexts of an engine, and the kernels that TensorRT-RTX compiles for them."""

from __future__ import annotations

import logging
import weakref
from pathlib import Path
from typing import Any

from edgedec.devices.gpu.bindings import titled
from edgedec.devices.gpu.engine import Engine
from edgedec.errors import DeviceError

logger = logging.getLogger(__name__)


class Contexts:
    """Makes contexts whose memory for activations is ours.

    TensorRT-RTX compiles its kernels when contexts are made. All share one cache of them, which is
    read from a file and written back when the engine is closed; TensorRT's engines hold theirs.

    Args:
        engine: the engine.
        kernels: file of compiled kernels, which may not be there yet; None for no file.
    """

    def __init__(self, engine: Engine, kernels: Path | None) -> None:
        self._engine = engine
        module = engine.module
        self._how = module.ExecutionContextAllocationStrategy.USER_MANAGED
        if not hasattr(module, "IRuntimeCache"):
            return
        config = engine.cuda.create_runtime_config()
        config.set_execution_context_allocation_strategy(self._how)
        # By default, general kernels run until special ones are compiled: a recording would keep
        # the general ones, or name kernels that are gone.
        strategy = module.DynamicShapesKernelSpecializationStrategy.EAGER
        config.dynamic_shapes_kernel_specialization_strategy = strategy
        cache = config.create_runtime_cache()
        if kernels is not None:
            if kernels.is_file() and not cache.deserialize(kernels.read_bytes()):
                logger.debug("%s is of another machine: its kernels are compiled again", kernels)
            weakref.finalize(self, _save, cache, kernels)
        config.set_runtime_cache(cache)
        self._how = config

    def new(self) -> Any:
        """A context.

        Raises:
            DeviceError: TensorRT makes none.
        """
        context = self._engine.cuda.create_execution_context(self._how)
        if context is None:
            raise DeviceError(
                f"{titled(self._engine.module)} gives no execution context "
                f"({self._engine.last_error()}): look at nvidia-smi for memory that others use."
            )
        return context


def _save(cache: Any, path: Path) -> None:
    """Write what was compiled; a later process does without where that fails."""
    try:
        data = bytes(cache.serialize())
        if path.is_file() and path.stat().st_size == len(data):
            return
        fresh = path.with_suffix(".new")
        fresh.write_bytes(data)
        fresh.replace(path)
    except Exception as error:  # noqa: BLE001 - it is only a matter of time
        logger.debug("compiled kernels are not kept: %s", error)
