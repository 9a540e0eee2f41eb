"""Whether `adaptd record` keeps up: python -m benchmarks.recorder [SESSIONS] [RATE_HZ] [SECONDS]

A fleet on one socket at a fixed rate, a real daemon, a real recorder: ticks missed, the
recorder's share of a core, bytes per tick.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from runtime.daemon_process import DaemonProcess

POLICY = "halfcheetah-vel-rl2-gru"


def main(sessions: int = 200, rate_hz: float = 50.0, seconds: float = 20.0) -> None:
    """Drive a fleet while it is recorded, and print how that went."""
    models = Path("exported_models")
    with tempfile.TemporaryDirectory() as folder, DaemonProcess(models) as daemon:
        command = [sys.executable, "-m", "runtime.cli", "record", folder, "--spare-gib", "0"]
        recorder = subprocess.Popen(
            [*command, "--endpoint", daemon.endpoint], stdout=subprocess.PIPE
        )
        time.sleep(2.0)
        late, elapsed_s = drive(daemon, sessions, rate_hz, seconds)
        core = cpu_s(recorder.pid) / elapsed_s
        recorder.send_signal(signal.SIGINT)
        said = recorder.communicate(timeout=60)[0].decode().splitlines()
        size = sum(path.stat().st_size for path in Path(folder).glob("*.mcap"))
    ticks = sessions * int(rate_hz * seconds)
    print(f"{sessions} sessions at {rate_hz:g} Hz for {elapsed_s:.1f} s, {late} rounds late")
    print(" ".join(said[1:]))
    print(f"recorder: {100 * core:.0f} % of a core, {size / ticks:.0f} bytes per tick")


def drive(
    daemon: DaemonProcess, sessions: int, rate_hz: float, seconds: float
) -> tuple[int, float]:
    """Step a fleet at a rate; how many rounds were late, and how long all took."""
    rng = np.random.default_rng(0)
    late = 0
    with daemon.client() as client:
        fleet = client.fleet(POLICY, sessions)
        size = len(fleet.facts["observation"])
        observations = rng.normal(size=(sessions, size)).astype(np.float32)
        begun = deadline = time.monotonic()
        for _ in range(int(rate_hz * seconds)):
            fleet.step(observations, np.zeros(sessions, np.float32))
            deadline += 1 / rate_hz
            left_s = deadline - time.monotonic()
            late += left_s < 0
            time.sleep(max(0.0, left_s))
        return late, time.monotonic() - begun


def cpu_s(pid: int) -> float:
    """Processor time of a process so far [s]."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main(*(float(a) if "." in a else int(a) for a in sys.argv[1:]))
