"""From a trained run to a bundle that adaptd serves, behind a parity gate.

A bundle is written into a hidden folder beside its destination and renamed whole, after
torch and onnxruntime have run the same trial in lock step. If anything fails, nothing
is left behind.
"""

import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save as save_arrays
from torch import Tensor, nn

import sim
from runtime.errors import InvalidBundle, ParityError
from runtime.policy import Arrays, Policy, replay_golden, step_outputs
from runtime.spec import (
    GOLDEN,
    MANIFEST,
    POLICY,
    SCHEMA_VERSION,
    Manifest,
    file_record,
    split_reference,
)
from sim.family import Channel, TaskFamily
from training.card import model_card
from training.evaluate import Evaluation, evaluate, evaluation_record
from training.networks import Carry, RecurrentPolicy
from training.pictures import adaptation_picture
from training.provenance import provenance
from training.rl2 import RL2Trainer
from training.rollout import MetaInput
from training.train import Run

PARITY_STEPS = 400
PARITY_BATCHES = (1, 7)
PARITY_ATOL = 1e-4
"""Largest difference allowed, after 400 steps of feeding each its own carry."""
GOLDEN_STEPS = 400


class ExportedStep(nn.Module):
    """A recurrent policy as the graph that is exported: one step, named in and out."""

    action_low: Tensor
    action_high: Tensor
    task_middle: Tensor
    task_scale: Tensor

    def __init__(self, policy: RecurrentPolicy, family: TaskFamily):
        super().__init__()
        self.policy = policy
        self.carry_names = policy.memory.names
        low, high = _limits(family.action)
        self.register_buffer("action_low", low)
        self.register_buffer("action_high", high)
        task_low = torch.tensor([p.low for p in family.task_parameters])
        task_high = torch.tensor([p.high for p in family.task_parameters])
        self.register_buffer("task_middle", (task_low + task_high) / 2)
        self.register_buffer("task_scale", (task_high - task_low) / 2)

    def forward(
        self,
        obs: Tensor,
        prev_action: Tensor,
        prev_reward: Tensor,
        prev_done: Tensor,
        *carry: Tensor,
    ) -> tuple[Tensor, ...]:
        """(B, ...) each, to action, next carry, belief mean and variance in task units."""
        state = dict(zip(self.carry_names, carry, strict=True))
        features, seen, after = self.policy.step(obs, prev_action, prev_reward, prev_done, state)
        mean = self.policy.action_mean(features, seen)
        action = torch.minimum(torch.maximum(mean, self.action_low), self.action_high)
        belief, log_variance = self.policy.belief(features)
        return (
            action,
            *(after[name] for name in self.carry_names),
            self.task_middle + belief * self.task_scale,
            log_variance.exp() * self.task_scale**2,
        )


def _limits(channels: tuple[Channel, ...]) -> tuple[Tensor, Tensor]:
    return torch.tensor([c.low for c in channels]), torch.tensor([c.high for c in channels])


