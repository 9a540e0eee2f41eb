"""The least that serving a policy can cost: a bare ROUTER loop and a bare ORT run.

No sessions, no checks, no guard: it answers any frame by the action of a fixed input.

    python -m runtime.benchmark.floor ADDRESS MODEL
"""

import gc
import sys
import tempfile
from pathlib import Path
from types import TracebackType

import numpy as np
import onnxruntime as ort
import zmq

from runtime.benchmark.side_process import SideProcess
from runtime.errors import InvalidConfig
from runtime.messages import HEADER_SIZE

START_TIMEOUT_MS = 20_000


def main(address: str, model: str) -> None:
    """Serve until killed."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    session = ort.InferenceSession(model, options, ["CPUExecutionProvider"])
    feed = {i.name: np.zeros([1, *i.shape[1:]], np.float32) for i in session.get_inputs()}
    router = zmq.Context().socket(zmq.ROUTER)
    router.bind(address)
    gc.collect()
    gc.freeze()
    while True:
        sender, frame = router.recv_multipart()
        action = session.run(None, feed)[0]
        router.send_multipart((sender, frame[:HEADER_SIZE] + np.asarray(action).tobytes()))


class Floor:
    """The floor in a process of its own, asked by a bare DEALER; a context manager."""

    def __init__(self, model: Path, observed: int, queued: int = 1000):
        """
        Args:
            model: the policy's graph.
            observed: numbers of an observation, so that the payload is the same.
            queued: frames that may be on their way at once.
        """
        self.frame = bytes(HEADER_SIZE + 4 * observed)
        self._folder = tempfile.TemporaryDirectory(prefix="adaptd-floor-")
        address = f"ipc://{self._folder.name}/floor"
        self.process = SideProcess("runtime.benchmark.floor", address, str(model))
        self._context = zmq.Context()
        self.socket = self._context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.SNDHWM, queued)
        self.socket.setsockopt(zmq.RCVHWM, queued)
        self.socket.setsockopt(zmq.RECONNECT_IVL, 20)
        self.socket.connect(address)

    def ask_many(self, count: int) -> None:
        """Send `count` frames at once and take their answers."""
        for _ in range(count):
            self.socket.send(self.frame)
        for _ in range(count):
            self.socket.recv()

    def __enter__(self) -> "Floor":
        self.socket.send(self.frame)
        if not self.socket.poll(START_TIMEOUT_MS):
            self.__exit__(None, None, None)
            raise InvalidConfig("the floor server did not start")
        self.socket.recv()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._context.destroy(linger=0)
        self.process.kill()
        self._folder.cleanup()


if __name__ == "__main__":
    main(*sys.argv[1:])
