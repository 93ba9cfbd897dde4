"""The way for architectures without a family: optimum-onnx exports, we rewire its graphs.

Optimum traces the transformers implementation, so it covers what has no file in ``families/``, and
needs torch and transformers. The bundle is like any other; ``docs/optimum.md`` says what differs.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping
from copy import deepcopy
from functools import partial
from importlib.metadata import version
from inspect import signature
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgedec.errors import CheckpointError, MissingDependencyError
from edgedec.export.blocks.builder import IR_VERSION, OPSET, STORAGE
from edgedec.export.bundle import Progress
from edgedec.export.checkpoint import Checkpoint
from edgedec.export.rewire import (
    Caches,
    read_caches,
    rewire_decoder,
    rewire_encoder,
    store_matrices,
)
from edgedec.export.route import Exported, Ids
from edgedec.runtime.generation import GenerationConfig
from edgedec.runtime.manifest import Interface, Stage

Floats = NDArray[np.float32]

PACKAGES = ("optimum-onnx", "transformers", "torch")
TASKS = ("text2text-generation", "text-generation")
"""Optimum's names of what we want: of encoder-decoders, and of decoder-only models."""
CHECKED = (40, 40)
"""Source and target tokens of the check: more than the 16 that optimum traces with."""
UNSOUND = {"bigbird_pegasus": "chooses its kind of attention by the length of the source"}
"""What a trace gets wrong at other lengths than the traced one, and why."""


@contextlib.contextmanager
def exported(checkpoint: Checkpoint, storage: str, progress: Progress) -> Iterator[Exported]:
    """Export a checkpoint through optimum-onnx; its files live as long as the block.

    Args:
        checkpoint: a folder that transformers can load without code of its own.
        storage: how weight matrices are stored (``fp32``, ``fp16``, ``bf16``).
        progress: told when tracing starts and ends.

    Raises:
        MissingDependencyError: optimum-onnx is not installed.
        CheckpointError: optimum can't export the architecture, or not in a form we can rewire.
    """
    task = _task(checkpoint.config)
    encodes = task == TASKS[0]
    with TemporaryDirectory(prefix="edgedec-optimum-") as scratch:
        folder = Path(scratch)
        progress("tracing with optimum", 0.0)
        original = _trace(checkpoint.folder, task, folder)
        progress("tracing with optimum", 1.0)
        config = getattr(original.config, "text_config", original.config)
        vocab_size = int(config.vocab_size)
        graphs, caches = _rewired(folder, vocab_size, encodes=encodes)
        if storage != "fp32":
            for model in graphs.values():
                store_matrices(model.graph, STORAGE[storage])
        yield Exported(
            graphs=graphs,
            model={
                "route": "optimum",
                "model_type": config.model_type,
                "rows_share_length": encodes,
                "packages": {name: version(name) for name in PACKAGES},
            },
            interface=Interface(
                architecture="encoder-decoder" if encodes else "decoder-only",
                vocab_size=vocab_size,
                d_model=int(config.hidden_size),
                decoder_layers=caches.layers,
                kv_width=caches.width,
                max_source=_limit(config, "encoder") if encodes else None,
                max_target=_limit(config, "decoder"),
            ),
            stages=(Stage("decoder", 0, caches.layers),),
            # What transformers made of the checkpoint's files and the architecture's defaults.
            generation=GenerationConfig.from_huggingface(
                original.generation_config.to_diff_dict(), config.to_dict(), encoder_decoder=encodes
            ),
            tokenizer=_tokenizer(checkpoint.folder, folder),
            reference=partial(_logits, checkpoint.folder, task),
            check=CHECKED,
        )


def _task(config: Mapping[str, Any]) -> str:
    """The task to export, once optimum says that it can."""
    try:
        import optimum.exporters.onnx.model_configs  # noqa: F401  registers architectures
        from optimum.exporters.tasks import TasksManager
    except ImportError as error:
        raise MissingDependencyError(
            "--via optimum needs optimum-onnx: pip install 'edgedec[optimum]', in an environment "
            "of its own because it wants transformers 4; the bundle then runs without any of it."
        ) from error
    model_type = str(config.get("model_type"))
    if model_type in UNSOUND:
        raise CheckpointError(
            f"model_type {model_type!r} of config.json can't be traced: it {UNSOUND[model_type]}."
        )
    try:
        tasks = TasksManager.get_supported_tasks_for_model_type(
            model_type, "onnx", library_name="transformers"
        )
    except KeyError:
        tasks = {}
    possible = TASKS if config.get("is_encoder_decoder", True) else TASKS[1:]
    for task in possible:
        if f"{task}-with-past" in tasks:
            return task
    rest = f", only {', '.join(sorted(tasks))}" if tasks else ""
    raise CheckpointError(
        f"optimum-onnx {version('optimum-onnx')} exports no text generation for model_type "
        f"{model_type!r} of config.json{rest}."
    )


