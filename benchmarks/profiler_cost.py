"""What do spans cost: switched on, and switched off?

    python benchmarks/profiler_cost.py BUNDLE

Four generators share their graphs and generate the same tokens in turns, token by token: spans off,
on, off again (which shows what is noise), and without any line of code that has to do with spans.
Prints medians of single steps, and ratios to spans off of the same step; exits with 1 if spans cost
more than 2 % of a step, or if being able to take them costs more than 0.5 %.
"""

from __future__ import annotations

import ast
import copy
import inspect
import random
import statistics
import sys
import time
from types import ModuleType
from typing import Any

import click

import edgedec
from edgedec.runtime import generator as generator_module
from edgedec.runtime import loop as loop_module
from edgedec.runtime import session as session_module
from edgedec.runtime.generator import Generator
from edgedec.runtime.model import Model
from edgedec.runtime.profiling.paired import Ratio, ratio_of
from edgedec.runtime.session import OnnxSession, Session
from edgedec.runtime.spans import Spans

ON_LIMIT, OFF_LIMIT = 1.02, 1.005


class _Stripper(ast.NodeTransformer):
    """Takes out every statement that asks or tells spans anything."""

    def visit(self, node: ast.AST) -> Any:
        if isinstance(node, ast.Expr | ast.Assign) and _asks(node.value):
            return None
        if isinstance(node, ast.If) and _asks(node.test):
            return None
        left = self.generic_visit(node)
        return None if isinstance(left, ast.If) and not left.body else left


def _asks(node: ast.expr) -> bool:
    """Whether this calls a method of spans, or asks whether they are on."""
    target = node.func if isinstance(node, ast.Call) else node
    if not isinstance(target, ast.Attribute):
        return False
    owner = target.value
    name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", None)
    return name in {"spans", "_spans"}


def _stripped(module: ModuleType) -> dict[str, Any]:
    """What a module defines, without spans."""
    tree = _Stripper().visit(ast.parse(inspect.getsource(module)))
    space = dict(vars(module))
    exec(compile(ast.fix_missing_locations(tree), module.__file__ or "", "exec"), space)  # noqa: S102
    return space


def _stripped_classes() -> tuple[type[Generator], type[Session]]:
    """A generator and its sessions without spans."""
    space = _stripped(generator_module)
    space["Loop"] = _stripped(loop_module)["Loop"]
    return space["Generator"], _stripped(session_module)["OnnxSession"]


def _sibling(
    generator: Generator, kind: type[Generator] = Generator, of: type[Session] = OnnxSession
) -> Generator:
    """A generator of another class, or with spans of its own, over the same graphs."""
    found, spans = copy.copy(generator), Spans()

    def again(session: Session) -> Session:
        other = copy.copy(session)
        other.__class__ = of
        other.spans = spans
        return other

    found.__class__ = kind
    found.spans = spans
    components, encoder = copy.copy(generator._model.components), generator._model.encoder
    components._full = [again(session) for session in components._full]
    components.head = None if components.head is None else again(components.head)
    if encoder is not None:
        encoder = copy.copy(encoder)
        encoder._session = again(encoder._session)
    found._model = Model(encoder, components)
    return found


@click.command()
@click.argument("bundle")
@click.option("--source", "-s", default=64, show_default=True, help="Source tokens.")
@click.option("--tokens", "-n", default=64, show_default=True, help="New tokens.")
@click.option("--rounds", default=40, show_default=True)
@click.option("--threads", "-t", default=1, show_default=True)
def main(bundle: str, source: int, tokens: int, rounds: int, threads: int) -> None:
    """Time steps with spans off, on, and taken out."""
    generator = edgedec.load(bundle, threads=threads)
    generators = {
        "off": _sibling(generator),
        "on": _sibling(generator),
        "off again": _sibling(generator),
        "taken out": _sibling(generator, *_stripped_classes()),
    }
    generators["on"].spans.on = True
    names = list(generators)
    steps: dict[str, list[float]] = {name: [] for name in names}
    rounds_of: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 1):  # the first warms up
        found = _interleaved(generators, list(range(5, 5 + source)), tokens)
        if number:
            for name in names:
                steps[name] += found[name]
                pairs = zip(found[name], found["off"], strict=True)
                rounds_of[name].append(statistics.median(ours / off for ours, off in pairs))
    click.echo(f"{bundle}, {source} source and {tokens} new tokens, {threads} thread(s)")
    ratios = {name: ratio_of(found) for name, found in rounds_of.items()}
    for name in names:
        ms = 1e3 * statistics.median(steps[name])
        click.echo(f"{name:>9}: {ms:.4f} ms per step, {_said(ratios[name])}")
    able = ratio_of([1 / value for value in rounds_of["taken out"]])
    sys.exit(1 if ratios["on"].median > ON_LIMIT or able.low > OFF_LIMIT else 0)


def _interleaved(
    generators: dict[str, Generator], ids: list[int], tokens: int
) -> dict[str, list[float]]:
    """Seconds of every token after the first, of all generators in turns."""
    # Whoever comes first gets other memory, and finds other things in the processor's caches.
    order = random.sample(list(generators), len(generators))
    streams = {
        name: generators[name].stream(ids, max_new_tokens=tokens, eos_token_ids=[], num_beams=1)
        for name in order
    }
    found: dict[str, list[float]] = {name: [] for name in generators}
    for number in range(tokens):
        random.shuffle(order)
        for name in order:
            began = time.perf_counter()
            next(streams[name])
            seconds = time.perf_counter() - began
            if number:
                found[name].append(seconds)
    for name, stream in streams.items():
        for _ in stream:
            raise AssertionError(f"{name} has more tokens than were asked for")
        generators[name].spans.take()
    return found


def _said(ratio: Ratio) -> str:
    """A ratio as people speak of costs."""
    middle, low, high = (100 * (value - 1) for value in (ratio.median, ratio.low, ratio.high))
    return f"{middle:+.2f} % of off ({low:+.2f} to {high:+.2f} at {ratio.coverage:.0%})"


if __name__ == "__main__":
    main()
