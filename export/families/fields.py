"""What several families read from their configurations in the same way."""

from __future__ import annotations

import numpy as np

from edgedec.errors import CheckpointError
from edgedec.export.spec import Activation
from edgedec.export.weights import Tensors

ACTIVATIONS: dict[str, Activation] = {
    "relu": "relu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_tanh": "gelu_tanh",
    "silu": "silu",
    "swish": "silu",
}


def activation(name: str) -> Activation:
    """Our name of a Hugging Face activation."""
    try:
        return ACTIVATIONS[name]
    except KeyError:
        raise CheckpointError(
            f"activation {name!r} of config.json is not supported "
            f"(there are {', '.join(ACTIVATIONS)})."
        ) from None


def refuse(wrong: bool, what: str) -> None:
    """Refuse a setting that no graph here computes, in one sentence."""
    if wrong:
        raise CheckpointError(f"config.json asks for {what}, which is not supported.")


def head_is_tied(tensors: Tensors, head: str, embeddings: tuple[str, ...]) -> bool:
    """Whether the head is the embedding: its tensor is absent, or equal value for value.

    Configurations cannot be trusted here (transformers 5 calls every T5 tied), tensors can.
    """
    if head not in tensors:
        return True
    for name in embeddings:
        embedding = tensors.get(f"{name}.weight")
        if embedding is not None:
            if embedding.shape != tensors[head].shape:
                return False
            return bool(np.array_equal(embedding.read(), tensors[head].read()))
    return False
