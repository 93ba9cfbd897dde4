"""Engines as sessions, over a driver and a TensorRT that are stricter than the real ones."""

from __future__ import annotations

import gc
import logging
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tests.gpu.fakes.cuda import FakeCuda
from tests.gpu.fakes.model import (
    CACHE,
    CARRIED,
    PAST,
    PRESENT,
    PROFILES,
    ROWS,
    TARGET,
    VOCAB,
    expected,
    graph,
)
from tests.gpu.fakes.trt import FakeTrt

from edgedec.devices.gpu.arena import CudaArena, arena
from edgedec.devices.gpu.build import build_engine
from edgedec.devices.gpu.contexts import Contexts
from edgedec.devices.gpu.engine import Engine
from edgedec.devices.gpu.engine_session import EngineSession
from edgedec.errors import DeviceError, InputError
from edgedec.runtime.resident.arena import Buffer
from edgedec.runtime.session import Array, Binding


class Loop:
    """Greedy decoding by hand, over one cache."""

    def __init__(self, session: EngineSession, rows: int) -> None:
        self.session, self.rows = session, rows
        self.memory: CudaArena = arena()
        self.cache: Buffer = self.memory.empty((rows, *CACHE), np.float16)
        self.length = np.zeros(rows, np.int64)
        self.token = np.zeros((rows, 1), np.int64)
        self.ids = np.zeros((rows, 1), np.int64)

    def bind(self, new: int, steps: int = 0, **outputs: Any) -> Binding:
        if new > 1:
            self.ids = np.zeros((self.rows, new), np.int64)
        inputs: dict[str, Array] = {
            "input_ids": self.ids,
            "past_length": self.length,
            PAST: self.cache,
            "logit_positions": np.zeros((self.rows, 1), np.int64),
        }
        wanted: dict[str, Array] = {"next_token": self.token, PRESENT: self.cache, **outputs}
        if not steps:
            return self.session.bind(inputs, wanted)
        self.choices = np.zeros((steps, self.rows, 1), np.int64)
        wanted["next_token"] = self.choices
        return self.session.bind_steps(inputs, wanted, CARRIED, steps)

    def prompt(self, prompts: list[list[int]]) -> None:
        binding = self.bind(len(prompts[0]))
        self.ids[:] = prompts
        binding.run()
        self.length += len(prompts[0])
        self.ids = np.zeros((self.rows, 1), np.int64)

    def decode(self, binding: Binding, count: int) -> list[list[int]]:
        found = [self.token[:, 0].tolist()]
        for _ in range(count - 1):
            self.ids[:] = self.token
            binding.run()
            self.length += 1
            found.append(self.token[:, 0].tolist())
        return [list(row) for row in zip(*found, strict=True)]


def make_session(module: FakeTrt) -> EngineSession:
    data = build_engine(module, graph(), PROFILES, plugin=False)
    engine = Engine(module, data, "small", arena())
    return EngineSession("small.onnx", engine, arena(), Contexts(engine, None))


@pytest.fixture(params=["trt", "rtx"])
def session(request: pytest.FixtureRequest) -> EngineSession:
    return make_session(request.getfixturevalue(request.param))


@pytest.fixture
def one(trt: FakeTrt) -> EngineSession:
    return make_session(trt)


@pytest.mark.parametrize("rows", [1, 3])
def test_steps_are_those_of_the_graph_before_and_after_they_are_recorded(
    cuda: FakeCuda, session: EngineSession, rows: int
) -> None:
    prompts = [[5, 7, 1], [2, 2, 2], [28, 0, 3]][:rows]
    loop = Loop(session, rows)
    loop.prompt(prompts)
    assert cuda.recorded == 0
    found = loop.decode(loop.bind(1), 8)
    assert found == expected(prompts, 8)
    # The first step is plain, the second is recorded, and then it is launched.
    assert (cuda.recorded, cuda.launched) == (1, 6)


