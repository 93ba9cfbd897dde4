"""`edgedec devices`: what runs bundles on this machine, and how fast its operators are."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from edgedec.cli.terminal.logs import verbosity
from edgedec.runtime.report.columns import columns

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from edgedec.devices.doctor import Route
    from edgedec.devices.report import DeviceReport


@click.command("devices", short_help="Show what runs bundles here, and by which kernels.")
@click.option("--json", "as_json", is_flag=True, help="Print the same as JSON.")
@click.option(
    "--doctor", is_flag=True, help="Say what each way to an NPU lacks, and what would add it."
)
@verbosity
def command(as_json: bool, doctor: bool) -> None:
    """Show every device of this machine and how it runs edgedec's operators.

    Bundles with codebook weights (`edgedec export --quant`) are fast where kernels run their
    operators; function bodies compute the same in standard ones, about as fast as without --quant.
    NPUs run bundles that were exported for them (`edgedec export --device`).
    """
    if doctor:
        from edgedec.devices.doctor import examine

        routes = examine()
        found: list[DataclassInstance] = [*routes]
        text = "\n\n".join("\n".join(describe_route(route)) for route in routes)
    else:
        from edgedec.devices.base import DEVICES, get_device

        reports = [get_device(name).report() for name in DEVICES]
        found = [*reports]
        text = "\n\n".join("\n".join(describe(report)) for report in reports)
    click.echo(json.dumps([asdict(item) for item in found], indent=2) if as_json else text)


def describe(report: DeviceReport) -> list[str]:
    """A device for people: facts, operators, and every reason once."""
    facts = [["device", report.device]]
    if report.runtime is not None:
        facts.append(["runtime", report.runtime])
    if report.threads is not None:
        facts.append(["threads", f"{report.threads} by default"])
    if report.verified is not None:
        facts.append(["verified", report.verified])
    if report.operators:
        facts.append(["library", report.library or "none"])
    if report.instruction_sets:
        facts.append(["instruction sets", ", ".join(report.instruction_sets)])
    lines = columns(facts)
    if report.operators:
        rows = [["operator", "runs as", "instruction set"]]
        rows += [[o.operator, o.runs_as, o.instruction_set or ""] for o in report.operators]
        lines += ["", *columns(rows)]
    reasons = dict.fromkeys(
        reason for reason in (report.reason, *(o.reason for o in report.operators)) if reason
    )
    return [*lines, *([""] if reasons else []), *map(_sentence, reasons)]


def describe_route(route: Route) -> list[str]:
    """A way to an NPU for people: what was found, and the command that adds what was not."""
    lines = [f"{route.device}: {route.title}"]
    for finding in route.findings:
        lines.append(f"  {finding.state:<8}  {finding.what}")
        if finding.command is not None:
            lines.append(f"  {'':<8}  $ {finding.command}")
    return lines


def _sentence(reason: str) -> str:
    return reason[:1].upper() + reason[1:]
