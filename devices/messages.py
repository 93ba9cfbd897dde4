"""What is worth telling of ONNX Runtime's messages, whose beginnings say where they arose."""

from __future__ import annotations

from edgedec.runtime.session import first_line


def tail(error: Exception) -> str:
    """The last line of a message, after what it quotes of callers."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return first_line(ValueError(lines[-1].rsplit(" : ", 1)[-1])).rstrip(".! ")
