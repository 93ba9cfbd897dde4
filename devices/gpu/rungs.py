"""The steps of the ladders: each tries one thing, and returns what it found or raises."""

from __future__ import annotations

import logging
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgedec.devices.gpu.ground import Ground
from edgedec.errors import DeviceError, MissingDependencyError
from edgedec.runtime.resident.arena import Buffer
from edgedec.runtime.session import Session

ROWS = (1, 3, 16, 64)
"""Of inputs that products are tried with."""
TOLERANCE = 4e-3
"""Attention in float16, by values of unit size: four times what rounding of its inputs does."""
WORSE = "runs without"
"""In warnings that something went a slower way than it should."""
WORDS = ("deployment", "edge", "computer", "kitchen", "window", "algorithm", "question", "rhythm")


def library(ground: Ground) -> str:
    """TensorRT is installed and new enough."""
    from edgedec.devices.gpu.bindings import PACKAGES

    module = ground.module
    where = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    title = f"{PACKAGES[ground.device].title} {module.__version__}"
    return f"edgedec {version('edgedec')} finds {title} ({where})"


def provider(_: Ground) -> str:
    """The one ONNX Runtime that is installed has CUDA."""
    import onnxruntime

    from edgedec.devices.cuda import INSTALL, PROVIDER
    from edgedec.devices.onnxruntimes import clash

    broken = clash()
    if broken is not None:
        raise MissingDependencyError(": ".join(broken))
    if PROVIDER not in onnxruntime.get_available_providers():
        raise MissingDependencyError(
            f"ONNX Runtime {onnxruntime.__version__} is built without CUDA: {INSTALL}"
        )
    where = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    title = f"ONNX Runtime {onnxruntime.__version__} with CUDA"
    return f"edgedec {version('edgedec')} finds {title} ({where})"


def driver(ground: Ground) -> str:
    """There is a GPU, and memory on it can be written and read."""
    arena = ground.arena
    gpu = arena.device.gpu
    sent = np.arange(1 << 18, dtype=np.int32)
    buffer = arena.empty(sent.shape, sent.dtype)
    arena.write(buffer, sent)
    if not np.array_equal(arena.read(buffer), sent):
        raise DeviceError("what was written into the GPU's memory is not what was read from it")
    return f"{gpu.name} (sm_{gpu.sm}), {gpu.memory / 1e9:.0f} GB, driver for CUDA {gpu.driver}"


def builder(ground: Ground) -> str:
    """Engines can be built of a product with codes, and of attention over a cache."""
    from edgedec.devices.gpu.probes.attention import attention, attention_profiles
    from edgedec.devices.gpu.probes.products import native_product, product_profile

    sizes = [
        len(ground.build(native_product(), [product_profile()])),
        len(ground.build(attention(decomposable=True), attention_profiles())),
    ]
    return f"engines are built: {' and '.join(f'{size:,} bytes' for size in sizes)}"


def kernels(ground: Ground) -> str:
    """The PTX that comes with edgedec, launched by the driver, computes what NumPy does."""
    from edgedec.devices.gpu.driver import POINTER, SCALAR
    from edgedec.devices.gpu.probes import products
    from edgedec.kernels import ptx
    from edgedec.kernels.words import pack_words

    arena = ground.arena
    worst = 0.0
    for tactic in ("gemv", "gemm"):
        for bits in (2, 3, 4, 8):
            codes = products.make_codes(bits)
            matrix, columns = codes.matrix(), codes.codes.shape[1]
            kernel = ptx.kernel(tactic, bits, "fp16")
            function = arena.device.function(kernel.ptx(), kernel.name)
            stored = [
                _on_gpu(ground, array)
                for array in (
                    pack_words(codes.codes, bits),
                    codes.levels.astype(np.float16),
                    codes.groups,
                    codes.scales,
                )
            ]
            for rows in ROWS:
                x = products.make_input(rows, columns)
                fed = _on_gpu(ground, x)
                y = arena.empty((rows, len(matrix)), np.float16)
                scalars = [(n, SCALAR) for n in (rows, len(matrix), columns)]
                given = [(buffer.address, POINTER) for buffer in (fed, *stored)]
                arena.device.start(
                    function,
                    kernel.grid(rows, len(matrix)),
                    kernel.threads,
                    kernel.shared,
                    [*given, *scalars, (y.address, POINTER)],
                    arena.stream,
                )
                worst = max(worst, _checked(arena.read(y), x, matrix, f"{kernel.name}, M={rows}"))
    return f"the shipped kernels equal NumPy (largest error {worst:.1e})"


