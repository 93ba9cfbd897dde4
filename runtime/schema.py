"""Frozen dataclasses as JSON: strict decoding, encoding, and the JSON Schema of both.

The dataclasses are the one description of the file format. ``decode`` accepts exactly the values
that `json_schema` describes (a test compares the two with an independent validator), so the
runtime needs no schema library.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

T = TypeVar("T")

SCALARS = {str: "string", int: "integer", float: "number", bool: "boolean"}
MAX_FLOAT = int(sys.float_info.max)


class SchemaError(ValueError):
    """A value does not fit; the message begins with its path, such as ``stages.1.first``."""


def decode(cls: type[T], value: Any, path: str = "") -> T:
    """Build a dataclass from JSON types.

    Raises:
        SchemaError: a key is missing or unknown, or a value has the wrong type.
    """
    return typing.cast("T", _decode(cls, value, path))


def encode(value: Any) -> Any:
    """The JSON types of a dataclass (tuples as arrays)."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: encode(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [encode(item) for item in value]
    return value


def json_schema(cls: type) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a dataclass."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_schema(cls)}


@functools.cache
def _fields(cls: type) -> dict[str, tuple[Any, bool]]:
    """Name -> (type, whether it has a default)."""
    hints = typing.get_type_hints(cls)
    return {
        f.name: (
            hints[f.name],
            f.default is not dataclasses.MISSING or f.default_factory is not dataclasses.MISSING,
        )
        for f in dataclasses.fields(cls)
    }


def _decode(kind: Any, value: Any, path: str) -> Any:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind):
        return _decode_object(typing.cast("type", kind), value, path)
    if kind in SCALARS:
        return _decode_scalar(kind, value, path)
    if kind is types.NoneType:
        _check(value is None, path, "null", value)
        return None
    if origin is Literal:
        _check(value in args and type(value) in {type(a) for a in args}, path, _words(args), value)
        return value
    if origin in (typing.Union, types.UnionType):
        return _decode_union(args, value, path)
    if origin is tuple:
        _check(isinstance(value, list), path, "an array", value)
        return tuple(_decode(args[0], item, _join(path, i)) for i, item in enumerate(value))
    _check(isinstance(value, dict), path, "an object", value)
    return {key: _decode(args[1], item, _join(path, key)) for key, item in value.items()}


def _decode_object(cls: type, value: Any, path: str) -> Any:
    _check(isinstance(value, dict), path, "an object", value)
    known = _fields(cls)
    for key in value:
        if key not in known:
            raise SchemaError(f"{_join(path, key)} is not a known key")
    for key, (_, optional) in known.items():
        if key not in value and not optional:
            raise SchemaError(f"{_join(path, key)} is missing")
    return cls(**{k: _decode(known[k][0], v, _join(path, k)) for k, v in value.items()})


def _decode_scalar(kind: type, value: Any, path: str) -> Any:
    if kind is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        # what is too large for a float is no number to us either
        _check(number and abs(value) <= MAX_FLOAT, path, "a finite number", value)
        return float(value)
    if kind is int and type(value) is float and value.is_integer():
        return int(value)  # JSON has one kind of number: 1.0 is 1
    _check(type(value) is kind, path, f"of type {SCALARS[kind]}", value)
    return value


def _decode_union(args: tuple[Any, ...], value: Any, path: str) -> Any:
    problems = []
    for arg in args:
        try:
            return _decode(arg, value, path)
        except SchemaError as error:  # noqa: PERF203
            problems.append(str(error))
    raise SchemaError(problems[0])


def _schema(kind: Any) -> dict[str, Any]:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return {}
    if dataclasses.is_dataclass(kind):
        known = _fields(typing.cast("type", kind))
        return {
            "type": "object",
            "properties": {name: _schema(hint) for name, (hint, _) in known.items()},
            "required": [name for name, (_, optional) in known.items() if not optional],
            "additionalProperties": False,
        }
    if kind in SCALARS:
        return {"type": SCALARS[kind]}
    if kind is types.NoneType:
        return {"type": "null"}
    if origin is Literal:
        return {"enum": list(args)}
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_schema(arg) for arg in args]}
    if origin is tuple:
        return {"type": "array", "items": _schema(args[0])}
    return {"type": "object", "additionalProperties": _schema(args[1])}


def _check(fits: bool, path: str, wanted: str, value: Any) -> None:
    if not fits:
        raise SchemaError(f"{path or 'the file'} must be {wanted}, not {str(value)[:40]!r}")


def _words(values: tuple[Any, ...]) -> str:
    return " or ".join(repr(v) for v in values)


def _join(path: str, key: str | int) -> str:
    return f"{path}.{key}" if path else str(key)
