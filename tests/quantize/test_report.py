"""Reports: their sums, their JSON, and the tables made of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.quantize.reports import comparison, report

from edgedec.errors import InputError
from edgedec.quantize.baselines.kmeans import kmeans
from edgedec.quantize.baselines.nearest import round_to_nearest
from edgedec.quantize.codebook import CodebookTensor
from edgedec.quantize.matrices import Matrix
from edgedec.quantize.method import Quantized, Settings
from edgedec.quantize.options import QuantizeOptions
from edgedec.quantize.reporting import tables
from edgedec.quantize.reporting.kinds import by_kind, kind_of, layer_of
from edgedec.quantize.reporting.report import (
    QuantizationReport,
    codebook_use,
    from_json,
    matrix_report,
    to_json,
)
from edgedec.runtime.schema import json_schema


def weights(rows: int = 72, columns: int = 20) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(0).standard_normal((rows, columns), np.float32)


def matrix(values: np.ndarray[Any, np.dtype[np.float32]]) -> Matrix:
    stored = ir.Value(name="decoder.0.mlp.up.weight", const_value=ir.Tensor(values))
    return Matrix(stored, transposed=False, role="linear")


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_codebook_use_counts_every_weight(bits: int) -> None:
    tensor = kmeans(weights(), bits, 32)
    uses = codebook_use(tensor)
    assert len(uses) == 3
    rows = [int((tensor.group_of_row == group).sum()) for group in range(3)]
    assert [sum(use.counts) for use in uses] == [20 * n for n in rows]
    for group, use in enumerate(uses):
        assert list(use.levels) == sorted(use.levels)
        assert max(map(abs, use.levels)) == 63
        # The smallest level's count is that of the code which stands for it.
        code = tensor.codebooks[group].argmin()
        assert use.counts[0] == (tensor.codes[tensor.group_of_row == group] == code).sum()


def test_codebook_use_of_unsorted_levels_and_rows_out_of_order() -> None:
    codes = np.zeros((32, 3), np.uint8)
    codes[16:] = [[0, 3, 3]] * 16
    books = np.array([[0.9, -0.1, 0, 0.3], [0.5, 0, -1, -0.5]], np.float32)
    groups = np.repeat(np.array([1, 0], np.uint16), 16)
    order = np.arange(32, dtype=np.int32)[::-1].copy()
    tensor = CodebookTensor(codes, books, np.ones(32, np.float32), groups, 2, order)
    first, second = codebook_use(tensor)
    assert (first.levels, first.counts) == ((-7, 0, 21, 63), (0, 0, 32, 16))
    assert (second.levels, second.counts) == ((-63, -32, 0, 32), (0, 0, 0, 48))


def test_codebook_use_of_eight_bits_is_coarse() -> None:
    (use,) = codebook_use(round_to_nearest(weights()))
    assert len(use.levels) == len(use.counts) == 32
    assert sum(use.counts) == 72 * 20
    assert (use.levels[0], use.levels[-1]) == (-124, 124)
    assert use.counts[-1] > 0  # each row reaches 127


def test_a_matrix_with_codes_and_one_without() -> None:
    values = weights()
    tensor = kmeans(values, 3)
    found = matrix_report(
        matrix(values), Quantized(tensor, None, 3.25, (0.5, 0.4, 0.3)), "jlcm", 3, 0.1, 2.0
    )
    assert (found.name, found.rows, found.columns) == ("decoder.0.mlp.up.weight", 72, 20)
    assert (found.bits, found.bytes, found.bits_per_weight) == (3, 585, 3.25)
    assert (found.objective_start, found.objective_end) == (0.5, 0.3)
    assert sum(sum(use.counts) for use in found.codebooks) == 1440
    other = matrix_report(matrix(values), Quantized(None, values, 3.5), "b32", 3, 0.1, None)
    assert (other.bits, other.bytes, other.codebooks, other.objective_end) == (3, 630, (), None)


@given(st.integers(1, 10**6), st.integers(1, 1 << 17), st.integers(0, 10**9))
def test_bytes_survive_the_division(rows: int, columns: int, size: int) -> None:
    """What is stored is whole bytes; bits per weight is a quotient that may be off at its end."""
    stored = ir.Value(name="w", type=ir.TensorType(ir.DataType.FLOAT))

    class Shaped(Matrix):
        @property
        def _shape(self) -> tuple[int, ...]:
            return rows, columns

    bits = 8 * size / (rows * columns)
    found = matrix_report(
        Shaped(stored, transposed=False, role="head"),
        Quantized(None, np.zeros((1, 1), np.float32), bits), "m", 4, 0.0, None,
    )  # fmt: skip
    assert found.bytes == size


def test_totals_are_sums() -> None:
    some = report(["a.weight", "b.weight"], mixed=False)
    totals = some.totals()
    sizes = [m.rows * m.columns for m in some.matrices]
    assert (totals.matrices, totals.weights) == (3, sum(sizes))
    assert totals.bytes == sum(m.bytes for m in some.matrices)
    assert totals.bits_per_weight == 8 * totals.bytes / sum(sizes)
    assert totals.objective_start == 0.25 + 0.25 + 1 / 16  # none of the 8-bit matrix
    assert totals.objective_end == totals.objective_start - 0.25
    none = replace(some, matrices=some.matrices[-1:]).totals()
    assert (none.objective_start, none.objective_end) == (None, None)


def test_json_comes_back() -> None:
    some = report()
    text = to_json(some)
    again = from_json(text)
    assert to_json(again) == text
    assert [m.codebooks for m in again.matrices] == [m.codebooks for m in some.matrices]
    assert again.agreements[0].kl == 0.00123456
    value = json.loads(text)
    assert value.pop("schema_version") == 1
    assert value.pop("totals")["bytes"] == some.totals().bytes
    jsonschema.validate(value, json_schema(QuantizationReport))


def test_json_keeps_strings_that_look_like_lists() -> None:
    some = replace(report(), source="[\n 1,\n 2\n]")
    assert from_json(to_json(some)).source == some.source
    assert "-124, -116" in to_json(some)  # a list of integers is one line


def test_json_of_other_versions_and_things() -> None:
    text = to_json(report())
    for bad in (
        text.replace('"schema_version": 1', '"schema_version": 2'),
        to_json(comparison()),
        "[]",
        "{}",
        text[:-9],
    ):
        with pytest.raises(ValueError):  # noqa: PT011 - of several modules
            from_json(bad)


def test_a_bundle_says_nothing_of_time() -> None:
    slow, fast = report(), report()
    fast = replace(
        fast,
        seconds=1.0,
        matrices=tuple(replace(m, seconds=9.0) for m in fast.matrices),
    )
    assert to_json(slow) != to_json(fast)
    assert to_json(slow.without_times()) == to_json(fast.without_times())


@pytest.mark.parametrize(
    ("name", "kind", "layer"),
    [
        ("decoder.3.self_attn.q.weight", "decoder.*.self_attn.q", 3),
        ("head.weight", "head", None),
        ("/model/layers.12/attn.0/MatMul.weight", "/model/layers.*/attn.0/MatMul", 12),
        ("onnx::MatMul_123", "onnx::MatMul_123", None),
        ("3.weight", "*", 3),
        ("layer10.weight", "layer10", None),
        ("", "", None),
    ],
)
def test_kinds(name: str, kind: str, layer: int | None) -> None:
    assert (kind_of(name), layer_of(name)) == (kind, layer)


def test_kinds_keep_the_order_of_the_model() -> None:
    kinds = by_kind(report().matrices)
    assert list(kinds)[:2] == ["encoder.*.self_attn.q", "encoder.*.self_attn.o"]
    assert list(kinds)[-1] == "head"
    assert sum(map(len, kinds.values())) == len(report().matrices)


def test_tables() -> None:
    some = report()
    for rows in (
        tables.kinds(some),
        tables.matrices(some),
        tables.agreements(some),
        tables.task(some.task) if some.task else [],
        tables.comparison(comparison()),
    ):
        assert len({len(row) for row in rows}) == 1
    (head, first, *_, last) = tables.kinds(some)
    assert first[head.index("count")] == "3"
    assert first[head.index("rows")] == "64 to 72"
    assert first[head.index("bits")] == "2, 3 or 4"
    assert last[head.index("bits")] == "8"
    assert ["train.tsv", "8,192", "0.001235", "98.77%", "22.2", "23.34"] in tables.agreements(some)
    assert ["test.tsv", "2,345", "0.0023", "97.00%", "-", "-"] in tables.agreements(some)
    assert ["WER (lower is better)", "51.26 %", "52.73 %"] in tables.task(some.task)  # type: ignore[arg-type]
    assert len(tables.matrices(some)) == 1 + len(some.matrices)
    (_, plain, *_) = tables.comparison(comparison())
    assert plain == ["float32", "32.000", "0", "0", "100.00%", "22.2", "61.50 %", "-", "yes"]


def test_tables_show_no_control_characters() -> None:
    rows = tables.matrices(report(["evil\x1b[2J\n.weight"]))
    assert rows[1][0] == "evil?[2J?.weight"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"bits": 5}, "--bits 5"),
        ({"bits": "mixed"}, "needs --budget"),
        ({"bits": 4, "budget": 3.2}, "--budget is for --bits mixed"),
        ({"bits": "mixed", "budget": 2.0}, "above 2"),
        ({"bits": "mixed", "budget": float("nan")}, "above 2"),
        ({"embedding_bits": 3}, "--embedding-bits 3"),
        ({"tokens": 0}, "--tokens 0"),
        ({"threads": 0}, "--threads 0"),
        ({"settings": Settings(groups=0)}, "--groups 0"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        QuantizeOptions(**options)


def test_options_that_can_be() -> None:
    QuantizeOptions()
    QuantizeOptions(bits="mixed", budget=3.2, embedding_bits=8, calibration=Path("x"))