@pytest.mark.parametrize("steps", [1, 2, 8])
def test_several_steps_in_one_run_are_the_steps_one_by_one(
    cuda: FakeCuda, session: EngineSession, steps: int
) -> None:
    prompts = [[5, 7], [1, 0]]
    loop = Loop(session, 2)
    loop.prompt(prompts)
    whole = expected(prompts, 1 + 3 * steps)
    assert loop.token[:, 0].tolist() == [row[0] for row in whole]
    binding = loop.bind(1, steps)
    loop.ids[:] = loop.token
    for run in range(3):
        fed, length = loop.ids.copy(), loop.length.copy()
        binding.run()
        found = loop.choices[:, :, 0].T.tolist()
        assert found == [row[1 + run * steps : 1 + (run + 1) * steps] for row in whole]
        assert (loop.ids == fed).all()
        assert (loop.length == length).all()
        loop.ids[:] = loop.choices[-1]
        loop.length += steps
    assert (cuda.recorded, cuda.launched) == (1, 2)


def test_a_prompt_is_never_recorded(cuda: FakeCuda, one: EngineSession) -> None:
    loop = Loop(one, 1)
    binding = loop.bind(3)
    for _ in range(3):
        binding.run()
    assert cuda.recorded == 0


def test_what_was_recorded_serves_the_next_request_at_the_same_addresses(
    cuda: FakeCuda, one: EngineSession
) -> None:
    def request(prompts: list[list[int]]) -> None:
        loop = Loop(one, 2)
        loop.prompt(prompts)
        assert loop.decode(loop.bind(1), 5) == expected(prompts, 5)

    for _ in range(2):
        request([[1, 2], [3, 4]])
        gc.collect()
    made, recorded = sum(cuda.device.live.values()), cuda.recorded
    for first in range(3):
        request([[first, 9], [4, 4]])
        gc.collect()
    assert cuda.recorded == recorded
    assert sum(cuda.device.live.values()) == made


def test_bindings_of_other_caches_live_side_by_side(one: EngineSession) -> None:
    loops = [Loop(one, 2) for _ in range(3)]
    prompts = [[[i, 1], [2, i]] for i in range(3)]
    for loop, prompt in zip(loops, prompts, strict=True):
        loop.prompt(prompt)
    bound = [loop.bind(1) for loop in loops]
    found: list[list[int]] = [[] for _ in loops]
    for _ in range(4):
        for loop, binding, row in zip(loops, bound, found, strict=True):
            loop.ids[:] = loop.token
            binding.run()
            loop.length += 1
            row.append(int(loop.token[1, 0]))
    assert found == [expected(prompt, 5)[1][1:] for prompt in prompts]


def test_memory_stays_as_long_as_it_is_bound(one: EngineSession) -> None:
    loop = Loop(one, 1)
    loop.prompt([[4, 4]])
    loop.ids[:] = loop.token
    binding, old = loop.bind(1), loop.cache.address
    loop.cache = loop.memory.empty((1, *CACHE), np.float16)
    gc.collect()
    assert loop.cache.address != old
    binding.run()
    assert loop.token[0].tolist() == expected([[4, 4]], 2)[0][1:]


def test_without_recordings_steps_are_the_same_and_one_sentence_says_so(
    cuda: FakeCuda, one: EngineSession, caplog: pytest.LogCaptureFixture
) -> None:
    cuda.no_recording = True
    loop = Loop(one, 1)
    loop.prompt([[4, 4]])
    with caplog.at_level(logging.WARNING, "edgedec"):
        assert loop.decode(loop.bind(1), 8) == expected([[4, 4]], 8)
        binding = loop.bind(1, 2)
        for _ in range(3):
            binding.run()
    assert [record.message[:43] for record in caplog.records] == [
        "small.onnx runs without a CUDA graph, which"
    ]


