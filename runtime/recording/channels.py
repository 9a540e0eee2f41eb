"""What a recording holds: its topics, and a JSON schema for each.

Topics are ``/SESSION/NAME``. All numbers are those of the wire: float32 values are written
so that they read back to the bit (NaN as null). docs/recordings.md describes them for people.
"""

import json
import platform
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

MACHINE = "machine"
"""Metadata: what ticks were computed on; bits may differ on another one."""
FORMAT = "adaptd-recording-1"
PROFILE = "adaptd"
STATUS_TOPIC = "/status"
RECORDER_TOPIC = "/recorder"
MANIFEST_MEDIA, CHECKPOINT_MEDIA = "application/json", "application/x-safetensors"

_INTEGER, _NUMBER = {"type": "integer"}, {"type": "number"}
_NUMBERS = {"type": "array", "items": {"type": ["number", "null"]}}
_WORDS = {"type": "array", "items": {"type": "string"}}
_SEQ = {"seq": {"type": "integer", "description": "Sequence number of the tick."}}


def _say(kind: dict[str, Any], description: str) -> dict[str, Any]:
    return {**kind, "description": description}


PER_TICK: dict[str, dict[str, Any]] = {
    "observation": {
        "values": _say(_NUMBERS, "As the robot sent them; names and units are in the manifest."),
        "flags": _say(_INTEGER, "ObservationFlag of docs/protocol.md."),
        "sent_ns": _say(_INTEGER, "Sender's monotonic clock [ns]."),
        "echo": _say(_NUMBERS, "The action the robot says it applied before; left out if none."),
    },
    "action": {
        "requested": _say(_NUMBERS, "What the policy wanted."),
        "applied": _say(_NUMBERS, "What was sent: after the guard."),
        "limited_by": _say(_WORDS, "Limits that acted."),
        "limits": _say(_INTEGER, "The same, as Limit of docs/protocol.md."),
        "flags": _say(_INTEGER, "ActionFlag of docs/protocol.md."),
        "generation": _say(_INTEGER, "Counts the session's policies."),
        "policy": _say({"type": ["string", "null"]}, "name@version; null if not known yet."),
    },
    "reward": {"reward": _say({"type": ["number", "null"]}, "Of the step that led here.")},
    "belief": {
        "values": _say(_NUMBERS, "All belief outputs in the manifest's order; empty if no step."),
        "adaptation": _say({"type": "string"}, "unadapted, adapting, adapted or invalid."),
        "level": _say(_INTEGER, "The same as 0, 1, 2, 3."),
    },
    "timing": {
        "received_ns": _say(_INTEGER, "Daemon's monotonic clock [ns]."),
        "queue_us": _say(_NUMBER, "From arrival to the step [us]."),
        "inference_us": _say(_NUMBER, "Of the policy [us]."),
    },
}
"""Channels with one message per tick, and their fields besides `seq`."""
BOUNDARY = {
    "kinds": _say(_WORDS, "new_task, episode_start, gap, fresh: what lies before this tick."),
}
SPARSE = ("boundary", "event")
"""Channels with a message where something happens."""


def schema(name: str) -> bytes:
    """The JSON schema of a channel, by the last part of its topic."""
    if name in PER_TICK or name == "boundary":
        fields = PER_TICK.get(name, BOUNDARY)
        content = {"type": "object", "properties": {**_SEQ, **fields}, "required": ["seq"]}
    else:  # events, status: any keys
        content = {"type": "object"}
    return json.dumps({"title": f"adaptd.{name}", **content}).encode()


@cache
def this_machine() -> dict[str, str]:
    """The processor and the ONNX Runtime here, on which the bits of an action depend."""
    said = {"model name": platform.processor() or platform.machine(), "flags": ""}
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() in said:
                said[name.strip()] = value.strip()
    wide = sorted(f for f in said["flags"].split() if f.startswith(("avx", "fma", "amx")))
    return {
        "processor": said["model name"],
        "instructions": " ".join(wide),
        "onnxruntime": version("onnxruntime"),
    }


def topic(session: int, name: str) -> str:
    """Of a session's channel."""
    return f"/{session}/{name}"


def split_topic(text: str) -> tuple[int, str] | None:
    """Session and name of a topic; None if it is not a session's."""
    _, session, name = [*text.split("/"), "", ""][:3]
    return (int(session), name) if session.isdigit() and name else None
