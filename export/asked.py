"""What an export was asked for, and which of the ways it takes: the one place that knows all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from edgedec.devices.base import STATIC
from edgedec.errors import InputError
from edgedec.export.bundle import Progress
from edgedec.export.finish import Finish
from edgedec.export.places import Place, place
from edgedec.runtime.manifest import MANIFEST


@dataclass(frozen=True)
class Asked:
    """The options of `edgedec.export.export_checkpoint`, which describes them."""

    quant: str | None
    compute: str | None
    portable: bool
    method: str | None
    calibration: Path | None
    stages: str | None
    depth: tuple[str, ...]
    base: str | None
    lora: str
    dtype: str
    revision: str | None
    tokenizer: str | None
    via: str | None
    verify: bool
    force: bool
    device: str
    kv: str | None
    max_source: int | None
    max_target: int | None
    chunk: int | None
    unroll: int | None
    soc: str | None
    share_contexts: bool
    min_agreement: float | None
    budget: float | None
    max_rows: int | None
    engines: Path | None

    def refuse(self, usual: Mapping[str, Any], why: str) -> None:
        """Refuse options that have other values than the usual ones.

        Raises:
            InputError: with the option, its value, and why.
        """
        for name, value in usual.items():
            given = getattr(self, name)
            if given != value:
                shown = " ".join(map(str, given)) if isinstance(given, tuple) else given
                raise InputError(f"{option(name)}{'' if given is True else f' {shown}'} {why}")


def option(name: str) -> str:
    """How an option is written on the command line."""
    return f"--{'calib' if name == 'calibration' else name.replace('_', '-')}"


FOR_CODES = {"compute": None, "method": None, "calibration": None}
FOR_CPU = {
    "compute": None,
    "portable": False,
    "method": None,
    "stages": None,
    "depth": (),
    "lora": "merge",
    "dtype": "fp32",
}
FOR_NPU = {
    "kv": None,
    "chunk": None,
    "unroll": None,
    "soc": None,
    "share_contexts": False,
    "budget": None,
}
FOR_GPU = {"max_rows": None, "engines": None}
FOR_BOTH = {"max_source": None, "max_target": None, "min_agreement": None}
FOR_CHECKPOINTS = {
    "revision": None,
    "tokenizer": None,
    "via": None,
    "stages": None,
    "depth": (),
    "base": None,
    "lora": "merge",
    "dtype": "fp32",
}
"""Options that only some of the ways take, with the values that say nothing."""


def export(
    source: str | PathLike[str], out: str | PathLike[str], asked: Asked, progress: Progress
) -> Path:
    """Export; see `edgedec.export.export_checkpoint`."""
    found = place(asked.device)
    if found is None:
        asked.refuse(FOR_NPU, "is for NPUs: add --device qnn.")
        asked.refuse(FOR_GPU, "is for GPUs: add --device tensorrt, tensorrt-rtx or cuda.")
        asked.refuse(FOR_BOTH, "is for NPUs and GPUs: name one, such as --device qnn.")
        return _ordinary(source, out, asked, None, progress)
    if found.device in STATIC:
        asked.refuse(FOR_GPU, f"is not for --device {asked.device}, but for GPUs: leave it out.")
        return _for_npu(source, out, asked, found, progress)
    asked.refuse(FOR_NPU, f"is not for --device {asked.device}, but for NPUs: leave it out.")
    return _for_gpu(source, out, asked, found, progress)


def _ordinary(
    source: str | PathLike[str],
    out: str | PathLike[str],
    asked: Asked,
    finish: Finish | None,
    progress: Progress,
) -> Path:
    """Graphs of any length, in floating point or with codes."""
    if asked.quant is not None:
        return _with_codes(source, out, asked, finish, progress)
    from edgedec.export import pipeline

    asked.refuse(FOR_CODES, "needs codebook weights: add --quant.")
    options = pipeline.Options(
        stages=asked.stages,
        dtype=asked.dtype,
        revision=asked.revision,
        tokenizer=asked.tokenizer,
        via=asked.via,
        verify=asked.verify,
        force=asked.force,
        depth=asked.depth,
        base=asked.base,
        lora=asked.lora,
        finish=finish,
    )
    return pipeline.run(source, out, options, progress)


def _for_gpu(
    source: str | PathLike[str],
    out: str | PathLike[str],
    asked: Asked,
    gpu: Place,
    progress: Progress,
) -> Path:
    from edgedec.export.gpu.options import GpuOptions
    from edgedec.export.gpu.pipeline import finish_bundle, finishing

    options = GpuOptions(
        device=asked.device,
        place=gpu,
        max_rows=asked.max_rows,
        max_source=asked.max_source,
        max_target=asked.max_target,
        min_agreement=asked.min_agreement,
        engines=asked.engines,
        verify=asked.verify,
        force=asked.force,
    )
    with finishing(options, Path(out)) as finish:
        if asked.quant is not None or not (Path(source) / MANIFEST).is_file():
            return _ordinary(source, out, asked, finish, progress)
        asked.refuse(
            FOR_CHECKPOINTS,
            f"says how to export a checkpoint, but {str(source)!r} is a bundle: leave it out, or "
            "give the checkpoint.",
        )
        asked.refuse(
            {**FOR_CODES, "portable": False}, "needs a new --quant: leave it out, or add that."
        )
        return finish_bundle(Path(source), Path(out), finish, progress, force=asked.force)


def _for_npu(
    source: str | PathLike[str],
    out: str | PathLike[str],
    asked: Asked,
    npu: Place,
    progress: Progress,
) -> Path:
    from edgedec.export.npu.options import DEFAULT, NpuOptions
    from edgedec.export.npu.pipeline import export_npu

    asked.refuse(FOR_CPU, f"is not for --device {asked.device}: leave it out.")
    options = NpuOptions(
        device=asked.device,
        place=npu,
        precision=asked.quant or DEFAULT,
        kv=asked.kv,
        max_source=asked.max_source,
        max_target=asked.max_target,
        chunk=asked.chunk,
        unroll=1 if asked.unroll is None else asked.unroll,
        soc=asked.soc,
        share_contexts=asked.share_contexts,
        min_agreement=asked.min_agreement,
        budget=asked.budget,
        calibration=asked.calibration,
        verify=asked.verify,
        force=asked.force,
        revision=asked.revision,
        tokenizer=asked.tokenizer,
        via=asked.via,
        base=asked.base,
    )
    return export_npu(source, out, options, progress)


def _with_codes(
    source: str | PathLike[str],
    out: str | PathLike[str],
    asked: Asked,
    finish: Finish | None,
    progress: Progress,
) -> Path:
    from edgedec.export.quantized import quantize_source
    from edgedec.quantize.methods import METHODS
    from edgedec.quantize.options import ROUNDED, QuantizeOptions
    from edgedec.quantize.scheme import SCHEMES

    quant = asked.quant or ""
    if quant not in SCHEMES:
        from edgedec.devices.npu.precision import PRECISIONS

        if quant in PRECISIONS and finish is None:
            raise InputError(f"--quant {quant} is for NPUs: add --device qnn.")
        raise InputError(f"--quant {quant!r}: choose one of {', '.join(SCHEMES)}.")
    if asked.dtype != "fp32":
        raise InputError(
            f"--dtype {asked.dtype} is how floating-point weights are stored; --quant {quant} "
            "stores codes: give one of the two."
        )
    if asked.lora != "merge":
        raise InputError(
            f"--lora {asked.lora} is for floating-point weights; --quant {quant} merges."
        )
    bits = SCHEMES[quant].bits
    if bits == 8 and asked.method not in (None, ROUNDED):
        raise InputError(f"--quant {quant} is only rounded: leave out --method, or use {ROUNDED}.")
    how = QuantizeOptions(
        method=asked.method or "",
        bits=bits,
        calibration=asked.calibration,
        compute=asked.compute,
        portable=asked.portable,
        revision=asked.revision,
        tokenizer=asked.tokenizer,
        via=asked.via,
        stages=asked.stages,
        depth=asked.depth,
        base=asked.base,
        verify=asked.verify,
        force=asked.force,
    )
    learns = how.method not in METHODS or METHODS[how.method].calibrated
    if asked.calibration is not None and not learns:
        raise InputError(
            f"--calib {asked.calibration}: codes by {how.method} need no text; leave it out."
        )
    quantize_source(source, out, how, progress, report=False, finish=finish)
    return Path(out)