def test_an_engine_that_cannot_be_recorded_goes_on_without(cuda: FakeCuda, rtx: FakeTrt) -> None:
    rtx.BuilderFlag = SimpleNamespace()
    session = make_session(rtx)
    loop = Loop(session, 1)
    loop.prompt([[4, 4]])
    assert loop.decode(loop.bind(1), 6) == expected([[4, 4]], 6)
    assert cuda.recorded == 0


def test_wanted_logits_arrive_on_the_host_and_unwanted_ones_harm_nobody(one: EngineSession) -> None:
    loop = Loop(one, 2)
    logits = np.zeros((2, 1, VOCAB), np.float32)
    binding = loop.bind(2, logits=logits)
    loop.ids[:] = [[1, 2], [3, 4]]
    binding.run()
    assert logits[:, 0, -1].tolist() == loop.token[:, 0].tolist()
    assert (loop.memory.read(loop.cache)[:, 0, 2:] == 0).all()


@pytest.mark.parametrize(
    ("rows", "new", "words"),
    [(ROWS + 1, 1, "input_ids [5, 1]"), (1, TARGET + 1, "input_ids [1, 33]")],
)
def test_more_than_an_engine_was_built_for_is_one_sentence(
    one: EngineSession, rows: int, new: int, words: str
) -> None:
    with pytest.raises(InputError, match="--max-rows") as error:
        Loop(one, rows).bind(new)
    assert words in str(error.value)


def test_memory_of_another_type_or_shape_is_refused(one: EngineSession) -> None:
    loop = Loop(one, 1)
    loop.token = np.zeros((1, 1), np.int32)
    with pytest.raises(ValueError, match="next_token"):
        loop.bind(1)
    loop = Loop(one, 1)
    loop.cache = loop.memory.empty((1, 1, TARGET - 1, 2), np.float16)
    with pytest.raises(ValueError, match="past"):
        loop.bind(1)


def test_a_cache_that_is_not_in_place_is_refused(one: EngineSession) -> None:
    loop = Loop(one, 1)
    other: Any = {PRESENT: loop.memory.empty(loop.cache.shape, np.float16)}
    with pytest.raises(ValueError, match="must be the memory"):
        loop.bind(1, **other)


def test_memory_that_begins_anywhere_is_refused(one: EngineSession) -> None:
    loop = Loop(one, 1)
    loop.cache = replace(loop.cache, address=loop.cache.address + 4)
    with pytest.raises(ValueError, match="multiple of 256"):
        loop.bind(1)


@pytest.mark.parametrize(
    ("port", "value", "words"), [("logits", np.nan, "logits"), ("next_token", VOCAB, "token 29")]
)
def test_numbers_out_of_range_in_the_first_run_are_one_sentence(
    trt: FakeTrt, one: EngineSession, port: str, value: float, words: str
) -> None:
    trt.damage = lambda name, values: value if name == port else values
    loop = Loop(one, 1)
    binding = loop.bind(1, logits=np.zeros((1, 1, VOCAB), np.float32))
    with pytest.raises(DeviceError, match=words):
        binding.run()


def test_a_run_that_the_gpu_fails_is_one_sentence(
    cuda: FakeCuda, one: EngineSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    binding = Loop(one, 1).bind(1)
    monkeypatch.setattr(
        cuda, "cuStreamSynchronize", lambda _: (cuda.CUresult.CUDA_ERROR_INVALID_VALUE,)
    )
    with pytest.raises(DeviceError, match=r"the GPU failed while small\.onnx ran"):
        binding.run()


def test_kernels_that_rtx_compiled_are_kept_in_a_file(rtx: FakeTrt, tmp_path: Any) -> None:
    data = build_engine(rtx, graph(), PROFILES, plugin=False)
    path = tmp_path / "small.kernels"
    for runs in (1, 2):
        engine = Engine(rtx, data, "small", arena())
        session = EngineSession("small.onnx", engine, arena(), Contexts(engine, path))
        Loop(session, 1).bind(1).run()
        del session, engine
        gc.collect()
        assert path.read_bytes() == b"kernels" + b"." * runs
