"""What docs/families.md says of the task families, made from the families themselves.

python -m docs.families            writes it between the page's markers
python -m docs.families --check    fails if the page is behind
"""

import inspect
import math
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import numpy as np

import sim
from docs.markdown import inline, item, prose, table
from docs.reference_tables import references
from sim.family import TaskFamily
from sim.mujoco_family import OWN_BODIES, MujocoFamily
from sim.randomised import Randomised
from sim.registry import VARIATIONS
from sim.task import TaskParameter

PAGE = Path(__file__).parent / "families.md"
BLOCK = re.compile(r"<!-- begin (\w+): .* -->\n.*?<!-- end \1 -->", re.DOTALL)
SHOWN_ON = "halfcheetah-vel"
"""The family on which variations are shown."""


class Note(NamedTuple):
    """What a table says and no code does."""

    source: str
    ends: str = "never"
    """In a word or two; whether an episode ends early at all is asked of the family."""


NOTES = {
    "ant-dir": Note("PEARL, Rakelly 2019", "falls"),
    "ant-dir-1rad": Note("VariBAD, Zintgraf 2020", "falls"),
    "ant-goal": Note("PEARL, Rakelly 2019"),
    "ant-goal-ring": Note("MAESN, Gupta 2018", "falls"),
    "ant-vel": Note("MAML, Finn 2017", "falls"),
    "bandit": Note("after RL2, Duan 2016"),
    "bandit-5": Note("RL2, Duan 2016"),
    "bandit-10": Note("RL2, Duan 2016"),
    "block-push": Note("MAESN, Gupta 2018"),
    "grid-nav": Note("after VariBAD, Zintgraf 2020"),
    "halfcheetah-dir": Note("MAML, Finn 2017"),
    "halfcheetah-rand-params": Note("after ProMP, Rothfuss 2019"),
    "halfcheetah-vel": Note("ProMP, Rothfuss 2019"),
    "halfcheetah-vel-0to2": Note("MAML, Finn 2017"),
    "hopper-rand-params": Note("ProMP, Rothfuss 2019", "falls"),
    "humanoid-dir": Note("PEARL, Rakelly 2019", "falls"),
    "maze2d": Note("after Kamienny 2020", "box touched"),
    "point-nav": Note("MAML, Finn 2017", "arrives"),
    "point-sparse": Note("PEARL, Rakelly 2019"),
    "walker-rand-params": Note("ProMP, Rothfuss 2019", "falls"),
    "wheeled": Note("MAESN, Gupta 2018"),
}


def families() -> str:
    """A table of all families."""
    what = ["family", "body", "hidden, drawn per task", "obs, act"]
    when = ["Hz", "steps × episodes", "ends"]
    return table([*what, *when, "sparse at test", "source"], map(_row, sim.names()))


def _row(name: str) -> list[str]:
    family = sim.family(name)
    note = _note(name)
    return [
        f"`{name}`",
        _body(family),
        ", ".join(_hidden(family.task_parameters)),
        f"{len(family.observation)}, {len(family.action)}",
        f"{family.control_hz:.3g}",
        f"{family.horizon} × {family.episodes}",
        note.ends,
        "yes" if _sparse_at_test(name) else "",
        note.source,
    ]


def _body(family: TaskFamily) -> str:
    family = _task(family)
    if not isinstance(family, MujocoFamily):
        return "none"
    return "own" if family.bodies == OWN_BODIES else Path(family.body).stem


def _note(name: str) -> Note:
    """What to say of a family.

    Raises:
        ValueError: nothing is said, or it is not what the family does.
    """
    if name not in NOTES:
        raise ValueError(f"docs/families.py has no note on {name!r}: its source, when it ends")
    note, env = NOTES[name], sim.make(name)
    env.reset()
    ends = env.family.terminated(env.world) is not None
    if ends != (note.ends != "never"):
        raise ValueError(f"docs/families.py says that {name} ends: {note.ends}; it is not so")
    return note


def _sparse_at_test(name: str) -> bool:
    env = sim.make(name)
    env.reset()
    return "test_reward" in env.step(np.zeros(env.action_space.shape or (), np.float32))[4]


