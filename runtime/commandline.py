"""What the three programs share: commands by name, and errors as one sentence."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from pkgutil import resolve_name
from typing import Annotated, Any

import tyro
from pydantic import ValidationError

from runtime.client import Client
from runtime.errors import AdaptdError, UnknownName
from runtime.keyfile import default_key
from runtime.messages import default_endpoint

Command = Callable[[list[str]], Any]


@dataclass(frozen=True)
class Reach:
    """Which daemon a command talks to, and as whom."""

    endpoint: str = field(default_factory=default_endpoint)
    """of the daemon"""
    key: Path | None = field(default_factory=default_key)
    """key file of yours, for a daemon that asks for one; else what ADAPTD_KEY names"""

    def client(self, timeout_s: float = 5.0) -> Client:
        """A connection to it."""
        return Client(self.endpoint, timeout_s, self.key)


To = Annotated[Reach, tyro.conf.arg(name="")]
"""A command's argument: its options are --endpoint and --key."""
THERE = Reach()


def run_program(
    name: str, usage: str, commands: dict[str, Command], arguments: list[str] | None
) -> int:
    """Run the command that the arguments name.

    Args:
        name: the program's name.
        usage: printed where no command is given.
        commands: each takes the arguments after its name.
        arguments: None for those of the process.

    Returns:
        The process's exit status: 2 where an `AdaptdError` or a time-out was reported.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage)
        return 0
    command, rest = arguments[0], arguments[1:]
    try:
        if command not in commands:
            raise UnknownName("command", command, commands)
        commands[command](rest)
    except (AdaptdError, TimeoutError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        setting = ".".join(str(part) for part in first["loc"])
        print(f"{name}: {setting}: {first['msg']}, got {first['input']!r}", file=sys.stderr)
        return 2
    return 0


def typed(prog: str, function: Callable[..., Any] | str) -> Command:
    """A command whose settings are a function's typed arguments.

    Args:
        prog: what it is called by.
        function: or ``module:function``, imported when the command is run.
    """

    def command(arguments: list[str]) -> Any:
        found = resolve_name(function) if isinstance(function, str) else function
        return tyro.cli(found, args=arguments, prog=prog)

    return command
