"""One session back to back: adaptd's round trip beside the floor, in one run.

    python -m benchmarks.round_trip [--policy halfcheetah-vel-rl2-gru] [--repeats 9]

The floor is a bare ROUTER loop and a bare ORT run of the same policy with the same
payload (benchmarks/floor_server.py), asked by a bare DEALER. adaptd is asked through
`runtime.client`. The two alternate.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tyro
import zmq
from rich.console import Console
from rich.table import Table

from benchmarks.spread import spread
from runtime.client import Session
from runtime.daemon_process import DaemonProcess

TICKS = 2000


def main(
    policy: str = "halfcheetah-vel-rl2-gru",
    models: Path = Path("exported_models"),
    repeats: int = 9,
) -> None:
    """Print p50 and p99 of both and their ratios."""
    newest = max((models / policy).iterdir(), key=lambda p: int(p.name) if p.name.isdigit() else 0)
    with tempfile.TemporaryDirectory() as folder, DaemonProcess(models) as daemon:
        address = f"ipc://{folder}/floor"
        command = [sys.executable, "-m", "benchmarks.floor_server", address]
        floor = subprocess.Popen([*command, str(newest / "policy.onnx")])
        try:
            with daemon.client() as client:
                session = client.open(policy)
                _report(session, address, repeats)
        finally:
            floor.kill()
            floor.wait()


def _report(session: Session, floor_address: str, repeats: int) -> None:
    dealer = zmq.Context().socket(zmq.DEALER)
    dealer.connect(floor_address)
    observation = np.zeros(len(session.facts["observation"]), np.float32)
    frame = bytes(64) + observation.tobytes()
    _floor(dealer, frame)  # both warm up once
    _adaptd(session, observation)
    ours, floors = [], []
    for _ in range(repeats):
        floors.append(_floor(dealer, frame))
        ours.append(_adaptd(session, observation))
    a, f = np.array(ours), np.array(floors)
    table = Table("", "p50 [us]", "p99 [us]", title=f"round trip, {TICKS} ticks x {repeats}")
    table.add_row("floor", spread(f[:, 0]), spread(f[:, 1]))
    table.add_row("adaptd", spread(a[:, 0]), spread(a[:, 1]))
    ratio = a / f
    table.add_row("ratio", spread(ratio[:, 0], ".2f"), spread(ratio[:, 1], ".2f"))
    Console().print(table)
    Console().print(f"median (lowest to highest) of {repeats} alternating repeats")


def _floor(dealer: zmq.Socket, frame: bytes) -> tuple[float, float]:
    times = np.empty(TICKS)
    for i in range(TICKS):
        started = time.perf_counter()
        dealer.send(frame)
        dealer.recv()
        times[i] = time.perf_counter() - started
    return _percentiles(times)


def _adaptd(session: Session, observation: np.ndarray) -> tuple[float, float]:
    times = np.empty(TICKS)
    for i in range(TICKS):
        started = time.perf_counter()
        session.step(observation, 0.0)
        times[i] = time.perf_counter() - started
    return _percentiles(times)


def _percentiles(times: np.ndarray) -> tuple[float, float]:
    p50, p99 = np.percentile(1e6 * times, [50, 99])
    return float(p50), float(p99)


if __name__ == "__main__":
    tyro.cli(main)
