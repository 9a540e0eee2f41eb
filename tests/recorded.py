"""Recorded sessions made by hand, with numbers that can be worked out on paper."""

import numpy as np

from runtime.messages import ActionFlag, ObservationFlag
from runtime.recording.ticks import RecordedSession, RecordedTick
from runtime.spec import Manifest
from tests.bundles import make_manifest

EPISODE, TASK = int(ObservationFlag.EPISODE_START), int(ObservationFlag.NEW_TASK)
SWAPPED, GAP, FRESH = (int(ActionFlag[n]) for n in ("SWAPPED", "GAP", "FRESH"))
BEGAN_NS = 1_790_000_000_000_000_000
BELIEF = [
    {"name": "mean", "shape": [1], "role": "mean"},
    {"name": "variance", "shape": [1], "role": "variance"},
]


def manifest_of(name="counter", version=1, **changes):
    """A manifest of the hand-made policy that believes in its one task parameter."""
    facts = make_manifest(name, version, 2, False, **({"belief": BELIEF} | changes))
    record = {"sha256": "0" * 64, "size": 0}
    files = {"policy.onnx": record, "golden.safetensors": record}
    return Manifest.model_validate(facts | {"files": files})


def tick(seq, at_s, **changes):
    """A tick of counter@1: rewarded by 1, believing in 0.5 with a variance of 0.04."""
    told = {
        "observation": np.zeros(2, np.float32), "echo": np.zeros(0, np.float32),
        "observation_flags": 0, "sent_ns": 0, "reward": 1.0, "received_ns": 0,
        "requested": np.array([1.0, 0.5], np.float32), "applied": np.array([1.0, 0.5], np.float32),
        "limits": 0, "flags": 0, "generation": 0, "policy": "counter@1",
        "belief": np.array([0.5, 0.04], np.float32), "adaptation": 1, "queue_us": 10.0,
        "inference_us": 30.0,
    }  # fmt: skip
    return RecordedTick(seq=seq, at_ns=BEGAN_NS + round(1e9 * at_s), **(told | changes))


def session(ticks, events=(), manifests=None):
    """A recorded session of these ticks."""
    known = {"counter@1": manifest_of()} if manifests is None else manifests
    return RecordedSession(7, "by hand", list(ticks), list(events), manifests=known)


def long_session(ticks=3000, hz=20.0):
    """One whose belief narrows over episodes of 100 ticks, with a swap in the middle."""
    rng = np.random.default_rng(0)
    told = []
    for i in range(ticks):
        known = i % (ticks // 2) / (ticks // 2)
        action = np.clip(8 * np.sin(i / 9 + np.arange(2)) * [1, 0.2], -10, 10).astype(np.float32)
        asked = action + np.float32(4 * (i % 50 == 0))
        told.append(
            tick(
                i, i / hz,
                observation_flags=TASK if i == 0 else EPISODE if i % 100 == 0 else 0,
                reward=float(known + 0.1 * rng.standard_normal()),
                applied=action, requested=asked, limits=2 * int(i % 50 == 0),
                belief=np.array([0.7 * known, 0.1 * (1 - known) ** 2 + 1e-4], np.float32),
                adaptation=0 if known < 0.1 else 1 if known < 0.5 else 2,
                generation=int(i >= ticks // 2), flags=SWAPPED if i == ticks // 2 else 0,
                policy="counter@2" if i >= ticks // 2 else "counter@1",
                queue_us=float(rng.gamma(2, 10)), inference_us=40.0,
            )
        )  # fmt: skip
    manifests = {f"counter@{v}": manifest_of(version=v) for v in (1, 2)}
    event = {"event": "swap", "session": 7, "seq": ticks // 2, "new": "counter@2",
             "carry": "kept"}  # fmt: skip
    return session(told, [event], manifests)
