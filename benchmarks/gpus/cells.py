"""What is measured where nobody asks for anything else, and what must hold."""

from __future__ import annotations

from dataclasses import dataclass

SHAPES = (
    "512x512",
    "512x2048",
    "2048x512",
    "1024x4096",
    "2048x2048",
    "4096x4096",
    "4096x14336",
    "14336x4096",
    "8192x8192",
)
"""K x N."""
ROWS = (1, 2, 4, 8, 16)
MODELS = ("t5-small", "t5-base")
"""Of `codes.random_checkpoint`, which has llama-3.2-1b, too."""


@dataclass(frozen=True)
class Decoder:
    """One way to decode.

    Attributes:
        setting: what `programs/gpu_decode.py` makes of it.
        weights: of its bundle, ``none`` for those of the checkpoint.
        ours: whether it opens a bundle, or the checkpoint.
    """

    setting: str
    weights: str = "none"
    ours: bool = True


DEVICES = ("tensorrt:plugin", "tensorrt:native", "tensorrt-rtx", "cuda")
COMPILED = "torch.compile fp16, static cache"
DECODERS = {
    "torch eager fp16": Decoder("eager", ours=False),
    COMPILED: Decoder("compiled", ours=False),
    **{
        f"edgedec {device} {weights}": Decoder(device, weights)
        for device in DEVICES
        for weights in ("cb4", "none")
        if (device, weights) != ("tensorrt:plugin", "none")  # it has no codes to read
    },
}
"""Name -> decoder."""
SAME = 8
"""As many first tokens must be those of the CPU with the same weights, or nothing is timed."""


@dataclass(frozen=True)
class Goal:
    """What a product of one row with 4-bit codes must reach from 4096 x 4096 on."""

    figure: str
    least: float


LARGE = 4096
GOALS = (Goal("of bandwidth", 0.60), Goal("cublas fp16 : cb4 gemv", 2.5))
