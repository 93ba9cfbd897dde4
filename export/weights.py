"""Weights under edgedec's names, read lazily from whatever holds the checkpoint's tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from edgedec.errors import CheckpointError

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Tensor:
    """One stored tensor: its shape and dtype at once, its values only when ``read`` is called."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    """Stored type: ``float32``, ``float16``, ``bfloat16`` or ``float64``."""
    load: Callable[[], NDArray[np.generic]]

    def read(self) -> Array:
        """The values as float32; raises CheckpointError where they aren't all finite."""
        values = np.asarray(self.load(), dtype=np.float32)
        if not np.isfinite(values).all():
            raise CheckpointError(
                f"tensor {self.name!r} of the checkpoint holds NaN or infinity: "
                "the file is damaged or the training diverged."
            )
        return values

    def map(self, change: Callable[[Array], Array], shape: tuple[int, ...] | None = None) -> Tensor:
        """The same tensor with ``change`` applied when it is read."""
        return replace(self, shape=shape or self.shape, load=lambda: change(self.read()))


NARROW = {"fp16": "float16", "bf16": "bfloat16"}


def _narrow(name: str, storage: str, values: Array) -> Array:
    """Round values to what ``storage`` can hold."""
    import ml_dtypes  # noqa: F401  registers bfloat16 with NumPy

    with np.errstate(over="ignore"):
        rounded = values.astype(NARROW[storage]).astype(np.float32)
    if not np.isfinite(rounded).all():
        raise CheckpointError(
            f"tensor {name!r} has values that {storage} cannot hold: use --dtype fp32 or bf16."
        )
    return rounded


Tensors = Mapping[str, Tensor]
BRANCHES = ("", ".lora_A", ".lora_B")
"""Parts of a module with tensors of their own: itself, and a low-rank adapter that was kept."""
Names = Mapping[str, str | tuple[str, ...]]
"""Our module name -> the checkpoint's (or several to try in turn); ``{i}`` stands for the layer."""


class Weights:
    """A checkpoint's tensors under the names of the graphs, e.g. ``decoder.3.self_attn.q.weight``.

    Args:
        tensors: the checkpoint's tensors under its own names.
        names: the family's module names.
        layers: layers of ``encoder`` and ``decoder``, to expand ``{i}``.
    """

    def __init__(self, tensors: Tensors, names: Names, layers: Mapping[str, int]) -> None:
        self._found: dict[str, Tensor] = {}
        self._expected: dict[str, tuple[str, ...]] = {}
        by_module: dict[str, list[str]] = {}
        for name in tensors:
            by_module.setdefault(name.rpartition(".")[0] or name, []).append(name)
        for ours, theirs in names.items():
            stack = ours.partition(".")[0]
            repeat = range(layers.get(stack, 0)) if "{i}" in ours else (None,)
            for i in repeat:
                fill = (lambda s, i=i: s.replace("{i}", str(i))) if i is not None else str
                candidates = tuple(
                    fill(t) for t in ((theirs,) if isinstance(theirs, str) else theirs)
                )
                self._add(fill(ours), candidates, tensors, by_module)

    def _add(
        self,
        module: str,
        candidates: tuple[str, ...],
        tensors: Tensors,
        by_module: Mapping[str, list[str]],
    ) -> None:
        self._expected[module] = candidates
        for candidate in candidates:
            if candidate in tensors:  # a bare tensor, such as final_logits_bias
                self._found[module] = tensors[candidate]
                return
            if candidate in by_module:
                for part in BRANCHES:
                    for name in by_module.get(f"{candidate}{part}", ()):
                        leaf = name.rpartition(".")[2]
                        self._found[f"{module}{part}.{leaf}"] = tensors[name]
                return

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __contains__(self, name: str) -> bool:
        return name in self._found

    def __getitem__(self, name: str) -> Tensor:
        try:
            return self._found[name]
        except KeyError:
            module, _, leaf = name.rpartition(".")
            theirs = self._expected.get(module) or self._expected.get(name)
            wanted = " or ".join(f"{t}.{leaf}" for t in theirs) if theirs else name
            raise CheckpointError(
                f"the checkpoint has no tensor {wanted!r} ({name} of the model): "
                "its config.json and its weights do not belong together, or a shard is missing."
            ) from None

    def put(self, name: str, tensor: Tensor) -> None:
        """Add or replace a tensor (a family's permutations and computed tables)."""
        self._found[name] = tensor

    def alias(self, name: str, target: str) -> None:
        """Let ``name`` be the same tensor as ``target``."""
        self._found[name] = self[target]

    def rounded(self, storage: str) -> Weights:
        """The same weights as a bundle of this storage holds them: matrices rounded, the rest not.

        Graphs and reference then compute with the same numbers, so that comparing them shows
        errors and not the rounding that was asked for.

        Raises:
            CheckpointError: when a tensor is read that ``fp16`` cannot hold.
        """
        same = copy(self)
        if storage in NARROW:
            narrow = {
                name: tensor.map(partial(_narrow, tensor.name, storage))
                for name, tensor in self._found.items()
                if len(tensor.shape) == 2
                and name.endswith(".weight")
                and not name.endswith("relative_bias.weight")  # folded into a table of fp32
            }
            same._found = {**self._found, **narrow}
        return same

    def expect(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """The tensor, once its shape is what the spec says."""
        tensor = self[name]
        if tensor.shape != shape:
            raise CheckpointError(
                f"tensor {tensor.name!r} has shape {list(tensor.shape)}, but the configuration "
                f"asks for {list(shape)}: config.json does not belong to these weights."
            )
        return tensor
