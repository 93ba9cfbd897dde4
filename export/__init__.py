"""Turn a checkpoint into a bundle: read the facts, build the graphs, verify, write.

The package can be called: ``edgedec.export(...)`` is `export_checkpoint`.
"""

from __future__ import annotations

import sys
from inspect import Signature, signature
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from os import PathLike
    from pathlib import Path


def export_checkpoint(
    checkpoint: str | PathLike[str],
    out: str | PathLike[str],
    *,
    quant: str | None = None,
    compute: str | None = None,
    portable: bool = False,
    stages: str | Sequence[int] | None = None,
    dtype: str = "fp32",
    revision: str | None = None,
    tokenizer: str | PathLike[str] | None = None,
    via: str | None = None,
    verify: bool = True,
    force: bool = False,
    progress: Callable[[str, float], None] | None = None,
) -> Path:
    """Export a checkpoint into the bundle folder ``out``.

    Args:
        checkpoint: a Hugging Face folder, a hub id, or Mu's ``.pt`` file.
        out: the folder to create; nothing is left there if the export fails.
        quant: weight format: ``cb4``, ``cb3`` or ``cb2`` (codes of 4, 3 or 2 bits into tables of
            levels), ``int8``, or ``None`` for floating point.
        compute: how products with codebook weights are computed: ``int8`` (the default: inputs are
            rounded with one scale per row), ``int8-block`` (per 128 inputs), ``bf16`` or ``fp32``.
        portable: with ``quant``, leave everything but the matrices in standard operators.
        stages: where to cut the decoder: ``None`` (one stage), ``"all"``, or layers such as
            ``"0,1,4"``.
        dtype: how weight matrices are stored: ``fp32``, ``fp16`` or ``bf16``.
        revision: branch, tag or commit of a hub id.
        tokenizer: folder with the tokenizer's files, where the checkpoint has none.
        via: ``"optimum"`` exports an architecture without a family through optimum-onnx.
        verify: compare the graphs with the NumPy reference before the bundle appears.
        force: replace an existing bundle.
        progress: called with what is being done and the fraction of it that is.

    Returns:
        The path of the bundle.

    Raises:
        CheckpointError: the checkpoint can't be read or is of an unsupported architecture.
        InputError: an option is out of range, or ``out`` must not be replaced.
        MissingDependencyError: pickled weights without torch, ``via`` without optimum.
        CheckFailedError: the graphs and the reference disagree.
    """
    from edgedec.export.pipeline import Options, run

    options = Options(
        quant=quant,
        compute=compute,
        portable=portable,
        stages=stages if stages is None or isinstance(stages, str) else tuple(stages),
        dtype=dtype,
        revision=revision,
        tokenizer=tokenizer,
        via=via,
        verify=verify,
        force=force,
    )
    return run(checkpoint, out, options, progress or (lambda _what, _fraction: None))


class _CallableModule(ModuleType):
    """Lets `edgedec.export` be both the package and the function of the public API."""

    @property
    def __signature__(self) -> Signature:
        return signature(export_checkpoint)

    def __call__(self, *args: Any, **options: Any) -> Path:
        return export_checkpoint(*args, **options)


sys.modules[__name__].__class__ = _CallableModule
