"""Padded arrays hold every token once, and graphs are fed what they declare."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.quantize.graphs import llama, t5

from edgedec.quantize.text.batches import Batch, make_batches
from edgedec.quantize.text.samples import Sample

PAD, START = 0, 1
rows = st.lists(st.integers(2, 50), max_size=30).map(tuple)
pairs = st.lists(st.builds(Sample, rows, rows), min_size=1, max_size=20)
texts = st.lists(st.builds(Sample, st.none(), rows), min_size=1, max_size=20)


def unpadded(batch: Batch) -> list[tuple[Any, ...]]:
    """Source, decoder input and labels of every row."""
    found = []
    for i, mask in enumerate(batch.target_mask):
        source = None
        if batch.source is not None and batch.source_mask is not None:
            source = tuple(batch.source[i][batch.source_mask[i] == 1].tolist())
        both = [tuple(ids[i][mask].tolist()) for ids in (batch.target, batch.labels)]
        found.append((source, *both))
        assert (batch.target[i][~mask] == PAD).all()
    return found


@given(pairs, st.integers(1, 100))
def test_encoder_decoders(samples: list[Sample], tokens: int) -> None:
    usable = [s for s in samples if s.source and s.target]
    if not usable:
        with pytest.raises(ValueError, match="no sample has a token to predict"):
            make_batches(samples, pad=PAD, start=START, tokens=tokens)
        return
    batches = make_batches(samples, pad=PAD, start=START, tokens=tokens)
    found = [row for batch in batches for row in unpadded(batch)]
    expected = [(s.source, (START, *(s.target or ())[:-1]), s.target) for s in usable]
    assert sorted(found) == sorted(expected)
    for batch in batches:
        assert batch.source is not None
        assert max(batch.source.size, batch.target.size) <= tokens or len(batch.target) == 1
    assert sum(b.predictions for b in batches) == sum(len(s.target or ()) for s in usable)


@given(texts, st.randoms())
def test_decoder_only_models_in_any_order(samples: list[Sample], random: Any) -> None:
    usable = [s.target for s in samples if s.target is not None and len(s.target) > 1]
    if not usable:
        return
    batches = make_batches(samples, pad=PAD, start=None, tokens=50)
    found = [row for batch in batches for row in unpadded(batch)]
    assert sorted((t, label) for _, t, label in found) == sorted((t[:-1], t[1:]) for t in usable)
    assert all(batch.source is None and batch.source_mask is None for batch in batches)
    shuffled = [*samples]
    random.shuffle(shuffled)
    for one, other in zip(
        batches, make_batches(shuffled, pad=PAD, start=None, tokens=50), strict=True
    ):
        assert np.array_equal(one.target, other.target)
        assert np.array_equal(one.labels, other.labels)


def test_missing_sides() -> None:
    with pytest.raises(ValueError, match="has no target"):
        make_batches([Sample((3,), None)], pad=PAD, start=START)
    with pytest.raises(ValueError, match="has no source"):
        make_batches([Sample(None, (3,))], pad=PAD, start=START)


def test_feeds_are_what_graphs_declare() -> None:
    (batch,) = make_batches([Sample((4, 5, 6), (7, 8)), Sample((4,), (9,))], pad=PAD, start=START)
    encoder, decoder = t5().values()
    fed = batch.feeds(encoder.graph.inputs)
    assert {*fed} == {"input_ids", "attention_mask"}
    assert fed["input_ids"].tolist() == [[4, 0, 0], [4, 5, 6]]
    assert fed["attention_mask"].tolist() == [[1, 0, 0], [1, 1, 1]]
    assert (batch.mask(encoder.graph.inputs) == (fed["attention_mask"] == 1)).all()
    own = [v for v in decoder.graph.inputs if not str(v.name).startswith("cross.")]
    fed = batch.feeds(own)
    assert fed["input_ids"].tolist() == [[1, 0], [1, 7]]
    assert fed["logit_positions"].tolist() == [[0, 1], [0, 1]]
    assert fed["past_length"].tolist() == [0, 0]
    assert fed["past.1.self.key"].shape == (2, 2, 32)
    assert batch.mask(own).tolist() == [[True, False], [True, True]]
    with pytest.raises(ValueError, match=r"feed the graph's input 'cross\.0\.key'"):
        batch.feeds(decoder.graph.inputs)
    with pytest.raises(ValueError, match="input_ids"):
        make_batches([Sample(None, (3, 4))], pad=0, start=None)[0].feeds(encoder.graph.inputs)


def test_types_are_the_graphs() -> None:
    batch, *_ = make_batches([Sample(None, (4, 5, 6))], pad=PAD, start=None)
    for model in llama("all").values():
        inputs = [v for v in model.graph.inputs if v.name != "hidden"]
        for value in inputs:
            array = batch.feeds(inputs)[str(value.name)]
            assert value.dtype == ir.DataType.from_numpy(array.dtype)
            assert value.shape is not None
            assert array.ndim == len(value.shape)
