"""Compare graphs of fixed shapes, on the NPU and on the CPU, with the floating-point model.

Operators of NPUs can return wrong numbers without an error, so what counts is what comes out: how
often the same token is chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from edgedec.errors import CheckFailedError
from edgedec.export.bundle import Progress
from edgedec.export.npu.options import NpuOptions
from edgedec.export.npu.places import Place
from edgedec.export.npu.texts import Passage, first_tokens
from edgedec.runtime.bundle import Bundle
from edgedec.runtime.generator import Generator
from edgedec.runtime.manifest import Agreement
from edgedec.runtime.prompt import feed_prompts
from edgedec.runtime.steps import Steps

TOKENS, LEAST = 512, 40
"""Chosen tokens that are compared at most, and at least: one of them is 0.2 % or 2.5 %."""
SECONDS = 60.0
"""After so many no more than the least are compared: a simulator takes up to 0.9 s for a token of a
model of 4 million weights, and more for larger ones."""
PIECE = 512
"""Prompt tokens that are fed at a time."""
SHOWN = 40
"""Characters of an input in a sentence."""

Tokens = NDArray[np.int64]
Told = Callable[[float], None]
Enough = Callable[[int], bool]
Start = Callable[[tuple[int, ...] | None], Steps]


@dataclass(frozen=True, eq=False)
class Compared:
    """What several devices chose on the same passages.

    Attributes:
        passages: what they were fed.
        exact: for each the tokens that the floating-point model chose.
        cpu: those of the graphs of fixed shapes on the CPU.
        device: and on the NPU or its simulator; None where none ran.
    """

    passages: Sequence[Passage]
    exact: Sequence[Tokens]
    cpu: Sequence[Tokens]
    device: Sequence[Tokens] | None

    def agreement(self, text: str, soc: str | None) -> Agreement:
        """The figures, for the manifest."""
        device = self.device
        return Agreement(
            text=text,
            inputs=len(self.passages),
            tokens=int(sum(map(len, self.exact))),
            soc=soc,
            device=None if device is None else equal(device, self.exact),
            cpu=equal(self.cpu, self.exact),
            device_cpu=None if device is None else equal(device, self.cpu),
        )

    def worst(self) -> tuple[Passage, float]:
        """The passage with the smallest share of equal tokens, and that."""
        found = self.cpu if self.device is None else self.device
        shares = [float(np.mean(a == b)) for a, b in zip(found, self.exact, strict=True)]
        place = int(np.argmin(shares))
        return self.passages[place], shares[place]


def equal(found: Sequence[Tokens], wanted: Sequence[Tokens]) -> float:
    """The share of equal tokens."""
    return float(np.mean(np.concatenate(found) == np.concatenate(wanted)))


def predictions(
    start: Start, passages: Sequence[Passage], told: Told, enough: Enough = lambda _: False
) -> list[Tokens]:
    """The tokens that a model chooses when it is fed passages, as many as are written in each.

    Args:
        start: begins to decode one row; is given its source, None without an encoder.
        passages: what it is fed, token by token but for the prompts.
        told: the fraction that is done.
        enough: whether so many tokens are; what follows is left out then.
    """
    done, every = 0, sum(len(passage.written) for passage in passages)
    found = []
    for passage in passages:
        decoding = start(passage.source)
        output = feed_prompts(decoding, [passage.prompt], pad=0, piece=PIECE, want_logits=False)
        chosen = [int(output.next_token[0])]
        for token in passage.written[:-1]:
            if enough(done + len(chosen)):
                break
            output = decoding.step(np.array([[token]], np.int64))
            chosen.append(int(output.next_token[0]))
        found.append(np.array(chosen, np.int64))
        done += len(chosen)
        told(done / every)
        if enough(done):
            break
    return found


def start_of(generator: Generator) -> Start:
    """Begin to decode with a generator."""

    def start(source: tuple[int, ...] | None) -> Steps:
        return generator.start_decoding(None if source is None else [list(source)], 1)

    return start


def compare(
    exact: Generator, static: Bundle, device: str, passages: Sequence[Passage], progress: Progress
) -> Compared:
    """Let three run over the same passages.

    Args:
        exact: of the floating-point model.
        static: graphs of fixed shapes, as far as the model has some.
        device: where they shall run, as ``--device`` takes it.
        passages: what they are fed; the first of them serve.
        progress: told what is running, and which fraction of it is done.

    Raises:
        DeviceError: the device is not available here, or does not run a graph.
    """

    def run(generator: Generator, what: str, enough: Enough = lambda _: False) -> list[Tokens]:
        told = partial(progress, f"verifying: {what}")
        return predictions(start_of(generator), chosen, told, enough)

    end = perf_counter() + SECONDS
    chosen = first_tokens(passages, TOKENS)
    npu = Generator(static, device=device)
    found = run(npu, device, lambda tokens: tokens >= LEAST and perf_counter() > end)
    chosen = [
        replace(passage, written=passage.written[: len(tokens)])
        for passage, tokens in zip(chosen, found, strict=False)
    ]
    cpu = run(Generator(static, device="cpu"), "the same graphs on the CPU")
    return Compared(chosen, run(exact, "floating point"), cpu, found)


def refuse_difference(
    compared: Compared,
    found: Agreement,
    options: NpuOptions,
    describe: Callable[[Passage], str],
    parts: Callable[[], Sequence[str]],
) -> None:
    """Refuse graphs that choose other tokens than the model too often.

    Args:
        compared: what was chosen.
        found: its figures.
        options: with the least agreement.
        describe: what to call a passage.
        parts: what each part alone does, in words; called where the NPU differs from the CPU.

    Raises:
        CheckFailedError: the agreement is below that, with the figures and the worst input.
    """
    share = found.cpu if found.device is None else found.device
    if share >= options.least:
        return
    passage, worst = compared.worst()
    others = []
    if found.device_cpu is not None:
        others += [
            f"the same graphs on the CPU: {found.cpu:.3f}",
            f"the NPU by what these choose: {found.device_cpu:.3f}",
            *(parts() if found.device_cpu < options.least else ()),
        ]
    raise CheckFailedError(
        f"the graphs choose the same token as the floating-point model at {share:.3f} of "
        f"{found.tokens} places, and --min-agreement is {options.least:g} "
        f"({'; '.join([*others, ''])}worst input: {describe(passage)}, {worst:.3f}): the "
        "bundle was not written; choose another --quant or --kv, or --min-agreement 0 to write "
        "it all the same."
    )


def each_part(
    compared: Compared, static: Bundle, place: Place, device: str, progress: Progress
) -> list[str]:
    """What comes out where one part alone runs on the NPU, in words: which one is at fault.

    Args:
        compared: what was chosen; the CPU's choices are what they should be.
        static: the graphs.
        place: the parts that the NPU runs; with one there is nothing to say.
        device: the NPU, as ``--device`` takes it.
        progress: told what is running.
    """
    words = []
    few = first_tokens(compared.passages, LEAST)
    for part in sorted(place.parts) if len(place.parts) > 1 else ():
        rest = ",".join(f"{other}=cpu" for other in sorted(place.parts - {part}))
        generator = Generator(static, device=f"{part}={device},{rest}")
        told = partial(progress, f"verifying: the {part} on {device}")
        found = predictions(start_of(generator), few, told)
        words.append(f"with the {part} alone on it: {equal(found, compared.cpu[: len(few)]):.3f}")
    return words


def shown(text: str) -> str:
    """An input in a sentence."""
    plain = "".join(letter if letter.isprintable() else " " for letter in text)
    return repr(plain if len(plain) <= SHOWN else plain[: SHOWN - 3] + "...")
