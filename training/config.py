"""Training configurations: frozen, typed, unknown keys refused."""

from dataclasses import replace
from typing import ClassVar, Literal

import tyro
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

import sim
from runtime.errors import InvalidConfig
from sim.change import Change


class Config(BaseModel):
    """Base of all configurations."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class NetworkConfig(Config):
    """Sizes of the recurrent policy."""

    cell: Literal["gru", "lstm"] = Field(default="gru", description="Recurrent cell of the memory.")
    memory_size: PositiveInt = Field(default=128, description="Units of the recurrent cell.")
    hidden_sizes: tuple[PositiveInt, ...] = Field(
        default=(128, 128), description="Hidden layers of the action and value heads."
    )
    initial_log_std: float = Field(default=-0.5, description="Initial log of the action noise.")
    embeddings: tuple[PositiveInt, PositiveInt, PositiveInt] | None = Field(
        default=None,
        description=(
            "Units of the layers that action, observation and reward each go through before the "
            "memory; None feeds them in as they are."
        ),
    )
    value_shapes_memory: bool = Field(
        default=False, description="Whether the value loss's gradient reaches the memory."
    )


class PPOConfig(Config):
    """Proximal policy optimisation (Schulman et al. 2017) over chunks of trials."""

    discount: float = Field(default=0.99, gt=0, le=1, description="Discount per control step.")
    gae_lambda: float = Field(
        default=0.95, ge=0, le=1, description="Generalised advantage estimation."
    )
    clip: PositiveFloat = Field(default=0.2, description="Range of the probability ratio.")
    epochs: PositiveInt = Field(default=4, description="Passes over each batch of trials.")
    minibatches: PositiveInt = Field(default=8, description="Gradient steps per pass.")
    chunk: PositiveInt = Field(
        default=50, description="Steps of truncated backpropagation through time."
    )
    learning_rate: PositiveFloat = Field(default=7e-4, description="Of Adam, decayed linearly.")
    final_learning_rate: float = Field(
        default=0.05, ge=0, le=1, description="Fraction of the learning rate reached at the end."
    )
    entropy_coef: float = Field(default=0.005, ge=0, description="Weight of the entropy bonus.")
    value_coef: float = Field(default=0.5, ge=0, description="Weight of the value loss.")
    value_loss: Literal["squared", "clipped_huber"] = Field(
        default="squared",
        description=(
            "Half the squared error, or Huber's, pessimistically clipped: the larger of the "
            "value's and of the value's at most `clip` from where it was."
        ),
    )
    max_grad_norm: PositiveFloat = Field(
        default=1.0, description="Gradients are clipped to this norm."
    )


class BeliefConfig(Config):
    """The belief head: reads from the memory which task this is, mean and variance.

    It is trained on the simulation's task by Gaussian likelihood. With `shapes_memory` its
    gradient also trains the memory (task inference as an auxiliary loss, Humplik et al.
    2019); without, it only reads out and the method is the textbook RL2.
    """

    coef: float = Field(default=0.1, ge=0, description="Weight of the belief loss.")
    shapes_memory: bool = Field(
        default=True, description="Whether its gradient reaches the memory."
    )


class RunConfig(Config):
    """What all methods have in common."""

    CHECKPOINTED: ClassVar[frozenset[str]] = frozenset({"family", "seed", "network"})
    """Settings that a checkpoint is made by: another run cannot go on from it with others."""

    family: str = Field(description="Task family, see `metatrain list`.")
    seed: int = Field(default=0, description="Of tasks, start states, noise and initial weights.")
    env_steps: PositiveInt = Field(default=10_000_000, description="Control steps to train for.")
    device: Literal["cpu", "cuda"] = Field(
        default="cpu", description="Where policy and learner run; physics always runs on the CPU."
    )
    threads: PositiveInt = Field(
        default=1, description="Threads of simulator and learner, in turn, of each rank."
    )
    checkpoint_every: PositiveInt = Field(default=20, description="Iterations between checkpoints.")

    @property
    def parts(self) -> int:
        """Into how many equal parts the simulations are divided; a rank takes one or more."""
        return 1


class TrialConfig(RunConfig):
    """What all methods have in common that learn by PPO from trials in lock step."""

    trials: PositiveInt = Field(
        default=64, description="Trials collected in lock step per iteration, on all ranks."
    )
    shards: PositiveInt = Field(
        default=2,
        description=(
            "Groups of trials with random streams of their own, which the ranks divide. On a GPU "
            "a rank's shards take turns: one is simulated while the policy acts in the other."
        ),
    )
    episodes: PositiveInt | None = Field(
        default=None, description="Episodes per trial; family's own."
    )
    change_probability: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description=(
            "Share of trials whose task changes, each change independently. A trial that ends "
            "before its change's time, because episodes end early, does not change; the log's "
            "changed_share is the share that did."
        ),
    )
    change: tyro.conf.UseAppendAction[tuple[str, ...]] = Field(
        default=(),
        description=(
            "What changes in them and when: `STEP[-STEP][:PARAMETER[=VALUE],...]`, before a step "
            "of the trial or a random one of a range, drawn anew where no value is given, as "
            "100:payload=0 or 50-150:target_velocity; again for another change. The whole task "
            "once, at a random step, if not given. Steps count over a trial's episodes at their "
            "full length."
        ),
    )
    ppo: PPOConfig = PPOConfig()

    @property
    def parts(self) -> int:
        return self.shards

    def changes(self) -> tuple[Change, ...]:
        """The changes of task inside the trials.

        Raises:
            InvalidTask: one cannot be read.
        """
        if not self.change_probability:
            return ()
        given = [replace(Change.parse(text), share=self.change_probability) for text in self.change]
        return tuple(given) or (Change(share=self.change_probability),)

    @model_validator(mode="after")
    def _shards_divide_the_trials(self) -> "TrialConfig":
        if self.trials % self.shards:
            raise InvalidConfig(f"{self.trials} trials cannot be divided into {self.shards} shards")
        return self

    @model_validator(mode="after")
    def _changes_can_happen(self) -> "TrialConfig":
        if not self.change:
            return self
        if not self.change_probability:
            raise InvalidConfig(
                f"the change {self.change[0]!r} never happens: change_probability, the share of "
                f"trials that have it, is 0"
            )
        family = sim.family(self.family)
        for change in self.changes():
            change.check(family, (self.episodes or family.episodes) * family.horizon)
        return self


class RL2Config(TrialConfig):
    """RL2 (Duan et al. 2016; Wang et al. 2016): a recurrent policy trained over trials."""

    privileged_critic: bool = Field(
        default=True,
        description="Whether the value function, which is not exported, is told the task.",
    )
    network: NetworkConfig = NetworkConfig()
    belief: BeliefConfig = BeliefConfig()


class MultitaskConfig(TrialConfig):
    """Memoryless references in one network: told the task, and not told."""

    env_steps: PositiveInt = Field(default=2_000_000, description="Control steps to train for.")
    episodes: PositiveInt | None = Field(default=1, description="Episodes per trial.")
    told_share: float = Field(default=0.5, ge=0, le=1, description="Share of trials that is told.")
    hidden_sizes: tuple[PositiveInt, ...] = Field(
        default=(128, 128), description="Hidden layers of the action and value heads."
    )
    initial_log_std: float = Field(default=-0.5, description="Initial log of the action noise.")
