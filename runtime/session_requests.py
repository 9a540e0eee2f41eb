"""Control requests about sessions: life, switches, and adaptation as an object."""

import base64
import binascii
import secrets
import struct
from functools import partial
from typing import Any

import structlog

from runtime import requests, snapshot
from runtime.messages import Adaptation, Code
from runtime.policy import Policy
from runtime.requests import MAX_SESSION_ID, Refusal
from runtime.services import Services
from runtime.sessions import Session
from runtime.spec import Manifest

log = structlog.get_logger()


def open_session(services: Services, request: requests.Open, owner: str = "") -> dict[str, Any]:
    """Open a session, or come back to one.

    Args:
        services: of the daemon.
        request: as it came; whether its sender may make it has been looked at.
        owner: the sender's public key, to which a new session belongs; empty without keys.
    """
    registry = services.loop.registry
    known = services.in_loop(lambda: registry.find(request.session or 0))
    if known is not None:
        _check_reward(known.policy, request)
        if request.options:
            _put_options(services, known, request.options)
        return _describe(services, known, resumed=True)
    reference = request.policy or services.default_policy
    if reference is None:
        raise Refusal(
            Code.UNKNOWN_POLICY,
            "name a policy: the daemon serves several and has no default",
            expected=", ".join(services.store.names()),
        )
    served = services.served(reference)
    _check_reward(served.policy, request)
    most = services.config.max_sessions
    if services.in_loop(lambda: len(registry)) >= most:
        raise Refusal(Code.TOO_MANY_SESSIONS, f"{most} sessions are open; close one first")
    values = options_bytes(served.policy.manifest, served.stepper.default_options, request.options)
    memory = served.slab.allocate()
    memory.claim(request.session or 1 + secrets.randbelow(MAX_SESSION_ID), "", owner)

    def add() -> Session:
        session = Session(served.stepper, memory, registry.rules, request.sends_reward)
        session.options, session.seen_ns = values, services.loop.clock()
        session.seen_s = registry.wall_s
        session.amend()
        return registry.add(session)

    session = services.in_loop(add)
    log.info("opening", **session.about, values=options_of(session))
    return _describe(services, session, resumed=False)


def _check_reward(policy: Policy, request: requests.Open) -> None:
    if policy.manifest.needs_reward and not request.sends_reward:
        raise Refusal(
            Code.NEEDS_REWARD,
            f"{policy.label} adapts from prev_reward, which this session does not send",
            expected="sends_reward true",
            found="sends_reward false",
        )


def _describe(services: Services, session: Session, resumed: bool) -> dict[str, Any]:
    manifest = session.policy.manifest
    facts = {
        "session": session.id,
        "resumed": resumed,
        "next_seq": session.next_seq,
        "policy": session.policy.label,
        "generation": session.generation,
        "frozen": session.frozen,
        "stopped": session.stopped,
        "family": manifest.family,
        "control_hz": manifest.control_hz,
        "needs_reward": manifest.needs_reward,
        "observation": [e.model_dump() for e in manifest.observation],
        "action": [e.model_dump() for e in manifest.action],
        "fallback_action": manifest.fallback_action,
        "belief": [b.model_dump() for b in manifest.belief],
        "options": options_of(session),
    }
    if not resumed and services.state.set_aside:
        facts["set_aside"] = services.state.set_aside
    return facts


def options_of(session: Session) -> dict[str, float]:
    """A session's options by name."""
    options = session.policy.manifest.options
    values = struct.unpack(f"<{len(options)}f", session.options)
    return dict(zip((o.name for o in options), values, strict=True))


def options_bytes(manifest: Manifest, before: bytes, values: dict[str, float]) -> bytes:
    """Options with some of them changed.

    Raises:
        Refusal: one does not exist or is out of its range.
    """
    declared = {o.name: o for o in manifest.options}
    for name, value in values.items():
        option = declared.get(name)
        if option is None:
            raise Refusal(
                Code.UNKNOWN_OPTION,
                f"{manifest.name} has no option {name[:60]!r}",
                expected=", ".join(declared) or "none",
                found=name[:60],
            )
        if not option.low <= value <= option.high:
            raise Refusal(
                Code.UNKNOWN_OPTION,
                f"option {name!r} is {value:g}, allowed {option.low:g} to {option.high:g}",
            )
    known = dict(zip(declared, struct.unpack(f"<{len(declared)}f", before), strict=True))
    chosen = [values.get(name, known[name]) for name in declared]
    return struct.pack(f"<{len(chosen)}f", *chosen)


def _put_options(services: Services, session: Session, values: dict[str, float]) -> None:
    def put() -> dict[str, Any]:
        session.options = options_bytes(session.policy.manifest, session.options, values)
        session.amend()
        return session.about

    about = services.in_loop(put)
    log.info("options", **about, values=options_of(session))


