"""A study as text: the measured table, and the answers beside the paper's claims."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import partial
from textwrap import fill

from edgedec.errors import InputError
from edgedec.runtime.profiling.record import Summary
from edgedec.runtime.schema import encode
from edgedec.study.record import Answer, Measurement, Model, Pair, Question, Study

HEADINGS = (
    "prompt",
    "model",
    "first token ms",
    "token ms",
    "tokens/s",
    "request tokens/s",
    "peak MB",
    "KV MB",
    "first token GFLOP",
    "token GFLOP",
    "request GFLOP",
)
WIDTH = 100
NONE = "-"
STAR = "*"
PAPER = (
    "The paper (arXiv 2501.16273) and its repository claim these figures for an encoder-decoder "
    "against a decoder-only model of its size, but name no devices, lengths of inputs and outputs, "
    "precision, batch size or software, and no times of the decoder-only model: the measurements "
    "cannot be repeated, only the question."
)
FLOPS = (
    "FLOPs are computed, not measured: products and attention that a request needs, 2 for a "
    "multiplication and an addition."
)
Rows = list[list[str]]


def render(study: Study, output: str) -> str:
    """A study as text that ends with a line break.

    Args:
        study: measured.
        output: ``table`` for terminals, ``md`` for documents, ``json`` with everything.

    Raises:
        InputError: there is no such format.
    """
    if output == "json":
        return json.dumps(encode(study), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    if output not in LAYOUTS:
        raise InputError(
            f"-o {output}: a study is printed as {', '.join(LAYOUTS)} or json, nothing else."
        )
    layout = LAYOUTS[output]
    wrap = partial(fill, width=WIDTH, break_on_hyphens=False)
    blocks: list[str] = []
    for pair in study.pairs:
        measured = [m for m in study.measurements if m.shape == pair.shape]
        answers = [a for a in study.answers if a.shape == pair.shape]
        blocks += [
            wrap(_models(study, pair)),
            layout([list(HEADINGS), *map(_cells, measured)], 2),
            layout(_answered(study.questions, answers), 1),
        ]
    blocks += [*map(wrap, _notes(study)), "\n".join(_warnings(study))]
    return "\n\n".join(filter(None, blocks)) + "\n"


def _terminal(rows: Rows, left: int) -> str:
    from edgedec.runtime.report.columns import columns

    return "\n".join(columns(rows, right=frozenset(range(left, len(rows[0])))))


def _markdown(rows: Rows, left: int) -> str:
    marks = ["---"] * left + ["---:"] * (len(rows[0]) - left)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (rows[0], marks, *rows[1:]))


LAYOUTS = {"table": _terminal, "md": _markdown}
"""Rows, of which the first are headings, and the number of columns that are words -> text."""


def _models(study: Study, pair: Pair) -> str:
    both, alone = pair.models
    weights = "float32" if study.quant == "none" else study.quant
    return (
        f"Shape {pair.shape}, {weights} weights, {study.new_tokens} new tokens. "
        f"Blocks of both models: width {pair.d_model:,}, {pair.d_ff:,} hidden units, {pair.heads} "
        f"heads of {pair.head_dim} with {pair.kv_heads} of keys and values; vocabulary "
        f"{pair.vocab_size:,}. {_size(both)}; {_size(alone)}, "
        f"{abs(alone.parameters / both.parameters - 1):.1%} "
        f"{'fewer' if alone.parameters < both.parameters else 'more'}."
    )


def _size(model: Model) -> str:
    layers = f"{model.decoder_layers}"
    if model.encoder_layers is not None:
        layers = f"{model.encoder_layers} + {layers}"
    name = model.architecture.capitalize() if model.encoder_layers else model.architecture
    return f"{name}: {layers} layers, {model.parameters / 1e6:.1f} M parameters"


def _cells(measured: Measurement) -> list[str]:
    """A line of the first table."""
    caches = [s.p50 for s in (measured.cache_mb, measured.cross_mb) if s is not None]
    return [
        str(measured.prompt),
        measured.architecture + (STAR if measured.warnings or measured.error else ""),
        _spread(measured.ttft_ms),
        _spread(measured.tpot_ms),
        _number(measured.tokens_per_s),
        _number(measured.request_tokens_per_s),
        _number(None if measured.peak_rss_mb is None else measured.peak_rss_mb.p50),
        _number(sum(caches) if caches else None),
        _number(measured.flops_first_token / 1e9),
        _number(None if measured.flops_token is None else measured.flops_token / 1e9),
        _number(measured.flops_request / 1e9),
    ]


def _spread(summary: Summary | None) -> str:
    """Median and standard deviation."""
    if summary is None:
        return NONE
    deviation = "" if summary.sd is None else f" ± {_number(summary.sd)}"
    return _number(summary.p50) + deviation


def _number(value: float | None) -> str:
    """Three digits, or all before the point."""
    if value is None:
        return NONE
    digits = 0 if abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2
    return f"{value:,.{digits}f}" if abs(value) >= 0.1 else f"{value:.2g}"


def _answered(questions: Sequence[Question], answers: Sequence[Answer]) -> Rows:
    prompts = list(dict.fromkeys(answer.prompt for answer in answers))
    found = {(answer.metric, answer.prompt): answer for answer in answers}
    return [
        [
            "encoder-decoder against decoder-only",
            "paper",
            *(f"prompt {prompt}" for prompt in prompts),
        ],
        *(
            [
                question.name,
                question.claim,
                *(_answer(question, found[question.metric, prompt]) for prompt in prompts),
            ]
            for question in questions
        ),
    ]


def _answer(question: Question, answer: Answer) -> str:
    if answer.ratio is None:
        return NONE
    write, unit = (_times, "x") if question.kind == "times" else (_change, " %")
    text = write(answer.ratio) + unit
    if answer.low is None or answer.high is None or not answer.coverage:
        return text
    ends = sorted((answer.low, answer.high), reverse=question.kind == "less")
    return f"{text} ({write(ends[0])} to {write(ends[1])})"


def _times(ratio: float) -> str:
    """How many times as fast the encoder-decoder is."""
    return f"{ratio:.2f}"


def _change(ratio: float) -> str:
    """By how many per cent the encoder-decoder's figure is larger."""
    return f"{round(100 * (1 / ratio - 1)):+d}"


