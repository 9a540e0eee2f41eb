"""How another bundle would have acted on a recorded session's observations.

It sees what the robot saw and is told what the robot did: its memory is what it would be
in the shadow, its actions change nothing. So early differences mean the most: under its own
actions the robot would have gone elsewhere.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from runtime.companion import AGREEMENT
from runtime.errors import AdaptdError, InvalidRecording
from runtime.guard import ActionLimits, limited
from runtime.messages import Code, Limit, ObservationFlag, unpack
from runtime.policy import Policy
from runtime.recording.stage import Stage
from runtime.recording.ticks import RecordedSession, RecordedTick, Vector
from runtime.spec import Manifest
from runtime.store import Store
from runtime.swap import Incompatible, check_compatible
from runtime.tap import Tick, tick_of

_NO_STEP = int(Limit.INVALID | Limit.STUCK | Limit.STOPPED)
_EPISODE_START = int(ObservationFlag.EPISODE_START)


class Row(NamedTuple):
    """One element of the action, compared."""

    name: str
    mean: float
    """Absolute difference, in the element's unit."""
    largest: float
    of_range: float
    """The mean, as a fraction of the element's range."""
    correlation: float


@dataclass
class WhatIf:
    """Two policies on the same observations, over n ticks that were steps."""

    session: int
    policy: str
    recorded_policies: list[str]
    names: list[str]
    low: Vector  # (A,)
    high: Vector  # (A,)
    seqs: NDArray[np.int64]  # (n,)
    episode_starts: list[int]
    """Indices of ticks that begin an episode."""
    rewards: NDArray[np.float64]  # (n,), of the step that led to each tick
    recorded: Vector  # (n, A), within bounds
    other: Vector  # (n, A), within bounds
    adaptation_recorded: NDArray[np.int64]  # (n,), 0 unadapted to 2 adapted, 3 invalid
    adaptation: NDArray[np.int64]  # (n,)
    width_recorded: NDArray[np.float64]  # (n,), of the belief, as a fraction of the first
    width: NDArray[np.float64]  # (n,)
    notes: list[str]

    def rows(self) -> list[Row]:
        """The comparison by element of the action."""
        found = []
        for i, name in enumerate(self.names):
            a = self.recorded[:, i].astype(np.float64)
            b = self.other[:, i].astype(np.float64)
            gap = np.abs(a - b)
            spread = float(self.high[i] - self.low[i])
            varies = a.std() > 0 and b.std() > 0
            correlation = float(np.corrcoef(a, b)[0, 1]) if varies else float("nan")
            mean = float(gap.mean())
            found.append(Row(name, mean, float(gap.max()), mean / spread, correlation))
        return found

    @property
    def agreement(self) -> float:
        """Fraction of ticks at which every element is within 5 % of its range."""
        gap = np.abs(self.recorded - self.other)
        return float((gap <= AGREEMENT * (self.high - self.low)).all(axis=1).mean())

    def as_json(self) -> dict[str, Any]:
        """The comparison as plain numbers."""
        return {
            "session": self.session,
            "policy": self.policy,
            "recorded_policies": self.recorded_policies,
            "ticks": len(self.seqs),
            "agreement": self.agreement,
            "actions": [row._asdict() for row in self.rows()],
            "adapted_recorded": float((self.adaptation_recorded == 2).mean()),
            "adapted": float((self.adaptation == 2).mean()),
            "notes": self.notes,
        }


def what_if(
    recorded: RecordedSession, store: Store, reference: str, from_seq: int | None = None
) -> WhatIf:
    """Run another bundle along a recorded session.

    Args:
        recorded: the session.
        store: of bundles.
        reference: the bundle, ``name`` or ``name@version``.
        from_seq: begin there, at the prior; None for the start.

    Raises:
        UnknownName, InvalidBundle: there is no such bundle, or it is broken.
        InvalidRecording: the robot has other observations or actions, or there is no step.
    """
    policy = store.load(reference)
    notes = [*recorded.notes]
    labels = sorted({label for t in recorded.ticks if (label := recorded.policy_of(t))})
    _check(recorded, policy, labels, notes)
    ticks = [t for t in recorded.ticks if from_seq is None or t.seq >= from_seq]
    with Stage(recorded.session, recorded.ring_size) as stage:
        pairs = list(_along(stage, policy, recorded, ticks))
    if not pairs:
        raise InvalidRecording(f"{recorded.where} holds no step of session {recorded.session}")
    return _compared(recorded, policy, labels, pairs, notes)


