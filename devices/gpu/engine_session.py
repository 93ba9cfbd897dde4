"""An engine as a session of the runtime: bindings, and the plans that they run by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from edgedec.devices.gpu.arena import ALIGNED, CudaArena
from edgedec.devices.gpu.contexts import Contexts
from edgedec.devices.gpu.driver import CudaError
from edgedec.devices.gpu.engine import Engine
from edgedec.devices.gpu.engine_plan import CHOSEN, Plan, Recording, dtype_of
from edgedec.devices.gpu.nonsense import refuse_nonsense
from edgedec.errors import DeviceError, EdgedecError, InputError
from edgedec.runtime.resident.arena import Buffer
from edgedec.runtime.session import Array, Binding, Session

KEPT = 8
"""Plans that are kept without a binding: a later request of the same shapes needs no new ones."""
TOKENS = ("input_ids", "hidden")
"""Inputs whose second axis is the number of new positions."""

Key = tuple[Any, ...]


class EngineSession(Session):
    """An engine of TensorRT's.

    Plans outlive their bindings: an arena gives the same addresses to the next request of the same
    shapes, and what was set up and recorded for the last one serves it at once.

    Args:
        name: of the engine, for messages.
        engine: the engine.
        arena: memory of the GPU.
        contexts: makes its execution contexts.
    """

    def __init__(self, name: str, engine: Engine, arena: CudaArena, contexts: Contexts) -> None:
        super().__init__(name, engine.inputs, engine.outputs)
        self._engine = engine
        self._arena = arena
        self._contexts = contexts
        self._plans: WeakValueDictionary[Key, Plan] = WeakValueDictionary()
        self._recent: dict[Key, Plan] = {}
        self._recording = Recording()
        self._in_range = False

    def bind(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> Binding:
        """Let the engine read and write arrays.

        Raises:
            InputError: the shapes are beyond what the engine was built for, or memory is short.
        """
        return self._bind(inputs, outputs, {}, 1)

    def bind_steps(
        self,
        inputs: Mapping[str, Array],
        outputs: Mapping[str, Array],
        carried: Mapping[str, str],
        steps: int,
    ) -> Binding:
        """Let one run be several of the engine; what is carried stays on the GPU.

        Raises:
            InputError: as `bind`.
        """
        return self._bind(inputs, outputs, carried, steps)

    def end_records(self) -> Path:
        """Never: engines write no records of operators."""
        raise DeviceError(f"{self.name} is an engine of TensorRT's and keeps no records.")

    def explain(self, error: Exception) -> EdgedecError | None:
        """What an error of the driver means to the user."""
        if not isinstance(error, CudaError):
            return None
        return DeviceError(
            f"the GPU failed while {self.name} ran ({error}): look at nvidia-smi, start again, and "
            "use --device cpu if it stays."
        )

    def _bind(
        self,
        inputs: Mapping[str, Array],
        outputs: Mapping[str, Array],
        carried: Mapping[str, str],
        steps: int,
    ) -> Binding:
        inputs = {name: inputs[name] for name in self.inputs}
        outputs = dict(outputs)
        for name, array in {**inputs, **outputs}.items():
            self._check(name, array, of_steps=bool(carried) and name == CHOSEN)
        key = (_key(inputs), _key(outputs), tuple(sorted(carried.items())), steps)
        with self._arena.lock:
            plan = self._plans.get(key)
            if plan is None:
                plan = self._plans[key] = self._plan(inputs, outputs, carried, steps)
            self._recent.pop(key, None)
            self._recent[key] = plan
            if len(self._recent) > KEPT:
                del self._recent[next(iter(self._recent))]
        return Binding(self, partial(self._run, plan, inputs, outputs), (inputs, outputs))

    def _check(self, name: str, array: Array, *, of_steps: bool) -> None:
        """Refuse what the engine would read or write as something else, or not take."""
        port = {**self.inputs, **self.outputs}[name]
        shape = array.shape[1:] if of_steps else array.shape
        fits = len(shape) == len(port.shape) and all(
            not isinstance(length, int) or length == found
            for length, found in zip(port.shape, shape, strict=True)
        )
        if not fits or array.dtype != dtype_of(port.type):
            raise ValueError(
                f"{name} of {self.name} is {port.type} {port.shape}, not {array.dtype} {shape}"
            )
        if isinstance(array, Buffer) and array.address % ALIGNED:
            raise ValueError(f"{name} of {self.name} begins at no multiple of {ALIGNED} bytes")

    def _plan(
        self,
        inputs: Mapping[str, Array],
        outputs: Mapping[str, Array],
        carried: Mapping[str, str],
        steps: int,
    ) -> Plan:
        """A new plan for shapes and addresses."""
        profile = self._profile({name: array.shape for name, array in inputs.items()})
        new = {inputs[name].shape[1] for name in TOKENS if name in inputs}
        return Plan(
            self._engine,
            self._arena,
            self._contexts.new(),
            profile,
            inputs,
            outputs,
            carried=carried,
            steps=steps,
            recording=self._recording if new == {1} else None,
            name=self.name,
        )

    def _profile(self, shapes: Mapping[str, Sequence[int]]) -> int:
        """The engine's first profile that has these shapes."""
        reasons = []
        for index, profile in enumerate(self._engine.profiles):
            beyond = [
                f"{name} {list(shape)} is not within {list(profile[name][0])} and "
                f"{list(profile[name][2])}"
                for name, shape in shapes.items()
                if not _within(shape, profile[name][0], profile[name][2])
            ]
            if not beyond:
                return index
            reasons.append(beyond[0])
        raise InputError(
            f"{self.name} is an engine for other sizes ({reasons[-1]}): take fewer or shorter "
            "inputs at a time, or export with a larger --max-rows, --max-source or --max-target."
        )

    def _run(self, plan: Plan, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        plan.run(inputs, outputs)
        if not self._in_range:
            self._check_range(plan, outputs)
            self._in_range = True

    def _check_range(self, plan: Plan, outputs: Mapping[str, Array]) -> None:
        """Look at what the engine's first run gave, wanted or not."""
        asked = {
            name: self._arena.read(array) if isinstance(array, Buffer) else array
            for name, array in outputs.items()
            if name not in self._engine.aliases
        }
        found = {**plan.unasked(), **asked}
        refuse_nonsense(self.name, found)
        vocab = self.outputs["logits"].shape[-1] if "logits" in self.outputs else None
        if CHOSEN in found and isinstance(vocab, int):
            least, greatest = found[CHOSEN].min(), found[CHOSEN].max()
            if least < 0 or greatest >= vocab:
                raise DeviceError(
                    f"{self.name} computes nonsense on this GPU (it chose token "
                    f"{least if least < 0 else greatest}): use --device cpu."
                )


def _within(shape: Sequence[int], least: Sequence[int], greatest: Sequence[int]) -> bool:
    return len(shape) == len(least) and all(
        low <= length <= high for low, length, high in zip(least, shape, greatest, strict=True)
    )


def _key(arrays: Mapping[str, Array]) -> Key:
    """What a plan depends on: memory of the host is copied to and from the plan's own."""
    return tuple(
        (name, array.shape, array.dtype.str, array.address if isinstance(array, Buffer) else None)
        for name, array in sorted(arrays.items())
    )
