"""Settings known to work, per task family; a variant is a changed copy, never a new file.

Two kinds: `fast`, our best settings, and `paper`, the published ones.
"""

import sim
from training.config import BeliefConfig, MultitaskConfig, NetworkConfig, PPOConfig, RL2Config

_NEAR_SIGHTED = PPOConfig(discount=0.97, gae_lambda=0.9)

# Where faster is better without end, an entropy bonus lets the action noise grow without end.
_RACING = _NEAR_SIGHTED.model_copy(update={"entropy_coef": 0.0})

# Bodies that cost more to simulate than to learn from: smaller batches, more often reused.
_DEAR = _RACING.model_copy(update={"epochs": 8, "learning_rate": 5e-4})

RL2_PRESETS: dict[str, RL2Config] = {
    config.family: config
    for config in (
        RL2Config(family="halfcheetah-vel", ppo=_NEAR_SIGHTED, change_probability=0.3),
        RL2Config(family="halfcheetah-vel-0to2", ppo=_NEAR_SIGHTED, change_probability=0.3),
        RL2Config(family="halfcheetah-dir", ppo=_RACING, change_probability=0.1),
        RL2Config(family="halfcheetah-rand-params", ppo=_RACING),
        RL2Config(family="ant-dir", ppo=_DEAR, trials=32),
        RL2Config(family="ant-dir-1rad", ppo=_DEAR, trials=32),
        RL2Config(family="ant-vel", ppo=_DEAR, trials=32),
        RL2Config(family="ant-goal", ppo=_DEAR, trials=32),
        RL2Config(family="ant-goal-ring", ppo=_DEAR, trials=32),
        RL2Config(family="hopper-rand-params", ppo=_DEAR, trials=32),
        RL2Config(family="walker-rand-params", ppo=_DEAR, trials=32),
        RL2Config(family="humanoid-dir", ppo=_DEAR, trials=32),
        RL2Config(
            family="bandit",
            env_steps=1_000_000,
            trials=256,
            network=NetworkConfig(memory_size=32, hidden_sizes=(32,)),
            ppo=PPOConfig(
                discount=0.95,
                gae_lambda=0.9,
                learning_rate=3e-3,
                minibatches=4,
                entropy_coef=0.0,  # the action noise must fade: evaluation acts without it
            ),
            belief=BeliefConfig(coef=0.02),
        ),
    )
}


def rl2_preset(family: str) -> RL2Config:
    """The settings for a family; the defaults where none are known."""
    return RL2_PRESETS.get(family, RL2Config(family=family))


def multitask_preset(family: str) -> MultitaskConfig:
    """The settings of the memoryless references; discount and entropy are RL2's preset's."""
    ppo = rl2_preset(family).ppo
    return MultitaskConfig(
        family=family,
        # More and smaller steps than RL2 takes: without a memory, data cost more than learning.
        ppo=PPOConfig(
            discount=ppo.discount,
            gae_lambda=ppo.gae_lambda,
            entropy_coef=ppo.entropy_coef,
            epochs=8,
            minibatches=16,
            learning_rate=4e-4,
        ),
    )


PAPER_STEPS = {"halfcheetah-dir": 800}
"""Control steps that each of the 16 workers collects per iteration, where it is not a trial's."""

PAPER_UPDATES = {"halfcheetah-dir": (16, 4)}
"""PPO's epochs and minibatches, where they are not those of HalfCheetah-Vel."""


def rl2_paper(family: str) -> RL2Config:
    """RL2 as the baseline of VariBAD (Zintgraf et al. 2020) was run.

    From the paper's appendix and its published argument files: 10^8 steps, 16 workers, PPO with a
    clipped Huber value loss, GRU of 128 units behind embeddings of 16, 32 and 16, separate heads
    for action and value of 128-128 tanh units, whose losses both train the memory through whole
    trials; a constant learning rate; a value function that is not told the task, no loss on the
    belief, no changes of task. Families without published settings get those of HalfCheetah-Vel.

    It differs from theirs in that whole trials are dealt out to minibatches instead of single
    steps, that the heads also see the observation and the memory the ends of episodes, and in
    Adam's epsilon (1e-5, not 1e-8).
    """
    found = sim.family(family)
    trial = found.episodes * found.horizon
    return RL2Config(
        family=family,
        env_steps=100_000_000,
        trials=max(1, 16 * PAPER_STEPS.get(family, trial) // trial),
        privileged_critic=False,
        network=NetworkConfig(
            initial_log_std=0.0, embeddings=(16, 32, 16), value_shapes_memory=True
        ),
        ppo=_paper_ppo(family, trial),
        belief=BeliefConfig(coef=0.0, shapes_memory=False),
    )


def multitask_paper(family: str) -> MultitaskConfig:
    """The references with the network and the PPO of `rl2_paper`, over one episode at a time."""
    found = sim.family(family)
    return MultitaskConfig(
        family=family,
        env_steps=100_000_000,
        trials=16 * found.episodes,
        initial_log_std=0.0,
        ppo=_paper_ppo(family, found.horizon),
    )


def _paper_ppo(family: str, chunk: int) -> PPOConfig:
    epochs, minibatches = PAPER_UPDATES.get(family, (2, 8))
    return PPOConfig(
        discount=0.97,
        gae_lambda=0.9,
        clip=0.1,
        epochs=epochs,
        minibatches=minibatches,
        chunk=chunk,
        learning_rate=7e-4,
        final_learning_rate=1.0,
        entropy_coef=0.01,
        value_loss="clipped_huber",
        max_grad_norm=0.5,
    )
