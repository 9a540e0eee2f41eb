"""`adaptd top`: what its board makes of figures, its keys on a real daemon, a real terminal."""

import asyncio
import math
import os
import pty
import select
import signal
import subprocess
import sys
import time

import numpy as np

from runtime.cli import main as adaptd
from runtime.episodes import EpisodeReturns
from runtime.messages import ObservationFlag
from runtime.onlooker import Onlooker
from runtime.top.app import Top
from runtime.top.board import Board, Glimpse, Row, sparkline
from runtime.top.dialogs import ChoosePolicy, Confirm
from runtime.top.table import SessionTable, cells, notes

ONE = np.array([1.0, 0.0])
NEW_EPISODE, NEW_TASK = int(ObservationFlag.EPISODE_START), int(ObservationFlag.NEW_TASK)


def facts(session=7, next_seq=0, **changes):
    """A row of `status`."""
    return {
        "session": session, "policy": "counter@1", "previous_policy": None,
        "waiting_policy": None, "generation": 0, "next_seq": next_seq, "adaptation": "adapting",
        "frozen": False, "stopped": False, "asleep": False, "way": "request", "candidate": None,
        "probation": 0, "steps": next_seq, "repeated": 0, "gaps": 0, "missed": 0, "limited": 0,
        "refused": 0, "swaps": 0, "stale": 0,
    } | changes  # fmt: skip


def status(*rows):
    return {"sessions": list(rows), "pid": 1, "refused_frames": {}, "quarantined": {}}


def test_an_episode_ends_with_the_reward_told_at_the_next_ones_start():
    """Rewards 1, 2 | 3 is the last of episode one, told with the flag; then 10, 20 | 30."""
    episodes = EpisodeReturns(kept=8)
    told = [(0, 0, 9.0), (1, 0, 1.0), (2, 0, 2.0), (3, NEW_EPISODE, 3.0), (4, 0, 10.0),
            (5, NEW_EPISODE, 20.0), (6, 0, 5.0), (7, NEW_TASK, 99.0), (8, 0, 7.0)]  # fmt: skip
    ended = [episodes.follow(*tick) for tick in told]
    assert ended == [None, None, None, 6.0, None, 30.0, None, 5.0, None]
    assert list(episodes.returns) == [6.0, 30.0, 5.0] and episodes.running == 7.0


def test_an_episode_that_was_not_seen_whole_is_no_return():
    episodes = EpisodeReturns(kept=8)
    assert episodes.follow(100, 0, 1.0) is None  # joined in the middle
    assert episodes.follow(101, NEW_EPISODE, 1.0) is None
    assert episodes.follow(102, 0, 2.0) is None
    episodes.lose_track()
    assert episodes.follow(200, NEW_EPISODE, 2.0) is None
    assert episodes.follow(201, NEW_EPISODE, 4.0) == 4.0


def test_rates_and_troubles_come_from_two_looks_at_status():
    row = Row(facts())
    row.take_status(facts(next_seq=100, gaps=1), now_s=10.0)
    assert math.isnan(row.rate_hz) and row.grown == {"gaps"}
    row.take_status(facts(next_seq=150, gaps=1, limited=3), now_s=12.0)
    assert row.rate_hz == 25.0 and row.grown == {"limited"}


def test_percentiles_by_hand():
    row = Row(facts())
    for i in range(100):
        row.take_tick(Glimpse(7, i, 0, 0.0, latency_ns=1000 * (i + 1)))
    assert row.percentiles_us(50, 99) == [51.0, 100.0]
    assert all(map(math.isnan, Row(facts()).percentiles_us(50, 99)))


def test_a_sparkline_spans_from_the_lowest_to_the_highest():
    assert sparkline([0, 7, 14]) == "▁▅█"
    assert sparkline([3, 3]) == "▄▄" and sparkline([]) == "" and sparkline([math.nan, 1]) == "▄"


def test_trouble_comes_first_and_sessions_that_are_gone_go():
    board = Board()
    board.take_status(status(facts(1), facts(2), facts(3, stopped=True)), 1.0)
    board.take_status(status(facts(1), facts(2, gaps=1), facts(3, stopped=True)), 2.0)
    assert board.ids == [1, 2, 3]
    assert board.next_order() == "trouble" and board.ids == [3, 2, 1]
    board.take_status(status(facts(1)), 3.0)
    assert board.ids == [1] and list(board.rows) == [1]


def test_a_line_says_what_is_special():
    candidate = {"policy": "counter@2"}
    said = notes(facts(frozen=True, probation=40, candidate=candidate, refused=2))
    assert said == "frozen, probation 40, shadow counter@2, 2 refused"
    line = "".join(segment.text for segment in cells(Row(facts(policy="p" * 40))))
    assert "ppp…" in line and "adapting" in line


def watched(daemon, act, **size):
    """Run the app without a screen on a daemon, and let `act(app, pilot)` use it."""

    async def run():
        with Onlooker(daemon.endpoint, status_every_s=0.2) as onlooker:
            app = Top(onlooker)
            async with app.run_test(**({"size": (150, 30)} | size)) as pilot:
                await until(lambda: bool(app.board.rows))
                await pilot.pause()
                await act(app, pilot)

    asyncio.run(run())


