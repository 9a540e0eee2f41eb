"""What a model card says of a method: how it remembers, what it was trained on, and by what."""

from typing import NamedTuple

from runtime.spec import Manifest
from training.config import RL2Config
from training.pearl_config import PEARLConfig

AdaptingConfig = RL2Config | PEARLConfig


class Words(NamedTuple):
    """Sentences of a card."""

    memory: str
    """Follows the method's name."""
    adapts: str
    trained_on: str
    signals: str


def words(manifest: Manifest, config: AdaptingConfig) -> Words:
    """The sentences for a bundle, by the method it was trained with."""
    if isinstance(config, PEARLConfig):
        return _of_pearl(manifest, config)
    return Words(
        _memory(config),
        "It adapts by its memory: keep it across episodes,\nclear it when the task is a new one.",
        _changes(config),
        _signals_of_rl2(config),
    )


def _memory(config: RL2Config) -> str:
    article = "an" if config.network.cell == "lstm" else "a"
    return f"{article} {config.network.cell.upper()} of {config.network.memory_size} units"


def _changes(config: RL2Config) -> str:
    if not config.change_probability:
        return "The task never changed inside a training trial."
    if config.change:
        listed = ", ".join(f"`{text}`" for text in config.change)
        return (
            f"A share of {config.change_probability:g} of the training trials had its task changed "
            f"inside the trial:\n{listed}."
        )
    return (
        f"A share of {config.change_probability:g} of the training trials had its task changed "
        "once, at a\nrandom step, so that the policy also adapts to a change in the middle of an "
        "episode."
    )


def _signals_of_rl2(config: RL2Config) -> str:
    told = (
        "The value function, which is not exported, was told the task."
        if config.privileged_critic
        else "The value function was not told the task."
    )
    if config.belief.coef == 0:
        return told + " The belief head was not trained: ignore the belief outputs."
    shaping = (
        "and its gradient\nalso shaped the memory (an auxiliary loss, not in the RL2 paper)."
        if config.belief.shapes_memory
        else "without shaping the memory."
    )
    return f"{told}\nThe belief head was trained on the simulation's task, {shaping}"


def _of_pearl(manifest: Manifest, config: PEARLConfig) -> Words:
    network, window = config.network, manifest.context_window
    evidence = ", reward, next observation" if network.next_observation else " and reward"
    sampled = int(config.acting == "sampled")
    return Words(
        f"a belief over {network.latent} numbers z",
        f"It adapts by a posterior over z, made of its last {window} transitions: each of them is "
        f"evidence\n(observation, action{evidence}), older ones are forgotten. Keep the belief "
        "across episodes, clear it when\nthe task is a new one. Options: `window`, how many of "
        f"them count (1 to {window});\n`doubt_window`, how many of them while they contradict "
        "older ones; `sample_z`, 1 to act on a sample of the belief per\nepisode, as the paper "
        f"does, 0 to act on its mean at every step ({sampled} if not given).",
        f"There were {config.tasks} training tasks at most. None changed inside a trial: a change "
        "is noticed as new\nevidence contradicts the old, which widens the belief, and made up for "
        "as the old is forgotten.",
        _signals_of_pearl(config),
    )


def _signals_of_pearl(config: PEARLConfig) -> str:
    told = (
        "The critics, which are not exported, were told the task."
        if config.privileged_critic
        else "The critics were not told the task."
    )
    if not config.task_coef:
        return told
    if config.task_encoder:
        return (
            f"{told}\nSo was the actor, by a second encoder that made z of it, and the context "
            "encoder learned to tell that z\n(not in the PEARL paper)."
        )
    return (
        f"{told}\nThe encoder also learned to tell the simulation's task (an auxiliary loss, not "
        "in the PEARL paper)."
    )
