"""docs/protocol.md says what the code speaks: bytes, flags, limits, codes, requests."""

import re
import struct

import pytest

from docs import vectors
from runtime.messages import (
    HEADER_SIZE,
    ActionFlag,
    Code,
    Kind,
    Limit,
    ObservationFlag,
    error_frame,
    planes,
    unpack,
)
from runtime.requests import REQUESTS

PAGE = vectors.PAGE.read_text()
HEX_BLOCKS = [block.split("```")[0] for block in PAGE.split("```hex\n")[1:]]
MERMAID = [block.split("```")[0] for block in PAGE.split("```mermaid\n")[1:]]


def rows(header: str) -> list[list[str]]:
    """The cells of the table whose first line begins so, without its two heading lines."""
    _, _, rest = PAGE.partition(f"\n| {header}")
    lines = f"| {header}{rest}".split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]


def test_the_page_has_the_vectors_that_the_script_makes():
    assert vectors.updated(PAGE) == PAGE, "run python -m docs.vectors"
    assert [bytes.fromhex(block) for block in HEX_BLOCKS] == [v.frame() for v in vectors.VECTORS]


def test_a_page_without_its_markers_is_not_written_over():
    with pytest.raises(ValueError, match="has not both markers"):
        vectors.updated(PAGE.replace(vectors.END, ""))


@pytest.mark.parametrize(("vector", "block"), list(zip(vectors.VECTORS, HEX_BLOCKS, strict=True)))
def test_a_vector_parses_and_packs_back_bit_for_bit(vector, block):
    frame = bytes.fromhex(block)
    header = unpack(frame)
    assert header == vector.header
    payload = frame[HEADER_SIZE:]
    if header.kind == Kind.ERROR:
        text = payload.decode()
        assert text == vector.payload
        assert error_frame(Code(header.status), text, header.session, header.seq) == frame
    else:
        assert len(payload) == 4 * (header.first + header.second)
        assert header.pack() + struct.pack(f"<{len(payload) // 4}f", *vector.payload) == frame


def test_the_first_vectors_are_the_bytes_worked_out_by_hand():
    observation = bytes.fromhex(HEX_BLOCKS[0])
    assert observation[:8] == b"ADPT\x01\x01\x05\x00"
    assert observation[8:24] == bytes([42, *[0] * 7, 7, *[0] * 7])
    assert observation[24:32] == (1_000_000_000).to_bytes(8, "little")
    assert observation[32:36] == b"\x00\x00\x00\xbf"  # -0.5
    assert observation[40:44] == b"\x02\x00\x01\x00" and len(observation) == 64 + 12
    action = bytes.fromhex(HEX_BLOCKS[1])
    assert action[36:57].hex(" ", 4) == "01 00000001 00010000 00010084 030000a0 8c000002"
    assert action[64:] == b"\x00\x00\x80\x3f\x00\x00\xc0\x3f"  # 1 and 1.5


@pytest.mark.parametrize(
    ("header", "members"),
    [
        ("observation flag |", ObservationFlag),
        ("action flag |", ActionFlag),
        ("limit |", Limit),
        ("code |", Code),
    ],
)
def test_the_page_names_every_flag_limit_and_code_and_no_other(header, members):
    found = {(int(cells[0]), cells[1].strip("`")) for cells in rows(header)}
    assert found == {(member.value, member.name) for member in members}


def test_the_page_names_every_plane():
    assert [cells[0] for cells in rows("plane |")] == list(planes("ipc:///x")._fields)


def test_the_page_names_every_request_with_its_keys_and_no_other():
    documented = {
        cells[0].strip("`"): {key.rstrip("*") for key in re.findall(r"`([^`]+)`", cells[1])}
        for cells in rows("op |")
    }
    accepted = {}
    for model in REQUESTS:
        fields = dict(model.model_fields)
        (op,) = fields.pop("op").annotation.__args__
        accepted[op] = set(fields) - {"version"}
    assert documented == accepted


def test_the_state_diagrams_have_no_state_without_a_way_in():
    """And none that mermaid could not read: it ends a label at a colon or a semicolon."""
    assert len(MERMAID) == 4
    for block in MERMAID:
        first, *lines = block.strip().splitlines()
        assert first == "stateDiagram-v2"
        entered, left, declared = set(), set(), set()
        for line in lines:
            arrow = re.fullmatch(r"    (\[\*\]|\w+) --> (\[\*\]|\w+)(: [^:;]+)?", line)
            note = re.fullmatch(r"    note right of (\w+): [^:;]+", line)
            state = re.fullmatch(r'    state "[^":;]+" as (\w+)', line)
            assert arrow or note or state, line
            if arrow:
                left.add(arrow[1])
                entered.add(arrow[2])
            else:
                declared.add((note or state)[1])
        assert left | declared <= entered | {"[*]"}
        assert entered <= left | {"[*]"}