def export_run(
    trainer: RL2Trainer, run: Path, name: str, into: Path, tasks: int = 30, seed: int = 0
) -> Path:
    """Write the next version of bundle `name` from a trained run.

    Args:
        trainer: at the checkpoint to export.
        run: its run folder, for the learning curve and the wall time.
        name: the bundle's name.
        into: the folder of bundles.
        tasks: held-out tasks of the evaluation.
        seed: of the evaluation.

    Returns:
        The bundle's folder.

    Raises:
        ParityError: torch and onnxruntime disagree; nothing is left behind.
        InvalidBundle: the name cannot be a bundle's.
    """
    if split_reference(name)[1] is not None:
        raise InvalidBundle(f"{name!r} names a version: the next free one is taken by itself")
    config = trainer.config
    evaluation = evaluate(trainer.policy, config.family, tasks, seed=seed, threads=config.threads)
    home = into / name
    home.mkdir(parents=True, exist_ok=True)
    number = 1 + max((int(p.name) for p in home.iterdir() if p.name.isdigit()), default=0)
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=home))
    try:
        manifest = _write(partial, trainer, run, name, number, evaluation)
        curve = Run(run).curve()
        adaptation_picture(partial / "adaptation.png", name, evaluation, curve)
        (partial / "README.md").write_text(model_card(manifest, config, evaluation, curve))
        partial.chmod(0o755)
        target = home / str(number)
        os.rename(partial, target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        if not any(home.iterdir()):
            home.rmdir()
        raise
    return target


def _write(
    folder: Path, trainer: RL2Trainer, run: Path, name: str, number: int, evaluation: Evaluation
) -> Manifest:
    """policy.onnx, golden.safetensors and manifest.json, after the parity gate."""
    family = sim.family(trainer.config.family)
    step = ExportedStep(trainer.policy, family).eval()
    model = to_onnx(step)
    facts = describe(trainer, run, name, number, evaluation)
    unchecked = {"files": _files(model, b""), "golden": {"steps": 1, "atol": PARITY_ATOL}}
    policy = Policy(Manifest.model_validate(facts | unchecked), model)
    check_parity(step, policy, family)
    trace = record_golden(policy, family)
    golden = save_arrays(trace)
    facts |= {
        "files": _files(model, golden),
        "golden": {"steps": GOLDEN_STEPS, "atol": PARITY_ATOL},
    }
    manifest = Manifest.model_validate(facts)
    replay_golden(Policy(manifest, model), golden)
    (folder / POLICY).write_bytes(model)
    (folder / GOLDEN).write_bytes(golden)
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n")
    return manifest


def _files(model: bytes, golden: bytes) -> dict[str, Any]:
    records = {POLICY: file_record(model), GOLDEN: file_record(golden)}
    return {name: record.model_dump() for name, record in records.items()}


def to_onnx(step: ExportedStep) -> bytes:
    """The step as an ONNX model with a dynamic batch, weights inside."""
    batch = 2  # never 1: a batch of one would be taken for a constant
    family_sizes = (step.policy.obs_normaliser.mean.numel(), step.action_low.numel(), 1, 1)
    example = [torch.zeros(batch, size) for size in family_sizes]
    carry = step.policy.memory.initial(batch)
    example += [carry[name] for name in step.carry_names]
    names = ["obs", "prev_action", "prev_reward", "prev_done"]
    dynamic = torch.export.Dim("batch")
    axes = [{0: dynamic}] * len(example)
    with _quiet_exporter():
        program = torch.onnx.export(
            step,
            tuple(example),
            input_names=names + [f"carry.{n}" for n in step.carry_names],
            output_names=[
                "action",
                *(f"next.{n}" for n in step.carry_names),
                "belief.task_mean",
                "belief.task_variance",
            ],
            dynamic_shapes=(*axes[:4], tuple(axes[4:])),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / POLICY
        program.save(path, external_data=False)
        return path.read_bytes()


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Without the exporter's remarks on its own internals; errors still come through."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def check_parity(step: ExportedStep, policy: Policy, family: TaskFamily) -> float:
    """Run torch and onnxruntime through the same trial, each on its own carry.

    The trial has real observations, rewards and episode boundaries, and starts from a
    carry that is not zero. Batches of 1 and 7.

    Returns:
        The largest difference of any output at any step.

    Raises:
        ParityError: it is more than `PARITY_ATOL`, or not a number.
    """
    worst = 0.0
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
            robot.act(result.action)
    return worst


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


def describe(
    trainer: RL2Trainer, run: Path, name: str, number: int, evaluation: Evaluation
) -> dict[str, Any]:
    """The manifest without `files` and `golden`."""
    config, family = trainer.config, sim.family(trainer.config.family)
    memory = trainer.policy.memory
    task_size = [len(family.task_parameters)]
    return {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "version": number,
        "algorithm": "rl2",
        "family": family.name,
        "task_ranges": {
            p.name: {"unit": p.unit, "low": p.low, "high": p.high} for p in family.task_parameters
        },
        "control_hz": family.control_hz,
        "observation": [_element(c) for c in family.observation],
        "action": [{**_element(c), "max_rate": None} for c in family.action],
        "fallback_action": [0.0] * len(family.action),
        "inputs": ["obs", "prev_action", "prev_reward", "prev_done"]
        + [f"carry.{n}" for n in memory.names],
        "needs_reward": True,
        "carry": [
            {"name": n, "shape": [memory.size], "dtype": "float32", "init": 0.0}
            for n in memory.names
        ],
        "options": [],
        "noise_size": 0,
        "boundaries": {"episode": "keep", "task": "prior", "gap": "keep"},
        "belief": [
            {"name": "task_mean", "shape": task_size, "role": "mean"},
            {"name": "task_variance", "shape": task_size, "role": "variance"},
        ],
        "context_window": None,
        "evaluation": evaluation_record(evaluation, [config.seed], trainer.env_steps),
        "provenance": provenance(run, _wall_time_s(run))
        | {"config": config.model_dump(mode="json"), "env_steps": trainer.env_steps},
    }


def _wall_time_s(run: Path) -> float:
    return sum(row["time/collect_s"] + row["time/learn_s"] for row in Run(run).curve())


def _element(channel: Channel) -> dict[str, Any]:
    low, high = (x if np.isfinite(x) else None for x in (channel.low, channel.high))
    return {"name": channel.name, "unit": channel.unit, "low": low, "high": high}
