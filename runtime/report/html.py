"""A profile as one page: no other files, no requests, no scripts but the profile itself as data.

Bars are HTML and plots are SVG, written here: their numbers stand in the page as text, they fit a
telephone, and a board needs no plotting library for them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from edgedec.runtime.profiling.comparison import Comparison
from edgedec.runtime.profiling.record import Profile
from edgedec.runtime.report.markup import Html, element
from edgedec.runtime.report.page import document
from edgedec.runtime.report.rows import Shown, shown
from edgedec.runtime.report.sections.configurations import configurations
from edgedec.runtime.report.sections.depth import depth
from edgedec.runtime.report.sections.distribution import distribution
from edgedec.runtime.report.sections.earlier import earlier
from edgedec.runtime.report.sections.latency import latency, starts
from edgedec.runtime.report.sections.machine import bundles, machine
from edgedec.runtime.report.sections.memory import memory, roofline
from edgedec.runtime.report.sections.metrics import metrics, terms
from edgedec.runtime.report.sections.operators import layers, types
from edgedec.runtime.report.sections.overview import overview, title
from edgedec.runtime.report.sections.section import Section
from edgedec.runtime.report.sections.tokens import tokens
from edgedec.runtime.report.sections.trust import trust
from edgedec.runtime.report.style import PROFILE_STYLE
from edgedec.runtime.schema import encode

HEAD = """\
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; \
img-src data:" />
<link rel="icon" href="data:," />"""
"""Nothing is fetched and nothing runs, whatever the names in a profile are."""


def render_html(profile: Profile, comparison: Comparison | None = None) -> str:
    """Write a profile as an HTML page.

    Args:
        profile: to be shown; it is also in the page as JSON, the element ``#profile``.
        comparison: of it with an earlier one.
    """
    rows = shown(profile)
    every = _measured(profile, rows, comparison)
    present = [section for section in every if section.parts]
    absent = [section for section in every if not section.parts and section.absent]
    present += [trust(rows, absent), bundles(profile), machine(profile), terms(rows)]
    present = [section for section in present if section.parts]
    main = [*overview(profile, rows), _contents(present), *map(_section, present)]
    body = [element("main", *main), _footer(profile), _data(profile)]
    return document(title(profile), body, style=PROFILE_STYLE, head=HEAD)


def _measured(profile: Profile, rows: list[Shown], comparison: Comparison | None) -> list[Section]:
    return [
        earlier(comparison, rows),
        configurations(profile, rows),
        latency(rows),
        starts(rows),
        tokens(rows),
        distribution(rows),
        layers(rows),
        types(rows),
        memory(rows),
        roofline(profile, rows),
        depth(rows),
        metrics(rows),
    ]


def _section(section: Section) -> Html:
    heading = element("h2", section.title, id=f"{section.anchor}-heading")
    return element(
        "section",
        heading,
        *section.parts,
        id=section.anchor,
        aria_labelledby=f"{section.anchor}-heading",
    )


def _contents(sections: Sequence[Section]) -> Html:
    links = [
        element("li", element("a", section.title, href=f"#{section.anchor}"))
        for section in sections
    ]
    return element("nav", element("ul", *links), aria_label="Contents")


def _footer(profile: Profile) -> Html:
    words = (
        f"Written by {profile.producer}. This page holds the profile with all samples, as "
        f"`edgedec profile --save` writes it (schema version {profile.schema_version}), in its "
        "element #profile. docs/metrics.md has the formulas."
    )
    return element("footer", element("p", words))


def _data(profile: Profile) -> Html:
    """The profile as JSON that ends no element and is no markup, in HTML and in XML."""
    text = json.dumps(encode(profile), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for letter in "<>&":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Html(f'<script type="application/json" id="profile">{text}</script>')
