"""What codes cost: the quality of a model in every weight format and compute mode.

Word errors of g2p on the test split of CMUdict, and the perplexity of a decoder-only checkpoint on
a text. Both need data that is not in the repository:

    python benchmarks/quality.py --dictionary cmudict.txt.gz --checkpoint lm --text heldout.txt.gz
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

import edgedec
from edgedec.builtin import builtin_checkpoint

ROOT = Path(__file__).resolve().parent.parent
FORMATS = [
    (None, None),
    *(("int8", compute) for compute in ("fp32", "bf16", "int8-block", "int8")),
    *(("cb4", compute) for compute in ("fp32", "bf16", "int8-block", "int8")),
    ("cb3", "int8"),
    ("cb2", "int8"),
]
ROWS, WINDOW = 64, 192
"""Sequences of the perplexity, and their tokens; the first has no probability."""


def bundles(
    checkpoint: Path, folder: Path, formats: Sequence[str], text: Path | None
) -> Iterator[tuple[str, str, Path]]:
    """A checkpoint in every format: the format, how products are computed, the bundle."""
    for quant, compute in FORMATS:
        if (quant or "float32") not in formats:
            continue
        out = folder / f"{quant}-{compute}"
        if quant is None:
            edgedec.export(checkpoint, out, verify=False)
        else:
            calibration = None if quant == "int8" else text
            how = {"quant": quant, "compute": compute, "calibration": calibration}
            edgedec.export(checkpoint, out, **how, verify=False)
        yield quant or "float32", compute or "float32", out


def word_errors(bundle: Path, dictionary: Path) -> dict[str, float]:
    """Of the test words, greedy, as `examples/g2p` counts them."""
    sys.path.insert(0, str(ROOT / "examples"))
    from g2p.data import load_split
    from g2p.metrics import score

    split = load_split(dictionary)
    generator = edgedec.load(bundle)
    results = generator.generate(list(split.test), batch_size=64, max_new_tokens=40)
    rates = score([result.text or "" for result in results], list(split.test.values()))
    return {"word_error": rates.word_error_rate, "phoneme_error": rates.phoneme_error_rate}


def perplexity(bundle: Path, text: Path, skip: int) -> dict[str, float]:
    """Of the first `ROWS` windows of a text after ``skip`` bytes, token by token."""
    from edgedec.runtime.text import Tokenizer

    tokenizer = Tokenizer.open(bundle / "tokenizer.json")
    words = gzip.decompress(text.read_bytes())[skip : skip + 20 * ROWS * WINDOW].decode(
        "utf-8", "ignore"
    )
    tokens = np.array(tokenizer.encode([words])[0][: ROWS * WINDOW]).reshape(ROWS, WINDOW)
    decoding = edgedec.load(bundle).start_decoding(None, ROWS)
    total = 0.0
    for i in range(WINDOW - 1):
        step = np.ascontiguousarray(tokens[:, i : i + 1])
        output = decoding.step(step, want_logits=True)
        assert output.logits is not None
        logits = output.logits.astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        chosen = logits[np.arange(ROWS), tokens[:, i + 1]]
        total += float((np.log(np.exp(logits).sum(axis=1)) - chosen).sum())
    return {"perplexity": float(np.exp(total / (ROWS * (WINDOW - 1))))}


def main() -> None:
    """Print a table, or with ``--json`` a list of results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dictionary", type=Path, required=True, help="CMUdict, gzipped")
    parser.add_argument("--checkpoint", type=Path, required=True, help="a decoder-only model")
    parser.add_argument("--text", type=Path, required=True, help="gzipped text for it")
    parser.add_argument("--skip", type=int, default=200_000, help="of its bytes: calibrates")
    names = list(dict.fromkeys(quant or "float32" for quant, _ in FORMATS))
    parser.add_argument("--format", nargs="+", choices=names, default=names)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    g2p = builtin_checkpoint("g2p")
    assert g2p is not None
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        head = Path(scratch) / "head.txt"  # what is skipped is what codes are learned from
        head.write_bytes(gzip.decompress(options.text.read_bytes())[: options.skip])
        head.write_text(head.read_text("utf-8", "ignore"), "utf-8")
        pairs = zip(
            bundles(g2p, Path(scratch) / "g2p", options.format, None),
            bundles(options.checkpoint, Path(scratch) / "lm", options.format, head),
            strict=True,
        )
        for (quant, compute, words), (_, _, lm) in pairs:
            result = {
                "format": quant,
                "compute": compute,
                "megabytes": (words / "weights.bin").stat().st_size / 1e6,
                **word_errors(words, options.dictionary),
                **perplexity(lm, options.text, options.skip),
            }
            found.append(result)
            if not options.json:
                print(*(f"{v:.4g}" if isinstance(v, float) else v for v in result.values()))
    if options.json:
        print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
