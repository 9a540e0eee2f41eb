"""The guard and the adaptation status, by hand."""

import numpy as np
import pytest

from runtime.adaptation import AdaptationMonitor
from runtime.guard import ActionLimits, guard
from runtime.messages import Adaptation, Limit
from runtime.noise import step_noise
from runtime.spec import Manifest
from runtime.store import Store
from tests.bundles import make_manifest

FILES = {n: {"sha256": "0" * 64, "size": 0} for n in ("policy.onnx", "golden.safetensors")}


def limits(max_rate=None):
    """Bounds +-10 and +-1, at 10 Hz; the first element may change by `max_rate` per second."""
    facts = make_manifest("mine", 1, 2, False, files=FILES)
    facts["action"][0]["max_rate"] = max_rate
    return ActionLimits.of(Manifest.model_validate(facts))


def vector(*values):
    return np.array([values], np.float32)


@pytest.mark.parametrize(
    ("requested", "previous", "rate", "applied", "acted"),
    [
        (vector(3, 0.5), None, None, vector(3, 0.5), Limit(0)),
        (vector(30, 0.5), None, None, vector(10, 0.5), Limit.BOUNDS),
        (vector(-30, -5), None, None, vector(-10, -1), Limit.BOUNDS),
        (vector(3, 0.5), vector(0, 0), 20.0, vector(2, 0.5), Limit.RATE),  # 20/s at 10 Hz: 2 a step
        (vector(1.5, 0.5), vector(0, 0), 20.0, vector(1.5, 0.5), Limit(0)),
        (vector(-30, 0), vector(0, 0), 20.0, vector(-2, 0), Limit.BOUNDS | Limit.RATE),
        (vector(3, 0.5), vector(15, 0), 20.0, vector(8, 0.5), Limit.RATE),  # from the bound, 10
        (vector(3, 0.5), None, 20.0, vector(3, 0.5), Limit(0)),
        (vector(np.nan, 0), None, None, vector(0, 0.5), Limit.NOT_FINITE),
        (vector(0, np.inf), None, None, vector(0, 0.5), Limit.NOT_FINITE),
        (vector(np.nan, 0), vector(9, 0), 20.0, vector(7, 0.5), Limit.NOT_FINITE | Limit.RATE),
    ],
)
def test_the_guard_by_hand(requested, previous, rate, applied, acted):
    result = guard(requested, previous, limits(rate))
    np.testing.assert_array_equal(result.action, applied)
    assert result.limits == acted


def widths(monitor, *variances):
    return [monitor.follow({"spread": np.array([[v]], np.float32)}) for v in variances]


def test_the_status_follows_the_beliefs_width_with_hysteresis(models):
    policy = Store(models).load("counter@1")
    assert policy.prior_belief is not None
    prior = float(policy.prior_belief["spread"].item())
    monitor = AdaptationMonitor(policy)
    at = [prior * fraction**2 for fraction in (1.0, 0.6, 0.3, 0.45, 0.6, 0.45, 0.9)]
    A = Adaptation
    assert widths(monitor, *at) == [
        A.UNADAPTED, A.ADAPTING, A.ADAPTED, A.ADAPTED, A.ADAPTING, A.ADAPTING, A.UNADAPTED,
    ]  # fmt: skip
    assert widths(monitor, np.nan) == [A.INVALID]
    monitor.forget()
    assert monitor.status == A.UNADAPTED


def test_noise_depends_on_session_and_seq_alone():
    one = step_noise(7, 3, 5)
    assert one.shape == (1, 5) and one.dtype == np.float32
    np.testing.assert_array_equal(one, step_noise(7, 3, 5))
    for other in (step_noise(8, 3, 5), step_noise(7, 4, 5)):
        assert not np.array_equal(one, other)
    for session, seq, size in ((7, 3, 5), (2**53 - 1, 2**53, 1), (1, 0, 3)):
        bits = np.random.Philox(key=session, counter=[0, seq, 0, 0])
        fresh = np.random.Generator(bits).standard_normal((1, size), np.float32)
        np.testing.assert_array_equal(step_noise(session, seq, size), fresh)
    many = np.concatenate([step_noise(1, seq, 4) for seq in range(5000)])
    assert abs(many.mean()) < 0.03 and abs(many.std() - 1) < 0.03
