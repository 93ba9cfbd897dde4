"""A strict reader of the protobuf wire format: fields by number, without generated classes.

SentencePiece models and ONNX files are protobuf messages of which we need a handful of fields.
Walking the wire format takes a page of code and keeps the ``protobuf`` package out of the runtime.
Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator

VARINT = 0
FIXED64 = 1
LENGTH = 2
FIXED32 = 5

_FIXED_SIZES = {FIXED64: 8, FIXED32: 4}
_LARGEST_VARINT = 10  # bytes, seven bits each: enough for 64 bits


def fields(data: bytes | memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """Yield ``(field number, wire type, value)`` for every field of one message, in file order.

    The value of a ``VARINT`` field is an unsigned integer below 2**64 (see :func:`signed`); that of
    a ``LENGTH``, ``FIXED32`` or ``FIXED64`` field is a view into ``data`` (nothing is copied).
    Nested messages are views: call ``fields`` on them. Each byte is looked at once at most, so the
    cost is bounded by the length of ``data``.

    Raises:
        ValueError: the data ends inside a field, a varint has more than 64 bits, a field number is
            0 or above 2**29 - 1, or a wire type is not one of the four above (groups included).
            Fields before the defect have been yielded by then.
    """
    view = memoryview(data).cast("B")
    end = len(view)
    at = 0
    while at < end:
        tag = view[at]
        if tag < 0x80:  # as most are; a call would cost more than the rest
            at += 1
        else:
            tag, at = _varint(view, at)
        number, wire_type = tag >> 3, tag & 7
        if not 0 < number < 1 << 29:
            raise ValueError(f"field number {number} at byte {at} is out of range")
        if wire_type == VARINT:
            value, at = _varint(view, at)
            yield number, wire_type, value
            continue
        if wire_type == LENGTH:
            size, at = _varint(view, at)
        elif wire_type in _FIXED_SIZES:
            size = _FIXED_SIZES[wire_type]
        else:
            raise ValueError(f"field {number} at byte {at} has unsupported wire type {wire_type}")
        if size > end - at:
            raise ValueError(f"field {number} at byte {at} needs {size} bytes, {end - at} are left")
        yield number, wire_type, view[at : at + size]
        at += size


def varints(data: bytes | memoryview) -> Iterator[int]:
    """Yield the unsigned integers of a packed repeated field.

    Raises:
        ValueError: as :func:`fields`.
    """
    view = memoryview(data).cast("B")
    at = 0
    while at < len(view):
        value, at = _varint(view, at)
        yield value


def signed(value: int) -> int:
    """Read an unsigned varint as the two's complement ``int64`` (or ``int32``) that it stores."""
    return value - (1 << 64) if value >= 1 << 63 else value


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    """Return the base-128 integer that starts at byte ``at`` and the position after it."""
    end = len(view)
    if at < end and view[at] < 0x80:  # nearly all of them, in a file with a million
        return view[at], at + 1
    value = shift = 0
    for here in range(at, min(at + _LARGEST_VARINT, end)):
        byte = view[here]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> 64:
                raise ValueError(f"the varint at byte {at} has more than 64 bits")
            return value, here + 1
        shift += 7
    if end - at < _LARGEST_VARINT:
        raise ValueError(f"the varint at byte {at} is cut off by the end of the data")
    raise ValueError(f"the varint at byte {at} is longer than {_LARGEST_VARINT} bytes")
