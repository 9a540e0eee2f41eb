"""Everything at once: kills, swaps and a bad network, while an offline reference counts along.

Robots send each observation until it is answered, as exactly-once adaptation lets them. So
every one is stepped once, whatever goes wrong, and a reference that steps the same policies
without any daemon must get the same actions and, at the end, the same carries, to the bit.
"""

import base64
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from safetensors.numpy import load as load_arrays

from runtime.benchmark.bad_network import WORDS, BadNetwork
from runtime.benchmark.offline import Offline, Told
from runtime.benchmark.resending import Answered, Resending, Silent
from runtime.benchmark.setting import Figure, NotMeasured, Setting
from runtime.benchmark.soak import policies_of, rss_bytes
from runtime.benchmark.spread import slope
from runtime.client import Client
from runtime.daemon_process import DaemonProcess
from runtime.errors import ProtocolError
from runtime.messages import ActionFlag, Limit
from runtime.store import Store

SESSIONS = 200
BEHIND_BAD_NETWORK = 0.1
"""Share of the sessions whose messages go over it."""
PERIOD_S = 0.020
TASK_STEPS = 500
"""After so many the task is a new one: the ring holds all of a task, for replays."""
KILL_S, SWAP_S, FAULT_S = 30.0, 7.0, 3.0
"""Mean times between two."""
TOO_OLD_NS = 1_100_000_000
"""`guard.max_age_s`, and what clocks and scheduling may add."""
REWARD = 0.1


@dataclass
class Storm:
    """What has happened so far."""

    daemon: DaemonProcess
    labels: list[str]
    rng: random.Random
    events: Counter[str] = field(default_factory=Counter)
    lives_mb: list[float] = field(default_factory=list)
    """Memory of each daemon just before it was killed."""
    _swapping: threading.Thread | None = None

    def __post_init__(self) -> None:
        now = time.monotonic()
        self._next = {"kill": now + KILL_S, "swap": now + SWAP_S, "fault": now + FAULT_S}

    def blow(self, network: BadNetwork) -> None:
        """Whatever is due."""
        now = time.monotonic()
        for event, mean_s in (("kill", KILL_S), ("swap", SWAP_S), ("fault", FAULT_S)):
            if now >= self._next[event]:
                self._next[event] = now + self.rng.uniform(0.5, 1.5) * mean_s
                getattr(self, f"_{event}")(network)

    def _kill(self, network: BadNetwork) -> None:
        self.lives_mb.append(rss_bytes(self.daemon.process.pid) / 1e6)
        self.daemon.kill()
        self.daemon.start()
        self.events["kills"] += 1

    def _fault(self, network: BadNetwork) -> None:
        network.word = self.rng.choice([None, *WORDS])
        self.events["faults"] += network.word is not None

    def _swap(self, network: BadNetwork) -> None:
        if self._swapping is not None and self._swapping.is_alive():
            return
        label = self.rng.choice(self.labels)
        self._swapping = threading.Thread(target=self._ask_for, args=(label,), daemon=True)
        self._swapping.start()

    def _ask_for(self, label: str) -> None:
        with Client(self.daemon.endpoint, timeout_s=20) as client:
            try:
                client.request("swap", policy=label)
                self.events["swaps"] += 1
            except (ProtocolError, TimeoutError):  # a kill came between
                self.events["swaps_cut_short"] += 1

    def calm(self, network: BadNetwork) -> None:
        """Let everything come to an end."""
        network.word = None
        if self._swapping is not None:
            self._swapping.join()


def storm(setting: Setting) -> list[Figure]:
    """Sessions at 50 Hz for `setting.minutes`, each answer held to the reference's.

    Raises:
        NotMeasured: there is no other policy to swap to, or rows depend on the batch here.
    """
    count = min(SESSIONS, max(setting.sessions))
    ring_size = str(2 * TASK_STEPS)
    with (
        setting.daemon(swap__probation_ticks="0", ring_size=ring_size) as daemon,
        BadNetwork(daemon.endpoint) as network,
    ):
        with Client(daemon.endpoint, 60) as client:
            labels = policies_of(client, setting)
            if len(labels) < 2:
                raise NotMeasured(f"no other bundle fits a session of {labels[0]}")
            ids = [client.open(labels[0]).id for _ in range(count)]
        store = Store(setting.models)
        offline = Offline({label: store.load(label) for label in labels}, labels[0], count)
        if not offline.batch_invariant:
            raise NotMeasured("rows of these policies depend on the batch on this machine")
        bad = max(1, round(BEHIND_BAD_NETWORK * count))
        endpoints = [network.endpoint] * bad + [daemon.endpoint] * (count - bad)
        weather = Storm(daemon, labels, random.Random(0))
        with Resending(ids, endpoints) as robots:
            tally = _run(setting, weather, network, robots, offline)
            weather.calm(network)
        tally.update(_compare(daemon, ids, offline, tally["ticks"]))
    return _figures(count, tally, weather)


