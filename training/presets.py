"""Settings known to work, per task family; a variant is a changed copy, never a new file."""

from training.config import BeliefConfig, MultitaskConfig, NetworkConfig, PPOConfig, RL2Config

_NEAR_SIGHTED = PPOConfig(discount=0.97, gae_lambda=0.9)

RL2_PRESETS: dict[str, RL2Config] = {
    config.family: config
    for config in (
        RL2Config(family="halfcheetah-vel", ppo=_NEAR_SIGHTED, change_probability=0.3),
        RL2Config(family="halfcheetah-vel-0to2", ppo=_NEAR_SIGHTED, change_probability=0.3),
        RL2Config(family="halfcheetah-dir", change_probability=0.1),
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
    """The settings of the memoryless references; the discount is that of RL2's preset."""
    ppo = rl2_preset(family).ppo
    return MultitaskConfig(
        family=family,
        # More and smaller steps than RL2 takes: without a memory, data cost more than learning.
        ppo=PPOConfig(
            discount=ppo.discount,
            gae_lambda=ppo.gae_lambda,
            epochs=8,
            minibatches=16,
            learning_rate=4e-4,
        ),
    )
