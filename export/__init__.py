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
    device: str = "cpu",
    kv: str | None = None,
    max_source: int | None = None,
    max_target: int | None = None,
    chunk: int | None = None,
    unroll: int | None = None,
    soc: str | None = None,
    share_contexts: bool = False,
    min_agreement: float | None = None,
    budget: float | None = None,
    max_rows: int | None = None,
    engines: str | PathLike[str] | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> Path:
    """Export a checkpoint into the bundle folder ``out``.

    Args:
        checkpoint: a Hugging Face folder, a hub id, or Mu's ``.pt`` file; for an NPU or a GPU also
            a bundle.
        out: the folder to create; nothing is left there if the export fails.
        quant: weight format: ``cb4``, ``cb3`` or ``cb2`` (codes of 4, 3 or 2 bits into tables of
            levels), ``int8``, or ``None`` for floating point. For an NPU ``fp16``, ``nbits8`` (the
            default), ``nbits4``, ``w8a16``, ``w4a16`` or ``lpbq`` (docs/npu.md).
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
        device: what the bundle is for: ``cpu``, an NPU (``qnn``, ``openvino``), a GPU
            (``tensorrt``, ``tensorrt-rtx``, ``cuda``), or one for each part of the model, such as
            ``encoder=qnn,decoder=cpu``.
        kv: for an NPU, how keys and values are stored there: ``fp16``, ``u8`` or ``s16``; by
            default what suits ``quant``.
        max_source: tokens of a source that an NPU's or a GPU's graphs are made for.
        max_target: tokens of a target, prompt included, likewise.
        chunk: for an NPU, prompt tokens that one run of a decoder-only model takes.
        unroll: for an NPU, greedy steps that one run makes.
        soc: Qualcomm's systems on chip to compile for, such as ``"sm8650,sm8750"``.
        share_contexts: let what is compiled for one of them share weights.
        min_agreement: share of tokens below which graphs of an NPU or a GPU that choose others than
            the model are refused; by default 0.97, and for an NPU 0.9 for 4 bits.
        budget: for an NPU, with 4 bits, mean bits per weight within which some weights keep 8.
        max_rows: sequences, beams counted, that a GPU's graphs take together; by default 16.
        engines: folder that gets TensorRT's engines, for programs without edgedec.
        progress: called with what is being done and the fraction of it that is.

    Returns:
        The path of the bundle.

    Raises:
        CheckpointError: the checkpoint can't be read or is of an unsupported architecture.
        InputError: an option is out of range, or ``out`` must not be replaced.
        DeviceError: what compiles for an NPU or simulates it is not installed, or what builds
            engines.
        MissingDependencyError: pickled weights without torch, ``via`` without optimum.
        CheckFailedError: the graphs and the reference disagree, or an NPU's or a GPU's and the
            model.
    """
    from edgedec.export.asked import Asked, export

    if stages is not None and not isinstance(stages, str):
        stages = ",".join(map(str, stages))
    asked = Asked(
        quant=quant,
        compute=compute,
        portable=portable,
        method=method,
        calibration=None if calibration is None else Path(calibration),
        stages=stages,
        depth=(depth,) if isinstance(depth, str) else tuple(depth),
        base=None if base is None else fspath(base),
        lora=lora,
        dtype=dtype,
        revision=revision,
        tokenizer=None if tokenizer is None else fspath(tokenizer),
        via=via,
        verify=verify,
        force=force,
        device=device,
        kv=kv,
        max_source=max_source,
        max_target=max_target,
        chunk=chunk,
        unroll=unroll,
        soc=soc,
        share_contexts=share_contexts,
        min_agreement=min_agreement,
        budget=budget,
        max_rows=max_rows,
        engines=None if engines is None else Path(engines),
    )
    return export(checkpoint, out, asked, progress or (lambda _what, _fraction: None))


class _CallableModule(ModuleType):
    """Lets `edgedec.export` be both the package and the function of the public API."""

    @property
    def __signature__(self) -> Signature:
        return signature(export_checkpoint)

    def __call__(self, *args: Any, **options: Any) -> Path:
        return export_checkpoint(*args, **options)


sys.modules[__name__].__class__ = _CallableModule
