"""Which part of the model a node belongs to: names of nodes are paths of modules."""

from __future__ import annotations

import re

OTHER = "other"
"""Nodes without a path: operators' function bodies, and what ONNX Runtime put in."""
_LAYER = re.compile(r"(?:encoder|decoder)\.\d+\.[a-z]\w*")
_PART = re.compile(r"(?:encoder|decoder)\.[a-z]\w*|(?:head|router|meta)(?!\w)")
_CROSS = re.compile(r"decoder\.(\d+)\.cross_attn\.(kv|k|v)(?![a-zA-Z0-9])")


def part_of(node: str) -> str:
    """A block of a layer (``decoder.3.self_attn``), or another part (``decoder.embed``, ``head``).

    Args:
        node: its name.
    """
    found = _LAYER.match(node) or _PART.match(node)
    return found[0] if found else OTHER


def cross_projection(node: str) -> tuple[int, str] | None:
    """Which projection of the encoder's states a node belongs to; None for all others.

    Returns:
        The decoder's layer, and ``k``, ``v``, or ``kv`` where one product computes both.
    """
    found = _CROSS.match(node)
    return None if found is None else (int(found[1]), found[2])
