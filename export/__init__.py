"""Turn a checkpoint into a bundle: read the facts, build the graphs, verify, write.

The package can be called: `edgedec.export(checkpoint, out)` is `export_checkpoint(checkpoint, out)`.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from os import PathLike
    from pathlib import Path


def export_checkpoint(
    checkpoint: str | PathLike[str],
    out: str | PathLike[str],
    *,
    quant: str | None = None,
    stages: str | Sequence[int] | None = None,
    dtype: str = "fp32",
    revision: str | None = None,
    via: str | None = None,
    verify: bool = True,
    force: bool = False,
    progress: Callable[[str, float], None] | None = None,
) -> Path:
    """Export a checkpoint into the bundle folder `out` and return its path."""
    raise NotImplementedError


class _CallableModule(ModuleType):
    """Lets `edgedec.export` be both the package and the function of the public API."""

    def __call__(self, *args: Any, **options: Any) -> Path:
        return export_checkpoint(*args, **options)


sys.modules[__name__].__class__ = _CallableModule
