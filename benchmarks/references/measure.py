"""What a family's task is worth knowing: returns of who is told it, who is not, who adapts."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

import sim
from benchmarks.references import bandit, block_push, grid_nav, maze2d, point, wheeled
from benchmarks.references.playing import play
from sim.trials import TrialEnv
from training.evaluate import Returns, evaluate_references
from training.methods import load_trainer
from training.multitask import MultitaskTrainer

SCRIPTED: dict[str, ModuleType] = {
    "bandit": bandit,
    "bandit-5": bandit,
    "bandit-10": bandit,
    "block-push": block_push,
    "grid-nav": grid_nav,
    "maze2d": maze2d,
    "point-nav": point,
    "point-sparse": point,
    "wheeled": wheeled,
}
"""Modules with `told`, `blind` and `adapting`, by task family."""

Row = dict[str, Any]
"""One family's figures: `how` they were had, `tasks`, and per way of acting a list over the
episodes of {"mean", "ci95"}; scripted ones also have `adapting`. `worth` is what being
told earns more in the first episode, task by task on the same tasks."""


def scripted(name: str, tasks: int, seed: int = 0) -> Row:
    """The scripted references of a family on `tasks` held-out tasks, paid as at meta-test."""
    reference = SCRIPTED[name]
    told = _played(name, reference.told, tasks, seed)
    not_told = _played(name, reference.blind, tasks, seed)
    learner = _played(name, reference.adapting, tasks, seed, adapting=True)
    return {
        "how": "scripted",
        "tasks": tasks,
        **_ways(told, not_told, _played(name, _random, tasks, seed)),
        "adapting": _rounded(learner),
    }


def trained(run: Path, tasks: int, threads: int = 2, seed: int = 0) -> Row:
    """The trained references of a run folder of `metatrain train multitask`, in one episode.

    Raises:
        InvalidConfig: the folder holds no checkpoint.
    """
    trainer = load_trainer(run)
    assert isinstance(trainer, MultitaskTrainer), run
    family = trainer.config.family
    found = evaluate_references(trainer.policy, family, tasks, 1, seed, threads)
    return {
        "how": f"metatrain train multitask {family}",
        "env_steps": trainer.env_steps,
        "finished": trainer.finished,
        "tasks": tasks,
        **_ways(found.told, found.not_told, found.random),
    }


def shipped(bundles: Path) -> dict[str, Row]:
    """What the manifests of exported policies say of adaptation, by name@version."""
    found: dict[str, Row] = {}
    for path in sorted(bundles.glob("*/*/manifest.json")):
        manifest = json.loads(path.read_text())
        evaluation = manifest["evaluation"]
        found[f"{manifest['name']}@{manifest['version']}"] = {
            "family": manifest["family"],
            "env_steps": evaluation["env_steps"],
            "tasks": evaluation["tasks"],
            "adapting": [_round(episode) for episode in evaluation["episodes"]],
            "cleared": [_round(episode) for episode in evaluation["cleared_memory"]],
        }
    return found


def _played(name: str, make: Any, tasks: int, seed: int, adapting: bool = False) -> Returns:
    env = sim.make(name, tasks, testing=True)
    returns, _ = play(env, make(env), env.family.held_out(tasks, seed), adapting, seed)
    return Returns(returns)


def _ways(told: Returns, not_told: Returns, random: Returns) -> Row:
    worth = Returns(told.values[:1] - not_told.values[:1])
    ways = {"told": told, "not_told": not_told, "random": random}
    return {way: _rounded(r) for way, r in ways.items()} | {"worth": _rounded(worth)[0]}


def _random(env: TrialEnv) -> Any:
    """Uniform within the bounds of the action."""
    rng = np.random.default_rng(0)
    box = env.action_space
    return lambda obs: rng.uniform(box.low, box.high).astype(np.float32)  # type: ignore[attr-defined]


def _rounded(returns: Returns) -> list[dict[str, float]]:
    return [_round(episode) for episode in returns.summary()]


def _round(episode: dict[str, float]) -> dict[str, float]:
    return {key: float(f"{value:.4g}") for key, value in episode.items()}
