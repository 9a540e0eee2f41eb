"""Events of the state machine: robots tick, repeat, skip, freeze; the daemon stalls and dies."""

import time

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from runtime.messages import Code, ObservationFlag
from tests import reference_requests as reference
from tests.reference_wire import frame
from tests.world import World

MOST_ROBOTS = 3
TICKS_BETWEEN_CRASHES = 25
GOOD = ("counter@1", "counter@2", "other@1", "episodic@1", "strict@1", "rated@1", "noisy@1")
BAD = ("loud@1", "brittle@1", "hard@1")
FOREIGN, TORN = "foreign@1", "torn@1"
EPISODE, NEW_TASK, INVALID = (
    int(ObservationFlag[name]) for name in ("EPISODE_START", "NEW_TASK", "INVALID")
)

numbers = st.sampled_from([-20.0, -1.0, -0.25, 0.0, 0.1, 0.5, 1.0, 3.0])
pairs = st.tuples(numbers, numbers)
boundaries = st.sampled_from([0, 0, 0, 0, EPISODE, NEW_TASK, EPISODE | NEW_TASK, INVALID])
tellings = st.fixed_dictionaries(
    {"obs": pairs, "reward": numbers, "flags": boundaries, "applied": st.none() | pairs}
)
several = st.lists(tellings, min_size=1, max_size=6)
maybe_some = st.lists(tellings, max_size=4)
which = st.integers(0, MOST_ROBOTS - 1)


def event(**strategies):
    """A rule that is followed while there is time.

    No precondition: those must not depend on a clock.
    """

    def decorate(function):
        def follow(self, **chosen):
            if self.world is None or time.monotonic() > self.until:
                return
            try:
                function(self, **chosen)
            except BaseException:
                type(self).until = float("inf")  # it takes longer to find out why
                raise

        follow.__name__ = function.__name__
        return rule(**strategies)(follow)

    return decorate


class RobotEvents(RuleBasedStateMachine):
    """What robots and their drivers do, and what becomes of the daemon."""

    models = None
    until = float("inf")
    """When nothing more may happen."""

    def __init__(self):
        super().__init__()
        self.world = World(self.models) if time.monotonic() < self.until else None

    def teardown(self):
        if self.world is not None:
            try:
                if self.world.reachable:  # else something has gone wrong already
                    self.world.check_status()
            finally:
                self.world.close()

    def robot(self, i):
        return self.world.robots[i % len(self.world.robots)]

    @initialize(policy=st.sampled_from(GOOD))
    def first(self, policy):
        if self.world is not None:
            self.world.add(policy)

    @event(policy=st.sampled_from(GOOD))
    def open(self, policy):
        if len(self.world.robots) < MOST_ROBOTS:
            self.world.add(policy)

    @event(i=which)
    def come_back(self, i):
        ref = self.robot(i).reference
        facts = self.world.request("open", session=ref.id)
        assert facts["resumed"] and facts["next_seq"] == ref.next_seq

    @event(i=which, each=several)
    def step(self, i, each):
        self.go_on(self.robot(i), each)

    def go_on(self, robot, each):
        for telling in each:
            self.world.exchange([(robot, robot.tell(**telling))])

    @event(each=several)
    def step_together(self, each):
        for telling in each:
            self.world.exchange([(robot, robot.tell(**telling)) for robot in self.world.robots])

    @event(i=which, count=st.integers(5, 40), size=st.sampled_from([0.1, 0.5, 3.0]))
    def walk(self, i, count, size):
        """Many ticks in which nothing is special, of a robot that may move."""
        robot = self.robot(i)
        if robot.reference.stopped:
            self.rearm(robot)
        for k in range(count):
            told = robot.tell(obs=(size, 0.1 * (k % 5)), flags=EPISODE * (k % 11 == 10))
            self.world.exchange([(robot, told)])

    @event(i=which, telling=tellings, skip=st.integers(1, 5))
    def gap(self, i, telling, skip):
        self.world.exchange([(self.robot(i), self.robot(i).tell(skip, **telling))])

    @event(i=which, other=st.booleans())
    def duplicate(self, i, other):
        robot = self.robot(i)
        if robot.last is not None:
            told = robot.tell(-1, obs=(9.0, 9.0), flags=NEW_TASK)
            self.world.repeat(robot, frame(robot.id, told) if other else robot.last[0])

    @event(i=which, back=st.integers(2, 4))
    def old_seq(self, i, back):
        robot = self.robot(i)
        if robot.reference.next_seq >= back:
            code = self.world.error(frame(robot.id, robot.tell(-back)))
            assert code == Code.OLD_SEQ

    @event(i=which)
    def senseless(self, i):
        robot = self.robot(i)
        for obs, code in (((np.nan, 0), Code.NOT_FINITE), ((1, 2, 3), Code.WRONG_SIZE)):
            assert self.world.error(frame(robot.id, robot.tell(obs=obs))) == code

    @event(i=which, telling=tellings, held_s=st.sampled_from([0.05, 0.35]))
    def hold_back(self, i, telling, held_s):
        """The sender freezes with an observation in its hands."""
        robot = self.robot(i)
        told = robot.tell(**telling)
        time.sleep(held_s)
        self.world.exchange([(robot, told)])

    @event(i=which, count=st.integers(3, 8))
    def stuck(self, i, count):
        """A driver sends the same numbers for ever."""
        for _ in range(count):
            self.world.exchange([(self.robot(i), self.robot(i).tell(obs=(0.5, 0.5)))])

    @event(i=which, seconds=st.sampled_from([-100.0, -1.0, 1.0, 100.0]))
    def clock_jump(self, i, seconds):
        self.robot(i).clock_shift_ns += int(1e9 * seconds)

    @event(each=st.lists(tellings, min_size=1, max_size=6), stall_s=st.sampled_from([0.02, 0.35]))
    def stall(self, each, stall_s):
        """Robots go on while the daemon stands still: all is answered in order afterwards."""
        counts = dict.fromkeys(range(len(self.world.robots)), 0)
        told = []
        for k, telling in enumerate(each):
            i = k % len(self.world.robots)
            told.append((self.robot(i), self.robot(i).tell(counts[i], **telling)))
            counts[i] += 1
        self.world.exchange(told, stall_s)

    @event()
    def crash(self):
        if self.world.ticks < TICKS_BETWEEN_CRASHES:
            return
        before = self.world.strikes
        self.world.crash()
        assert self.world.strikes <= before
        for robot in self.world.robots:
            reference.crash(robot.reference, self.world.store.load)

    @event(
        each=st.lists(tellings, min_size=MOST_ROBOTS, max_size=MOST_ROBOTS),
        wait_s=st.sampled_from([0.0, 0.0002, 0.0005, 0.001, 0.01]),
    )
    def crash_in_flight(self, each, wait_s):
        if self.world.ticks < TICKS_BETWEEN_CRASHES:
            return
        robots = self.world.robots
        told = [(r, r.tell(**t)) for r, t in zip(robots, each, strict=False)]
        self.world.crash_in_flight(told, wait_s)
