"""Which part of the model a node belongs to: names of nodes are paths of modules."""

from __future__ import annotations

import re

OTHER = "other"
"""Nodes without a path: operators' function bodies, and what ONNX Runtime put in."""
_LAYER = re.compile(r"(?:encoder|decoder)\.\d+\.[a-z]\w*")
_PART = re.compile(r"(?:encoder|decoder)\.[a-z]\w*|(?:head|router|meta)(?!\w)")
_CROSS = re.compile(
    r"decoder\.(\d+)\.cross_attn\.(kv|k|v)(?![a-zA-Z0-9])"
    # Graphs that were traced: .../block.0/layer.1/EncDecAttention/k/MatMul, .../k_proj/MatMul
    r"|decoder\./.*?\.(\d+)/.*/([kv])(?:_proj)?/"
)
_NUMBERED = re.compile(r".*\.\d+")


def part_of(node: str) -> str:
    """A block of a layer (``decoder.3.self_attn``), or another part (``decoder.embed``, ``head``).

    Args:
        node: its name.
    """
    if "/" in node:
        return _traced_part(node)
    found = _LAYER.match(node) or _PART.match(node)
    return found[0] if found else OTHER


def cross_projection(node: str) -> tuple[int, str] | None:
    """Which projection of the encoder's states a node belongs to; None for all others.

    Args:
        node: of the encoder's component.

    Returns:
        The decoder's layer, and ``k``, ``v``, or ``kv`` where one product computes both.
    """
    found = _CROSS.match(node)
    if found is None:
        return None
    layer, part = (group for group in found.groups() if group is not None)
    return int(layer), part


def _traced_part(node: str) -> str:
    """Of a graph that was traced, whose modules have the names of the original code.

    ``/decoder/layers.0/self_attn/q_proj/MatMul`` is in ``decoder.layers.0.self_attn``: up to the
    last number, and one more.
    """
    modules = [module for module in node.split("/")[1:-1] if module]
    numbered = [index for index, module in enumerate(modules) if _NUMBERED.fullmatch(module)]
    return ".".join(modules[: numbered[-1] + 2 if numbered else 2]) or OTHER
