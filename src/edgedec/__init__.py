"""Export small sequence models to ONNX and run them at the edge.

    import edgedec

    edgedec.export("google/flan-t5-small", "flan-t5-small.edgedec")
    generator = edgedec.load("flan-t5-small.edgedec")
    print(generator.generate("translate English to German: Good morning.")[0].text)

Importing this package imports nothing else: each name below is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgedec.errors import (
        BundleError,
        CheckFailedError,
        CheckpointError,
        DeviceError,
        EdgedecError,
        InputError,
        MissingDependencyError,
    )
    from edgedec.export import export_checkpoint as export
    from edgedec.runtime.generator import load

    __version__: str

__all__ = [
    "BundleError",
    "CheckFailedError",
    "CheckpointError",
    "DeviceError",
    "EdgedecError",
    "InputError",
    "MissingDependencyError",
    "__version__",
    "export",
    "load",
]

_HOME = {
    "BundleError": "edgedec.errors",
    "CheckFailedError": "edgedec.errors",
    "CheckpointError": "edgedec.errors",
    "DeviceError": "edgedec.errors",
    "EdgedecError": "edgedec.errors",
    "InputError": "edgedec.errors",
    "MissingDependencyError": "edgedec.errors",
    "load": "edgedec.runtime.generator",
}


if not TYPE_CHECKING:  # type checkers shall report names that do not exist

    def __getattr__(name: str) -> object:
        if name == "__version__":
            from importlib.metadata import version

            value: object = version("edgedec")
        elif name == "export":
            # The sub-package itself, which is callable; importing it binds it to this name.
            return import_module("edgedec.export")
        elif name in _HOME:
            value = getattr(import_module(_HOME[name]), name)
        else:
            raise AttributeError(f"module 'edgedec' has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
