"""The methods that `metatrain` knows, by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import UnknownName
from training import checkpoint
from training.bench import bench
from training.config import MultitaskConfig, RL2Config, RunConfig
from training.meta_trainer import MetaTrainer
from training.multitask import MultitaskTrainer
from training.pearl import PEARLTrainer
from training.pearl_bench import bench_pearl
from training.pearl_config import PEARLConfig
from training.pearl_presets import pearl_paper, pearl_preset
from training.presets import multitask_paper, multitask_preset, rl2_paper, rl2_preset
from training.rl2 import RL2Trainer

Adapting = RL2Trainer | PEARLTrainer
"""Trainers whose policy adapts, and so is worth a bundle."""


@dataclass(frozen=True)
class Method:
    """How a method is configured and trained."""

    summary: str
    config: type[RunConfig]
    trainer: type[MetaTrainer]
    presets: Mapping[str, Callable[[str], RunConfig]]
    """Settings by task family, under the names of `PRESETS`."""
    exports: bool = True
    """Whether what it trains adapts, and so is worth a bundle."""
    bench: Callable[..., None] = bench
    """Measures so many iterations of a trainer: `bench(trainer, iterations, console)`."""

    def preset(self, family: str, name: str = "fast") -> RunConfig:
        """The settings for a task family.

        Raises:
            UnknownName: there is no such preset, or no such family.
        """
        if name not in self.presets:
            raise UnknownName("preset", name, self.presets)
        return self.presets[name](family)


PRESETS = {
    "fast": "our best settings for the family (the default)",
    "paper": "the published configuration, as a baseline",
}
"""The presets that every method has, and what they are."""


METHODS: dict[str, Method] = {
    "rl2": Method(
        "recurrent policy over trials, GRU or LSTM (Duan et al. 2016)",
        RL2Config,
        RL2Trainer,
        {"fast": rl2_preset, "paper": rl2_paper},
    ),
    "multitask": Method(
        "memoryless references, told the task and not told (Zintgraf et al. 2020's oracle)",
        MultitaskConfig,
        MultitaskTrainer,
        {"fast": multitask_preset, "paper": multitask_paper},
        exports=False,
    ),
    "pearl": Method(
        "soft actor critic on a posterior over tasks (Rakelly et al. 2019)",
        PEARLConfig,
        PEARLTrainer,
        {"fast": pearl_preset, "paper": pearl_paper},
        bench=bench_pearl,
    ),
}


def method(name: str) -> Method:
    """The method of that name.

    Raises:
        UnknownName: with the methods that exist.
    """
    if name not in METHODS:
        raise UnknownName("method", name, METHODS)
    return METHODS[name]


def load_trainer(run: Path) -> MetaTrainer:
    """The trainer at the newest checkpoint of a run folder.

    Raises:
        InvalidConfig: the folder holds no checkpoint.
    """
    tensors, facts = checkpoint.load(checkpoint.latest(run))
    trained = method(facts["method"])
    trainer = trained.trainer(trained.config.model_validate(facts["config"]))
    trainer.load(tensors, facts)
    return trainer
