"""Compile the kernels ahead of time: ``python -m edgedec.kernels.triton.compile [FOLDER]``.

No GPU is needed. The target is sm_80 in PTX 8.0, which drivers since CUDA 12.0 compile for their
GPU; PTX for sm_90 is for that one alone, and Triton's newest version of PTX is too new for drivers
that are in use. Triton aborts the process on a target that it cannot have, so tests run this one.

Sizes are arguments, so a kernel per tactic, bits and type is all there is.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgedec.kernels import ptx
from edgedec.kernels.ptx import Dtype, Kernel, Tactic
from edgedec.quantize.codebook import BITS

TARGET, PTX_VERSION, WARPS = 80, 80, 4
ALIGNMENT = 16
"""Of every array, in bytes; TensorRT's and CUDA's begin at multiples of 256."""
ARRAYS = {"words": "*i32", "groups": "*i32", "scales": "*fp32"}
SIZES = ("M", "N", "K")
PARAMETERS = ("x", "words", "levels", "groups", "scales", *SIZES, "y")


@dataclass(frozen=True)
class Recipe:
    """What a kernel is compiled with.

    Attributes:
        tactic: the function, and the module, that it is compiled of.
        bits: of a code.
        block_m: rows of x of a program.
        block_n: rows of the matrix of a program.
        constants: its other compile-time arguments.
    """

    tactic: Tactic
    bits: int
    block_m: int
    block_n: int
    constants: dict[str, int]


ACROSS = {"gemv": {2: 16, 3: 8, 4: 32, 8: 32}, "gemm": {2: 8, 3: 2, 4: 16, 8: 32}}
"""Words (units of 3 bits) of a row that a warp reads at a time.

Lines of 128 bytes for gemv, half of them for gemm, which needs 128 registers so. With 4 units of 3
bits gemm would spill on sm_86, sm_87, sm_89 and sm_100.
"""
RECIPES = (
    *(
        Recipe(
            "gemv", bits, 1, 8, {"HELD": 2, "BESIDE": 4, "ACROSS": ACROSS["gemv"][bits], "AHEAD": 4}
        )
        for bits in BITS
    ),
    *(Recipe("gemm", bits, 16, 16, {"ROWS": 16, "ACROSS": ACROSS["gemm"][bits]}) for bits in BITS),
)


def compiled(recipe: Recipe, dtype: Dtype) -> tuple[Kernel, str]:
    """A kernel and its PTX."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from edgedec.kernels.triton.gemm import gemm
    from edgedec.kernels.triton.gemv import gemv

    # Lines of the source, with the paths of this machine, would be most of the text.
    triton.knobs.compilation.disable_line_info = True
    function: Any = {"gemv": gemv, "gemm": gemm}[recipe.tactic]
    types = {**ARRAYS, **dict.fromkeys(("x", "levels", "y"), f"*{dtype}")}
    constants = {"BITS": recipe.bits, "WARPS": WARPS, **recipe.constants}
    names = list(function.arg_names)
    source = ASTSource(
        fn=function,
        signature={n: types.get(n, "i32" if n in SIZES else "constexpr") for n in names},
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(names.index(name),): [["tt.divisibility", ALIGNMENT]] for name in types},
    )
    options = {"num_warps": WARPS, "ptx_version": PTX_VERSION}
    result = triton.compile(source, target=GPUTarget("cuda", TARGET, 32), options=options)
    name = f"edgedec_{recipe.tactic}_cb{recipe.bits}_{dtype}"
    text = _shortened(result.asm["ptx"], result.metadata.name, name)
    kernel = Kernel(
        name=name,
        file=f"{recipe.tactic}_cb{recipe.bits}_{dtype}.ptx",
        sha256=hashlib.sha256(text.encode("ascii")).hexdigest(),
        tactic=recipe.tactic,
        bits=recipe.bits,
        dtype=dtype,
        block_m=recipe.block_m,
        block_n=recipe.block_n,
        warps=result.metadata.num_warps,
        shared=result.metadata.shared,
        parameters=PARAMETERS,
    )
    return kernel, text


def _shortened(text: str, old: str, new: str) -> str:
    """PTX with the parameters that a launch passes, with another name and without comments.

    Triton appends two pointers to memory for its own use, which our kernels have no use for.

    Raises:
        ValueError: one of them is used.
    """
    entry = re.search(rf"\.visible \.entry {old}\(([^)]*)\)", text)
    if entry is None:
        raise ValueError(f"{old} is no entry")
    parameters = [line.strip() for line in entry.group(1).split(",")]
    for parameter in parameters[len(PARAMETERS) :]:
        if len(re.findall(rf"\b{parameter.split()[-1]}\b", text)) != 1:
            raise ValueError(f"{old} uses a parameter that no launch passes: {parameter}")
    kept = ",\n\t".join(parameters[: len(PARAMETERS)])
    text = text[: entry.start(1)] + f"\n\t{kept}\n" + text[entry.end(1) :]
    text = re.sub(rf"\b{old}(?=\b|_param_)", new, text)
    return re.sub(r"\n\s*\n+", "\n", re.sub(r"[ \t]*//[^\n]*", "", text)).lstrip()


def main(folder: Path) -> None:
    """Write all kernels and their manifest."""
    import triton

    results = [compiled(recipe, dtype) for recipe in RECIPES for dtype in ("fp16", "bf16")]
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.ptx"):
        old.unlink()
    for kernel, text in results:
        (folder / kernel.file).write_bytes(text.encode("ascii"))
    manifest = {
        "triton": triton.__version__,
        "target": f"sm_{TARGET}",
        "ptx": PTX_VERSION / 10,
        "kernels": [asdict(kernel) for kernel, _ in results],
    }
    text = json.dumps(manifest, indent=1) + "\n"
    (folder / ptx.MANIFEST.name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    os.environ.pop("TRITON_INTERPRET", None)
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ptx.FOLDER)
