"""`edgedec devices`: what runs bundles on this machine, and how fast its operators are."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgedec.cli.terminal.logs import verbosity
from edgedec.errors import CheckFailedError, DeviceError, InputError
from edgedec.runtime.report.columns import columns

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from edgedec.devices.doctor import Route
    from edgedec.devices.report import DeviceReport


ROUTES = ("tensorrt", "tensorrt-rtx", "cuda", "qnn", "openvino")
"""What `--doctor` can look at: the keys of `edgedec.devices.doctor.ROUTES`, which takes imports."""
ALL = "all"
CODES = {"failed": CheckFailedError.exit_code, "missing": DeviceError.exit_code}
"""State of a finding -> exit code of a doctor that was asked for one route."""


@click.command("devices", short_help="Show what runs bundles here, and by which kernels.")
@click.option("--json", "as_json", is_flag=True, help="Print the same as JSON.")
@click.option(
    "--doctor",
    type=click.Choice((ALL, *ROUTES)),
    is_flag=False,
    flag_value=ALL,
    metavar="[DEVICE]",
    help="Say what each way to a GPU or NPU lacks, and what would add it, or look at one: "
    f"{', '.join(ROUTES)}. A GPU's is tried step by step.",
)
@click.option(
    *("-o", "--output"),
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write what --json would print to this file as well.",
)
@verbosity
def command(as_json: bool, doctor: str | None, output: Path | None) -> None:
    """Show every device of this machine and how it runs edgedec's operators.

    Bundles with codebook weights (`edgedec export --quant`) are fast where kernels run their
    operators; function bodies compute the same in standard ones, about as fast as without --quant.
    NVIDIA GPUs run any bundle. NPUs run bundles that were exported for them (`edgedec export
    --device`).
    """
    routes: list[Route] = []
    if doctor is not None:
        from edgedec.devices.doctor import examine

        routes = examine(None if doctor == ALL else [doctor])
        found: list[DataclassInstance] = [*routes]
        text = "\n\n".join("\n".join(describe_route(route)) for route in routes)
    else:
        from edgedec.devices.base import DEVICES, get_device

        reports = [get_device(name).report() for name in DEVICES]
        found = [*reports]
        text = "\n\n".join("\n".join(describe(report)) for report in reports)
    data = json.dumps([asdict(item) for item in found], indent=2)
    if output is not None:
        _write(output, f"{data}\n")
    click.echo(data if as_json else text)
    states = {finding.state for route in routes for finding in route.findings}
    if doctor in ROUTES:
        sys.exit(next((code for state, code in CODES.items() if state in states), 0))


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}.") from error


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
    """A way to a device for people: what was found, and the command that adds what was not."""
    width = max(8, *(len(finding.state) for finding in route.findings))
    lines = [f"{route.device}: {route.title}"]
    for finding in route.findings:
        took = "" if finding.seconds is None else f" ({finding.seconds:.1f} s)"
        lines.append(f"  {finding.state:<{width}}  {finding.what}{took}")
        if finding.command is not None:
            lines.append(f"  {'':<{width}}  $ {finding.command}")
    return lines


def _sentence(reason: str) -> str:
    return reason[:1].upper() + reason[1:]
