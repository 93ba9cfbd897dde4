"""Threads for work that is cut the same way however many there are, so that results are too."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

ROWS = 256
"""Rows of one piece of a product."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class Pool:
    """Some threads, and BLAS with one thread in each: a context manager.

    BLAS sums in another order when it has more threads; a piece of work that one thread does is the
    same to the last bit whoever does it.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._limits = threadpool_limits(1, user_api="blas")
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="quantize")

    def __enter__(self) -> Pool:  # noqa: PYI034 - Self came with Python 3.11
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._executor.shutdown(cancel_futures=True)
        self._limits.restore_original_limits()

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """``function`` of every item, in order."""
        return list(self._executor.map(function, items))

    def product(self, left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float32]:
        """``left [M, K] @ right [K, N]``, float32."""
        result = np.empty((len(left), right.shape[1]), np.float32)

        def piece(start: int) -> None:
            rows = slice(start, start + ROWS)
            np.matmul(left[rows], right, out=result[rows])

        self.map(piece, range(0, len(left), ROWS))
        return result
