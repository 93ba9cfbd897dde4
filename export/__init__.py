"""Turn a checkpoint into a bundle: read the facts, build the graphs, verify, write.

The package can be called: ``edgedec.export(...)`` is `export_checkpoint`.
"""

from __future__ import annotations

import sys
from inspect import Signature, signature
from os import PathLike, fspath
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def export_checkpoint(
    checkpoint: str | PathLike[str],
    out: str | PathLike[str],
    *,
    quant: str | None = None,
    compute: str | None = None,
    portable: bool = False,
    method: str | None = None,
    calibration: str | PathLike[str] | None = None,
    stages: str | Sequence[int] | None = None,
    depth: str | Sequence[str] = (),
    base: str | PathLike[str] | None = None,
    lora: str = "merge",
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
        method: with ``quant``, how codes are chosen (docs/quantize.md): ``jlcm``, the default,
            learns them from text; ``kmeans`` and ``rtn`` look at the weights alone and are quick.
            ``int8`` is always ``rtn``.
        calibration: for methods that learn, a file with text like what the model will read; by
            default the checkpoint's own, else a small one that comes with edgedec, with which codes
            are less good.
        stages: where to cut the decoder: ``None`` (one stage), ``"all"``, or layers such as
            ``"0,1,4"``.
        depth: depth policies that the bundle shall be made for, such as ``"layerskip:exit=2"``
            (docs/depth.md): one or several. Parameters that they do not give are the checkpoint's.
        base: where ``checkpoint`` is an adapter in PEFT's format alone, what it was trained on.
        lora: whether such an adapter is added to the weights (``"merge"``) or stays beside them
            (``"keep"``), which is slower.
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
    from edgedec.errors import InputError

    progress = progress or (lambda _what, _fraction: None)
    if stages is not None and not isinstance(stages, str):
        stages = ",".join(map(str, stages))
    depth = (depth,) if isinstance(depth, str) else tuple(depth)
    if quant is None:
        from edgedec.export import pipeline

        for name, value in (("compute", compute), ("method", method), ("calib", calibration)):
            if value is not None:
                raise InputError(f"--{name} {value} needs codebook weights: add --quant.")
        options = pipeline.Options(
            stages, dtype, revision, tokenizer, via, verify, force, depth, base, lora
        )
        return pipeline.run(checkpoint, out, options, progress)

    from edgedec.export.quantized import quantize_source
    from edgedec.quantize.methods import METHODS
    from edgedec.quantize.options import ROUNDED, QuantizeOptions
    from edgedec.quantize.scheme import SCHEMES

    if quant not in SCHEMES:
        raise InputError(f"--quant {quant!r}: choose one of {', '.join(SCHEMES)}.")
    if dtype != "fp32":
        raise InputError(
            f"--dtype {dtype} is how floating-point weights are stored; --quant {quant} stores "
            "codes: give one of the two."
        )
    if lora != "merge":
        raise InputError(f"--lora {lora} is for floating-point weights; --quant {quant} merges.")
    bits = SCHEMES[quant].bits
    if bits == 8 and method not in (None, ROUNDED):
        raise InputError(f"--quant {quant} is only rounded: leave out --method, or use {ROUNDED}.")
    how = QuantizeOptions(
        method=method or "",
        bits=bits,
        calibration=None if calibration is None else Path(calibration),
        compute=compute,
        portable=portable,
        revision=revision,
        tokenizer=None if tokenizer is None else fspath(tokenizer),
        via=via,
        stages=stages,
        depth=depth,
        base=None if base is None else fspath(base),
        verify=verify,
        force=force,
    )
    if calibration is not None and how.method in METHODS and not METHODS[how.method].calibrated:
        raise InputError(
            f"--calib {fspath(calibration)}: codes by {how.method} need no text; leave it out."
        )
    quantize_source(checkpoint, out, how, progress, report=False)
    return Path(out)


class _CallableModule(ModuleType):
    """Lets `edgedec.export` be both the package and the function of the public API."""

    @property
    def __signature__(self) -> Signature:
        return signature(export_checkpoint)

    def __call__(self, *args: Any, **options: Any) -> Path:
        return export_checkpoint(*args, **options)


sys.modules[__name__].__class__ = _CallableModule
