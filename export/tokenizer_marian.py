"""Marian checkpoints: two SentencePiece models that share one numbering, ``vocab.json``.

Texts are cut by the source model; ids of both languages come from the joint vocabulary. A unigram
model numbers its pieces by their place, so the pieces are listed in the order of the joint ids.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from edgedec.errors import CheckpointError
from edgedec.export import tokenizer_json as tj
from edgedec.export.sentencepiece import Algorithm, read_sentencepiece
from edgedec.export.tokenizer_files import (
    PLACEHOLDER,
    Settings,
    read_vocabulary,
    settle,
)
from edgedec.export.tokenizer_sentencepiece import (
    check_convertible,
    cutting,
    decoding,
    normalization,
    unigram_scores,
)

_OUTSIDER = "\U0010ffff"  # stands in for PLACEHOLDER in texts; unknown to every model like it
_MANY_SPACES = 1 << 16  # Marian's decoder strips all spaces in front

log = logging.getLogger(__name__)


def convert_marian(settings: Settings) -> bytes:
    """Convert ``source.spm`` and ``vocab.json``; ``</s>`` is appended, ``>>xyz<<`` is one token.

    Pieces of the target language must never be used for a source text, so they carry a mark that
    the decoder removes. Source pieces without a joint id cannot be listed: text that would use them
    is cut into smaller ones.

    Raises:
        CheckpointError: files are missing or damaged, or the languages have separate vocabularies.
    """
    folder = settings.folder
    if settings.flag("separate_vocabs", False) or (folder / "target_vocab.json").exists():
        raise CheckpointError(
            f"The Marian checkpoint {folder} has separate source and target vocabularies, which are"
            " not supported; use one with a joint vocab.json."
        )
    source = folder / "source.spm"
    model = read_sentencepiece(source)
    check_convertible(source, model)
    if model.algorithm is not Algorithm.UNIGRAM:
        raise CheckpointError(
            f"{source} uses {model.algorithm.name}, but Marian conversion needs a unigram model;"
            " save the tokenizer as tokenizer.json next to it."
        )
    joint = read_vocabulary(folder / "vocab.json")
    names = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    eos, unknown = (
        _named(settings, joint, role, names[role]) for role in ("eos_token", "unk_token")
    )
    added = settle(settings, joint, names)
    for text, index in joint.items():
        if text.startswith(">>") and text.endswith("<<"):
            added.setdefault(index, tj.AddedToken(text, special=False))
    scores = dict(unigram_scores(model))
    missing = scores.keys() - joint.keys() - {"<s>"}
    if missing:
        log.warning("%s: %d pieces of source.spm have no id in vocab.json", folder, len(missing))
    pieces = _ordered(joint, scores, added)
    spaces, pre_tokenizer = cutting(model, "always" if model.adds_space_before else None)
    return tj.document(
        model=tj.unigram(pieces, unknown[1], byte_fallback=False),
        added=added,
        normalizer=tj.normalizers(
            [tj.replace(PLACEHOLDER, _OUTSIDER), *normalization(model), *spaces]
        ),
        pre_tokenizer=pre_tokenizer,
        post_processor=tj.template([], [eos]),
        decoder=tj.decoders([tj.replace(PLACEHOLDER, ""), *decoding(model, _MANY_SPACES)]),
    )


def _ordered(
    joint: Mapping[str, int], scores: Mapping[str, float], added: Mapping[int, tj.AddedToken]
) -> list[tuple[str, float]]:
    """Return text and score of every id from 0 on; gaps and unusable pieces match no text."""
    size = max([*joint.values(), *added]) + 1
    pieces = [(f"{PLACEHOLDER}{index}", 0.0) for index in range(size)]
    special = {token.text for token in added.values()}
    for text, index in joint.items():
        usable = text in scores or text in special
        pieces[index] = (text if usable else f"{PLACEHOLDER}{text}", scores.get(text, 0.0))
    for index, token in added.items():
        pieces[index] = (token.text, 0.0)
    return pieces


def _named(
    settings: Settings, joint: Mapping[str, int], role: str, default: str
) -> tuple[str, int]:
    """Return the text and id of the token with a role."""
    token = settings.role(role, default)
    if token is None or token.text not in joint:
        raise CheckpointError(
            f"{settings.folder / 'vocab.json'} lacks the {role} {token.text if token else None!r};"
            " it does not belong to this checkpoint."
        )
    return token.text, joint[token.text]
