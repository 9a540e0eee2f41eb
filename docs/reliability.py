"""What docs/reliability.md says of faults: made by the run of the tests that cause them.

A test of a fault is marked with what happens and what is promised:

    @pytest.mark.fault("the disk is full", "What needs room is refused; open sessions go on.")

and may say what it saw by ``record_property("seen", ...)``. `make reliability` runs them all
(``pytest -m fault --write-reliability``), and writes the table if all of them pass.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

PAGE = Path(__file__).parent / "reliability.md"
TESTS = Path(__file__).parents[1] / "tests"
BLOCK = re.compile(r"(<!-- begin faults: .* -->\n).*?(<!-- end faults -->)", re.DOTALL)
AS_PROMISED = "as promised"


class Fault(NamedTuple):
    """A fault that a test causes."""

    what: str
    promise: str
    test: str
    """``test_file.py::test_name``"""


def faults() -> list[Fault]:
    """All marked tests, in the order of files and lines; read, not run."""
    return sorted(
        (f for path in TESTS.glob("test_*.py") for f in _marked(path)), key=lambda f: f.what
    )


def _marked(path: Path) -> Iterator[Fault]:
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.FunctionDef):
            continue
        for mark in node.decorator_list:
            if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.fault":
                what, promise = (ast.literal_eval(argument) for argument in mark.args)
                yield Fault(what, promise, f"{path.name}::{node.name}")


def table(seen: Mapping[str, str]) -> str:
    """The table.

    Args:
        seen: what was seen, by test.
    """
    rows = [
        "| what goes wrong | what is promised | what was seen | test |",
        "| --- | --- | --- | --- |",
    ]
    rows += [f"| {f.what} | {f.promise} | {seen[f.test]} | `{f.test}` |" for f in faults()]
    return "\n".join(rows) + "\n"


def rows(page: str) -> dict[str, str]:
    """What the page says was seen, by test."""
    block = BLOCK.search(page)
    assert block is not None, "docs/reliability.md has lost its markers"
    cells = [line.strip("| ").split(" | ") for line in block.group().splitlines() if "::" in line]
    return {test.strip("`"): seen for _, _, seen, test in cells}


def updated(page: str, seen: Mapping[str, str]) -> str:
    """The page with its table made anew."""
    return BLOCK.sub(lambda found: f"{found.group(1)}\n{table(seen)}\n{found.group(2)}", page)
