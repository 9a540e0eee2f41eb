"""What the daemon and its sessions are doing, for `status`."""

import os
from dataclasses import asdict
from typing import Any

from runtime import requests
from runtime.messages import Adaptation, Code
from runtime.policy_requests import candidate_of
from runtime.registry import Asleep
from runtime.requests import Refusal
from runtime.services import Services
from runtime.sessions import Counters, Session


def status(services: Services, request: requests.Status) -> dict[str, Any]:
    """The sessions, asked for between two ticks, and the daemon."""
    loop, wanted = services.loop, request.session

    def look() -> list[dict[str, Any]]:
        registry = loop.registry
        rows = [_awake(s) for i, s in registry.live.items() if wanted in (None, i)]
        return rows + [_asleep(i, s) for i, s in registry.asleep.items() if wanted in (None, i)]

    rows = services.in_loop(look)
    if wanted is not None and not rows:
        raise Refusal(Code.UNKNOWN_SESSION, f"there is no session {wanted}")
    return {
        "sessions": rows,
        "pid": os.getpid(),
        "loaded": sorted(services.store.loaded),
        "batched": {label: p.batch_invariant for label, p in services.store.loaded.items()},
        "refused_frames": dict(loop.reception.refused),
        "refused_requests": services.refused_requests,
        "dropped_messages": services.dropped(),
        "quarantined": services.quarantine.names(),
        "set_aside": services.state.set_aside,
        "realtime": services.realtime,
        "ring_size": services.config.ring_size,
        "state_bytes_per_session": services.state.record_bytes(),
    }


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
        **asdict(session.counters),
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
