"""The wire's bytes, against the byte table of docs/protocol.md and any garbage."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.errors import InvalidConfig
from runtime.messages import (
    HEADER_SIZE,
    Code,
    FrameError,
    Header,
    planes,
    unpack,
)


def test_the_header_is_where_the_byte_table_says():
    header = Header(1, 5, 0x1122334455667788, 9, 10, 1.5, 3, 17, 6, 2, 4, 11, 12, 2)
    expected = b"ADPT" + struct.pack("<BBH", 1, 1, 5)
    expected += struct.pack("<QQQ", 0x1122334455667788, 9, 10)
    expected += struct.pack("<fI", 1.5, 3) + struct.pack("<HHHH", 17, 6, 2, 4)
    expected += struct.pack("<II", 11, 12) + b"\x02" + bytes(7)
    assert header.pack() == expected
    assert len(expected) == HEADER_SIZE == 64
    assert unpack(expected + bytes(4 * 23)) == header


@settings(max_examples=2000, deadline=None)
@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda b: b"ADPT\x01" + b))
def test_any_bytes_are_a_message_or_a_coded_error(frame):
    try:
        header = unpack(frame)
    except FrameError as error:
        assert error.code in (Code.MALFORMED, Code.WRONG_VERSION, Code.WRONG_SIZE)
    else:
        assert len(frame) >= HEADER_SIZE
        assert header.version == 1


def test_an_endpoint_is_four_addresses():
    assert planes("ipc:///run/a") == (
        "ipc:///run/a-data",
        "ipc:///run/a-control",
        "ipc:///run/a-tap",
        "ipc:///run/a-stream",
    )
    assert planes("tcp://127.0.0.1:5700")[2] == "tcp://127.0.0.1:5702"
    for bad in ("", "ipc://", "tcp://host", "tcp://:1", "http://a:1", "tcp://a:65535"):
        with pytest.raises(InvalidConfig, match="expected ipc://PATH or tcp://HOST:PORT"):
            planes(bad)
