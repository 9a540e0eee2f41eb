"""A real daemon process against an offline reference, through any sequence of events.

Robots tick, repeat, skip, freeze and change their clocks; operators swap, shadow, reset,
freeze, stop and restore; the daemon is stalled and killed. After each of it: one committed
step per (session, seq); the same answer to the same seq, before and after a crash; no
action from a stale observation; every answer as the reference computes it, bit for bit;
and the last good policy serves.

ADAPTD_SOAK_MINUTES=30 runs it with other seeds for that long; `make soak` does.
"""

import os
import time

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.operator_events import OperatorEvents
from tests.world import write_bundles

BUDGET_S = 30.0
SOAK = "ADAPTD_SOAK_MINUTES"


class Machine(OperatorEvents):
    """All that may happen."""


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write_bundles(folder)
    return folder


PROFILE = settings(
    stateful_step_count=150,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=False,
)


@pytest.mark.fault(
    "`kill -9`, swaps, stalls, repeats, gaps and clock jumps in any order",
    "Every answer is an offline reference's, to the bit; no action from a stale observation.",
)
def test_a_daemon_does_what_the_reference_does(models):
    Machine.models = models
    minutes = os.environ.get(SOAK)
    if minutes is None:
        Machine.until = time.monotonic() + BUDGET_S
        few = settings(PROFILE, derandomize=True, max_examples=6)
        run_state_machine_as_test(Machine, settings=few)
    else:
        soak(60 * float(minutes))


def soak(seconds):
    """Seed after seed; ADAPTD_SOAK_SEED=N begins with the one that failed."""
    until = time.monotonic() + seconds
    number = int(os.environ.get("ADAPTD_SOAK_SEED", time.time()))
    while time.monotonic() < until:
        print(f"seed {number}", flush=True)
        chosen = seed(number)(type("Machine", (Machine,), {}))
        many = settings(PROFILE, max_examples=20, database=None)
        run_state_machine_as_test(chosen, settings=many)
        number += 1
