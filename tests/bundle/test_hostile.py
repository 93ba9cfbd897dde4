"""Bundles that are damaged or meant to do harm end in one sentence, and nothing is read or run."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

import edgedec
from edgedec.errors import BundleError, EdgedecError, InputError
from edgedec.runtime.bundle import open_bundle
from edgedec.runtime.generator import Generator

Manifest = dict[str, Any]
Graph = onnx.ModelProto
Victim = Any  # of conftest.py, which cannot be imported


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0")


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


FILES = ["decoder.onnx", "encoder.onnx", "weights.bin", "tokenizer.json", "README.md"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (Path.unlink, "is missing"),
        (grow, "its manifest says"),
        (cut, "its manifest says"),
        (lambda path: os.truncate(path, 0), "its manifest says"),
        (flip, "hash differs"),
    ],
    ids=["missing", "longer", "shorter", "empty", "flipped"],
)
def test_damaged_files(
    victim: Victim, name: str, damage: Callable[[Path], object], words: str
) -> None:
    damage(victim / name)
    sentence = victim.complaint()
    assert words in sentence
    assert name in sentence


def test_check_reads_large_weights_too(victim: Victim, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgedec.runtime.bundle.HASHED_AT_OPEN", 0)
    from click.testing import CliRunner

    from edgedec.cli import cli

    flip(victim / "weights.bin")
    result = CliRunner().invoke(cli, ["inspect", str(victim.folder), "--check"])
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert "weights.bin is not the file that was exported" in result.stderr


@pytest.mark.parametrize("name", ["edgedec.json", "decoder.onnx", "weights.bin", "tokenizer.json"])
def test_files_that_are_none(victim: Victim, name: str) -> None:
    """A folder or a pipe in a file's place: reading a pipe would wait forever."""
    (victim / name).unlink()
    (victim / name).mkdir()
    victim.complaint()
    (victim / name).rmdir()
    os.mkfifo(victim / name)
    victim.manifest(lambda m: m["files"][name].update(bytes=0)) if name != "edgedec.json" else None
    assert name in victim.complaint() or name == "edgedec.json"


NAMES = [
    "../outside.bin",
    "/etc/hostname",
    "sub/../../outside.bin",
    "..",
    ".",
    "",
    "./weights.bin",
    "sub//x",
    "a\\b",
    "C:\\x",
    "a\0b",
    "a\nb",
    "\x1b[2J",
    "\ud800",
    "x" * 5000,
]


@pytest.mark.parametrize("name", NAMES)
def test_names_that_leave_the_bundle(victim: Victim, name: str) -> None:
    (victim.folder.parent / "outside.bin").write_bytes(b"")
    entry = {"bytes": 0, "sha256": "0" * 64}
    victim.manifest(lambda m: m["files"].update({name: entry}))
    victim.complaint()


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a/b", "..", "", ".x", "a\\b", "a b", "ü"])
def test_components_whose_names_are_paths(victim: Victim, name: str) -> None:
    """Who names a file after a component must not write elsewhere."""

    def rename(manifest: Manifest) -> None:
        manifest["components"][name] = manifest["components"].pop("encoder")
        manifest["encoder"] = name

    victim.manifest(rename)
    assert "a component's name" in victim.complaint()


@pytest.mark.parametrize("name", ["decoder.0-2.fill", "meta", "Encoder_1"])
def test_a_component_is_called_what_its_bundle_calls_it(
    victim: Victim, tmp_path: Path, name: str
) -> None:
    """Whatever the name of its file, in spans and in records of operators."""

    def rename(manifest: Manifest) -> None:
        manifest["components"][name] = manifest["components"].pop("encoder")
        manifest["encoder"] = name

    victim.manifest(rename)
    records = tmp_path / "records"
    records.mkdir()
    generator = Generator(open_bundle(victim.folder), threads=1, records=records)
    generator.spans.on = True
    generator.generate([[3, 4, 5, 1]], max_new_tokens=2)
    runs = {span.name for span in generator.spans.take() if span.kind == "run"}
    files = generator.end_records()
    assert runs == set(files) == {name, "decoder"}
    assert sorted(records.iterdir()) == sorted(files.values())


