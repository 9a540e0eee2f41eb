"""The wire's bytes, against the vectors printed in docs/protocol.md and any garbage."""

import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.errors import InvalidConfig
from runtime.messages import (
    HEADER_SIZE,
    Code,
    FrameError,
    Header,
    Kind,
    error_frame,
    planes,
    unpack,
)

PROTOCOL = Path(__file__).parents[1] / "docs" / "protocol.md"


def test_the_header_is_where_the_byte_table_says():
    header = Header(1, 5, 0x1122334455667788, 9, 10, 1.5, 3, 17, 6, 2, 4, 11, 12, 2)
    expected = b"ADPT" + struct.pack("<BBH", 1, 1, 5)
    expected += struct.pack("<QQQ", 0x1122334455667788, 9, 10)
    expected += struct.pack("<fI", 1.5, 3) + struct.pack("<HHHH", 17, 6, 2, 4)
    expected += struct.pack("<II", 11, 12) + b"\x02" + bytes(7)
    assert header.pack() == expected
    assert len(expected) == HEADER_SIZE == 64
    assert unpack(expected + bytes(4 * 23)) == header


def test_the_documented_vectors_are_the_codes():
    blocks = [b.split("```")[0].split() for b in PROTOCOL.read_text().split("```hex\n")[1:]]
    observation, action, error = (bytes.fromhex("".join(b)) for b in blocks)
    seen = unpack(observation)
    assert (seen.kind, seen.flags, seen.session, seen.seq) == (Kind.OBSERVATION, 5, 42, 7)
    assert (seen.time_ns, seen.reward, seen.first, seen.second) == (1_000_000_000, -0.5, 2, 1)
    assert struct.unpack("<3f", observation[64:]) == (1.0, -2.0, 0.25)
    seen = unpack(action)
    assert (seen.kind, seen.session, seen.seq, seen.generation) == (Kind.ACTION, 42, 7, 1)
    assert (seen.limits, seen.adaptation, seen.queue_ns, seen.inference_ns) == (1, 2, 900, 36000)
    assert struct.unpack("<2f", action[64:]) == (1.0, 1.5)
    seen = unpack(error)
    assert (seen.kind, seen.status) == (Kind.ERROR, Code.UNKNOWN_SESSION)
    assert error == error_frame(Code.UNKNOWN_SESSION, "no session 42", 42, 7)


def test_every_code_is_in_the_protocol():
    text = PROTOCOL.read_text()
    for code in Code:
        assert f"| {code.value} | `{code.name}` |" in text


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
