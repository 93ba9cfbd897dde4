"""Read what a bare ONNX model is calibrated on: files of arrays, each for one run of it."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgedec.errors import InputError
from edgedec.quantize.calibration.inputs import GivenInputs

DAMAGED = (
    *(EOFError, KeyError, MemoryError, NotImplementedError, OSError, OverflowError),
    *(RuntimeError, SyntaxError, UnicodeError, ValueError, zipfile.BadZipFile, zlib.error),
)
"""What reading a damaged or hostile archive raises."""


def read_arrays(path: Path, inputs: Sequence[ir.Value]) -> dict[Path, GivenInputs]:
    """Read an archive of arrays, or all ``.npz`` of a folder in the order of their names.

    Args:
        path: a ``.npz`` file, or a folder.
        inputs: of the graph; each archive has exactly one array for each, by name.

    Raises:
        InputError: no such file, or arrays that do not fit the inputs.
    """
    files = sorted(path.glob("*.npz")) if path.is_dir() else [path]
    if not files:
        raise InputError(f"--calib {str(path)!r}: there is no .npz file in this folder.")
    return {file: GivenInputs(_read(file, inputs)) for file in files}


def _read(file: Path, inputs: Sequence[ir.Value]) -> dict[str, NDArray[Any]]:
    names = [str(value.name) for value in inputs]
    try:
        archive = np.load(file, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("it is a single array, not an archive of them")
        with archive:
            _check_names(file, archive.files, names)
            arrays = {name: archive[name] for name in names}
    except FileNotFoundError as error:
        raise InputError(f"--calib {str(file)!r}: there is no such file.") from error
    except DAMAGED as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(
            f"{str(file)!r} cannot be read as a .npz archive of arrays ({reason[0][:200]}): write "
            "it with numpy.savez."
        ) from error
    return {str(value.name): _fitting(file, value, arrays[str(value.name)]) for value in inputs}


def _check_names(file: Path, found: Sequence[str], wanted: Sequence[str]) -> None:
    listed = ", ".join(map(repr, wanted))
    for name in wanted:
        if name not in found:
            raise InputError(
                f"{str(file)!r} has no array for the model's input {name!r} (inputs: {listed})."
            )
    for name in found:
        if name not in wanted:
            raise InputError(
                f"{str(file)!r} has an array {name[:80]!r}, which is no input of the model "
                f"(inputs: {listed})."
            )


def _fitting(file: Path, value: ir.Value, array: NDArray[Any]) -> NDArray[Any]:
    """The array as ONNX Runtime takes it."""
    where = f"{str(file)!r}: the array for input {value.name!r}"
    if not isinstance(array, np.ndarray):
        raise InputError(f"{where} is no array: write the file with numpy.savez.")
    array = np.asarray(array, array.dtype.newbyteorder("="), order="C")
    if value.dtype is None or not isinstance(value.type, ir.TensorType):
        raise InputError(f"{where} cannot be given: the model's input is no tensor of known type.")
    wanted = value.dtype.numpy()
    if array.dtype != wanted:
        raise InputError(f"{where} is {array.dtype}, and the model wants {wanted}.")
    if array.dtype.kind == "f" and np.isnan(array).any():
        raise InputError(f"{where} has values that are no numbers (NaN).")
    if value.shape is not None:
        lengths = [n if isinstance(n, int) else None for n in value.shape]
        fits = len(lengths) == array.ndim and all(
            length in (None, found) for length, found in zip(lengths, array.shape, strict=True)
        )
        if not fits:
            shape = ", ".join("?" if n is None else str(n) for n in lengths)
            raise InputError(
                f"{where} has the shape {list(array.shape)}, and the model wants [{shape}]."
            )
    return array
