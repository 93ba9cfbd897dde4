"""Pages of profiles in a real browser: quiet, alone, on a telephone, with the JSON's figures."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
from tests.report import pages

from edgedec.builtin import resolve_bundle
from edgedec.runtime.profiling.plan import Plan
from edgedec.runtime.profiling.profiler import here, profile
from edgedec.runtime.profiling.record import Configuration, Effort, Profile
from edgedec.runtime.report.change import in_words
from edgedec.runtime.report.figures import number
from edgedec.runtime.report.html import render_html
from edgedec.runtime.schema import encode

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WIDTHS = (360, 1280)
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")

BARS = """() => [...document.querySelectorAll('ul.bars')].map(chart => ({
  scale: Number(chart.dataset.scale),
  lines: [...chart.querySelectorAll('li')].map(line => {
    const track = line.querySelector('.track').getBoundingClientRect();
    return {
      track: track.width,
      bars: [...line.querySelectorAll('.bar')].map(bar => {
        const place = bar.getBoundingClientRect();
        const left = place.left - track.left;
        return {value: Number(bar.dataset.value), width: place.width, left};
      }),
    };
  }),
}))"""
FIGURES = """() => [...document.querySelectorAll('data')].map(one => ({
  row: Number(one.dataset.row), metric: one.dataset.metric, stat: one.dataset.stat ?? null,
  value: Number(one.value), text: one.textContent, seen: one.getClientRects().length > 0,
}))"""
SPILLING = """() => [...document.querySelectorAll('main *')].filter(one => {
  if (one.closest('.wide') || one.closest('svg')) return false;
  const place = one.getBoundingClientRect();
  return place.width > 0 && (place.right > innerWidth + 0.5 || place.left < -0.5);
}).map(one => one.outerHTML.slice(0, 200))"""
CONTRASTS = """() => {
  const light = colour => {
    const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map(part => {
      const value = part / 255;
      return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = one => {
    for (; one; one = one.parentElement) {
      const colour = getComputedStyle(one).backgroundColor;
      if (colour !== 'rgba(0, 0, 0, 0)') return colour;
    }
    return null;
  };
  const found = new Set();
  for (const one of document.querySelectorAll('body *')) {
    const words = [...one.childNodes].some(node => node.nodeType === 3 && node.data.trim());
    if (!words || one.tagName === 'SCRIPT' || one.closest('svg')) continue;
    found.add(JSON.stringify([getComputedStyle(one).color, behind(one)]));
  }
  return [...found].map(JSON.parse).map(([front, back]) => {
    const [a, b] = [light(front), light(back)].sort();
    return [front, back, (b + 0.05) / (a + 0.05)];
  });
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright: the extra `dev`")
    program = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if program is None:
        pytest.skip("needs Chromium: make system-packages")
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program)
        yield opened
        opened.close()


class Opened:
    """A page, and all that it said or asked for."""

    def __init__(self, browser: Browser, text: str, path: Path) -> None:
        path.write_text(text, encoding="utf-8", newline="\n")
        self.messages: list[str] = []
        self.requests: list[str] = []
        self.page: Page = browser.new_page()
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("dialog", lambda dialog: self.messages.append(dialog.message))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())
        self.address = path.as_uri()

    def unfold(self) -> None:
        self.page.evaluate("() => document.querySelectorAll('details').forEach(d => d.open = true)")

    def figures(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.page.evaluate(FIGURES)
        return found


def check_layout(opened: Opened) -> None:
    """Nothing is wider than the window, in both schemes, folded or not."""
    page = opened.page
    for unfolded in (False, True):
        if unfolded:
            opened.unfold()
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 800})
            for scheme in SCHEMES:
                page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
                assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate(SPILLING) == []


def check_silence(opened: Opened) -> None:
    """No message, no error, and no request but for the page itself."""
    assert opened.messages == []
    assert opened.requests == [opened.address]


def check_bars(opened: Opened) -> None:
    """As wide as their values, on the scale of their chart, one after another."""
    charts = opened.page.evaluate(BARS)
    assert charts or opened.page.locator(".failed").count()
    for chart in charts:
        for line in chart["lines"]:
            for bar in line["bars"]:
                assert chart["scale"] > 0
                expected = line["track"] * bar["value"] / chart["scale"]
                assert bar["width"] == pytest.approx(expected, abs=0.5)
                assert bar["left"] + bar["width"] <= line["track"] + 1
            for before, after in pairwise(line["bars"]):
                assert after["left"] == pytest.approx(before["left"] + before["width"], abs=0.5)


def check_figures(opened: Opened, profile: Profile) -> None:
    """The numbers that are read are those of the JSON in the page, and of the profile."""
    opened.unfold()
    inside = opened.page.evaluate(
        "() => JSON.parse(document.querySelector('#profile').textContent)"
    )
    assert inside == json.loads(json.dumps(encode(profile)))
    figures = opened.figures()
    for figure in figures:
        assert figure["seen"], figure
        if figure["stat"] is None:
            continue
        summary = inside["rows"][figure["row"]]["metrics"][figure["metric"]]
        value = summary[figure["stat"]]
        assert figure["value"] == value
        if figure["metric"] != "bandwidth_fraction":
            like = summary["p50"] if figure["stat"] == "sd" else None
            assert figure["text"] == number(value, like)
    shown = {(one["row"], one["metric"]) for one in figures if one["stat"] == "p99"}
    assert shown == {
        (index, metric)
        for index, row in enumerate(inside["rows"])
        for metric, summary in row["metrics"].items()
        if summary is not None
    }


def check(opened: Opened, profile: Profile) -> None:
    """All of it."""
    check_layout(opened)
    check_figures(opened, profile)
    check_bars(opened)
    check_silence(opened)
    opened.page.close()


@pytest.mark.parametrize("name", pages.PROFILES)
def test_a_page_says_what_was_measured(name: str, browser: Browser, tmp_path: Path) -> None:
    shown = Opened(browser, pages.written(name), tmp_path / "report.html")
    check(shown, pages.made(name))


def test_a_comparison_with_an_earlier_profile(browser: Browser, tmp_path: Path) -> None:
    now, comparison = pages.compared()
    shown = Opened(browser, render_html(now, comparison), tmp_path / "report.html")
    table = shown.page.locator("table.earlier tbody")
    shown.page.set_viewport_size({"width": 360, "height": 800})
    for change in (change for _, change in comparison.changes):
        line = table.locator("tr").filter(has_text=change.metric)
        verdict = line.locator("td").first
        assert verdict.inner_text() == in_words(change)
        place = verdict.bounding_box()  # also on a telephone, without scrolling
        assert place is not None
        assert place["x"] + place["width"] <= 360
        ratio = line.locator("data").first
        assert float(ratio.get_attribute("value") or "nan") == change.ratio.median
    check(shown, now)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_text_can_be_read(
    scheme: Literal["light", "dark"], browser: Browser, tmp_path: Path
) -> None:
    shown = Opened(browser, pages.written("everything"), tmp_path / "report.html")
    shown.page.emulate_media(color_scheme=scheme)
    shown.unfold()
    back = shown.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (back == "rgb(255, 255, 255)") == (scheme == "light")
    contrasts = shown.page.evaluate(CONTRASTS)
    assert len(contrasts) > 4
    # 4.5: WCAG 2.2, 1.4.3, level AA
    assert [found for found in contrasts if found[2] < 4.5] == []
    shown.page.close()


def test_a_real_profile(browser: Browser, tmp_path: Path) -> None:
    threads = (1, 2)
    plan = Plan(
        bundles={"g2p": str(resolve_bundle("g2p"))},
        configurations=tuple(Configuration("g2p", "cpu", n, 1, 8, 4, "full") for n in threads),
        effort=Effort(rounds=1, repetitions=2, warmup=0, fresh=True, seed=0),
        operators=True,
    )
    measured = profile(plan, here(plan)).profile
    assert all(row.error is None for row in measured.rows)
    shown = Opened(browser, render_html(measured), tmp_path / "report.html")
    for section in ("layers", "operators", "latency", "tokens", "memory", "configurations"):
        assert shown.page.locator(f"#{section}").is_visible()
    check(shown, measured)
