"""`edgedec inspect`: what a bundle contains, or what a checkpoint offers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgedec.cli.terminal.logs import note, verbosity
from edgedec.cli.terminal.sizes import human_bytes
from edgedec.errors import BundleError, CheckFailedError, InputError
from edgedec.runtime.report.columns import columns

if TYPE_CHECKING:
    from edgedec.runtime.generation import GenerationConfig
    from edgedec.runtime.manifest import Agreement, Codebooks, DepthTable, Limits, Manifest, Static

MANIFEST = "edgedec.json"


@click.command("inspect", short_help="Show what a bundle or a checkpoint contains.")
@click.argument("source", metavar="BUNDLE|CHECKPOINT")
@click.option(
    "--json", "as_json", is_flag=True, help="Print the manifest, or a checkpoint's facts, as JSON."
)
@click.option(
    "--check", is_flag=True, help="Read every byte and compare checksums; 1 if any differs."
)
@click.option("--base", metavar="BASE", help="What an adapter in PEFT's format was trained on.")
@verbosity
def command(source: str, as_json: bool, check: bool, base: str | None) -> None:
    """Show the model, graphs, files and generation defaults of BUNDLE, without loading any graph.

    BUNDLE is a folder written by `edgedec export`, or a built-in name (g2p). Of a CHECKPOINT, a
    local folder or Mu's model.pt, show the model and the depth policies that it can serve.
    """
    if _is_checkpoint(source):
        if check:
            raise InputError("--check compares a bundle's files; a checkpoint has no checksums.")
        _inspect_checkpoint(source, base, as_json=as_json)
        return
    if base is not None:
        raise InputError(f"--base is for adapters in PEFT's format, and {source!r} is none.")
    from edgedec.builtin import resolve_bundle
    from edgedec.runtime.bundle import open_bundle, verify_files
    from edgedec.runtime.manifest import dump_manifest

    opened = open_bundle(resolve_bundle(source, note))
    if check:
        try:
            verify_files(opened)
        except BundleError as error:
            raise CheckFailedError(str(error)) from error
    if as_json:
        click.echo(dump_manifest(opened.manifest), nl=False)
        return
    click.echo("\n\n".join("\n".join(part) for part in describe(opened.manifest)))
    if check:
        click.echo(f"\nAll {len(opened.manifest.files)} files are as they were exported.")


def _is_checkpoint(name: str) -> bool:
    """Whether a name is that of a local checkpoint; a folder with a manifest is a bundle."""
    path = Path(name)
    try:
        if path.is_file():
            return path.suffix in (".pt", ".bin")
        names = ("config.json", "adapter_config.json", "model.pt")
        return not (path / MANIFEST).exists() and any((path / n).is_file() for n in names)
    except OSError:  # too long for a path
        return False


def _inspect_checkpoint(name: str, base: str | None, *, as_json: bool) -> None:
    from edgedec.cli.terminal.offers import offers_tables
    from edgedec.export.offers import read_offers
    from edgedec.runtime.schema import encode

    offers = read_offers(name, base)
    if as_json:
        click.echo(json.dumps(encode(offers), indent=2, ensure_ascii=False))
    else:
        click.echo("\n\n".join("\n".join(part) for part in offers_tables(offers)))


def describe(manifest: Manifest) -> list[list[str]]:
    """Write a manifest for people: lists of lines, one list per table."""
    codes = [] if manifest.codebooks is None else [_codebooks(manifest.codebooks)]
    table = [] if manifest.depth is None else _depth_table(manifest.depth)
    static = [] if manifest.static is None else [_static(manifest.static)]
    return [
        _facts(manifest),
        *codes,
        *static,
        *_policies(manifest),
        *table,
        _graphs(manifest),
        _files(manifest),
        _generation(manifest.generation),
    ]


def _facts(manifest: Manifest) -> list[str]:
    source, io = manifest.source, manifest.interface
    revision = f" at {source.revision}" if source.revision else ""
    size = sum(entry.bytes for entry in manifest.files.values())
    rows = [
        ["source", f"{source.id}{revision}, sha256 {source.sha256[:12]}"],
        ["made by", f"{manifest.producer}, format {manifest.schema_version}"],
        ["model", f"{_family(manifest.model)}, {io.architecture}"],
        ["parameters", f"{manifest.parameters:,} in {human_bytes(size)}"],
        ["vocabulary", f"{io.vocab_size:,}"],
        ["width", f"{io.d_model:,}"],
        ["longest", f"source {_limit(io.max_source)}, target {_limit(io.max_target)}"],
        ["policies", ", ".join(manifest.policies)],
        ["verified", _verified(manifest)],
    ]
    if manifest.limits is not None:
        rows.append(["on a GPU", _limits(manifest.limits)])
    return columns(rows)


def _family(model: Mapping[str, Any]) -> str:
    if "family" in model:
        return str(model["family"])
    return f"{model.get('model_type', 'unknown')} through {model.get('route', 'an unknown route')}"


def _limits(limits: Limits) -> str:
    source = "" if limits.source is None else f", source {_limit(limits.source)}"
    return f"{limits.rows:,} rows{source}, target {_limit(limits.target)}"


def _limit(tokens: int | None) -> str:
    return "any" if tokens is None else f"{tokens:,} tokens"


def _verified(manifest: Manifest) -> str:
    verified = manifest.verified
    if verified is None:
        return "no (exported with --no-verify)"
    products = "" if manifest.codebooks is None else ", products in float32"
    return (
        f"logits differ by at most {verified.max_abs_difference:.1e} in a range of "
        f"{verified.logit_range:.3g} from the reference, over {verified.tokens:,} tokens{products}"
    )


INPUTS = {
    "int8": "int8 with a scale per row",
    "int8-block": "int8 with a scale per 128 inputs",
    "bf16": "bfloat16",
    "fp32": "float32",
}
"""Compute mode -> what products make of their inputs."""


def _codebooks(codebooks: Codebooks) -> list[str]:
    bits = [m.bits for component in codebooks.matrices.values() for m in component.values()]
    counted = ", ".join(f"{bits.count(width):,} of {width} bits" for width in sorted(set(bits)))
    rows = [
        ["codebooks", codebooks.scheme + (f", by {codebooks.method}" if codebooks.method else "")],
        ["matrices", counted],
        ["products", f"inputs in {INPUTS[codebooks.compute]}"],
        ["portable", "all but the matrices" if codebooks.portable else "no"],
    ]
    if codebooks.rounding is not None:
        effect, difference = codebooks.rounding.effect, codebooks.rounding.max_abs_difference
        measured = f"moves logits by {effect:.1e}; {difference:.1e} from a reference that does so"
        rows.append(["rounding", measured])
    return columns(rows)


def _static(static: Static) -> list[str]:
    """Graphs of fixed shapes, and what was measured of them."""
    rows = []
    if static.encoder is not None:
        rows.append(["encoder", f"of fixed shapes: {static.encoder.source:,} tokens"])
    decoder = static.decoder
    if decoder is not None:
        parts = [f"{decoder.past + 1:,} tokens"]
        if decoder.source is not None:
            parts.append(f"a source of {decoder.source:,}")
        if decoder.chunk is not None:
            parts.append(f"prompts in pieces of {decoder.chunk:,}")
        if decoder.unroll > 1:
            parts.append(f"{decoder.unroll} greedy steps in one run")
        rows.append(["decoder", f"of fixed shapes: {', '.join(parts)}"])
    if static.grids:
        rows.append(["keys and values", "integers"])
    if static.eight:
        rows.append(
            ["of 8 bits", f"{len(static.eight):,} of the weights: fewer would harm the model most"]
        )
    if static.projection:
        worst = max(static.projection, key=lambda name: static.projection[name])
        error = f"squared error up to {static.projection[worst]:.1e} of the codes' ({worst})"
        rows.append(["codes", f"re-expressed, {error}"])
    found = static.agreement
    rows.append(["agreement", "not measured" if found is None else _agreement(found)])
    return columns(rows)


def _agreement(found: Agreement) -> str:
    """With the floating-point model, in tokens chosen."""
    shares = [f"{found.cpu:.4f} on the CPU"]
    if found.device is not None:
        chip = "" if found.soc is None else f" of {found.soc}"
        more = [] if found.device_tokens is None else [f"{found.device_tokens:,} tokens"]
        if found.device_error is not None:
            more.append(f"logits within {found.device_error:.1e} of the CPU's")
        some = f" ({', '.join(more)})" if more else ""
        shares.insert(0, f"{found.device:.4f} on the simulator{chip}{some}")
    return f"{', '.join(shares)}, over {found.tokens:,} tokens of {found.text}"


def _policies(manifest: Manifest) -> list[list[str]]:
    """Depth policies with their parameters, where there are others than full depth."""
    rows = [["policy", "parameters"]]
    for name, parameters in manifest.policies.items():
        given = {key: value for key, value in parameters.items() if value not in (None, [])}
        rows.append([name, ", ".join(f"{key}={_value(value)}" for key, value in given.items())])
    return [columns(rows)] if manifest.policies.keys() - {"full"} else []


def _value(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _depth_table(table: DepthTable) -> list[list[str]]:
    """What `edgedec calibrate-depth` measured."""
    facts = [
        ["compared on", f"{table.inputs:,} inputs of {table.text}, by {table.measure}"],
        ["measured on", f"{table.machine}, {table.threads} threads"],
    ]
    rows = [["depth", "quality", "layers", "ms per token", "x"]]
    for point in table.points:
        numbers = (f"{point.quality:.4f}", f"{point.layers:.2f}", f"{point.milliseconds:.3f}")
        rows.append([point.depth, *numbers, f"{point.speedup:.2f}"])
    return [columns(facts), columns(rows, right=frozenset(range(1, 5)))]


def _graphs(manifest: Manifest) -> list[str]:
    from edgedec.runtime.depth.options import ranges

    layers = {}
    for stage in manifest.stages:
        for graph in (stage.component, *stage.variants.values()):
            layers[graph] = f"{stage.first}-{stage.last - 1}"
    if manifest.static is not None and manifest.static.decoder is not None:
        layers[manifest.static.decoder.prefill or ""] = f"0-{manifest.stages[-1].last - 1}"
    if manifest.router is not None:
        layers[manifest.router] = ranges(manifest.routed)
    rows = [["graph", "layers", "device", "precision", "file"]]
    for name, component in manifest.components.items():
        compiled = {f"{component.device}:{chip}": f for chip, f in component.contexts.items()}
        for device, file in (compiled or {component.device: component.file}).items():
            rows.append([name, layers.get(name, ""), device, component.precision, file])
    return columns(rows)


def _files(manifest: Manifest) -> list[str]:
    rows = [["file", "size", "sha256"]]
    for name, entry in manifest.files.items():
        rows.append([name, human_bytes(entry.bytes), entry.sha256[:12]])
    return columns(rows, right=frozenset({1}))


def _generation(config: GenerationConfig) -> list[str]:
    """List what the checkpoint sets; fields left at their defaults say nothing about it."""
    default = type(config)()
    rows = [["generation", "value"]]
    for field in fields(config):
        value = getattr(config, field.name)
        if value != getattr(default, field.name):
            rows.append([field.name, _short(value)])
    return columns(rows)


def _short(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
