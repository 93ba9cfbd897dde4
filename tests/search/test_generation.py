"""`GenerationConfig`: what it accepts, what options imply, what checkpoints say."""

import dataclasses
import logging
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgedec.errors import CheckpointError, EdgedecError, InputError
from edgedec.runtime.generation import DEFAULT_NEW_TOKENS, OPTIONS, GenerationConfig

WRONG: list[tuple[str, Any, str]] = [
    (
        "max_new_tokens",
        0,
        "max_new_tokens must be a whole number from 1 to 2,147,483,647, or None, not 0.",
    ),
    (
        "max_new_tokens",
        2.5,
        "max_new_tokens must be a whole number from 1 to 2,147,483,647, or None",
    ),
    ("max_new_tokens", True, "not True."),
    (
        "min_new_tokens",
        -1,
        "min_new_tokens must be a whole number from 0 to 2,147,483,647, not -1.",
    ),
    ("num_beams", 0, "num_beams must be a whole number from 1 to 1,000, not 0."),
    ("num_beams", 1001, "num_beams must be a whole number from 1 to 1,000"),
    ("num_beams", "4", "not '4'."),
    ("length_penalty", math.nan, "length_penalty must be a number from -10 to 10, not nan."),
    ("early_stopping", "always", "early_stopping must be True, False or \"never\", not 'always'."),
    ("early_stopping", 1, "early_stopping must be True"),
    ("do_sample", 1, "do_sample must be True or False, not 1."),
    ("temperature", -0.1, "temperature must be a number of at least 0, not -0.1."),
    ("temperature", math.inf, "temperature must be a number of at least 0, not inf."),
    ("top_k", -1, "top_k must be a whole number from 0 to 2,147,483,647, not -1."),
    ("top_p", 1.1, "top_p must be a number from 0 to 1, not 1.1."),
    (
        "seed",
        -1,
        "seed must be a whole number from 0 to 18,446,744,073,709,551,615, or None, not -1.",
    ),
    ("repetition_penalty", 0, "repetition_penalty must be a number above 0, not 0."),
    ("no_repeat_ngram_size", None, "no_repeat_ngram_size must be a whole number"),
    (
        "pad_token_id",
        -1,
        "pad_token_id must be a whole number from 0 to 2,147,483,647, or None, not -1.",
    ),
    ("eos_token_ids", "12", "eos_token_ids must be a list of token ids, not '12'."),
    ("suppress_tokens", [-1], "suppress_tokens must be a list of token ids, not [-1]."),
    ("bad_words_ids", [[]], "bad_words_ids must be a list of non-empty lists of token ids"),
    ("bad_words_ids", [3], "bad_words_ids must be a list of non-empty lists of token ids"),
]


@pytest.mark.parametrize(("name", "value", "sentence"), WRONG)
def test_one_sentence_for_a_wrong_value(name: str, value: object, sentence: str) -> None:
    for make in (GenerationConfig, GenerationConfig().override):
        with pytest.raises(InputError) as caught:
            make(**{name: value})  # type: ignore[arg-type]
        assert sentence in str(caught.value)
        assert str(caught.value).endswith(".")


def test_unknown_option() -> None:
    with pytest.raises(InputError, match="option num_beam; did you mean num_beams"):
        GenerationConfig().override(num_beam=4)
    with pytest.raises(InputError, match="option xyzzy; the options are max_new_tokens, "):
        GenerationConfig().override(xyzzy=4)


def test_values_are_brought_into_one_form() -> None:
    config = GenerationConfig(
        length_penalty=2,
        num_beams=np.int64(3),  # type: ignore[arg-type]
        eos_token_ids=[5, 6, 5],  # type: ignore[arg-type]
        bad_words_ids=[[1, 2], [3]],  # type: ignore[arg-type]
    )
    assert config.length_penalty == 2.0
    assert type(config.length_penalty) is float
    assert type(config.num_beams) is int
    assert config.eos_token_ids == (5, 6)
    assert config.bad_words_ids == ((1, 2), (3,))
    assert config.pad_token_id == 5
    assert GenerationConfig(eos_token_ids=7).eos_token_ids == (7,)  # type: ignore[arg-type]
    assert GenerationConfig(**dataclasses.asdict(config)) == config


@pytest.mark.parametrize(
    ("base", "options", "sample", "beams"),
    [
        ({}, {}, False, 1),
        ({}, {"temperature": 0.7}, True, 1),
        ({}, {"top_k": 5}, True, 1),
        ({}, {"top_p": 0.9}, True, 1),
        ({}, {"seed": 1}, False, 1),
        ({}, {"temperature": 0}, False, 1),
        ({"do_sample": True}, {"temperature": 0.0}, False, 1),
        ({"do_sample": True}, {"temperature": 0.0, "do_sample": True}, False, 1),
        ({}, {"temperature": 0.7, "do_sample": False}, False, 1),
        ({"num_beams": 4}, {"top_p": 0.9}, True, 1),
        ({"num_beams": 4}, {"do_sample": True}, True, 1),
        ({"num_beams": 4}, {"temperature": 0}, False, 4),
        ({"do_sample": True}, {"num_beams": 4}, False, 4),
        ({"do_sample": True}, {"num_beams": 1}, True, 1),
    ],
)
def test_strategy(base: dict[str, Any], options: dict[str, Any], sample: bool, beams: int) -> None:
    config = GenerationConfig(**base).override(**options)
    assert (config.do_sample, config.num_beams) == (sample, beams)
    assert config.temperature > 0


