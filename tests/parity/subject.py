"""A checkpoint that was written down, as a bundle, with inputs to compare it on."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tests.parity.harness import Array, Case, Oracle, Rows, padded, random_rows

from edgedec.export import export_checkpoint
from edgedec.export.checkpoint import open_checkpoint
from edgedec.export.families import open_model
from edgedec.export.reference import Reference
from edgedec.runtime.decoder import Decoding
from edgedec.runtime.generator import Generator, load


@dataclass(frozen=True)
class Subject:
    """A case that was written down, with inputs for it; ``options`` go to the exporter."""

    case: Case
    folder: Path
    checkpoint: Path
    oracle: Oracle
    options: dict[str, Any] = field(default_factory=dict)
    generators: dict[str | None, Generator] = field(default_factory=dict)

    def generator(self, stages: str | None = None) -> Generator:
        """The checkpoint as a bundle with such stages, exported on first use."""
        if stages not in self.generators:
            out = self.folder / f"bundle-{stages}"
            if not out.exists():
                # not verified: a failure should be the comparison's with the oracle
                export_checkpoint(self.checkpoint, out, stages=stages, verify=False, **self.options)
            self.generators[stages] = load(out, threads=1)
        return self.generators[stages]

    @property
    def encodes(self) -> bool:
        """Whether there is an encoder."""
        return self.generator().bundle.manifest.encoder is not None

    @cached_property
    def inputs(self) -> Rows:
        """Sources, or prompts of a decoder-only model, of unequal lengths."""
        return random_rows(1, self._vocab, self.case.lengths)

    @cached_property
    def targets(self) -> Rows:
        """What logits are compared on, after the real first token where there is one."""
        rows = random_rows(2, self._vocab, [self.case.target] * len(self.inputs))
        if not self.encodes:
            return [prompt + row for prompt, row in zip(self.inputs, rows, strict=True)]
        start = self.generator().defaults.decoder_start_token_id
        assert start is not None
        return [[start, *row[1:]] for row in rows]

    @cached_property
    def expected(self) -> list[Array]:
        """The oracle's logits of `targets`."""
        return self.oracle.logits(self.inputs if self.encodes else None, self.targets)

    def alone(self, row: int) -> Subject:
        """The same with one row of the inputs."""
        one = replace(self)
        for name in ("inputs", "targets", "expected"):
            one.__dict__[name] = [getattr(self, name)[row]]
        return one

    def start(self, stages: str | None = None) -> Decoding:
        """Encode the inputs and begin decoding."""
        generator = self.generator(stages)
        sources = self.inputs if self.encodes else None
        decoding = generator.start_decoding(sources, len(self.inputs))
        assert isinstance(decoding, Decoding)
        return decoding

    def reference(self) -> list[Array]:
        """The NumPy reference's logits of `targets`, row by row where they differ in length."""
        opened = open_checkpoint(self.checkpoint)
        reference = Reference(*open_model(opened.config, opened.tensors))
        if not self.encodes:
            return [reference.logits(None, None, np.array([row]))[0] for row in self.targets]
        source, mask = padded(self.inputs, 0)
        return list(reference.logits(source, mask, np.array(self.targets)))

    @property
    def _vocab(self) -> int:
        return self.generator().bundle.manifest.interface.vocab_size

    def by_steps(self, stages: str | None = None, chunk: int = 1) -> list[Array]:
        """Logits of the compared positions, ``chunk`` of them at a time: of each the last.

        Rows of unequal lengths are fed in one pass up to the first of these positions.
        """
        counts = self._ends(1)
        rest = np.array([row[n:] for row, n in zip(self.targets, counts, strict=True)])
        chunks = [rest[:, i : i + chunk] for i in range(0, rest.shape[1], chunk)]
        fed = [(self._beginnings(1), counts)]
        fed += [(np.ascontiguousarray(c), np.full(len(c), c.shape[1])) for c in chunks]
        decoding = self.start(stages)
        steps = []
        for tokens, count in fed:
            output = decoding.step(tokens, counts=count, want_logits=True)
            assert output.logits is not None
            assert (output.next_token == output.logits.argmax(-1)).all()
            steps.append(output.logits.copy())
        return list(np.stack(steps, axis=1))

    def in_one_pass(self, count: int) -> Array:
        """Logits of the ``count``-th compared position, after one pass up to it."""
        decoding = self.start()
        output = decoding.step(self._beginnings(count), counts=self._ends(count), want_logits=True)
        assert output.logits is not None
        return output.logits.copy()

    @property
    def compared(self) -> list[Array]:
        """The oracle's logits of the compared positions: each row's last ``target``."""
        return [row[-self.case.target :] for row in self.expected]

    def _ends(self, count: int) -> NDArray[np.int64]:
        """Where each row's ``count``-th compared position ends."""
        return np.array([len(row) - self.case.target + count for row in self.targets])

    def _beginnings(self, count: int) -> NDArray[np.int64]:
        """The rows up to there, padded at their ends."""
        ends = self._ends(count).tolist()
        return padded([row[:n] for row, n in zip(self.targets, ends, strict=True)], 0)[0]