def _check(recorded: RecordedSession, policy: Policy, labels: list[str], notes: list[str]) -> None:
    """Whether the same robot may be driven by both."""
    for label in labels:
        said = recorded.manifests.get(label)
        if said is None:
            continue
        try:
            check_compatible(said, policy.manifest)
        except Incompatible as error:
            raise InvalidRecording(
                f"{policy.label} cannot act on {recorded.where}, made by {label}: {error}"
            ) from None
    if not any(label in recorded.manifests for label in labels):
        notes.append("the recording has no manifest: only the sizes of the vectors were compared")
    for tick in recorded.ticks[:1]:
        found = len(tick.observation), len(tick.applied)
        expected = policy.manifest.obs_size, policy.manifest.action_size
        if found != expected:
            raise InvalidRecording(
                f"{recorded.where} has observations of {found[0]} numbers and actions of "
                f"{found[1]}, {policy.label} takes {expected[0]} and {expected[1]}"
            )


def _along(
    stage: Stage, policy: Policy, recorded: RecordedSession, ticks: list[RecordedTick]
) -> list[tuple[RecordedTick, Tick]]:
    """Each recorded step with the other policy's, which is told what was applied."""
    resets = {e["seq"] for e in recorded.events if e["event"] in ("reset", "opening")}
    session = stage.open(policy, ticks[0].seq) if ticks else None
    pairs, applied = [], None
    for tick in ticks:
        assert session is not None
        if tick.seq in resets:
            session.reset()
        echo = tick.echo if tick.echo.size or applied is None else applied
        frame = tick._replace(echo=echo).frame(session.id)
        result = stage.tick(tick, frame)
        applied = tick.applied
        header = unpack(result.reply)
        if header.status != Code.OK:
            raise AdaptdError(f"seq {tick.seq} is refused: {result.reply[64:].decode()}")
        if not tick.limits & _NO_STEP:
            pairs.append((tick, tick_of(frame, result.reply, header, result.belief)))
    return pairs


def _compared(
    recorded: RecordedSession,
    policy: Policy,
    labels: list[str],
    pairs: list[tuple[RecordedTick, Tick]],
    notes: list[str],
) -> WhatIf:
    limits = ActionLimits.of(policy.manifest)
    ours = np.array([limited(t.answer.requested, None, limits).action for _, t in pairs])
    theirs = np.array([limited(t.requested, None, limits).action for t, _ in pairs])
    first = recorded.manifests.get(labels[0]) if labels else None
    return WhatIf(
        recorded.session, policy.label, labels, [e.name for e in policy.manifest.action],
        limits.low, limits.high,
        np.array([t.seq for t, _ in pairs]),
        [i for i, (t, _) in enumerate(pairs) if t.observation_flags & _EPISODE_START],
        np.array([t.reward for t, _ in pairs]),
        theirs, ours,
        np.array([t.adaptation for t, _ in pairs]),
        np.array([int(t.answer.adaptation) for _, t in pairs]),
        _widths([t.belief for t, _ in pairs], first),
        _widths([t.belief for _, t in pairs], policy.manifest),
        notes,
    )  # fmt: skip


def _widths(beliefs: list[Vector], manifest: Manifest | None) -> NDArray[np.float64]:
    """Mean standard deviation of each belief as a fraction of the first's; nan if not known."""
    nothing = np.full(len(beliefs), np.nan)
    if manifest is None:
        return nothing
    sizes = [int(np.prod(b.shape)) for b in manifest.belief]
    wanted = np.repeat([b.role == "variance" for b in manifest.belief], sizes)
    if not wanted.any() or any(len(b) != len(wanted) for b in beliefs):
        return nothing
    widths = np.sqrt(np.maximum(np.array(beliefs)[:, wanted], 0)).mean(axis=1).astype(np.float64)
    return widths / widths[0] if widths[0] > 0 else nothing
