"""The same tokens and scores as `transformers.generate`, over many models and options."""

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgedec.runtime.generation import GenerationConfig
from edgedec.runtime.search import Hypothesis, Search, make_search

pytestmark = [
    pytest.mark.filterwarnings("ignore:Unfeasible length constraints"),
    pytest.mark.filterwarnings("ignore:.*max_new_tokens.*"),
]

torch: ModuleType = pytest.importorskip("torch")
transformers: ModuleType = pytest.importorskip("transformers")

VOCAB = 23
PAD, EOS, EOS2, BOS = 0, 1, 2, 3

Model = Callable[[Sequence[int]], NDArray[np.float32]]
Drive = Callable[[Search, Model, Sequence[Sequence[int]]], list[Hypothesis]]


def wrap(model: Model) -> Any:
    """Return a transformers model without a cache that answers as our stand-in does."""
    from transformers.modeling_outputs import CausalLMOutput

    class Wrapped(transformers.PreTrainedModel, transformers.GenerationMixin):  # type: ignore[name-defined,misc]
        config_class = transformers.PretrainedConfig
        main_input_name = "input_ids"

        def __init__(self) -> None:
            super().__init__(transformers.PretrainedConfig(vocab_size=VOCAB))
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, input_ids: Any, attention_mask: Any = None, **_: Any) -> Any:
            mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
            rows = [ids[keep.bool()].tolist() for ids, keep in zip(input_ids, mask, strict=True)]
            logits = np.stack([model(row) for row in rows])
            return CausalLMOutput(logits=torch.from_numpy(logits)[:, None])

        def prepare_inputs_for_generation(
            self, input_ids: Any, attention_mask: Any = None, **_: Any
        ) -> dict[str, Any]:
            return {"input_ids": input_ids, "attention_mask": attention_mask}

    return Wrapped()