@pytest.mark.parametrize("name", ["decoder.onnx", "weights.bin", "tokenizer.json"])
def test_links_that_leave_the_bundle(victim: Victim, name: str) -> None:
    outside = victim.folder.parent / "outside"
    shutil.move(victim / name, outside)
    (victim / name).symlink_to(outside)
    assert "is a link that leads out" in victim.complaint()
    (victim / name).unlink()
    (victim / name).symlink_to(victim / name)
    victim.complaint()
    (victim / name).unlink()
    (victim / name).symlink_to("/dev/zero")
    victim.complaint()


def test_links_inside_and_a_linked_bundle_are_fine(victim: Victim) -> None:
    shutil.move(victim / "weights.bin", victim / "data")
    (victim / "weights.bin").symlink_to("data")
    link = victim.folder.parent / "link"
    link.symlink_to(victim.folder)
    assert edgedec.load(link, threads=1).generate("a", max_new_tokens=2)


def external(model: Graph) -> TensorProto:
    """The first tensor stored outside of a graph."""
    tensors: list[TensorProto] = list(model.graph.initializer)
    return next(t for t in tensors if t.data_location == TensorProto.EXTERNAL)


def put(key: str, value: str) -> Callable[[Graph], None]:
    """Change an entry of it, or add one."""

    def change(model: Graph) -> None:
        tensor = external(model)
        entries = {entry.key: entry.value for entry in tensor.external_data} | {key: value}
        del tensor.external_data[:]
        for item in entries.items():
            tensor.external_data.add(key=item[0], value=item[1])

    return change


def twice(model: Graph) -> None:
    external(model).external_data.add(key="location", value="weights.bin")


