"""Bytes that tokens read: counted from graphs, and put together by a formula."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.depth.models import LAYERS, VOCAB, WIDTH, make
from tests.profiling.profiles import FACTS, sample

from edgedec.export import export_checkpoint
from edgedec.runtime.bundle import Bundle, open_bundle
from edgedec.runtime.profiling.facts import facts
from edgedec.runtime.profiling.record import BundleFacts, Sample
from edgedec.runtime.profiling.traffic import read_bytes_per_token, step_weights

FLOAT = 4
SMALL = 512
"""Bytes of constants that shapes and indices are computed with, in one graph."""
D, FF, TOKENS, G2P_LAYERS = 192, 512, 102, 4
"""Sizes of g2p."""
LAYER = (4 * D * D + 2 * D * D + 3 * D * FF + 3 * D) * FLOAT
"""Self-attention, cross-attention's query and output (keys and values are the encoder's), a gated
feed-forward, and three norms."""
HEAD = (TOKENS * D + D) * FLOAT
TABLE = 3 * 66 * FLOAT
"""Relative biases by distance."""


@pytest.fixture(scope="session")
def fp16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from edgedec.builtin import builtin_checkpoint

    checkpoint = builtin_checkpoint("g2p")
    assert checkpoint is not None
    out = tmp_path_factory.mktemp("fp16") / "g2p"
    return export_checkpoint(checkpoint, out, dtype="fp16", verify=False)


@pytest.fixture(scope="session")
def decoder_only(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Stages, variants, routers and a head that is not the embedding."""
    return make("qwen", tmp_path_factory.mktemp("traffic") / "qwen").bundle


@pytest.fixture
def coded(root: Path) -> Bundle:
    return open_bundle(root / "tests" / "data" / "bundle-v1-codes")


def test_a_whole_decoder_reads_its_weights_once(g2p: str) -> None:
    (name, found), *others = step_weights(open_bundle(g2p)).items()
    assert (name, others) == ("decoder", [])
    # The embedding's row is part of the head, which is tied and read whole.
    expected = G2P_LAYERS * LAYER + HEAD + TABLE
    assert expected <= found <= expected + SMALL


def test_stages_and_head_share_it_out(staged_g2p: Path) -> None:
    found = step_weights(open_bundle(staged_g2p))
    *stages, head = found.values()
    assert list(found)[-1] == "head"
    assert len(stages) == G2P_LAYERS
    for size in stages:
        assert LAYER <= size <= LAYER + TABLE + SMALL
    assert HEAD <= head <= HEAD + SMALL


def test_weights_of_16_bits_are_read_as_what_they_become(g2p: str, fp16: Path) -> None:
    # Graphs convert them to float32, which a runtime does once, when it opens them.
    (plain,), (half,) = (step_weights(open_bundle(b)).values() for b in (g2p, fp16))
    assert abs(plain - half) <= SMALL


def test_an_embedding_that_is_not_the_head_costs_a_row(decoder_only: Bundle) -> None:
    found = step_weights(decoder_only)
    stages = [stage.component for stage in decoder_only.manifest.stages]
    assert list(found) == [*stages, "head"]
    assert found["head"] >= VOCAB * WIDTH * FLOAT
    # the same layer without and with an embedding before it
    graph = onnx.load(
        str(decoder_only.path(decoder_only.manifest.components[stages[0]].file)),
        load_external_data=False,
    ).graph
    whole = sum(_bytes(tensor) for tensor in graph.initializer)
    assert found[stages[0]] == whole - (VOCAB - 1) * WIDTH * FLOAT


def test_codes_are_read_as_they_are_packed(coded: Bundle) -> None:
    assert coded.manifest.codebooks is not None
    matrices = coded.manifest.codebooks.matrices["decoder"].values()
    (found,) = step_weights(coded).values()
    graph = onnx.load(str(coded.path("decoder.onnx")), load_external_data=False).graph
    stored = sum(_bytes(tensor) for tensor in graph.initializer)
    # of the tied embedding, one matrix counts
    codes = sum(m.rows * m.columns * m.bits / 8 + m.rows * FLOAT for m in matrices)
    embedding = [m for m in matrices if any("embed" in part.name for part in m.parts)]
    twice = sum(m.rows * m.columns * m.bits / 8 + m.rows * FLOAT for m in embedding[1:])
    assert codes - twice <= found <= stored


