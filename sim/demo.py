"""The main job, seen: a robot adapts, its task changes, its policy is swapped, it goes on.

A daemon in a process of its own serves the shipped policies. A simulated half cheetah is
rewarded for a target velocity that nobody tells it. Inside the third episode the target
changes; inside the fifth the policy is swapped for one with another kind of memory, which
is rebuilt from the session's recent transitions; then the target changes once more.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from runtime.client import Client, Session, Tap
from runtime.errors import InvalidConfig
from sim.daemon_process import DaemonProcess
from sim.robot import Moment, SimulatedRobot, drive

FAMILY = "halfcheetah-vel"
FIRST_TARGET, SECOND_TARGET, THIRD_TARGET = 2.0, 0.8, 2.6  # m/s
EPISODE = 200
CHANGES = {2 * EPISODE + 100: SECOND_TARGET, 5 * EPISODE + 60: THIRD_TARGET}
SWAP_AT = 4 * EPISODE + 100
STEPS = 6 * EPISODE
BEFORE, AFTER = 20, 60
"""Steps that count as before adaptation, right after a change, and as after it."""


@dataclass
class Recording:
    """What happened, a row per control step."""

    moments: list[Moment]
    beliefs: dict[int, NDArray[np.float32]]
    """Belief outputs by seq, from the tap."""
    swap: dict[str, Any]
    policies: tuple[str, str]

    def column(self, name: str) -> NDArray[np.float64]:
        """One field of every moment."""
        return np.array([getattr(m, name) for m in self.moments], np.float64)

    @property
    def target(self) -> NDArray[np.float64]:
        """The hidden target velocity [m/s]."""
        return np.array([m.task["target_velocity"] for m in self.moments])


def run_demo(models: Path, policy: str, swap_to: str, seed: int) -> Recording:
    """Start a daemon and run the scenario in the module's docstring.

    Raises:
        InvalidConfig: the daemon does not start.
        ProtocolError: a policy does not exist or cannot drive this robot.
    """
    robot = SimulatedRobot(FAMILY, seed, {"target_velocity": FIRST_TARGET})
    with DaemonProcess(models) as daemon, daemon.client() as client:
        session = client.open(policy)
        tap = client.tap(session.id)
        return _scenario(robot, client, session, tap, swap_to)


def _scenario(
    robot: SimulatedRobot, client: Client, session: Session, tap: Tap, swap_to: str
) -> Recording:
    beliefs: dict[int, NDArray[np.float32]] = {}
    swap: dict[str, Any] = {}

    def before(step: int) -> None:
        if step in CHANGES:
            robot.change_task({"target_velocity": CHANGES[step]})
        if step == SWAP_AT:
            report = client.request("swap", policy=swap_to, session=session.id)
            swap.update(report["swaps"][0])

    moments = []
    for moment in drive(robot, session, STEPS, before):
        moments.append(moment)
        beliefs.update((tick.seq, tick.belief) for tick in tap.ticks())
    beliefs.update((tick.seq, tick.belief) for tick in tap.ticks(timeout_s=0.2))
    return Recording(moments, beliefs, swap, (swap["old"], swap["new"]))


def print_tables(recording: Recording, console: Console) -> None:
    """Returns per episode, adaptation after each change, the wire, and the swap."""
    console.print(_returns(recording))
    console.print(_tracking(recording))
    trips = 1e6 * recording.column("round_trip_s")
    p50, p99 = np.percentile(trips, [50, 99])
    console.print(f"round trip over ipc: p50 {p50:.0f} us, p99 {p99:.0f} us, {len(trips)} ticks")
    swap = recording.swap
    silent = sum(m.answer.silent for m in recording.moments)
    replayed = f" from its last {swap['replayed_steps']} steps" * (swap["carry"] == "replayed")
    console.print(
        f"swap at step {SWAP_AT}: {swap['old']} -> {swap['new']}, "
        f"memory {swap['carry']}{replayed}; {silent} ticks missed"
    )


def _returns(recording: Recording) -> Table:
    table = Table("episode", "policy", "hidden target [m/s]", "return", title="Return per episode")
    rewards, episodes = recording.column("reward"), recording.column("episode")
    for episode in range(int(episodes.max()) + 1):
        inside = episodes == episode
        targets = list(dict.fromkeys(recording.target[inside].tolist()))
        generations = {m.answer.generation for m in recording.moments if m.episode == episode}
        acting = [recording.policies[g - 1] for g in sorted(generations)]
        table.add_row(
            str(episode + 1),
            " -> ".join(acting),
            " -> ".join(f"{t:.1f}" for t in targets),
            f"{rewards[inside].sum():.1f}",
        )
    return table


def _tracking(recording: Recording) -> Table:
    table = Table(
        "from step", "what happened", "before", "after",
        title=f"Mean |speed - target| [m/s]: first {BEFORE} steps, and from step {AFTER} to the "
        f"episode's end",
    )  # fmt: skip
    error = np.abs(recording.column("measure") - recording.target)
    events = {0: "starts knowing nothing"}
    events |= {at: f"target becomes {target:.1f}" for at, target in CHANGES.items()}
    events |= {SWAP_AT: "policy swapped"}
    for at, what in sorted(events.items()):
        end = (at // EPISODE + 1) * EPISODE
        first, later = error[at : at + BEFORE].mean(), error[at + AFTER : end].mean()
        table.add_row(str(at), what, f"{first:.2f}", f"{later:.2f}")
    return table


def demo(models: Path, policy: str, swap_to: str, picture: Path, seed: int) -> None:
    """Run the demo, print its tables and draw its picture.

    Args:
        models: folder of bundles.
        policy: to start with.
        swap_to: to swap to.
        picture: where to write the picture.
        seed: of the start states.

    Raises:
        InvalidConfig: matplotlib is missing, or the daemon does not start.
    """
    try:
        from sim.demo_picture import draw
    except ImportError:
        raise InvalidConfig(
            "the demo's picture needs matplotlib: pip install 'adaptd[sim]'"
        ) from None
    console = Console()
    console.print(f"A daemon serves {models}; a simulated robot learns a speed nobody tells it ...")
    recording = run_demo(models, policy, swap_to, seed)
    print_tables(recording, console)
    draw(recording, picture)
    console.print(f"picture: {picture}")