@pytest.mark.parametrize(
    "options", [{"num_beams": 2, "do_sample": True}, {"num_beams": 2, "temperature": 0.7}]
)
def test_beam_sampling_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"Beam search does not sample: .* num_beams=2\.$"):
        GenerationConfig().override(**options)


def test_lengths() -> None:
    assert GenerationConfig().step_limit(3) == DEFAULT_NEW_TOKENS
    assert GenerationConfig().step_limit(3, capacity=20) == 17
    assert GenerationConfig(max_length=10).step_limit(3) == 7
    assert GenerationConfig(max_length=10, max_new_tokens=50).step_limit(3) == 50
    assert GenerationConfig(max_length=10, max_new_tokens=50).step_limit(3, capacity=40) == 37
    assert GenerationConfig(min_length=10).minimum_steps(3) == 7
    assert GenerationConfig(min_length=2).minimum_steps(3) == 0
    assert GenerationConfig(min_length=10, min_new_tokens=1).minimum_steps(3) == 1
    with pytest.raises(InputError, match="max_length=10 counts the prompt, which has 10 tokens"):
        GenerationConfig(max_length=10).step_limit(10)
    with pytest.raises(InputError, match="prompt has 20 tokens, but the model takes 20"):
        GenerationConfig().step_limit(20, capacity=20)


def test_lengths_given_later_win() -> None:
    checkpoint = GenerationConfig(max_new_tokens=100, min_length=56)
    assert checkpoint.override(max_length=30).step_limit(10) == 20
    assert checkpoint.override(max_length=30, max_new_tokens=5).step_limit(10) == 5
    assert checkpoint.override(min_new_tokens=3).minimum_steps(1) == 3
    assert checkpoint.override(min_new_tokens=0).minimum_steps(1) == 0
    assert GenerationConfig(min_new_tokens=5).override(min_length=3).minimum_steps(1) == 2
    # the checkpoint's minimum above the caller's maximum is nobody's mistake
    assert checkpoint.override(max_new_tokens=10).step_limit(1) == 10
    with pytest.raises(InputError, match="min_new_tokens=9 is more than max_new_tokens=5"):
        checkpoint.override(min_new_tokens=9, max_new_tokens=5)


def test_none_removes_an_optional_setting() -> None:
    config = GenerationConfig(forced_bos_token_id=4, max_new_tokens=3)
    assert config.override(forced_bos_token_id=None).forced_bos_token_id is None
    assert config.override(max_new_tokens=None).step_limit(1) == DEFAULT_NEW_TOKENS


_ANY = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 2000),
    st.floats(),
    st.sampled_from(["", "4", "never", "True"]),
    st.lists(st.integers(-1, 9), max_size=3),
    st.lists(st.lists(st.integers(-1, 9), max_size=2), max_size=2),
    st.just({"4": 4}),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(OPTIONS), _ANY, max_size=6))
def test_any_option_is_valid_or_one_sentence(options: dict[str, Any]) -> None:
    def from_file(**settings: Any) -> GenerationConfig:
        return GenerationConfig.from_huggingface(settings, settings)

    for make in (GenerationConfig, GenerationConfig().override, from_file):
        problem = ""
        try:
            config = make(**options)
        except EdgedecError as error:
            problem = str(error)
        else:
            assert GenerationConfig(**dataclasses.asdict(config)) == config
        assert not problem or (problem.endswith(".") and "\n" not in problem)


