"""Events of the state machine: an operator swaps, shadows, resets, freezes, stops, restores."""

from functools import partial

from hypothesis import strategies as st

from runtime.messages import Code
from tests import reference_requests as reference
from tests.reference_wire import frame
from tests.robot_events import BAD, FOREIGN, GOOD, TORN, RobotEvents, event, maybe_some, which

blends = st.sampled_from([0, 0, 1, 4])


class OperatorEvents(RobotEvents):
    """What is asked for on the control plane."""

    def refused_at_once(self, op, policy, **fields):
        """Whether a policy is none that may be used, whatever for."""
        code = "INVALID_BUNDLE" if policy == TORN else ""
        code = "QUARANTINED" if self.world.quarantined(policy) else code
        if code:
            assert self.world.refusal(op, policy=policy, **fields) == code
        return bool(code)

    @event(
        i=which,
        policy=st.sampled_from([*GOOD, *BAD, FOREIGN, TORN]),
        migration=st.sampled_from(["auto", "auto", "keep", "replay", "reset"]),
        blend=blends,
        then=maybe_some,
    )
    def swap(self, i, policy, migration, blend, then):
        robot = self.robot(i)
        if self.refused_at_once("swap", policy, session=robot.id):
            return
        loaded = self.world.store.load(policy)
        act = partial(reference.swap, robot.reference, loaded, migration, blend)
        fields = {"policy": policy, "migration": migration, "blend": blend}
        granted = self.world.both("swap", act, session=robot.id, **fields)
        if granted is not None:
            ((report,), carry) = granted[0]["swaps"], granted[1]
            assert (report["carry"], report["new"]) == (carry, policy)
            self.go_on(robot, then)

    @event(policy=st.sampled_from([*GOOD, FOREIGN, *BAD]))
    def swap_all(self, policy):
        if self.refused_at_once("swap", policy):
            return
        loaded, references = self.world.store.load(policy), [r.reference for r in self.world.robots]

        def act():
            for each in references:
                reference.check_robot(each, loaded)
            return [reference.swap(each, loaded) for each in references]

        self.world.both("swap", act, policy=policy)

    @event(i=which, policy=st.sampled_from([None, *GOOD, *BAD, FOREIGN]), then=maybe_some)
    def shadow(self, i, policy, then):
        robot = self.robot(i)
        if policy is not None and self.refused_at_once("shadow", policy, session=robot.id):
            return
        loaded = policy and self.world.store.load(policy)
        act = partial(reference.shadow, robot.reference, loaded)
        self.world.both("shadow", act, session=robot.id, policy=policy)
        self.go_on(robot, then)

    @event(i=which, blend=blends, then=maybe_some)
    def promote(self, i, blend, then):
        robot = self.robot(i)
        act = partial(reference.promote, robot.reference, blend)
        self.world.both("promote", act, session=robot.id, blend=blend)
        self.go_on(robot, then)

    @event(i=which, then=maybe_some)
    def roll_back(self, i, then):
        robot = self.robot(i)
        ref, store = robot.reference, self.world.store

        def act():
            before = reference.roll_back(ref)
            if before is not None and self.world.quarantined(before):
                raise reference.Refused("QUARANTINED")
            return before and reference.swap(ref, store.load(before))

        self.world.both("rollback", act, session=robot.id)
        self.go_on(robot, then)

    @event(policy=st.sampled_from(BAD))
    def release(self, policy):
        if self.world.quarantined(policy):
            self.world.request("release", policy=policy)
            del self.world.strikes[policy]
        else:
            assert self.world.refusal("release", policy=policy) == "UNKNOWN_POLICY"

    @event(i=which)
    def reset(self, i):
        ref = self.robot(i).reference
        self.world.request("reset", session=ref.id)
        ref.start_fresh = True
        ref.amend()

    @event(i=which, frozen=st.booleans())
    def freeze(self, i, frozen):
        ref = self.robot(i).reference
        self.world.request("freeze", session=ref.id, frozen=frozen)
        ref.frozen = frozen
        ref.amend()

    @event(i=which)
    def stop(self, i):
        ref = self.robot(i).reference
        self.world.request("stop", session=ref.id)
        ref.stopped = True
        ref.amend()

    @event()
    def rearm_all(self):
        self.rearm(*self.world.robots)

    def rearm(self, *robots):
        for robot in robots:
            ref = robot.reference
            assert self.world.request("rearm", session=ref.id)["sessions"] == [ref.id]
            ref.stopped, ref.fallbacks = False, 0
            ref.amend()

    @event(i=which, then=maybe_some)
    def snapshot(self, i, then):
        ref = self.robot(i).reference
        text = self.world.request("snapshot", session=ref.id)["snapshot"]
        self.world.snapshots.append((reference.take(ref), text))
        self.go_on(self.robot(i), then)

    @event(i=which, k=st.integers(0, 5), then=maybe_some)
    def restore(self, i, k, then):
        if self.world.snapshots:
            ref = self.robot(i).reference
            taken, text = self.world.snapshots[k % len(self.world.snapshots)]
            act = partial(reference.restore, ref, taken)
            self.world.both("restore", act, session=ref.id, snapshot=text)
            self.go_on(self.robot(i), then)

    @event(i=which)
    def restore_good(self, i):
        ref = self.robot(i).reference
        act = partial(reference.restore_good, ref)
        self.world.both("restore", act, session=ref.id, last_good=True)

    @event(i=which)
    def close(self, i):
        if len(self.world.robots) > 1:
            robot = self.robot(i)
            self.world.robots.remove(robot)
            self.world.request("close", session=robot.id)
            assert self.world.error(frame(robot.id, robot.tell())) == Code.UNKNOWN_SESSION

    @event()
    def look(self):
        self.world.check_status()
