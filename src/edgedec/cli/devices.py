"""`edgedec devices`: what runs bundles on this machine, and how fast its operators are."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from edgedec.cli.terminal.logs import verbosity
from edgedec.runtime.report.columns import columns

if TYPE_CHECKING:
    from edgedec.devices.report import DeviceReport


@click.command("devices", short_help="Show what runs bundles here, and by which kernels.")
@click.option("--json", "as_json", is_flag=True, help="Print the same as JSON.")
@verbosity
def command(as_json: bool) -> None:
    """Show every device of this machine and how it runs edgedec's operators.

    Bundles with codebook weights (`edgedec export --quant`) are fast where kernels run their
    operators; function bodies compute the same in standard ones, about as fast as without --quant.
    """
    from edgedec.devices.base import DEVICES, get_device

    reports = [get_device(name).report() for name in DEVICES]
    if as_json:
        click.echo(json.dumps([asdict(report) for report in reports], indent=2))
        return
    click.echo("\n\n".join("\n".join(describe(report)) for report in reports))


def describe(report: DeviceReport) -> list[str]:
    """A device for people: facts, operators, and every reason once."""
    facts = [["device", report.device]]
    if report.runtime is not None:
        facts.append(["runtime", report.runtime])
    if report.threads is not None:
        facts.append(["threads", f"{report.threads} by default"])
    facts.append(["library", report.library or "none"])
    if report.instruction_sets:
        facts.append(["instruction sets", ", ".join(report.instruction_sets)])
    rows = [["operator", "runs as", "instruction set"]]
    rows += [[o.operator, o.runs_as, o.instruction_set or ""] for o in report.operators]
    reasons = dict.fromkeys(
        reason for reason in (report.reason, *(o.reason for o in report.operators)) if reason
    )
    return [
        *columns(facts),
        "",
        *columns(rows),
        *([""] if reasons else []),
        *map(_sentence, reasons),
    ]


def _sentence(reason: str) -> str:
    return reason[:1].upper() + reason[1:]
