"""`edgedec run`: text in, text out."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from edgedec.cli.terminal import lines
from edgedec.cli.terminal.logs import note, verbosity
from edgedec.cli.terminal.progress import Bar
from edgedec.errors import InputError

if TYPE_CHECKING:
    from edgedec.cli.terminal.spans import Watched
    from edgedec.runtime.comparison import SideBySide
    from edgedec.runtime.generator import Generator, Result

FILE_BATCH = 16
PROFILE = "--profile"


class _Run(click.Command):
    """Lets ``--profile`` stand alone before TEXT: only ``--profile=FILE`` has a value."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        given = [f"{PROFILE}=" if word == PROFILE else word for word in args[:end]]
        return super().parse_args(ctx, given + args[end:])


@click.command("run", cls=_Run, short_help="Generate text with a bundle.")
@click.argument("bundle")
@click.argument("text", required=False)
@click.option(
    "-f", "--file", "file", metavar="FILE", help="One input per line; `-` is standard input."
)
@click.option(
    "-o", "--output", metavar="FILE", help="Write the results there, not to standard output."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per input.")
@click.option("--stream", is_flag=True, help="Print the text while it is generated.")
@click.option("--ids", is_flag=True, help="Inputs are token ids separated by spaces or commas.")
@click.option(
    "--depth",
    metavar="POLICY",
    default="full",
    show_default=True,
    help="How deep tokens go: NAME[:key=value,...], or `auto:quality=Q` (see docs/depth.md).",
)
@click.option(
    "--stats", is_flag=True, help="Also generate at full depth, and compare on standard error."
)
@click.option(
    PROFILE,
    metavar="[=FILE]",
    help="Show where the time went; FILE gets a Chrome trace (ui.perfetto.dev opens it).",
)
@click.option(
    "--device",
    metavar="DEVICE",
    help="Where to run: NAME[:OPTION], encoder=NAME,decoder=NAME, or `auto` for the fastest of a "
    "GPU and the CPU (see docs/npu.md, docs/gpu.md).  [default: what BUNDLE was exported for]",
)
@click.option(
    "--allow-fallback",
    is_flag=True,
    help="Let the CPU run what the device cannot, and say what that is.",
)
@click.option("--threads", type=click.IntRange(min=1), help="Threads of the CPU device.")
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    help=f"Inputs that run together.  [default: {FILE_BATCH} for a file, 1 for standard input]",
)
@click.option("--max-new-tokens", type=int, help="Stop after this many tokens.")
@click.option("--min-new-tokens", type=int, help="Do not stop before this many tokens.")
@click.option("--num-beams", type=int, help="Beam search of this width; 1 is greedy.")
@click.option(
    "--length-penalty", type=float, help="Above 0 favours long beams, below 0 short ones."
)
@click.option(
    "--early-stopping",
    type=click.Choice(["true", "false", "never"]),
    help="When a beam search ends.",
)
@click.option("--temperature", type=float, help="Sample at this temperature; 0 is greedy.")
@click.option("--top-k", type=int, help="Sample from the k likeliest tokens.")
@click.option("--top-p", type=float, help="Sample from the likeliest tokens that make up p.")
@click.option("--seed", type=int, help="Make sampling repeatable.")
@click.option("--repetition-penalty", type=float, help="Above 1 discourages repeated tokens.")
@click.option("--no-repeat-ngram-size", type=int, help="Forbid repeating any n-gram of this size.")
@verbosity
def command(
    bundle: str,
    text: str | None,
    file: str | None,
    output: str | None,
    as_json: bool,
    stream: bool,
    ids: bool,
    depth: str,
    stats: bool,
    profile: str | None,
    device: str | None,
    allow_fallback: bool,
    threads: int | None,
    batch_size: int | None,
    early_stopping: str | None,
    **options: Any,
) -> None:
    r"""Generate text with BUNDLE: a folder written by `edgedec export`, or a built-in name (g2p).

    TEXT is the input; `-` reads inputs from standard input, one per line. For -f and `-`, exactly
    one line is printed for each input line: an empty line gives an empty line, and line ends inside
    an output are written as \n (use --json for the exact text).

    Options left out take their value from the checkpoint's generation_config.json.
    """
    source = _source(text, file, stream=stream, as_json=as_json, stats=stats)
    _check_profile(profile, (file, output), stats=stats)
    given = {name: value for name, value in options.items() if value is not None}
    if early_stopping is not None:
        given["early_stopping"] = {"true": True, "false": False}.get(early_stopping, early_stopping)
    _check_output(source, output)
    total = lines.count_lines(source) if source else 1
    if total == 0:
        note(f"{source} has no lines: nothing to do.")

    generator = _load(bundle, device, allow_fallback, threads, depth)
    # Options that do not go together are no line's fault.
    generator.generate([], batch_size=1, first_row=0, **given)
    beside = _beside(generator, depth) if stats else None
    watched = _watched(generator, profile)
    with lines.open_output(output) as out:
        if source is None:
            inputs: Iterator[str] = iter([_argument(text or "")])
        else:
            inputs = lines.read_lines(source)
        if stream:
            _stream(generator, watched, inputs, out, given, ids=ids, single=source is None)
            _show_profile(watched, profile, bundle, out, as_json=False)
            return
        size = batch_size or (1 if source in {None, lines.STDIN} else FILE_BATCH)
        # Results scrolling by on the same terminal are progress enough.
        shown = source is not None and (output is not None or not sys.stdout.isatty())
        with Bar("generating", total, unit="lines", shown=shown) as bar:
            index = asked = 0
            for batch in lines.batches(inputs, size):
                with _located(source, index, len(batch)):
                    results = _generate(generator, beside, watched, batch, asked, given, ids)
                for prompt, (result, agreement) in zip(batch, results, strict=True):
                    if as_json:
                        compared = {"agreement": agreement} if stats else {}
                        line = _record(index, prompt, result, compared)
                    else:
                        line = _text(result, keep_lines=source is None)
                    out.write(line + "\n")
                    index += 1
                out.flush()
                asked += sum(result is not None for result, _ in results)
                bar.advance(len(batch))
        if beside is not None:
            _show_stats(beside, out, as_json=as_json)
        _show_profile(watched, profile, bundle, out, as_json=as_json)


