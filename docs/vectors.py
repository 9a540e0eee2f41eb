"""The test vectors of docs/protocol.md, made by the code that speaks the protocol.

python -m docs.vectors            writes them between the page's two markers
python -m docs.vectors --check    fails if the page is behind
"""

import struct
import sys
from pathlib import Path
from textwrap import fill
from typing import NamedTuple

from runtime.messages import (
    ActionFlag,
    Adaptation,
    Code,
    Header,
    Kind,
    Limit,
    ObservationFlag,
)

PAGE = Path(__file__).parent / "protocol.md"
BEGIN = "<!-- vectors: written by docs/vectors.py -->"
END = "<!-- end of vectors -->"
BYTES_PER_LINE = 16
PAGE_WIDTH = 118


class Vector(NamedTuple):
    """One message and what it says."""

    sentence: str
    header: Header
    payload: tuple[float, ...] | str
    """Numbers, the first vector and then the second; or the sentence of an error."""

    def frame(self) -> bytes:
        """The message's bytes."""
        if isinstance(self.payload, str):
            return self.header.pack() + self.payload.encode()
        return self.header.pack() + struct.pack(f"<{len(self.payload)}f", *self.payload)


def _error(sentence: str, code: Code, text: str, seq: int) -> Vector:
    header = Header(Kind.ERROR, 0, 42, seq, 0, first=len(text.encode()), status=code)
    return Vector(sentence, header, text)


_BOUNDED = Header(
    Kind.ACTION, 0, 42, 7, 1_000_500_000, generation=1, first=1, second=1, limits=Limit.BOUNDS,
    queue_ns=900, inference_ns=36_000, adaptation=Adaptation.ADAPTED,
)  # fmt: skip

VECTORS = (
    Vector(
        "An observation of session 42, seq 7: a new episode (flag 1) with an applied action "
        "(flag 4), time 1 s, reward -0.5, observation (1, -2), applied action (0.25):",
        Header(
            Kind.OBSERVATION, ObservationFlag.EPISODE_START | ObservationFlag.APPLIED_ACTION,
            42, 7, 1_000_000_000, -0.5, first=2, second=1,
        ),
        (1.0, -2.0, 0.25),
    ),
    Vector(
        "Its answer: the policy requested 1.5 and was bounded to 1; arrived at 1.0005 s of the "
        "daemon's clock, generation 1, adapted, 900 ns queued, 36 us inference:",
        _BOUNDED,
        (1.0, 1.5),
    ),
    Vector(
        "The answer again, because seq 7 was sent again (flag 1):",
        _BOUNDED._replace(flags=ActionFlag.REPEATED),
        (1.0, 1.5),
    ),
    Vector(
        "An observation that its sender does not trust (flag 8), seq 8:",
        Header(Kind.OBSERVATION, ObservationFlag.INVALID, 42, 8, 1_050_000_000, first=2),
        (1.0, -2.0),
    ),
    Vector(
        "An answer to seq 9, from the prior and with a newer observation waiting (flags 8 and "
        "16); the observation was too old (limit 16), so the fallback 0 is sent where the policy "
        "requested 0.75; generation 2, unadapted:",
        Header(
            Kind.ACTION, ActionFlag.FRESH | ActionFlag.SUPERSEDED, 42, 9, 1_400_000_000,
            generation=2, first=1, second=1, limits=Limit.STALE, queue_ns=300_000_000,
            inference_ns=36_000, adaptation=Adaptation.UNADAPTED,
        ),
        (0.0, 0.75),
    ),
    _error(
        'An error, `UNKNOWN_SESSION`, saying "no session 42":',
        Code.UNKNOWN_SESSION, "no session 42", seq=7,
    ),
    _error(
        'An error, `TWO_WAYS`, saying "session 42 is driven by the stream":',
        Code.TWO_WAYS, "session 42 is driven by the stream", seq=10,
    ),
)  # fmt: skip


def section() -> str:
    """The page's part between the markers."""
    return "\n\n".join(
        f"{fill(v.sentence, PAGE_WIDTH)}\n\n```hex\n{_dump(v.frame())}\n```" for v in VECTORS
    )


def _dump(frame: bytes) -> str:
    starts = range(0, len(frame), BYTES_PER_LINE)
    return "\n".join(frame[i : i + BYTES_PER_LINE].hex(" ") for i in starts)


def updated(page: str) -> str:
    """The page with the vectors as they are now.

    Raises:
        ValueError: the page has not the two markers.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{PAGE} has not both markers: {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{section()}\n\n{END}{after}"


def main() -> int:
    """Write the page, or compare it; the exit status."""
    page = PAGE.read_text()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(updated(page))
    elif page != updated(page):
        print(f"{PAGE} is behind: run python -m docs.vectors")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
