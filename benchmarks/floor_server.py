"""The least that serving a policy can cost: a bare ROUTER loop and a bare ORT run.

No sessions, no checks, no guard: it answers any frame by the action of a fixed input.

    python -m benchmarks.floor_server ADDRESS MODEL
"""

import sys

import numpy as np
import onnxruntime as ort
import zmq


def main(address: str, model: str) -> None:
    """Serve until killed."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(model, options, ["CPUExecutionProvider"])
    feed = {i.name: np.zeros([1, *i.shape[1:]], np.float32) for i in session.get_inputs()}
    router = zmq.Context().socket(zmq.ROUTER)
    router.bind(address)
    while True:
        sender, frame = router.recv_multipart()
        action = session.run(None, feed)[0]
        router.send_multipart((sender, frame[:64] + np.asarray(action).tobytes()))


if __name__ == "__main__":
    main(*sys.argv[1:])
