"""`-v` and `-q`: the standard logging of the `edgedec` loggers, on standard error."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


class _StderrHandler(logging.Handler):
    """Writes to the standard error of the moment, which tests and progress bars replace."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(self.format(record), err=True)


def configure(level: int) -> None:
    """Send messages of the `edgedec` loggers at or above `level` to standard error."""
    logger = logging.getLogger("edgedec")
    logger.setLevel(level)
    if not any(isinstance(handler, _StderrHandler) for handler in logger.handlers):
        handler = _StderrHandler()
        handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
        logger.addHandler(handler)


def start() -> None:
    """Show warnings and errors, unless `-v` or `-q` before the verb has said otherwise."""
    if not logging.getLogger("edgedec").handlers:
        configure(logging.WARNING)


def quiet() -> bool:
    """Whether the user asked for errors only."""
    return not logging.getLogger("edgedec").isEnabledFor(logging.WARNING)


def note(message: str) -> None:
    """Say something about the work at hand on standard error, unless `-q` was given."""
    if not quiet():
        click.echo(message, err=True)


def _verbose(ctx: click.Context, _: click.Parameter, count: int) -> None:
    if count and not ctx.resilient_parsing:
        configure(logging.INFO if count == 1 else logging.DEBUG)


def _quiet(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        configure(logging.ERROR)


def verbosity(command: Command) -> Command:
    """Add `-v` and `-q` to a command; they work before and after the verb."""
    command = click.option(
        "-q",
        "--quiet",
        is_flag=True,
        expose_value=False,
        callback=_quiet,
        help="Only errors on standard error.",
    )(command)
    return click.option(
        "-v",
        "--verbose",
        count=True,
        expose_value=False,
        callback=_verbose,
        help="More on standard error; twice for details.",
    )(command)
