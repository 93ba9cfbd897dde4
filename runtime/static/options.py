"""Which ways of decoding graphs of fixed shapes can serve."""

from __future__ import annotations

from edgedec.errors import InputError
from edgedec.runtime.generation import GenerationConfig
from edgedec.runtime.manifest import Interface, Manifest, StaticDecoder
from edgedec.runtime.processors import build_processors

IN_FULL = "does not go with a decoder of fixed shapes, which runs in full"
OF_THE_CPU = "a bundle that was exported for the CPU"


def check_depth(name: str) -> None:
    """Refuse depth policies that divide the decoder.

    Raises:
        InputError: with what to do.
    """
    if name != "full":
        raise InputError(f"--depth {name} {IN_FULL}: use --depth full, or {OF_THE_CPU}.")


def check_calibration(manifest: Manifest) -> None:
    """Refuse to compare depth policies where there is only one.

    Raises:
        InputError: with what to do.
    """
    if manifest.static is not None and manifest.static.decoder is not None:
        raise InputError(f"calibrate-depth {IN_FULL}: use {OF_THE_CPU}.")


def check_scores(config: GenerationConfig, io: Interface, decoder: StaticDecoder) -> None:
    """Refuse searches that look at scores where the decoder gives none.

    Raises:
        InputError: with what to do.
    """
    rules = build_processors(config, [1], io.vocab_size)
    if decoder.unroll > 1 and (config.num_beams > 1 or config.do_sample or rules):
        raise InputError(
            f"this bundle's decoder makes {decoder.unroll} greedy steps in one run and gives no "
            "scores, which beams, sampling and rules about tokens need: decode greedily without "
            "rules, or export with --unroll 1."
        )
