"""Prints what a module lacks of a table: ``python members.py MODULE``.

Reads on standard input, as JSON, class -> members; the class "" is the module. A member is a name,
or a function that can be called with arguments: ``parse(model)``. Prints the module's version and a
line for all that is missing or takes other arguments.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from typing import Any

MISSING = object()
SIGNATURE = re.compile(r"^(?:\d+\. )?\w+\((.*)\) -> ", re.MULTILINE)
"""Of one way to call a function, in the docstring of one that was not written in Python."""
PARAMETER = re.compile(r"(?:^|, )(\w+): ")


def takes(function: Any, arguments: list[str]) -> bool:
    """Whether these are the first arguments of a way to call it, and the others have defaults."""
    for signature in SIGNATURE.findall(str(function.__doc__)):
        parameters = PARAMETER.findall(signature)
        if parameters[:1] == ["self"]:
            del parameters[0]
        if parameters[: len(arguments)] == arguments and all(
            re.search(rf"\b{name}: [^=]* = ", signature) for name in parameters[len(arguments) :]
        ):
            return True
    return False


def problem(module: Any, owner: str, member: str) -> str | None:
    """What is wrong with a member."""
    name, call, arguments = member.removesuffix(")").partition("(")
    holder = getattr(module, owner, MISSING) if owner else module
    value = getattr(holder, name, MISSING)
    if value is MISSING:
        return f"{owner}.{name} is missing"
    if call and not takes(value, [word for word in arguments.split(", ") if word]):
        return f"{owner}.{member} cannot be called so: {str(value.__doc__).strip()[:400]}"
    return None


def main() -> None:
    module = importlib.import_module(sys.argv[1])
    table: dict[str, list[str]] = json.load(sys.stdin)
    problems = [problem(module, owner, name) for owner, names in table.items() for name in names]
    json.dump([module.__version__, [text for text in problems if text]], sys.stdout)


main()