def in_attribute(model: Graph) -> None:
    """Hide a reference where nobody looks first: in a tensor of a sparse constant's attribute."""
    values = TensorProto(data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    values.external_data.add(key="location", value="../secret")
    sparse = onnx.SparseTensorProto(values=values, dims=[4])
    sparse.indices.CopyFrom(helper.make_tensor("", TensorProto.INT64, [1], [0]))
    node = helper.make_node("Constant", [], ["hidden"], sparse_value=sparse)
    model.graph.node.append(node)


REFERENCES: dict[str, tuple[Callable[[Graph], object], str]] = {
    "above": (put("location", "../weights.bin"), "location"),
    "absolute": (put("location", "/etc/hostname"), "location"),
    "below": (put("location", "sub/weights.bin"), "location"),
    "memory": (put("location", "*/_ORT_MEM_ADDR_/*"), "location"),
    "empty": (put("location", ""), "location"),
    "another": (put("location", "passwords.txt"), "no file of the bundle"),
    "the manifest": (put("location", "edgedec.json"), "no file of the bundle"),
    "negative offset": (put("offset", "-64"), "offset"),
    "offset at the end": (put("offset", str(1 << 40)), "ends at byte"),
    "overflowing offset": (put("offset", str((1 << 64) - 64)), "offset"),
    "huge offset": (put("offset", "9" * 5000), "offset"),
    "offset in words": (put("offset", "1_0"), "offset"),
    "offset in other digits": (put("offset", "٣"), "offset"),
    "negative length": (put("length", "-1"), "length"),
    "huge length": (put("length", str((1 << 63) - 1)), "length"),
    "long length": (put("length", "999999999"), "ends at byte"),
    "short length": (put("length", "4"), "cannot be opened"),
    "prepacked": (put("prepacked_0", "k|0;64"), "prepacked_0"),
    "location twice": (twice, "two values"),
    "in an attribute": (in_attribute, "location"),
}


@pytest.mark.parametrize("kind", REFERENCES)
def test_references_of_graphs(victim: Victim, kind: str) -> None:
    change, words = REFERENCES[kind]
    (victim.folder.parent / "weights.bin").write_bytes((victim / "weights.bin").read_bytes())
    (victim / "sub").mkdir()
    victim.graph("decoder.onnx", change)
    sentence = victim.complaint()
    assert words in sentence
    assert "decoder.onnx" in sentence


def test_weights_shorter_than_an_offset(victim: Victim) -> None:
    """With a manifest that agrees: the length of the file itself is what counts."""
    os.truncate(victim / "weights.bin", 2048)
    victim.rehash()
    assert "ends at byte" in victim.complaint()


def opset(version: int, domain: str = "") -> Callable[[Graph], None]:
    def change(model: Graph) -> None:
        del model.opset_import[:]
        model.opset_import.append(helper.make_opsetid(domain, version))

    return change


def function_loop(model: Graph) -> None:
    """A function that calls itself, which a runtime that inlines would follow forever."""
    model.opset_import.append(helper.make_opsetid("edgedec", 1))
    node = helper.make_node("CodebookGather", ["x"], ["y"], domain="edgedec", bits=4, K=16)
    imports = [helper.make_opsetid("", 24), helper.make_opsetid("edgedec", 1)]
    function = helper.make_function(
        "edgedec", "CodebookGather", ["x"], ["y"], [node], imports, ["bits", "K"]
    )
    model.functions.append(function)


def branch(model: Graph) -> None:
    inner = helper.make_graph(
        [], "inner", [], [helper.make_tensor_value_info("input_ids", 7, None)]
    )
    node = helper.make_node("If", ["input_ids"], ["w"], then_branch=inner, else_branch=inner)
    model.graph.node.append(node)


def attribute(operator: str, name: str, value: int) -> Callable[[Graph], None]:
    def change(model: Graph) -> None:
        node = next(n for n in model.graph.node if n.op_type == operator)
        for old in [a for a in node.attribute if a.name == name]:
            node.attribute.remove(old)
        node.attribute.append(helper.make_attribute(name, value))

    return change


GRAPHS: dict[str, tuple[Callable[[Graph], object], str]] = {
    "a newer opset": (opset(25), "opset 25"),
    "no opset": (lambda m: m.ClearField("opset_import"), "opset 0"),
    "a negative opset": (opset(-1), "opset -1"),
    "two opsets": (lambda m: m.opset_import.append(helper.make_opsetid("", 1)), "twice"),
    "foreign operators": (opset(1, "ai.onnx.ml"), "ai.onnx.ml"),
    "newer operators of ONNX Runtime": (opset(2, "com.microsoft"), "version 2"),
    "a foreign operator": (
        lambda m: m.graph.node.append(helper.make_node("X", [], ["x"], domain="evil")),
        "evil",
    ),
    "a function that calls itself": (function_loop, "calls a function"),
    "control flow": (branch, "graph inside a node"),
    "no heads": (attribute("Attention", "kv_num_heads", 0), "kv_num_heads"),
    "no query heads": (attribute("Attention", "q_num_heads", 0), "q_num_heads"),
    "overflowing heads": (attribute("Attention", "kv_num_heads", 1 << 32), "kv_num_heads"),
    "batch_dims below zero": (attribute("GatherND", "batch_dims", -(1 << 31)), "batch_dims"),
    "no nodes": (lambda m: m.graph.ClearField("node"), "cannot be opened"),
    "no graph": (lambda m: m.ClearField("graph"), "cannot be opened"),
    "names that a terminal obeys": (
        lambda m: m.graph.node.append(helper.make_node("Relu", ["\x1b[31m"], ["\x07"])),
        "cannot be opened",
    ),
    "an operator that fails": (attribute("ArgMax", "axis", 7), "ONNX Runtime"),
}


@pytest.mark.parametrize("kind", GRAPHS)
def test_graphs(victim: Victim, kind: str) -> None:
    change, words = GRAPHS[kind]
    victim.graph("decoder.onnx", change)
    sentence = victim.complaint()
    assert words in sentence
    assert "decoder.onnx" in sentence


@pytest.mark.parametrize(
    "data", [b"", b"\0", b"ORTM" * 9, b"\x0a" + b"\xff" * 20, b"{}", b"\x3a\x00"]
)
def test_graphs_that_are_none(victim: Victim, data: bytes) -> None:
    (victim / "decoder.onnx").write_bytes(data)
    victim.rehash()
    assert "decoder.onnx" in victim.complaint()


INTERFACE: dict[str, tuple[str, object]] = {
    "wider caches": ("kv_width", 64),
    "narrower caches": ("kv_width", 8),
    "a larger vocabulary": ("vocab_size", 64),
    "a smaller vocabulary": ("vocab_size", 16),
    "the largest vocabulary": ("vocab_size", 1 << 24),
    "no vocabulary": ("vocab_size", 0),
    "a negative width": ("kv_width", -16),
    "more layers": ("decoder_layers", 3),
    "fewer layers": ("decoder_layers", 1),
    "too many layers": ("decoder_layers", 10**12),
    "another architecture": ("architecture", "decoder-only"),
    "an unknown architecture": ("architecture", "encoder-only"),
    "an endless source": ("max_source", 10**30),
    "no source": ("max_source", 0),
}


@pytest.mark.parametrize("kind", INTERFACE)
def test_interfaces_that_do_not_fit_the_graphs(victim: Victim, kind: str) -> None:
    key, value = INTERFACE[kind]

    def change(manifest: Manifest) -> None:
        manifest["interface"][key] = value
        if key == "decoder_layers":
            manifest["stages"][0]["last"] = value

    victim.manifest(change)
    victim.complaint()


def test_layers_are_not_counted_one_by_one(victim: Victim) -> None:
    """The graphs are compared up to the first difference, whatever number the manifest says."""

    def change(manifest: Manifest) -> None:
        manifest["interface"]["decoder_layers"] = manifest["stages"][0]["last"] = 1 << 24

    victim.manifest(change)
    assert "no output 'cross.2.key'" in victim.complaint()


@pytest.mark.parametrize(("key", "value"), [("d_model", 8), ("d_model", 32), ("kv_width", 8)])
def test_widths_between_stages(staged_victim: Victim, key: str, value: int) -> None:
    staged_victim.manifest(lambda m: m["interface"].update({key: value}))
    assert "does not belong to this bundle's manifest" in staged_victim.complaint()


def swap(manifest: Manifest) -> None:
    components = manifest["components"]
    components["encoder"], components["decoder"] = components["decoder"], components["encoder"]


def test_components_in_each_others_place(victim: Victim, staged_victim: Victim) -> None:
    victim.manifest(swap)
    assert "does not belong to this bundle's manifest" in victim.complaint()

    def stages(manifest: Manifest) -> None:
        first, second = manifest["stages"]
        first["component"], second["component"] = second["component"], first["component"]

    staged_victim.manifest(stages)
    assert "does not belong to this bundle's manifest" in staged_victim.complaint()


def declare(name: str, dims: list[int | str], kind: int) -> Callable[[Graph], None]:
    """Let a graph declare an input or output otherwise."""

    def change(model: Graph) -> None:
        for values in (model.graph.input, model.graph.output):
            for value in values:
                if value.name == name:
                    value.CopyFrom(helper.make_tensor_value_info(name, kind, dims))

    return change


@pytest.mark.parametrize(
    "change",
    [
        declare("past.0.self.key", ["b", "c", 16, 1], TensorProto.FLOAT),
        declare("past.0.self.key", ["b", 64, 16], TensorProto.FLOAT),
        declare("past.0.self.key", ["b", "c", "d"], TensorProto.FLOAT),
        declare("past_length", ["b"], TensorProto.INT32),
        declare("input_ids", ["b", "n"], TensorProto.DOUBLE),
        declare("cross.mask", ["b", 1, "x", "s"], TensorProto.FLOAT),
        declare("logits", ["b", "p", 16], TensorProto.FLOAT),
        lambda m: m.graph.input.append(helper.make_tensor_value_info("more", 1, ["b"])),
        lambda m: m.graph.input.pop(),
        lambda m: m.graph.output.pop(),
        lambda m: m.graph.output.append(helper.make_tensor_value_info("decoder.embed", 1, None)),
    ],
)
def test_graphs_that_break_the_contract(victim: Victim, change: Callable[[Graph], object]) -> None:
    victim.graph("decoder.onnx", change)
    assert "decoder.onnx" in victim.complaint()


def test_a_graph_that_lies_about_its_output(victim: Victim) -> None:
    """What it declares fits, what it computes is larger than the memory bound for it."""

    def change(model: Graph) -> None:
        node = next(n for n in model.graph.node if "present.0.self.key" in n.output)
        node.output[0] = "real"
        many = helper.make_tensor("many", TensorProto.INT64, [3], [1, 1000, 1])
        model.graph.initializer.append(many)
        nodes = [helper.make_node("Tile", ["real", "many"], ["present.0.self.key"])]
        for other in model.graph.node:
            for i, name in enumerate(other.input):
                if name == "present.0.self.key":
                    other.input[i] = "real"
        model.graph.node.extend(nodes)

    victim.graph("decoder.onnx", change)
    assert "decoder.onnx" in victim.complaint()


def nested(depth: int) -> object:
    value: object = 0
    for _ in range(depth):
        value = [value]
    return value


def set_path(path: str, value: object) -> Callable[[Manifest], None]:
    def change(manifest: Manifest) -> None:
        *parents, last = path.split(".")
        inner: Any = manifest
        for key in parents:
            inner = inner[int(key) if isinstance(inner, list) else key]
        inner[int(last) if isinstance(inner, list) else last] = value

    return change


MANIFESTS: dict[str, Callable[[Manifest], object]] = {
    "a newer version": set_path("schema_version", 2),
    "a much newer version": set_path("schema_version", 10**15),
    "version 0": set_path("schema_version", 0),
    "version true": set_path("schema_version", True),
    "version as text": set_path("schema_version", "1"),
    "an unknown key": set_path("surprise", 1),
    "an unknown inner key": set_path("interface.surprise", 1),
    "a missing key": lambda m: m.pop("interface"),
    "a missing inner key": lambda m: m["interface"].pop("kv_width"),
    "a number as text": set_path("interface.kv_width", "16"),
    "a fraction": set_path("interface.kv_width", 16.5),
    "a flag as number": set_path("interface.kv_width", True),
    "a list as object": set_path("components", []),
    "an object as list": set_path("stages", {}),
    "null": set_path("files", None),
    "no stages": set_path("stages", []),
    "a gap between stages": set_path("stages.0.first", 1),
    "an unknown component": set_path("stages.0.component", "x"),
    "a component of no file": set_path("components.decoder.file", "x.onnx"),
    "a component elsewhere": set_path("components.decoder.file", "../decoder.onnx"),
    "a component in another format": set_path("components.decoder.file", "weights.bin"),
    "the decoder as encoder": set_path("encoder", "decoder"),
    "no encoder": set_path("encoder", None),
    "deep": set_path("model.deep", nested(40)),
    "very deep": set_path("model.deep", nested(900)),
    "not a number": set_path("verified.logit_range", float("nan")),
    "infinity": set_path("verified.logit_range", float("inf")),
    "a number of 4,000 digits": set_path("parameters", 10**4000),
    "a size of 4,000 digits": set_path("files.LICENSE.bytes", 10**4000),
    "a float of 400 digits": set_path("verified.logit_range", 10**400),
    "control characters": set_path("source.id", "\x1b[31mred"),
    "half a character": set_path("source.id", "\udc00"),
    "a key with control characters": set_path("model.\x07", 1),
    "beams": set_path("generation.num_beams", 10**9),
    "tokens": set_path("generation.max_new_tokens", 10**12),
    "a negative token": set_path("generation.pad_token_id", -1),
    "a token beyond all": set_path("generation.eos_token_ids", [10**18]),
    "sampling with beams": lambda m: m["generation"].update(do_sample=True, num_beams=3),
    "an unknown option": set_path("generation.surprise", 1),
}


@pytest.mark.parametrize("kind", MANIFESTS)
def test_manifests(victim: Victim, kind: str) -> None:
    victim.manifest(MANIFESTS[kind])
    assert "edgedec.json" in victim.complaint()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[]",
        "1",
        '"bundle"',
        "{}",
        "\ufeff{}",
        '{"schema_version": 1, "schema_version": 1}',
        '{"schema_version": 99}',
        '{"a": ' * 100_000,
        "[" * 100_000,
        '{"schema_version": ' + "9" * 5000 + "}",
        '{"schema_version": 1e999}',
    ],
    ids=range(14),
)
def test_texts_that_are_no_manifest(victim: Victim, text: str) -> None:
    (victim / "edgedec.json").write_text(text)
    assert "edgedec.json" in victim.complaint()


