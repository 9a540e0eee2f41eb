"""Configuration of PEARL and of the soft actor critic inside it."""

from pydantic import Field, PositiveFloat, PositiveInt

from training.config import Config


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