def altered(bundle: Bundle, folder: Path, change: Callable[[onnx.GraphProto], object]) -> Bundle:
    """The bundle with another decoder; only its graph is there."""
    model = onnx.load(str(bundle.path("decoder.onnx")), load_external_data=False)
    change(model.graph)
    (folder / "decoder.onnx").write_bytes(model.SerializeToString())
    return Bundle(folder, bundle.manifest)


def without_head(graph: onnx.GraphProto) -> None:
    (head,) = (node for node in graph.node if node.name == "head")
    graph.node.remove(head)


def test_of_an_embedding_of_codes_a_row_is_read(coded: Bundle, tmp_path: Path) -> None:
    def only_embedding(graph: onnx.GraphProto) -> None:
        (node,) = (node for node in graph.node if node.op_type == "CodebookGather")
        del graph.node[:]
        graph.node.append(node)

    alone = altered(coded, tmp_path, only_embedding)
    graph = onnx.load(str(alone.path("decoder.onnx")), load_external_data=False).graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    codes, levels, _, groups = (stored[name] for name in graph.node[0].input[1:])
    rows = 64 * codes.dims[0]  # of which each panel has 64, and each 16 one table
    row = _bytes(codes) // rows + _bytes(levels) // levels.dims[0] + FLOAT
    assert step_weights(alone) == {"decoder": row + _bytes(groups) // (rows // 16)}


def test_a_row_of_16_bits_is_read_as_what_it_becomes(fp16: Path, tmp_path: Path) -> None:
    bundle = open_bundle(fp16)
    (whole,) = step_weights(bundle).values()
    (found,) = step_weights(altered(bundle, tmp_path, without_head)).values()
    assert found == whole - (TOKENS - 1) * D * FLOAT


def test_the_order_of_nodes_does_not_matter(g2p: str, tmp_path: Path) -> None:
    def turned(graph: onnx.GraphProto) -> None:
        nodes = list(reversed(graph.node))
        del graph.node[:]
        graph.node.extend(nodes)

    bundle = open_bundle(g2p)
    assert step_weights(altered(bundle, tmp_path, turned)) == step_weights(bundle)


def test_codes_take_less_than_floats(coded: Bundle, root: Path) -> None:
    plain = open_bundle(root / "tests" / "data" / "bundle-v1")
    assert sum(step_weights(coded).values()) < sum(step_weights(plain).values())


def test_no_step_reads_more_than_there_is(
    g2p: str, staged_g2p: Path, decoder_only: Bundle, coded: Bundle
) -> None:
    for bundle in (open_bundle(g2p), open_bundle(staged_g2p), decoder_only, coded):
        files = bundle.manifest.files
        graphs = {component.file for component in bundle.manifest.components.values()}
        small = sum(files[name].bytes for name in graphs)  # what is not worth a place outside
        found = step_weights(bundle)
        assert all(size > 0 for size in found.values())
        assert sum(found.values()) <= files["weights.bin"].bytes + small


def test_facts_are_the_bundles(staged_g2p: Path) -> None:
    bundle = open_bundle(staged_g2p)
    found = facts(bundle)
    sizes = {path.name: path.stat().st_size for path in staged_g2p.iterdir()}
    weights = step_weights(bundle)
    assert found == BundleFacts(
        sha256=hashlib.sha256((staged_g2p / "edgedec.json").read_bytes()).hexdigest(),
        source="g2p",
        producer=bundle.manifest.producer,
        architecture="encoder-decoder",
        precision="fp32",
        compute=None,
        parameters=bundle.manifest.parameters,
        file_bytes=sum(sizes.values()) - sizes["edgedec.json"],
        weight_bytes=sum(n for name, n in sizes.items() if name.endswith((".onnx", ".bin"))),
        encoder_layers=4,
        decoder_layers=G2P_LAYERS,
        d_model=D,
        vocab_size=TOKENS,
        stages=G2P_LAYERS,
        step_bytes=sum(weights.values()),
        head_bytes=weights["head"],
        kv_width=D,
    )


def test_facts_of_a_decoder_only_model(decoder_only: Bundle) -> None:
    found = facts(decoder_only)
    assert (found.architecture, found.encoder_layers) == ("decoder-only", None)
    assert (found.decoder_layers, found.kv_width) == (LAYERS, 16)


def test_facts_of_codes(coded: Bundle) -> None:
    found = facts(coded)
    assert (found.precision, found.compute) == ("cb4", "fp32")
    assert found.step_bytes is None or found.step_bytes == sum(step_weights(coded).values())


def test_what_function_bodies_read_is_not_known(coded: Bundle, no_library: None) -> None:
    # They unpack codes to float32 when the graph is opened.
    found = facts(coded)
    assert (found.step_bytes, found.head_bytes) == (None, None)


def request(
    *, batch: int = 1, source: int = 10, new: int = 5, layers: float = 3.0, drafted: bool = False
) -> Sample:
    """A batch of equal requests."""
    return replace(
        sample(20.0, steps=new),
        inputs=batch,
        source_tokens=batch * source,
        new_tokens=batch * new,
        steps=new - 1,
        mean_layers=layers,
        drafted=8 if drafted else None,
        accepted=4 if drafted else None,
    )


ONE = replace(FACTS, step_bytes=6_000, head_bytes=1_500, kv_width=256, decoder_layers=3)
"""A decoder of three layers of 1,500 bytes each, behind an encoder."""
ALONE = replace(ONE, architecture="decoder-only", encoder_layers=None)


def counted(facts: BundleFacts, what: Sample) -> float:
    """Bytes for each token after the first, added up step by step and row by row."""
    assert facts.step_bytes is not None
    assert facts.head_bytes is not None
    assert facts.kv_width is not None
    assert what.mean_layers is not None
    assert what.steps is not None
    source = what.source_tokens // what.inputs
    remembered, positions = (source, 1) if facts.encoder_layers is not None else (0, source)
    layer = (facts.step_bytes - facts.head_bytes) / facts.decoder_layers
    total = 0.0
    for _ in range(what.steps):
        positions += 1  # this step's token sees itself
        total += facts.head_bytes + what.mean_layers * layer
        for _ in range(what.inputs):
            total += what.mean_layers * (positions + remembered) * 2 * facts.kv_width * FLOAT
    return total / (what.new_tokens - what.inputs)


@given(
    facts=st.sampled_from([ONE, ALONE]),
    batch=st.integers(1, 9),
    source=st.integers(1, 600),
    new=st.integers(2, 300),
    layers=st.floats(0.5, 3),
)
def test_the_formula_is_the_sum_over_steps(
    facts: BundleFacts, batch: int, source: int, new: int, layers: float
) -> None:
    what = request(batch=batch, source=source, new=new, layers=layers)
    assert read_bytes_per_token(what, facts) == pytest.approx(counted(facts, what))


def test_inputs_that_are_taken_one_by_one_share_no_weights() -> None:
    together = request(batch=4, new=5)
    apart = replace(together, steps=4 * 4)
    single = read_bytes_per_token(request(new=5), ONE)
    assert read_bytes_per_token(apart, ONE) == single
    assert single is not None
    assert read_bytes_per_token(together, ONE) == pytest.approx(single - 6_000 * 3 / 4)


def test_what_is_not_known_is_none() -> None:
    plain = request()
    assert read_bytes_per_token(plain, ONE) is not None
    assert read_bytes_per_token(request(drafted=True), ONE) is None
    assert read_bytes_per_token(request(new=1), ONE) is None
    assert read_bytes_per_token(replace(plain, mean_layers=None), ONE) is None
    assert read_bytes_per_token(replace(plain, steps=None), ONE) is None
    for lacking in ("step_bytes", "head_bytes", "kv_width"):
        without = replace(ONE, **{lacking: None})  # type: ignore[arg-type]
        assert read_bytes_per_token(plain, without) is None


def _bytes(tensor: onnx.TensorProto) -> int:
    kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    return int(math.prod(tensor.dims) * kind.itemsize)