async def until(condition, timeout_s=10.0):
    """Wait for something to come true."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        await asyncio.sleep(0.05)


def played(client, session, policy="counter@1"):
    opened = client.open(policy, session=session)
    for _ in range(3):
        opened.step(ONE)
    return opened


def row_of(client, session):
    (row,) = client.request("status", session=session)["sessions"]
    return row


def test_keys_act_after_a_yes_and_on_the_chosen_session(daemon, client):
    first, second = played(client, 3), played(client, 9)

    async def act(app, pilot):
        await pilot.press("down", "f")
        assert isinstance(app.screen, Confirm)
        await pilot.press("n")
        await pilot.press("f", "y")
        await until(lambda: row_of(client, 9)["frozen"])
        assert not row_of(client, 3)["frozen"]
        await until(lambda: app.board.rows[9].facts["frozen"])
        await pilot.press("f", "y")
        await until(lambda: not row_of(client, 9)["frozen"])
        await pilot.press("up", "r", "y")
        await until(lambda: int(first.step(ONE).flags) & 8)  # FRESH: it began from the prior
        assert not int(second.step(ONE).flags) & 8

    watched(daemon, act)


def test_a_policy_is_chosen_swapped_to_and_rolled_back(daemon, client):
    session = played(client, 3)

    async def act(app, pilot):
        await pilot.press("b")
        assert not isinstance(app.screen, Confirm)  # it has had one policy only
        await pilot.press("s")
        await until(lambda: isinstance(app.screen, ChoosePolicy))
        await pilot.press("down", "enter")
        await until(lambda: isinstance(app.screen, Confirm))
        await pilot.press("y")
        await until(lambda: row_of(client, 3)["waiting_policy"])
        session.step(ONE)
        await until(lambda: app.board.rows[3].facts["policy"] != "counter@1")
        await pilot.press("b", "y")
        await until(lambda: row_of(client, 3)["policy"] == "counter@1" or session.step(ONE) is None)

    watched(daemon, act)


def test_a_request_that_is_refused_is_told_and_changes_nothing(daemon, client):
    session = played(client, 3)

    async def act(app, pilot):
        await pilot.press("r")
        session.close()
        await pilot.press("y")
        await until(lambda: any("no session 3" in n.message for n in app._notifications))

    watched(daemon, act)


def test_only_the_sessions_on_the_screen_are_listened_to(daemon, client):
    for i in range(1, 41):
        played(client, i)

    async def act(app, pilot):
        table = app.query_one(SessionTable)
        await until(lambda: app._followed == set(table.on_screen()))
        assert 1 in app._followed and 40 not in app._followed
        await pilot.press("end")
        await until(lambda: 40 in app._followed and 1 not in app._followed)
        assert table.chosen == 40
        here, gone = client.open(session=40), client.open(session=1)
        await asyncio.sleep(0.5)  # until the subscription has reached the daemon
        for _ in range(5):
            here.step(ONE), gone.step(ONE)
        await until(lambda: len(app.board.rows[40].latencies) == 5)
        assert len(app.board.rows[1].latencies) == 0

    watched(daemon, act, size=(100, 16))


def test_a_daemon_that_is_gone_is_said_with_the_age_of_the_figures(daemon, client):
    played(client, 3)

    async def act(app, pilot):
        banner = app.query_one("#trouble")
        daemon.kill()
        await until(lambda: banner.display, timeout_s=15)
        assert "figures are" in str(banner.content)
        daemon.start()
        await until(lambda: not banner.display)
        assert app.board.rows[3].facts["asleep"] or app.board.rows[3].facts["next_seq"] == 3

    watched(daemon, act)


def read_terminal(terminal, wanted, timeout_s=30.0):
    """What a program wrote to its terminal until it wrote something."""
    said, deadline = b"", time.monotonic() + timeout_s
    while wanted not in said:
        assert time.monotonic() < deadline, said[-2000:]
        if select.select([terminal], [], [], 0.2)[0]:
            said += os.read(terminal, 1 << 16)
    return said


def test_it_runs_in_a_terminal_and_leaves_it_as_it_was(daemon, client):
    played(client, 424242)
    ours, theirs = pty.openpty()
    import fcntl
    import struct
    import termios

    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 140, 0, 0))
    command = [sys.executable, "-m", "runtime.cli", "top", "--endpoint", daemon.endpoint]
    environment = {**os.environ, "TERM": "xterm-256color"}
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
    )
    try:
        read_terminal(ours, b"424242")
        os.write(ours, b"q")
        said = read_terminal(ours, b"\x1b[?1049l")  # back from the alternate screen
        assert b"Traceback" not in said
        assert process.wait(timeout=20) == 0
    finally:
        process.send_signal(signal.SIGKILL)
        os.close(ours), os.close(theirs)


def test_settings_that_cannot_be(capsys):
    assert adaptd(["top", "--every-s", "0"]) == 2
    assert "between 0.2 and 3600" in capsys.readouterr().err
