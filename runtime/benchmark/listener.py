"""An onlooker for `adaptd bench`: takes every tick from the tap until it is killed.

python -m runtime.benchmark.listener ENDPOINT
"""

import sys

from runtime.client import Client


def main(endpoint: str) -> None:
    """Say ``ready`` at the first tick, then only listen."""
    with Client(endpoint) as client:
        tap = client.tap()
        while not tap.ticks(timeout_s=1.0):
            pass
        print("ready", flush=True)
        while True:
            tap.ticks(timeout_s=1.0)


if __name__ == "__main__":
    main(*sys.argv[1:])