def _check_output(source: str | None, output: str | None) -> None:
    if (
        source
        and output
        and Path(source).exists()
        and Path(source).resolve() == Path(output).resolve()
    ):
        raise InputError(f"-f and -o name the same file, {output}; it would be lost.")


def _check_profile(profile: str | None, others: tuple[str | None, ...], *, stats: bool) -> None:
    if profile is not None and stats:
        raise InputError("--stats generates everything twice; it cannot go with --profile.")
    if profile:
        from edgedec.cli.terminal.spans import check_trace

        check_trace(profile, others)


@contextmanager
def _located(source: str | None, before: int, count: int) -> Iterator[None]:
    """Say which lines of a file an unsuitable input is among."""
    try:
        yield
    except InputError as error:
        if source is None:
            raise
        at = f"line {before + 1}" if count == 1 else f"lines {before + 1} to {before + count}"
        raise InputError(f"{lines.shown(source)}, {at}: {error}") from error


def _source(
    text: str | None, file: str | None, *, stream: bool, as_json: bool, stats: bool
) -> str | None:
    """Name the file that the inputs come from; None when TEXT is the input itself."""
    if text is not None and file is not None:
        raise InputError("Give either TEXT or -f FILE, not both.")
    if text is None and file is None:
        raise InputError("No input: give TEXT, `-` for standard input, or -f FILE.")
    if stream and as_json:
        raise InputError("--stream prints text as it comes; it cannot be combined with --json.")
    if stream and stats:
        raise InputError("--stats generates everything twice; it cannot be combined with --stream.")
    if stream and file is not None:
        raise InputError("--stream shows one input at a time; use TEXT or `-` with it, not -f.")
    if text is not None and text != lines.STDIN:
        if not text.strip():
            raise InputError("TEXT is empty.")
        return None
    return file if file is not None else lines.STDIN


def _argument(text: str) -> str:
    """Read TEXT as UTF-8 also where the locale made Python read it as something else."""
    try:
        return os.fsencode(text).decode("utf-8")
    except UnicodeError:
        raise InputError("TEXT is not valid UTF-8.") from None


