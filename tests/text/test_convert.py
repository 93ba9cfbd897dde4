"""Which files of a checkpoint become its tokenizer, and what happens to files that cannot."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.text.conftest import TEXTS, train_sentencepiece

from edgedec.errors import BundleError, CheckpointError
from edgedec.export.sentencepiece import parse_sentencepiece
from edgedec.export.tokenizer import convert_tokenizer
from edgedec.runtime.text import Tokenizer


def test_a_tokenizer_json_is_taken_as_it_is(folder: Callable[..., Path], t5_model: bytes) -> None:
    model = {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}
    text = json.dumps({"version": "1.0", "model": model, "truncation": None}, indent=3)
    path = folder(tokenizer__json=text, spiece__model=t5_model, tokenizer_config__json="{ }")
    files = convert_tokenizer(path, {"model_type": "t5", "vocab_size": 2})
    assert files is not None
    assert files.tokenizer == text.encode()
    assert files.config == b"{ }"
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is the wrong tokenizer .* up to 1"):
        convert_tokenizer(path, {"vocab_size": 1})


def test_what_transformers_saves(
    folder: Callable[..., Path],
    t5_model: bytes,
    llama_model: bytes,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = folder(spiece__model=t5_model, tokenizer__model=llama_model)
    for kind in (transformers.T5Tokenizer, transformers.LlamaTokenizer):
        theirs: Any = kind.from_pretrained(path, add_bos_token=True)
        saved = tmp_path_factory.mktemp("saved")
        theirs(["long enough to be cut"], truncation=True, max_length=3)
        theirs.save_pretrained(saved)
        assert (saved / "tokenizer.json").exists()
        files = convert_tokenizer(saved, {"vocab_size": len(theirs)})
        assert files is not None
        assert files.config is not None
        ours = Tokenizer.from_bytes(files.tokenizer)
        assert ours.encode(TEXTS) == theirs(TEXTS)["input_ids"]


def test_ids_of_the_post_processor_count(folder: Callable[..., Path]) -> None:
    special = {"id": "</s>", "ids": [77], "tokens": ["</s>"]}
    template: dict[str, Any] = {"type": "TemplateProcessing", "special_tokens": {"</s>": special}}
    template["single"] = [
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": "</s>", "type_id": 0}},
    ]
    template["pair"] = [{"Sequence": {"id": name, "type_id": 0}} for name in "AB"]
    model = {"type": "BPE", "vocab": {"a": 0}, "merges": []}
    path = folder(tokenizer__json={"model": model, "post_processor": template})
    with pytest.raises(CheckpointError, match="ids go up to 77"):
        convert_tokenizer(path, {"vocab_size": 5})


def test_the_built_in_checkpoint(root: Path) -> None:
    path = root / "src" / "edgedec" / "checkpoints" / "g2p"
    config = json.loads((path / "config.json").read_text())
    files = convert_tokenizer(path, config)
    assert files is not None
    tokenizer = Tokenizer.from_bytes(files.tokenizer)
    (ids,) = tokenizer.encode(["deployment"])
    assert max(ids) < config["vocab_size"]


@pytest.mark.parametrize(
    ("files", "config", "reason"),
    [
        ({"tokenizer__json": "{"}, {}, r"tokenizer\.json is not a usable tokenizer"),
        ({"tokenizer__json": b"\xff\x00"}, {}, r"tokenizer\.json is not a usable tokenizer"),
        ({"vocab__txt": "a\n"}, {"model_type": "bart"}, r"vocab\.txt"),
        ({"tekken__json": {}}, {"model_type": "mistral"}, r"tekken\.json"),
        ({"spiece__model": b"x"}, {"tokenizer_class": "AlbertTokenizer"}, "class AlbertTokenizer"),
        ({"spiece__model": b"x"}, {"model_type": "xlnet"}, "class not named"),
        ({"spiece__model": b"garbage"}, {"model_type": "t5"}, "not an intact SentencePiece model"),
        ({"tokenizer__model": "IQ== 0\n"}, {"model_type": "llama"}, "not an intact SentencePiece"),
        ({"vocab__json": {}}, {"model_type": "xglm"}, r"vocab\.json"),
        ({"tokenizer_config__json": {"extra_ids": "x"}}, {"model_type": "t5"}, "extra_ids = 'x'"),
        ({"tokenizer_config__json": {"extra_ids": 1 << 60}}, {"model_type": "t5"}, "extra_ids = 1"),
    ],
)
def test_refusals(
    files: dict[str, Any],
    config: dict[str, Any],
    reason: str,
    folder: Callable[..., Path],
    t5_model: bytes,
) -> None:
    if "extra_ids" in reason:
        files = {**files, "spiece__model": t5_model}
    with pytest.raises(CheckpointError, match=reason) as raised:
        convert_tokenizer(folder(**files), config)
    assert "\n" not in str(raised.value)


def test_a_model_for_more_tokens_than_the_embedding_has(
    folder: Callable[..., Path], t5_model: bytes
) -> None:
    path = folder(spiece__model=t5_model)
    with pytest.raises(CheckpointError, match=r"spiece\.model is the wrong tokenizer"):
        convert_tokenizer(path, {"model_type": "t5", "vocab_size": 50})


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_damaged_models_end_in_one_sentence(
    data: st.DataObject, llama_model: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    damaged = bytearray(llama_model)
    # Most of the file is pieces; the settings are at its end.
    near_end = st.integers(max(0, len(damaged) - 300), len(damaged) - 1)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.one_of(st.integers(0, len(damaged) - 1), near_end))
        damaged[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged")
    length = data.draw(st.one_of(st.just(len(damaged)), st.integers(0, len(damaged))))
    (path / "tokenizer.model").write_bytes(damaged[:length])
    try:
        files = convert_tokenizer(path, {"model_type": "llama"})
        assert files is not None
        tokenizer = Tokenizer.from_bytes(files.tokenizer)
        for ids in tokenizer.encode(TEXTS):
            tokenizer.decode(ids)
    except (CheckpointError, BundleError) as error:
        assert "\n" not in str(error)  # noqa: PT017 - some damage does not matter


@settings(deadline=None)
@given(st.binary(max_size=400))
def test_random_bytes_are_no_model(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_sentencepiece(data)


@pytest.mark.parametrize(("family", "algorithm"), [("t5", "unigram"), ("llama", "bpe")])
def test_real_text(family: str, algorithm: str, shared: Path, folder: Callable[..., Path]) -> None:
    """Speeches, cut as SentencePiece cuts them."""
    speeches = shared / "data" / "text" / "speeches.txt.gz"
    if not speeches.exists():
        pytest.skip("needs the speeches of the shared data")
    with gzip.open(speeches, "rt", encoding="utf-8") as stream:
        lines = [line.strip() for _, line in zip(range(1200), stream, strict=False)]
    model = train_sentencepiece(lines[:200], model_type=algorithm, vocab_size=1500)
    files = {"t5": {"spiece__model": model}, "llama": {"tokenizer__model": model}}
    converted = convert_tokenizer(folder(**files[family]), {"model_type": family})
    assert converted is not None
    reference = sentencepiece.SentencePieceProcessor(model_proto=model)
    ours = Tokenizer.from_bytes(converted.tokenizer).encode(lines[200:])
    for text, ids in zip(lines[200:], ours, strict=True):
        assert (ids[:-1] if family == "t5" else ids[1:]) == reference.encode(text)
