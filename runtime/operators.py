"""What a node of edgedec's own operators may say (docs/bundle.md lists them).

A bundle may come from a stranger, and attributes decide how far a kernel reads. They are checked
here, before any runtime sees them; shapes of tensors are the kernels' own business.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

DOMAIN = "edgedec"
VERSION = 1
LARGEST = (1 << 31) - 1

Value = int | float | str | tuple[int, ...]
Rule = Callable[[Value | None], bool]


def one_of(*values: int | str) -> Rule:
    """The value is one of these."""
    return lambda value: value in values and type(value) is not float


def between(lowest: int, highest: int) -> Rule:
    """The value is a whole number from the lowest to the highest."""
    return lambda value: isinstance(value, int) and lowest <= value <= highest


def _finite(value: Value | None) -> bool:
    return isinstance(value, float) and math.isfinite(value)


def _not_negative(value: Value | None) -> bool:
    return isinstance(value, float) and 0 <= value < math.inf


def _splits(value: Value | None) -> bool:
    """Widths of the three outputs: the first always, the others where they are used."""
    return (
        isinstance(value, tuple)
        and len(value) == 3
        and all(width >= 0 for width in value)
        and value[0] > 0
        and sum(value) <= LARGEST
    )


_BITS = one_of(2, 3, 4, 8)
_ATTENTION: dict[str, Rule] = {
    "q_num_heads": between(1, 1 << 16),
    "kv_num_heads": between(1, 1 << 16),
    "scale": _finite,
    "origin": between(0, 1 << 30),
}
ATTRIBUTES: dict[str, dict[str, Rule]] = {
    "CodebookMatMul": {
        "bits": _BITS,
        "compute": one_of("int8", "int8-block", "bf16", "fp32"),
        "splits": _splits,
    },
    "CodebookGather": {"bits": _BITS, "K": between(1, LARGEST)},
    "DecodeAttention": _ATTENTION,
    "MemoryAttention": _ATTENTION,
    "AddRMSNorm": {"epsilon": _not_negative},
    "ArgMax": {},
}
"""Operator -> attribute -> what it may be; all of them must be given."""


def check_attributes(op_type: str, attributes: Mapping[str, Value | None]) -> None:
    """Refuse an operator that edgedec doesn't have, and attributes out of range.

    Raises:
        ValueError: with the operator and what is wrong with it.
    """
    rules = ATTRIBUTES.get(op_type)
    if rules is None:
        raise ValueError(f"there is no operator {op_type[:40]!r} among edgedec's")
    wrong = sorted(rules.keys() ^ attributes.keys())
    if wrong:
        fault = "lacks" if wrong[0] in rules else "has an unknown attribute"
        raise ValueError(f"{op_type} {fault} {wrong[0][:40]!r}")
    for name, rule in rules.items():
        if not rule(attributes[name]):
            raise ValueError(f"{op_type} has {name} = {str(attributes[name])[:40]}")
    heads, groups = attributes.get("q_num_heads"), attributes.get("kv_num_heads")
    if isinstance(heads, int) and isinstance(groups, int) and heads % groups:
        raise ValueError(f"{op_type} has {heads} heads for {groups} of keys and values")
