"""Results as Markdown, as docs/gpu.md has them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from comparison.markdown import print_table

from gpus.cells import GOALS, LARGE
from gpus.contestants import BASELINES, STREAMS

Result = Mapping[str, Any]
BITS = (4, 3, 2, 8)


def print_tables(results: Sequence[Result]) -> None:
    """Everything, by GPU, and whether what must hold does."""
    for gpu in dict.fromkeys(r["gpu"] for r in results):
        own = [r for r in results if r["gpu"] == gpu]
        first = own[0]
        print(f"{gpu} (sm_{first['sm']}), CUDA {first['driver']}, {first['date']}\n")
        _checks([r for r in own if r["kind"] == "check"])
        products = [r for r in own if r["kind"] == "product"]
        for rows in sorted({r["rows"] for r in products}):
            _products(rows, [r for r in products if r["rows"] == rows])
        _steps([r for r in own if r["kind"] == "steps"])
        print_table(["what must hold", "figure", "bar", ""], list(goals(products)))


def _checks(results: Sequence[Result]) -> None:
    rows = [
        [r["kernel"], str(r["products"]), f"{r['error']:.1e}", "equal" if r["right"] else "WRONG"]
        for r in results
    ]
    print_table(["kernel, launched as by TensorRT", "products", "largest error", "NumPy"], rows)


def _products(rows: int, results: Sequence[Result]) -> None:
    """Microseconds of products with so many rows; of our two kernels the faster."""
    print(f"{rows} row(s), microseconds\n")
    others = [name for name in BASELINES if any(name in r["us"] for r in results)]
    header = ["K x N", *(f"cb{bits}" for bits in BITS), *others]
    header += [*(f"{name} : cb4" for name in others), "cb4 GB/s", "memory GB/s", "of it"]
    lines = []
    for result in results:
        us, best = result["us"], fastest(result, 4)
        cells = [result["shape"]]
        for bits in BITS:
            name = fastest(result, bits)
            cells.append("" if name is None else f"{us[name]:.1f} {name.split()[1]}")
        cells += [_number(us.get(name)) for name in others]
        ratios = (us[name] / us[best] if best and name in us else None for name in others)
        cells += [_number(ratio, ".2f") for ratio in ratios]
        speed, memory = rate(result, best), bandwidth(result)
        share = speed / memory if speed and memory else None
        cells += [_number(speed, ".0f"), _number(memory, ".0f"), _number(share, ".0%")]
        lines.append(cells)
    print_table(header, lines)
    for result in results:
        for name, failure in result["failures"].items():
            print(f"{result['shape']}, {name}: {failure}\n")


def _steps(results: Sequence[Result]) -> None:
    for result in results:
        title = f"{result['model']}, {result['rows']} x {result['source']}"
        print(f"{title} source + {result['new_tokens']} new tokens, medians\n")
        programs = result["programs"]
        reference = programs.get(result["reference"])
        lines = []
        for name, found in programs.items():
            ratio = found["per_token_ms"] / reference["per_token_ms"] if reference else None
            figures = f"{found['first_ms']:.2f}", f"{found['per_token_ms']:.3f}"
            lines.append([name, *figures, _number(ratio, ".2f"), found["version"]])
        header = ["program", "first token ms", "per token ms", f": {result['reference']}", ""]
        print_table(header, lines)
        for name, failure in result["failures"].items():
            print(f"{name}: {failure}\n")


def goals(results: Iterable[Result]) -> Iterable[list[str]]:
    """Every goal at every large shape that was measured with one row."""
    for result in results:
        k, n = (int(part) for part in result["shape"].split("x"))
        us, memory = result["us"], bandwidth(result)
        if result["rows"] != 1 or min(k, n) < LARGE or "cb4 gemv" not in us or memory is None:
            continue
        speed = rate(result, "cb4 gemv") or 0.0
        figures = {"of bandwidth": speed / memory}
        if "cublas fp16" in us:
            figures["cublas fp16 : cb4 gemv"] = us["cublas fp16"] / us["cb4 gemv"]
        for goal in GOALS:
            value = figures.get(goal.figure)
            if value is not None:
                met = "met" if value >= goal.least else "missed"
                name = f"{result['shape']} cb4 gemv, {goal.figure}"
                yield [name, f"{value:.2f}", f">= {goal.least}", met]


def fastest(result: Result, bits: int) -> str | None:
    """Which of our kernels for float16 takes the least time, as TensorRT chooses."""
    names = [f"cb{bits} {tactic}" for tactic in ("gemv", "gemm")]
    return min(
        (name for name in names if name in result["us"]),
        key=lambda name: float(result["us"][name]),
        default=None,
    )


def rate(result: Result, name: str | None) -> float | None:
    """GB/s that a contestant moves at the least."""
    if name not in result["us"]:
        return None
    return float(result["nbytes"][name] / result["us"][name] / 1e3)


def bandwidth(result: Result) -> float | None:
    """GB/s of the GPU's memory, in the same rounds: the faster of copying and reading."""
    found = [rate(result, name) for name in STREAMS]
    return max((value for value in found if value is not None), default=None)


def _number(value: float | None, form: str = ".1f") -> str:
    return "" if value is None else format(value, form)
