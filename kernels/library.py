"""The operator library: where it is, and whether ONNX Runtime may load it.

Without it a model's nodes of domain ``edgedec`` run by their function bodies: the same operators in
standard ONNX, with the memory and about the speed of float32 weights.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
from pathlib import Path
from typing import Any

from edgedec.errors import InputError

OLDEST, NEWEST = (1, 24), (1, 32)
"""The versions of ONNX Runtime whose interface the library was written for and tested with."""

LIBRARY = {"darwin": "libedgedec_ops.dylib", "win32": "edgedec_ops.dll"}.get(
    sys.platform, "libedgedec_ops.so"
)
"""As in `edgedec.kernels.cpu.build`, which takes longer to import than there is time for here."""
REBUILD = "python -m edgedec.kernels.cpu.build"

logger = logging.getLogger("edgedec")


def library_path() -> Path | None:
    """The compiled library, None where the package was installed without it.

    ``EDGEDEC_LIBRARY`` names another file, e.g. one that was built with sanitizers.
    """
    named = os.environ.get("EDGEDEC_LIBRARY")
    path = Path(named).absolute() if named else Path(__file__).with_name(LIBRARY)
    return path if path.is_file() else None


def register(options: Any) -> str | None:
    """Let sessions with these options run nodes of domain ``edgedec`` by the library.

    The first failure of a process is logged as a warning; models work all the same. For models
    without such nodes there is no reason to call this.

    Args:
        options: an ``onnxruntime.SessionOptions``.

    Returns:
        None if the library is registered, else one sentence: why not, and what to do.

    Raises:
        InputError: ``EDGEDEC_ISA`` asks for an instruction set that is not there.
    """
    import onnxruntime

    refusal = refused(onnxruntime.__version__)
    path = library_path()
    if path is None and os.environ.get("EDGEDEC_LIBRARY"):
        refusal = f"EDGEDEC_LIBRARY names {os.environ['EDGEDEC_LIBRARY']}, which is no file."
    elif path is None:
        refusal = (
            f"edgedec was installed without its operator library {LIBRARY}; with a C++ compiler, "
            f"`{REBUILD}` adds it."
        )
    elif refusal is None:
        try:
            options.register_custom_ops_library(str(path))
        except Exception as error:
            found = _first(error)
            if (at := found.find("EDGEDEC_ISA=")) >= 0:
                raise InputError(f"{found[at:]}.") from error
            refusal = f"ONNX Runtime {onnxruntime.__version__} refuses {path}: {found}"
    if refusal is not None:
        _warn(refusal)
    return refusal


def refused(version: str) -> str | None:
    """Why the library is not used with that version of ONNX Runtime; None if it is."""
    try:
        major, minor = (int(part) for part in version.split(".")[:2])
    except ValueError:
        major = minor = 0
    if OLDEST <= (major, minor) <= NEWEST:
        return None
    return (
        f"the operator library works with ONNX Runtime {_dotted(OLDEST)} to {_dotted(NEWEST)}, and "
        f"this is {version}; `pip install 'onnxruntime=={_dotted(NEWEST)}.*'` installs one of them."
    )


@functools.cache
def _warn(refusal: str) -> None:
    logger.warning("Codebook weights run slowly here: %s", refusal)


def _first(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
