"""Measure a bundle for an NPU against the floating-point one: ``npu_cell.py TASK`` prints JSON.

The task says which bundles, which inputs (token ids), how many tokens, and which devices. What the
floating-point model chooses is fed to the others, which say at each token what they would have
chosen. Where all of it is the same, so is what they generate on their own; else they generate.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import NDArray

import edgedec
from edgedec.runtime.generator import Generator

Array = NDArray[np.float32]


@dataclass
class Sums:
    """What one device did, summed over inputs.

    Attributes:
        equal: tokens that are floating point's.
        squares: mean squared difference of logits, summed over tokens.
        same: whole answers that are floating point's.
        chosen: tokens, for comparing devices.
        texts: answers.
    """

    equal: int = 0
    squares: float = 0.0
    same: int = 0
    chosen: list[int] = field(default_factory=list)
    texts: list[str | None] = field(default_factory=list)


def main() -> None:
    """Read the task, print what was found."""
    task = json.loads(sys.argv[1])
    reference = edgedec.load(task["float"], threads=1)
    sources, new = task["sources"], task["new"]
    answers = reference.generate(sources, max_new_tokens=new, batch_size=1)
    wanted = [list(answer.tokens) for answer in answers]
    logits = [fed(reference, s, tokens) for s, tokens in zip(sources, wanted, strict=True)]
    found = {
        "tokens": sum(map(len, wanted)),
        "spread": sum(float(some.var(axis=1).sum()) for some in logits),
        "texts": [answer.text for answer in answers],
        "devices": {},
    }
    for name, device in task["devices"].items():
        generator = edgedec.load(task["bundle"], device=device, threads=1)
        sums = Sums()
        for source, answer, tokens, scores in zip(sources, answers, wanted, logits, strict=True):
            right = not task["unrolled"] and follow(generator, source, tokens, scores, sums)
            text = answer.text
            if not right:
                (own,) = generator.generate([source], max_new_tokens=new)
                right, text = list(own.tokens) == tokens, own.text
            sums.same += right
            sums.texts.append(text)
        found["devices"][name] = asdict(sums)
    print(json.dumps(found))


def follow(
    generator: Generator, source: list[int], tokens: list[int], original: Array, sums: Sums
) -> bool:
    """Feed what floating point chose; whether all choices are the same."""
    logits = fed(generator, source, tokens)
    chosen = logits.argmax(1)
    equal = int((chosen == original.argmax(1)).sum())
    sums.equal += equal
    sums.squares += float(((logits - original) ** 2).mean(axis=1).sum())
    sums.chosen += chosen.tolist()
    return equal == len(tokens)


def fed(generator: Generator, source: list[int], tokens: list[int]) -> Array:
    """Logits ``[n, vocab]`` before each of the tokens."""
    encodes = generator.bundle.manifest.encoder is not None
    start = generator.bundle.manifest.generation.decoder_start_token_id
    decoding = generator.start_decoding([source] if encodes else None, 1)
    pieces = [[start] if encodes else source, *([token] for token in tokens[:-1])]
    found = []
    for piece in pieces:
        output = decoding.step(np.array([piece], np.int64), want_logits=True)
        assert output.logits is not None
        found.append(output.logits[0].copy())
    return np.stack(found)


if __name__ == "__main__":
    main()