def _run(
    setting: Setting,
    weather: Storm,
    network: BadNetwork,
    robots: Resending,
    offline: Offline,
) -> Counter[str]:
    """Tick until the time is over; what was counted."""
    observations = setting.observations(len(robots.ids), steps=997)
    tally: Counter[str] = Counter()
    begun = due = time.monotonic()
    while time.monotonic() - begun < 60 * setting.minutes:
        tick = tally["ticks"]
        new_task = tick % TASK_STEPS == 0
        obs = observations[tick % len(observations)]
        try:
            answered = robots.ask(tick, obs, REWARD, new_task, lambda: weather.blow(network))
        except Silent as silent:
            tally["unanswered"] += silent.count
            break
        told = Told(obs, REWARD, new_task)
        expected = offline.step(told, _swapped(weather.daemon, robots.ids, answered))
        offline.acted(answered.actions)
        tally["ticks"] += 1
        tally["late"] += answered.took_s > PERIOD_S
        tally["resent"] += answered.resent
        tally["wrong"] += int((answered.requested != expected).any(axis=1).sum())
        tally["stale"] += _stale(answered)
        due += PERIOD_S
        time.sleep(max(0.0, due - time.monotonic()))
        due = max(due, time.monotonic() - PERIOD_S)
    tally["seconds"] = round(time.monotonic() - begun)
    return tally


def _swapped(daemon: DaemonProcess, ids: list[int], answered: Answered) -> dict[int, str]:
    """The policies that took over at a tick, by session; no other tick is under way."""
    places = np.flatnonzero(answered.flags & int(ActionFlag.SWAPPED))
    if not len(places):
        return {}
    with Client(daemon.endpoint, 60) as client:
        rows = client.request("status")["sessions"]
    policies = {row["session"]: row["policy"] for row in rows}
    return {int(i): policies[ids[i]] for i in places}


def _stale(answered: Answered) -> int:
    """Actions of a policy on observations that were too old when they came."""
    acted = answered.limits & int(Limit.STALE) == 0
    return int((acted & (answered.ages_ns > TOO_OLD_NS)).sum())


def _compare(daemon: DaemonProcess, ids: list[int], offline: Offline, ticks: int) -> dict[str, int]:
    """How many sessions are lost, or have another carry than the reference."""
    lost = other = 0
    with Client(daemon.endpoint, 60) as client:
        for i, session in enumerate(ids):
            try:
                taken = client.request("snapshot", session=session)
            except ProtocolError:
                lost += 1
                continue
            arrays = load_arrays(base64.b64decode(taken["snapshot"]))
            expected = offline.carry_of(i)
            same = all(arrays[f"carry.{n}"].tobytes() == v.tobytes() for n, v in expected.items())
            (row,) = client.request("status", session=session)["sessions"]
            other += not same or row["next_seq"] != ticks or row["steps"] != ticks
    return {"lost": lost, "other": other}


def _figures(count: int, tally: Counter[str], weather: Storm) -> list[Figure]:
    def one(key: str, words: str, value: float, target: float | None = None) -> Figure:
        form = ",.1f" if isinstance(value, float) else ",.0f"
        return Figure(f"storm_{key}", words, np.array([float(value)]), form, target)

    lives = np.array(weather.lives_mb)
    figures = [
        one("sessions", "sessions", count),
        one("ticks", f"ticks of each in {tally['seconds']} s", tally["ticks"]),
        one("kills", "kill -9 and restart", weather.events["kills"]),
        one("swaps", "swaps of all sessions", weather.events["swaps"]),
        one("swaps_cut_short", "swaps that a kill cut short", weather.events["swaps_cut_short"]),
        one("faults", "faults of the network", weather.events["faults"]),
        one("resent", "observations sent again", tally["resent"]),
        one("late", "ticks that were not done in 20 ms", tally["late"]),
        one("unanswered", "observations never answered", tally["unanswered"], 0),
        one("wrong", "answers other than the reference's, in any bit", tally["wrong"], 0),
        one("other", "sessions whose carry or count is another in the end", tally["other"], 0),
        one("lost", "sessions lost", tally["lost"], 0),
        one("stale", "actions on stale observations", tally["stale"], 0),
    ]
    if len(lives) > 2:
        rise, error = slope(np.arange(float(len(lives))), lives)
        figures += [
            one("rss_mb", "memory before a kill, mean [MB]", float(lives.mean())),
            one("rss_rise_mb", "its rise from life to life [MB]", float(rise)),
            one("rss_rise_error", "standard error of that [MB]", float(error)),
        ]
    return figures
