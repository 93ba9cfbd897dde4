"""What the documents promise about names and options is there, and nothing is undocumented."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import click

from edgedec.cli import cli
from edgedec.runtime.depth.options import POLICIES, policy_class

OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")


def options() -> dict[str, set[str]]:
    """The long options of every verb."""
    context = click.Context(cli)
    found = {}
    for verb in cli.list_commands(context):
        command = cli.get_command(context, verb)
        assert command is not None
        names = {
            name for option in command.params for name in (*option.opts, *option.secondary_opts)
        }
        found[verb] = {name for name in names if name.startswith("--")}
    return found


def sections(text: str) -> dict[str, str]:
    """The sections `## edgedec VERB ...` of docs/cli.md by verb."""
    parts = re.split(r"^## edgedec ([\w-]+)", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_option_is_documented_and_exists(root: Path) -> None:
    documented = sections((root / "docs" / "cli.md").read_text(encoding="utf-8"))
    common = {"--verbose", "--quiet", "--model", "--output", "--file", "--verify"}
    for verb, names in options().items():
        mentioned = set(OPTION.findall(documented[verb]))
        assert mentioned <= names, verb
        assert names - common <= mentioned, verb


def test_the_readme_uses_options_that_exist(root: Path) -> None:
    known = options()
    readme = (root / "README.md").read_text(encoding="utf-8")
    commands = re.findall(
        r"^(edgedec ([\w-]+) .*--.*)$", "".join(readme.split("```")[1::2]), re.MULTILINE
    )
    assert len(commands) > 3
    for line, verb in commands:
        assert set(OPTION.findall(line)) <= known[verb], line


def test_parameters_of_depth_policies_have_the_documented_defaults(root: Path) -> None:
    text = (root / "docs" / "depth.md").read_text(encoding="utf-8")
    text = text.split("## Parameters")[1].split("\n## ")[0]
    rows = re.findall(r"^\|(.*?)\| (`.*?) \|(.*?)\|", text, re.MULTILINE)
    documented: dict[str, dict[str, str]] = {}
    policy = ""
    for name, parameters, defaults in rows:
        policy = name.strip(" `") or policy
        names = re.findall(r"\w+", parameters)
        values = defaults.split(",") if "," in defaults and names[1:] else [defaults] * len(names)
        documented.setdefault(policy, {}).update(zip(names, values, strict=True))
    for policy in POLICIES:
        fields = dataclasses.fields(policy_class(policy))  # type: ignore[arg-type]
        assert documented.get(policy, {}).keys() == {field.name for field in fields}, policy
        for field in fields:
            said = documented[policy][field.name].strip("` ")
            if isinstance(field.default, int | float | str):
                assert said.rsplit(" ", 1)[-1] == f"{field.default}".removesuffix(".0"), field.name
            else:
                assert not said[:1].isdigit(), field.name


def test_environment_variables_are_documented(root: Path) -> None:
    documented = (root / "docs" / "environment.md").read_text(encoding="utf-8")
    used = set()
    for folder in ("export", "runtime", "quantize", "kernels", "devices", "src/edgedec/cli"):
        for path in [*(root / folder).rglob("*.py"), *(root / "src" / "edgedec").glob("*.py")]:
            used |= set(re.findall(r"EDGEDEC_[A-Z_]+", path.read_text(encoding="utf-8")))
    assert "EDGEDEC_CACHE" in used
    assert not [name for name in used if f"`{name}`" not in documented]


def test_links_between_documents_lead_somewhere(root: Path) -> None:
    for page in [*root.glob("*.md"), *(root / "docs").glob("*.md")]:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
        for target in re.findall(r"`((?:export|runtime|devices|docs|examples)/[\w/]+\.\w+)`", text):
            assert (root / target).exists(), f"{page.name}: {target}"