def set_options(services: Services, request: requests.Options) -> dict[str, Any]:
    """Set options that the session's policy declares."""
    session = services.session(request.session)
    _put_options(services, session, request.values)
    return {"options": options_of(session)}


def close(services: Services, request: requests.Close) -> dict[str, Any]:
    """Forget a session."""
    about = services.session(request.session).about
    services.in_loop(lambda: services.loop.registry.close(request.session))
    log.info("closing", **about)
    return {"session": request.session}


def reset(services: Services, request: requests.Reset) -> dict[str, Any]:
    """Put a session's memory back to the prior."""
    session = services.session(request.session)

    def put_back() -> dict[str, Any]:
        session.reset()
        return session.about

    about = services.in_loop(put_back)
    log.info("reset", **about)
    return {"session": session.id, "next_seq": about["seq"]}


def _switch(services: Services, session_id: int | None, **switches: bool) -> list[int]:
    """Set switches of one session or all."""
    sessions = services.sessions(session_id)

    def switch() -> list[dict[str, Any]]:
        for session in sessions:
            for name, value in switches.items():
                setattr(session, name, value)
            session.amend()
        return [session.about for session in sessions]

    for about in services.in_loop(switch):
        log.info("switch", **about, **switches)
    return [session.id for session in sessions]


def freeze(services: Services, request: requests.Freeze) -> dict[str, Any]:
    """Stop the memory from changing, or let it change again."""
    ids = _switch(services, request.session, frozen=request.frozen)
    return {"sessions": ids, "frozen": request.frozen}


def stop(services: Services, request: requests.Stop) -> dict[str, Any]:
    """Answer by the fallback action until re-armed."""
    return {"sessions": _switch(services, request.session, stopped=True)}


def rearm(services: Services, request: requests.Rearm) -> dict[str, Any]:
    """End a stop."""
    sessions = services.sessions(request.session)
    services.in_loop(lambda: [session.rearm() for session in sessions])
    for session in sessions:
        log.info("switch", **session.about, stopped=False)
    return {"sessions": [session.id for session in sessions]}


def take_snapshot(services: Services, request: requests.Snapshot) -> dict[str, Any]:
    """A session's adaptation as a file's content."""
    session = services.session(request.session)
    manifest, taken = services.in_loop(lambda: (session.policy.manifest, snapshot.take(session)))
    content = snapshot.to_bytes(taken, manifest)
    return {
        "snapshot": base64.b64encode(content).decode(),
        "policy": taken.policy,
        "next_seq": taken.about["next_seq"],
        "bytes": len(content),
    }


def restore(services: Services, request: requests.Restore) -> dict[str, Any]:
    """Go on from a snapshot, or from the last good memory."""
    session = services.session(request.session)
    if (request.snapshot is None) == (not request.last_good):
        raise Refusal(Code.INVALID_REQUEST, "give either a snapshot or last_good")
    if request.snapshot is None:
        about = services.in_loop(partial(_restore_good, session))
    else:
        about = _restore_snapshot(services, session, request.snapshot)
    log.info("restoration", **about, last_good=request.last_good)
    status = Adaptation(session.monitor.status).name.lower()
    return {"session": session.id, "from_seq": about["seq"], "adaptation": status}


def _restore_good(session: Session) -> dict[str, Any]:
    carry = session.good_carry()
    if carry is None:
        raise Refusal(
            Code.NOTHING_GOOD,
            f"session {session.id} has not been adapted for long enough under "
            f"{session.policy.label} to have a last good memory",
        )
    session.monitor.status = Adaptation.ADAPTED
    session.start_fresh, session.unseen = False, True
    session.amend(carry)
    return session.about


def _restore_snapshot(services: Services, session: Session, text: str) -> dict[str, Any]:
    policy, previous = services.in_loop(lambda: (session.policy, session.previous))
    try:
        content = base64.b64decode(text, validate=True)
        found = snapshot.from_bytes(content, policy.manifest)
    except (binascii.Error, ValueError):
        raise Refusal(Code.INVALID_REQUEST, "the snapshot is not base64") from None
    except snapshot.WrongSnapshot as error:
        raise Refusal(
            Code.OTHER_POLICY, f"the snapshot cannot be restored: {error}", expected=policy.label
        ) from None
    memory = services.state.serve(policy).slab.allocate()
    memory.claim(session.id, previous, session.owner)
    snapshot.write_history(memory, found.history)

    def put() -> dict[str, Any]:
        if session.policy is not policy:
            memory.free()
            raise Refusal(Code.OTHER_POLICY, f"session {session.id} has just changed its policy")
        snapshot.put(session, memory, found)
        return session.about

    return services.in_loop(put)
