"""Prints how far the graphs are from the oracles, per family."""

from __future__ import annotations

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    largest: dict[str, float] = {}
    for report in terminalreporter.getreports("passed"):
        facts = dict(getattr(report, "user_properties", ()))
        if {"family", "difference"} <= facts.keys():
            family, distance = str(facts["family"]), float(str(facts["difference"]))
            largest[family] = max(distance, largest.get(family, 0.0))
    if largest:
        terminalreporter.section("largest logit difference, as a fraction of the logits' range")
        for family, distance in sorted(largest.items()):
            terminalreporter.write_line(f"{family:<8} {distance:.2e}")
