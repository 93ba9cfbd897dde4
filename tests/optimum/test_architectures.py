"""Every architecture against transformers, through the runtime that runs all bundles."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import onnx
import pytest
from tests.optimum.conftest import Subject

import edgedec
from edgedec.runtime.generator import Generator

SOURCES, PROMPTS = (40, 5, 18), (17, 1, 9)


@pytest.fixture(scope="module")
def generator(subject: Subject) -> Generator:
    return edgedec.load(subject.bundle, threads=1)


@pytest.fixture(scope="module")
def original(subject: Subject, generator: Generator) -> Any:
    import transformers

    encodes = generator.bundle.manifest.encoder is not None
    kind = transformers.AutoModelForSeq2SeqLM if encodes else transformers.AutoModelForCausalLM
    return kind.from_pretrained(subject.checkpoint).eval()


def tokens(rng: np.random.Generator, *counts: int) -> list[list[int]]:
    return [rng.integers(4, 118, count).tolist() for count in counts]


def test_logits_at_unequal_lengths(generator: Generator, original: Any) -> None:
    """Prompts in one pass, then steps of one and of several tokens, far beyond the traced 16."""
    import torch

    rng = np.random.default_rng(1)
    encodes = generator.bundle.manifest.encoder is not None
    sources = tokens(rng, *SOURCES)
    prompts = tokens(rng, *((7, 7, 7) if encodes else PROMPTS))
    tail = rng.integers(4, 118, (3, 40))
    padded = np.full((3, max(map(len, prompts))), 9, np.int64)
    for row, prompt in enumerate(prompts):
        padded[row, : len(prompt)] = prompt
    decoding = generator.start_decoding(sources if encodes else None, 3)
    counts = np.array([len(p) for p in prompts])
    ours, ends = [], [0, *np.cumsum([1] * 20 + [4, 1, 7] + [1] * 8)]
    for begin, end in [(0, 0), *itertools.pairwise(ends)]:
        new = padded if end == 0 else np.ascontiguousarray(tail[:, begin:end])
        output = decoding.step(new, counts=counts if end == 0 else None, want_logits=True)
        assert output.logits is not None
        assert (output.next_token == output.logits.argmax(-1)).all()
        ours.append(output.logits.copy())
    for row, prompt in enumerate(prompts):
        target = torch.tensor([prompt + tail[row].tolist()])
        with torch.no_grad():
            if encodes:
                source = torch.tensor([sources[row]])
                output = original(input_ids=source, decoder_input_ids=target, use_cache=False)
            else:
                output = original(input_ids=target, use_cache=False)
        theirs = output.logits[0].numpy()
        scored = theirs[len(prompt) - 1 + np.array(ends)]
        difference = np.abs(np.stack([step[row] for step in ours]) - scored).max()
        assert difference <= 2e-4 * (theirs.max() - theirs.min())


@pytest.mark.parametrize("beams", [1, 4])
def test_tokens_of_a_padded_batch(generator: Generator, original: Any, beams: int) -> None:
    import torch

    rng = np.random.default_rng(2)
    encodes = generator.bundle.manifest.encoder is not None
    rows = tokens(rng, *(SOURCES if encodes else PROMPTS))
    options: dict[str, Any] = {"max_new_tokens": 24, "num_beams": beams}
    longest = max(map(len, rows))
    fill = [[1] * (longest - len(row)) for row in rows]
    seen = [[1] * len(row) for row in rows]
    hidden = [[0] * len(f) for f in fill]
    if encodes:
        batch = [row + f for row, f in zip(rows, fill, strict=True)]
        mask = [s + h for s, h in zip(seen, hidden, strict=True)]
    else:
        batch = [f + row for row, f in zip(rows, fill, strict=True)]
        mask = [h + s for s, h in zip(seen, hidden, strict=True)]
    output = original.generate(
        input_ids=torch.tensor(batch), attention_mask=torch.tensor(mask), do_sample=False, **options
    )
    theirs = [row[(1 if encodes else longest) :].tolist() for row in output]
    ours = [result.tokens for result in generator.generate(rows, **options)]
    assert ours == [row[: row.index(2) + 1] if 2 in row else row for row in theirs]


def test_the_bundle_is_like_any_other(subject: Subject) -> None:
    manifest = json.loads((subject.bundle / "edgedec.json").read_text(encoding="utf-8"))
    assert manifest["model"]["route"] == "optimum"
    assert manifest["verified"]["max_abs_difference"] < 2e-4 * manifest["verified"]["logit_range"]
    for component in manifest["components"].values():
        model = onnx.load(subject.bundle / component["file"], load_external_data=False)
        assert {o.domain: o.version for o in model.opset_import} == {"": 24}
        assert not {node.op_type for node in model.graph.node} & {"If", "Loop", "Scan"}
        assert b"site-packages" not in model.SerializeToString()
    weights = (subject.bundle / "weights.bin").stat().st_size
    # Masks and sinusoids that no checkpoint stores make up the difference.
    assert weights < (subject.checkpoint / "model.safetensors").stat().st_size + 32768
