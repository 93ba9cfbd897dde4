"""Tables of profiles: complete, readable at any width, safe whatever names bundles have."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token
from tests.profiling.profiles import (
    CONDITIONS,
    FACTS,
    OPERATORS,
    configuration,
    failed,
    profile,
    row,
    sample,
    summaries,
    turn,
)

from edgedec.runtime.profiling.comparison import compare
from edgedec.runtime.profiling.record import Configuration, Profile, Row, load_profile
from edgedec.runtime.report.beside import FASTER
from edgedec.runtime.report.change import SLOWER
from edgedec.runtime.report.html import render_html
from edgedec.runtime.report.markup import printable
from edgedec.runtime.report.render import render
from edgedec.runtime.report.settings import test_of as name_of_test
from edgedec.runtime.schema import decode

FORMATS = ("table", "md", "csv", "json", "jsonl")
NAMES = st.text(st.characters(), min_size=1, max_size=30)  # surrogates and controls too
HOSTILE = (
    "a|b",
    "*bold* _x_ `code` ~~no~~ [link](http://x) ![i](x) <b>&amp;</b> $x$ # \\|",
    "=1+1",
    "-2",
    '"quoted", with\r\nlines',
    "\x1b[2J\x07\udc80\u202e",
    "重み行列",
    "- list",
    "1. list",
)
CONFIGURATIONS = st.builds(
    configuration,
    st.sampled_from(["g2p", "g2p-cb4", "a/longer/label of a bundle"]),
    device=st.sampled_from(["cpu", "gpu"]),
    threads=st.sampled_from([None, 1, 16]),
    batch=st.sampled_from([1, 128]),
    source_tokens=st.sampled_from([8, 1024]),
    new_tokens=st.sampled_from([1, 256]),
    depth=st.sampled_from(["full", "early_exit:threshold=0.9,floor=2"]),
)
SWEEPS = st.lists(CONFIGURATIONS, min_size=1, max_size=6, unique=True)
ROUNDS = ((20.0, 21.0), (22.0, 20.5), (20.25, 20.75))
FIVE = ((20.0, 20.1), (20.2, 20.3), (19.9, 20.0), (20.4, 20.2), (20.1, 20.1))


def slowed(rounds: Sequence[Sequence[float]], factor: float) -> list[list[float]]:
    return [[ms * factor for ms in times] for times in rounds]


def named(name: str, one: Row | None = None) -> Row:
    one = one or row()
    return replace(one, configuration=replace(one.configuration, bundle=name))


def swept(configurations: Sequence[Configuration]) -> Profile:
    """Rows whose times differ by what they measured."""
    return profile(
        *(row(slowed(ROUNDS, 3.7**number), what) for number, what in enumerate(configurations))
    )


def cells(text: str) -> list[list[str]]:
    """Of the first table of Markdown, as a reader sees them; the first row is the head."""
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(text)
    end = next(i for i, token in enumerate(tokens) if token.type == "table_close")
    found: list[list[str]] = []
    for token in tokens[:end]:
        if token.type == "tr_open":
            found.append([])
        elif token.type == "inline" and found:
            found[-1].append(seen(token))
    return found


def seen(token: Token) -> str:
    """Text of a cell, in which nothing was obeyed."""
    assert token.children is not None
    assert {child.type for child in token.children} <= {"text", "text_special"}
    return "".join(child.content for child in token.children)


def table_lines(text: str) -> list[str]:
    """Head and rows of the first table: the first block of text that is no line of facts."""
    return text.split("\n\n")[1].splitlines()


# The default table


def test_a_row_as_it_is_printed() -> None:
    assert render(profile(), "table") == (
        "bundle: g2p, size: 16.5 MB, quant: fp32, device: cpu, threads: 4, batch: 1\n"
        "Imaginary CPU @ 2.00GHz, 4 cores, avx2, edgedec 0.1.0, onnxruntime 1.30.0\n"
        "Medians (± standard deviation) of 6 requests in 3 rounds, each a process of its own.\n"
        "\n"
        "test           TTFT ms      TPOT ms  t/s      e2e ms  cold start ms  peak MB\n"
        "e2e128+64  4.12 ± 0.14  4.12 ± 0.14  242  20.6 ± 0.7            501      120\n"
    )


@given(SWEEPS)
def test_every_setting_is_told_once_or_in_every_row(sweep: list[Configuration]) -> None:
    text = render(swept(sweep), "md")
    head, *rows = cells(text)
    assert len(rows) == len(sweep)
    told = {
        "bundle": [what.bundle for what in sweep],
        "device": [what.device for what in sweep],
        "threads": [str(what.threads or "default") for what in sweep],
        "batch": [str(what.batch) for what in sweep],
        "test": [f"e2e{what.source_tokens}+{what.new_tokens}" for what in sweep],
    }
    if any(what.depth != "full" for what in sweep):
        told["depth"] = [what.depth for what in sweep]
    else:
        assert "depth" not in text
    for name, values in told.items():
        if name in head:
            assert [cells[head.index(name)] for cells in rows] == values
            assert name == "test" or len(set(values)) > 1
        else:
            assert len(set(values)) == 1
            assert f"{name}: {values[0]}" in text.replace("\\", "")


@given(SWEEPS)
def test_figures_are_those_of_the_json(sweep: list[Configuration]) -> None:
    measured = swept(sweep)
    head, *rows = cells(render(measured, "md"))
    for metric, name in (("ttft_ms", "TTFT ms"), ("e2e_ms", "e2e ms"), ("tokens_per_s", "t/s")):
        for one, texts in zip(measured.rows, rows, strict=True):
            summary = one.metrics[metric]
            assert summary is not None
            shown = [part.replace(",", "") for part in texts[head.index(name)].split(" ± ")]
            expected = [summary.p50, summary.sd][: len(shown)]
            for part, value in zip(shown, expected, strict=True):
                places = len(part.partition(".")[2])
                assert value is not None
                assert part == f"{value:.{places}f}"
            assert float(shown[0]) == pytest.approx(summary.p50, rel=5e-3)


@given(SWEEPS, st.integers(20, 160))
def test_no_line_of_a_table_is_too_long(sweep: list[Configuration], width: int) -> None:
    text = render(swept(sweep), "table", width=width)
    head, *rows = table_lines(text)
    full = cells(render(swept(sweep), "md"))
    if head.startswith(full[0][0] + "  ") and len(rows) == len(sweep):
        assert max(map(len, (head, *rows))) <= width
    else:  # a list for every row
        for line, name in zip((head, *rows), full[0], strict=False):
            assert line.startswith(name)
        assert text.count("\n\ntest") + text.count("\ntest") >= len(sweep)
    for texts in full[1:]:
        short = texts[full[0].index("e2e ms")].split(" ± ")[0]
        assert short in text


def test_what_has_no_room_is_named() -> None:
    two = profile(row(), row(what=configuration(batch=2)))
    assert "Too narrow" not in render(two, "table")
    narrow = render(two, "table", width=60)
    assert "Too narrow for cold start ms" in narrow
    assert "cold start ms" not in table_lines(narrow)[0]
    # The head does not promise what was left out either.
    shortened = render(two, "table", width=65)
    words = " ".join(shortened.split())
    assert "±" not in shortened
    assert "Medians of 6 requests in 3 rounds" in words
    assert "the deviation of TTFT ms and TPOT ms and e2e ms: -o md" in words
    assert "Medians (± standard deviation) of" in render(two, "table")


def test_one_is_no_plural() -> None:
    one = profile(row([[20.0]]))
    for text in (render(one, "table"), render_html(one)):
        assert re.search(r"1 request\b", text)
        assert re.search(r"1 round\b", text)
        assert not re.search(r"\b1 (requests|rounds|rows|figures|cores)\b", text)


def test_more_layers_than_there_are_have_a_word() -> None:
    drafting = row(what=configuration(depth="layerskip:exit=2,draft=4"))
    assert "rejected" not in render(profile(drafting), "table")
    turns = tuple(
        replace(turn, samples=tuple(replace(s, drafted=9, accepted=3) for s in turn.samples))
        for turn in drafting.turns
    )
    words = " ".join(render(profile(replace(drafting, turns=turns)), "table").split())
    assert "layers: decoder layers that ran" in words
    assert "rejected ones as well" in words


def test_a_batch_taken_one_by_one_says_why_it_has_no_first_token() -> None:
    turns = tuple(turn(number, [replace(sample(20.0), inputs=2, steps=3)]) for number in range(5))
    what = configuration(batch=2, depth="ngram")
    metrics, missing = summaries(turns, what)
    taken = Row(what, None, turns, None, metrics, missing, ())
    both = profile(row(FIVE, configuration(batch=2)), taken)
    text = render(both, "table")
    assert "TTFT ms, TPOT ms not measured: inputs were taken one by one" in text
    page = render_html(both)
    assert "inputs were taken one by one" in page
    assert "ratio[e2e_ms]" in page
    assert "ratio[tpot_ms]" not in page


def test_tests_have_names() -> None:
    text = replace(configuration(), source_tokens=None, text="dev.txt")
    assert name_of_test(configuration()) == "e2e128+64"
    assert name_of_test(text) == "text:dev.txt+64"
    assert name_of_test(replace(text, new_tokens=None)) == "text:dev.txt"


def test_failed_rows_and_warnings_are_told_below() -> None:
    busy, slow = "The machine was busy.", "The clock was low."
    text = render(
        profile(
            row(warnings=[busy]),
            failed("bundle x: nothing there.", configuration(batch=2)),
            row(what=configuration(batch=3), warnings=[slow, busy]),
            row(what=configuration(batch=4)),
        ),
        "table",
    )
    _, first, second, third, fourth = table_lines(text)
    assert [line.split()[-1] for line in (first, second)] == ["1", "2"]
    assert third.endswith("  3, 1")
    assert re.search(r"-( +-)+ +2$", second)
    assert fourth.endswith("120")
    assert f"[1] {busy}\n[2] Failed: bundle x: nothing there.\n[3] {slow}\n" in text


def test_warnings_that_differ_in_figures_are_one() -> None:
    def busy(batch: int, *warnings: str) -> Row:
        return row(what=configuration(batch=batch), warnings=warnings)

    text = render(
        profile(
            busy(1, "others used 9 % of 1,200 ms (core-2, v1.5).", "clocks: 2, 3 of 1.2.3"),
            busy(2, "others used 60.5 % of 1,200 ms (core-2, v1.5)."),
            busy(3, "others used 60.5 % of 300 ms (core-2, v1.5)."),
            busy(4, "others used 60.5 % of 300 ms (core-3, v1.5)."),
        ),
        "table",
    )
    assert [line.split()[-1] for line in table_lines(text)[1:]] == ["2", "1", "1", "3"]
    assert "[1] others used 9 to 60.5 % of 300 to 1,200 ms (core-2, v1.5).\n[2] clocks" in text
    assert "[3] others used 60.5 % of 300 ms (core-3, v1.5)." in text
    broken = profile(failed("Version 1 of it."), failed("Version 2 of it.", configuration(batch=2)))
    assert "[2] Failed: Version 2 of it." in render(broken, "table")


@given(st.lists(st.lists(st.text(st.sampled_from("a1.,% -"), max_size=8), max_size=4), max_size=6))
def test_every_warning_has_a_number_below(warnings: list[list[str]]) -> None:
    rows = [
        row(what=configuration(batch=batch), warnings=found)
        for batch, found in enumerate(warnings, 1)
    ]
    text = render(profile(*rows), "table")
    numbers = {
        number
        for line, found in zip(table_lines(text)[1:], warnings, strict=False)
        if found
        for number in re.findall(r"\d+", line[table_lines(text)[0].index("note") :])
    }
    assert numbers == set(re.findall(r"^\[(\d+)\]", text, re.MULTILINE))


def test_what_was_not_measured_says_why_once() -> None:
    text = render(profile(row(fresh=False), row(fresh=False, what=configuration(batch=2))), "table")
    assert "cold start" not in table_lines(text)[0]
    assert "peak" not in table_lines(text)[0]
    assert text.count("cold start ms not measured: ") == 1
    assert text.count("--in-process") == 1
    assert "all in one process" in text
    some = render(profile(row(), row(steps=1, what=configuration(new_tokens=1))), "table")
    assert table_lines(some)[2].split().count("-") == 2
    assert "TPOT ms, t/s not measured: " in some


def test_an_interrupted_profile_says_so() -> None:
    nothing = replace(
        failed("", configuration(batch=2)),
        error=None,
        missing={"e2e_ms": "The sweep was interrupted before."},
    )
    text = render(profile(row(), nothing, complete=False), "table")
    assert "Interrupted: some rows have fewer." in " ".join(text.split())
    assert "[1] The sweep was interrupted before." in text
    assert "not measured" not in text


def test_bundles_without_facts_have_dashes() -> None:
    text = render(profile(row(), named("other"), facts={"g2p": FACTS}), "table")
    assert re.search(r"^g2p +16.5 MB  fp32", text, re.MULTILINE)
    assert re.search(r"^other +-  - ", text, re.MULTILINE)


# Names


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", HOSTILE)
def test_no_terminal_obeys_a_name(form: str, name: str) -> None:
    hostile = profile(
        named(name, row(warnings=[name])), failed(name, configuration(depth=name)), row()
    )
    text = render(hostile, form, compare(hostile, hostile, 0.05))
    assert text.endswith("\n")
    assert text.replace("\r\n", "").replace("\n", "").isprintable()
    text.encode()


@given(NAMES)
@settings(max_examples=50)
def test_markdown_shows_names_as_they_are(name: str) -> None:
    _, first, _ = cells(render(profile(named(name), row()), "md"))
    assert first[0] == " ".join(printable(name).split())


@pytest.mark.parametrize("name", HOSTILE)
def test_markdown_obeys_no_name(name: str) -> None:
    hostile = profile(named(name, row(warnings=[name])), row())
    text = render(hostile, "md")
    assert cells(text)[1][0] == " ".join(printable(name).split())
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(text)
    for token in tokens:
        if token.type == "inline":
            seen(token)
    assert sum(token.type == "table_open" for token in tokens) == 2  # rows, ratios
    assert {t.level for t in tokens if t.type.endswith("_list_open")} == {0}


@given(NAMES)
@settings(max_examples=50)
def test_csv_gives_names_back_and_no_formula(name: str) -> None:
    text = render(profile(named(name), failed(name)), "csv")
    first, second = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    shown = printable(name)
    for cell in (first["bundle"], second["error"]):
        assert cell == (f"'{shown}" if shown[0] in "=+-@" else shown)


# Data


def test_csv_is_rfc_4180_with_bare_numbers() -> None:
    measured = profile(row(operators=OPERATORS), failed("It broke.", configuration(threads=None)))
    text = render(measured, "csv")
    assert text.count("\r\n") == text.count("\n") == 3
    head, first, second = csv.reader(io.StringIO(text, newline=""), strict=True)
    assert len(head) == len(set(head)) == len(first) == len(second)
    good, bad = dict(zip(head, first, strict=True)), dict(zip(head, second, strict=True))
    for name, summary in measured.rows[0].metrics.items():
        for statistic in ("p50", "mean", "sd", "p90", "p99"):
            value = None if summary is None else getattr(summary, statistic)
            assert good[f"{name}_{statistic}"] == ("" if value is None else repr(value))
            assert bad[f"{name}_{statistic}"] == ""
    assert (good["threads"], bad["threads"]) == ("4", "")
    assert bad["error"] == "It broke."
    assert good["cpu"] == "Imaginary CPU @ 2.00GHz"
    assert (good["rounds"], good["samples"]) == ("3", "6")


def test_lines_of_json_stand_alone() -> None:
    measured = profile(row(), failed("It broke.", configuration("broken")), facts={"g2p": FACTS})
    lines = [json.loads(line) for line in render(measured, "jsonl").splitlines()]
    for line, one in zip(lines, measured.rows, strict=True):
        keys = ("schema_version", "producer", "complete", "environment", "effort", "facts")
        shared = {key: line.pop(key) for key in keys}
        assert decode(Row, line) == one
        assert shared["environment"]["cpu"] == measured.environment.cpu
        assert shared["effort"]["rounds"] == 3
    assert lines[0].keys() == lines[1].keys()


@pytest.mark.parametrize("name", HOSTILE)
def test_json_is_the_profile(tmp_path: Path, name: str) -> None:
    measured = profile(named(name), failed("It broke."))
    file = tmp_path / "profile.json"
    file.write_text(render(measured, "json"), encoding="utf-8")
    assert load_profile(file) == measured
    for form in FORMATS:
        assert render(load_profile(file), form) == render(measured, form)


# Beside each other


def test_ratios_say_which_way_they_go() -> None:
    text = render(profile(row(FIVE), named("small", row(slowed(FIVE, 0.8)))), "table")
    ratios = text[text.index("Ratios against g2p") :]
    assert FASTER in " ".join(ratios.split())
    assert re.search(
        r"^e2e128\+64  1\.25 \[1\.25, 1\.25\] .*  1\.00.*  1\.25 times as fast$",
        ratios,
        re.MULTILINE,
    )
    slow = render(profile(row(FIVE), named("large", row(slowed(FIVE, 2)))), "table")
    assert "  takes 2.00 times as long\n" in slow
    assert slow.endswith("Too narrow for the interval of peak: -o md shows everything.\n")
    few = render(profile(row(), named("small", row(slowed(ROUNDS, 0.5)))), "table")
    assert "  too few rounds to tell\n" in few
    same = render(profile(row(FIVE), named("twin", row(FIVE[::-1]))), "table")
    assert "  no clear difference\n" in same


@pytest.mark.parametrize(
    ("factor", "words", "verdict"),
    [
        (1.25, "slower", r"slower\. e2e ms of g2p e2e128\+64 grew by 25\.0% .*, and 2 more; .*"),
        (1.0, "not slower", r"not slower\. None of 4 figures grew by more than 5%\."),
        (0.5, "faster", r"faster\. 3 of 4 figures fell, and none grew by more than 5%\."),
    ],
)
@pytest.mark.parametrize("form", ["table", "md"])
def test_a_comparison_ends_with_its_verdict(
    form: str, factor: float, words: str, verdict: str
) -> None:
    old, new = profile(row(FIVE)), profile(row(slowed(FIVE, factor)))
    text = render(new, form, compare(old, new, 0.05)).replace("\\", "")
    assert re.fullmatch(f"Verdict: {verdict}", text.splitlines()[-1].replace("TTFT", "e2e"))
    line = next(line for line in text.splitlines() if "e2e ms" in line and "TTFT" not in line)
    assert line.rstrip(" |").endswith(words)
    assert f"{factor:.3f}" in line
    assert SLOWER in " ".join(text.split())


def test_every_way_of_showing_says_the_same_direction() -> None:
    """Of ratios above 1, some are good and some are bad."""
    both = profile(row(FIVE), named("small", row(slowed(FIVE, 0.8))))
    comparison = compare(both, both, 0.05)
    pages = [render(both, form, comparison) for form in ("table", "md")]
    for text in (*pages, render_html(both, comparison)):
        words = " ".join(text.replace("\\", "").split())
        assert FASTER in words
        assert SLOWER in words


def test_noise_and_few_rounds_are_named_with_a_way_out() -> None:
    noisy = [[20 * part] for part in (1.0, 1.1, 0.9, 1.12, 0.95)]
    old, new = profile(row(FIVE)), profile(row(noisy))
    text = render(new, "table", compare(old, new, 0.05))
    rounds = re.search(r"undecided: noise, try (\d+) rounds", text)
    assert rounds is not None
    assert f"Measure both with --rounds {rounds[1]} -r {rounds[1]} or more." in text
    few = render(profile(), "table", compare(profile(), profile(), 0.05))
    assert "undecided: few rounds, try 5 rounds" in few
    assert few.endswith("Measure both with --rounds 5 -r 5 or more.\n")


def test_noise_that_no_number_of_rounds_overcomes_is_named() -> None:
    wild = [[20 * part] for part in (1.0, 9.0, 0.1, 2.0, 0.5)]
    text = render(
        profile(row(wild)), "table", compare(profile(row(FIVE)), profile(row(wild)), 0.05)
    )
    assert "undecided: noise, more than 200 rounds" in text
    assert text.splitlines()[-1].endswith("Too noisy here: more than 200 rounds would be needed.")


def test_warnings_of_both_profiles_are_told_once() -> None:
    def warned(*shares: int) -> Profile:
        return profile(
            *(
                row(what=configuration(batch=batch), warnings=[f"others used {share} % of it"])
                for batch, share in enumerate(shares, 1)
            )
        )

    comparison = compare(warned(11, 17), warned(12, 19), 0.05)
    for form in ("table", "md"):
        words = " ".join(render(warned(12, 19), form, comparison).split())
        assert words.count("Warning of the old profile: others used 11 to 17 % of it.") == 1
        assert words.count("Warning of the new profile: others used 12 to 19 % of it.") == 1


def test_rows_with_other_texts_are_no_verdict() -> None:
    what = replace(configuration(), text="words.txt", source_tokens=None)
    both = profile(row(FIVE), row(FIVE, what))
    text = render(both, "table", compare(both, both, 0.05))
    assert "1 row with text is not compared" in text
    assert "Verdict: undecided. 1 row could not be compared" in text.splitlines()[-1]


def test_a_machine_that_changed_is_named() -> None:
    old = profile(row(FIVE))
    changed = row(slowed(FIVE, 1.2), yardstick_ms=[CONDITIONS.yardstick_ms * 1.2] * 5)
    text = render(profile(changed), "table", compare(old, profile(changed), 0.05))
    assert "a fixed piece of work took 1.20 times as long" in text
    assert "undecided: other machine" in text
    assert "measure the old bundle again" in text.splitlines()[-1]


def test_nothing_in_common_is_no_verdict() -> None:
    other = profile(row(what=configuration(batch=2)))
    text = render(other, "table", compare(profile(), other, 0.05))
    assert "No configuration was measured in both profiles" in text
    assert text.endswith("Verdict: undecided. Nothing could be compared.\n")


@pytest.mark.parametrize("form", ["csv", "json", "jsonl"])
def test_data_is_of_one_profile(form: str) -> None:
    assert render(profile(), form, compare(profile(), profile(), 0.05)) == render(profile(), form)
