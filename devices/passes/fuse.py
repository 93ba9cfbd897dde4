"""Join products of one module that read the same value: query, key and value; gate and up."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence

from edgedec.devices.passes.linear import Linear
from edgedec.quantize.codebook import BLOCK_ROWS

MOST = 3
"""Outputs that our product can have."""
SEPARATOR = re.compile(r"[./](?=[^./]*$)")


def group_linears(linears: Iterable[Linear]) -> list[list[Linear]]:
    """Sort products into groups that become one node each, in the order of the first of each.

    A group reads one value, has one parent module and at most three members, whose rows are
    multiples of 16: a block of rows shares a codebook.
    """
    groups: list[list[Linear]] = []
    open_groups: dict[tuple[int, str], list[Linear]] = {}
    for linear in linears:
        key = id(linear.x), module(linear)[0]
        group = open_groups.get(key)
        fits = linear.matrix.rows % BLOCK_ROWS == 0 and linear.matrix.role == "linear"
        if fits and group is not None and len(group) < MOST:
            group.append(linear)
            continue
        groups.append([linear])
        if fits:
            open_groups[key] = groups[-1]
    return groups


def split_groups(
    groups: Sequence[Sequence[Linear]], keys: Mapping[Linear, Hashable]
) -> list[list[Linear]]:
    """Split groups until any two of them hold the same matrices, or none in common.

    A graph that needs keys and values only shares them with one that needs queries too, which then
    are a group of their own.

    Args:
        groups: of all graphs of a model.
        keys: the same for the same matrix.
    """
    used: dict[Hashable, set[int]] = {}
    for number, group in enumerate(groups):
        for linear in group:
            used.setdefault(keys[linear], set()).add(number)
    found: list[list[Linear]] = []
    for group in groups:
        parts: dict[frozenset[int], list[Linear]] = {}
        for linear in group:
            parts.setdefault(frozenset(used[keys[linear]]), []).append(linear)
        found += parts.values()
    return found


def module(linear: Linear) -> tuple[str, str]:
    """A product's parent module with the separator, and its own name: ``decoder.3.mlp.``, ``up``.

    Optimum's nodes are named ``/decoder/layers.3/fc1/MatMul``: the operator is no module.
    """
    path = re.sub(r"/(MatMul|Gemm)(_\d+)?$", "", linear.name)
    found = SEPARATOR.search(path)
    return (path[: found.end()], path[found.end() :]) if found is not None else ("", path)


def group_name(group: list[Linear]) -> str:
    """What a group is called as a node: ``decoder.3.self_attn.qkv``, ``decoder.3.mlp.up_gate``."""
    parents, names = zip(*(module(linear) for linear in group), strict=True)
    joint = "" if all(len(name) == 1 for name in names) else "_"
    return str(parents[0]) + joint.join(names)
