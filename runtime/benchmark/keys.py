"""What keys cost: one session over tcp, with encryption and an allow-list and without."""

import random
import socket
import tempfile
from pathlib import Path

import numpy as np

from runtime.access.allowlist import Role
from runtime.access.key_folder import KeyFolder
from runtime.benchmark.latency import Robot, time_asking
from runtime.benchmark.setting import Figure, Setting, apart, frozen_garbage
from runtime.benchmark.spread import in_turn, percentiles_us
from runtime.messages import Planes

MOST_RATIO = 1.25
EVERY_ROLE = frozenset(Role)
NO_LIMIT = "1e9"


def keys(setting: Setting) -> list[Figure]:
    """One session back to back over loopback tcp, with keys and without, in turn.

    Both daemons are on one core and the robot is on another, as in `lone`.
    """
    with tempfile.TemporaryDirectory(prefix="adaptd-keys-") as folder:
        key = KeyFolder(Path(folder)).make_client("robot", EVERY_ROLE)
        limits = {"keys__folder": folder, "keys__messages_per_s": NO_LIMIT}
        with (
            setting.daemon(endpoint=loopback()) as plain,
            setting.daemon(endpoint=loopback(), key=key, **limits) as keyed,
            plain.client() as client,
            keyed.client() as known,
            apart(plain.process.pid, keyed.process.pid),
            frozen_garbage(),
        ):
            observations = setting.observations()[:, 0]
            robots = [Robot(c.open(setting.policy), observations) for c in (client, known)]
            for robot in robots:
                time_asking(robot.ask, setting.ticks)
            rows = in_turn(
                lambda: percentiles_us(time_asking(robots[0].ask, setting.ticks), 50, 99),
                lambda: percentiles_us(time_asking(robots[1].ask, setting.ticks), 50, 99),
                setting.repeats,
            )
    without, with_keys = np.array([a for a, _ in rows]), np.array([b for _, b in rows])
    figures = []
    for column, (name, bound) in enumerate((("p50", MOST_RATIO), ("p99", None))):
        one, other = without[:, column], with_keys[:, column]
        figures += [
            Figure(f"tcp_{name}_us", f"{name} over tcp, no keys [us]", one),
            Figure(f"keys_{name}_us", f"{name} over tcp, keys [us]", other),
            Figure(f"keys_ratio_{name}", f"{name} ratio", other / one, ".2f", bound),
        ]
    return figures


def loopback() -> str:
    """An endpoint whose ports nobody has, as likely as not."""
    count = len(Planes._fields)
    while True:  # below the ports that systems deal out themselves
        port = random.SystemRandom().randrange(10_000, 30_000, count)
        if all(_is_free(port + i) for i in range(count)):
            return f"tcp://127.0.0.1:{port}"


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
