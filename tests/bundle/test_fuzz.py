"""Random bundles: damaged byte by byte and graph by graph, none crashes the process or hangs.

Every variant is opened and run in another process, which must answer with a result or a sentence.
The variants are the same every time; EDGEDEC_FUZZ multiplies their number and changes the seeds.
"""

from __future__ import annotations

import json
import os
import random
import selectors
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import helper

EFFORT = int(os.environ.get("EDGEDEC_FUZZ", "1"))
PATIENCE_S = 60.0

SCRIPT = """
import json, logging, resource, sys, traceback
import edgedec
from edgedec.errors import EdgedecError
import edgedec.runtime.generator
logging.disable(logging.CRITICAL)
resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
if sys.argv[1:] == ["function bodies"]:
    import edgedec.kernels.library
    edgedec.kernels.library.LIBRARY = "none.so"
for line in sys.stdin:
    try:
        generator = edgedec.load(line.strip(), threads=1)
        results = generator.generate(["hello", [3, 4, 1]], max_new_tokens=3)
        results += generator.generate("a", max_new_tokens=2, num_beams=3)
        answer = [r.finish_reason for r in results]
    except EdgedecError as error:
        answer = str(error)
    except BaseException:
        answer = {"traceback": traceback.format_exc()}
    print("answer", json.dumps(answer), flush=True)
"""


