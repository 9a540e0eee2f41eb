"""The main job, seen: a robot adapts, its task changes, its policy is swapped, it goes on.

A daemon in a process of its own serves the shipped policies. A simulated half cheetah is
rewarded for a target velocity that nobody tells it. Inside the third episode the target
changes; inside the fifth the policy is swapped for one with another kind of memory, which
is rebuilt from the session's recent transitions; then the target changes once more.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from runtime.client import Client, Session, Tap
from runtime.daemon_process import DaemonProcess
from runtime.errors import InvalidConfig, UnknownName
from runtime.messages import ActionFlag
from sim.change import Change
from sim.change_report import tasks_in
from sim.change_windows import ADAPTED, FIRST
from sim.robot import Moment, SimulatedRobot, drive

FAMILY = "halfcheetah-vel"
FIRST_TARGET, SECOND_TARGET, THIRD_TARGET = 2.0, 0.8, 2.6  # m/s
EPISODE = 200
CHANGES = tuple(
    Change((at, at), {"target_velocity": target})
    for at, target in ((2 * EPISODE + 100, SECOND_TARGET), (5 * EPISODE + 60, THIRD_TARGET))
)
SWAP_AT = 4 * EPISODE + 90
RATE_HZ = 100.0
"""Five times real time: the demo takes 12 s and still leaves a swap's work between ticks."""
STEPS = 6 * EPISODE


@dataclass
class Recording:
    """What happened, a row per control step."""

    moments: list[Moment]
    beliefs: dict[int, NDArray[np.float32]]
    """Belief outputs by seq, from the tap."""
    swap: dict[str, Any]
    """The daemon's report of the swap."""

    def column(self, name: str) -> NDArray[np.float64]:
        """One field of every moment."""
        return np.array([getattr(m, name) for m in self.moments], np.float64)

    @property
    def swapped_at(self) -> int:
        """The first step that the new policy acted in."""
        return self.swap["from_seq"]

    @property
    def changed_at(self) -> list[int]:
        """The steps before which the hidden target changed."""
        return np.flatnonzero(self.column("changed")).tolist()

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
    robot = SimulatedRobot(FAMILY, seed, {"target_velocity": FIRST_TARGET}, CHANGES)
    with DaemonProcess(models) as daemon, daemon.client() as client:
        _check_known(client, swap_to)
        session = client.open(policy)
        tap = client.tap(session.id)
        with ThreadPoolExecutor(1) as operator:
            return _scenario(robot, daemon, session, tap, operator, swap_to)


def _check_known(client: Client, policy: str) -> None:
    """Complain of a policy that does not exist at once; it is loaded only while the robot moves."""
    rows = client.request("policies")["policies"]
    known = sorted({name for row in rows for name in (row["policy"], row["policy"].split("@")[0])})
    if policy not in known:
        raise UnknownName("policy", policy, known)


def _scenario(
    robot: SimulatedRobot,
    daemon: DaemonProcess,
    session: Session,
    tap: Tap,
    operator: ThreadPoolExecutor,
    swap_to: str,
) -> Recording:
    beliefs: dict[int, NDArray[np.float32]] = {}
    swaps: list[Future[dict[str, Any]]] = []

    def swap() -> dict[str, Any]:
        with daemon.client() as client:
            return client.request("swap", policy=swap_to, session=session.id)["swaps"][0]

    def before(step: int) -> None:
        if step == SWAP_AT:  # an operator asks, on a connection of his own; the robot ticks on
            swaps.append(operator.submit(swap))

    moments = []
    for moment in drive(robot, session, STEPS, before, RATE_HZ):
        moments.append(moment)
        beliefs.update((tick.seq, tick.belief) for tick in tap.ticks())
    beliefs.update((tick.seq, tick.belief) for tick in tap.ticks(timeout_s=0.2))
    return Recording(moments, beliefs, swaps[0].result())


def print_tables(recording: Recording, console: Console) -> None:
    """Returns per episode, adaptation after each change, the wire, and the swap."""
    console.print(_returns(recording))
    console.print(_tracking(recording))
    trips = 1e6 * recording.column("round_trip_s")
    p50, p99 = np.percentile(trips, [50, 99])
    console.print(f"round trip over ipc: p50 {p50:.0f} us, p99 {p99:.0f} us, {len(trips)} ticks")
    swap = recording.swap
    replayed = f" from its last {swap['replayed_steps']} steps" * (swap["carry"] == "replayed")
    console.print(f"swap: {swap['old']} -> {swap['new']}, memory {swap['carry']}{replayed}")
    missed = sum(
        m.answer.silent or bool(m.answer.flags & ActionFlag.GAP) for m in recording.moments
    )
    console.print(
        f"asked for at step {SWAP_AT}, took over at step {recording.swapped_at}; the robot was "
        f"served at {RATE_HZ:g} Hz all the while, {missed} ticks missed"
    )


def _returns(recording: Recording) -> Table:
    table = Table(
        "episode", "policy", r"hidden target \[m/s]", "return", title="Return per episode"
    )
    for episode, steps in groupby(recording.moments, key=lambda m: m.episode):
        inside = list(steps)
        acting = [recording.swap["old"]] * bool(inside[0].step <= recording.swapped_at)
        acting += [recording.swap["new"]] * bool(inside[-1].step > recording.swapped_at)
        table.add_row(
            str(episode + 1),
            " -> ".join(acting),
            tasks_in(inside, decimals=1)["target_velocity"],
            f"{sum(m.reward for m in inside):.1f}",
        )
    return table


def _tracking(recording: Recording) -> Table:
    table = Table(
        "from step", "what happened", "before", "after",
        title=rf"Mean |speed - target| \[m/s]: first {FIRST} steps, and from step {ADAPTED} to the "
        f"episode's end",
    )  # fmt: skip
    error = np.abs(recording.column("measure") - recording.target)
    events = {0: "starts knowing nothing"}
    events |= {at: f"target becomes {recording.target[at]:.1f}" for at in recording.changed_at}
    events |= {recording.swapped_at: "policy swapped"}
    for at, what in sorted(events.items()):
        end = (at // EPISODE + 1) * EPISODE
        first, later = error[at : at + FIRST].mean(), error[at + ADAPTED : end].mean()
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
    if not picture.parent.is_dir():
        raise InvalidConfig(f"there is no folder {picture.parent} for the picture")
    console = Console()
    console.print(f"A daemon serves {models}; a simulated robot learns a speed nobody tells it ...")
    recording = run_demo(models, policy, swap_to, seed)
    print_tables(recording, console)
    draw(recording, picture)
    console.print(f"picture: {picture}")
