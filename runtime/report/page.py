"""What reports as pages have in common: one file, no requests, in the colours readers prefer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgedec.runtime.report.markup import Html, element, join

STYLE = """
:root { color-scheme: light dark; --ink: #17181c; --muted: #5a5f6b; --line: #d5d8de; --back: #fff;
  --soft: #f4f5f7; --accent: #0b62c4 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8eaee; --muted: #a0a6b3; --line: #3a3f49; --back: #131519; --soft: #1d2026;
    --accent: #6cb2ff }
}
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 64rem; padding: 1rem; background: var(--back); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; text-size-adjust: 100%; -webkit-text-size-adjust: 100% }
h1 { font-size: 1.5rem; line-height: 1.25; margin: .5rem 0; overflow-wrap: anywhere }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .5rem }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; overflow-wrap: anywhere }
p { max-width: 46rem }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums }
caption { text-align: left; color: var(--muted); padding: .25rem 0 }
caption span { display: block; position: sticky; left: 0; max-width: min(46rem, 100vw - 4rem) }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap }
th { font-weight: 600 }
th:first-child, td:first-child, .facts td { text-align: left }
.facts td { white-space: normal; overflow-wrap: anywhere }
.facts th { font-weight: 400; color: var(--muted); vertical-align: top }
thead th { background: var(--soft) }
svg { display: block; width: 100%; max-width: 40rem; height: auto }
figure { margin: 0 }
figcaption, footer { font-size: .85rem; color: var(--muted) }
"""


def document(title: str, parts: Iterable[str], *, style: str = "", head: str = "") -> str:
    """A whole page.

    Args:
        title: text; also the heading of the page, which ``parts`` do not repeat.
        parts: markup of the body.
        style: rules beside the common ones.
        head: markup for the head.
    """
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8" />',
            '<meta name="viewport" content="width=device-width, initial-scale=1" />',
            *([head] if head else []),
            element("title", title),
            f"<style>{STYLE}{style}</style>",
            "</head>",
            "<body>",
            element("h1", title),
            *parts,
            "</body>",
            "</html>",
            "",
        ]
    )


def facts(rows: Iterable[Sequence[str]]) -> Html:
    """Names and what they stand for."""
    lines = (
        element("tr", element("th", name, scope="row"), element("td", value))
        for name, value in rows
    )
    return element("table", element("tbody", *lines), class_="facts")


def table(rows: Sequence[Sequence[str]]) -> Html:
    """Cells, of which the first row is the head; too wide a table scrolls by itself."""
    head, *body = rows
    cells = (element("th", cell, scope="col") for cell in head)
    lines = Html("\n").join(element("tr", *(element("td", c) for c in row)) for row in body)
    content = element(
        "table", element("thead", element("tr", *cells)), element("tbody", Html(lines))
    )
    return element("div", content, class_="wide")


def grid(
    caption: str, head: Iterable[str], lines: Iterable[Html], class_: str | None = None
) -> Html:
    """A table with a caption, which scrolls by itself, by keys too.

    Args:
        caption: says what it shows.
        head: names of its columns.
        lines: its rows.
        class_: for programs that read it.
    """
    columns = (element("th", name, scope="col") for name in head)
    content = element(
        "table",
        element("caption", element("span", caption)),
        element("thead", element("tr", *columns)),
        element("tbody", *lines),
        class_=class_,
    )
    return element("div", content, class_="wide", role="region", aria_label=caption, tabindex="0")


def picture(svg: str, caption: str) -> Html:
    """A picture, which its caption describes."""
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{join([caption])}"', 1)
    return element("figure", Html(svg), element("figcaption", caption))
