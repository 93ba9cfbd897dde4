"""Checkpoints of transformers' model classes, also as older versions of it wrote them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tests.parity.harness import (
    Case,
    Oracle,
    Transformers,
    choose_eos,
    random_rows,
    randomise,
    torch,
    transformers,
)

Edit = Callable[[Path], None]


def case(
    name: str,
    architecture: str,
    config: dict[str, Any],
    *,
    edits: Sequence[Edit] = (),
    tweak: Callable[[Any], None] | None = None,
    generation: dict[str, Any] | None = None,
    scales: dict[str, float] | None = None,
    **options: Any,
) -> Case:
    """A case of a transformers architecture such as ``T5ForConditionalGeneration``.

    Args:
        name: what is particular about it.
        architecture: transformers' class.
        config: arguments of its configuration.
        edits: applied to the saved folder, which transformers then loads as well.
        tweak: applied to the model that transformers loaded, where it reads a file wrongly.
        generation: goes into ``generation_config.json``.
        scales: of the random weights, arguments of `randomise`.
        options: fields of `Case`.
    """
    write = partial(
        write_checkpoint, architecture, config, edits, tweak, generation or {}, scales or {}
    )
    return Case(name, write, **options)


def build(architecture: str, config: dict[str, Any], **scales: float) -> Any:
    """A random model of an architecture."""
    cls = getattr(transformers, architecture)
    model = cls(cls.config_class(attn_implementation="eager", **config))
    randomise(model, **scales)
    return model.eval()


def write_checkpoint(
    architecture: str,
    config: dict[str, Any],
    edits: Sequence[Edit],
    tweak: Callable[[Any], None] | None,
    generation: dict[str, Any],
    scales: dict[str, float],
    folder: Path,
) -> tuple[Path, Oracle]:
    """Write a checkpoint and load it again with transformers."""
    model = build(architecture, config, **scales)
    model.generation_config.update(**generation)
    model.generation_config.eos_token_id = None
    model.generation_config.forced_eos_token_id = generation.get("forced_eos_token_id")
    settings = model.generation_config
    model.save_pretrained(folder)
    for edit in edits:
        edit(folder)

    oracle = open_oracle(folder, architecture, settings)
    if tweak is not None:
        tweak(oracle.model)
    vocab = model.config.vocab_size
    special = [i for i in (oracle.pad, generation.get("forced_bos_token_id")) if i is not None]
    free = oracle.generate(random_rows(1, vocab, (11, 4, 7)), beams=1)
    settings.eos_token_id = choose_eos(free, special)
    if (folder / "generation_config.json").exists():
        settings.save_pretrained(folder)
    else:  # the settings of old checkpoints are in config.json
        edit_json(eos_token_id=settings.eos_token_id)(folder)
    return folder, oracle


def open_oracle(folder: Path, architecture: str, settings: Any = None) -> Transformers:
    """Load a checkpoint with transformers, in fp32 whatever it stores."""
    model = getattr(transformers, architecture).from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    if settings is not None:
        model.generation_config = settings
    return Transformers(model)


def edit_json(*remove: str, file: str = "config.json", **values: Any) -> Edit:
    """Change keys of a JSON file."""

    def edit(folder: Path) -> None:
        data = json.loads((folder / file).read_text())
        kept = {key: value for key, value in data.items() if key not in remove}
        (folder / file).write_text(json.dumps({**kept, **values}))

    return edit


def edit_tensors(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Edit:
    """Change the tensors of ``model.safetensors``."""

    def edit(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        file = folder / "model.safetensors"
        tensors = change(load_file(file))
        save_file({k: v.clone() for k, v in tensors.items()}, file, metadata={"format": "pt"})

    return edit


def remove_file(name: str) -> Edit:
    """Delete a file of the checkpoint."""
    return lambda folder: (folder / name).unlink()


@edit_tensors
def untie(tensors: dict[str, Any]) -> dict[str, Any]:
    """Give a T5 a head of its own, which transformers 5 no longer makes (but still loads)."""
    g = torch.Generator().manual_seed(7)
    head = torch.randn(tensors["shared.weight"].shape, generator=g) * 0.5
    return {**tensors, "lm_head.weight": head}


def with_prefix(prefix: str) -> Edit:
    """Name tensors with another prefix than ``model.``."""
    return edit_tensors(
        lambda tensors: {
            prefix + name.removeprefix("model.") if name.startswith("model.") else name: tensor
            for name, tensor in tensors.items()
        }
    )
