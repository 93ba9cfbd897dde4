"""The wire reader against hand-made messages and against random bytes."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgedec.runtime.protobuf import FIXED32, FIXED64, LENGTH, VARINT, fields, signed, varints


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def encode(number: int, wire_type: int, value: int | bytes) -> bytes:
    tag = varint(number << 3 | wire_type)
    if isinstance(value, int):
        return tag + varint(value)
    return tag + (varint(len(value)) if wire_type == LENGTH else b"") + value


def plain(data: bytes) -> list[tuple[int, int, int | bytes]]:
    return [(n, w, v if isinstance(v, int) else bytes(v)) for n, w, v in fields(data)]


NUMBERS = st.integers(1, (1 << 29) - 1)
FIELDS = st.one_of(
    st.tuples(NUMBERS, st.just(VARINT), st.integers(0, (1 << 64) - 1)),
    st.tuples(NUMBERS, st.just(LENGTH), st.binary(max_size=300)),
    st.tuples(NUMBERS, st.just(FIXED32), st.binary(min_size=4, max_size=4)),
    st.tuples(NUMBERS, st.just(FIXED64), st.binary(min_size=8, max_size=8)),
)


@settings(deadline=None)
@given(st.lists(FIELDS, max_size=20))
def test_round_trip(message: list[tuple[int, int, int | bytes]]) -> None:
    assert plain(b"".join(encode(*field) for field in message)) == message


@settings(deadline=None)
@given(st.lists(FIELDS, min_size=1, max_size=5), st.data())
def test_a_cut_message_is_refused_or_ends_between_fields(
    message: list[tuple[int, int, int | bytes]], data: st.DataObject
) -> None:
    whole = [encode(*field) for field in message]
    joined = b"".join(whole)
    cut = data.draw(st.integers(0, len(joined)))
    ends = {sum(map(len, whole[:count])) for count in range(len(whole) + 1)}
    if cut in ends:
        plain(joined[:cut])
    else:
        with pytest.raises(ValueError, match="byte"):
            plain(joined[:cut])


@settings(deadline=None)
@given(st.binary(max_size=500))
def test_random_bytes_yield_fields_or_a_value_error(data: bytes) -> None:
    try:
        found = plain(data)
    except ValueError:
        return
    assert len(found) <= len(data)


@settings(deadline=None)
@given(st.lists(st.integers(0, (1 << 64) - 1)))
def test_packed_integers(values: list[int]) -> None:
    assert list(varints(b"".join(map(varint, values)))) == values


@settings(deadline=None)
@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_signed(value: int) -> None:
    assert signed(struct.unpack("<Q", struct.pack("<q", value))[0]) == value


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x08" + b"\x80" * 10 + b"\x01", "longer than 10 bytes"),
        (b"\x08" + b"\xff" * 9 + b"\x02", "more than 64 bits"),
        (b"\x08\x80", "cut off"),
        (b"\x0a\x05abc", "needs 5 bytes"),
        (b"\x0a\xff\xff\xff\xff\x0fabc", "3 are left"),
        (b"\x0b", "unsupported wire type 3"),
        (b"\x0f", "wire type 7"),
        (b"\x00\x00", "field number 0"),
        (varint(1 << 32) + b"\x00", "out of range"),
    ],
)
def test_defects_are_named(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        plain(data)


def test_views_do_not_copy() -> None:
    data = bytearray(encode(1, LENGTH, b"abc"))
    ((_, _, value),) = fields(memoryview(data))
    assert isinstance(value, memoryview)
    data[-1:] = b"d"
    assert bytes(value) == b"abd"
