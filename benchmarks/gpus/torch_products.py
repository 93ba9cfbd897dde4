"""The others: torch's float16 product (cuBLAS), its int4 one, plain Triton, and moving memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gpus.lanes import copies
from gpus.points import Place, Point, inputs, relative_error

Tensor = Any
Floats = NDArray[Any]
INT4_GROUP = 128
"""Columns that share a scale in torch's int4 product."""
STREAMED = 1 << 30
"""Bytes that a copy reads, and that it writes: far more than any cache."""


class TorchLane:
    """torch's current stream."""

    def record(self, enqueue: Callable[[], None]) -> Callable[[], None]:
        """A CUDA graph of torch's."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            enqueue()
        replay: Callable[[], None] = graph.replay
        return replay

    def finish(self) -> None:
        """Wait for the GPU."""
        torch.cuda.synchronize()


class TorchProduct:
    """A product as a function of one of several equal weights.

    Args:
        place: where it runs.
        weights: tensors of one weight; they are copied.
        multiply: from x and such tensors to y.
        x: ``[M, K]``.
        expected: ``[M, N]``.
    """

    def __init__(
        self,
        place: Place,
        weights: tuple[Tensor, ...],
        multiply: Callable[..., Tensor],
        x: Tensor,
        expected: Floats,
    ) -> None:
        self._x, self._expected, self._multiply = x.to(place.device), expected, multiply
        weights = tuple(tensor.to(place.device) for tensor in weights)
        size = sum(tensor.nbytes for tensor in weights)
        self.nbytes = size + x.nbytes + 2 * expected.size
        self.copies = copies(place.rotated, size)
        self._weights = [weights]
        self._weights += [tuple(t.clone() for t in weights) for _ in range(1, self.copies)]
        self._y = [self._multiply(self._x, *weights)]

    def launch(self, copy: int) -> None:
        """Enqueue it."""
        self._y[0] = self._multiply(self._x, *self._weights[copy])

    def error(self) -> float:
        """Of the last product."""
        return relative_error(self._y[0].float().cpu().numpy(), self._expected)


def cublas(point: Point, place: Place) -> TorchProduct:
    """float16 weights, ``torch.mm``."""
    y = _result(point, place)
    return _float_product(point, place, lambda x, w: torch.mm(x, w.T, out=y))


def plain_triton(point: Point, place: Place) -> TorchProduct:
    """float16 weights, a plain kernel of Triton with the fastest of some tiles."""
    from gpus.plain_kernels import DOT_ROWS, DOT_TILES, TILES, product

    y, BM = _result(point, place), 1 if point.rows == 1 else DOT_ROWS
    if point.rows > DOT_ROWS:
        raise ValueError(f"the plain kernel has at most {DOT_ROWS} rows")
    tiles = TILES if BM == 1 else DOT_TILES

    def multiply(x: Tensor, w: Tensor, tile: tuple[int, int, int]) -> Tensor:
        BN, BK, warps = tile
        product[(-(-point.n // BN),)](
            x, w, y, point.rows, N=point.n, K=point.k, BM=BM, BN=BN, BK=BK, num_warps=warps
        )
        return y

    def fastest() -> tuple[int, int, int]:
        if place.device == "cpu":  # the interpreter: nothing is fast
            return tiles[0]
        from triton.testing import do_bench

        x = torch.from_numpy(inputs(point)).to(place.device)
        w = torch.from_numpy(_floats(point.all_rows)[0]).to(place.device)
        times = [
            do_bench(partial(multiply, x, w, tile), warmup=5, rep=20, return_mode="median")
            for tile in tiles
        ]
        return tiles[int(np.argmin(times))]

    return _float_product(point, place, partial(multiply, tile=fastest()))


def _float_product(
    point: Point, place: Place, multiply: Callable[[Tensor, Tensor], Tensor]
) -> TorchProduct:
    w, expected = _floats(point.all_rows)
    x = torch.from_numpy(inputs(point))
    return TorchProduct(place, (torch.from_numpy(w),), multiply, x, expected[: point.rows])


def _result(point: Point, place: Place) -> Tensor:
    """float16 ``[rows, n]``, wrong until it is written."""
    shape = point.rows, point.n
    return torch.full(shape, float("nan"), dtype=torch.float16, device=place.device)


def int4(point: Point, place: Place) -> TorchProduct:
    """Weights of 4 bits by torch: a scale and a zero for 128 columns, x in bfloat16.

    On CUDA the first of two codes is in the high half of a byte; the CPU takes one per value.
    """
    codes, scale, expected = _codes(point.all_rows)
    pairs = torch.zeros((point.k // INT4_GROUP, point.n, 2), dtype=torch.bfloat16)
    pairs[..., 0] = scale
    x = torch.from_numpy(inputs(point)).to(torch.bfloat16)
    if place.device == "cpu":
        packed = torch._convert_weight_to_int4pack_for_cpu(torch.from_numpy(codes).int(), 2)
        function = torch._weight_int4pack_mm_for_cpu
    else:
        halves = torch.from_numpy(codes[:, ::2] << 4 | codes[:, 1::2])
        packed = torch._convert_weight_to_int4pack(halves.to(place.device), 8)
        function = torch._weight_int4pack_mm
    return TorchProduct(
        place,
        (packed, pairs),
        lambda x, w, s: function(x, w, INT4_GROUP, s),
        x,
        expected[: point.rows],
    )


class Streaming:
    """Moving a block of memory that no cache holds.

    Args:
        nbytes: that one launch moves.
        move: enqueues it.
        right: whether it did.
    """

    def __init__(self, nbytes: int, move: Callable[[], object], right: Callable[[], bool]) -> None:
        self.copies, self.nbytes, self._move, self._right = 1, nbytes, move, right

    def launch(self, copy: int) -> None:  # noqa: ARG002
        """Enqueue it."""
        self._move()

    def error(self) -> float:
        """0, or NaN where the values are others."""
        return 0.0 if self._right() else float("nan")


def copying(point: Point, place: Place) -> Streaming:  # noqa: ARG001
    """A copy within the GPU's memory; what is read counts, and what is written."""
    source = _block(place.device)
    target = torch.zeros_like(source)
    return Streaming(
        2 * source.nbytes,
        lambda: target.copy_(source),
        lambda: bool(torch.equal(source, target)),
    )