class Process:
    """Runs bundles somewhere where they may crash."""

    def __init__(self, way: str = "library") -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, way],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def run(self, bundle: Path) -> Any:
        """What comes of a bundle; anything but a list or a text is a failure."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(f"{bundle}\n")
            stdin.flush()
        except BrokenPipeError:
            return {"crashes": self._process.wait()}
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            if not selector.select(PATIENCE_S):
                return {"hangs": PATIENCE_S}
        line = stdout.readline()
        if not line:
            return {"crashes": self._process.wait()}
        word, _, answer = line.partition(" ")
        return json.loads(answer) if word == "answer" else {"prints": line}

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="module")
def process() -> Iterator[Process]:
    running = Process()
    yield running
    running.stop()


def corrupt(data: bytes, rng: random.Random) -> bytes:
    """Change a few bytes: bits, values, cuts, insertions, repetitions, extremes."""
    out = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        at, size = rng.randrange(len(out) + 1), rng.choice([1, 2, 4, 16, 64])
        kind = rng.randrange(8)
        if kind <= 1 and at < len(out):
            out[at] ^= 1 << rng.randrange(8)
        elif kind <= 3 and at < len(out):
            out[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
        elif kind == 4:
            del out[at : at + size]
        elif kind == 5:
            out[at:at] = rng.randbytes(size)
        elif kind == 6:
            begin = rng.randrange(len(out) + 1)
            out[at : at + size] = out[begin : begin + size]
        elif rng.random() < 0.2:
            del out[at:]
        else:
            out[at : at + 8] = rng.choice([b"\xff" * 8, bytes(8), b"\xff" * 7 + b"\x7f"])
    return bytes(out)


EXTREMES = (0, 1, -1, 2, 3, 64, 2**31 - 1, 2**31, -(2**31), 2**63 - 1, -(2**63), 10**6)


def rewrite(model: onnx.ModelProto, rng: random.Random) -> None:
    """Change one thing of a graph that leaves it a well-formed file."""
    graph = model.graph
    node = rng.choice(graph.node)
    kind = rng.randrange(6)
    if kind <= 1:
        nodes = [n for n in graph.node if n.attribute]
        attribute = rng.choice(rng.choice(nodes).attribute)
        if attribute.type == onnx.AttributeProto.INTS:
            attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice(EXTREMES)
        elif attribute.type == onnx.AttributeProto.INT:
            attribute.i = rng.choice(EXTREMES)
        else:
            attribute.f = rng.choice([0.0, -1.0, float("nan"), float("inf")])
    elif kind == 2 and node.input:
        values = [output for n in graph.node for output in n.output]
        node.input[rng.randrange(len(node.input))] = rng.choice(values)
    elif kind == 3:
        tensor = rng.choice([t for t in graph.initializer if t.dims])
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(EXTREMES)
    elif kind == 4:
        tensor = rng.choice(graph.initializer)
        tensor.data_type = rng.randrange(27)
    else:
        node.attribute.append(
            helper.make_attribute(
                rng.choice(["axis", "start", "to", "batch_dims", "is_causal", "softcap"]),
                rng.choice(EXTREMES),
            )
        )


def check(process: Process, bundle: Path, what: object) -> None:
    answer = process.run(bundle)
    if not isinstance(answer, list | str):
        pytest.fail(f"variant {what}: {answer}")


BYTES = {
    "decoder.onnx": 90,
    "encoder.onnx": 60,
    "weights.bin": 30,
    "tokenizer.json": 40,
    "edgedec.json": 120,
    "README.md": 2,
}


@pytest.mark.parametrize("name", BYTES)
def test_damaged_bytes(process: Process, victim: Any, name: str) -> None:
    """With the manifest's hashes as they were: damage, which the hash finds."""
    data = (victim / name).read_bytes()
    rng = random.Random(f"{name} {EFFORT}")
    for number in range(BYTES[name] * EFFORT // 3):
        (victim / name).write_bytes(corrupt(data, rng))
        check(process, victim.folder, (name, number))


@pytest.mark.parametrize("name", [name for name in BYTES if name != "edgedec.json"])
def test_forged_bytes(process: Process, victim: Any, name: str) -> None:
    """With hashes that fit, so that what is damaged reaches whoever reads it."""
    data = (victim / name).read_bytes()
    rng = random.Random(f"{name} forged {EFFORT}")
    for number in range(BYTES[name] * EFFORT):
        (victim / name).write_bytes(corrupt(data, rng))
        victim.rehash()
        check(process, victim.folder, (name, number))


@pytest.mark.parametrize("name", ["decoder.onnx", "encoder.onnx"])
def test_forged_graphs(process: Process, victim: Any, name: str) -> None:
    """Well-formed files with hashes that fit, and something wrong inside."""
    data = (victim / name).read_bytes()
    rng = random.Random(f"{name} graph {EFFORT}")
    for number in range(150 * EFFORT):
        model = onnx.load_from_string(data)
        for _ in range(rng.choice([1, 1, 2])):
            rewrite(model, rng)
        (victim / name).write_bytes(model.SerializeToString())
        victim.rehash()
        check(process, victim.folder, (name, number))


@pytest.fixture(scope="module", params=["library", "function bodies"])
def either(request: pytest.FixtureRequest) -> Iterator[Process]:
    """Runs operators of ours by the library, where there is one, or by their function bodies."""
    running = Process(request.param)
    yield running
    running.stop()


def rewrite_function(model: onnx.ModelProto, rng: random.Random) -> None:
    """Change a node inside of a function body."""
    node = rng.choice(rng.choice(model.functions).node)
    if node.attribute and rng.random() < 0.7:
        attribute = rng.choice(node.attribute)
        if attribute.type == onnx.AttributeProto.INT and not attribute.ref_attr_name:
            attribute.i = rng.choice(EXTREMES)
        elif attribute.ref_attr_name:
            attribute.ref_attr_name = rng.choice(["bits", "K", "origin", "q_num_heads", "none"])
        else:
            attribute.type = rng.randrange(8)
    elif node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice(["", *model.functions[0].input])
    else:
        node.op_type = rng.choice(["Identity", "Shape", "CodebookGather"])


@pytest.mark.parametrize("name", ["decoder.onnx", "encoder.onnx"])
def test_forged_graphs_of_codes(either: Process, coded_victim: Any, name: str) -> None:
    """Nodes, constants and function bodies of our own operators, with something wrong inside."""
    data = (coded_victim / name).read_bytes()
    rng = random.Random(f"{name} codes {EFFORT}")
    for number in range(60 * EFFORT):
        model = onnx.load_from_string(data)
        for _ in range(rng.choice([1, 1, 2])):
            (rewrite_function if rng.random() < 0.3 else rewrite)(model, rng)
        (coded_victim / name).write_bytes(model.SerializeToString())
        coded_victim.rehash()
        check(either, coded_victim.folder, (name, number))


@pytest.mark.parametrize("name", ["decoder.onnx", "encoder.onnx"])
def test_forged_graphs_of_fixed_shapes(process: Process, blocks_victim: Any, name: str) -> None:
    """With ONNX Runtime's own operator for weights in blocks, whose sizes are attributes."""
    data = (blocks_victim / name).read_bytes()
    rng = random.Random(f"{name} blocks {EFFORT}")
    for number in range(40 * EFFORT):
        model = onnx.load_from_string(data)
        for _ in range(rng.choice([1, 1, 2])):
            rewrite(model, rng)
        (blocks_victim / name).write_bytes(model.SerializeToString())
        blocks_victim.rehash()
        check(process, blocks_victim.folder, (name, number))


def test_forged_fixed_shapes(process: Process, blocks_victim: Any) -> None:
    """Manifests, tables and weights of any value."""
    for name in ("edgedec.json", "decoder.bias.bin", "weights.bin"):
        data = (blocks_victim / name).read_bytes()
        rng = random.Random(f"{name} fixed {EFFORT}")
        for number in range(20 * EFFORT):
            (blocks_victim / name).write_bytes(corrupt(data, rng))
            if name != "edgedec.json":
                blocks_victim.rehash()
            check(process, blocks_victim.folder, (name, number))
        (blocks_victim / name).write_bytes(data)
        if name != "edgedec.json":
            blocks_victim.rehash()


def test_forged_codes(either: Process, coded_victim: Any) -> None:
    """Codes, levels and tables of any value."""
    for name in ("weights.bin", "decoder.onnx"):
        data = (coded_victim / name).read_bytes()
        rng = random.Random(f"{name} forged codes {EFFORT}")
        for number in range(20 * EFFORT):
            (coded_victim / name).write_bytes(corrupt(data, rng))
            coded_victim.rehash()
            check(either, coded_victim.folder, (name, number))
        (coded_victim / name).write_bytes(data)


def test_crashes_are_noticed(exported: Path) -> None:
    process = Process()
    assert isinstance(process.run(exported), list)
    process._process.kill()
    assert process.run(exported) == {"crashes": -9}
    process.stop()
