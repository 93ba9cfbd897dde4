"""One way to multiply matrices on a GPU: checks and times products, one request after another."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from gpus.contestants import contestant
from gpus.lanes import LAUNCHES, Product, Timed
from gpus.points import Place, Point
from protocol import answer


@dataclass(frozen=True)
class Task:
    """A contestant, torch's word for the device, bytes of weights that take turns, and launches.

    ``launches`` are those that are timed together, at the least.
    """

    name: str
    device: str
    rotated: int
    launches: int = LAUNCHES


def answers(task: Task, requests: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """For each ``{"rows", "n", "k", "budget"}`` its figures; without a budget only the check's.

    What a contestant cannot do is an answer too: ``{"failure": why}``.
    """
    lane, make = contestant(task.name, Place(task.device, task.rotated))
    yield {"name": task.name}
    made: Point | None = None
    product: Product | None = None
    timed: Timed | None = None
    for request in requests:
        point = Point(request["rows"], request["n"], request["k"])
        try:
            if point != made or product is None:
                made = product = timed = None  # its memory is needed
                product = make(point)
                made = point
            figures = {"nbytes": product.nbytes, "copies": product.copies}
            if request["budget"]:
                timed = timed or Timed(lane, product, task.launches)
                figures["us"] = timed.microseconds(request["budget"])
            else:
                product.launch(product.copies - 1)
            lane.finish()
            yield {**figures, "error": product.error()}
        except Exception as error:  # noqa: BLE001 - of torch, Triton, the driver: all are figures
            yield {"failure": f"{type(error).__name__}: {error}".splitlines()[0][:200]}


def main() -> None:
    """Answer until nobody asks any more."""
    task = Task(**json.loads(sys.argv[1]))
    for found in answers(task, map(json.loads, sys.stdin)):
        answer(found)


if __name__ == "__main__":
    main()
