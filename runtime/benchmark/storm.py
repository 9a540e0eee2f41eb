"""Everything at once: kills, swaps and a bad network, while an offline reference counts along.

Robots send each observation until it is answered, as exactly-once adaptation lets them. So
every one is stepped once, whatever goes wrong, and a reference that steps the same policies
without any daemon must get the same actions and, at the end, the same carries, to the bit.
"""

import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from runtime.benchmark.bad_network import BadNetwork
from runtime.benchmark.convoy import PERIOD_S, TASK_STEPS, Convoy
from runtime.benchmark.offline import Offline
from runtime.benchmark.setting import Figure, NotMeasured, Setting
from runtime.benchmark.soak import policies_of
from runtime.benchmark.spread import slope
from runtime.benchmark.weather import Weather
from runtime.client import Client
from runtime.daemon_process import DaemonProcess
from runtime.store import Store

SESSIONS = 200
BEHIND_BAD_NETWORK = 0.1
"""Share of the sessions whose messages go over it."""


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
        bad = max(1, round(BEHIND_BAD_NETWORK * count))
        convoys = [
            _convoy(setting, daemon, labels, ids[bad:], daemon.endpoint),
            _convoy(setting, daemon, labels, ids[:bad], network.endpoint),
        ]
        weather = Weather(daemon, network, labels, random.Random(0), 60 * setting.minutes)
        seconds = _run(convoys, weather)
        for convoy in convoys:
            convoy.compare()
    return _figures(convoys, weather, seconds)


def _convoy(
    setting: Setting, daemon: DaemonProcess, labels: list[str], ids: list[int], endpoint: str
) -> Convoy:
    store = Store(setting.models)  # one each: a policy's buffers are one thread's
    offline = Offline({label: store.load(label) for label in labels}, labels[0], ids)
    if not offline.batch_invariant:
        raise NotMeasured("rows of these policies depend on the batch on this machine")
    observations = setting.observations(len(ids), steps=997)
    return Convoy(ids, endpoint, daemon.endpoint, observations, offline)


def _run(convoys: list[Convoy], weather: Weather) -> float:
    """Tick until the time is over, or one of them has ended; how long that was [s]."""
    stopping, began = threading.Event(), time.monotonic()
    with ThreadPoolExecutor(len(convoys)) as pool:
        running = [pool.submit(convoy.run, stopping) for convoy in convoys]
        try:
            while time.monotonic() - began < weather.seconds and not any(r.done() for r in running):
                weather.blow()
                time.sleep(PERIOD_S)
            lasted = time.monotonic() - began
            weather.calm()
        finally:
            stopping.set()
        for convoy in running:
            convoy.result()
    return lasted


def _figures(convoys: list[Convoy], weather: Weather, seconds: float) -> list[Figure]:
    direct, over_bad = (convoy.tally for convoy in convoys)
    tally, events = direct + over_bad, weather.events

    def one(key: str, words: str, value: float, target: float | None = None) -> Figure:
        form = ",.1f" if isinstance(value, float) else ",.0f"
        return Figure(f"storm_{key}", words, np.array([float(value)]), form, target)

    figures = [
        one("sessions", "sessions", sum(len(convoy.ids) for convoy in convoys)),
        one("seconds", "seconds", round(seconds)),
        one("ticks", "ticks of each", direct["ticks"]),
        one("hz", "that is, a second, of 50", convoys[0].hz),
        one("late_percent", "of them not done in 20 ms [%]", _percent(direct)),
        one("bad_hz", "a second, of those over the bad network", convoys[1].hz),
        one("kills", "kill -9 and restart", events["kills"]),
        one("swaps", "swaps of all sessions", events["swaps"]),
        one("swaps_cut_short", "swaps without an answer in 30 s", events["swaps_cut_short"]),
        one("faults", "faults of the network", events["faults"]),
        one("resent", "observations sent again", tally["resent"]),
        one("unanswered", "observations never answered", tally["unanswered"], 0),
        one("wrong", "answers other than the reference's, in any bit", tally["wrong"], 0),
        one("other", "sessions whose carry or count is another in the end", tally["other"], 0),
        one("lost", "sessions lost", tally["lost"], 0),
        one("stale", "actions on stale observations", tally["stale"], 0),
        one("rss_mb", "highest memory [MB]", weather.highest_mb),
    ]
    if len(weather.looks) > 2:
        minutes, kilobytes = np.array(weather.looks).T
        rise, error = slope(minutes, kilobytes)
        figures += [
            one("life", "life of the last daemon [min]", float(minutes[-1])),
            one("rise", "rise of its memory after two minutes [kB/min]", rise),
            one("rise_error", "its standard error", error),
        ]
    return figures


def _percent(tally: Counter[str]) -> float:
    return 100 * tally["late"] / max(1, tally["ticks"])
