"""What the results are held against: ratios to formats that others use.

The limits are those that the design set before this implementation existed, from a prototype on
the language model, with 8-10 % added. Ratios to ``rtn-block32`` compare with a format that spends
0.45 bits per weight more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from codes.measure import FLOAT, PLAIN, Measured

Results = Mapping[str, Measured]
"""Of one model at one number of bits, by method; the original among them."""
OURS = "jlcm"
BLOCKS, ROWS, GPTQ_BLOCKS = "rtn-block32", f"gptq{PLAIN}", f"gptq-block32{PLAIN}"


@dataclass(frozen=True)
class Bar:
    """A limit on a figure.

    Attributes:
        name: what the figure is.
        figure: of the results of one model at one number of bits.
        limits: bits -> what it must not exceed.
        case: the only model that it is for; None: all.
        binding: whether exceeding it is a failure; otherwise it is there for information.
    """

    name: str
    figure: Callable[[Results], float]
    limits: Mapping[int, float]
    case: str | None = None
    binding: bool = True


@dataclass(frozen=True)
class Verdict:
    """A bar's figure for one model at one number of bits."""

    case: str
    bits: int
    bar: str
    value: float
    limit: float
    binding: bool

    @property
    def met(self) -> bool:
        """Whether the figure keeps to the limit."""
        return self.value <= self.limit


def _ratio(field: str, ours: str, reference: str) -> Callable[[Results], float]:
    def figure(results: Results) -> float:
        value: float = getattr(results[ours], field) / getattr(results[reference], field)
        return value

    return figure


def _perplexity(ours: str) -> Callable[[Results], float]:
    def figure(results: Results) -> float:
        ratio = results[ours].perplexity_ratio
        assert ratio is not None
        return ratio

    return figure


def _added(score: str, ours: str) -> Callable[[Results], float]:
    return lambda results: results[ours].scores[score] - results[FLOAT].scores[score]


BARS = (
    Bar(
        "layer error, plain / rtn-block32",
        _ratio("output_error", OURS + PLAIN, BLOCKS),
        {4: 0.82, 3: 0.78, 2: 0.70},
    ),
    Bar(
        "KL, plain / rtn-block32",
        _ratio("kl", OURS + PLAIN, BLOCKS),
        {4: 0.80, 3: 0.72, 2: 0.68},
    ),
    Bar("KL / rtn-block32", _ratio("kl", OURS, BLOCKS), {4: 0.72, 3: 0.62, 2: 0.55}),
    Bar("KL / plain", _ratio("kl", OURS, OURS + PLAIN), {2: 1.0}),
    Bar(
        "perplexity, plain / float32",
        _perplexity(OURS + PLAIN),
        {4: 1.007, 3: 1.019, 2: 1.095},
        case="lm",
    ),
    Bar("perplexity / float32", _perplexity(OURS), {4: 1.006, 3: 1.016, 2: 1.075}, case="lm"),
    Bar(
        "KL, plain / gptq, plain",
        _ratio("kl", OURS + PLAIN, ROWS),
        {4: 0.78, 3: 0.70, 2: 0.45},
    ),
    Bar(
        "KL, plain / gptq-block32, plain",
        _ratio("kl", OURS + PLAIN, GPTQ_BLOCKS),
        {4: 0.94, 3: 0.86, 2: 0.66},
        binding=False,
    ),
    Bar(
        "points of word error above float32",
        _added("word error", OURS),
        {4: 2.0, 3: 2.0, 2: 2.0},
        case="g2p",
    ),
)


def verdicts(case: str, bits: int, results: Results) -> list[Verdict]:
    """Every bar that is for this model and these bits, and whose methods were measured."""
    found = []
    for bar in BARS:
        if bits not in bar.limits or bar.case not in (None, case):
            continue
        try:
            value = bar.figure(results)
        except KeyError:  # a method that was not asked for
            continue
        found.append(Verdict(case, bits, bar.name, value, bar.limits[bits], bar.binding))
    return found
