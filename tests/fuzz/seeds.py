"""Writes the corpus: sound inputs of every kind, for edits to begin with.

python -m tests.fuzz.seeds
"""

import json
import tempfile
from pathlib import Path

from runtime.access.authoriser import DOMAINS
from runtime.layout import FILE_HEADER_SIZE
from runtime.messages import Header, Kind
from runtime.spec import GOLDEN, MANIFEST, POLICY
from tests.bundles import make_graph, write_bundle
from tests.fuzz.targets import CORPUS, Bundle
from tests.hostile_models import looping_adapt
from tests.loops import EPISODE, INVALID, NEW_TASK, Bench, frame
from tests.test_state import leave

LISTED = b"""[robot-1]
keys = ["rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"]
roles = ["drive"]
former = ["JTKVSB%%)wK0E.X)V>+}o?pNmC{O&4W4b!Ni{Lh6"]
sessions = 8 # of its own

[desk]
keys = ["Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID"]
roles = ["observe", "operate"]
messages_per_s = 50.0
"""
REQUESTS = (
    {"op": "open", "policy": "counter@1", "session": 42, "sends_reward": True, "options": {"a": 1}},
    {"op": "close", "session": 42},
    {"op": "swap", "policy": "counter", "migration": "replay", "blend_ticks": 3},
    {"op": "shadow", "policy": None},
    {"op": "options", "session": 42, "values": {"window": 10.0}},
    {"op": "restore", "session": 42, "snapshot": "QUJD"},
    {"op": "status", "after": 7, "count": 100},
)


def _framed(*frames: bytes) -> bytes:
    return b"".join(bytes([len(each)]) + each for each in frames)


def _with_odd_text(slab: bytes) -> bytes:
    """The name of the policy before is no UTF-8: the record's header has no checksum."""
    at = FILE_HEADER_SIZE + 16
    return slab[:at] + b"\xff" + slab[at + 1 :]


def seeds() -> dict[str, dict[str, bytes]]:
    """Inputs by target and name."""
    with tempfile.TemporaryDirectory() as name:
        models = Path(name) / "models"
        folder = write_bundle(models, "counter")
        files = {each: (folder / each).read_bytes() for each in Bundle.FILES}
        bench = Bench(models, ring=4, folder=Path(name) / "state", capacity=2)
        for session in (1, 2):
            bench.open("counter@1", session=session)
            for seq in range(6):
                bench.loop.tick(frame(seq, session=session), 0)
        leave(bench.state)
        (slab,) = (Path(name) / "state").glob("*.slab")
        state = slab.read_bytes()
    return {
        "frame": {
            "first": frame(0),
            "applied": frame(1, applied=(0.5, 0.5), reward=1.0),
            "episode": frame(2, flags=EPISODE),
            "task": frame(3, flags=NEW_TASK | INVALID),
            "far": frame(2**63),
            "long": Header(Kind.OBSERVATION, 4, 42, 4, 0, first=9, second=9).pack() + bytes(72),
        },
        "request": {r["op"]: json.dumps({"version": 1, **r}).encode() for r in REQUESTS},
        "manifest": {"counter": files[MANIFEST]},
        "model": {"policy": make_graph(), "adapt": looping_adapt(3, depth=2)},
        "slab": {"two-sessions": state, "text-that-is-none": _with_odd_text(state)},
        "question": {
            plane: _framed(b"1.0", b"1", domain, b"10.0.0.7", b"id", b"CURVE", bytes(range(32)))
            for domain, plane in DOMAINS.items()
        },
        "allowlist": {"two-clients": LISTED},
        "bundle": {
            "manifest": b"\0" + files[MANIFEST],
            "graph": b"\1" + files[POLICY],
            "golden": b"\2" + files[GOLDEN],
        },
    }


def main() -> None:
    """Write them; what was found by fuzzing and put beside them stays."""
    for target, inputs in seeds().items():
        (CORPUS / target).mkdir(parents=True, exist_ok=True)
        for name, data in inputs.items():
            (CORPUS / target / name).write_bytes(data)


if __name__ == "__main__":
    main()
