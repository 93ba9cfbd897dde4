"""The command line: one file per verb in this folder, each with a click command named `command`.

A new verb is a new file; where its name has a `_`, the verb has a `-`. `edgedec --help` imports
every verb for its summary line, so a verb imports nothing but click and the standard library at its
top; what does the work is imported inside.
"""

from __future__ import annotations

import errno
import os
import sys
from importlib import import_module
from io import TextIOWrapper
from pkgutil import iter_modules
from typing import Any, NoReturn

import click

from edgedec.cli.terminal.logs import start, verbosity
from edgedec.errors import EdgedecError, InputError

INTERRUPTED = 130  # what a shell reports for a process ended by SIGINT
PIPE_CLOSED = 141  # and by SIGPIPE
NO_ROOM = {errno.ENOSPC, errno.EFBIG}


class _Failure(click.ClickException):
    """Shows an `EdgedecError` as one line `Error: ...` with its exit code."""

    def __init__(self, error: EdgedecError) -> None:
        super().__init__(" ".join(str(error).split()))
        self.exit_code = error.exit_code  # type: ignore[misc]  # click asks the instance


class _Verbs(click.Group):
    """Finds its commands among the modules beside this file and imports one when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        names = (module.name for module in iter_modules(__path__) if not module.ispkg)
        return sorted(name.replace("_", "-") for name in names)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        module = import_module(f"edgedec.cli.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def invoke(self, ctx: click.Context) -> Any:
        start()
        try:
            return super().invoke(ctx)
        except EdgedecError as error:
            raise _Failure(error) from error
        except MemoryError as error:
            raise _Failure(
                InputError("There is not enough memory: use shorter inputs, or fewer at a time.")
            ) from error
        except BrokenPipeError:
            _abandon_stdout()
            raise click.exceptions.Exit(PIPE_CLOSED) from None


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"edgedec {version('edgedec')}")
        ctx.exit()


@click.group(
    cls=_Verbs,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        # `--max_new_tokens` is what other tools call `--max-new-tokens`
        "token_normalize_func": lambda token: token.replace("_", "-"),
    },
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
@verbosity
def cli() -> None:
    """Export sequence models to ONNX bundles and run them, without torch.

    Results go to standard output, everything else to standard error. Exit codes: 0 done, 1 a check
    failed, 2 bad input or usage, 3 a missing dependency or device.
    """


def _abandon_stdout() -> None:
    """Stop writing: the reader has gone (`| head`).

    What is still buffered goes nowhere, so that the interpreter has nothing to complain about when
    it closes standard output.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main() -> NoReturn:
    """Run the command line on `sys.argv` and exit."""
    # UTF-8 whatever the locale says; a message may quote bytes that are not.
    for stream, errors in ((sys.stdout, "strict"), (sys.stderr, "backslashreplace")):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors=errors)
    try:
        code = cli.main(prog_name="edgedec", standalone_mode=False)
        if sys.stdout is not None:  # `>&-` leaves none
            sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except BrokenPipeError:
        _abandon_stdout()
        code = PIPE_CLOSED
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        _abandon_stdout()
        click.echo(f"Error: Cannot write the results: {error.strerror}.", err=True)
        code = InputError.exit_code
    sys.exit(code if isinstance(code, int) else 0)