def plugin(ground: Ground) -> str:
    """An engine of one product by the plugin, 4 bits in float16."""
    return _products(ground, ((4, "fp16"),), "an engine of one product by the plugin equals NumPy")


def plugins(ground: Ground) -> str:
    """An engine of products by the plugin, all bits and both types."""
    from edgedec.devices.gpu.probes.products import ALL

    return _products(ground, ALL, "the plugin equals NumPy for 2, 3, 4 and 8 bits in both types")


def native(ground: Ground) -> str:
    """An engine of one product with codes in standard operators."""
    from edgedec.devices.gpu.probes.products import make_codes, native_product, product_profile

    session = ground.open(native_product(), [product_profile()], "native")
    matrices = {"product.4.fp16": make_codes(4).matrix()}
    worst = _compare(session, matrices)
    return f"a product with codes in standard operators equals NumPy (largest error {worst:.1e})"


def blocks(ground: Ground) -> str:
    """One product by ONNX Runtime's MatMulNBits."""
    from edgedec.devices.gpu.probes.products import block_product

    graph, matrix = block_product()
    session = ground.open(graph, [], "blocks")
    worst = _compare(session, {"product.4.fp16": matrix})
    return f"a product by MatMulNBits equals NumPy (largest error {worst:.1e})"


def profiles(ground: Ground) -> str:
    """Several new positions, then one: in an engine, two profiles."""
    layer = Layer(ground, ground.attention)
    worst = max(layer.step(new) for new in (5, 1))
    return f"5 new positions and 1 by the same graph equal NumPy (largest error {worst:.1e})"


def cache(ground: Ground) -> str:
    """Two steps of one position; the cache stays where it is."""
    layer = Layer(ground, ground.attention)
    layer.step(3)
    layer.step(1)
    layer.step(1)
    layer.check_caches()
    return "two steps write keys and values into the same memory, and nothing else of it"


def recorded(ground: Ground) -> str:
    """The same step again and again: the first is launched, later ones are a CUDA graph."""
    layer = Layer(ground, ground.open_attention())  # none of its runs is recorded yet
    layer.step(2)
    with _warnings() as said:
        worst = layer.repeat(5)
    if said:
        raise DeviceError(said[0])
    layer.check_caches()
    return f"steps recorded as a CUDA graph equal plain ones (largest error {worst:.1e})"


def words(ground: Ground) -> str:
    """The built-in model pronounces words as on the CPU."""
    from edgedec.builtin import resolve_bundle

    return _pronounce(resolve_bundle("g2p"), ground.device)


def coded(ground: Ground) -> str:
    """The same with codes of 4 bits, in the form that the device takes first."""
    device = "tensorrt:plugin" if ground.device == "tensorrt" else ground.device
    return _pronounce(ground.coded, device)


def standard(ground: Ground) -> str:
    """The same without the plugin."""
    return _pronounce(ground.coded, "tensorrt:native")


