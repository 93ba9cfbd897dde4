"""Measure one bundle for an NPU against the floating-point one: ``npu_cell.py TASK``, prints JSON.

The task says which bundles, which inputs (token ids), how many tokens, and which devices. What the
floating-point model chooses is fed to the others, which say at each token what they would have
chosen (agreement); then all generate on their own (same answers, and texts for word errors).
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

import edgedec
from edgedec.runtime.generator import Generator

Array = NDArray[np.float32]


def main() -> None:
    """Read the task, print what was found."""
    task = json.loads(sys.argv[1])
    reference = edgedec.load(task["float"], threads=1)
    sources, new = task["sources"], task["new"]
    results = reference.generate(sources, max_new_tokens=new, batch_size=1)
    wanted = [result.tokens for result in results]
    probed = range(min(task["probed"], len(sources)))
    original = [fed(reference, sources[i], wanted[i]) for i in probed]
    found: dict[str, Any] = {"texts": {"float": [result.text for result in results]}}
    chosen = {"float": [o.argmax(1) for o in original]}
    for name, device in task["devices"].items():
        generator = edgedec.load(task["bundle"], device=device, threads=1)
        if not task["unrolled"]:
            begin = time.perf_counter()
            logits = [fed(generator, sources[i], wanted[i]) for i in probed]
            print(f"{name}: {time.perf_counter() - begin:.0f} s", file=sys.stderr)
            chosen[name] = [o.argmax(1) for o in logits]
            found[f"{name}_error"] = error(original, logits)
        if name not in task["free"]:
            continue
        answers = generator.generate(sources, max_new_tokens=new, batch_size=1)
        found["texts"][name] = [answer.text for answer in answers]
        same = [answer.tokens == tokens for answer, tokens in zip(answers, wanted, strict=True)]
        found[f"{name}_same"] = float(np.mean(same))
    tokens = {name: np.concatenate(rows) for name, rows in chosen.items()}
    found["tokens"] = len(tokens["float"])
    for name in chosen.keys() - {"float"}:
        found[name] = float((tokens[name] == tokens["float"]).mean())
    if {"device", "cpu"} <= tokens.keys():
        found["device_cpu"] = float((tokens["device"] == tokens["cpu"]).mean())
    print(json.dumps(found))


def fed(generator: Generator, source: list[int], tokens: list[int]) -> Array:
    """Logits ``[n, vocab]`` before each of the tokens, all of which are fed."""
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


def error(original: list[Array], changed: list[Array]) -> float:
    """Root mean square of the logits' differences, by the spread of the original's."""
    squares = [float(((c - o) ** 2).mean()) for c, o in zip(changed, original, strict=True)]
    spread = [float(o.var(axis=1).mean()) for o in original]
    return float(np.sqrt(np.mean(squares) / np.mean(spread)))


if __name__ == "__main__":
    main()
