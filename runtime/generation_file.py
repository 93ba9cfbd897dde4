"""The generation settings of a checkpoint's JSON files, as keywords for `GenerationConfig`."""

import logging
from collections.abc import Mapping
from typing import Any

from edgedec.errors import CheckpointError, InputError
from edgedec.runtime.generation import OPTIONS, GenerationConfig

logger = logging.getLogger(__name__)

_SPECIAL_TOKENS = ("decoder_start_token_id", "pad_token_id", "bos_token_id", "eos_token_ids")
_FORCED_TOKENS = ("forced_bos_token_id", "forced_eos_token_id")

_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "constraints": (),
    "diversity_penalty": (0,),
    "dola_layers": (),
    "encoder_no_repeat_ngram_size": (0,),
    "encoder_repetition_penalty": (1,),
    "epsilon_cutoff": (0,),
    "eta_cutoff": (0,),
    "exponential_decay_length_penalty": (),
    "force_words_ids": (),
    "forced_decoder_ids": (),
    "guidance_scale": (1,),
    "max_time": (),
    "min_p": (0,),
    "num_beam_groups": (1,),
    "num_return_sequences": (1,),
    "penalty_alpha": (0,),
    "remove_invalid_values": (False,),
    "sequence_bias": (),
    "stop_strings": (),
    "token_healing": (False,),
    "top_h": (),
    "typical_p": (1,),
    "watermarking_config": (),
}
"""Settings we do not apply although they change the output, with the values that do nothing."""

_NO_EFFECT = frozenset({
    "_from_model_config", "assistant_confidence_threshold", "assistant_early_exit",
    "assistant_ensemble_weight", "assistant_lookbehind", "cache_config", "cache_implementation",
    "compile_config", "continuous_batching_config", "disable_compile", "is_assistant",
    "low_memory", "max_cache_len", "max_matching_ngram_size", "num_assistant_tokens",
    "num_assistant_tokens_schedule", "output_attentions", "output_hidden_states", "output_logits",
    "output_scores", "prefill_chunk_size", "prompt_lookup_num_tokens", "return_dict_in_generate",
    "return_legacy_cache", "speculation_type", "target_lookbehind", "transformers_version",
    "use_cache", "use_mtp",
})  # fmt: skip
"""Settings about speed or about what is returned: the generated tokens are the same without."""


def read_settings(
    generation_config: Mapping[str, Any] | None,
    config: Mapping[str, Any],
    *,
    encoder_decoder: bool | None = None,
) -> dict[str, Any]:
    """Return keywords for `GenerationConfig`; `GenerationConfig.from_huggingface` says how.

    Raises:
        CheckpointError: a supported setting has a value out of range.
    """
    legacy = generation_config is None
    source = config if generation_config is None else generation_config
    file = "config.json" if legacy else "generation_config.json"
    settings = _supported(source, config)
    if encoder_decoder is None:
        encoder_decoder = bool(config.get("is_encoder_decoder"))
    _choose_decoder_start(settings, encoder_decoder=encoder_decoder)
    if source.get("min_new_tokens") is not None:
        settings.pop("min_length", None)  # as there, even where the former is 0
    _warn(_unsupported(source, legacy=legacy), file)
    sampled_beams = settings.get("do_sample") is True and settings.get("num_beams", 1) != 1
    if sampled_beams and settings.get("temperature") != 0:
        logger.warning("%s asks for sampling within beam search; beams are used alone.", file)
        settings["do_sample"] = False
    try:
        GenerationConfig(**settings)
    except InputError as error:
        raise CheckpointError(f"In {file}: {error}") from None
    return settings


def _supported(source: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for name in OPTIONS:
        key = "eos_token_id" if name == "eos_token_ids" else name
        value = source.get(key)
        if value is None and name in _SPECIAL_TOKENS:
            value = config.get(key)
        if name in _FORCED_TOKENS and isinstance(value, list | tuple):
            # several are allowed there; all get the same score, so the lowest id is chosen
            value = min(value, default=None)
        if isinstance(value, int) and value < 0 and name in _SPECIAL_TOKENS + _FORCED_TOKENS:
            value = None  # some old checkpoints write -1 for "none"
        if value is not None and name != "seed":
            settings[name] = value
    return settings


def _choose_decoder_start(settings: dict[str, Any], *, encoder_decoder: bool) -> None:
    if not encoder_decoder:
        settings.pop("decoder_start_token_id", None)
        return
    for name in ("bos_token_id", "pad_token_id"):  # the pad token is where T5 and Marian start
        if "decoder_start_token_id" not in settings and name in settings:
            settings["decoder_start_token_id"] = settings[name]


def _unsupported(source: Mapping[str, Any], *, legacy: bool) -> list[str]:
    """Return the names of settings that we do not know or do not apply."""
    names = []
    for key, value in source.items():
        if key in OPTIONS or key in _NO_EFFECT or key == "eos_token_id" or value is None:
            continue
        if key not in _NEUTRAL:
            if not legacy:  # most of config.json describes the architecture
                names.append(key)
        elif value not in _NEUTRAL[key] and value not in ([], {}):
            names.append(key)
    return names


def _warn(names: list[str], file: str) -> None:
    if names:
        logger.warning("Settings in %s that are not applied: %s.", file, ", ".join(sorted(names)))
