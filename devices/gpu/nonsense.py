"""Whether a graph's first run gave numbers: float16 may overflow where float32 did not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgedec.errors import DeviceError
from edgedec.runtime.session import Array, Port

FLOATS: dict[str, np.dtype[Any]] = {
    "tensor(float16)": np.dtype(np.float16),
    "tensor(float)": np.dtype(np.float32),
}
CACHE = "present."
"""What outputs begin with that are caches: most of one is empty, and what is written to it shows in
the other outputs."""


def unwanted(
    ports: tuple[Mapping[str, Port], Mapping[str, Port]],
    inputs: Mapping[str, Array],
    outputs: Mapping[str, Array],
) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Outputs with numbers that nobody asked for: the greatest of no numbers is a token, too.

    Args:
        ports: inputs and outputs of the graph.
        inputs: what is bound to them.
        outputs: likewise, those that are wanted.

    Returns:
        Name -> shape and type, of those whose shape the inputs tell.
    """
    given, made = ports
    lengths: dict[object, int] = {}
    for name, array in inputs.items():
        lengths.update(zip(given[name].shape, array.shape, strict=True))
    found: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}
    for name, port in made.items():
        if name in outputs or name.startswith(CACHE) or port.type not in FLOATS:
            continue
        shape = [a if isinstance(a, int) else lengths.get(a, -1) for a in port.shape]
        if min(shape, default=0) >= 0:
            found[name] = tuple(shape), FLOATS[port.type]
    return found


def refuse_nonsense(graph: str, values: Mapping[str, NDArray[Any]]) -> None:
    """Refuse what a first run gave, if it is out of range.

    Args:
        graph: its name, for the message.
        values: outputs; caches are not looked at.

    Raises:
        DeviceError: one of them is infinite or no number.
    """
    for name, array in values.items():
        if name.startswith(CACHE) or array.dtype.kind != "f":
            continue
        if not np.isfinite(array).all():
            raise DeviceError(
                f"{graph} computes nonsense on this GPU ({name} is not finite): float16 is too "
                "small for this model's numbers; use --device cpu."
            )
