"""The gate an export must pass, and the golden trace that travels with it."""

import numpy as np
import torch
from numpy.typing import NDArray

import sim
from runtime.errors import ParityError
from runtime.policy import Arrays, Policy, step_outputs
from runtime.spec import Manifest
from sim.family import TaskFamily
from training.exported_step import ExportedStep
from training.networks import Carry
from training.rollout import MetaInput

PARITY_STEPS = 400
PARITY_BATCHES = (1, 7)
PARITY_ATOL = 1e-4
"""Largest difference allowed, after 400 steps of feeding each its own carry."""
GOLDEN_STEPS = 400


def check_parity(step: ExportedStep, policy: Policy, family: TaskFamily) -> float:
    """Run torch and onnxruntime through the same trial, each on its own carry.

    The trial has real observations, rewards and episode boundaries, and starts from a
    carry that is not zero. Batches of 1 and 7.

    Returns:
        The largest difference of any output at any step.

    Raises:
        ParityError: it is more than `PARITY_ATOL`, or not a number, or an element of the
            action was never inside its bounds, where it could be compared.
    """
    worst = 0.0
    inside = np.zeros(policy.manifest.action_size, bool)
    low, high = action_bounds(policy.manifest)
    for batch in PARITY_BATCHES:
        generator = torch.Generator().manual_seed(batch)
        ours: Carry = {
            name: 0.1 * torch.randn(batch, step.policy.memory.size, generator=generator)
            for name in step.carry_names
        }
        theirs = {name: value.numpy().copy() for name, value in ours.items()}
        robot = _Robot(family, batch)
        for t in range(PARITY_STEPS):
            with torch.no_grad():
                tensors = [torch.from_numpy(x) for x in robot.inputs.values()]
                outputs = step(*tensors, *(ours[n] for n in step.carry_names))
            result = policy.step(robot.inputs, theirs)
            ours = dict(zip(step.carry_names, outputs[1:], strict=False))
            theirs = result.carry
            for ours_out, (name, theirs_out) in zip(
                outputs, step_outputs(result).items(), strict=True
            ):
                difference = float(np.abs(ours_out.numpy() - theirs_out).max())
                if not difference <= PARITY_ATOL:
                    raise ParityError(
                        f"{policy.label}: torch and onnxruntime differ in {name!r} by "
                        f"{difference:.3g} at step {t} of batch {batch}, allowed {PARITY_ATOL:.3g}"
                    )
                worst = max(worst, difference)
            inside |= ((result.action > low) & (result.action < high)).any(axis=0)
            robot.act(result.action)
    if not inside.all():
        # A clamped action agrees whatever the network computes.
        elements = [e.name for e, i in zip(policy.manifest.action, inside, strict=True) if not i]
        raise ParityError(f"{policy.label}: {elements} were at their bounds in every step")
    return worst


def action_bounds(manifest: Manifest) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower and upper bounds of the action, (A,) each."""
    return np.array([e.low for e in manifest.action]), np.array([e.high for e in manifest.action])


def record_golden(policy: Policy, family: TaskFamily) -> Arrays:
    """One trial with the exported policy, inputs and outputs of every step."""
    robot = _Robot(family, 1)
    carry = policy.initial_carry()
    trace: dict[str, list[NDArray]] = {}
    initial = {f"initial.{name}": value[0].copy() for name, value in carry.items()}
    for _ in range(GOLDEN_STEPS):
        result = policy.step(robot.inputs, carry)
        for name, value in robot.inputs.items():
            trace.setdefault(f"input.{name}", []).append(value[0].copy())
        for name, value in step_outputs(result).items():
            trace.setdefault(f"output.{name}", []).append(value[0].copy())
        carry = result.carry
        robot.act(result.action)
    return initial | {name: np.stack(rows) for name, rows in trace.items()}


class _Robot:
    """A trial on held-out tasks as a robot would see it: the inputs of the next step."""

    def __init__(self, family: TaskFamily, batch: int):
        episodes = 1 + PARITY_STEPS // family.horizon
        self._env = sim.make(family.name, batch, seed=batch, episodes=episodes)
        self._meta = MetaInput(batch, len(family.action))
        self._obs, _ = self._env.reset(options={"tasks": family.held_out(batch)})

    @property
    def inputs(self) -> dict[str, NDArray[np.float32]]:
        names = ("prev_action", "prev_reward", "prev_done")
        before = zip(names, self._meta.inputs(), strict=True)
        return {"obs": self._obs, **{name: value.numpy() for name, value in before}}

    def act(self, action: NDArray[np.float32]) -> None:
        self._obs, reward, terminated, truncated, _ = self._env.step(action)
        done = terminated | truncated
        self._meta.advance(self._env.applied_action, reward, done)
        if done.any():
            self._obs, _ = self._env.reset(options={"reset_mask": done})