def reading(point: Point, place: Place) -> Streaming:  # noqa: ARG001
    """Reading only, by a plain kernel of Triton."""
    from gpus.plain_kernels import READ, read

    source = _block(place.device)
    sums = torch.zeros(len(source) // READ, dtype=torch.int32, device=place.device)
    return Streaming(
        source.nbytes,
        lambda: read[(len(sums),)](source, sums, BLOCK=READ, num_warps=8),
        lambda: bool(torch.equal(sums, source.view(-1, READ).sum(1, dtype=torch.int32))),
    )


@lru_cache(maxsize=1)
def _block(device: str) -> Tensor:
    """int32 values whose sums are, too; random, because zeros may move faster."""
    count = (STREAMED if device != "cpu" else 1 << 16) // 4
    return torch.randint(-(2**17), 2**17, (count,), dtype=torch.int32, device=device)


@lru_cache(maxsize=1)
def _floats(point: Point) -> tuple[Floats, Floats]:
    """The weight in float16, and the product with it in float32."""
    rng = np.random.default_rng(point.seed)
    w = rng.standard_normal((point.n, point.k), np.float32) * np.float32(point.k**-0.5)
    half = w.astype(np.float16)
    return half, inputs(point).astype(np.float32) @ half.astype(np.float32).T


@lru_cache(maxsize=1)
def _codes(point: Point) -> tuple[NDArray[np.uint8], float, Floats]:
    """Codes ``[n, k]``, what one step is worth, and the product with (code - 8) x step."""
    codes = np.random.default_rng(point.seed).integers(0, 16, (point.n, point.k), np.uint8)
    step = float(torch.tensor(point.k**-0.5 / 4).to(torch.bfloat16))
    x = torch.from_numpy(inputs(point)).to(torch.bfloat16).float().numpy()
    return codes, step, x @ ((codes.astype(np.float32) - 8) * np.float32(step)).T
