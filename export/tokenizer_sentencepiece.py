"""SentencePiece models as ``tokenizer.json``: the T5 family and the Llama family.

What SentencePiece does to a text, in order: normalise characters by a compiled table, drop surplus
spaces, put one space in front, write every space as U+2581, and cut the result into pieces. Each of
these steps is one part of the file written here.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from edgedec.errors import CheckpointError
from edgedec.export import tokenizer_json as tj
from edgedec.export.sentencepiece import (
    SPACE,
    Algorithm,
    Kind,
    Piece,
    SentencePieceModel,
    read_sentencepiece,
)
from edgedec.export.tokenizer_files import PLACEHOLDER, Settings, settle

# Where the space in front goes: before every stretch of text between added tokens, or only before
# the first. SentencePiece itself does not know added tokens.
Prefix = Literal["always", "first"]

_EXTRA_IDS = 100  # sentinels of T5 that its files need not mention


def convert_t5(path: Path, settings: Settings, config: Mapping[str, Any]) -> bytes:
    """Convert the ``spiece.model`` of T5, mT5 or UMT5: ``</s>`` is appended, sentinels at the end.

    Raises:
        CheckpointError: the model is damaged or uses what a tokenizer.json cannot express.
    """
    model = read_sentencepiece(path)
    texts = {piece.text for piece in model.pieces}
    # mT5 has its sentinels among the pieces.
    own = "<extra_id_0>" in texts or f"{SPACE}<extra_id_0>" in texts
    count = settings.count("extra_ids")
    if count is None:
        size = config.get("vocab_size")
        fits = not isinstance(size, int) or size >= len(model.pieces) + _EXTRA_IDS
        count = _EXTRA_IDS if fits and not own else 0
    sentinels = [f"<extra_id_{number}>" for number in reversed(range(count))]
    extra = [Piece(text, 0.0, Kind.CONTROL) for text in sentinels if text not in texts]
    names = {"eos_token": "</s>", "pad_token": "<pad>"}
    return _convert(path, model, settings, names, extra=extra, prefix="always", after="eos_token")


def convert_llama(path: Path, settings: Settings) -> bytes:
    """Convert the ``tokenizer.model`` of Llama: ``<s>`` goes in front unless the settings say no.

    Raises:
        CheckpointError: the model is damaged or uses what a tokenizer.json cannot express.
    """
    names = {"bos_token": "<s>", "eos_token": "</s>"}
    return _convert(
        path,
        read_sentencepiece(path),
        settings,
        names,
        prefix="always" if settings.flag("legacy", False) else "first",
        before="bos_token" if settings.flag("add_bos_token", True) else None,
        after="eos_token" if settings.flag("add_eos_token", False) else None,
    )


def normalization(model: SentencePieceModel) -> list[tj.Part]:
    """Return the normalizers for the character table and the surplus spaces."""
    parts: list[tj.Part] = []
    if model.charsmap:
        table = base64.b64encode(model.charsmap).decode()
        parts.append({"type": "Precompiled", "precompiled_charsmap": table})
    if model.removes_extra_spaces:
        parts += [tj.replace_pattern("^ +| +$", ""), tj.replace_pattern(" {2,}", " ")]
    return parts


def cutting(
    model: SentencePieceModel, prefix: Prefix | None
) -> tuple[list[tj.Part], tj.Part | None]:
    """Return the normalizers and the pre-tokenizer that write spaces and put one in front.

    Cutting at spaces first changes nothing as long as no piece spans one, and spares the model the
    work of searching whole documents.
    """
    split = model.algorithm is Algorithm.UNIGRAM and not any(
        SPACE in piece.text[1:] for piece in model.pieces if piece.kind is Kind.NORMAL
    )
    metaspace = {
        "type": "Metaspace",
        "replacement": SPACE,
        "prepend_scheme": "never",
        "split": split,
    }
    if prefix == "first":
        return [], {**metaspace, "prepend_scheme": "first"}
    front: list[tj.Part] = [{"type": "Prepend", "prepend": SPACE}] if prefix == "always" else []
    return [*front, tj.replace(" ", SPACE)], metaspace if split else None


def decoding(model: SentencePieceModel, strip: int) -> list[tj.Part]:
    """Return the decoders that undo it; up to ``strip`` spaces are taken off the front."""
    bytes_back: list[tj.Part] = [{"type": "ByteFallback"}] if model.byte_fallback else []
    parts = [tj.replace(SPACE, " "), *bytes_back, {"type": "Fuse"}]
    if strip:
        parts.append({"type": "Strip", "content": " ", "start": strip, "stop": 0})
    return parts


def check_convertible(path: Path, model: SentencePieceModel) -> None:
    """Refuse what a tokenizer.json cannot express.

    Raises:
        CheckpointError: with the reason.
    """
    reason = None
    if model.algorithm not in (Algorithm.UNIGRAM, Algorithm.BPE):
        reason = f"its algorithm is {model.algorithm.name}"
    elif model.space_is_suffix:
        reason = "it puts spaces at the end of words"
    elif not model.escapes_spaces:
        reason = "it keeps spaces as they are"
    elif model.ids(Kind.UNUSED):
        reason = "it has unused pieces"
    elif len({piece.text for piece in model.pieces}) < len(model.pieces):
        reason = "it lists a piece twice"
    if reason is not None:
        raise CheckpointError(
            f"{path} cannot be converted ({reason}); save the tokenizer as tokenizer.json next to"
            " it."
        )


def unigram_scores(model: SentencePieceModel) -> list[tuple[str, float]]:
    """Return pieces and scores such that the best path is SentencePiece's.

    SentencePiece scores a user-defined piece by its length in bytes, so that it wins over other
    ways to cut the text; a score below the lowest ordinary one would make unknown characters cost
    more.
    """
    scores = [piece.score for piece in model.pieces if piece.kind is Kind.NORMAL]
    lowest, highest = min(scores, default=0.0), max(scores, default=0.0)
    return [
        (
            piece.text,
            max(lowest, len(piece.text.encode()) * highest - 0.1)
            if piece.kind is Kind.USER_DEFINED
            else piece.score,
        )
        for piece in model.pieces
    ]


def merges_of(model: SentencePieceModel) -> list[tuple[str, str]]:
    """Return the merges that a BPE model's scores stand for, first to be done first.

    SentencePiece joins the neighbours whose union scores highest; so every way to cut a piece into
    two others is a merge with the piece's rank.
    """
    usable = {piece.text: piece.score for piece in model.pieces if piece.kind is Kind.NORMAL}
    found = [
        (-score, -cut, text[:cut], text[cut:])
        for text, score in usable.items()
        for cut in range(1, len(text))
        if text[:cut] in usable and text[cut:] in usable
    ]
    return [(left, right) for _, _, left, right in sorted(found)]


def _convert(
    path: Path,
    model: SentencePieceModel,
    settings: Settings,
    names: Mapping[str, str],
    *,
    prefix: Prefix,
    extra: list[Piece] | None = None,
    before: str | None = None,
    after: str | None = None,
) -> bytes:
    check_convertible(path, model)
    pieces = [*model.pieces, *(extra or [])]
    unknown = model.pieces[model.unknown_id].text
    vocabulary = {piece.text: index for index, piece in enumerate(pieces)}
    # Ids below the size of the model belong to its pieces, whatever the settings call them.
    renamed = {
        i: t for i, t in settings.added.items() if i < len(pieces) and t.text not in vocabulary
    }
    for index, token in renamed.items():
        del vocabulary[pieces[index].text]
        vocabulary[token.text] = index
        pieces[index] = Piece(token.text, pieces[index].score, pieces[index].kind)
    added = settle(settings, vocabulary, {**names, "unk_token": unknown})
    frozen = (
        (Kind.CONTROL, Kind.USER_DEFINED) if model.algorithm is Algorithm.BPE else (Kind.CONTROL,)
    )
    for index, piece in enumerate(pieces):
        if piece.kind in frozen:
            added.setdefault(index, tj.AddedToken(piece.text, special=piece.kind is Kind.CONTROL))
    spaces, pre_tokenizer = cutting(model, prefix if _adds_space(model, settings) else None)
    return tj.document(
        model=_model_part(model, pieces, added),
        added=added,
        normalizer=tj.normalizers([*normalization(model), *spaces]),
        pre_tokenizer=pre_tokenizer,
        post_processor=tj.template(
            *(
                [_named(path, settings, names, role, added)] if role else []
                for role in (before, after)
            )
        ),
        decoder=tj.decoders(decoding(model, strip=int(_adds_space(model, settings)))),
    )


def _model_part(
    model: SentencePieceModel, pieces: list[Piece], added: Mapping[int, tj.AddedToken]
) -> tj.Part:
    vocabulary = {piece.text: index for index, piece in enumerate(pieces)}
    if model.algorithm is Algorithm.BPE:
        vocabulary |= {token.text: index for index, token in added.items()}
        unknown = pieces[model.unknown_id].text
        return tj.bpe(vocabulary, merges_of(model), unknown, model.byte_fallback)
    scored = unigram_scores(model)
    scored = [
        (piece.text, scored[i][1] if i < len(scored) else 0.0) for i, piece in enumerate(pieces)
    ]
    for index in range(len(scored), max(added, default=-1) + 1):
        token = added.get(index)
        scored.append((token.text if token else f"{PLACEHOLDER}{index}", 0.0))
    return tj.unigram(scored, model.unknown_id, model.byte_fallback)


def _adds_space(model: SentencePieceModel, settings: Settings) -> bool:
    return settings.flag("add_prefix_space", model.adds_space_before)


def _named(
    path: Path,
    settings: Settings,
    names: Mapping[str, str],
    role: str,
    added: Mapping[int, tj.AddedToken],
) -> tuple[str, int]:
    """Return the text and id of the token with a role."""
    token = settings.role(role, names[role])
    for index, candidate in added.items():
        if token is not None and candidate.text == token.text:
            return token.text, index
    raise CheckpointError(
        f"{path} has no {role} {token.text if token else None!r}, which its tokenizer puts around a"
        " text; correct tokenizer_config.json or the model."
    )