def test_bart_summariser_without_generation_config(caplog: pytest.LogCaptureFixture) -> None:
    """Old checkpoints: everything in config.json, next to the architecture."""
    config = {
        "is_encoder_decoder": True, "model_type": "bart", "d_model": 1024, "vocab_size": 50264,
        "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2,
        "forced_bos_token_id": 0, "forced_eos_token_id": 2, "early_stopping": True,
        "length_penalty": 2.0, "max_length": 142, "min_length": 56, "no_repeat_ngram_size": 3,
        "num_beams": 4, "prefix": " ",
        "task_specific_params": {"summarization": {"num_beams": 9, "max_length": 9}},
    }  # fmt: skip
    with caplog.at_level(logging.WARNING):
        read = GenerationConfig.from_huggingface(None, config)
    assert not caplog.records
    assert read == GenerationConfig(
        max_length=142, min_length=56, num_beams=4, length_penalty=2.0, early_stopping=True,
        no_repeat_ngram_size=3, decoder_start_token_id=2, pad_token_id=1, bos_token_id=0,
        eos_token_ids=(2,), forced_bos_token_id=0, forced_eos_token_id=2,
    )  # fmt: skip
    # with a generation_config.json, config.json provides no more than the special tokens
    read = GenerationConfig.from_huggingface({"max_new_tokens": 7}, config)
    assert read == GenerationConfig(
        max_new_tokens=7, decoder_start_token_id=2, pad_token_id=1, bos_token_id=0,
        eos_token_ids=(2,),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("generation", "config", "start"),
    [
        ({"decoder_start_token_id": 9}, {"decoder_start_token_id": 8}, 9),
        ({}, {"decoder_start_token_id": 8, "bos_token_id": 7}, 8),
        ({"bos_token_id": 7}, {}, 7),
        (None, {"pad_token_id": 0, "eos_token_id": 1}, 0),
        (None, {}, None),
    ],
)
def test_decoder_start(
    generation: dict[str, Any] | None, config: dict[str, Any], start: int | None
) -> None:
    read = GenerationConfig.from_huggingface(generation, {**config, "is_encoder_decoder": True})
    assert read.decoder_start_token_id == start
    assert GenerationConfig.from_huggingface(generation, config).decoder_start_token_id is None


def test_marian() -> None:
    read = GenerationConfig.from_huggingface(
        {
            "bad_words_ids": [[58100]], "bos_token_id": 0, "decoder_start_token_id": 58100,
            "eos_token_id": 0, "forced_eos_token_id": 0, "max_length": 512, "num_beams": 4,
            "pad_token_id": 58100, "renormalize_logits": True, "transformers_version": "4.32.0",
        },
        {"is_encoder_decoder": True, "num_beams": 6},
    )  # fmt: skip
    assert read.bad_words_ids == ((58100,),)
    assert read.decoder_start_token_id == 58100
    assert read.num_beams == 4
    assert read.renormalize_logits


def test_chat_model_with_several_eos() -> None:
    read = GenerationConfig.from_huggingface(
        {
            "bos_token_id": 151643, "do_sample": True, "eos_token_id": [151645, 151643],
            "pad_token_id": -1, "repetition_penalty": 1.1, "temperature": 0.7, "top_k": 20,
            "top_p": 0.8, "suppress_tokens": None, "forced_eos_token_id": [151645],
        },
        {"model_type": "qwen2"},
    )  # fmt: skip
    assert read.eos_token_ids == (151645, 151643)
    assert read.pad_token_id == 151645
    assert read.forced_eos_token_id == 151645
    assert (read.do_sample, read.temperature, read.top_k, read.top_p) == (True, 0.7, 20, 0.8)


def test_settings_that_are_not_applied_are_named(caplog: pytest.LogCaptureFixture) -> None:
    file = {
        "min_p": 0.1, "guidance_scale": 1.5, "typical_p": 1.0, "num_return_sequences": 1,
        "chat_format": "chatml", "use_cache": True, "stop_strings": [], "sequence_bias": None,
    }  # fmt: skip
    GenerationConfig.from_huggingface(file, {})
    (record,) = caplog.records
    assert record.getMessage() == (
        "Settings in generation_config.json that are not applied: "
        "chat_format, guidance_scale, min_p."
    )
    caplog.clear()
    GenerationConfig.from_huggingface(None, file)
    assert caplog.records[0].getMessage().endswith("config.json that are not applied: "
                                                   "guidance_scale, min_p.")  # fmt: skip


def test_contradictions_in_a_file_do_not_stop_an_export(caplog: pytest.LogCaptureFixture) -> None:
    read = GenerationConfig.from_huggingface({"do_sample": True, "num_beams": 4}, {})
    assert (read.do_sample, read.num_beams) == (False, 4)
    assert "sampling within beam search" in caplog.text
    read = GenerationConfig.from_huggingface({"do_sample": True, "temperature": 0.0}, {})
    assert not read.do_sample
    read = GenerationConfig.from_huggingface({"min_length": 9, "min_new_tokens": 0}, {})
    assert read.minimum_steps(1) == 0


def test_wrong_value_in_a_file() -> None:
    with pytest.raises(
        CheckpointError, match=r"^In generation_config.json: top_p must be a number from 0 to 1"
    ):
        GenerationConfig.from_huggingface({"top_p": 3}, {})
    with pytest.raises(CheckpointError, match=r"^In config.json: num_beams must be"):
        GenerationConfig.from_huggingface(None, {"num_beams": "four"})


def test_the_end_token_has_two_names() -> None:
    assert GenerationConfig().override(eos_token_id=5).eos_token_ids == (5,)
    assert GenerationConfig().override(eos_token_id=[5, 6]).eos_token_ids == (5, 6)
