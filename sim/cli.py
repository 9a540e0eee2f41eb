"""`simrobot`: a simulated robot for adaptd."""

import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

import sim
from runtime.commandline import THERE, Reach, To, run_program, typed
from runtime.errors import InvalidConfig
from runtime.extras import need
from sim.change import Change
from sim.change_report import changes_table, returns_table
from sim.demo import demo
from sim.fault_report import faults_table
from sim.faults import Fault, FaultySession, behind
from sim.robot import PATIENCE, Moment, SimulatedRobot, drive, parse_task
from sim.scene_feed import SceneFeed

USAGE = """\
usage: simrobot COMMAND ...

  run FAMILY [--policy NAME] [--task name=value] [--change STEP:name=value]
        drive a robot through a running daemon
      [--fault observation:stuck@100-200]
        what goes wrong with it, in the words of PX4
  run --from RECORDING [--policy NAME] [--session N]
        send a recorded robot's observations once more, and compare the answers
  demo  the whole story, with a daemon of its own
  list  the task families

`simrobot COMMAND --help` lists the settings of one.
"""


def main(arguments: list[str] | None = None) -> int:
    """Entry point; the process's exit status."""
    return run_program("simrobot", USAGE, COMMANDS, arguments)


def run(
    family: tyro.conf.Positional[str | None] = None,
    policy: str | None = None,
    task: str | None = None,
    change: tyro.conf.UseAppendAction[tuple[str, ...]] = (),
    fault: tyro.conf.UseAppendAction[tuple[str, ...]] = (),
    episodes: int = 3,
    seed: int = 0,
    rate_hz: float | None = None,
    session: int | None = None,
    keep: bool = False,
    to: To = THERE,
    view: bool = False,
    video: Path | None = None,
    scene: bool = False,
    recording: Annotated[Path | None, tyro.conf.arg(name="from")] = None,
) -> None:
    """Drive a simulated robot through a running daemon.

    Args:
        family: task family, see `simrobot list`; none with --from.
        policy: name or name@version; the daemon's default if not given.
        task: hidden task as name=value,...; drawn at random if not given.
        change: the hidden task changes before a step of the run, or a random one of a range:
            STEP[-STEP][:PARAMETER[=VALUE],...], drawn anew where no value is given, as
            100:payload=0 or 300-400:target_velocity; again for another change.
        fault: what goes wrong, SIGNAL:WORD[@FROM-TO] in steps of the run, as
            observation:stuck@100-200; again for another. Signals: observation, reward, action,
            network. Words: off, stuck, garbage, wrong, slow, delayed, intermittent.
        episodes: how many; some are short where the robot can fall.
        seed: of the task, its changes and the start states.
        rate_hz: control steps per second; as fast as answers come if not given.
        session: a session's id, to go on with it; it is kept open. With --from: which one of
            the recording.
        keep: keep the session open at the end.
        view: open MuJoCo's viewer.
        video: write an mp4 file.
        scene: show the robot in 3-D to `adaptd view`.
        recording: of `adaptd record`, a file or a folder: instead of a simulation.
    """
    if (family is None) == (recording is None):
        raise InvalidConfig("name either a task family or a recording by --from")
    if recording is not None:
        _run_recorded(recording, session, policy, rate_hz, keep, to)
        return
    assert family is not None
    if episodes < 1:
        raise InvalidConfig(f"episodes must be at least 1, got {episodes}")
    longest = episodes * sim.family(family).horizon
    changes = tuple(map(Change.parse, change))
    for each in changes:
        each.check(sim.family(family), longest)
    given = parse_task(task, family) if task else None
    faults = tuple(map(Fault.parse, fault))
    robot = SimulatedRobot(family, seed, given, changes)
    with behind(faults, to, seed) as (reach, network), reach.client() as client:
        opened = client.open(policy, session)
        try:
            feed = SceneFeed(robot, to.endpoint, opened.id) if scene else None
            driven = FaultySession(opened, faults, network, seed) if faults else opened
            moments = _drive_seen(robot, driven, episodes, rate_hz, view, video, feed)
        finally:
            if not keep and session is None:
                with suppress(TimeoutError):  # of a daemon that is gone; what failed says more
                    opened.close()
    _print(moments, opened.facts["policy"], robot.changes_ahead)
    if faults:
        Console().print(faults_table(moments, faults))


def _run_recorded(
    recording: Path,
    number: int | None,
    policy: str | None,
    rate_hz: float | None,
    keep: bool,
    to: Reach,
) -> None:
    """Send a recorded robot's observations once more, and print how the answers compare."""
    need("record", "mcap", "orjson")
    from runtime.recording.reading import Recording
    from sim.recorded import open_again, send_again

    recorded = Recording([recording]).session(number)
    with to.client() as client:
        session = open_again(client, recorded, policy)
        echoes = list(send_again(recorded, session, rate_hz))
        if not keep:
            session.close()
    same, worst = sum(echo.same for echo in echoes), max(echo.difference for echo in echoes)
    said = f"{session.facts['policy']}, session {session.id}: {same} of {len(echoes)} answers"
    print(f"{said} are the recorded ones to the bit; largest difference {worst:.3g}")


def _drive_seen(robot, session, episodes, rate_hz, view, video, feed) -> list[Moment]:
    """Drive with a viewer, a video or a scene, if asked for."""
    from sim.render import Video, no_view, open_viewer  # graphics only where wanted

    film = Video(robot, video) if video else None
    if (view or feed) and rate_hz is None:
        rate_hz = robot.env.family.control_hz
    screen, update = open_viewer(robot) if view else no_view()
    moments = []
    try:
        longest = episodes * robot.env.family.horizon
        patience = longest if isinstance(session, FaultySession) else PATIENCE
        with screen:
            for moment in drive(
                robot, session, longest, rate_hz=rate_hz, episodes=episodes, patience=patience
            ):
                moments.append(moment)
                update()
                if film:
                    film.frame()
                if feed:
                    feed.update()
    finally:
        for shown in filter(None, (film, feed)):
            shown.close()
    return moments


def _print(moments: list[Moment], policy: str, ahead: list[Change]) -> None:
    console = Console()
    console.print(returns_table(moments, policy))
    if any(m.changed for m in moments):
        console.print(changes_table(moments))
    for change in ahead:
        over = f"the episodes were over after {len(moments)} steps"
        console.print(f"the change {change} never came: {over}", highlight=False)
    p50, p99 = np.percentile([1e6 * m.round_trip_s for m in moments], [50, 99])
    console.print(f"round trip: p50 {p50:.0f} us, p99 {p99:.0f} us, {len(moments)} ticks")


def run_demo(
    models: Path = Path("exported_models"),
    policy: str = "halfcheetah-vel-rl2-gru",
    swap_to: str = "halfcheetah-vel-rl2-lstm",
    picture: Path = Path("demo.png"),
    seed: int = 0,
    back: bool = False,
) -> None:
    """Start a daemon, adapt, change the task, swap the policy; tables and a picture.

    Args:
        models: folder of bundles.
        policy: policy to start with.
        swap_to: policy to swap to.
        picture: where to write the picture.
        seed: of the start states.
        back: swap back to the first policy two episodes later.
    """
    demo(models, policy, swap_to, picture, seed, back)


def list_families() -> None:
    """Show the task families, and what may vary about their bodies."""
    table = Table("kind", "name", "what it is", box=None)
    for row in sim.listing():
        table.add_row(*row)
    Console().print(table)


COMMANDS = {
    name: typed(f"simrobot {name}", function)
    for name, function in (("run", run), ("demo", run_demo), ("list", list_families))
}

if __name__ == "__main__":
    sys.exit(main())
