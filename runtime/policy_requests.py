"""Control requests about policies: list, load, swap, shadow, promote, roll back, release."""

from functools import partial
from typing import Any

import structlog

from runtime import requests
from runtime.companion import Companion
from runtime.errors import InvalidBundle, UnknownName
from runtime.messages import Code
from runtime.requests import Refusal
from runtime.services import Services
from runtime.sessions import Session
from runtime.shadow import promote_session, return_incumbent, shadow_session
from runtime.state import Served
from runtime.swap import Incompatible, SwapReport, Wish, cancel_swap, swap_sessions

log = structlog.get_logger()


def policies(services: Services, request: requests.Policies) -> dict[str, Any]:
    """The bundles on disk."""
    rows = []
    for reference in services.store.references():
        try:
            manifest = services.store.manifest(reference)
        except InvalidBundle as error:
            rows.append({"policy": reference, "loaded": False, "broken": str(error)})
            continue
        rows.append(
            {
                "policy": reference,
                "loaded": reference in services.store.loaded,
                "algorithm": manifest.algorithm,
                "family": manifest.family,
                "returns": [e.mean for e in manifest.evaluation.episodes],
                "quarantined": services.quarantine.why(reference),
            }
        )
    return {"policies": rows}


def manifest(services: Services, request: requests.Manifest) -> dict[str, Any]:
    """What a bundle says of itself; of one in memory, what it said when it was loaded."""
    policy = services.store.loaded.get(request.policy)
    try:
        found = policy.manifest if policy else services.store.manifest(request.policy)
    except UnknownName as error:
        known = ", ".join(services.store.references())
        raise Refusal(Code.UNKNOWN_POLICY, str(error), known, request.policy) from None
    except InvalidBundle as error:
        raise Refusal(Code.INVALID_BUNDLE, str(error)) from None
    label = f"{found.name}@{found.version}"
    return {"policy": label, "manifest": found.model_dump(mode="json", exclude_unset=True)}


def _event(report: SwapReport) -> dict[str, Any]:
    """A change of policy as the log tells it; the policy is the one before."""
    facts = report._asdict()
    return {**facts, "policy": facts.pop("old"), "seq": facts.pop("from_seq")}


def load(services: Services, request: requests.Load) -> dict[str, Any]:
    """Verify a bundle and keep it in memory."""
    if request.allow_downgrade:
        policy = services.loaded(request.policy)
        seal = services.store.seals[policy.label]
        services.counters.allow(policy.label, policy.manifest.name, seal)
    return {"policy": services.served(request.policy).policy.label}


def release(services: Services, request: requests.Release) -> dict[str, Any]:
    """End a policy's quarantine."""
    known = services.quarantine.names()
    if request.policy not in known:
        error = UnknownName("policy in quarantine", request.policy, known)
        raise Refusal(Code.UNKNOWN_POLICY, str(error))
    services.quarantine.release(request.policy)
    log.info("quarantine_release", policy=request.policy)
    return {"policy": request.policy}


def _wish(services: Services, blend: int | None, migration: Any = "auto") -> Wish:
    settings = services.config.swap
    blend = settings.blend_ticks if blend is None else blend
    # The policy before runs along while the two are blended.
    return Wish(migration, blend, max(settings.probation_ticks, blend))


def swap(services: Services, request: requests.Swap) -> dict[str, Any]:
    """Change the policy of one session, or of all."""
    served = services.served(request.policy)
    pairs = [(session, served) for session in services.sessions(request.session)]
    return _swap_all(services, pairs, _wish(services, request.blend, request.migration))


def _swap_all(
    services: Services, pairs: list[tuple[Session, Served]], wish: Wish
) -> dict[str, Any]:
    """Swap each session to its policy; if one cannot be, none is."""
    try:
        reports = swap_sessions(pairs, wish, services.in_loop)
    except Incompatible as error:
        raise Refusal(Code.INCOMPATIBLE, str(error)) from None
    for (_, served), report in zip(pairs, reports, strict=True):
        services.note_use(served.policy)
        log.info("swap", **_event(report), **wish._asdict())
    return {"swaps": [report._asdict() for report in reports]}


def rollback(services: Services, request: requests.Rollback) -> dict[str, Any]:
    """Back to the policy before.

    A swap that no tick has taken yet is taken back; an incumbent that runs along comes
    back at once; else the policy before is swapped in again.
    """
    reports, before = [], []
    for session in services.sessions(request.session):
        report = services.in_loop(partial(cancel_swap, session))
        if report is None:
            report = services.in_loop(partial(return_incumbent, session))
        previous = services.in_loop(lambda s=session: s.previous)
        if report is not None:
            log.info("rollback", **_event(report))
            reports.append(report._asdict())
        elif previous:
            before.append((session, services.served(previous, returning=True)))
        elif request.session is not None:
            raise Refusal(Code.NO_PREVIOUS_POLICY, f"session {session.id} has had one policy only")
    return {"swaps": reports + _swap_all(services, before, _wish(services, 0))["swaps"]}


def shadow(services: Services, request: requests.Shadow) -> dict[str, Any]:
    """Let a policy run along, its actions compared and not sent; none ends it."""
    sessions = services.sessions(request.session)
    if request.policy is None:
        for about in services.in_loop(lambda: [_end_shadow(session) for session in sessions]):
            log.info("shadow", **about, candidate=None)
        return {"shadows": []}
    served, rows = services.served(request.policy), []
    for session in sessions:
        try:
            report = shadow_session(session, served, services.in_loop)
        except Incompatible as error:
            raise Refusal(
                Code.INCOMPATIBLE,
                f"{served.policy.label} cannot run along with session {session.id}: {error}",
            ) from None
        candidate, steps = served.policy.label, report.replayed_steps
        log.info("shadow", **report.about, candidate=candidate, replayed_steps=steps)
        rows.append(
            {
                "session": session.id,
                "candidate": served.policy.label,
                "steps_replayed": steps,
            }
        )
    return {"shadows": rows}


def _end_shadow(session: Session) -> dict[str, Any]:
    if candidate_of(session) is not None:
        session.drop_companion()
    return session.about


def candidate_of(session: Session) -> Companion | None:
    """The policy in a session's shadow, if there is one."""
    companion = session.companion
    return companion if companion is not None and companion.memory is None else None


def promote(services: Services, request: requests.Promote) -> dict[str, Any]:
    """Let the candidate in the shadow take over."""
    rows = []
    for session in services.sessions(request.session):
        candidate = services.in_loop(partial(candidate_of, session))
        if candidate is None:
            if request.session is None:
                continue
            raise Refusal(Code.NO_CANDIDATE, f"session {session.id} has no candidate in the shadow")
        served = services.served(candidate.label)
        wish = _wish(services, request.blend)
        try:
            report = promote_session(session, served, wish, services.in_loop)
        except Incompatible as error:
            raise Refusal(Code.INCOMPATIBLE, str(error)) from None
        services.note_use(served.policy)
        log.info("promotion", **_event(report), **wish._asdict())
        rows.append(report._asdict())
    if not rows:
        raise Refusal(Code.NO_CANDIDATE, "no session has a candidate in the shadow")
    return {"swaps": rows}
