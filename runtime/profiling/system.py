"""Files in which Linux tells about the machine; other systems have none of them."""

from __future__ import annotations

from pathlib import Path

PROC = Path("/proc")
SYS = Path("/sys")


def read(path: Path) -> str | None:
    """The text of a file without white space around it; None where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def read_number(path: Path) -> int | None:
    """The whole number in a file; None where there is none."""
    text = read(path)
    try:
        return None if text is None else int(text)
    except ValueError:
        return None