def reference(
    model: Any, prompts: Sequence[Sequence[int]], options: dict[str, Any], eos: Sequence[int]
) -> list[tuple[list[int], float | None]]:
    """Return generated tokens up to their end, and scores, of `generate`."""
    width = max(map(len, prompts))
    ids = torch.tensor([[PAD] * (width - len(p)) + list(p) for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    settings = transformers.GenerationConfig(
        **options, use_cache=False, return_dict_in_generate=True, output_scores=True
    )
    with torch.no_grad():
        out = model.generate(input_ids=ids, attention_mask=mask, generation_config=settings)
    scores = getattr(out, "sequences_scores", None)
    rows = []
    for row, sequence in enumerate(out.sequences[:, width:].tolist()):
        ends = [place for place, token in enumerate(sequence) if token in eos]
        tokens = sequence[: ends[0] + 1] if ends else sequence
        rows.append((tokens, None if scores is None else float(scores[row])))
    return rows


def random_options(  # noqa: C901 - a list of coin tosses
    rng: np.random.Generator, *, beams: bool, padded: bool
) -> dict[str, Any]:
    """Return options as `generation_config.json` spells them."""

    def maybe(chance: float) -> bool:
        return bool(rng.random() < chance)

    options: dict[str, Any] = {"pad_token_id": PAD, "do_sample": False}
    options["eos_token_id"] = [EOS, EOS2] if maybe(0.4) else EOS
    if padded or maybe(0.7):
        options["max_new_tokens"] = int(rng.integers(1, 12))
    else:
        options["max_length"] = int(rng.integers(5, 16))
    if maybe(0.3):
        options["min_new_tokens"] = int(rng.integers(1, 8))
    elif not padded and maybe(0.3):
        options["min_length"] = int(rng.integers(1, 10))
    if maybe(0.3):
        options["repetition_penalty"] = float(rng.choice([0.7, 1.3, 2.0]))
    if maybe(0.3):
        options["no_repeat_ngram_size"] = int(rng.integers(1, 4))
    if maybe(0.3):
        options["bad_words_ids"] = [
            rng.integers(4, VOCAB, size=rng.integers(1, 4)).tolist() for _ in range(3)
        ] + [[EOS]]
    if maybe(0.3):
        options["suppress_tokens"] = rng.integers(4, 9, size=2).tolist()
    if maybe(0.3):
        options["begin_suppress_tokens"] = rng.integers(9, 15, size=3).tolist()
    if maybe(0.3) and not padded:
        options["forced_bos_token_id"] = 20
    if maybe(0.3):
        options["forced_eos_token_id"] = EOS
    if beams:
        options["num_beams"] = int(rng.integers(2, 6))
        options["early_stopping"] = [False, True, "never"][rng.integers(3)]
        options["length_penalty"] = float(rng.choice([-1.0, 0.0, 0.6, 1.0, 2.0]))
        options["renormalize_logits"] = maybe(0.3)
    return options


@pytest.mark.parametrize("beams", [False, True], ids=["greedy", "beam"])
@pytest.mark.parametrize("prompts", ["one", "equal", "padded"])
@pytest.mark.parametrize("block", range(3))
def test_random_options(
    beams: bool, prompts: str, block: int, drive: Drive, table_model: Any
) -> None:
    for number in range(25):
        seed = block * 1000 + number + 500 * beams
        rng = np.random.default_rng([seed, len(prompts)])
        boost = {PAD: -40.0, EOS: float(rng.choice([-1.0, 2.0, 4.0]))}
        model = table_model(VOCAB, seed, boost=boost)
        lengths = {"one": [1, 1, 1], "equal": [3, 3, 3], "padded": [5, 2, 3]}[prompts]
        batch = [rng.integers(4, VOCAB, size=length).tolist() for length in lengths]
        options = random_options(rng, beams=beams, padded=prompts == "padded")
        ours = GenerationConfig.from_huggingface(options, {})

        search = make_search(ours, 3, VOCAB, batch, 100)
        got = drive(search, model, batch)
        want = reference(wrap(model), batch, options, ours.eos_token_ids)
        assert [g.tokens for g in got] == [w[0] for w in want], (seed, options)
        if beams:
            assert [g.score for g in got] == pytest.approx([w[1] for w in want], rel=2e-5, abs=1e-6)
        for hypothesis in got:
            stopped = hypothesis.tokens[-1] in ours.eos_token_ids
            assert hypothesis.finish_reason == ("stop" if stopped else "length")


@pytest.mark.parametrize("early_stopping", [False, True, "never"])
@pytest.mark.parametrize("eos", [[], [EOS], [EOS, EOS2, BOS]])
def test_large_vocabulary(
    early_stopping: bool | str, eos: list[int], drive: Drive, table_model: Any
) -> None:
    """At this size the selection takes its short cut (`top_k`), and forced rows are mostly -inf."""
    options = {
        "pad_token_id": PAD,
        "eos_token_id": eos or None,
        "num_beams": 4,
        "early_stopping": early_stopping,
        "max_new_tokens": 8,
        "forced_eos_token_id": EOS,
        "length_penalty": 0.8,
    }
    for seed in range(5):
        model = table_model(3001, seed, boost={PAD: -40, EOS: 8, EOS2: 6})
        batch = [[5, 6], [7, 8], [9, 10]]
        ours = GenerationConfig.from_huggingface(options, {})
        got = drive(make_search(ours, 3, 3001, batch, 100), model, batch)
        want = reference(wrap(model), batch, options, eos)
        assert [g.tokens for g in got] == [w[0] for w in want]
        assert [g.score for g in got] == pytest.approx([w[1] for w in want], rel=2e-5, abs=1e-6)


@pytest.mark.parametrize("early_stopping", [False, "never"])
@pytest.mark.parametrize("length_penalty", [-2.0, -1.0, 2.0])
def test_when_to_stop(
    length_penalty: float, early_stopping: bool | str, drive: Drive, table_model: Any
) -> None:
    """Few beams, a far limit and likely ends: the result hangs on when the search gives up."""
    options = {
        "pad_token_id": PAD, "eos_token_id": EOS, "num_beams": 2, "max_new_tokens": 14,
        "length_penalty": length_penalty, "early_stopping": early_stopping,
    }  # fmt: skip
    ours = GenerationConfig.from_huggingface(options, {})
    batch = [[token, token + 1] for token in range(4, 14)]
    for seed in range(6):
        model = table_model(VOCAB, seed, scale=1.5, boost={PAD: -40, EOS: 2})
        got = drive(make_search(ours, len(batch), VOCAB, batch, 100), model, batch)
        want = reference(wrap(model), batch, options, [EOS])
        assert [g.tokens for g in got] == [w[0] for w in want]


def tiny_t5() -> Any:
    return transformers.T5ForConditionalGeneration(
        transformers.T5Config(
            vocab_size=60, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_decoder_layers=1,
            num_heads=2, decoder_start_token_id=0, pad_token_id=0, eos_token_id=1,
            tie_word_embeddings=False,
        )
    )  # fmt: skip


def tiny_bart() -> Any:
    return transformers.BartForConditionalGeneration(
        transformers.BartConfig(
            vocab_size=60, d_model=16, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=32,
            decoder_ffn_dim=32, encoder_attention_heads=2, decoder_attention_heads=2,
            max_position_embeddings=64, pad_token_id=1, bos_token_id=0, eos_token_id=2,
            decoder_start_token_id=2,
        )
    )  # fmt: skip


@pytest.mark.parametrize("make", [tiny_t5, tiny_bart])
@pytest.mark.parametrize(
    "options",
    [
        {"max_new_tokens": 12},
        {"max_new_tokens": 12, "no_repeat_ngram_size": 2, "repetition_penalty": 1.5},
        {"max_length": 10, "num_beams": 4, "early_stopping": True, "forced_bos_token_id": 7},
        {"max_new_tokens": 9, "num_beams": 4, "forced_eos_token_id": 2, "length_penalty": 2.0,
         "min_length": 4, "no_repeat_ngram_size": 3},
    ],
    ids=["greedy", "penalties", "beam-forced-bos", "beam-bart"],
)  # fmt: skip
def test_encoder_decoders(make: Callable[[], Any], options: dict[str, Any]) -> None:
    """A padded batch of three through real models, theirs with a cache, ours without."""
    torch.manual_seed(0)
    model = make().eval()
    with torch.no_grad():  # wider apart, so that no choice hangs on the last bit
        model.get_output_embeddings().weight.mul_(8)
    pad = model.config.pad_token_id
    ids = torch.tensor([[5, 6, 7, 8, 2], [9, 10, 2, pad, pad], [11, 12, 13, 2, pad]])
    mask = (ids != pad).long()
    settings = {**model.generation_config.to_dict(), **options}
    ours = GenerationConfig.from_huggingface(settings, model.config.to_dict())
    assert ours.decoder_start_token_id is not None

    for _ in range(3):
        ids = torch.where(mask.bool(), (ids * 7 + 3) % 50 + 3, ids)
        with torch.no_grad():
            wanted = model.generate(
                input_ids=ids, attention_mask=mask, **options, do_sample=False,
                return_dict_in_generate=True, output_scores=True,
            )  # fmt: skip
            encoded = model.get_encoder()(input_ids=ids, attention_mask=mask)
        prompts = [[ours.decoder_start_token_id]] * 3
        search = make_search(ours, 3, 60, prompts, 50)
        beams = ours.num_beams
        hidden = encoded.last_hidden_state.repeat_interleave(beams, 0)
        rows = torch.tensor(prompts).repeat_interleave(beams, 0)
        done = False
        while not done:
            with torch.no_grad():
                logits = model(
                    encoder_outputs=(hidden,),
                    attention_mask=mask.repeat_interleave(beams, 0),
                    decoder_input_ids=rows,
                ).logits[:, -1]
            step = search.advance(logits.argmax(1).numpy(), logits.numpy())
            if step.parents is not None:
                rows = rows[torch.from_numpy(step.parents)]
            rows = torch.cat([rows, torch.from_numpy(step.tokens)[:, None]], dim=1)
            done = step.done
        for row, result in enumerate(search.results()):
            sequence = wanted.sequences[row, 1:].tolist()
            assert result.tokens == sequence[: len(result.tokens)]
            assert set(sequence[len(result.tokens) :]) <= {pad}
            if beams > 1:
                assert result.score == pytest.approx(float(wanted.sequences_scores[row]), rel=1e-4)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
@pytest.mark.parametrize("top_k", [0, 1, 5, 100])
@pytest.mark.parametrize("top_p", [0.0, 0.3, 0.9, 1.0])
def test_sampling_distribution(temperature: float, top_k: int, top_p: float) -> None:
    from edgedec.runtime.search.sampling import distribution

    generation = transformers.generation
    rules = generation.LogitsProcessorList([generation.TemperatureLogitsWarper(temperature)])
    if top_k:
        rules.append(generation.TopKLogitsWarper(top_k))
    if top_p < 1:
        rules.append(generation.TopPLogitsWarper(top_p))
    for seed in range(10):
        logits = np.random.default_rng(seed).normal(size=40).astype(np.float32) * 2
        scores = rules(torch.zeros(1, 1, dtype=torch.long), torch.from_numpy(logits.copy())[None])
        want = torch.softmax(scores, dim=-1)[0].numpy()
        ids, probabilities = distribution(logits, temperature, top_k, top_p)
        got = np.zeros(40)
        got[ids] = probabilities
        np.testing.assert_allclose(got, want, atol=2e-6)
