"""The page of a profile: well-formed, alone, complete, and safe to open."""

from __future__ import annotations

import json
import math
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.profiling.profiles import configuration, profile
from tests.report import pages

from edgedec.runtime.profiling.metrics import COMPONENT, METRICS
from edgedec.runtime.profiling.record import Profile
from edgedec.runtime.report import axes, bars
from edgedec.runtime.report.definitions import definition
from edgedec.runtime.report.figures import number
from edgedec.runtime.report.html import render_html
from edgedec.runtime.report.markup import printable
from edgedec.runtime.report.sections.latency import phases
from edgedec.runtime.schema import encode

STATS = ("p50", "p90", "p99", "mean", "sd", "min", "max")


def parse(page: str) -> ET.Element:
    """A page as XML, which is stricter than HTML."""
    return ET.fromstring(page)  # noqa: S314 - our own


def said(page: str) -> str:
    """All that readers see."""
    root = parse(page)
    body = root.find("body")
    assert body is not None
    for script in body.findall("script"):
        body.remove(script)
    return " ".join("".join(body.itertext()).split())


@pytest.fixture(params=pages.PROFILES)
def some(request: pytest.FixtureRequest) -> Profile:
    return pages.made(request.param)


@pytest.fixture
def page(request: pytest.FixtureRequest, some: Profile) -> str:
    """Of that profile."""
    name = request.node.callspec.params["some"]
    return pages.written(name)


