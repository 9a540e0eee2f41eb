"""Configuration of PEARL and of the soft actor critic inside it."""

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from runtime.errors import InvalidConfig
from training.config import Config, RunConfig


class ContextNetworkConfig(Config):
    """Sizes of the networks that act on a latent task variable z."""

    latent: PositiveInt = Field(default=5, description="Dimensions of z.")
    context: PositiveInt = Field(
        default=100, description="Transitions that a posterior over z is made of in training."
    )
    next_observation: bool = Field(
        default=False, description="Whether a transition's evidence includes what followed it."
    )
    encoder_sizes: tuple[PositiveInt, ...] = Field(
        default=(200, 200, 200), description="Hidden layers of the context encoder."
    )
    actor_sizes: tuple[PositiveInt, ...] = Field(
        default=(300, 300, 300), description="Hidden layers of the actor."
    )
    critic_sizes: tuple[PositiveInt, ...] = Field(
        default=(300, 300, 300), description="Hidden layers of each of the two critics."
    )
    normalise: bool = Field(
        default=True,
        description="Whether observations, and the rewards that the encoder sees, are normalised.",
    )


class SACConfig(Config):
    """Soft actor critic (Haarnoja et al. 2018)."""

    discount: float = Field(default=0.99, gt=0, le=1, description="Discount per control step.")
    reward_scale: PositiveFloat = Field(default=5.0, description="Multiplies rewards.")
    learning_rate: PositiveFloat = Field(default=3e-4, description="Of Adam, for all networks.")
    final_learning_rate: float = Field(
        default=1.0, gt=0, le=1, description="What is left of it in the end, decayed linearly."
    )
    target_rate: float = Field(
        default=0.005, gt=0, le=1, description="Of the target critics' way to the critics."
    )
    batch: PositiveInt = Field(default=256, description="Transitions of each task per step.")
    temperature: PositiveFloat | None = Field(
        default=None,
        description="Weight of the entropy; None learns it, for an entropy of minus the action's "
        "size.",
    )


class PEARLConfig(RunConfig):
    """PEARL (Rakelly et al. 2019): soft actor critic on a posterior over tasks."""

    CHECKPOINTED = RunConfig.CHECKPOINTED | {
        "tasks", "replay_steps", "recent_steps", "task_encoder", "privileged_critic"
    }  # fmt: skip

    env_steps: PositiveInt = Field(default=1_000_000, description="Control steps to train for.")
    threads: PositiveInt = Field(
        default=2, description="Threads of simulator and learner, in turn."
    )
    tasks: PositiveInt = Field(
        default=100, description="Training tasks; each once where the family has fewer."
    )
    meta_batch: PositiveInt = Field(default=16, description="Tasks in a gradient step.")
    gradient_steps: PositiveInt = Field(default=2000, description="Per iteration.")
    visits: PositiveInt = Field(
        default=5, description="Simulations in lock step per iteration, each of some task."
    )
    prior_episodes: PositiveInt = Field(
        default=2, description="Episodes of a visit that act on z sampled from the prior."
    )
    posterior_episodes: PositiveInt = Field(
        default=3, description="Episodes of a visit after these, that act on the posterior."
    )
    acting: Literal["sampled", "streaming"] = Field(
        default="streaming",
        description="How the posterior acts: by a sample per episode, or by its mean at each step.",
    )
    initial_episodes: PositiveInt = Field(
        default=1, description="Episodes per task before the first gradient step."
    )
    replay_steps: PositiveInt = Field(
        default=1_000_000, description="Transitions kept, over all tasks."
    )
    recent_steps: PositiveInt = Field(
        default=1000, description="Newest transitions of each task that contexts are drawn from."
    )
    recent_posterior: bool = Field(
        default=True, description="Whether contexts come from the posterior's episodes too."
    )
    varied_context: bool = Field(
        default=True,
        description=(
            "Whether contexts are stretches of consecutive transitions, of lengths from one to "
            "`context`, as a robot sees them, instead of `context` single ones."
        ),
    )
    kl_coef: float = Field(
        default=0.1, ge=0, description="Weight of the divergence from the prior, summed over tasks."
    )
    task_coef: float = Field(
        default=0.0, ge=0, description="Weight of reading the simulation's task out of z."
    )
    task_encoder: bool = Field(
        default=False,
        description=(
            "Whether the actor learns on a z that a second encoder makes of the simulation's task, "
            "and contexts only learn to tell that z. Where a reward is so sparse that no context "
            "tells anything at first, an actor learns nothing from them."
        ),
    )
    privileged_critic: bool = Field(
        default=False,
        description="Whether the critics, which are not exported, are told the task instead of z.",
    )
    network: ContextNetworkConfig = ContextNetworkConfig()
    sac: SACConfig = SACConfig()

    @model_validator(mode="after")
    def _something_trains_the_encoder(self) -> "PEARLConfig":
        if (self.privileged_critic or self.task_encoder) and not self.task_coef:
            raise InvalidConfig(
                "nothing trains the context encoder: with privileged_critic or task_encoder the "
                "critics do not read the z of contexts, so task_coef must be above 0"
            )
        return self

    @model_validator(mode="after")
    def _a_context_fits(self) -> "PEARLConfig":
        if self.network.context > self.recent_steps:
            raise InvalidConfig(
                f"a context of {self.network.context} transitions does not fit into "
                f"{self.recent_steps} recent_steps"
            )
        return self
