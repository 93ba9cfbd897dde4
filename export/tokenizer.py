"""Turn a checkpoint's vocabulary, in whatever files it comes, into one ``tokenizer.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgedec.errors import BundleError, CheckpointError
from edgedec.export.tokenizer_bytelevel import DIALECTS, convert_byt5, convert_byte_pairs
from edgedec.export.tokenizer_files import Settings, read_settings
from edgedec.export.tokenizer_marian import convert_marian
from edgedec.export.tokenizer_sentencepiece import convert_llama, convert_t5
from edgedec.runtime.text import Tokenizer

SENTENCEPIECE_FILES = ("spiece.model", "tokenizer.model", "sentencepiece.bpe.model", "source.spm")

# Which conversion fits, by tokenizer class where the checkpoint names one, else by model type.
_FAMILIES = {
    "T5Tokenizer": "t5",
    "MT5Tokenizer": "t5",
    "LlamaTokenizer": "llama",
    "CodeLlamaTokenizer": "llama",
    "MarianTokenizer": "marian",
    "ByT5Tokenizer": "byt5",
    "GPT2Tokenizer": "gpt2",
    "BartTokenizer": "bart",
    "RobertaTokenizer": "bart",
    "LEDTokenizer": "bart",
    "Qwen2Tokenizer": "qwen2",
    "t5": "t5",
    "mt5": "t5",
    "umt5": "t5",
    "longt5": "t5",
    "llama": "llama",
    "mistral": "llama",
    "marian": "marian",
    "gpt2": "gpt2",
    "opt": "opt",
    "bart": "bart",
    "roberta": "bart",
    "qwen2": "qwen2",
}
# Classes that say nothing about the kind of vocabulary.
_NO_CLASS = ("", "PreTrainedTokenizer", "TokenizersBackend", "SentencePieceBackend")
_OTHER_FILES = ("vocab.txt", "tekken.json", "sentencepiece.model", "tiktoken.model", "vocab.spm")
_PROBE = "Hello, wörld! \u4f60\u597d \U0001f642 1234\n\te\u0301"


@dataclass(frozen=True)
class TokenizerFiles:
    """Contents of the tokenizer files of a bundle."""

    tokenizer: bytes  # tokenizer.json
    config: bytes | None  # tokenizer_config.json as the checkpoint has it


def convert_tokenizer(folder: Path, config: Mapping[str, Any]) -> TokenizerFiles | None:
    """Return the tokenizer of a checkpoint folder, or None where it has none.

    A ``tokenizer.json`` is taken as it is. SentencePiece models, ``vocab.json`` with
    ``merges.txt``, Marian's pair of models and ByT5 are converted; the same files give the same
    bytes. The result has been loaded and tried on a text.

    Args:
        folder: the checkpoint.
        config: its ``config.json`` (``model_type``, ``vocab_size``, ``tokenizer_class`` are read).

    Raises:
        CheckpointError: files are missing, damaged, of a kind that cannot be converted, or do not
            fit the model.
        MissingDependencyError: the ``tokenizers`` package is not installed.
    """
    path = folder / "tokenizer.json"
    if path.exists():
        data, origin = _read(path), path
    else:
        settings = read_settings(folder, config)
        converted = _convert(settings, config)
        if converted is None:
            return None
        data, origin = converted
    _validate(data, origin, config)
    options = folder / "tokenizer_config.json"
    return TokenizerFiles(data, _read(options) if options.exists() else None)


def _convert(settings: Settings, config: Mapping[str, Any]) -> tuple[bytes, Path] | None:
    """Return the tokenizer and the file it came from."""
    folder = settings.folder
    model_type = config.get("model_type")
    family = _FAMILIES.get(str(model_type) if settings.kind in _NO_CLASS else settings.kind)
    if model_type == "opt" and family == "gpt2":
        family = "opt"  # OPT names GPT-2's class
    if family == "byt5":
        return convert_byt5(settings), folder / "tokenizer_config.json"
    present = [name for name in SENTENCEPIECE_FILES if (folder / name).exists()]
    vocabulary = folder / "vocab.json"
    if family == "marian" and (present or vocabulary.exists()):
        return convert_marian(settings), folder / "source.spm"
    if present and family in ("t5", "llama"):
        path = folder / present[0]
        data = (
            convert_t5(path, settings, config) if family == "t5" else convert_llama(path, settings)
        )
        return data, path
    if vocabulary.exists() and family in DIALECTS:
        return convert_byte_pairs(settings, DIALECTS[family]), vocabulary
    others = [
        name for name in ("vocab.json", "merges.txt", *_OTHER_FILES) if (folder / name).exists()
    ]
    if present or others:
        raise CheckpointError(
            f"The tokenizer of {folder} ({', '.join([*present, *others])}; class"
            f" {settings.kind or 'not named'}) cannot be converted; load it with transformers and"
            " save it next to the weights as tokenizer.json."
        )
    return None


def _validate(data: bytes, origin: Path, config: Mapping[str, Any]) -> None:
    """Load the tokenizer, try it, and hold its ids against the model's embedding."""
    try:
        tokenizer = Tokenizer.from_bytes(data, origin.name)
        ids = tokenizer.encode([_PROBE, ""])
        for row in ids:
            tokenizer.decode(row)
    except ValueError as error:
        raise CheckpointError(
            f"{origin} is not a usable tokenizer ({error}); download it again."
        ) from error
    except BundleError as error:
        raise CheckpointError(
            f"{origin} is not a usable tokenizer ({error.__cause__}); download it again."
        ) from error
    size = config.get("vocab_size")
    needed = max([tokenizer.vocab_size, *(token + 1 for row in ids for token in row)])
    if isinstance(size, int) and needed > size:
        raise CheckpointError(
            f"{origin} is the wrong tokenizer for this model: its ids go up to {needed - 1}, but"
            f" the model has {size} tokens (vocab_size in config.json); use the tokenizer that the"
            " model was trained with."
        )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"Cannot read {path}: {error.strerror or error}.") from error
