"""What happened to a recorded session between its ticks, done once more."""

from collections.abc import Callable
from typing import Any

from runtime.companion import Companion
from runtime.policy import Policy
from runtime.recording.stage import Stage
from runtime.replay import replay
from runtime.session_requests import options_bytes
from runtime.sessions import Session
from runtime.shadow import promote_session, return_incumbent
from runtime.swap import Wish, cancel_swap, shared_options, swap_sessions

Load = Callable[[str], Policy]
"""Gives the policy of ``name@version``."""


class Unexplained(Exception):
    """What the recording's ticks and events cannot say; a checkpoint after it can."""


def at_once(function: Callable[[], Any]) -> Any:
    """There is no other thread: between two ticks is now."""
    return function()


def apply(stage: Stage, event: dict[str, Any], load: Load) -> None:
    """Do once more what an event tells of.

    Args:
        stage: with the session.
        event: of docs/events.md.
        load: of policies that take over.

    Raises:
        Unexplained: what it changed is not in the recording.
        AdaptdError: a policy cannot be loaded.
    """
    name = event["event"]
    if name == "opening":
        session = stage.open(load(event["policy"]), event["seq"])
        _set_options(session, event.get("values", {}))
        return
    session = stage.session
    if session is None:
        return
    if name == "restoration":
        raise Unexplained("its memory was restored from elsewhere")
    act = _ACTS.get(name)
    if act is not None:
        act(stage, session, event, load)


def _reset(stage: Stage, session: Session, event: dict[str, Any], load: Load) -> None:
    session.reset()


def _options(stage: Stage, session: Session, event: dict[str, Any], load: Load) -> None:
    _set_options(session, event["values"])


def _set_options(session: Session, values: dict[str, float]) -> None:
    session.options = options_bytes(session.policy.manifest, session.options, values)
    session.amend()


def _switch(stage: Stage, session: Session, event: dict[str, Any], load: Load) -> None:
    session.frozen = bool(event.get("frozen", session.frozen))
    session.amend()


def _shadow(stage: Stage, session: Session, event: dict[str, Any], load: Load) -> None:
    if event["candidate"] is None:
        session.drop_companion()
        return
    served = stage.serve(load(event["candidate"]))
    manifests = session.policy.manifest, served.policy.manifest
    options = shared_options(manifests[0], session.options, manifests[1])
    history = session.memory.since(0)
    known = history.part(len(history) - event["replayed_steps"])
    carry = replay(served.policy, session.id, known, served.stepper.prior, options)
    session.companion = Companion(served.stepper, carry, options)


def _wish(event: dict[str, Any]) -> Wish:
    return Wish(event["migration"], event["blend_ticks"], event["probation_ticks"])


def _swap(stage: Stage, session: Session, event: dict[str, Any], load: Load) -> None:
    served = stage.serve(load(event["new"]))
    (report,) = swap_sessions([(session, served)], _wish(event), at_once)
    if (report.carry, report.replayed_steps) != (event["carry"], event["replayed_steps"]):
        raise Unexplained(
            f"the swap's memory was {event['carry']} over {event['replayed_steps']} steps, of "
            f"which the recording has {report.replayed_steps}"
        )


def _promotion(stage: Stage, session: Session, event: dict[str, Any], load: Load) -> None:
    candidate = session.companion
    if candidate is None or candidate.memory is not None:
        raise Unexplained("the candidate's time in the shadow is not in the recording")
    promote_session(session, stage.serve(load(event["new"])), _wish(event), at_once)


def _rollback(stage: Stage, session: Session, event: dict[str, Any], load: Load) -> None:
    if session.ready is not None:
        cancel_swap(session)
    if session.generation >= event["generation"]:
        return  # the loop has done it by itself
    if return_incumbent(session) is None:
        raise Unexplained("the policy before had run along since before the recording")


def _lesson(stage: Stage, session: Session, event: dict[str, Any], load: Load) -> None:
    if not stage.learning.take_one():
        raise Unexplained("it learnt from an episode that is not in the recording")


def _no_lesson(stage: Stage, session: Session, event: dict[str, Any], load: Load) -> None:
    stage.learning.drop_one()


_ACTS: dict[str, Callable[[Stage, Session, dict[str, Any], Load], None]] = {
    "reset": _reset,
    "options": _options,
    "switch": _switch,
    "shadow": _shadow,
    "swap": _swap,
    "promotion": _promotion,
    "rollback": _rollback,
    "lesson": _lesson,
    "lesson_loss": _no_lesson,
    "lesson_fault": _no_lesson,
    "lesson_overrun": _no_lesson,
    "lesson_failure": _no_lesson,
}
