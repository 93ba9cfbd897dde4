"""Mu: checkpoints as its authors publish them, a pickle with ``model_state_dict``."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from tests.parity.harness import Case, Oracle, choose_eos, random_rows, torch
from tests.parity.mu_model import Mu, MuShape, random_state

TOKENS: dict[str, Any] = {"decoder_start_token_id": 1, "bos_token_id": 1, "pad_token_id": 0}


def write_checkpoint(
    shape: MuShape, dtype: str, config: dict[str, Any], folder: Path
) -> tuple[Path, Oracle]:
    """Write ``model.pt`` and ``config.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    stored = {k: v.to(getattr(torch, dtype)) for k, v in random_state(shape).items()}
    torch.save({"model_state_dict": stored, "step": 1}, folder / "model.pt")
    free = Mu(shape, stored, start=1, eos=None, pad=0)
    rows = free.generate(random_rows(1, shape.vocab_size, (11, 4, 7)), beams=1)
    eos = choose_eos(rows, [0])
    settings = {**asdict(shape), **TOKENS, "eos_token_id": eos, **config}
    (folder / "config.json").write_text(json.dumps(settings))
    return folder / "model.pt", Mu(shape, stored, start=1, eos=eos, pad=0)


def case(name: str, shape: MuShape, dtype: str, config: dict[str, Any]) -> Case:
    """A Mu of this shape."""
    return Case(name, partial(write_checkpoint, shape, dtype, config))


SHAPE = MuShape()
CASES: list[Case] = [
    case("mu", SHAPE, "float32", {"model_type": "mu"}),
    case("mu in bf16, plain configuration", replace(SHAPE, n_kv_head=3), "bfloat16", {}),
]
