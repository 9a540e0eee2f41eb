"""The batched environment: trials of several episodes of one task, in lock step."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from runtime.errors import InvalidTask
from sim.change import Change, Schedule
from sim.family import Channel, Floats, Ids, TaskFamily
from sim.task import Tasks


def channel_box(channels: tuple[Channel, ...]) -> Box:
    """The space of one vector made of these channels."""
    low = np.array([c.low for c in channels], np.float32)
    high = np.array([c.high for c in channels], np.float32)
    return Box(low, high, dtype=np.float32)


class TrialEnv(VectorEnv):
    """n simulations of a task family as a `gymnasium.vector.VectorEnv`.

    An episode ends after `family.horizon` steps (truncated) or in a terminal state
    (terminated). Nothing resets by itself (`AutoresetMode.DISABLED`): the caller resets
    the simulations that are done by ``reset(options={"reset_mask": done})``. Such a reset
    starts the next episode of the same task, or, when `episodes` episodes of it are over,
    the first episode of a newly drawn task.

    Actions are clipped to the action bounds; reward and `applied_action` are those of the
    clipped action. Every `info` holds `task` (n, D) scaled to [-1, 1], `episode` (n,) within
    the trial, and `new_task` (n,): a task boundary lies before this observation. After a step
    it also holds `changed` (n,), whether the task of the next step is another, and, where the
    family has one, `test_reward` (n,): what a robot would be paid (`TaskFamily.test_reward`).
    """

    metadata = {  # noqa: RUF012  (gymnasium's own form)
        "autoreset_mode": AutoresetMode.DISABLED,
        "render_modes": [],
    }

    def __init__(
        self,
        family: TaskFamily,
        num_envs: int,
        num_threads: int = 1,
        seed: int = 0,
        episodes: int | None = None,
        changes: Change | Sequence[Change] = (),
        testing: bool = False,
    ):
        """Args as `sim.make`.

        Raises:
            InvalidTask: a count below one, a family that `TaskFamily.check` refuses, or a
                change that cannot happen in it.
        """
        family.check()
        self.episodes = family.episodes if episodes is None else episodes
        counts = {"num_envs": num_envs, "episodes": self.episodes}
        for what, count in (*counts.items(), ("num_threads", num_threads), ("seed", seed)):
            least = int(what in counts)
            if not isinstance(count, int | np.integer) or count < least:
                raise InvalidTask(
                    f"{family.name}: {what} must be a whole number, at least {least}, got {count!r}"
                )
        self.family = family
        self.testing = testing
        self.num_envs = num_envs
        self.single_observation_space = channel_box(family.observation)
        self.single_action_space = channel_box(family.action)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._low, self._high = self.single_action_space.low, self.single_action_space.high
        self.world = family.world(num_envs, num_threads)
        self.tasks: Tasks = {p.name: np.zeros(num_envs) for p in family.task_parameters}
        self.applied_action = np.zeros((num_envs, len(family.action)), np.float32)
        self._features = np.zeros((num_envs, len(family.task_parameters)), np.float32)
        self._episode = np.zeros(num_envs, np.int64)
        self._elapsed = np.zeros(num_envs, np.int64)
        changes = (changes,) if isinstance(changes, Change) else tuple(changes)
        self.schedule = Schedule(family, changes, num_envs, self.episodes * family.horizon, seed)
        self._paused = np.zeros(num_envs, bool)
        self._started = False
        self._np_random = np.random.default_rng(seed)
        self._check_shapes()

    def _check_shapes(self) -> None:
        """Put all in some task and start state, and see whether the family keeps its word."""
        family, n, everyone = self.family, self.num_envs, np.arange(self.num_envs)
        family.apply(self.world, everyone, family.check_tasks(family.held_out(n), n))
        family.reset(self.world, everyone, np.random.default_rng(0))
        expected, found = (n, len(family.observation)), family.observe(self.world).shape
        if found != expected:
            raise InvalidTask(
                f"{family.name}: {n} simulations and {expected[1]} observation channels, but "
                f"observe returned {found}"
            )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start episodes; see the class.

        Args:
            seed: reseeds the environment's random streams.
            options: `reset_mask` (n,) bool, which simulations (default: all, each at the
                start of a new trial); `tasks`, the tasks of those that start a trial
                instead of drawn ones, given for all n.

        Raises:
            InvalidTask: another option, a mask that is none, tasks that are not the family's.
        """
        options = options or {}
        mask = self._mask(options)
        if seed is not None:
            self._np_random = np.random.default_rng(seed)
            self.schedule.seed(seed)
        if mask is None or not self._started:
            mask = np.ones(self.num_envs, bool)
            new_task = mask
        else:
            new_task = mask & (self._episode + 1 >= self.episodes)
        self._started = True
        self.pause(self._paused & ~mask)
        self._begin_tasks(np.flatnonzero(new_task), options.get("tasks"))
        self._episode = np.where(new_task, 0, self._episode + mask)
        self._elapsed[mask] = 0
        self.family.reset(self.world, np.flatnonzero(mask), self.np_random)
        return self.family.observe(self.world), self._info(new_task)

    def _mask(self, options: dict[str, Any]) -> NDArray[np.bool_] | None:
        unknown = sorted(set(options) - {"reset_mask", "tasks"})
        if unknown:
            raise InvalidTask(f"reset takes the options reset_mask and tasks, got {unknown}")
        if options.get("reset_mask") is None:
            return None
        mask = np.asarray(options["reset_mask"])
        if mask.dtype != np.bool_ or mask.shape != (self.num_envs,):
            raise InvalidTask(
                f"reset_mask must be bool and of shape ({self.num_envs},), got {mask.dtype} of "
                f"shape {mask.shape}"
            )
        return mask

    def step(
        self, actions: Floats
    ) -> tuple[NDArray[np.float32], NDArray, NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """One control step of every simulation; `actions` is (n, A).

        Raises:
            InvalidTask: before the first reset, or with actions of another shape or not finite.
        """
        if not self._started:
            raise InvalidTask(f"{self.family.name}: reset the environment before its first step")
        if np.shape(actions) != self.applied_action.shape:
            raise InvalidTask(
                f"{self.family.name}: actions must be of shape {self.applied_action.shape}, got "
                f"{np.shape(actions)}"
            )
        np.clip(actions, self._low, self._high, out=self.applied_action)
        if not np.isfinite(self.applied_action.sum()):  # MuJoCo would reset the body silently
            bad = np.flatnonzero(~np.isfinite(self.applied_action).all(axis=1))
            raise InvalidTask(f"{self.family.name}: the actions of {bad.tolist()} are not finite")
        self.family.step(self.world, self.applied_action)
        self._elapsed += 1
        terminated = self.family.terminated(self.world)
        if terminated is None:
            terminated = np.zeros(self.num_envs, bool)
        truncated = (self._elapsed >= self.family.horizon) & ~terminated
        reward = self.family.reward(self.world, self.applied_action)
        test_reward = self.family.test_reward(self.world, self.applied_action)
        changed = self._change_due_tasks()
        info = {**self._info(np.zeros(self.num_envs, bool)), "changed": changed}
        if test_reward is not None:
            info["test_reward"] = test_reward
            reward = test_reward if self.testing else reward
        return self.family.observe(self.world), reward, terminated, truncated, info

    def pause(self, paused: NDArray[np.bool_]) -> None:
        """Simulate those in `paused` (n,) no further until they are reset; all others go on.

        Where bodies fall, that saves the time that fallen ones would take while others run.
        What the environment returns of a paused simulation has no meaning.
        """
        if (paused != self._paused).any():
            self._paused = paused.copy()
            self.family.pause(self.world, paused)

    def change_tasks(self, ids: Ids, tasks: Tasks) -> None:
        """Change the task of some simulations at once, inside their episode.

        Args:
            ids: which simulations, (k,).
            tasks: their new tasks, (k,) per parameter.

        Raises:
            InvalidTask: as `TaskFamily.check_tasks`, or there is no such simulation.
        """
        ids = np.asarray(ids)
        if ids.dtype.kind not in "iu" or not ((ids >= 0) & (ids < self.num_envs)).all():
            raise InvalidTask(f"simulations are numbered 0 to {self.num_envs - 1}, got {ids}")
        self._set_tasks(ids, self.family.check_tasks(tasks, len(ids)))

    def _set_tasks(self, ids: Ids, tasks: Tasks) -> None:
        """As `change_tasks`, of tasks that are known to be the family's."""
        self.family.apply(self.world, ids, tasks)
        for name, values in tasks.items():
            self.tasks[name][ids] = values
        self._features[ids] = self.family.task_features(tasks)

    def task_features(self) -> NDArray[np.float32]:
        """The present tasks scaled to [-1, 1], (n, D); a copy."""
        return self._features.copy()

    def _begin_tasks(self, ids: Ids, given: Tasks | None) -> None:
        if not len(ids):
            return
        if given is None:
            tasks = self.family.sample(self.np_random, len(ids))
        else:
            tasks = {k: v[ids] for k, v in self.family.check_tasks(given, self.num_envs).items()}
        self._set_tasks(ids, tasks)
        self.schedule.restart(ids)

    def _change_due_tasks(self) -> NDArray[np.bool_]:
        """Make the changes that come before the next step; which simulations changed, (n,)."""
        changed = np.zeros(self.num_envs, bool)
        for change, ids in self.schedule.advance():
            before = {name: values[ids] for name, values in self.tasks.items()}
            rng = self.schedule.rng
            after = change.tasks_after(self.family, before, rng, held_out=self.testing)
            self._set_tasks(ids, after)
            changed[ids] = True
        return changed

    def _info(self, new_task: NDArray[np.bool_]) -> dict[str, Any]:
        return {
            "task": self._features.copy(),
            "episode": self._episode.copy(),
            "new_task": new_task.copy(),
        }
