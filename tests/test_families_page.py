"""docs/families.md is what the families are, and its examples run."""

import re

import pytest

import sim
from docs import families, markdown
from docs.families import NOTES, PAGE
from docs.markdown import LABELS, prose, table, wrapped

TEXT = PAGE.read_text()


def test_the_page_has_what_the_script_writes():
    assert families.updated(TEXT) == TEXT, "run python -m docs.families"


def test_a_page_without_its_markers_is_refused():
    with pytest.raises(ValueError, match="has the blocks"):
        families.updated(TEXT.replace("<!-- end variations -->", ""))


def test_every_family_is_in_the_table_and_in_a_section():
    for name in sim.names():
        assert len(re.findall(rf"^\| `{name}` \| .* × ", TEXT, re.MULTILINE)) == 1
    listed = " ".join(re.findall(r"- \*\*Families:\*\* (.*?)\n- ", TEXT, re.DOTALL))
    assert sorted(re.findall(r"`([^`]+)`", listed)) == sim.names()
    assert sorted(NOTES) == sim.names()


def test_every_section_says_what_a_researcher_looks_for():
    sections = TEXT.partition("<!-- begin definitions")[2].split("\n### ")[1:]
    assert len(sections) > 10
    for section in sections:
        for label in ("Source", "Observation", "Action", "Reward"):
            assert section.count(f"\n- **{label}:** ") == 1, section.splitlines()[0]
        assert set(re.findall(r"- \*\*(\w+):\*\*", section)) <= {*LABELS, "Families"}


@pytest.mark.parametrize("ends", ["never", "always"])
def test_a_note_on_ends_that_is_wrong_is_refused(monkeypatch, ends):
    name = "maze2d" if ends == "never" else "bandit"
    monkeypatch.setitem(NOTES, name, families.Note("", ends))
    with pytest.raises(ValueError, match="is not so"):
        families.updated(TEXT)


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL))
def test_the_examples_run(block):
    exec(compile(block, str(PAGE), "exec"), {})


def test_no_line_of_a_table_is_too_wide_to_read():
    assert max(len(line) for line in TEXT.splitlines()) < 220


def test_formulas_survive_markdown():
    assert markdown.inline("-|v - v*| - 0.05 |a|^2, ``a*b``") == r"-|v - v\*| - 0.05 |a|², `a*b`"
    assert table(["x"], [["|a|"]]) == "| x |\n| --- |\n| \\|a\\| |"
    lines = wrapped("word " * 23 + "- 0.1 |a|^2 + 5").splitlines()
    assert len(lines) == 2 and not lines[1].startswith("-")


def test_docstrings_become_items_paragraphs_and_tables():
    rule = "==== ===="
    lines = f"{rule}\nname v*\n{rule}\na-b  |v|\n{rule}"
    docstring = f"Task: a goal\nat rest.\nReward: d v.\nEnds: never.\n\n{lines}"
    assert prose(docstring) == (
        "- **Task:** a goal at rest.\n- **Reward:** d v.\n\n"
        "| name | v\\* |\n| --- | --- |\n| `a-b` | \\|v\\| |"
    )
