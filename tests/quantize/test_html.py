"""The page of a report: well-formed, complete, alone, and safe to open."""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from tests.quantize.reports import NAMES, comparison, report

from edgedec.errors import MissingDependencyError
from edgedec.quantize.reporting import tables
from edgedec.quantize.reporting.html import render
from edgedec.quantize.reporting.report import Comparison, QuantizationReport
from edgedec.runtime.report.markup import printable

HOSTILE = (
    "<script>alert(1)</script>",
    'q" onload="alert(1)',
    "a & b]]> <!-- $x_1$ ${y} --",
    "\x00\x1b[2J\ud800",
    r"$\frac{$",
    "重み行列",
)


def parse(page: str) -> ET.Element:
    """A page as XML, which is stricter than HTML."""
    return ET.fromstring(page)  # noqa: S314 - our own


def texts(page: str) -> list[str]:
    """All text of a page that is XML too, entities resolved."""
    return [text.strip() for text in parse(page).itertext() if text.strip()]


@pytest.mark.parametrize(
    "some",
    [
        report(),
        report(mixed=False),
        report(["model.layers.0.q.weight"]),
        report([f"onnx::MatMul_{i}" for i in range(60)]),
        report([f"onnx::MatMul_{i}.{j}.w" for i in range(50) for j in range(2)]),
        replace(
            report(NAMES[:4]),
            task=None,
            seconds=None,
            matrices=tuple(replace(m, codebooks=()) for m in report(NAMES[:4]).matrices),
        ).without_times(),
        comparison(),
        comparison(()),
    ],
)
def test_a_page_is_well_formed_and_alone(
    some: QuantizationReport | Comparison,
) -> None:
    page = render(some)
    assert page.startswith("<!DOCTYPE html>\n<html")
    root = parse(page)
    tags = {element.tag.split("}")[-1] for element in root.iter()}
    assert not tags & {"script", "link", "img", "image", "iframe", "object", "embed", "a", "form"}
    for element in root.iter():
        for name, value in element.attrib.items():
            if name.split("}")[-1] in {"href", "src", "data", "action"}:
                assert value.startswith("#")
            assert not name.startswith("on")
            # Every address but the names of XML's vocabularies would be a request.
            assert "//" not in value
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", page))
    assert "@import" not in page
    ids = [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
    assert len(ids) == len(set(ids))
    assert "var(--ink)" in page
    assert "#010203" not in page
    assert "prefers-color-scheme: dark" in page
    assert 'name="viewport"' in page


def test_a_page_is_always_the_same() -> None:
    assert render(report(NAMES[:4])) == render(report(NAMES[:4]))


def test_a_page_has_every_figure() -> None:
    some = report()
    assert some.task is not None
    found = texts(render(some))
    for table in (
        tables.summary(some),
        tables.agreements(some),
        tables.task(some.task),
        tables.kinds(some),
        tables.matrices(some),
    ):
        for row in table:
            for cell in row:
                assert cell in found
    totals = some.totals()
    assert any(f"{totals.bits_per_weight:.3f}" in text for text in found)
    assert any(f"{totals.weights:,}" in text for text in found)
    for matrix in some.matrices:
        assert {matrix.name, f"{matrix.bytes:,}", f"{matrix.output_error:.4g}"} <= set(found)


def test_a_comparison_has_every_figure() -> None:
    some = comparison()
    found = texts(render(some))
    for row in tables.comparison(some):
        for cell in row:
            assert cell in found
    # and the picture names what it shows: each method once more
    assert found.count("jlcm") == found.count("rtn-block32") == 2
    assert found.count("float32") == 1


def pictures(page: str) -> list[ET.Element]:
    return [element for element in parse(page).iter() if element.tag.endswith("svg")]


def test_pictures() -> None:
    errors, bits, levels = pictures(render(report()))
    shown = [text.strip() for text in errors.itertext()]
    assert {"encoder.*.mlp.up", "decoder.*.self_attn.q", "layer", "output error"} <= set(shown)
    drawn = [text.strip() for text in bits.itertext()]
    assert sum(drawn.count(width) for width in ("2", "3", "4")) >= len(NAMES)
    assert "head" in [text.strip() for text in levels.itertext()]
    assert len(pictures(render(report(mixed=False)))) == 2  # bits are the same everywhere


def test_hostile_names_are_only_text() -> None:
    everything = "".join(HOSTILE)
    names = [f"{name}.{layer}.{name}.weight" for name in HOSTILE for layer in range(2)]
    some = report([*names, *HOSTILE], source=everything)
    some = replace(
        some,
        method=everything,
        calibration=some.calibration and replace(some.calibration, name=everything),
        agreements=tuple(
            replace(a, text=replace(a.text, name=everything)) for a in some.agreements
        ),
        task=some.task and replace(some.task, name=everything),
    )
    for page in (render(some), render(replace(comparison(HOSTILE), source=everything))):
        root = parse(page)
        assert not [e for e in root.iter() if e.tag.endswith("script")]
        assert not [e for e in root.iter() if any(a.startswith("on") for a in e.attrib)]
        for name in HOSTILE:
            assert any(printable(name) in text for text in texts(page))
        page.encode()


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'edgedec\[report\]'"):
        render(report())