def _hidden(parameters: tuple[TaskParameter, ...]) -> list[str]:
    """Task parameters with range and unit; those that differ in an index or a part as one."""
    groups: dict[str, list[TaskParameter]] = {}
    for p in parameters:
        pattern = re.sub(r"(?<=_)\d+|\..*", lambda m: ".*" if "." in m[0] else "*", p.name)
        groups.setdefault(f"`{pattern}`", []).append(p)
    shown: dict[str, list[str]] = {}  # names by range
    for pattern, group in groups.items():
        single = len(group) == 1
        title = f"`{group[0].name}`" if single else f"{pattern} ({len(group)})"
        unit = group[0].unit if len({p.unit for p in group}) == 1 else "channel's"
        shown.setdefault(_range(group[0], unit), []).append(title)
    return [f"{', '.join(names)} {extent}" for extent, names in shown.items()]


def _range(p: TaskParameter, unit: str) -> str:
    unit = {"1": "", "index": "", "channel's": " in its unit"}.get(unit, f" {inline(unit)}")
    if len(p.choices) > 3:
        held_out = f", {len(p.held_out)} held out" if p.held_out else ""
        return f"{_number(p.low, p)} to {_number(p.high, p)}{unit}{held_out}"
    if p.choices:
        return " or ".join(_number(c, p) for c in p.choices) + unit
    log = "log " if p.scale == "log" else ""
    return f"{log}[{_number(p.low, p)}, {_number(p.high, p)}]{unit}"


def _number(value: float, p: TaskParameter) -> str:
    turns = value / math.pi
    if p.unit == "rad" and value and turns == round(turns):
        return f"{turns:.0f}π".replace("1π", "π")
    return f"{value:.3g}"


def definitions() -> str:
    """A section per module: what its docstring says."""
    by_module: dict[str, list[str]] = {}
    for name in sim.names():
        by_module.setdefault(_module(sim.family(name)), []).append(name)
    return "\n\n".join(_section(module, names) for module, names in sorted(by_module.items()))


def _module(family: TaskFamily) -> str:
    return type(_task(family)).__module__


def _task(family: TaskFamily) -> TaskFamily:
    """The family without variations."""
    return family.family if isinstance(family, Randomised) else family


def _section(module: str, names: list[str]) -> str:
    docstring = inspect.getdoc(import_module(module)) or ""
    title, _, body = docstring.partition("\n\n")
    path = module.replace(".", "/") + ".py"
    title = title.replace("\n", " ").rstrip(".")
    listed = ", ".join(f"`{name}`" for name in names)
    families = item("Families", f"{listed}, in [{path}](../{path}).")
    return f"### {inline(title)}\n\n{families}\n{prose(body)}"


def variations() -> str:
    """A table of the dynamics variations."""
    header = ["`+NAME`", "drawn per task, here on the half cheetah", "what it does"]
    return table(header, [[f"`{name}`", _drawn(name), _does(name)] for name in VARIATIONS])


def _drawn(name: str) -> str:
    base = sim.family(SHOWN_ON)
    assert isinstance(base, MujocoFamily)
    varied = sim.family(f"{SHOWN_ON}+{name}")
    return ", ".join(_hidden(varied.task_parameters[len(base.task_parameters) :]))


def _does(name: str) -> str:
    kinds = [type(variation) for variation in VARIATIONS[name]]
    if len(kinds) > 1:
        return " + ".join(f"`{kind.__name__}`" for kind in kinds)
    sentence = (inspect.getdoc(kinds[0]) or "").split("\n\n")[0].replace("\n", " ")
    first = re.split(r"(?<=\.) ", sentence)[0].rstrip(".")
    return f"`{kinds[0].__name__}`. {inline(first)}"


BLOCKS = {
    "families": families,
    "references": references,
    "definitions": definitions,
    "variations": variations,
}


def updated(page: str) -> str:
    """The page with everything as it is now.

    Raises:
        ValueError: the page has not the markers of every block, or a family has no note.
    """
    found = [match[1] for match in BLOCK.finditer(page)]
    if sorted(found) != sorted(BLOCKS):
        raise ValueError(f"{PAGE} has the blocks {found}, expected {list(BLOCKS)}")

    def written(match: re.Match[str]) -> str:
        begin, end = match[0].split("\n")[0], match[0].split("\n")[-1]
        return f"{begin}\n{BLOCKS[match[1]]()}\n\n{end}"

    return BLOCK.sub(written, page)


def main() -> int:
    """Write the page, or compare it; the exit status."""
    page = PAGE.read_text()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(updated(page))
    elif page != updated(page):
        print(f"{PAGE} is behind: run python -m docs.families")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
