"""A session's adaptation as one file: safetensors with the carry and recent transitions.

What it was made by is in the file's metadata: a snapshot is restored to the same policy
only, whatever daemon or session it comes from.
"""

import json
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from runtime.history import Arrays, Boundary, History
from runtime.json_text import count_values
from runtime.memory import Memory
from runtime.messages import Adaptation
from runtime.sessions import Session
from runtime.spec import Manifest

FORMAT = "adaptd-snapshot-1"
_NOTE = "about"
_MOST_HEADER_BYTES, _MOST_VALUES = 1 << 17, 100
"""Of the file's list of tensors, and of its note: to read more would hold up the control loop."""


class WrongSnapshot(Exception):
    """Bytes that are no snapshot of this policy, and why."""


class Snapshot(NamedTuple):
    """An adaptation, apart from the session it was made in."""

    policy: str
    about: dict[str, Any]
    carry: list[bytes]
    history: History
    options: bytes

    @property
    def adaptation(self) -> Adaptation:
        """The status it had."""
        return Adaptation(self.about["adaptation"])


def take(session: Session) -> Snapshot:
    """A copy of a session's adaptation. In the loop."""
    manifest, fresh = session.policy.manifest, session.start_fresh
    about = {
        "format": FORMAT,
        "policy": session.policy.label,
        "policy_digest": manifest.digest.hex(),
        "carry_digest": manifest.carry_digest.hex(),
        "session": session.id,
        "next_seq": session.next_seq,
        "adaptation": 0 if fresh else int(session.monitor.status),
        "monitor_steps": 0 if fresh else session.monitor.steps,
        "fresh": fresh,
        "generation": session.generation,
        "flags": session.flags(),
        "applied": session.applied.hex(),
    }
    carry = [bytes(value) for value in (session.stepper.prior if fresh else session.carry)]
    history = session.memory.since(session.memory.ring_count if fresh else 0)
    return Snapshot(session.policy.label, about, carry, history, session.options)


def to_bytes(snapshot: Snapshot, manifest: Manifest) -> bytes:
    """The file of a snapshot."""
    arrays: Arrays = {
        f"carry.{c.name}": np.frombuffer(value, c.dtype).reshape(c.shape)
        for c, value in zip(manifest.carry, snapshot.carry, strict=True)
    }
    history = snapshot.history
    about = np.frombuffer(json.dumps(snapshot.about).encode(), np.uint8)
    arrays |= {
        _NOTE: about,
        "options": np.frombuffer(snapshot.options, np.float32),
        "ring.seqs": history.seqs,
        "ring.boundaries": history.boundaries,
        "ring.rows": np.ascontiguousarray(history.rows),
    }
    return save(arrays)


def policy_in(content: bytes) -> str:
    """The policy, ``name@version``, that a snapshot is of; empty where it is none."""
    try:
        return str(json.loads(load(content)[_NOTE].tobytes())["policy"])
    except (SafetensorError, KeyError, ValueError, TypeError):
        return ""


def from_bytes(content: bytes, manifest: Manifest) -> Snapshot:
    """The snapshot in a file, for a session whose policy has this manifest.

    Raises:
        WrongSnapshot: it is none, or of another policy or carry.
    """
    if int.from_bytes(content[:8], "little") > _MOST_HEADER_BYTES:
        raise WrongSnapshot("it is no snapshot: its list of tensors is too long")
    try:
        arrays = load(content)
        note = arrays[_NOTE].tobytes()
        if count_values(note) > _MOST_VALUES:
            raise WrongSnapshot("it is no snapshot: its note is too long")
        about = json.loads(note)
        if about["format"] != FORMAT:
            found = str(about["format"])[:40]
            raise WrongSnapshot(f"its format is {found!r}, expected {FORMAT!r}")
        about["adaptation"] = Adaptation(about["adaptation"])
        if not 0 <= int(about["monitor_steps"]) < 2**32:
            raise WrongSnapshot(f"it was adapted for {about['monitor_steps']} steps")
        about["policy"] = str(about["policy"])[:120]
    except (SafetensorError, KeyError, ValueError, TypeError, OverflowError) as error:
        raise WrongSnapshot(f"it is no snapshot: {str(error)[:200]}") from None
    label = f"{manifest.name}@{manifest.version}"
    if about.get("carry_digest") != manifest.carry_digest.hex():
        raise WrongSnapshot(f"it is of {about.get('policy')}, whose carry has other tensors")
    if about.get("policy_digest") != manifest.digest.hex():
        raise WrongSnapshot(f"it is of {about.get('policy')}, and not of this {label}")
    return _checked(about, arrays, manifest)


def _checked(about: dict[str, Any], arrays: Arrays, manifest: Manifest) -> Snapshot:
    width = manifest.obs_size + manifest.action_size + 2
    count = arrays["ring.seqs"].size if "ring.seqs" in arrays else 0
    expected: dict[str, tuple[str, list[int]]] = {
        "options": ("float32", [len(manifest.options)]),
        "ring.seqs": ("uint64", [count]),
        "ring.boundaries": ("uint32", [count]),
        "ring.rows": ("float32", [count, width]),
    }
    expected |= {f"carry.{c.name}": (c.dtype, c.shape) for c in manifest.carry}
    for name, (dtype, shape) in expected.items():
        found = arrays.get(name)
        if found is None or found.dtype != dtype or list(found.shape) != shape:
            said = "missing" if found is None else f"{found.dtype} {list(found.shape)}"
            raise WrongSnapshot(f"{name!r} is {said}, expected {dtype} {shape}")
        if found.dtype.kind == "f" and not np.isfinite(found).all():
            raise WrongSnapshot(f"{name!r} is not finite")
    rows = (arrays["ring.seqs"], arrays["ring.boundaries"], arrays["ring.rows"])
    history = History(*rows, manifest.obs_size)
    carry = [arrays[f"carry.{c.name}"].tobytes() for c in manifest.carry]
    return Snapshot(about["policy"], about, carry, history, arrays["options"].tobytes())


def write_history(memory: Memory, history: History) -> None:
    """Put a snapshot's transitions into a record; a replay begins at the first of them."""
    boundaries = history.boundaries.copy()
    boundaries[:1] |= np.uint32(Boundary.TASK)
    memory.extend(History(history.seqs, boundaries, history.rows, history.obs_size))


def put(session: Session, memory: Memory, snapshot: Snapshot) -> None:
    """Go on from a snapshot, whose transitions are in `memory` already. In the loop."""
    session.monitor.resume(snapshot.adaptation, int(snapshot.about["monitor_steps"]))
    fresh = bool(snapshot.about.get("fresh"))
    session.replace_memory(memory, snapshot.carry, snapshot.options, fresh)
