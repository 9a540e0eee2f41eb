"""Every fuzzing target for a moment: its corpus, and what hypothesis makes of it (tests/fuzz)."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.edits import Edit, drawn_edits, edited
from tests.fuzz.targets import TARGETS, corpus, make

EXAMPLES = {"slab": 30, "bundle": 30}
MANY = 100


@pytest.mark.parametrize("name", TARGETS)
def test_noise_is_refused_and_changes_nothing(name):
    target, sound = make(name), corpus(name)
    for data in sound:
        target(data)

    @settings(
        max_examples=EXAMPLES.get(name, MANY),
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(sound), drawn_edits)
    def attempt(data, edits):
        target(edited(data, edits))

    attempt()


def test_edits_by_hand():
    assert edited(b"abcdef", [Edit(0.5, 1, b"XY")]) == b"abcXYef"
    assert edited(b"abcdef", [Edit(0.5, -1, b"")]) == b"abc"
    assert edited(b"abcdef", [Edit(0.0, 2, b""), Edit(0.0, 0, b"Z")]) == b"Zcdef"
    assert edited(b"", [Edit(0.9, 3, b"")]) == b""