def _load(
    bundle: str, device: str | None, allow_fallback: bool, threads: int | None, depth: str
) -> Generator:
    import edgedec
    from edgedec.builtin import resolve_bundle

    path = resolve_bundle(bundle, note=note)
    return edgedec.load(
        path, device=device, threads=threads, depth=depth, allow_fallback=allow_fallback
    )


def _beside(generator: Generator, depth: str) -> SideBySide:
    from edgedec.runtime.comparison import SideBySide
    from edgedec.runtime.depth.options import describe, make_policy

    policy = make_policy(depth, generator.bundle.manifest)
    return SideBySide(generator, policy, describe(policy))


def _show_stats(beside: SideBySide, out: TextIO, *, as_json: bool) -> None:
    """As a last line of the results, or as a table beside them."""
    if as_json:
        out.write(json.dumps({"stats": beside.facts()}, ensure_ascii=False) + "\n")
    else:
        from edgedec.cli.terminal.depth import stats_table

        click.echo("\n".join(stats_table(beside)), err=True)


def _watched(generator: Generator, profile: str | None) -> Watched | None:
    if profile is None:
        return None
    from edgedec.cli.terminal.spans import Watched

    return Watched(generator, trace=bool(profile))


def _show_profile(
    watched: Watched | None, path: str | None, bundle: str, out: TextIO, *, as_json: bool
) -> None:
    """As a last line of the results, or as tables beside them; and as a trace."""
    if watched is None:
        return
    if as_json:
        out.write(json.dumps({"profile": watched.facts()}, ensure_ascii=False) + "\n")
    else:
        click.echo("\n".join(watched.tables()), err=True)
    if path:
        watched.write(path, f"edgedec run {bundle}")


def _prompt(text: str, ids: bool) -> str | list[int]:
    if not ids:
        return text
    try:
        return [int(part) for part in text.replace(",", " ").split()]
    except ValueError:
        raise InputError(
            f"--ids: {text!r} is not a list of token ids such as `12, 7, 1`."
        ) from None


def _generate(
    generator: Generator,
    beside: SideBySide | None,
    watched: Watched | None,
    batch: list[str],
    first: int,
    options: dict[str, Any],
    ids: bool,
) -> list[tuple[Result | None, float | None]]:
    """Run one batch: results, each with its agreement with full depth where that is compared.

    The result of a blank input is None, as it never reaches the model. `first` counts the inputs
    that the model has had before, so that sampling does not depend on how they are cut into
    batches.
    """
    prompts = [_prompt(text, ids) for text in batch if text.strip()]
    if beside is not None:
        found = beside.generate(prompts, first_row=first, **options)
    else:
        size = max(1, len(prompts))
        results = generator.generate(prompts, batch_size=size, first_row=first, **options)
        found = [(result, None) for result in results]
        if watched is not None:
            watched.end(prompts, sum(len(result.tokens) for result in results))
    rows = iter(found)
    return [next(rows) if text.strip() else (None, None) for text in batch]


def _text(result: Result | None, *, keep_lines: bool) -> str:
    if result is None:
        return ""
    text = " ".join(map(str, result.tokens)) if result.text is None else result.text
    return text if keep_lines else lines.one_line(text)


def _record(index: int, prompt: str, result: Result | None, compared: dict[str, Any]) -> str:
    record = {
        "index": index,
        "input": prompt,
        "text": result.text if result else "",
        "tokens": [int(token) for token in result.tokens] if result else [],
        "score": result.score if result else None,
        "finish_reason": result.finish_reason if result else "empty",
        **compared,
    }
    return json.dumps(record, ensure_ascii=False)


def _stream(
    generator: Generator,
    watched: Watched | None,
    inputs: Iterator[str],
    out: TextIO,
    options: dict[str, Any],
    *,
    ids: bool,
    single: bool,
) -> None:
    has_text = "tokenizer.json" in generator.bundle.manifest.files
    for text in inputs:
        if text.strip():
            prompt, tokens = _prompt(text, ids), 0
            for chunk in generator.stream(prompt, **options):
                tokens += 1
                piece = chunk.text if has_text else f"{chunk.token} "
                out.write(piece if single else lines.one_line(piece))
                out.flush()
            if watched is not None:
                watched.end([prompt], tokens)
        out.write("\n")
        out.flush()
