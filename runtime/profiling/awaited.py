"""What another machine still owes of a plan: every answer is expected once, and no other."""

from __future__ import annotations

from edgedec.runtime.profiling.plan import Measured, Plan
from edgedec.runtime.profiling.sound import check_turn, check_values
from edgedec.runtime.profiling.trace import check_events
from edgedec.runtime.profiling.turns import shares, with_operators
from edgedec.runtime.schema import SchemaError

OPERATORS = -1
"""Stands for the run with records of operators among the numbers of rounds."""


class Awaited:
    """The turns of a plan that have not been measured yet.

    Args:
        plan: as the other machine has it.
    """

    def __init__(self, plan: Plan) -> None:
        self._shares = shares(plan.effort)
        self._trace = plan.trace
        self._left = {row: set(range(len(self._shares))) for row in range(len(plan.configurations))}
        for row in with_operators(plan):
            self._left[row].add(OPERATORS)

    @property
    def count(self) -> int:
        """How many are missing."""
        return sum(map(len, self._left.values()))

    def take(self, event: Measured) -> None:
        """An event has come.

        Raises:
            SchemaError: it cannot be, or nobody asked for it.
        """
        check_values(event)
        check_events(event.events)
        answers = (event.turn, event.operators, event.operators_error, event.error)
        if sum(answer is not None for answer in answers) != 1:
            raise SchemaError("it must be one of a turn, operators and an error")
        if event.events and (event.operators is None or not self._trace):
            raise SchemaError("events belong to operators, where a trace is asked for")
        left = self._left.get(event.row, set())
        if event.error is not None and left:
            left.clear()  # a row that failed
            return
        number = OPERATORS if event.turn is None or event.error is not None else event.turn.round
        if number not in left:
            raise SchemaError(f"nobody asked for it (row {event.row})")
        if event.turn is not None:
            check_turn(event.turn, rounds=len(self._shares), path="turn")
            if len(event.turn.samples) != self._shares[number]:
                raise SchemaError(
                    f"turn.samples are {len(event.turn.samples)} of {self._shares[number]}"
                )
        left.remove(number)
