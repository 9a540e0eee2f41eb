"""Makes tests/recordings/halfcheetah-vel.mcap: python -m tests.make_recorded_session

A half cheetah adapts to a hidden speed, its policy is swapped for one with another kind of
memory, the daemon is killed and comes back, and the memory is reset: 240 ticks.
"""

import shutil
import tempfile
import time
from pathlib import Path

from runtime.client import Client
from runtime.daemon_process import DaemonProcess
from sim.robot import SimulatedRobot, drive
from tests.conftest import SHIPPED
from tests.taped import PATIENCE_S, Taped

RECORDED = Path(__file__).parent / "recordings" / "halfcheetah-vel.mcap"
SESSION = 7


def main() -> None:
    """Record it anew."""
    robot = SimulatedRobot("halfcheetah-vel", seed=3, task={"target_velocity": 1.5})
    with tempfile.TemporaryDirectory() as folder, DaemonProcess(SHIPPED) as daemon:
        with Taped(daemon.endpoint, Path(folder), SESSION) as taped:
            with Client(daemon.endpoint, PATIENCE_S) as client:
                session = client.open("halfcheetah-vel-rl2-gru", SESSION)
                list(drive(robot, session, 90))
                client.request("swap", policy="halfcheetah-vel-rl2-lstm", session=SESSION)
                list(drive(robot, session, 60))
            taped.seen(150)
            taped.checkpoints(2)
            daemon.kill()
            daemon.start()
            time.sleep(0.5)  # until the subscription has reached the new daemon
            with Client(daemon.endpoint, PATIENCE_S) as client:
                session = client.open(session=SESSION)
                list(drive(robot, session, 60))
                client.request("reset", session=SESSION)
                list(drive(robot, session, 30))
            taped.seen(240)
        RECORDED.parent.mkdir(exist_ok=True)
        shutil.copy(taped.files.current, RECORDED)


if __name__ == "__main__":
    main()
