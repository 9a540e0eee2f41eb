"""RL2: a recurrent policy that learns to learn, trained by PPO over whole trials.

Duan et al. 2016 and Wang et al. 2016: the memory sees action, reward and termination of
the step before, and is kept across the episodes of a trial; so what it does with them
*is* the adaptation. Two things are added to the textbook, both switchable in the
configuration and neither exported as such: the value function is told the task, and a
belief head learns to say from the memory which task this is.
"""

import sim
from training.config import BeliefConfig, RL2Config
from training.networks import RecurrentPolicy
from training.trainer import TrialTrainer


class RL2Trainer(TrialTrainer):
    """Training state of one run of RL2."""

    method = "rl2"
    config: RL2Config
    policy: RecurrentPolicy

    def build_policy(self) -> RecurrentPolicy:
        return build_policy(self.config)

    def belief_config(self) -> BeliefConfig:
        return self.config.belief


def build_policy(config: RL2Config) -> RecurrentPolicy:
    """The network of a configuration, at its initial weights."""
    family = sim.family(config.family)
    return RecurrentPolicy(
        config.network,
        obs_size=len(family.observation),
        action_size=len(family.action),
        task_size=len(family.task_parameters),
        told=config.privileged_critic,
        sparse_reward=family.sparse_at_test,
    )
