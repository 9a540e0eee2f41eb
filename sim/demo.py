"""The main job, seen: a robot adapts, its task changes, its policy is swapped, it goes on.

A daemon in a process of its own serves the shipped policies. A simulated half cheetah is
rewarded for a target velocity that nobody tells it. Inside the third episode the target
changes; inside the fifth the policy is swapped for one with another kind of memory, which
is rebuilt from the session's recent transitions; then the target changes once more.
"""

from concurrent.futures import Future, ThreadPoolExecutor
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
from sim.change_report import tasks_in
from sim.change_windows import ADAPTED, FIRST
from sim.demo_recording import (
    CHANGES,
    EPISODE,
    FAMILY,
    FIRST_TARGET,
    Recording,
    Story,
    read_believers,
)
from sim.robot import Moment, SimulatedRobot, drive

RATE_HZ = 100.0
"""Five times real time: the demo takes 12 s and still leaves a swap's work between ticks."""


def run_demo(models: Path, policy: str, swap_to: str, seed: int, back: bool = False) -> Recording:
    """Start a daemon and run the scenario in the module's docstring.

    Raises:
        InvalidConfig: the daemon does not start.
        ProtocolError: a policy does not exist or cannot drive this robot.
    """
    story = Story.of(policy, swap_to, back)
    robot = SimulatedRobot(FAMILY, seed, {"target_velocity": FIRST_TARGET}, CHANGES)
    with DaemonProcess(models) as daemon, daemon.client() as client:
        _check_known(client, swap_to)
        session = client.open(policy)
        tap = client.tap(session.id)
        with ThreadPoolExecutor(1) as operator:
            moments, beliefs, swaps = _play(story, robot, daemon, session, tap, operator)
    labels = [swaps[0]["old"], *(swap["new"] for swap in swaps)]
    return Recording(moments, beliefs, swaps, read_believers(models, labels))


def _check_known(client: Client, policy: str) -> None:
    """Complain of a policy that does not exist at once; it is loaded only while the robot moves."""
    rows = client.request("policies")["policies"]
    known = sorted({name for row in rows for name in (row["policy"], row["policy"].split("@")[0])})
    if policy not in known:
        raise UnknownName("policy", policy, known)


def _play(
    story: Story,
    robot: SimulatedRobot,
    daemon: DaemonProcess,
    session: Session,
    tap: Tap,
    operator: ThreadPoolExecutor,
) -> tuple[list[Moment], dict[int, NDArray[np.float32]], list[dict[str, Any]]]:
    """Moments, beliefs and swaps of the whole story."""
    beliefs: dict[int, NDArray[np.float32]] = {}
    swaps: list[Future[dict[str, Any]]] = []
    asked = dict(story.swaps)

    def swap(policy: str) -> dict[str, Any]:
        with daemon.client() as client:
            return client.request("swap", policy=policy, session=session.id)["swaps"][0]

    def before(step: int) -> None:
        if step in asked:  # an operator asks, on a connection of his own; the robot ticks on
            swaps.append(operator.submit(swap, asked[step]))

    moments = []
    for moment in drive(robot, session, story.steps, before, RATE_HZ):
        moments.append(moment)
        beliefs.update((tick.seq, tick.belief) for tick in tap.ticks())
    beliefs.update((tick.seq, tick.belief) for tick in tap.ticks(timeout_s=0.2))
    return moments, beliefs, [each.result() for each in swaps]


def print_tables(recording: Recording, console: Console) -> None:
    """Returns per episode, adaptation after each change, the wire, and the swap."""
    console.print(_returns(recording))
    console.print(_tracking(recording))
    trips = 1e6 * recording.column("round_trip_s")
    p50, p99 = np.percentile(trips, [50, 99])
    console.print(f"round trip over ipc: p50 {p50:.0f} us, p99 {p99:.0f} us, {len(trips)} ticks")
    for swap in recording.swaps:
        replayed = f" from its last {swap['replayed_steps']} steps" * (swap["carry"] == "replayed")
        console.print(
            f"swap: {swap['old']} -> {swap['new']}, memory {swap['carry']}{replayed}; took over at "
            f"step {swap['from_seq']}"
        )
    missed = sum(
        m.answer.silent or bool(m.answer.flags & ActionFlag.GAP) for m in recording.moments
    )
    console.print(f"the robot was served at {RATE_HZ:g} Hz all the while, {missed} ticks missed")


def _returns(recording: Recording) -> Table:
    table = Table(
        "episode", "policy", r"hidden target \[m/s]", "return", title="Return per episode"
    )
    for episode, steps in groupby(recording.moments, key=lambda m: m.episode):
        inside = list(steps)
        acting = [recording.acting(m.step - 1) for m in inside]
        table.add_row(
            str(episode + 1),
            " -> ".join(label for label, _ in groupby(acting)),
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
    events |= dict.fromkeys(recording.swapped_at, "policy swapped")
    for at, what in sorted(events.items()):
        end = (at // EPISODE + 1) * EPISODE
        windows = error[at : at + FIRST], error[at + ADAPTED : end]
        # On a busy machine a swap may take over too late in its episode for a step after.
        table.add_row(str(at), what, *(f"{w.mean():.2f}" if len(w) else "-" for w in windows))
    return table


def demo(
    models: Path, policy: str, swap_to: str, picture: Path, seed: int, back: bool = False
) -> None:
    """Run the demo, print its tables and draw its picture.

    Args:
        models: folder of bundles.
        policy: to start with.
        swap_to: to swap to.
        picture: where to write the picture.
        seed: of the start states.
        back: swap back to the first policy later.

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
    recording = run_demo(models, policy, swap_to, seed, back)
    print_tables(recording, console)
    draw(recording, picture)
    console.print(f"picture: {picture}")
