"""Reading protobuf's wire format, stricter than protobuf does.

https://protobuf.dev/programming-guides/encoding: a message is a row of fields, each a tag
(number and wire type) and a value. Only what is needed to walk over a message is here, so
that a hostile one can be looked at without the code that would build objects of it.
"""

from collections.abc import Iterator

from runtime.errors import UnsafeBundle

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
_WIDTHS = {FIXED64: 8, FIXED32: 4}
_MAX_TAG_BYTES, _MAX_VARINT_BYTES = 5, 10

Value = int | memoryview
"""Of a varint the number, of all others the bytes."""


def fields(message: memoryview) -> Iterator[tuple[int, Value]]:
    """The fields of a message as (number, value), in their order.

    Raises:
        UnsafeBundle: it ends in the middle of one, or holds something that no message does.
    """
    at = 0
    while at < len(message):
        tag, at = _varint(message, at, _MAX_TAG_BYTES)
        number, kind = tag >> 3, tag & 7
        if number == 0 or tag >= 1 << 32:
            raise UnsafeBundle(f"a field has the number {number}, which does not exist")
        if kind == VARINT:
            value, at = _varint(message, at, _MAX_VARINT_BYTES)
            yield number, value
            continue
        if kind == LENGTH:
            size, at = _varint(message, at, _MAX_VARINT_BYTES)
        elif kind in _WIDTHS:
            size = _WIDTHS[kind]
        else:
            raise UnsafeBundle(f"a field has the wire type {kind}, which is not in use")
        if size > len(message) - at:
            raise UnsafeBundle(f"a field of {size} bytes has {len(message) - at} left")
        yield number, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int, most: int) -> tuple[int, int]:
    """A number of seven bits per byte, the lowest first, and where it ends."""
    value = 0
    for k, byte in enumerate(message[at : at + most]):
        value |= (byte & 0x7F) << (7 * k)
        if byte < 0x80:
            return value, at + k + 1
    raise UnsafeBundle("a number does not end")
