"""Everything that decodes, over caches that stay in a device's memory: the tokens of the CPU.

The device is the host's memory and ONNX Runtime on the CPU, over the graphs that are made for GPUs,
in float32; how engines and drivers do it is tests/gpu's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from weakref import finalize

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tests.depth import models
from tests.export import tiny
from tests.gpu.host_device import NAME, Host, offer

from edgedec.builtin import resolve_bundle
from edgedec.devices import auto
from edgedec.errors import BundleError, InputError, MissingDeviceError
from edgedec.export import export_checkpoint
from edgedec.runtime.bundle import Bundle, open_bundle
from edgedec.runtime.generator import Generator, Result
from edgedec.runtime.manifest import Limits
from edgedec.runtime.resident.arena import Buffer, HostArena
from edgedec.runtime.resident.decoding import ResidentDecoding
from edgedec.runtime.resident.limits import limits_of
from edgedec.runtime.session import Binding, OnnxSession

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

    from edgedec.runtime.decoder import Decoding

STAGED = ("t5", "qwen", "bart")
"""Kinds of tests/depth/models.py: in stages, with variants, classifier and routers."""
WHOLE = ("t5", "bart", "llama", "opt", "mu")
"""Families of tests/export/tiny.py, with one stage that holds the head."""
COUNTS = ("steps", "tokens", "layers", "exits", "drafted", "accepted")


@pytest.fixture(autouse=True)
def host(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch)


class Pair:
    """A model on the CPU, and on a device with memory of its own."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.cpu = Generator(bundle, device="cpu", threads=1)
        self.host = Generator(bundle, device=NAME, threads=1)

    def same(self, inputs: Any, **options: Any) -> list[Result]:
        """What both say, which must be the same."""
        wanted = self.cpu.generate(inputs, **options)
        found = self.host.generate(inputs, **options)
        assert [r.tokens for r in found] == [r.tokens for r in wanted]
        assert [r.finish_reason for r in found] == [r.finish_reason for r in wanted]
        for one, other in zip(found, wanted, strict=True):
            assert one.score == pytest.approx(other.score, abs=5e-3)  # float16 weights
        # How del drafts depends on the time that runs took.
        for name in () if str(options.get("depth")).startswith("del") else COUNTS:
            assert getattr(self.host.statistics, name) == getattr(self.cpu.statistics, name)
        return found


def limited(bundle: Bundle, rows: int = 9, source: int = 16, target: int = 40) -> Bundle:
    decoder_only = bundle.manifest.encoder is None
    limits = Limits(rows, None if decoder_only else source, target)
    return Bundle(bundle.folder, replace(bundle.manifest, limits=limits))


@pytest.fixture(scope="module")
def patched() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        offer(patch)
        yield


@pytest.fixture(scope="module", params=STAGED)
def staged(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, patched: None
) -> Pair:
    folder = tmp_path_factory.mktemp("resident") / "bundle"
    made = models.make(request.param, folder, cuts=(0, 1, 2, 3)).bundle
    generation = made.manifest.generation.override(decoder_start_token_id=0, eos_token_id=1)
    return Pair(limited(Bundle(made.folder, replace(made.manifest, generation=generation))))


def whole_bundle(family: str, folder: Path) -> Bundle:
    # What float16 holds: the device stores weights in that.
    tensors = {
        name: t.astype(np.float16).astype(t.dtype) for name, t in tiny.tensors(family).items()
    }
    checkpoint = tiny.write(folder / "checkpoint", family, tensors)
    bundle = open_bundle(export_checkpoint(checkpoint, folder / "bundle", verify=False))
    manifest = bundle.manifest
    generation = manifest.generation.override(decoder_start_token_id=0)
    return Bundle(bundle.folder, replace(manifest, generation=generation))


@pytest.fixture(scope="module", params=WHOLE)
def whole(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, patched: None
) -> Pair:
    folder = tmp_path_factory.mktemp("resident")
    return Pair(limited(whole_bundle(request.param, folder), target=20))


def inputs(count: int, longest: int = 9, seed: int = 0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(3, 30, rng.integers(1, longest + 1)).tolist() for _ in range(count)]


def test_one_stage(whole: Pair) -> None:
    whole.same(inputs(6), max_new_tokens=10, batch_size=4)
    whole.same(inputs(3, seed=1), max_new_tokens=9, num_beams=3)
    whole.same(inputs(3), max_new_tokens=9, do_sample=True, seed=4)
    whole.same(inputs(2), max_new_tokens=9, repetition_penalty=1.5)
    whole.same(inputs(2), max_new_tokens=9, depth="ngram:n=2,drafts=4")
    streamed = [chunk.token for chunk in whole.host.stream(inputs(1)[0], max_new_tokens=10)]
    assert streamed == whole.cpu.generate(inputs(1), max_new_tokens=10)[0].tokens


