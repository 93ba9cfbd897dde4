"""Bundles of the study's models, made once and kept in the user's cache."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from edgedec.builtin import cache_folder
from edgedec.errors import InputError
from edgedec.export import export_checkpoint
from edgedec.export.bundle import Progress, new_folder, save_graphs, write_file
from edgedec.export.graphs import StageRange, decoder_stages, model_graphs
from edgedec.export.leftovers import sweep
from edgedec.export.pipeline import DEVICE
from edgedec.export.spec import ModelSpec
from edgedec.quantize.options import ROUNDED
from edgedec.quantize.scheme import SCHEMES
from edgedec.runtime.depth.layout import Needs
from edgedec.runtime.generation import GenerationConfig
from edgedec.runtime.manifest import (
    MANIFEST,
    SCHEMA_VERSION,
    Component,
    Interface,
    Manifest,
    Source,
    dump_manifest,
    load_manifest,
)
from edgedec.study.shapes import Architecture, Shape, parameters, spec_of
from edgedec.study.weights import random_weights

UNQUANTIZED = "none"
FORMATS = (UNQUANTIZED, *SCHEMES)
SEED = 0
SPARE = 1 << 28
"""Bytes that a disk shall have left."""


def bundle(
    shape: Shape,
    architecture: Architecture,
    quant: str,
    *,
    note: Callable[[str], None],
    progress: Progress,
) -> Path:
    """The bundle of a model, from the cache or made now.

    Args:
        shape: of the encoder-decoder.
        architecture: which of the two models.
        quant: `UNQUANTIZED`, or a format of ``edgedec export --quant``; codes are only rounded.
        note: told, in a sentence, that one is being made.
        progress: told the fraction written.

    Raises:
        InputError: no such format, not enough room, or a cache that cannot be written.
    """
    if quant not in FORMATS:
        raise InputError(f"--quant {quant!r}: choose one of {', '.join(FORMATS)}.")
    spec = spec_of(shape, architecture)
    home = cache_folder() / "study"
    out = home / f"{shape.name}-{architecture}-{quant}-{_key(spec)}"
    if (out / MANIFEST).is_file():
        return out
    floats = out.with_name(out.name.replace(f"-{quant}-", f"-{UNQUANTIZED}-"))
    needed = 4 * parameters(spec) * (quant == UNQUANTIZED or not (floats / MANIFEST).is_file())
    if quant != UNQUANTIZED:
        needed += parameters(spec) * SCHEMES[quant].bits // 8 * 2  # and room for scales and tables
    try:
        home.mkdir(parents=True, exist_ok=True)
        _check_room(home, needed)
        note(f"Making a model with random weights in {out} (first use only).")
        if quant == UNQUANTIZED:
            write_bundle(spec, SEED, out, _label(shape, architecture), progress)
            return out
        sweep(home, ".new-*")
        with tempfile.TemporaryDirectory(prefix=".new-", dir=home) as work:
            source = floats
            if not (floats / MANIFEST).is_file():
                source = Path(work) / "floats"
                write_bundle(spec, SEED, source, _label(shape, architecture), progress)
            method = None if SCHEMES[quant].bits == 8 else ROUNDED
            export_checkpoint(
                source, out, quant=quant, method=method, verify=False, progress=progress
            )
    except OSError as error:
        raise InputError(
            f"the models of the study cannot be written to {home} ({error.strerror}); set "
            "EDGEDEC_CACHE to a folder that can be written."
        ) from error
    return out


def write_bundle(spec: ModelSpec, seed: int, out: Path, label: str, progress: Progress) -> None:
    """Write a bundle of a model with random weights in float32; all or nothing.

    It has no tokenizer, and is not compared with a reference, which takes minutes for large
    models: a test does that for a small one.

    Args:
        spec: the model.
        seed: of its weights.
        out: a folder to create.
        label: what it calls its source.
        progress: told the fraction written.

    Raises:
        EdgedecError: as `edgedec.export.export_checkpoint` for what cannot be written.
    """
    stages = (StageRange(0, spec.decoder.layers),)
    graphs = model_graphs(spec, random_weights(spec, seed), stages, "fp32")
    producer = "edgedec", version("edgedec")
    with new_folder(out, force=False) as folder:
        models = {name: graph.model(*producer) for name, graph in graphs.items()}
        files, count = save_graphs(models, folder, progress)
        readme = f"# {label}\n\nRandom weights, for `edgedec profile --architecture-study`.\n"
        files["README.md"] = write_file(folder / "README.md", readme.encode())
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            producer=" ".join(producer),
            source=Source(label, None, _digest(spec, seed)),
            model=spec.to_json(),
            interface=Interface(
                architecture="decoder-only" if spec.encoder is None else "encoder-decoder",
                vocab_size=spec.vocab_size,
                d_model=spec.d_model,
                decoder_layers=spec.decoder.layers,
                kv_width=spec.decoder.kv_width,
                max_source=spec.max_source,
                max_target=spec.max_target,
                attention_heads=spec.decoder.heads,
            ),
            components={name: Component(f"{name}.onnx", DEVICE, "fp32") for name in models},
            encoder=None if spec.encoder is None else "encoder",
            stages=decoder_stages(stages, Needs()),
            head=None,
            generation=GenerationConfig(
                bos_token_id=1, decoder_start_token_id=1, pad_token_id=0, eos_token_ids=()
            ),
            parameters=count,
            verified=None,
            files=dict(sorted(files.items())),
        )
        text = dump_manifest(manifest)
        load_manifest(text)  # what no reader takes is not written
        write_file(folder / MANIFEST, text.encode())


def _label(shape: Shape, architecture: Architecture) -> str:
    return f"random {architecture} ({shape.name})"


def _key(spec: ModelSpec) -> str:
    return f"{version('edgedec')}-{_digest(spec, SEED)[:16]}"


def _digest(spec: ModelSpec, seed: int) -> str:
    """Equal where the weights are."""
    return hashlib.sha256(json.dumps([spec.to_json(), seed]).encode()).hexdigest()


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed + SPARE:
        raise InputError(
            f"a model of the study needs {(needed + SPARE) / 1e6:,.0f} MB in {folder}, which has "
            f"{free / 1e6:,.0f} MB left: make room, or set EDGEDEC_CACHE to another disk."
        )
