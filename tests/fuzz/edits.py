"""What noise does to bytes: a row of edits, drawn by hypothesis or by a generator of one's own."""

from random import Random
from typing import NamedTuple

from hypothesis import strategies as st

ODD = (b"\0", b"\xff", b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\xff\xff\xff\x7f", b"\xff" * 8,
       b"\x80" * 10, b"\0" * 64, b"NaN", b"1e999", b"-1", b'"', b"[" * 50, b"../", b"\xed\xa0\x80",
       b"ORTM")  # fmt: skip
"""Bytes that readers tend to trip over: signs, NaN, infinity, ends of integers, nesting."""
MOST_EDITS = 4
LONGEST = 16


class Edit(NamedTuple):
    """Take some bytes away, and put others there."""

    at: float
    """Where, as a fraction of the length."""
    cut: int
    """How many bytes are taken away; -1: all that follow."""
    put: bytes

    def apply(self, data: bytes) -> bytes:
        at = int(self.at * len(data))
        return data[:at] + self.put + (b"" if self.cut < 0 else data[at + self.cut :])


def edited(data: bytes, edits: list[Edit]) -> bytes:
    """The bytes after a row of edits."""
    for edit in edits:
        data = edit.apply(data)
    return data


def random_edits(rng: Random) -> list[Edit]:
    """One to `MOST_EDITS` edits; most leave the length as it is."""
    return [_random_edit(rng) for _ in range(rng.randint(1, MOST_EDITS))]


def _random_edit(rng: Random) -> Edit:
    put = rng.choice(ODD) if rng.random() < 0.4 else rng.randbytes(rng.randint(0, LONGEST))
    kind = rng.random()
    cut = len(put) if kind < 0.6 else rng.randint(0, LONGEST) if kind < 0.95 else -1
    return Edit(rng.random(), cut, put)


drawn_edits = st.lists(
    st.builds(
        Edit,
        st.integers(0, 9999).map(lambda n: n / 10_000),  # floats want subnormal numbers, ORT none
        st.integers(-1, LONGEST),
        st.sampled_from(ODD) | st.binary(max_size=LONGEST),
    ),
    max_size=MOST_EDITS,
)
