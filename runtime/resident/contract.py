"""What graphs with resident caches must look like, checked before memory is bound to them."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from edgedec.errors import BundleError
from edgedec.runtime.contract import INT64, Expected, Kept
from edgedec.runtime.manifest import Interface, Limits
from edgedec.runtime.session import Session

NUMBERS: dict[str, DTypeLike] = {"tensor(float16)": np.float16, "tensor(float)": np.float32}
"""Types that keys and values may have; float16, but for graphs that are to be compared."""
LENGTH = "next.past_length"
CARRIED = {"next_token": "input_ids", LENGTH: "past_length", "next.positions": "positions"}
"""Output of a stage with the head inside -> the input that it is of the next greedy step."""


def kept_by_stage(session: Session, io: Interface, limits: Limits, first: int) -> Kept:
    """How a stage has keys and values.

    Args:
        session: the stage.
        io: what the manifest says.
        limits: how far caches reach.
        first: the stage's first layer.

    Raises:
        BundleError: its first cache cannot be one.
    """
    port = session.inputs.get(f"past.{first}.self.key")
    if port is not None and port.type in NUMBERS and len(port.shape) == 4:
        _, heads, positions, width = port.shape
        if (
            isinstance(heads, int)
            and isinstance(width, int)
            and heads * width == io.kv_width
            and positions == limits.target
        ):
            return Kept(port.type, (None, heads, positions, width), (None, None, io.kv_width))
    raise BundleError(
        f"{session.name} has no cache of {limits.target} positions for layer {first}: it was made "
        "by another edgedec; export the bundle again, or empty the cache of engines."
    )


def kept_by_encoder(session: Session, io: Interface) -> Kept:
    """How an encoder gives keys and values; `check_encoder` says what is wrong with them."""
    port = session.outputs.get("cross.0.key")
    kind = port.type if port is not None and port.type in NUMBERS else "tensor(float16)"
    return Kept(kind, (), (None, None, io.kv_width))


def chained(session: Session) -> list[Expected]:
    """The outputs by which a greedy step feeds the next one; empty where it cannot."""
    if LENGTH not in session.outputs:
        return []
    more: list[Expected] = [(LENGTH, INT64, (None,))]
    if "positions" in session.inputs:
        more.append(("next.positions", INT64, (None, None)))
    return more
