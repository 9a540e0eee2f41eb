"""Navigation on a grid of 11 x 11 cells with 31 possible goals, start at the bottom middle.

Source: grids of this size with 31 goals and this start occur in the literature without a public
definition; that the goals are the left, top and right edges is this project's reading. The reward
is that of VariBAD's grid (Zintgraf et al. 2020).
Task: one of the 31 cells of those edges (11 + 9 + 11), numbered from the bottom left corner up,
along the top, and down to the bottom right corner. Every sixth from the third on (2, 8, 14, 20,
26) is held out from training.
Observation: column and row of the cell, each scaled to [-1, 1].
Action: the largest of five elements decides: stay, up, right, down, left. A move off the grid has
no effect.
Reward: 1 in every step that ends on the goal, else -0.1.
Ends: never. The 20 steps reach any goal (5 to 15 steps away) but see only half of them, so a
search takes two episodes, and a trial has three.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.family import Channel, Floats, Ids, TaskFamily
from sim.picture import FLOOR, GOAL, INK, PAPER, ROBOT, Canvas
from sim.task import TaskParameter, Tasks

SIZE = 11
START = (SIZE // 2, 0)
MOVES = np.array([(0, 0), (0, 1), (1, 0), (0, -1), (-1, 0)])
"""Columns and rows moved by each action, (5, 2)."""
ACTIONS = ("stay", "up", "right", "down", "left")


def _edge_cells() -> NDArray[np.intp]:
    along, last = range(SIZE), SIZE - 1
    left = [(0, row) for row in along]
    top = [(column, last) for column in along[1:-1]]
    right = [(last, row) for row in reversed(along)]
    return np.array(left + top + right)


GOALS = _edge_cells()
"""Column and row of every goal, (31, 2)."""
HELD_OUT = tuple(float(k) for k in range(2, len(GOALS), 6))


@dataclass
class GridWorld:
    """Cells and goals as columns and rows, (n, 2) each."""

    cell: NDArray[np.intp]
    goal: NDArray[np.intp]


class GridNav(TaskFamily):
    """Find one of 31 cells on the edge of a grid, then return to it."""

    name = "grid-nav"
    summary = f"grid of {SIZE} x {SIZE} cells, the hidden goal is one of {len(GOALS)}"
    control_hz = 10.0
    horizon = 20
    episodes = 3
    observation = (Channel("column", "1", -1.0, 1.0), Channel("row", "1", -1.0, 1.0))
    action = tuple(Channel(name, "1", -1.0, 1.0) for name in ACTIONS)
    task_parameters = (
        TaskParameter(
            "goal",
            "1",
            0.0,
            len(GOALS) - 1.0,
            choices=tuple(float(k) for k in range(len(GOALS))),
            held_out=HELD_OUT,
        ),
    )

    def world(self, num_envs: int, num_threads: int) -> GridWorld:
        return GridWorld(np.tile(START, (num_envs, 1)), np.tile(GOALS[0], (num_envs, 1)))

    def apply(self, world: GridWorld, ids: Ids, tasks: Tasks) -> None:
        world.goal[ids] = GOALS[tasks["goal"].astype(np.intp)]

    def reset(self, world: GridWorld, ids: Ids, rng: np.random.Generator) -> None:
        world.cell[ids] = START

    def step(self, world: GridWorld, action: Floats) -> None:
        world.cell += MOVES[np.argmax(action, axis=1)]
        np.clip(world.cell, 0, SIZE - 1, out=world.cell)

    def observe(self, world: GridWorld) -> NDArray[np.float32]:
        return (2 * world.cell / (SIZE - 1) - 1).astype(np.float32)

    def reward(self, world: GridWorld, action: Floats) -> NDArray[np.float64]:
        return np.where(self.measure(world) == 0, 1.0, -0.1)

    def measure(self, world: GridWorld) -> NDArray[np.float64]:
        """Moves to the goal, (n,)."""
        return np.abs(world.cell - world.goal).sum(axis=1).astype(np.float64)

    def draw(self, world: GridWorld, index: int) -> NDArray[np.uint8]:
        """Simulation `index` as a picture, (240, 320, 3)."""
        canvas = Canvas((-1.0, -1.0), (SIZE, SIZE))
        canvas.rectangle((-0.5, -0.5), (SIZE - 0.5, SIZE - 0.5), PAPER)
        goals = {tuple(cell) for cell in GOALS}
        for cell in np.ndindex(SIZE, SIZE):
            centre = np.array(cell)
            colour = GOAL if np.array_equal(centre, world.goal[index]) else FLOOR
            canvas.rectangle(centre - 0.45, centre + 0.45, colour)
            if cell in goals:
                canvas.disc(centre, 0.1, INK)
        canvas.disc(world.cell[index], 0.32, ROBOT)
        return canvas.image
