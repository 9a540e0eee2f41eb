"""The model card: a bundle's README."""

from collections.abc import Mapping
from typing import Any

import sim
from runtime.spec import Manifest
from training.card_words import AdaptingConfig, words
from training.evaluate import Evaluation
from training.report import cell


def model_card(manifest: Manifest, config: AdaptingConfig, evaluation: Evaluation) -> str:
    """Markdown that says what the policy is, how it was made and how well it adapts."""
    provenance, said = manifest.provenance, words(manifest, config)
    ranges = "\n".join(
        f"- `{name}`: {r.low:g} to {r.high:g}" + f" {r.unit}" * (r.unit != "1")
        for name, r in manifest.task_ranges.items()
    )
    steps, seconds = provenance["env_steps"], provenance["wall_time_s"]
    rate = f"{steps / seconds:,.0f} environment steps/s" if seconds else "unknown rate"
    commit, libraries = provenance["commit"][:19], provenance["libraries"]
    return f"""\
# {manifest.name}, version {manifest.version}

{manifest.algorithm.upper()} with {said.memory}, meta-trained on `{manifest.family}`,
for control at {manifest.control_hz:g} Hz. {said.adapts}

![return per episode](adaptation.png)

## Adaptation on held-out tasks

{_held_out(config, evaluation)}
Deterministic actions; mean ± half the width of the bootstrapped 95 % interval over tasks. The
references act on the same tasks and remember nothing.{_sampled(evaluation)}{_told(manifest)}

{_table(evaluation)}
{_seeds(manifest)}
## What it was trained on

{ranges}

{said.trained_on}

## How it was made

{training_commands(provenance)}
Seed {config.seed}, {steps:,} environment steps in {seconds / 60:.0f} minutes ({rate}), commit
`{commit}`, torch {libraries["torch"]}, mujoco {libraries["mujoco"]}.
{said.signals}

## Limits

Trained and evaluated in simulation only. Returns are of one training seed{_where(manifest)}.
Outside the ranges above nothing is promised.
"""


def training_commands(provenance: Mapping[str, Any]) -> str:
    """The command that trained it, after those of the runs that it went on from."""
    before = provenance.get("from")
    if before is None:
        return f"    {provenance['command']}\n"
    return (
        f"{training_commands(before)}\nand from its checkpoint at {before['env_steps']:,} steps, "
        f"with `--from`:\n\n    {provenance['command']}\n"
    )


def _held_out(config: AdaptingConfig, evaluation: Evaluation) -> str:
    parameters = sim.family(config.family).task_parameters
    kept = [f"`{p.name}`" for p in parameters if p.held_out]
    if kept:
        return f"{evaluation.tasks} tasks with values of {', '.join(kept)} kept from training."
    if all(p.choices for p in parameters):
        return (
            f"The family has few tasks, all of them seen in training: {evaluation.tasks} trials "
            "deal them out in turn,\nfrom start states that training did not see."
        )
    return f"{evaluation.tasks} tasks from a random stream that training does not use."


def _sampled(evaluation: Evaluation) -> str:
    if evaluation.sampled is None:
        return ""
    return (
        "\n*Adapting* acts on the belief's mean (`sample_z` = 0), *sampling per episode* on a "
        "sample of it (1)."
    )


def _told(manifest: Manifest) -> str:
    reference = manifest.provenance.get("reference")
    if reference is None:
        return ""
    told, adapting = manifest.evaluation.task_told[-1], manifest.evaluation.episodes[-1]
    short = (
        "\nIt earns less than the policy that adapts, so it is far from what knowing the task is "
        "worth."
    )
    return (
        "\nThe one that is told the task is another policy, trained for "
        f"{reference['env_steps']:,} steps by\n`{reference['command']}`."
        + short
        * (told.mean < adapting.mean)
    )


def _seeds(manifest: Manifest) -> str:
    """A table of other training seeds, where there are any."""
    pooled = manifest.provenance.get("over_seeds")
    if pooled is None:
        return ""
    rows = [(f"mean of seeds {', '.join(map(str, pooled['seeds']))}", pooled["episodes"], "")]
    rows += [
        (f"seed {each['seed']}", each["episodes"], f"{each['env_steps']:,}")
        for each in manifest.provenance["seeds"]
    ]
    lines = [
        f"| {name} | " + " | ".join(map(cell, episodes)) + f" | {steps} |"
        for name, episodes, steps in rows
    ]
    head = [f"episode {i + 1}" for i in range(len(pooled["episodes"]))]
    return f"""
The same setting trained with other seeds, which are not in this bundle:

| training | {" | ".join(head)} | steps |
| --- |{" --- |" * (len(head) + 1)}
{chr(10).join(lines)}
"""


def _where(manifest: Manifest) -> str:
    return " where no other is named" if "over_seeds" in manifest.provenance else ""


def _table(evaluation: Evaluation) -> str:
    episodes = range(1, len(evaluation.adapting.values) + 1)
    lines = [
        "| acting | " + " | ".join(f"episode {i}" for i in episodes) + " |",
        "| --- |" + " --- |" * len(episodes),
    ]
    for name, returns in evaluation.rows():
        lines.append(f"| {name} | " + " | ".join(map(cell, returns.summary())) + " |")
    return "\n".join(lines)
