"""Refuse graphs that choose other tokens than the model, or compute other numbers on the NPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from edgedec.errors import CheckFailedError
from edgedec.export.bundle import Progress
from edgedec.export.feeding import equal, predictions, start_of
from edgedec.export.npu.options import NpuOptions
from edgedec.export.npu.verify import Compared
from edgedec.export.passages import Passage, first_tokens
from edgedec.export.places import Place
from edgedec.runtime.bundle import Bundle
from edgedec.runtime.generator import Generator
from edgedec.runtime.manifest import Agreement

ROUNDING = 0.2
"""Of the logits' range: what rounding to the NPU's numbers may do. Real runs gave 0.001 to 0.004,
operators with wrong numbers 1."""
FEW = 40
"""Tokens that each part alone is tried on."""
SHOWN = 40
"""Characters of an input in a sentence."""
ANYWAY = "choose another --quant or --kv, or --min-agreement 0 to write it all the same."


def refuse_difference(
    compared: Compared,
    found: Agreement,
    options: NpuOptions,
    describe: Callable[[Passage], str],
    parts: Callable[[], Sequence[str]],
) -> None:
    """Refuse graphs that choose other tokens than the model too often, or are wrong on the NPU.

    Args:
        compared: what was chosen.
        found: its figures.
        options: with the least agreement; 0 refuses nothing.
        describe: what to call a passage.
        parts: what each part alone does, in words; called where the NPU differs from the CPU.

    Raises:
        CheckFailedError: with the figures and the worst input.
    """
    assert found.device is not None
    assert found.device_cpu is not None
    if options.least == 0:
        return
    few = min(found.device, found.cpu) < options.least
    wrong = found.device_error is not None and found.device_error > ROUNDING
    if not few and not wrong:
        return
    device = compared.worst_device.device
    passage, worst = compared.worst()
    facts = [f"the NPU by what the CPU chooses: {found.device_cpu:.3f}"]
    if found.device_error is not None:
        facts.append(f"its logits differ by up to {found.device_error:.3g} of their range there")
    if wrong or found.device_cpu < options.least:
        facts += parts()
    facts.append(f"worst input: {describe(passage)}, {worst:.3f}")
    shares = (
        f"the graphs choose the same token as the floating-point model at {found.device:.3f} of "
        f"{found.device_tokens} places on {device} and at {found.cpu:.3f} of {found.tokens} on "
        "the CPU"
    )
    bound = (
        f", and --min-agreement is {options.least:g}"
        if few
        else f", but {device} computes other numbers, of which rounding would explain {ROUNDING:g}"
    )
    raise CheckFailedError(f"{shares}{bound} ({'; '.join(facts)}): it was not written; {ANYWAY}")


def each_part(compared: Compared, static: Bundle, place: Place, progress: Progress) -> list[str]:
    """What comes out where one part alone runs on the NPU, in words: which one is at fault.

    Args:
        compared: what all parts did.
        static: graphs of fixed shapes.
        place: which parts run on the NPU; nothing is said of a single one.
        progress: told what is running.
    """
    words = []
    device = compared.worst_device.device
    few = first_tokens(compared.passages, FEW)
    for part in sorted(place.parts) if len(place.parts) > 1 else ():
        rest = ",".join(f"{other}=cpu" for other in sorted(place.parts - {part}))
        generator = Generator(static, device=f"{part}={device},{rest}")
        told = partial(progress, f"verifying: the {part} on {device}")
        found = predictions(start_of(generator), few, told).tokens
        words.append(f"with the {part} alone on it: {equal(found, compared.cpu):.3f}")
    return words


def shown(text: str) -> str:
    """An input in a sentence."""
    plain = "".join(letter if letter.isprintable() else " " for letter in text)
    return repr(plain if len(plain) <= SHOWN else plain[: SHOWN - 3] + "...")
