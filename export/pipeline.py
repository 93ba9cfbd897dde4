"""The steps of an export with floating-point weights, in order."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from importlib.metadata import version
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from edgedec.errors import CheckpointError, InputError
from edgedec.export.bundle import Progress, new_folder, save_graphs, write_file
from edgedec.export.checkpoint import Checkpoint, open_checkpoint
from edgedec.export.depth import DepthFacts
from edgedec.export.depth_plan import plan_depth, refuse_traced
from edgedec.export.families import depth_of, family_of, open_model
from edgedec.export.finish import Finish
from edgedec.export.graphs import decoder_stages, model_graphs, parse_stages
from edgedec.export.peft import HOW
from edgedec.export.reference import Reference
from edgedec.export.route import Exported
from edgedec.export.tokenizer import convert_tokenizer
from edgedec.export.verify_depth import verify_depth
from edgedec.runtime.bundle import Bundle
from edgedec.runtime.depth.options import parse_depth
from edgedec.runtime.generation import GenerationConfig
from edgedec.runtime.manifest import (
    MANIFEST,
    SCHEMA_VERSION,
    Component,
    FileEntry,
    Interface,
    Manifest,
    Source,
    dump_manifest,
    load_manifest,
)

COPIED = re.compile(
    r"(config|generation_config)\.json|calibration\.(tsv|jsonl|txt)|(LICENSE|NOTICE)[\w .()-]*"
)
"""Files of a checkpoint that go into the bundle as they are. Notices must travel with weights; a
calibration text is for whoever quantizes the bundle."""
COPY_LIMIT = 1 << 20
DTYPES = ("fp32", "fp16", "bf16")
DEVICE = "cpu"
"""What graphs are lowered for."""


@dataclass(frozen=True)
class Options:
    """What `export_checkpoint` was asked for, but for what concerns codes."""

    stages: str | tuple[int, ...] | None
    dtype: str
    revision: str | None
    tokenizer: str | PathLike[str] | None
    via: str | None
    verify: bool
    force: bool
    depth: tuple[str, ...] = ()
    base: str | PathLike[str] | None = None
    lora: str = "merge"
    finish: Finish | None = None


def run(
    name: str | PathLike[str], out: str | PathLike[str], options: Options, progress: Progress
) -> Path:
    """Export a checkpoint; see `edgedec.export.export_checkpoint`."""
    _check(options)
    target = Path(out)
    progress("opening the checkpoint", 0.0)
    base = None if options.base is None else fspath(options.base)
    keep = options.lora == "keep"
    checkpoint = open_checkpoint(fspath(name), options.revision, base=base, keep_lora=keep)
    with (
        new_folder(target, force=options.force) as folder,
        _routed(checkpoint, options, progress) as model,
    ):
        if options.finish is not None:
            options.finish.check(_manifest(checkpoint, model, options, {}, 0))
        files, parameters = save_graphs(model.graphs, folder, progress)
        files |= _write_tokenizer(checkpoint, model, options, folder)
        files |= _copy_files(checkpoint.folder, folder)
        manifest = _manifest(checkpoint, model, options, files, parameters)
        readme = _readme(manifest)
        files["README.md"] = write_file(folder / "README.md", readme.encode())
        manifest = replace(manifest, files=dict(sorted(files.items())))
        if options.verify:
            manifest = _verified(Bundle(folder, manifest), model, options, progress)
        if options.finish is not None:
            manifest = options.finish.finish(Bundle(folder, manifest), progress)
        text = dump_manifest(manifest)
        load_manifest(text)  # what no reader takes is not written
        write_file(folder / MANIFEST, text.encode())
    return target


def _check(options: Options) -> None:
    if options.dtype not in DTYPES:
        raise InputError(f"--dtype {options.dtype!r}: choose one of {', '.join(DTYPES)}.")
    if options.via not in (None, "optimum"):
        raise InputError(f"--via {options.via!r}: there is no such route; there is 'optimum'.")
    if options.via is not None and options.stages is not None:
        raise InputError(
            f"--stages with --via {options.via}: graphs that were traced cannot be cut."
        )
    if options.lora not in HOW:
        raise InputError(f"--lora {options.lora!r}: choose one of {', '.join(HOW)}.")
    for text in options.depth:
        parse_depth(text)  # what cannot be read is said before a long download
    if options.via is not None:
        refuse_traced(options.depth, options.via)


def _routed(
    checkpoint: Checkpoint, options: Options, progress: Progress
) -> AbstractContextManager[Exported]:
    if options.via is None:
        return nullcontext(_through_family(checkpoint, options))
    if checkpoint.lora is not None:
        raise CheckpointError(
            f"--via {options.via} reads the checkpoint's own files, and would lose its adapter: "
            "merge the adapter with peft first (merge_and_unload)."
        )
    from edgedec.export.optimum import exported

    return exported(checkpoint, options.dtype, progress)


def _through_family(checkpoint: Checkpoint, options: Options) -> Exported:
    spec, weights = open_model(checkpoint.config, checkpoint.tensors)
    weights = weights.rounded(options.dtype)
    depth = plan_depth(options.depth, depth_of(checkpoint.config, checkpoint.tensors, spec))
    stages = parse_stages(options.stages, spec.decoder.layers)
    if depth.needs.cuts:
        cuts = depth.needs.cuts.union(stage.first for stage in stages)
        stages = parse_stages(sorted(cuts), spec.decoder.layers)
    graphs = model_graphs(spec, weights, stages, options.dtype, depth.needs)
    reference = Reference(spec, weights)
    family = family_of(checkpoint.config)
    config = checkpoint.config
    if family.generation is not None:
        config = {**family.generation(config), **config}
    return Exported(
        graphs={name: b.model("edgedec", version("edgedec")) for name, b in graphs.items()},
        model=spec.to_json(),
        interface=Interface(
            architecture="encoder-decoder" if spec.encoder is not None else "decoder-only",
            vocab_size=spec.vocab_size,
            d_model=spec.d_model,
            decoder_layers=spec.decoder.layers,
            kv_width=spec.decoder.kv_width,
            max_source=spec.max_source,
            max_target=spec.max_target,
            attention_heads=max(s.heads for s in (spec.encoder, spec.decoder) if s is not None),
        ),
        stages=decoder_stages(stages, depth.needs),
        generation=GenerationConfig.from_huggingface(
            checkpoint.generation_config, config, encoder_decoder=spec.encoder is not None
        ),
        tokenizer=checkpoint.folder,
        reference=reference.logits,
        check_depth=lambda bundle, tolerance: verify_depth(bundle, reference, tolerance),
        policies=depth.policies,
        routed=tuple(sorted(depth.needs.routers)),
    )


def _verified(bundle: Bundle, model: Exported, options: Options, progress: Progress) -> Manifest:
    from edgedec.export.verify import TOLERANCE, verify

    progress("verifying", 0.0)
    tolerance = TOLERANCE[options.dtype]
    verified = verify(bundle, model.reference, tolerance, model.check)
    if model.check_depth is not None:
        model.check_depth(bundle, tolerance)
    progress("verifying", 1.0)
    return replace(bundle.manifest, verified=verified)


def _write_tokenizer(
    checkpoint: Checkpoint, model: Exported, options: Options, folder: Path
) -> dict[str, FileEntry]:
    source = model.tokenizer if options.tokenizer is None else Path(options.tokenizer)
    if not source.is_dir():
        raise InputError(f"--tokenizer {str(source)!r} is not a folder.")
    size = model.interface.vocab_size
    converted = convert_tokenizer(source, {**checkpoint.config, "vocab_size": size})
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
    model: Exported,
    options: Options,
    files: dict[str, FileEntry],
    parameters: int,
) -> Manifest:
    return Manifest(
        schema_version=SCHEMA_VERSION,
        producer=f"edgedec {version('edgedec')}",
        source=Source(
            id=_label(checkpoint),
            revision=checkpoint.source.revision,
            sha256=checkpoint.source.sha256,
        ),
        model=model.model,
        interface=model.interface,
        components={
            name: Component(f"{name}.onnx", DEVICE, options.dtype) for name in model.graphs
        },
        encoder="encoder" if "encoder" in model.graphs else None,
        stages=model.stages,
        head="head" if "head" in model.graphs else None,
        policies=_policies(model, options),
        meta="meta" if "meta" in model.graphs else None,
        router="router" if "router" in model.graphs else None,
        routed=model.routed,
        generation=model.generation,
        parameters=parameters,
        verified=None,
        files=files,
    )


def _policies(model: Exported, options: Options) -> dict[str, dict[str, Any]]:
    if options.via is None:
        return dict(model.policies)
    return plan_depth(options.depth, DepthFacts(model.interface.decoder_layers)).policies


def _label(checkpoint: Checkpoint) -> str:
    """A hub id, or of a local path the last part: the rest would change the bundle's bytes."""
    source = checkpoint.source
    name = source.id if source.revision else Path(source.id).resolve().name
    return "".join(letter if letter.isprintable() else "?" for letter in name)


def _readme(manifest: Manifest) -> str:
    """The same wherever the bundle is, so that the same checkpoint gives the same bytes."""
    source = manifest.source
    revision = f" at revision `{source.revision}`" if source.revision else ""
    return (
        f"# {source.id}\n\n"
        f"An edgedec bundle of `{source.id}`{revision}, made by {manifest.producer}: "
        f"{manifest.interface.architecture}, {manifest.parameters:,} parameters.\n\n"
        f'    edgedec run . "some text"\n'
        f"    edgedec inspect .\n\n"
        "`edgedec.json` lists what is inside. The weights keep the licence of their source.\n"
    )
