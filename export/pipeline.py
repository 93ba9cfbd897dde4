"""The steps of an export, in order."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from importlib.metadata import version
from os import PathLike, fspath
from pathlib import Path

from edgedec.errors import CheckpointError, InputError
from edgedec.export.bundle import Progress, new_folder, save_graphs, write_file
from edgedec.export.checkpoint import Checkpoint, open_checkpoint
from edgedec.export.families import family_of, open_model
from edgedec.export.graphs import StageRange, model_graphs, parse_stages
from edgedec.export.spec import ModelSpec
from edgedec.export.tokenizer import convert_tokenizer
from edgedec.export.weights import Weights
from edgedec.runtime.bundle import Bundle
from edgedec.runtime.generation import GenerationConfig
from edgedec.runtime.manifest import (
    MANIFEST,
    SCHEMA_VERSION,
    Component,
    FileEntry,
    Interface,
    Manifest,
    Source,
    Stage,
    dump_manifest,
)

COPIED = re.compile(r"(config|generation_config)\.json|(LICENSE|NOTICE).*")
"""Files of a checkpoint that go into the bundle as they are; notices must travel with weights."""
COPY_LIMIT = 1 << 20
DTYPES = ("fp32", "fp16", "bf16")


@dataclass(frozen=True)
class Options:
    """What `export_checkpoint` was asked for."""

    quant: str | None
    stages: str | tuple[int, ...] | None
    dtype: str
    revision: str | None
    tokenizer: str | PathLike[str] | None
    via: str | None
    verify: bool
    force: bool


def run(
    name: str | PathLike[str], out: str | PathLike[str], options: Options, progress: Progress
) -> Path:
    """Export a checkpoint; see `edgedec.export.export_checkpoint`."""
    _check(options)
    target = Path(out)
    progress("opening the checkpoint", 0.0)
    checkpoint = open_checkpoint(fspath(name), options.revision)
    spec, weights = open_model(checkpoint.config, checkpoint.tensors)
    stages = parse_stages(options.stages, spec.decoder.layers)
    with new_folder(target, force=options.force) as folder:
        graphs = model_graphs(spec, weights, stages, options.dtype)
        models = {name: b.model("edgedec", version("edgedec")) for name, b in graphs.items()}
        files, parameters = save_graphs(models, folder, progress)
        files |= _write_tokenizer(checkpoint, spec, options, folder)
        files |= _copy_files(checkpoint.folder, folder)
        manifest = _manifest(checkpoint, spec, stages, options, files, parameters)
        readme = _readme(target.name, manifest)
        files["README.md"] = write_file(folder / "README.md", readme.encode())
        manifest = replace(manifest, files=dict(sorted(files.items())))
        if options.verify:
            manifest = _verified(Bundle(folder, manifest), spec, weights, options.dtype, progress)
        write_file(folder / MANIFEST, dump_manifest(manifest).encode())
    return target


def _check(options: Options) -> None:
    if options.dtype not in DTYPES:
        raise InputError(f"--dtype {options.dtype!r}: choose one of {', '.join(DTYPES)}.")
    if options.quant not in (None, "none"):
        raise InputError(
            f"--quant {options.quant!r}: this version exports floating point only (--dtype)."
        )
    if options.via is not None:
        raise InputError(f"--via {options.via!r}: there is no such route.")


def _verified(
    bundle: Bundle, spec: ModelSpec, weights: Weights, storage: str, progress: Progress
) -> Manifest:
    from edgedec.export.verify import verify

    progress("verifying", 0.0)
    verified = verify(bundle, spec, weights, storage)
    progress("verifying", 1.0)
    return replace(bundle.manifest, verified=verified)


def _write_tokenizer(
    checkpoint: Checkpoint, spec: ModelSpec, options: Options, folder: Path
) -> dict[str, FileEntry]:
    source = checkpoint.folder if options.tokenizer is None else Path(options.tokenizer)
    if not source.is_dir():
        raise InputError(f"--tokenizer {str(source)!r} is not a folder.")
    converted = convert_tokenizer(source, {**checkpoint.config, "vocab_size": spec.vocab_size})
    if converted is None and options.tokenizer is not None:
        raise CheckpointError(f"{str(source)!r} has no tokenizer files.")
    if converted is None:
        return {}
    files = {"tokenizer.json": converted.tokenizer, "tokenizer_config.json": converted.config}
    return {
        name: write_file(folder / name, data) for name, data in files.items() if data is not None
    }


def _copy_files(source: Path, folder: Path) -> dict[str, FileEntry]:
    return {
        path.name: write_file(folder / path.name, path.read_bytes())
        for path in sorted(source.iterdir())
        if COPIED.fullmatch(path.name) and path.is_file() and path.stat().st_size <= COPY_LIMIT
    }


def _manifest(
    checkpoint: Checkpoint,
    spec: ModelSpec,
    stages: tuple[StageRange, ...],
    options: Options,
    files: dict[str, FileEntry],
    parameters: int,
) -> Manifest:
    whole = len(stages) == 1
    names = [name.removesuffix(".onnx") for name in files if name.endswith(".onnx")]
    family = family_of(checkpoint.config)
    config = checkpoint.config
    if family.generation is not None:
        config = {**family.generation(config), **config}
    return Manifest(
        schema_version=SCHEMA_VERSION,
        producer=f"edgedec {version('edgedec')}",
        source=Source(
            # A local path is nobody's business and would change the bytes: its last part will do.
            id=checkpoint.source.id
            if checkpoint.source.revision
            else Path(checkpoint.source.id).resolve().name,
            revision=checkpoint.source.revision,
            sha256=checkpoint.source.sha256,
        ),
        model=spec.to_json(),
        interface=Interface(
            architecture="encoder-decoder" if spec.encoder is not None else "decoder-only",
            vocab_size=spec.vocab_size,
            d_model=spec.d_model,
            decoder_layers=spec.decoder.layers,
            kv_width=spec.decoder.kv_width,
            max_source=spec.max_source,
            max_target=spec.max_target,
        ),
        components={name: Component(f"{name}.onnx", "cpu", options.dtype) for name in names},
        encoder="encoder" if spec.encoder is not None else None,
        stages=tuple(
            Stage("decoder" if whole else f"decoder.{s.first}-{s.last}", s.first, s.last)
            for s in stages
        ),
        head=None if whole else "head",
        generation=GenerationConfig.from_huggingface(
            checkpoint.generation_config, config, encoder_decoder=spec.encoder is not None
        ),
        parameters=parameters,
        verified=None,
        files=files,
    )


def _readme(name: str, manifest: Manifest) -> str:
    source = manifest.source
    revision = f" at revision `{source.revision}`" if source.revision else ""
    return (
        f"# {name}\n\n"
        f"An edgedec bundle of `{source.id}`{revision}, made by {manifest.producer}: "
        f"{manifest.interface.architecture}, {manifest.parameters:,} parameters.\n\n"
        f'    edgedec run {name} "some text"\n'
        f"    edgedec inspect {name}\n\n"
        "`edgedec.json` lists what is inside. The weights keep the licence of their source.\n"
    )
