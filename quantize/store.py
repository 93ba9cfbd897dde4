"""A folder of finished matrices, so that quantizing goes on where it was interrupted."""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgedec.errors import InputError
from edgedec.quantize.codebook import CodebookTensor
from edgedec.quantize.method import Quantized

Arrays = dict[str, NDArray[Any]]

SUFFIX = ".quantized"
ARRAYS = ("codes", "codebooks", "row_scale", "group_of_row", "row_order")
"""Fields of a `CodebookTensor` that are arrays."""

logger = logging.getLogger(__name__)


class Store:
    """Quantized matrices in files, one each, of one piece of work.

    A file is a safetensors file whose metadata tell the work's key, the matrix's name, what else a
    `Quantized` has, and a checksum. What is of other work, or damaged, is as if it weren't there.

    Args:
        folder: is made; other files in it stay.
        key: of the work: equal where everything is that a result depends on.

    Raises:
        InputError: the folder cannot be made.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder = folder
        self._key = key
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"cannot keep finished matrices in {str(folder)!r}: {error.strerror}."
            ) from error

    def load(self, name: str) -> Quantized | None:
        """The matrix that was saved by this name; None where there is none of this work."""
        from safetensors import SafetensorError, safe_open

        path = self._path(name)
        try:
            with safe_open(path, framework="np") as file:
                metadata = file.metadata() or {}
                arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            if metadata["sha256"] != _digest(metadata["facts"], arrays):
                raise ValueError("its checksum differs")
            facts = json.loads(metadata["facts"])
            return _quantized(facts, arrays) if facts["work"] == [self._key, name] else None
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            logger.info("%s is damaged and will be made again: %s", path, error)
            return None

    def save(self, name: str, quantized: Quantized) -> None:
        """Keep a matrix; a process that is killed here leaves the file as it was.

        Raises:
            InputError: it cannot be written.
        """
        from safetensors.numpy import save

        arrays = _arrays(quantized)
        facts = {
            "work": [self._key, name],
            "bits": None if quantized.tensor is None else quantized.tensor.bits,
            "bits_per_weight": quantized.bits_per_weight,
            "trace": quantized.trace,
        }
        metadata = {"facts": json.dumps(facts)}
        metadata["sha256"] = _digest(metadata["facts"], arrays)
        path = self._path(name)
        try:
            data = save(arrays, metadata)
            with tempfile.NamedTemporaryFile(
                dir=self.folder, prefix=path.stem, suffix=".partial" + SUFFIX, delete=False
            ) as file:
                file.write(data)
            Path(file.name).replace(path)
        except OSError as error:
            raise InputError(
                f"cannot keep finished matrices in {str(self.folder)!r}: {error.strerror}."
            ) from error

    def _path(self, name: str) -> Path:
        # Names of graphs may hold anything; a digest is a file name everywhere.
        return self.folder / (hashlib.sha256(name.encode()).hexdigest()[:32] + SUFFIX)


def _arrays(quantized: Quantized) -> Arrays:
    if quantized.tensor is None:
        assert quantized.values is not None
        return {"values": np.ascontiguousarray(quantized.values)}
    fields = {name: getattr(quantized.tensor, name) for name in ARRAYS}
    return {name: np.ascontiguousarray(v) for name, v in fields.items() if v is not None}


def _quantized(facts: Mapping[str, Any], arrays: Arrays) -> Quantized:
    bits = facts["bits"]
    return Quantized(
        tensor=None if bits is None else CodebookTensor(**arrays, bits=bits),
        values=arrays["values"] if bits is None else None,
        bits_per_weight=facts["bits_per_weight"],
        trace=tuple(facts["trace"]),
    )


def _digest(facts: str, arrays: Arrays) -> str:
    digest = hashlib.sha256(facts.encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