class Layer:
    """Attention over a cache on the GPU, step by step beside what NumPy computes.

    Args:
        ground: the device.
        session: the attention.
    """

    def __init__(self, ground: Ground, session: Session) -> None:
        from edgedec.devices.gpu.probes import attention

        self._arena = ground.arena
        self._session = session
        self._reference = attention.AttentionReference(attention.ROWS)
        self._random = np.random.default_rng(attention.ROWS)
        self._width = 3 * attention.HEADS * attention.WIDTH
        caches = self._reference.caches
        self._caches = {
            name: self._arena.empty(held.shape, held.dtype) for name, held in caches.items()
        }

    def step(self, new: int) -> float:
        """Take new positions of every row; returns the largest error."""
        return self._steps(new, 1)

    def repeat(self, times: int) -> float:
        """Take one new position several times by one binding; returns the largest error."""
        return self._steps(1, times)

    def check_caches(self) -> None:
        """Raise DeviceError unless the GPU's memory holds exactly what was written."""
        for name, held in self._reference.caches.items():
            if not np.array_equal(self._arena.read(self._caches[name]), held):
                raise DeviceError(f"the cache of the {name}s is not what was written into it")

    def _steps(self, new: int, times: int) -> float:
        rows = len(self._reference.lengths)
        hidden = np.zeros((rows, new, self._width), np.float16)
        lengths = np.zeros(rows, np.int64)
        found = np.zeros((rows, new, self._width // 3), np.float32)
        binding = self._session.bind(
            {
                "hidden": hidden,
                "past_length": lengths,
                **{f"past_{name}": held for name, held in self._caches.items()},
            },
            {
                "hidden_out": found,
                **{f"present_{name}": held for name, held in self._caches.items()},
            },
        )
        worst = 0.0
        for _ in range(times):
            hidden[...] = self._random.normal(size=hidden.shape)
            lengths[...] = self._reference.lengths
            wanted = self._reference.step(hidden)
            binding.run()
            error = float(np.abs(found - wanted).max())
            if not error <= TOLERANCE:
                raise DeviceError(
                    f"attention over {lengths.max() + new} positions is off by {error:.1e}, and "
                    f"{TOLERANCE:.0e} is what float16 explains"
                )
            worst = max(worst, error)
        return worst


def _products(ground: Ground, wanted: Sequence[tuple[Any, Any]], what: str) -> str:
    from edgedec.devices.gpu.probes.products import (
        make_codes,
        output_of,
        plugin_products,
        product_profile,
    )

    session = ground.open(plugin_products(wanted), [product_profile()], "products", plugin=True)
    matrices = {output_of(*product): make_codes(product[0]).matrix() for product in wanted}
    return f"{what} (largest error {_compare(session, matrices):.1e})"


def _compare(session: Session, matrices: dict[str, NDArray[np.float32]]) -> float:
    """Run products over several numbers of rows; returns the largest error."""
    from edgedec.devices.gpu.probes.products import make_input

    columns = next(iter(matrices.values())).shape[1]
    worst = 0.0
    for rows in ROWS:
        x = make_input(rows, columns)
        found = {name: np.zeros((rows, len(m)), np.float32) for name, m in matrices.items()}
        session.bind({"x": x}, found).run()
        for name, matrix in matrices.items():
            worst = max(worst, _checked(found[name], x, matrix, f"{name}, M={rows}"))
    return worst


def _checked(y: NDArray[Any], x: NDArray[Any], matrix: NDArray[np.float32], what: str) -> float:
    """The largest error of a product; raises DeviceError where rounding cannot explain it."""
    from edgedec.devices.gpu.probes.products import ROUNDING, deviation

    error = deviation(y, x, matrix)
    most = ROUNDING["bf16" if "bf16" in what else "fp16"]
    if not error <= most:
        raise DeviceError(f"{what} is off by {error:.1e}, and {most:.1e} is what rounding explains")
    return error


def _on_gpu(ground: Ground, array: NDArray[Any]) -> Buffer:
    buffer = ground.arena.empty(array.shape, array.dtype)
    ground.arena.write(buffer, array)
    return buffer


def _pronounce(bundle: Path, device: str) -> str:
    """Tokens of a few words, on the device and on the CPU."""
    from edgedec.runtime.generator import load

    with _warnings() as said:
        found = load(bundle, device=device).generate(WORDS)
    wanted = load(bundle, device="cpu").generate(WORDS)
    other = [word for word, a, b in zip(WORDS, found, wanted, strict=True) if a.tokens != b.tokens]
    if other:
        raise DeviceError(
            f"{len(other)} of {len(WORDS)} words are not what the CPU says, such as {other[0]!r}"
        )
    worse = [text for text in said if WORSE in text]
    if worse:
        raise DeviceError(worse[0])
    return f"{len(WORDS)} words are pronounced on {device} as on the CPU"


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """What edgedec warns of meanwhile: of something that went another way than it should."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("edgedec")
    logger.addHandler(handler)
    try:
        yield said
    finally:
        logger.removeHandler(handler)