def _load(checkpoint: Path, task: str) -> Any:
    """The model in torch; transformers would fill tensors that are missing with random numbers."""
    import torch
    from optimum.exporters.tasks import TasksManager

    kind = TasksManager.get_model_class_for_task(task, framework="pt", library="transformers")
    model, report = kind.from_pretrained(
        checkpoint,
        torch_dtype=torch.float32,
        local_files_only=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    missing = sorted(report["missing_keys"])
    if missing:
        raise CheckpointError(
            f"the checkpoint has no tensor {missing[0]!r} ({len(missing)} are missing): "
            "its config.json and its weights do not belong together, or a shard is missing."
        )
    return model.eval()


def _trace(checkpoint: Path, task: str, folder: Path) -> Any:
    """Let optimum write its graphs to ``folder``; returns the model's configurations."""
    from optimum.exporters.onnx import onnx_export_from_model

    try:
        with _silence():
            model = _load(checkpoint, task)
            original = SimpleNamespace(
                config=deepcopy(model.config), generation_config=deepcopy(model.generation_config)
            )
            model.config.use_cache = True
            onnx_export_from_model(
                model,
                folder,
                task=f"{task}-with-past",
                custom_onnx_configs=_with_positions(model, task),
                no_post_process=True,  # it would join two decoders with the same weights by an If
                do_validation=False,  # the finished bundle is held against torch instead
            )
    except CheckpointError:
        raise
    except Exception as error:  # torch raises whatever the model made it stumble over
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"optimum-onnx {version('optimum-onnx')} could not export the checkpoint: "
            f"{reason[:200]}"
        ) from error
    return original


def _with_positions(model: Any, task: str) -> dict[str, Any]:
    """Optimum's description of a decoder-only model, with positions as an input if it takes them.

    Some descriptions leave them out, and then every row of a batch is taken to be equally long.
    """
    from optimum.exporters.tasks import TasksManager

    if task != TASKS[1] or "position_ids" not in signature(model.forward).parameters:
        return {}
    known = TasksManager.get_exporter_config_constructor(
        "onnx", model=model, task=task, library_name="transformers"
    )
    kind: Any = known.func

    class WithPositions(kind):  # type: ignore[misc]
        @property
        def inputs(self) -> dict[str, dict[int, str]]:
            axes = {0: "batch_size", 1: "sequence_length"}
            return {**super().inputs, "position_ids": axes}

    config = WithPositions(model.config, task=task, use_past=True, use_past_in_inputs=True)
    return {"model": config}


def _logits(
    checkpoint: Path,
    task: str,
    source: Ids | None,
    mask: Ids | None,
    target: Ids,
) -> Floats:
    """What the original says (`edgedec.export.route.Logits`): a fresh one, untouched by tracing."""
    import torch

    tokens = torch.from_numpy(target)
    with _silence(), torch.no_grad():
        model = _load(checkpoint, task)
        if source is None:
            output = model(input_ids=tokens, use_cache=False)
        else:
            output = model(
                input_ids=torch.from_numpy(source),
                attention_mask=torch.from_numpy(mask),
                decoder_input_ids=tokens,
                use_cache=False,
            )
    logits: Floats = output.logits.float().numpy()
    return logits


def _rewired(folder: Path, vocab_size: int, *, encodes: bool) -> tuple[dict[str, ir.Model], Caches]:
    """Our graphs out of optimum's, and what they cache."""
    decoder = _open_graph(folder / ("decoder_with_past_model.onnx" if encodes else "model.onnx"))
    caches = read_caches(decoder.graph)
    graphs = {"decoder": decoder}
    if encodes:
        graphs = {"encoder": _open_graph(folder / "encoder_model.onnx"), **graphs}
        projecting = _open_graph(folder / "decoder_model.onnx")
        rewire_encoder(graphs["encoder"].graph, projecting.graph, caches)
    rewire_decoder(decoder.graph, caches, vocab_size)
    for name, model in graphs.items():
        _tidy(model)
        model.graph.name = name
        model.ir_version = IR_VERSION
        model.producer_name, model.producer_version = "edgedec", version("edgedec")
    return graphs, caches


def _open_graph(path: Path) -> ir.Model:
    from onnx_ir.passes import Sequential
    from onnx_ir.passes.common import (
        ClearMetadataAndDocStringPass,
        IdentityEliminationPass,
        LiftConstantsToInitializersPass,
    )
    from onnxscript.version_converter import convert_version

    if not path.exists():
        raise CheckpointError(
            f"optimum exported no {path.name}: this architecture can't be exported through it."
        )
    model = ir.load(path)
    convert_version(model, OPSET)
    passes = Sequential(
        ClearMetadataAndDocStringPass(),
        LiftConstantsToInitializersPass(),
        IdentityEliminationPass(),
    )
    return passes(model).model


def _tidy(model: ir.Model) -> None:
    from onnx_ir.passes.common import CommonSubexpressionEliminationPass, RemoveUnusedNodesPass

    CommonSubexpressionEliminationPass()(model)
    RemoveUnusedNodesPass()(model)


def _limit(config: Any, stack: str) -> int | None:
    """The longest sequence that a stack has positions for."""
    names = (f"max_{stack}_position_embeddings", "max_position_embeddings")
    limits = [getattr(config, name, None) for name in names]
    found = [limit for limit in limits if isinstance(limit, int)][:1]
    # Rotary angles that change with the length were traced at a short one.
    scaling = getattr(config, "rope_scaling", None) or {}
    if "longrope" in scaling.values():
        original = getattr(config, "original_max_position_embeddings", None)
        found += [original] if isinstance(original, int) else []
    return min(found, default=None)


def _tokenizer(checkpoint: Path, traced: Path) -> Path:
    """The folder with the tokenizer: transformers converts more kinds of them than we do."""
    ready = [f for f in (checkpoint, traced) if (f / "tokenizer.json").exists()]
    return ready[0] if ready else checkpoint


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep what tracing prints and warns of from the terminal: nobody can act on it."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)
