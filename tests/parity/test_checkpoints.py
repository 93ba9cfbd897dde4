"""Trained checkpoints, where they lie beside the repository."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.parity.harness import NEW_TOKENS, TOLERANCE, Case, difference, transformers
from tests.parity.huggingface import open_oracle
from tests.parity.subject import Subject

Record = Callable[[str, object], None]

TRAINED = {
    "g2p-t5": Case("g2p", lambda f: (f, open_oracle(f, "T5ForConditionalGeneration"))),
    "lm-layerskip": Case("lm", lambda f: (f, open_oracle(f, "LlamaForCausalLM"))),
}


@pytest.fixture(scope="module", params=list(TRAINED))
def trained(
    request: pytest.FixtureRequest, shared: Path, tmp_path_factory: pytest.TempPathFactory
) -> Subject:
    folder = shared / "checkpoints" / request.param
    if not folder.is_dir():
        pytest.skip(f"needs the checkpoint {request.param}")
    case = TRAINED[request.param]
    checkpoint, oracle = case.write(folder)
    return Subject(case, tmp_path_factory.mktemp("trained"), checkpoint, oracle)


def test_logits(trained: Subject, record_property: Record) -> None:
    distance = difference(trained.by_steps(), trained.compared)
    record_property("family", trained.case.name)
    record_property("difference", distance)
    assert distance <= TOLERANCE
    assert difference(trained.reference(), trained.expected) <= TOLERANCE


@pytest.mark.parametrize("beams", [1, 4])
@pytest.mark.parametrize("stages", [None, "all"])
def test_tokens(trained: Subject, stages: str | None, beams: int) -> None:
    expected = trained.oracle.generate(trained.inputs, beams)
    results = trained.generator(stages).generate(
        trained.inputs, max_new_tokens=NEW_TOKENS, num_beams=beams
    )
    assert [result.tokens for result in results] == expected


def test_text(trained: Subject) -> None:
    """One text through tokenizer, model and back, against both halves of transformers."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(trained.checkpoint)
    texts = ["deployment", "a", "encoder"]
    rows = [tokenizer(text)["input_ids"] for text in texts]
    expected = trained.oracle.generate(rows, 1)
    results = trained.generator().generate(texts, max_new_tokens=NEW_TOKENS)
    assert [result.tokens for result in results] == expected
    texts = [tokenizer.decode(row, skip_special_tokens=True) for row in expected]
    assert [result.text for result in results] == texts
    assert np.unique([len(row) for row in rows]).size > 1