def _notes(study: Study) -> Iterator[str]:
    """What one has to know of the figures."""
    effort = study.profile.effort
    coverages = sorted({answer.coverage for answer in study.answers if answer.coverage})
    ratios = ""
    if coverages:
        ends = dict.fromkeys(f"{coverage:.0%}" for coverage in (coverages[0], coverages[-1]))
        ratios = (
            " Ratios are medians over rounds, with an interval for that median in parentheses "
            f"(coverage {' to '.join(ends)})."
        )
    yield (
        f"Medians of {_count(effort.repetitions, 'request')} in {_count(effort.rounds, 'round')}, "
        f"in which the models take turns, ± standard deviation.{ratios}"
    )
    yield _machine(study)
    yield f"{FLOPS} {PAPER}"
    if not study.profile.complete:
        yield "Interrupted: what has no figures was not measured."


def _warnings(study: Study) -> list[str]:
    """Each once, with where it holds."""
    found: dict[str, list[str]] = {}
    for one in study.measurements:
        for text in (*one.warnings, *([one.error] if one.error else [])):
            found.setdefault(text, []).append(f"{one.architecture} {one.prompt} ({one.shape})")
    return [
        fill(f"{STAR} {', '.join(where)}: {text}", WIDTH, subsequent_indent="  ")
        for text, where in found.items()
    ]


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _machine(study: Study) -> str:
    environment = study.profile.environment
    threads = study.profile.rows[0].configuration.threads  # the same in all
    used = "threads as the device chooses" if threads is None else _count(threads, "thread")
    runtime = environment.versions.get("onnxruntime", "of unknown version")
    return (
        f"{environment.date[:10]}, {environment.cpu}, {environment.cores} cores, {used}, "
        f"{study.profile.producer}, ONNX Runtime {runtime}, "
        f"instruction set {environment.instruction_set or 'unknown'}."
    )
