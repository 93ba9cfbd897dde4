"""The strict decoder against an independent JSON Schema validator, and the manifest both ways."""

from __future__ import annotations

import copy
import dataclasses
import json
import string
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgedec.errors import BundleError, EdgedecError
from edgedec.runtime.generation import GenerationConfig
from edgedec.runtime.manifest import (
    CodebookMatrix,
    CodebookPart,
    Codebooks,
    Component,
    FileEntry,
    Interface,
    Manifest,
    Rounding,
    Source,
    Stage,
    Verified,
    dump_manifest,
    load_manifest,
)
from edgedec.runtime.schema import SchemaError, decode, encode, json_schema

SCHEMA = json_schema(Manifest)
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)

numbers = st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(string.printable[:95] + "äß漢字🙂", max_size=12)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 2**40) | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)


@st.composite
def codebooks(draw: st.DrawFn, components: st.SearchStrategy[str]) -> Codebooks:
    """Any block of codebook weights."""

    def matrix(heights: list[int]) -> CodebookMatrix:
        parts = tuple(CodebookPart(f"m.{i}", rows) for i, rows in enumerate(heights))
        bits = draw(st.sampled_from([2, 3, 4, 8]))
        size = st.integers(1, 1 << 20)
        return CodebookMatrix(sum(heights), draw(size), bits, draw(size), parts)

    computes = ["int8", "int8-block", "bf16", "fp32"]
    heights = st.lists(st.integers(1, 1 << 20), min_size=1, max_size=3)
    return Codebooks(
        scheme=draw(texts),
        compute=draw(st.sampled_from(computes)),
        portable=draw(st.booleans()),
        rounding=draw(st.none() | st.builds(Rounding, numbers, numbers)),
        matrices=draw(
            st.dictionaries(
                components, st.dictionaries(texts, heights.map(matrix), max_size=2), max_size=2
            )
        ),
    )


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    """Any manifest whose parts fit each other."""
    encoder = draw(st.booleans())
    cuts = sorted(draw(st.sets(st.integers(1, 20), min_size=1, max_size=4)))
    stages = tuple(Stage(f"d.{a}", a, z) for a, z in zip([0, *cuts], cuts, strict=False))
    head = "head" if len(stages) > 1 else draw(st.sampled_from([None, "head"]))
    names = [s.component for s in stages] + ["encoder"] * encoder + [head] * (head is not None)
    components = {str(n): Component(f"{n}.onnx", draw(texts), draw(texts)) for n in names}
    entries = st.builds(FileEntry, st.integers(0, 2**50), st.text("0123456789abcdef", max_size=64))
    files = draw(st.dictionaries(texts, entries, max_size=3))
    files |= {c.file: draw(entries) for c in components.values()}
    sizes = st.integers(1, 1 << 24)
    limits = st.none() | st.integers(1, 1 << 30)
    tokens = st.integers(0, 99999)
    return Manifest(
        schema_version=1,
        producer=draw(texts),
        source=draw(st.builds(Source, texts, st.none() | texts, texts)),
        model=draw(st.dictionaries(texts, values, max_size=3)),
        interface=Interface(
            architecture="encoder-decoder" if encoder else "decoder-only",
            vocab_size=draw(sizes),
            d_model=draw(sizes),
            decoder_layers=cuts[-1],
            kv_width=draw(sizes),
            max_source=draw(limits),
            max_target=draw(limits),
        ),
        components=components,
        encoder="encoder" if encoder else None,
        stages=stages,
        head=head,
        generation=draw(
            st.builds(
                GenerationConfig,
                max_new_tokens=st.none() | st.integers(1, 9999),
                num_beams=st.integers(1, 9),
                length_penalty=st.floats(-10, 10),
                early_stopping=st.sampled_from([True, False, "never"]),
                top_p=st.floats(0, 1),
                eos_token_ids=st.lists(tokens, max_size=3).map(tuple),
                bad_words_ids=st.lists(st.lists(tokens, min_size=1, max_size=3), max_size=2),
            )
        ),
        parameters=draw(st.integers(0, 10**12)),
        verified=draw(st.none() | st.builds(Verified, numbers, numbers, st.integers(0, 99))),
        files=files,
        policies=draw(st.dictionaries(texts, st.dictionaries(texts, values, max_size=2))),
        codebooks=draw(st.none() | codebooks(st.sampled_from(sorted(components)))),
    )


@given(manifests())
def test_round_trip(manifest: Manifest) -> None:
    text = dump_manifest(manifest)
    assert load_manifest(text) == manifest
    assert dump_manifest(load_manifest(text)) == text
    VALIDATOR.validate(json.loads(text))


@given(manifests(), st.data())
@settings(max_examples=150)
def test_mutated_values_are_judged_alike(manifest: Manifest, data: st.DataObject) -> None:
    """Replace, remove or add something anywhere: both say yes or both say no."""
    value = json.loads(dump_manifest(manifest))
    inner: Any = value
    while True:
        keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
        key = data.draw(st.sampled_from(keys), "key")
        if not isinstance(inner[key], dict | list) or not inner[key] or data.draw(st.booleans()):
            break
        inner = inner[key]
    change = data.draw(st.sampled_from(["replace", "remove", "add", "move", "whole"]), "change")
    if change == "replace":
        inner[key] = data.draw(values, "value")
    elif change == "remove":
        del inner[key]
    elif change == "whole" and type(inner[key]) is int:
        inner[key] = float(inner[key])  # JSON knows one kind of number
    elif isinstance(inner, dict):
        inner[data.draw(texts, "new key")] = inner[key] if change == "move" else None
    else:
        inner.append(inner[key])
    valid = VALIDATOR.is_valid(value)
    try:
        decoded = decode(Manifest, copy.deepcopy(value))
    except SchemaError:
        accepted = False
    except EdgedecError:
        return  # the generation block knows ranges that the schema does not
    else:
        accepted = True
        assert decode(Manifest, encode(decoded)) == decoded
    assert accepted == valid


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@dataclasses.dataclass(frozen=True)
class Every:
    """Every kind of annotation the decoder knows."""

    text: str
    flag: bool
    pairs: tuple[tuple[int, ...], ...]
    table: dict[str, float]
    choice: bool | str | None = None


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (None, "the file must be an object"),
        ([], "the file must be an object"),
        ({}, "text is missing"),
        ({"text": 1}, "flag is missing"),
        ({"text": 1, "flag": True, "pairs": [], "table": {}}, "text must be of type string"),
        ({"text": "", "flag": 0, "pairs": [], "table": {}}, "flag must be of type boolean"),
        ({"text": "", "flag": True, "pairs": [[], [0, "x"]], "table": {}}, "pairs.1.1 must be"),
        ({"text": "", "flag": True, "pairs": {}, "table": {}}, "pairs must be an array"),
        ({"text": "", "flag": True, "pairs": [], "table": {"a": True}}, "table.a must be a finite"),
        ({"text": "", "flag": True, "pairs": [], "table": {"a": 10**400}}, "table.a must be"),
        ({"text": "", "flag": True, "pairs": [], "table": {}, "choice": 1}, "choice must be"),
        ({"text": "", "flag": True, "pairs": [], "table": {}, "x": 1}, "x is not a known key"),
    ],
)
def test_errors_name_the_place(value: Any, path: str) -> None:
    with pytest.raises(SchemaError) as caught:
        decode(Every, value)
    assert str(caught.value).startswith(path)


@given(st.text(max_size=60) | values.map(json.dumps))
def test_any_text_is_a_manifest_or_a_sentence(text: str) -> None:
    with pytest.raises(BundleError, match=r"^edgedec\.json"):
        load_manifest(text)
