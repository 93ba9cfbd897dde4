"""Sizes of files and folders, in bytes and for people."""

from __future__ import annotations

from pathlib import Path


def folder_bytes(folder: Path) -> int:
    """Sum the sizes of all files below `folder`, in bytes."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def model_bytes(path: Path) -> int:
    """The bytes of an ONNX model, with the file beside it that holds the weights of a large one."""
    beside = path.with_name(f"{path.name}.data")
    return sum(file.stat().st_size for file in (path, beside) if file.is_file())


def human_bytes(count: int) -> str:
    """Write a size with decimal prefixes: `308.1 MB`."""
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.2f} GB"