POLICIES = (
    "full",
    "early-exit:threshold=0.1",
    "early-exit:measure=meta,threshold=0.5",
    "early-exit:measure=state,threshold=0.9",
    "free:exit=1,threshold=0.1",
    "layerskip:exit=1,drafts=3",
    "del",
    "skipdecode:min=2,max=4",
    "unified:layers=3",
    "d3:alpha=0.9",
    "first:threshold=0.5",
    "lora-drop:cycle=3",
    "ngram:n=2,drafts=4",
)


@pytest.mark.parametrize("depth", POLICIES)
def test_every_policy(staged: Pair, depth: str) -> None:
    staged.same(inputs(3), max_new_tokens=16, depth=depth)
    if depth in {"full", "lora-drop:cycle=3", "early-exit:threshold=0.1"}:
        staged.same(inputs(2, seed=1), max_new_tokens=12, depth=depth, num_beams=3)


@pytest.mark.parametrize("policy", ["early-exit:threshold=", "free:exit=1,threshold="])
def test_what_waits_goes_on_before_it_is_too_much(
    staged: Pair, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    most, execute = [0], ResidentDecoding._execute

    def watched(self: ResidentDecoding, bound: Any, states: Any, counts: Any) -> None:
        most[0] = max(most[0], len(bound.steps))
        execute(self, bound, states, counts)

    monkeypatch.setattr(ResidentDecoding, "_execute", watched)
    prompts = [item[:1] for item in inputs(3)]  # a prompt is fed as it comes
    for threshold, room in (("0.1", 2), ("0", 3)):  # sometimes sure, always sure
        monkeypatch.setattr("edgedec.runtime.resident.decoding.PASS", room)
        depth = policy + threshold
        wanted = staged.cpu.generate(prompts, max_new_tokens=16, depth=depth)
        found = staged.host.generate(prompts, max_new_tokens=16, depth=depth)
        assert [r.tokens for r in found] == [r.tokens for r in wanted]
        assert most[0] <= room
    assert most[0] == 3


def test_float16_says_the_same_of_a_trained_model() -> None:
    bundle = open_bundle(resolve_bundle("g2p"))
    words = ["hello", "computer", "a", "onomatopoeia"]
    wanted = Generator(bundle, device="cpu").generate(words)
    for device in (f"{NAME}:half", f"encoder=cpu,decoder={NAME}:half", f"encoder={NAME}:half"):
        found = Generator(bundle, device=device).generate(words)
        assert [r.text for r in found] == [r.text for r in wanted], device


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return whole_bundle("llama", tmp_path_factory.mktemp("resident"))


def counting(patch: pytest.MonkeyPatch) -> list[str]:
    """Notes the component of every run from now on."""
    found, run = [], Binding.run

    def counted(self: Binding) -> float:
        found.append(self._component)
        return run(self)

    patch.setattr(Binding, "run", counted)
    return found


def test_greedy_steps_go_ahead(llama: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = counting(monkeypatch)
    generator = Generator(limited(llama, target=24), device=NAME)
    options: dict[str, Any] = {"max_new_tokens": 17, "eos_token_id": []}
    greedy = generator.generate([[5, 6, 7]], **options)
    assert len(runs) == 1 + 5  # the prompt, and 16 steps as 1 + 2 + 4 + 8 + 1 of 8
    statistics = generator.statistics
    assert (statistics.steps, statistics.tokens) == (16, 16)
    del runs[:]
    assert generator.generate([[5, 6, 7]], **options, depth="ngram:drafts=2") == greedy
    assert len(runs) > 6
    del runs[:]
    # What needs logits asks for every step, and so says the same.
    same = generator.generate([[5, 6, 7]], **options, repetition_penalty=1.0001)
    assert len(runs) == 17
    assert same == greedy
    # The last of 24 positions are filled by shorter launches.
    assert len(generator.generate([[5] * 8], max_new_tokens=99, eos_token_id=[])[0].tokens) == 16


def test_records_are_of_every_step(llama: Bundle, tmp_path: Path) -> None:
    generator = Generator(limited(llama, target=24), device=NAME, records=tmp_path)
    generator.generate([[5, 6, 7]], max_new_tokens=9, eos_token_id=[])
    [records] = generator.end_records().values()
    assert records.read_text(encoding="utf-8").count('"model_run"') == 9


@pytest.fixture(scope="module")
def small(llama: Bundle, patched: None) -> Pair:
    return Pair(limited(llama, target=24))


@given(data=st.data(), rows=st.integers(1, 3))
@settings(max_examples=80)
def test_steps_of_any_kind_in_any_order(small: Pair, data: st.DataObject, rows: int) -> None:
    """Whatever was foreseen is served only where it still holds."""
    both = [generator.start_decoding(None, rows) for generator in (small.cpu, small.host)]
    chosen = [np.full(rows, 5)]
    for _ in range(data.draw(st.integers(1, 12))):
        room = 24 - int(cast("Decoding", both[0]).cache.lengths.max())
        new = data.draw(st.sampled_from([1, 1, 1, 1, 2, 3]))
        if new > room:
            break
        tokens = data.draw(arrays(np.int64, (rows, new), elements=st.integers(0, 29)))
        if data.draw(st.integers(0, 3)):
            # The last choice, or an older one, which may have been foreseen for another place.
            tokens[:, 0] = data.draw(st.sampled_from([chosen[-1], *chosen[-3:]]))
        some = st.none() | arrays(np.int64, rows, elements=st.integers(0, new))
        counts, want_logits = data.draw(some), data.draw(st.integers(0, 4)) == 0
        found = []
        for decoding in both:
            output = decoding.step(tokens, counts=counts, want_logits=want_logits)
            found.append(output.next_token.copy())
        live = np.ones(rows, bool) if counts is None else counts > 0
        np.testing.assert_array_equal(found[0][live], found[1][live])
        lengths = [cast("Decoding", decoding).cache.lengths for decoding in both]
        assert lengths[0].tolist() == lengths[1].tolist()
        chosen.append(np.where(live, found[0], chosen[-1]))
        if data.draw(st.integers(0, 4)) == 0:
            left = max(int(lengths[0].max()) - 1, 0)
            for decoding in both:
                decoding.crop(left)
    both[1].close()


def test_rows_that_end_do_not_disturb_others(llama: Bundle) -> None:
    bundle = limited(llama, target=24)
    cpu, host = Generator(bundle, device="cpu"), Generator(bundle, device=NAME)
    prompts = inputs(5, 6, seed=3)
    endless = host.generate(prompts, max_new_tokens=12, eos_token_id=[])
    lengths = set()
    for ends in {token for result in endless for token in result.tokens}:
        found = host.generate(prompts, max_new_tokens=12, eos_token_id=ends)
        assert found == cpu.generate(prompts, max_new_tokens=12, eos_token_id=ends)
        lengths |= {tuple(len(result.tokens) for result in found)}
    assert len(lengths) > 2


def test_memory_serves_one_batch_after_another(
    llama: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = Generator(limited(llama, target=24), device=NAME)
    bound = []
    bind_steps = OnnxSession.bind_steps

    def noted(self: OnnxSession, *args: Any) -> Binding:
        bound.append(args[-1])
        return bind_steps(self, *args)

    monkeypatch.setattr(OnnxSession, "bind_steps", noted)
    options: dict[str, Any] = {"max_new_tokens": 8, "eos_token_id": []}
    first = generator.generate(inputs(2, 5), **options)
    assert bound == [1, 2, 4]
    for _ in range(2):
        assert generator.generate(inputs(2, 5), **options) == first
    assert bound == [1, 2, 4]
    # Two texts at a time have memory of their own, also where one lies idle.
    generator.generate(inputs(1), **options)
    one, other = (generator.stream(item, **options) for item in inputs(2, 5))
    pairs = list(zip(one, other, strict=True))
    assert [a.token for a, _ in pairs] == first[0].tokens
    assert [b.token for _, b in pairs] == first[1].tokens


def test_idle_memory_goes_to_a_batch_that_needs_it(
    llama: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the first, failed try had got must be gone as well: nothing else would fit."""
    generator = Generator(limited(llama, target=24), device=NAME)
    options: dict[str, Any] = {"max_new_tokens": 4, "eos_token_id": []}
    used, most = [0], [1 << 62]
    empty = HostArena.empty

    def counted(self: HostArena, shape: tuple[int, ...], dtype: DTypeLike) -> Buffer:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if used[0] + size > most[0]:
            raise InputError("there is not enough memory.")
        buffer = empty(self, shape, dtype)
        used[0] += size
        finalize(buffer.owner, lambda: used.__setitem__(0, used[0] - size))
        return buffer

    monkeypatch.setattr(HostArena, "empty", counted)
    two = generator.generate(inputs(2), **options)
    most[0] = used[0] // 2 * 3  # for three rows, and no more
    three = generator.generate(inputs(3), **options)
    assert three[:2] == two
    assert used[0] == most[0]
    with pytest.raises(InputError, match="not enough memory"):
        generator.generate(inputs(4), **options)
    assert generator.generate(inputs(2), **options) == two


def test_more_is_scored_than_one_run_scores(staged: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgedec.runtime.resident.bound.SCORED", 2)
    staged.same(inputs(2), max_new_tokens=16, depth="del:interval=1,max=5")
    staged.same(inputs(2), max_new_tokens=16, depth="layerskip:exit=2,drafts=6")


def test_too_much_at_a_time(llama: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgedec.runtime.resident.decoding.SCORED", 2)
    generator = Generator(limited(llama, target=24), device=NAME)
    with pytest.raises(InputError, match=r"3 positions would be .* scores 2: use fewer"):
        generator.generate([[5, 6, 5, 6, 5, 6, 5]], depth="ngram:n=2,drafts=2", max_new_tokens=9)


def test_limits(llama: Bundle, whole: Pair, caplog: pytest.LogCaptureFixture) -> None:
    generator = Generator(limited(llama, rows=2, target=12), device=NAME)
    with pytest.raises(InputError, match=r"3 beams take as many rows.* have 2: .* --max-rows\."):
        generator.generate([[5]], num_beams=3)
    with pytest.raises(InputError, match=r"12 tokens, .* hold 12 positions: .* --max-target"):
        generator.generate([[5] * 12])
    assert not caplog.records
    tokens = generator.generate([[5] * 10], max_new_tokens=5, eos_token_id=[])[0].tokens
    assert len(tokens) == 2
    assert "caches hold 12 positions, the longest prompt's 10 included" in caplog.text
    if whole.bundle.manifest.encoder is not None:
        with pytest.raises(InputError, match=r"17 tokens, .* graphs take 16: .* --max-source\."):
            whole.host.generate([[5] * 17])


def test_limits_without_a_word_of_them(llama: Bundle, staged_g2p: Path) -> None:
    assert limits_of(llama.manifest) == Limits(16, None, 24)  # all that the model reaches
    assert limits_of(open_bundle(staged_g2p).manifest).source is not None


def test_a_device_that_is_not_there(llama: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(MissingDeviceError, match="is not available here"):
        Generator(llama, device=f"{NAME}:absent")
    manifest = llama.manifest
    gone = {n: replace(c, device=f"{NAME}:absent") for n, c in manifest.components.items()}
    with pytest.raises((MissingDeviceError, BundleError)):
        Generator(Bundle(llama.folder, replace(manifest, components=gone)))
    assert not caplog.records


def test_the_first_device_that_works(
    llama: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(auto.first_that_works, "__defaults__", ((f"{NAME}:absent", NAME, "cpu"),))
    generator = Generator(llama, device="auto")
    assert isinstance(generator.start_decoding(None, 1), ResidentDecoding)
    [record] = caplog.records
    assert f"{NAME}:absent is left for {NAME}: " in record.getMessage()
    assert Generator(llama, device="decoder=auto").generate([[5, 6]]) == Generator(
        llama, device="cpu"
    ).generate([[5, 6]])


def test_a_device_without_enough_memory_is_left(
    llama: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def short(*_: Any, **__: Any) -> None:
        raise InputError("there is not enough memory on the GPU.")

    monkeypatch.setattr(Host, "open_resident", short)
    monkeypatch.setattr(auto.first_that_works, "__defaults__", ((NAME, "cpu"),))
    with pytest.raises(InputError, match="not enough memory"):
        Generator(llama, device=NAME)
    assert Generator(llama, device="auto").generate([[5, 6]])
    [record] = caplog.records
    assert record.getMessage() == f"{NAME} is left for cpu: there is not enough memory on the GPU."
    # What was asked for wrongly is no device's fault.
    with pytest.raises(InputError, match="threads"):
        Generator(llama, device="auto", threads=0)


def test_caches_of_another_length_are_refused(
    llama: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(limits: Limits) -> Limits:
        return replace(limits, target=limits.target - 1)

    real = Host.open_resident
    monkeypatch.setattr(
        Host,
        "open_resident",
        lambda self, bundle, name, limits, **rest: real(self, bundle, name, other(limits), **rest),
    )
    with pytest.raises(BundleError, match=r"decoder\.onnx has no cache of 24 positions"):
        Generator(llama, device=NAME)
