"""How near a product of one row with 4-bit codes comes to what the core could do at best.

    python benchmarks/roofline.py

Two bounds, measured in turns with the product on the same machine, one thread:

- reading: a loop of vector loads over as many bytes as the product reads, in the same place (a
  weight that stays in the second or last-level cache, or 1.5 times that cache for memory), with the
  best of five prefetch distances;
- looking up: the instructions that no kernel of this instruction set can do without, from 64 bytes
  of codes in the first cache to products: load, isolate two codes, look both up, multiply and add.

The product is timed in ONNX Runtime, so it includes quantizing its input and what a node costs.
Exits with 1 if a product from a cache is below 70 % of the lower bound.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

import click
from comparison.machine import last_level_cache
from comparison.turns import Worker, single_threaded_libraries
from rich.console import Console
from rich.table import Table

PROGRAMS = Path(__file__).parent / "programs"
SHAPES = ((512, 2048, "hot"), (768, 3072, "hot"), (2048, 8192, "hot"), (512, 32128, "hot"))
FROM_MEMORY = ((2048, 2048, "cold"),)
GOAL = 0.70


@click.command()
@click.option("--rounds", "-r", default=25, show_default=True)
@click.option("--budget", default=0.03, show_default=True, help="Seconds per measurement.")
def main(rounds: int, budget: float) -> None:
    """Print bytes of codes per second of CodebookMatMul, beside both bounds."""
    isa = chosen_isa()
    cold = last_level_cache() * 3 // 2
    bounds = _worker("core_bounds.py", {"isa": isa})
    table = Table(title=f"CodebookMatMul, 4 bits, 1 row, 1 thread, {isa}; GB/s of codes")
    for column in ("K x N", "MB", "from", "product", "reading", "looking up", "of the lower"):
        table.add_column(column, justify="right")
    missed = False
    for k, n, place in (*SHAPES, *FROM_MEMORY):
        task = {"inputs": k, "outputs": n, "threads": 1, "cold_bytes": cold, "format": "cb4"}
        product = _worker("one_matmul.py", task)
        size = cold if place == "cold" else k * n // 2
        samples = [_sample(product, bounds, place, budget, size) for _ in range(rounds)]
        product.close()
        # Of each round, because all three slow down together when the machine's other guests work.
        share = statistics.median(ours / min(bound) for ours, *bound in samples)
        missed |= place == "hot" and share < GOAL
        table.add_row(
            f"{k}x{n}",
            f"{size / 1e6:.1f}",
            "memory" if place == "cold" else "cache",
            *(f"{statistics.median(column):.1f}" for column in zip(*samples, strict=True)),
            f"{share:.0%}",
        )
    bounds.close()
    Console(width=100).print(table)
    sys.exit(1 if missed else 0)


def chosen_isa() -> str:
    """The instruction set that the library uses here."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper

    from edgedec.kernels.library import register
    from edgedec.kernels.operator import DOMAIN, VERSION

    info = helper.make_tensor_value_info("info", TensorProto.UINT8, ["n"])
    node = helper.make_node("KernelInfo", [], ["info"], domain=DOMAIN)
    graph = helper.make_graph([node], "info", [], [info])
    sets = [helper.make_opsetid("", 24), helper.make_opsetid(DOMAIN, VERSION)]
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=sets, ir_version=11)
    options = onnxruntime.SessionOptions()
    refusal = register(options)
    if refusal is not None:
        raise click.ClickException(refusal)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return bytes(session.run(None, {})[0]).decode().partition(";")[0]


def _sample(
    product: Worker, bounds: Worker, place: str, budget: float, size: int
) -> tuple[float, float, float]:
    """GB/s of the product, of reading as much, and of looking it up (infinite where none)."""
    timed = product.ask({"rows": 1, "place": place, "budget": budget})
    best = bounds.ask({"bytes": size})
    lookup = best["lookup_gb_s"]
    codes = timed["bytes"] / timed["us"] / 1e3
    return codes, best["read_gb_s"], float("inf") if lookup is None else lookup


def _worker(program: str, task: dict[str, Any]) -> Worker:
    command = [sys.executable, str(PROGRAMS / program), json.dumps(task)]
    return Worker(program, command, single_threaded_libraries(1))


if __name__ == "__main__":
    main()
