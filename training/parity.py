"""The gate an export must pass, and the golden trace that travels with it."""

from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray

import sim
from runtime.errors import ParityError
from runtime.policy import Arrays, Policy, largest_difference, step_outputs
from runtime.spec import Manifest
from sim.family import TaskFamily
from training.exported_step import ExportedStep
from training.rollout import one_torch_thread
from training.trials import MetaInput

PARITY_STEPS = 400
PARITY_BATCHES = (1, 7)
PARITY_ATOL = 1e-4
"""Largest difference allowed, after 400 steps of feeding each its own carry."""
GOLDEN_STEPS = 400


def check_parity(step: ExportedStep, policy: Policy, family: TaskFamily) -> float:
    """Run torch and onnxruntime through the same trial, each on its own carry.

    The trial has real observations, rewards and episode boundaries, and starts from a
    carry that is not the prior. Batches of 1 and 7; options as declared and at their limits.

    Returns:
        The largest difference of any output at any step (`largest_difference`).

    Raises:
        ParityError: it is more than `PARITY_ATOL`, or not a number, or an element of the
            action was never inside its bounds, where it could be compared.
    """
    worst = 0.0
    inside = np.zeros(policy.manifest.action_size, bool)
    declared, *others = _settings(policy.manifest)
    trials = [(batch, declared) for batch in PARITY_BATCHES]
    trials += [(PARITY_BATCHES[-1], options) for options in others]
    with one_torch_thread():
        for batch, options in trials:
            difference, seen_inside = _trial(step, policy, family, batch, options)
            worst, inside = max(worst, difference), inside | seen_inside
    if not inside.all():
        # A clamped action agrees whatever the network computes.
        elements = [e.name for e, i in zip(policy.manifest.action, inside, strict=True) if not i]
        raise ParityError(f"{policy.label}: {elements} were at their bounds in every step")
    return worst


def _settings(manifest: Manifest) -> list[dict[str, float]]:
    """Values of the options to try: the declared ones, and every corner of their ranges."""
    corners = product(*({o.low, o.high} for o in manifest.options))
    names = [o.name for o in manifest.options]
    declared = {o.name: o.default for o in manifest.options}
    others = [dict(zip(names, corner, strict=True)) for corner in corners]
    return [declared, *(each for each in others if each != declared)]


def _trial(
    step: ExportedStep, policy: Policy, family: TaskFamily, batch: int, options: dict[str, float]
) -> tuple[float, NDArray[np.bool_]]:
    """The largest difference in one trial, and which elements of the action left their bounds."""
    worst, low, high = 0.0, *action_bounds(policy.manifest)
    inside = np.zeros(len(low), bool)
    ours = step.some_carry(batch, torch.Generator().manual_seed(batch))
    theirs = {name: value.numpy().copy() for name, value in ours.items()}
    chosen = {f"option.{name}": torch.full((batch, 1), value) for name, value in options.items()}
    robot = _Robot(family, batch, step.noise_size)
    for t in range(PARITY_STEPS):
        inputs = robot.look()
        given = {name: torch.from_numpy(x) for name, x in inputs.items()} | chosen
        with torch.no_grad():
            outputs = step.step(given | {f"carry.{name}": x for name, x in ours.items()})
        result = policy.step(inputs, theirs, options)
        ours, theirs = {name: outputs[f"next.{name}"] for name in ours}, result.carry
        for name, found in step_outputs(result).items():
            difference = largest_difference(found, outputs[name].numpy())
            if not difference <= PARITY_ATOL:
                raise ParityError(
                    f"{policy.label}: torch and onnxruntime differ in {name!r} by "
                    f"{difference:.3g} at step {t} of batch {batch}, allowed {PARITY_ATOL:.3g}"
                )
            worst = max(worst, difference)
        inside |= ((result.action > low) & (result.action < high)).any(0)
        robot.act(result.action)
    return worst, inside


def action_bounds(manifest: Manifest) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower and upper bounds of the action, (A,) each."""
    return np.array([e.low for e in manifest.action]), np.array([e.high for e in manifest.action])


def record_golden(policy: Policy, family: TaskFamily) -> Arrays:
    """One trial with the exported policy, inputs and outputs of every step."""
    robot = _Robot(family, 1, policy.manifest.noise_size)
    carry = policy.initial_carry()
    trace: dict[str, list[NDArray]] = {}
    initial = {f"initial.{name}": value[0].copy() for name, value in carry.items()}
    for _ in range(GOLDEN_STEPS):
        inputs = robot.look()
        result = policy.step(inputs, carry)
        for name, value in inputs.items():
            trace.setdefault(f"input.{name}", []).append(value[0].copy())
        for name, value in step_outputs(result).items():
            trace.setdefault(f"output.{name}", []).append(value[0].copy())
        carry = result.carry
        robot.act(result.action)
    return initial | {name: np.stack(rows) for name, rows in trace.items()}


class _Robot:
    """A trial on held-out tasks as a robot would see it."""

    def __init__(self, family: TaskFamily, batch: int, noise_size: int):
        episodes = 1 + PARITY_STEPS // family.horizon
        self._env = sim.make(family.name, batch, seed=batch, episodes=episodes)
        self._meta = MetaInput(batch, len(family.action))
        self._obs, _ = self._env.reset(options={"tasks": family.held_out(batch)})
        self._noise, self._noise_shape = np.random.default_rng(batch), (batch, noise_size)

    def look(self) -> dict[str, NDArray[np.float32]]:
        """The inputs of the next step; asked for again, its noise is another."""
        names = ("prev_action", "prev_reward", "prev_done")
        before = zip(names, self._meta.inputs(), strict=True)
        noise = self._noise.standard_normal(self._noise_shape, np.float32)
        return (
            {"obs": self._obs}
            | {name: value.numpy() for name, value in before}
            | ({"noise": noise} if noise.size else {})
        )

    def act(self, action: NDArray[np.float32]) -> None:
        self._obs, reward, terminated, truncated, _ = self._env.step(action)
        done = terminated | truncated
        self._meta.advance(self._env.applied_action, reward, done)
        if done.any():
            self._obs, _ = self._env.reset(options={"reset_mask": done})
