"""What every registered family pays and when it ends, worked out again by hand.

Each function here is one family's definition, as its paper or its module's docstring has it,
for one step of one simulation: slow, plain, its constants written out, nothing taken from `sim`.
`FORMULAS` finds it by the family's name; `tests.reward_steps` plays what it is compared on.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Moment = dict[str, NDArray[Any]]
"""State of one simulation: `qpos`, `qvel`, `xipos` (places of the bodies' centres of mass) and
`cfrc_ext` of MuJoCo, or `position` [m] of the point and `cell` of the grid."""


@dataclass(frozen=True)
class Step:
    """One control step of one simulation."""

    before: Moment
    after: Moment
    action: NDArray[np.float64]
    """As clipped to the bounds, (A,)."""
    task: dict[str, float]
    mass: NDArray[np.float64]
    """Of the bodies [kg]; empty without physics."""


@dataclass(frozen=True)
class Paid:
    """What the definition says of a step."""

    reward: float
    """Of a bandit, the probability that 1 is paid and not 0."""
    test_reward: float | None = None
    terminated: bool | None = None
    """None where an episode never ends early."""
    cases: tuple[bool, ...] = ()
    """Which cases of the formula this step is; a run must meet each and its opposite."""


def formula_of(name: str) -> Callable[[Step], Paid]:
    """The formula of the family `name`, whose dynamics may vary: those change no reward."""
    base = name.split("+")[0]
    assert base in FORMULAS, (
        f"the family {base!r} is registered and tests/rewards_by_hand.py does not say what it "
        f"pays: write its definition there as a function and enter it in FORMULAS"
    )
    return FORMULAS[base]


def _squares(step: Step) -> float:
    return sum(float(a) ** 2 for a in step.action)


def _moved(step: Step, coordinate: int) -> float:
    return float(step.after["qpos"][coordinate]) - float(step.before["qpos"][coordinate])


def polar(distance: float, angle: float) -> tuple[float, float]:
    return distance * math.cos(angle), distance * math.sin(angle)


def cheetah_velocity(step: Step) -> Paid:
    velocity = _moved(step, 0) / 0.05
    return Paid(-abs(velocity - step.task["target_velocity"]) - 0.05 * _squares(step))


def cheetah_direction(step: Step) -> Paid:
    return Paid(step.task["direction"] * _moved(step, 0) / 0.05 - 0.05 * _squares(step))


def cheetah_run(step: Step) -> Paid:
    return Paid(_moved(step, 0) / 0.05 - 0.05 * _squares(step))


def hopper_run(step: Step) -> Paid:
    x, z, pitch, *joints = step.after["qpos"]
    bounded = all(abs(value) < 100 for value in (pitch, *joints, *step.after["qvel"]))
    standing = z > 0.7 and abs(pitch) < 0.2 and math.isfinite(z) and math.isfinite(x)
    reward = _moved(step, 0) / 0.008 + 1 - 0.001 * _squares(step)
    return Paid(reward, terminated=not (standing and bounded))


def walker_run(step: Step) -> Paid:
    _, z, pitch, *_ = step.after["qpos"]
    reward = _moved(step, 0) / 0.008 + 1 - 0.001 * _squares(step)
    return Paid(reward, terminated=not (0.8 < z < 2.0 and abs(pitch) < 1.0))


def _ant_contact(step: Step) -> tuple[float, tuple[bool, ...]]:
    """The cost of contact, and the cases: something is touched, harder than is counted."""
    forces = [float(f) for f in step.after["cfrc_ext"].flat]
    cost = 0.0005 * sum(min(max(f, -1.0), 1.0) ** 2 for f in forces)
    return cost, (any(forces), any(f < -1 for f in forces), any(f > 1 for f in forces))


def _ant_fell(step: Step) -> bool:
    return not 0.2 <= step.after["qpos"][2] <= 1.0


def ant_direction(step: Step) -> Paid:
    contact, cases = _ant_contact(step)
    x, y = polar(1.0, step.task["heading"])
    along = (_moved(step, 0) * x + _moved(step, 1) * y) / 0.05
    reward = along - 0.5 * _squares(step) - contact + 1
    return Paid(reward, terminated=_ant_fell(step), cases=cases)


def ant_velocity(step: Step) -> Paid:
    contact, cases = _ant_contact(step)
    error = abs(_moved(step, 0) / 0.05 - step.task["target_velocity"])
    reward = 1.05 - error - 0.005 * _squares(step) - contact
    return Paid(reward, terminated=_ant_fell(step), cases=cases)


def ant_goal(step: Step) -> Paid:
    contact, cases = _ant_contact(step)
    x, y = step.task["goal_x"], step.task["goal_y"]
    away = abs(step.after["qpos"][0] - x) + abs(step.after["qpos"][1] - y)
    return Paid(-away - 0.1 * _squares(step) - contact, cases=cases)


def ant_goal_ring(step: Step) -> Paid:
    contact, cases = _ant_contact(step)
    x, y = polar(2.0, step.task["goal_angle"])
    dx, dy = step.after["qpos"][0] - x, step.after["qpos"][1] - y
    near = math.sqrt(dx**2 + dy**2) <= 0.8
    closeness = 4 - abs(dx) - abs(dy)
    rest = 0.05 - 0.005 * _squares(step) - contact
    sparse = closeness + rest if near else rest
    return Paid(closeness + rest, sparse, _ant_fell(step), (*cases, near))


def humanoid_direction(step: Step) -> Paid:
    def centre(moment: Moment) -> NDArray[np.float64]:
        return (step.mass[:, None] * moment["xipos"]).sum(axis=0) / step.mass.sum()

    dx, dy, _ = centre(step.after) - centre(step.before)
    x, y = polar(1.0, step.task["heading"])
    along = (dx * x + dy * y) / 0.003  # one physics step, of the five made
    control = 0.1 * sum((0.4 * a) ** 2 for a in step.action)
    impact = 0.5e-6 * sum(float(f) ** 2 for f in step.after["cfrc_ext"].flat)
    reward = 0.25 * along - control - min(impact, 10.0) + 5
    fell = not 1.0 <= step.after["qpos"][2] <= 2.0
    return Paid(reward, terminated=fell, cases=(impact > 0, impact > 10))


def bandit(step: Step) -> Paid:
    pulled = max(range(len(step.action)), key=lambda arm: step.action[arm])
    return Paid(step.task[f"probability_{pulled}"])


def wheeled(step: Step) -> Paid:
    x, y = polar(2.0, step.task["goal_angle"])
    distance = math.sqrt((step.after["qpos"][0] - x) ** 2 + (step.after["qpos"][1] - y) ** 2)
    cost = 0.05 * _squares(step)
    near = distance <= 0.8
    return Paid(-distance - cost, (2 - distance if near else 0) - cost, cases=(near,))


def block_push(step: Step) -> Paid:
    first = 3 + 3 * int(step.task["block"])  # after the fork's three coordinates
    x, y = step.task["goal_x"], step.task["goal_y"]
    dx, dy = step.after["qpos"][first] - x, step.after["qpos"][first + 1] - y
    distance, full = math.sqrt(dx**2 + dy**2), math.sqrt(x**2 + y**2)
    near = distance <= 0.2
    return Paid(-5 * distance, 5 * (full - distance) if near else 0, cases=(near,))


def grid_goal(number: float) -> tuple[int, int]:
    """Column and row: up the left edge, along the top, down the right edge."""
    k = int(number)
    if k <= 10:
        return 0, k
    return (k - 10, 10) if k <= 20 else (10, 30 - k)


def grid_nav(step: Step) -> Paid:
    column, row = step.after["cell"]
    found = (int(column), int(row)) == grid_goal(step.task["goal"])
    return Paid(1.0 if found else -0.1, cases=(found,))


def maze2d(step: Step) -> Paid:
    x, y = step.after["qpos"][0], step.after["qpos"][1] - 1.125  # counted from the start
    touched = 0.0
    for side in (-1.0, 1.0):  # the boxes' centres are at (1.8 side, 1.125), their halves 0.2
        dx, dy = max(abs(x - 1.8 * side) - 0.2, 0), max(abs(y - 1.125) - 0.2, 0)
        if math.sqrt(dx**2 + dy**2) <= 0.12:
            touched = side
    reward = touched * step.task["goal_side"]
    return Paid(reward, terminated=touched != 0, cases=(reward == 1, reward == -1))


def point_sparse(step: Step) -> Paid:
    x, y = polar(1.0, step.task["goal_angle"])
    distance = math.dist(step.after["position"], (x, y))
    near = distance <= 0.2
    return Paid(-distance, 1 - distance if near else 0, cases=(near,))


def point_nav(step: Step) -> Paid:
    x, y = step.after["position"]
    dx, dy = abs(x - step.task["goal_x"]), abs(y - step.task["goal_y"])
    return Paid(-math.sqrt(dx**2 + dy**2), terminated=bool(dx < 0.01 and dy < 0.01))


FORMULAS: dict[str, Callable[[Step], Paid]] = {
    "halfcheetah-vel": cheetah_velocity,
    "halfcheetah-vel-0to2": cheetah_velocity,
    "halfcheetah-dir": cheetah_direction,
    "halfcheetah-rand-params": cheetah_run,
    "hopper-rand-params": hopper_run,
    "walker-rand-params": walker_run,
    "ant-dir": ant_direction,
    "ant-dir-1rad": ant_direction,
    "ant-vel": ant_velocity,
    "ant-goal": ant_goal,
    "ant-goal-ring": ant_goal_ring,
    "humanoid-dir": humanoid_direction,
    "bandit": bandit,
    "bandit-5": bandit,
    "bandit-10": bandit,
    "wheeled": wheeled,
    "block-push": block_push,
    "grid-nav": grid_nav,
    "maze2d": maze2d,
    "point-sparse": point_sparse,
    "point-nav": point_nav,
}

CHANCE = (bandit,)
"""Formulas whose reward is a probability."""