def test_a_page_is_well_formed_and_alone(page: str) -> None:
    assert page.startswith("<!DOCTYPE html>\n<html")
    root = parse(page)
    tags = {element.tag.split("}")[-1] for element in root.iter()}
    assert not tags & {"img", "image", "iframe", "object", "embed", "form", "input", "use"}
    for element in root.iter():
        for name, value in element.attrib.items():
            if name in {"href", "src"}:
                assert value.startswith("#") or value == "data:,"
            assert not name.startswith("on")
            if name == "style":
                assert "url" not in value
    (script,) = root.iter("script")
    assert script.attrib == {"type": "application/json", "id": "profile"}
    ids = [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
    assert len(ids) == len(set(ids))
    targets = {element.attrib["href"][1:] for element in root.iter("a")}
    assert targets <= set(ids)
    assert "default-src 'none'" in page
    assert "prefers-color-scheme: dark" in page
    assert 'name="viewport"' in page


def test_headings_are_in_order(page: str) -> None:
    levels = [
        int(element.tag[1]) for element in parse(page).iter() if element.tag in {"h1", "h2", "h3"}
    ]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_the_profile_is_in_the_page(some: Profile, page: str) -> None:
    (script,) = parse(page).iter("script")
    # Once as XML has it, once as HTML has it, where entities mean nothing in scripts.
    assert script.text is not None
    assert json.loads(script.text) == json.loads(json.dumps(encode(some)))
    raw = page.split('id="profile">')[1].split("</script>", maxsplit=1)[0]
    assert json.loads(raw) == json.loads(script.text)


def test_every_figure_is_in_the_page(some: Profile, page: str) -> None:
    found: dict[tuple[int, str, str], set[str]] = {}
    for element in parse(page).iter("data"):
        if "data-stat" in element.attrib:
            key = (
                int(element.attrib["data-row"]),
                element.attrib["data-metric"],
                element.attrib["data-stat"],
            )
            found.setdefault(key, set()).add(element.attrib["value"])
    expected = {
        (index, metric, stat): {repr(value)}
        for index, row in enumerate(some.rows)
        for metric, summary in row.metrics.items()
        if summary is not None
        for stat in STATS
        if (value := getattr(summary, stat)) is not None
    }
    assert found == expected


def test_every_operator_is_in_the_page() -> None:
    some = pages.single()
    found = {
        element.attrib["data-metric"]: element.attrib["value"]
        for element in parse(pages.written("single")).iter("data")
    }
    recorded = some.rows[0].operators
    assert recorded is not None
    for kind, operators in (("layer", recorded.by_layer), ("type", recorded.by_type)):
        for one in operators:
            assert found[f"{kind}[{one.phase}][{one.name}][{one.component}]"] == repr(one.ms)
    assert found["operators[cross_kv_ms]"] == "0.75"
    # a bar holds a layer's parts; steps are shown as one of them
    parts = [one.ms for one in recorded.by_layer if one.name.startswith("decoder.1.")]
    assert float(found["layer[step][decoder.1]"]) == pytest.approx(sum(parts[3:]) / recorded.steps)


def test_what_is_missing_has_its_reason(some: Profile, page: str) -> None:
    words = said(page)
    named = {
        element.attrib["data-missing"]
        for element in parse(page).iter()
        if "data-missing" in element.attrib
    }
    assert named == {printable(metric) for row in some.rows for metric in row.missing}
    for row in some.rows:
        sentences = [*row.missing.values(), *row.warnings, *([row.error] if row.error else [])]
        for sentence in sentences:
            assert " ".join(printable(sentence).split()) in words


def test_a_page_is_always_the_same() -> None:
    assert render_html(pages.everything()) == pages.written("everything")


def test_sections_come_with_their_data() -> None:
    def anchors(profile: Profile) -> set[str]:
        root = parse(render_html(profile))
        return {element.attrib["id"] for element in root.iter("section")}

    everything = anchors(pages.everything())
    assert {
        "configurations",
        "latency",
        "starts",
        "tokens",
        "distribution",
        "layers",
        "operators",
        "memory",
        "roofline",
        "depth",
        "figures",
        "trust",
        "bundles",
        "machine",
        "terms",
    } == everything
    assert anchors(pages.single()) == everything - {"configurations", "depth"}
    assert anchors(pages.minimal()) == {"latency", "tokens", "trust", "machine", "terms"}
    words = said(render_html(pages.minimal()))
    for hint in ("--ops", "--in-process", "--depth", "-r asks for more"):
        assert hint in words
    now, comparison = pages.compared()
    root = parse(render_html(now, comparison))
    assert any(element.attrib["id"] == "earlier" for element in root.iter("section"))
    assert comparison.slower
    assert "slower" in said(render_html(now, comparison))


def test_an_interruption_and_failures_are_said_first() -> None:
    assert "interrupted" in said(render_html(pages.interrupted()))[:400]
    words = said(render_html(pages.all_failed()))
    assert "2 of 2 rows failed" in words
    assert "no such bundle." in words


def test_no_rows_at_all() -> None:
    assert "Profile of nothing" in said(render_html(replace(pages.single(), rows=())))


def test_hostile_names_are_only_text() -> None:
    page = render_html(pages.hostile())
    words = said(page)
    for name in pages.HOSTILE:
        assert " ".join(printable(name).split()) in words
    classes = {element.attrib.get("class") for element in parse(page).iter()}
    assert None in classes
    assert "<script>alert" not in page
    assert "<img" not in page
    assert "\x1b" not in page


def test_every_metric_is_defined() -> None:
    for metric in METRICS:
        words = definition(metric.replace(COMPONENT, "run_ms[decoder]"))
        assert words is not None, metric
        assert words.endswith(".")
    assert definition("future_ms") is None


@pytest.mark.parametrize("name", ["single", "texts"])
def test_time_runs_forwards(name: str) -> None:
    section = parse(pages.written(name)).find(".//section[@id='tokens']")
    assert section is not None
    lines = [path.attrib["d"] for path in section.iter("path") if path.attrib["class"] == "bold"]
    for line in lines:
        across = [float(point.split()[0]) for point in line[1:].split("L")]
        assert across == sorted(across)
    assert len(lines) == 2


def test_phases_add_up() -> None:
    samples = [
        sample
        for profile in (pages.everything(), pages.minimal())
        for row in profile.rows
        for turn in row.turns
        for sample in turn.samples
    ]
    assert len(samples) > 60
    for sample in samples:
        total = sum(value for _, value in phases(sample))
        assert total == pytest.approx(sample.e2e_ms, rel=3e-3)


@given(st.floats(1e-6, 1e9))
def test_numbers_have_three_digits(value: float) -> None:
    assert float(number(value).replace(",", "")) == pytest.approx(value, rel=5.1e-3)
    assert len(number(value).replace(",", "").replace(".", "").lstrip("0")) >= 3 or value < 1e-4


@given(st.lists(st.sampled_from([0.0, 5e-324, 1e-9, 1.0, 1e308, math.inf]), max_size=4))
def test_bars_have_a_width_whatever_their_values_are(values: list[float]) -> None:
    one = bars.Bar("name", [bars.Segment("part", value) for value in values], "", 0)
    for style in (
        part.attrib.get("style", "") for part in parse(bars.chart([one], "", "ms")).iter()
    ):
        for share in re.findall(r"(?:left|width):([^;]*)%", style):
            assert 0 <= float(share) <= 100.0001


def test_exits_of_no_token_divide_nothing() -> None:
    what = configuration(depth="early_exit")
    made = pages.full_row(what, rounds=1, each=1)
    turns = tuple(
        replace(turn, samples=tuple(replace(one, exits={"3": 0}) for one in turn.samples))
        for turn in made.turns
    )
    assert "after layer 3" in said(render_html(profile(pages.put_together(turns, what))))


def test_numbers_for_people() -> None:
    texts = [number(value) for value in (0.0, 0.0123, 0.5, 20.51, 123.4, 4711.0, 3e-7)]
    assert texts == ["0", "0.0123", "0.500", "20.5", "123", "4,711", "3.00e-07"]
    assert number(0.0511, like=2.16) == "0.05"


@given(st.floats(0, 1e6), st.floats(1e-3, 1e6), st.booleans())
def test_ticks_lie_within_their_axis(low: float, length: float, logarithmic: bool) -> None:
    axis = axes.Axis("ms", max(low, 1e-3), max(low, 1e-3) + length, logarithmic)
    ticks = axis.ticks()
    assert len(ticks) <= 6
    assert ticks == sorted(set(ticks))
    for tick in ticks:
        assert -1e-6 <= axis.part(tick) <= 1 + 1e-6
    if not logarithmic and length > 1e-6 * axis.low:
        assert len(ticks) >= 2


@given(st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=20))
def test_axes_hold_all_values(values: list[float]) -> None:
    for axis in (axes.from_zero("ms", values), axes.around("ms", values)):
        assert all(-1e-9 <= axis.part(value) <= 1 + 1e-9 for value in values)
        assert all(map(math.isfinite, axis.ticks()))
