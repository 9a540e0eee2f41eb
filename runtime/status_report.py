"""What the daemon and its sessions are doing, for `status`."""

import os
from pathlib import Path
from typing import Any

from runtime import requests
from runtime.messages import Adaptation, Code
from runtime.policy_requests import candidate_of
from runtime.registry import Asleep, Registry
from runtime.requests import Refusal
from runtime.services import Services
from runtime.sessions import Counters, Session


def status(services: Services, request: requests.Status) -> dict[str, Any]:
    """The sessions, asked for between two ticks, and the daemon."""
    loop, wanted = services.loop, request.session

    def look() -> tuple[list[dict[str, Any]], int]:
        registry = loop.registry
        after = request.after
        ids = sorted(i for i in registry.ids() if i > after and wanted in (None, i))
        chosen = ids[: request.count]
        return [_row(registry, i) for i in chosen], len(ids) - len(chosen)

    rows, left = services.in_loop(look)
    if wanted is not None and not rows:
        raise Refusal(Code.UNKNOWN_SESSION, f"there is no session {wanted}")
    return {
        "sessions": rows,
        "sessions_left": left,
        "pid": os.getpid(),
        "resident_bytes": _resident_bytes(),
        "loaded": sorted(services.store.loaded),
        "batched": {label: p.batch_invariant for label, p in services.store.loaded.items()},
        "refused_frames": dict(loop.reception.refused),
        "refused_requests": services.refused_requests,
        "dropped_messages": services.dropped(),
        "refused_bundles": services.store.refused,
        "lost_lessons": dict(services.lost_lessons),
        "signed": _signed(services),
        "counters": services.counters.highest,
        "quarantined": services.quarantine.names(),
        "access": services.access.report() if services.access else None,
        "set_aside": services.state.set_aside,
        "realtime": services.realtime,
        "ring_size": services.config.ring_size,
        "state_bytes_per_session": services.state.record_bytes(),
    }


def _resident_bytes() -> int:
    """Memory of this process: others, on another machine or as another user, cannot look."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _signed(services: Services) -> dict[str, dict[str, Any]]:
    """Who signed the policies in memory, and with which counter."""
    seals = {label: seal for label, seal in services.store.seals.items() if seal is not None}
    return {label: {"key": seal.key, "counter": seal.counter} for label, seal in seals.items()}


def _row(registry: Registry, session_id: int) -> dict[str, Any]:
    session = registry.live.get(session_id)
    return _awake(session) if session else _asleep(session_id, registry.asleep[session_id])


def _awake(session: Session) -> dict[str, Any]:
    candidate = candidate_of(session)
    return {
        "session": session.id,
        "policy": session.policy.label,
        "previous_policy": session.previous or None,
        "waiting_policy": session.ready.stepper.policy.label if session.ready else None,
        "generation": session.generation,
        "next_seq": session.next_seq,
        "adaptation": Adaptation(session.monitor.status).name.lower(),
        "frozen": session.frozen,
        "stopped": session.stopped,
        "asleep": False,
        "way": session.way or None,
        "candidate": candidate.report() if candidate else None,
        "probation": session.probation.left if session.probation else 0,
        **vars(session.counters),
    }


def _asleep(session_id: int, sleeping: Asleep) -> dict[str, Any]:
    head = sleeping.head()
    return {
        "session": session_id,
        "policy": sleeping.stepper.policy.label,
        "previous_policy": sleeping.memory.previous or None,
        "waiting_policy": None,
        "generation": head.generation,
        "next_seq": head.next_seq,
        "adaptation": Adaptation(head.adaptation).name.lower(),
        "frozen": bool(head.flags & 4),
        "stopped": bool(head.flags & 8),
        "asleep": True,
        "way": None,
        "candidate": None,
        "probation": head.probation,
        **{name: getattr(head, name) for name in Counters.__dataclass_fields__},
    }
