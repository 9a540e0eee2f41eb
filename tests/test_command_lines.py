"""Command lines of the documentation that are not run are parsed by the programs themselves."""

import functools
import io
import re
import shlex
from contextlib import redirect_stdout

import pytest
import tyro

from docs.site import pages
from runtime.cli import main as adaptd
from sim.cli import main as simrobot
from tests.pages import Block, mentioned, titled
from training.cli import main as metatrain

PROGRAMS = {"adaptd": adaptd, "simrobot": simrobot, "metatrain": metatrain}
PAGES = sorted([*pages(), "README.md"])
NAMED = {"metatrain train": ("rl2", "halfcheetah-vel"), "metatrain bench": ("rl2", "bandit")}
"""What some commands want to be told before they show their settings."""


@pytest.fixture
def dry(monkeypatch):
    """Programs parse their command line, and do nothing."""
    parse = tyro.cli

    def dry_cli(function, **settings):
        @functools.wraps(function)
        def nothing(*_, **__):
            return None

        return parse(nothing, **settings)

    monkeypatch.setattr(tyro, "cli", dry_cli)


def parsed(command: str) -> int:
    """The exit status of a program that is given this command line."""
    words = shlex.split(command)
    if words[0] == "torchrun":
        words = ["metatrain", *words[words.index("training.cli") + 1 :]]
    return PROGRAMS[words[0]](words[1:])


def test_a_command_line_that_is_wrong_is_found(dry, capsys):
    assert parsed("metatrain train rl2 halfcheetah-vel --seed 3") == 0
    assert parsed("metatrain train rl2 halfcheetah-vel --sead 3") == 2
    assert parsed("adaptd swop other") == 2
    with pytest.raises(SystemExit):
        parsed("adaptd swap other --bland 3")


TITLED = [block for page in PAGES for block in titled(page)]


@pytest.mark.parametrize("block", TITLED, ids=lambda b: f"{b.page}:{b.line}")
def test_commands_that_take_long_parse(block: Block, dry):
    for command in block.commands:
        assert parsed(command) == 0, command


@functools.cache
def settings(program: str, command: str) -> set[str]:
    """The settings of a command, as its help has them."""
    told = NAMED.get(f"{program} {command}", ())
    with redirect_stdout(io.StringIO()) as shown, pytest.raises(SystemExit):
        PROGRAMS[program]([command, *told, "--help"])
    return set(re.findall(r"--[a-z][\w-]*", shown.getvalue()))


@pytest.mark.parametrize("page", PAGES)
def test_whatever_running_text_mentions_exists(page):
    for code in mentioned(page):
        program, *words = code.split()
        if not words or not re.fullmatch("[a-z]+", words[0]):
            continue  # `adaptd`, `adaptd COMMAND`
        options = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert options <= settings(program, words[0]) | {"--help"}, code
