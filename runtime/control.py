"""The control plane: answers requests (runtime/requests.py) with JSON replies.

A reply is ``{"version": 1, "ok": true, "result": {...}}`` or ``{"version": 1, "ok": false,
"error": {"code", "sentence", "expected", "found"}}``.

Handlers run on the control thread. What changes sessions, or must see one whole, goes
through `Control.in_loop`, which runs it between two ticks.
"""

import json
import os
import secrets
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

import structlog

from runtime.errors import InvalidBundle, UnknownName
from runtime.loop import Loop
from runtime.messages import VERSION, Adaptation, Code
from runtime.policy import Policy
from runtime.requests import (
    MAX_SESSION_ID,
    Close,
    Load,
    Open,
    Policies,
    Refusal,
    Reset,
    Rollback,
    Shutdown,
    Status,
    Swap,
    parse_request,
)
from runtime.sessions import Session
from runtime.store import Store
from runtime.swap import Incompatible, InLoop, Migration, cancel_swap, swap_sessions

log = structlog.get_logger()


class Control:
    """Answers control requests for one daemon."""

    def __init__(
        self,
        store: Store,
        loop: Loop,
        in_loop: InLoop,
        stop: Callable[[], None],
        dropped: Callable[[], int],
        default_policy: str | None = None,
        max_sessions: int = 1024,
        ring_size: int = 1024,
    ):
        """
        Args:
            store: the bundles.
            loop: the sessions.
            in_loop: runs a function between two ticks and gives its result.
            stop: asks the daemon to stop.
            dropped: how many messages were not answered at all.
            default_policy: for sessions that name none.
            max_sessions: open at once.
            ring_size: transitions kept per session.
        """
        self.store, self.loop, self.in_loop = store, loop, in_loop
        self.stop, self.dropped = stop, dropped
        self.default_policy = default_policy
        self.max_sessions, self.ring_size = max_sessions, ring_size
        self.refused = 0

    def answer(self, request: bytes) -> bytes:
        """The reply to a request. Never raises for what a sender did."""
        try:
            reply = {"ok": True, "result": self._handle(parse_request(request))}
        except Refusal as refusal:
            self.refused += 1
            reply = {"ok": False, "error": refusal.record}
        except Exception:
            log.exception("request_failed")
            refusal = Refusal(Code.INTERNAL, "the request failed; the daemon's log says why")
            reply = {"ok": False, "error": refusal.record}
        return json.dumps({"version": VERSION, **reply}).encode()

    def _handle(self, request: Any) -> dict[str, Any]:
        handlers: dict[type, Callable[[Any], dict[str, Any]]] = {
            Open: self._open,
            Close: self._close,
            Reset: self._reset,
            Policies: self._policies,
            Load: self._load,
            Swap: self._swap,
            Rollback: self._rollback,
            Status: self._status,
            Shutdown: self._shutdown,
        }
        return handlers[type(request)](request)

    def _open(self, request: Open) -> dict[str, Any]:
        known = self.in_loop(lambda: self.loop.sessions.get(request.session or 0))
        if known is not None:
            self._check_reward(known.policy, request)
            return self._describe(known, resumed=True)
        reference = request.policy or self.default_policy
        if reference is None:
            raise Refusal(
                Code.UNKNOWN_POLICY,
                "name a policy: the daemon serves several and has no default",
                expected=", ".join(self.store.names()),
            )
        policy = self._policy(reference)
        self._check_reward(policy, request)
        session_id = request.session or 1 + secrets.randbelow(MAX_SESSION_ID)
        session = self.in_loop(
            lambda: self._add(Session(session_id, policy, self.ring_size, request.sends_reward))
        )
        log.info("session_opened", session=session.id, policy=policy.label)
        return self._describe(session, resumed=False)

    def _check_reward(self, policy: Policy, request: Open) -> None:
        if policy.manifest.needs_reward and not request.sends_reward:
            raise Refusal(
                Code.NEEDS_REWARD,
                f"{policy.label} adapts from prev_reward, which this session does not send",
                expected="sends_reward true",
                found="sends_reward false",
            )

    def _add(self, session: Session) -> Session:
        if len(self.loop.sessions) >= self.max_sessions:
            raise Refusal(
                Code.TOO_MANY_SESSIONS,
                f"{self.max_sessions} sessions are open; close one first",
            )
        return self.loop.sessions.setdefault(session.id, session)

    def _describe(self, session: Session, resumed: bool) -> dict[str, Any]:
        manifest = session.policy.manifest
        return {
            "session": session.id,
            "resumed": resumed,
            "next_seq": session.next_seq,
            "policy": session.policy.label,
            "generation": session.generation,
            "family": manifest.family,
            "control_hz": manifest.control_hz,
            "needs_reward": manifest.needs_reward,
            "observation": [e.model_dump() for e in manifest.observation],
            "action": [e.model_dump() for e in manifest.action],
            "fallback_action": manifest.fallback_action,
            "belief": [b.model_dump() for b in manifest.belief],
        }

    def _close(self, request: Close) -> dict[str, Any]:
        self._session(request.session)
        self.in_loop(lambda: self.loop.sessions.pop(request.session, None))
        log.info("session_closed", session=request.session)
        return {"session": request.session}

    def _reset(self, request: Reset) -> dict[str, Any]:
        session = self._session(request.session)
        self.in_loop(session.reset)
        log.info("session_reset", session=session.id)
        return {"session": session.id, "next_seq": session.next_seq}

    def _policies(self, request: Policies) -> dict[str, Any]:
        rows = []
        for reference in self.store.references():
            try:
                manifest = self.store.manifest(reference)
            except InvalidBundle as error:
                rows.append({"policy": reference, "loaded": False, "broken": str(error)})
                continue
            rows.append(
                {
                    "policy": reference,
                    "loaded": reference in self.store.loaded,
                    "algorithm": manifest.algorithm,
                    "family": manifest.family,
                    "returns": [e.mean for e in manifest.evaluation.episodes],
                }
            )
        return {"policies": rows}

    def _load(self, request: Load) -> dict[str, Any]:
        return {"policy": self._policy(request.policy).label}

    def _swap(self, request: Swap) -> dict[str, Any]:
        policy = self._policy(request.policy)
        return self._swap_all(
            dict.fromkeys(self._targets(request.session), policy), request.migration
        )

    def _rollback(self, request: Rollback) -> dict[str, Any]:
        """A swap that no tick has taken yet is taken back; else the policy before comes back."""
        reports, before = [], {}
        for session_id in self._targets(request.session):
            session = self._session(session_id)
            cancelled = self.in_loop(partial(cancel_swap, session))
            if cancelled is not None:
                log.info("swap_cancelled", session=session_id)
                reports.append(cancelled._asdict())
            elif session.previous is not None:
                before[session_id] = session.previous
            elif request.session is not None:
                raise Refusal(
                    Code.NO_PREVIOUS_POLICY, f"session {session_id} has had one policy only"
                )
        return {"swaps": reports + self._swap_all(before, "auto")["swaps"]}

    def _swap_all(self, policies: dict[int, Policy], migration: Migration) -> dict[str, Any]:
        """Swap each session to its policy; if one cannot be, none is."""
        pairs = [(self._session(session_id), policy) for session_id, policy in policies.items()]
        try:
            reports = swap_sessions(pairs, migration, self.in_loop)
        except Incompatible as error:
            raise Refusal(Code.INCOMPATIBLE, str(error)) from None
        for report in reports:
            log.info("swap_ready", **report._asdict())
        return {"swaps": [report._asdict() for report in reports]}

    def _status(self, request: Status) -> dict[str, Any]:
        ids = self._targets(request.session)

        def look() -> list[dict[str, Any]]:
            return [_status_of(self.loop.sessions[i]) for i in ids if i in self.loop.sessions]

        return {
            "sessions": self.in_loop(look),
            "pid": os.getpid(),
            "loaded": sorted(self.store.loaded),
            "refused_frames": dict(self.loop.refused),
            "refused_requests": self.refused,
            "dropped_messages": self.dropped(),
        }

    def _shutdown(self, request: Shutdown) -> dict[str, Any]:
        self.stop()
        return {}

    def _policy(self, reference: str) -> Policy:
        try:
            return self.store.load(reference)
        except UnknownName as error:
            known = ", ".join(self.store.references())
            raise Refusal(Code.UNKNOWN_POLICY, str(error), known, reference) from None
        except InvalidBundle as error:
            log.warning("bundle_refused", policy=reference, reason=str(error))
            raise Refusal(Code.INVALID_BUNDLE, str(error)) from None

    def _session(self, session_id: int) -> Session:
        session = self.in_loop(lambda: self.loop.sessions.get(session_id))
        if session is None:
            raise Refusal(Code.UNKNOWN_SESSION, f"there is no session {session_id}")
        return session

    def _targets(self, session_id: int | None) -> list[int]:
        if session_id is None:
            return self.in_loop(lambda: list(self.loop.sessions))
        return [self._session(session_id).id]


def _status_of(session: Session) -> dict[str, Any]:
    return {
        "session": session.id,
        "policy": session.policy.label,
        "previous_policy": session.previous.label if session.previous else None,
        "waiting_policy": session.ready.policy.label if session.ready else None,
        "generation": session.generation,
        "next_seq": session.next_seq,
        "adaptation": Adaptation(session.monitor.status).name.lower(),
        **asdict(session.counters),
    }
