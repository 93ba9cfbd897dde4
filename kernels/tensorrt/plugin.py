"""``edgedec::CodebookMatMul`` for TensorRT: kernels compiled ahead, so engines run without Python.

TensorRT calls the functions below while it builds an engine and copies the PTX of the kernels that
it picks into it. At run time it launches these by itself, with the arguments in this order: the
inputs' addresses, the scalars M, N and K, the output's address (`edgedec.kernels.ptx`).

The plugin has no attributes: what a kernel has to know follows from shapes. TensorRT loses an
attribute that a node lacks without a word, and its versions disagree on how others arrive.
"""

# ruff: noqa: ARG001 - TensorRT goes by the names of all arguments
from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from math import prod
from typing import Any

from edgedec.errors import DeviceError, InputError
from edgedec.kernels import ptx

NAMESPACE = "edgedec"
NAME = "CodebookMatMul"
INPUTS = ("x", "words", "levels", "groups", "scales")
TYPES = "{0}, INT32, {0}, INT32, FP32, {0}"
"""Of the inputs and the output, where ``{0}`` is the type of x: networks settle it."""
TACTICS: dict[int, ptx.Tactic] = {1: "gemv", 2: "gemm"}
"""Number that TensorRT knows a kernel by -> kernel. Both are right for every number of rows."""
BITS = {1 << bits: bits for bits in (2, 3, 4, 8)}
"""Levels of a table -> bits of a code."""
LEAST = {10: (10, 16), 11: (11, 3)}
"""Major version -> the oldest that serves. 11.1 and 11.2 keep memory with every change of shapes
(NVIDIA/TensorRT#4849); of later ones nobody has said."""
MOST_BLOCKS = 65535
"""That a launch can have in y."""


def register(trt: Any) -> None:
    """Make the plugin known to TensorRT, before a network with its nodes is parsed.

    Args:
        trt: the module ``tensorrt``.

    Raises:
        DeviceError: a version that has no such plugins, or whose plugins do not serve.
    """
    title = f"{trt.__name__} {trt.__version__}"
    if not hasattr(trt, "__path__") or importlib.util.find_spec(f"{trt.__name__}.plugin") is None:
        raise DeviceError(
            f"{title} takes no plugins: use --device tensorrt:native, or another device."
        )
    major, minor = (int(part) for part in trt.__version__.split(".")[:2])
    least = LEAST.get(major, (10, 16))
    if (major, minor) < least:
        raise DeviceError(
            f"{title} is too old for edgedec's plugin, which needs {'.'.join(map(str, least))} or "
            "later: pip install -U tensorrt, or use --device tensorrt:native."
        )
    api = _silently_imported(trt)
    if hasattr(api.op, NAMESPACE) and hasattr(getattr(api.op, NAMESPACE), NAME):
        return
    name = f"{NAMESPACE}::{NAME}"
    api.register(name)(_describe(api))
    api.autotune(name)(_combinations(trt, api))
    api.aot_impl(name)(_implementation(trt, api))


def _silently_imported(trt: Any) -> Any:
    """The module ``tensorrt.plugin``, which says on standard output that it is experimental."""
    logger = trt.Logger

    class Quiet(logger):  # type: ignore[misc,valid-type]  # known at run time only
        """Prints errors only."""

        def __init__(self) -> None:
            logger.__init__(self, logger.ERROR)

    trt.Logger = Quiet  # our results go there
    try:
        return importlib.import_module(f"{trt.__name__}.plugin")
    finally:
        trt.Logger = logger


def _describe(api: Any) -> Callable[..., Any]:
    """The type and the shape of the output."""

    # TensorRT calls this before it knows shapes: no constant can be read here.
    def describe(x: Any, words: Any, levels: Any, groups: Any, scales: Any) -> Any:
        y = x.like()
        y.shape_expr[len(y.shape_expr) - 1] = words.shape_expr[0]
        return y

    # TensorRT reads annotations as objects; those in this file's source are strings.
    describe.__annotations__ = {**dict.fromkeys(INPUTS, api.TensorDesc), "return": api.TensorDesc}
    return describe


def _combinations(trt: Any, api: Any) -> Callable[..., Any]:
    """The types of a network and the kernels that TensorRT may choose from."""

    def combinations(
        x: Any, words: Any, levels: Any, groups: Any, scales: Any, outputs: Any
    ) -> list[Any]:
        bits, dtype = _bits(levels.shape_expr), _dtype(trt, x)
        most = x.shape.max if x.shape.is_dynamic else x.shape
        rows = prod(list(most)[:-1])
        fitting = [
            number
            for number, tactic in TACTICS.items()
            if ptx.kernel(tactic, bits, dtype).grid(rows, words.shape[0])[1] <= MOST_BLOCKS
        ]
        if not fitting:
            raise InputError(
                f"{NAME} would multiply {rows:,} rows at once, which is more than a GPU starts: "
                "export with a smaller --max-rows or --max-target."
            )
        return [api.AutoTuneCombination(TYPES.format(dtype.upper()), "LINEAR", fitting)]

    combinations.__annotations__ = {}
    return combinations


def _implementation(trt: Any, api: Any) -> Callable[..., Any]:
    """A kernel, its launch and its scalars, for types and a tactic that TensorRT chose."""

    def implementation(
        x: Any, words: Any, levels: Any, groups: Any, scales: Any, outputs: Any, tactic: int
    ) -> tuple[str, str, Any, Any]:
        bits = _bits(levels.shape_expr)
        *leading, columns = x.shape_expr
        _check(words.shape_expr, columns, bits)
        kernel = ptx.kernel(TACTICS[tactic], bits, _dtype(trt, x))
        rows = api.ShapeExpr(1)
        for length in leading:
            rows = rows * length
        launch = api.KernelLaunchParams()
        launch.grid_x = api.cdiv(words.shape_expr[0], kernel.block_n)
        launch.grid_y = api.cdiv(rows, kernel.block_m)
        launch.block_x = kernel.threads
        launch.shared_mem = kernel.shared
        scalars = api.SymIntExprs(3)
        for index, value in enumerate((rows, words.shape_expr[0], columns)):
            scalars[index] = api.SymInt32(value)
        return kernel.name, kernel.ptx(), launch, scalars

    implementation.__annotations__ = {
        "return": tuple[str, str, api.KernelLaunchParams, api.SymIntExprs]
    }
    return implementation


def _dtype(trt: Any, x: Any) -> ptx.Dtype:
    """The word of our kernels for the type of x."""
    words: dict[Any, ptx.Dtype] = {trt.float16: "fp16", trt.bfloat16: "bf16"}
    if x.dtype not in words:
        raise InputError(f"{NAME} multiplies float16 or bfloat16, not {x.dtype}.")
    return words[x.dtype]


def _bits(levels: Any) -> int:
    """Bits of a code, of the tables' shape ``[G, 2**bits]``."""
    length: int = levels[1].constant_value()
    if length not in BITS:
        raise InputError(
            f"{NAME} has tables of {length} levels; its kernels read {', '.join(map(str, BITS))}."
        )
    return BITS[length]


def _check(words: Any, columns: Any, bits: int) -> None:
    """Refuse words ``[N, U]`` that do not hold rows of ``columns`` codes: kernels do not look."""
    if not columns.is_constant:
        return
    needed, found = -(-columns.constant_value() // 32) * bits, words[1].constant_value()
    if needed != found:
        raise InputError(
            f"{NAME} multiplies {columns.constant_value()} columns of {bits} bits, {needed} words "
            f"a row, by rows of {found} words."
        )