def test_bytes_that_are_no_manifest(victim: Victim) -> None:
    (victim / "edgedec.json").write_bytes(b"\xff\xfe{}")
    assert "edgedec.json" in victim.complaint()
    with (victim / "edgedec.json").open("wb") as file:
        file.truncate(1 << 33)  # sparse: nothing but a size
    assert "too large" in victim.complaint()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"{}",
        b"[" * 200_000,
        b'{"version": "1.0", "model": {"type": "BPE"}}',
        b"\xff" * 64,
    ],
    ids=range(6),
)
def test_tokenizers(victim: Victim, data: bytes) -> None:
    (victim / "tokenizer.json").write_bytes(data)
    victim.rehash()
    assert "tokenizer" in victim.complaint()


def test_a_tokenizer_of_another_model(victim: Victim) -> None:
    """Its ids are larger than the embedding has rows."""
    value = json.loads((victim / "tokenizer.json").read_text())
    value["model"]["vocab"] = {word: 40 + i for i, word in enumerate(value["model"]["vocab"])}
    value["added_tokens"], value["post_processor"] = [], None
    (victim / "tokenizer.json").write_text(json.dumps(value))
    victim.rehash()
    with pytest.raises(InputError, match="is this the model's own tokenizer"):
        edgedec.load(victim.folder, threads=1).generate("abc")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("decoder_start_token_id", 32),
        ("decoder_start_token_id", 2**31 - 1),
        ("forced_bos_token_id", 32),
        ("forced_eos_token_id", 2**31 - 1),
    ],
)
def test_tokens_that_the_model_does_not_have(victim: Victim, key: str, value: int) -> None:
    victim.manifest(set_path(f"generation.{key}", value))
    assert "vocabulary" in victim.complaint(InputError)


@pytest.mark.parametrize("key", ["pad_token_id", "eos_token_ids", "suppress_tokens"])
def test_tokens_that_need_not_exist(victim: Victim, key: str) -> None:
    tokens = edgedec.load(victim.folder, threads=1).generate([[3, 4, 1], [5, 1]], max_new_tokens=4)
    value = 2**31 - 1 if key == "pad_token_id" else [2**31 - 1]
    victim.manifest(set_path(f"generation.{key}", value))
    again = edgedec.load(victim.folder, threads=1).generate([[3, 4, 1], [5, 1]], max_new_tokens=4)
    assert [r.tokens for r in again] == [r.tokens for r in tokens]


def test_no_bundle_at_all(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none", Path("/dev/null"), tmp_path / ("n" * 300)):
        with pytest.raises(BundleError):
            edgedec.load(path)
    with pytest.raises(EdgedecError):
        edgedec.load("a\0b")
