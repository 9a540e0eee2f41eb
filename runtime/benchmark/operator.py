"""An operator for `adaptd bench`: swaps a session's policy at a steady pace, when told.

    python -m runtime.benchmark.operator ENDPOINT SESSION POLICY OTHER

A process of its own, so that its requests do not hold up the robot that is measured.
A line ``COUNT EVERY_S`` asks for so many swaps; a JSON line says what became of each.
"""

import json
import sys
import time
from itertools import cycle

from runtime.client import Client
from runtime.errors import ProtocolError


def main(endpoint: str, session: str, policy: str, other: str) -> None:
    """Swap to `other`, back to `policy`, and so on, as lines ask for it."""
    turn = cycle((other, policy))
    with Client(endpoint, timeout_s=20.0) as client:
        client.request("status")
        print("ready", flush=True)
        for line in sys.stdin:
            count, every_s = line.split()
            swaps = []
            begun = time.monotonic()
            for i in range(int(count)):
                due = begun + (i + 0.5) * float(every_s)
                time.sleep(max(0.0, due - time.monotonic()))
                swaps.append(swap(client, int(session), next(turn)))
            print(json.dumps(swaps), flush=True)


def swap(client: Client, session: int, policy: str) -> dict:
    """Swap once: how long the request took [s], and the code it was refused with, if any."""
    started = time.monotonic()
    refused = None
    try:
        client.request("swap", policy=policy, session=session)
    except ProtocolError as error:
        refused = error.code
    return {"took_s": time.monotonic() - started, "refused": refused}


if __name__ == "__main__":
    main(*sys.argv[1:])
