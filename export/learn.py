"""Choose codes for every matrix of a model, one set of inputs after the other."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgedec.devices.passes.embedding import Embedding, find_embeddings
from edgedec.devices.passes.linear import Linear, find_linears
from edgedec.errors import CheckpointError
from edgedec.export.route import Graphs
from edgedec.quantize.baselines.kmeans import check_matrix
from edgedec.quantize.codebook import CodebookTensor
from edgedec.quantize.fitting.objective import relative_error
from edgedec.quantize.matrices import Matrix
from edgedec.quantize.method import Array, Method, Quantized, Settings
from edgedec.quantize.pool import Pool
from edgedec.quantize.reporting.report import MatrixReport, matrix_report
from edgedec.quantize.statistics import Statistics
from edgedec.quantize.store import Store

Key = tuple[str, str]
"""A component and the name of an initializer in it."""
ENDS_RIDGE = 1.0
"""An embedding that is the head too: what the head's inputs weigh beside what every row's own
values do, which is 1 (a table's rows are read as they are)."""


Sites = Mapping[str, Sequence[Linear | Embedding]]
"""Component -> what there is to quantize in it, in the order of its graph."""


def find_sites(graphs: Graphs) -> Sites:
    """What there is to quantize in every component."""
    return {
        name: [*find_embeddings(model.graph), *find_linears(model.graph)]
        for name, model in graphs.items()
    }


def keys_of(sites: Sites) -> dict[int, Key]:
    """``id`` of a matrix -> its key: a trace may give one name in two graphs."""
    return {
        id(site.matrix): (component, site.matrix.name)
        for component, some in sites.items()
        for site in some
    }


@dataclass(frozen=True)
class Choice:
    """How one matrix is to be quantized."""

    bits: int
    method: Method


class Quantizer:
    """Quantizes matrices as they come, equal ends of a model once; remembers what came out.

    Args:
        keys: `keys_of` what will come.
        choices: key -> bits and method.
        settings: of the methods.
        ends: statistics of the head's inputs, for a table that is the head too.
        pool: threads.
        store: results of an earlier, interrupted run; gets those of this one. None: do not keep.
    """

    def __init__(
        self,
        keys: Mapping[int, Key],
        choices: Mapping[Key, Choice],
        settings: Settings,
        ends: Mapping[bytes, Statistics],
        pool: Pool,
        store: Store | None,
    ) -> None:
        self._keys, self._choices, self._settings = keys, choices, settings
        self._ends, self._pool, self._store = ends, pool, store
        self._by_values: dict[bytes, Quantized] = {}
        self.found: dict[Key, Quantized] = {}
        self.reports: dict[Key, MatrixReport] = {}

    @property
    def tensors(self) -> dict[Key, CodebookTensor]:
        """The codes of every matrix that has some."""
        return {key: q.tensor for key, q in self.found.items() if q.tensor is not None}

    def __call__(
        self, matrices: Sequence[Matrix], statistics: Statistics | None
    ) -> dict[str, Array]:
        """What matrices with common inputs become, by name; ``statistics`` None for a table."""
        new = [matrix for matrix in matrices if self._keys[id(matrix)] not in self.found]
        for matrix in [m for m in new if m.role != "linear"]:
            self._end(matrix, statistics)
        linear = [m for m in new if m.role == "linear"]
        for choice in dict.fromkeys(self._choice(m) for m in linear):
            self._quantize([m for m in linear if self._choice(m) == choice], choice, statistics)
        return {m.name: self.found[self._keys[id(m)]].dequantize() for m in matrices}

    def _choice(self, matrix: Matrix) -> Choice:
        return self._choices[self._keys[id(matrix)]]

    def _end(self, matrix: Matrix, statistics: Statistics | None) -> None:
        """An embedding or a head, which may be one and the same."""
        key = values_key(matrix)
        if key in self._by_values:
            self.found[self._keys[id(matrix)]] = self._by_values[key]
            return
        if statistics is None:
            statistics = of_table(matrix.columns, self._ends.get(key))
        (self._by_values[key],) = self._quantize([matrix], self._choice(matrix), statistics)

    def _quantize(
        self, matrices: Sequence[Matrix], choice: Choice, statistics: Statistics | None
    ) -> list[Quantized]:
        """Quantize, or take from the store, and note what came out."""
        if statistics is None:
            statistics = of_table(matrices[0].columns, None)
        names = ["/".join(self._keys[id(matrix)]) for matrix in matrices]
        weights = [_checked(matrix) for matrix in matrices]
        seconds = None
        kept = [self._store.load(name) if self._store is not None else None for name in names]
        found = [quantized for quantized in kept if quantized is not None]
        if len(found) < len(matrices):
            begin = time.perf_counter()
            found = choice.method.function(
                weights, statistics, choice.bits, self._settings, self._pool
            )
            for name, quantized in zip(names, found, strict=True):
                if self._store is not None:
                    self._store.save(name, quantized)
            seconds = (time.perf_counter() - begin) / len(matrices)
        for matrix, weight, quantized in zip(matrices, weights, found, strict=True):
            key = self._keys[id(matrix)]
            error = relative_error(quantized.dequantize(), weight, statistics.plain)
            self.found[key] = quantized
            self.reports[key] = matrix_report(
                matrix, quantized, choice.method.name, choice.bits, error, seconds
            )
        return found


def _checked(matrix: Matrix) -> Array:
    values = matrix.read()
    try:
        check_matrix(values)
    except ValueError as error:
        raise CheckpointError(f"{matrix.name!r} cannot be quantized: {error}.") from error
    return values


def values_key(matrix: Matrix) -> bytes:
    """The same for equal matrices, such as a tied embedding and head."""
    return hashlib.sha256(matrix.read().data).digest()


def of_table(columns: int, head: Statistics | None) -> Statistics:
    """Statistics of a table: every value counts the same; those of a head's inputs on top."""
    weights = np.eye(columns, dtype=np.float32)
    if head is not None:
        mean = float(np.trace(head.plain)) / columns
        if mean > 0:
            weights = head.plain / np.float32(mean) + np.float32(ENDS_RIDGE) * weights
    return Statistics(tokens=1, plain=weights, inputs=weights, drift=None)
