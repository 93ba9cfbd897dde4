"""Options of verbs that take a checkpoint: how it is read, and how its decoder is cut."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

Command = Callable[..., Any]


def checkpoint_options(source: str) -> Callable[[Command], Command]:
    """Add these options to a command, whose argument for the checkpoint is called ``source``."""
    options = (
        click.option("--revision", help="Branch, tag or commit of a hub id."),
        click.option(
            "--tokenizer",
            metavar="DIR",
            help="Folder with tokenizer files, if the checkpoint has none.",
        ),
        click.option(
            "--stages",
            metavar="CUTS",
            help="Cut the decoder before these layers (`0,1,4`), or around every layer (`all`).",
        ),
        click.option(
            "--depth",
            metavar="POLICY",
            multiple=True,
            help="Make the bundle for a depth policy such as `layerskip:exit=2`; repeatable.",
        ),
        click.option(
            "--base",
            metavar="BASE",
            help=f"What {source}, an adapter in PEFT's format, was trained on.",
        ),
    )

    def add(command: Command) -> Command:
        for option in reversed(options):  # as decorators are applied: the last one first
            command = option(command)
        return command

    return add
