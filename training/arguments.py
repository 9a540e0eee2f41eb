"""What a command line names, checked before tyro reads it: so that errors name what is near."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pydantic import BaseModel

from runtime.errors import UnknownName


def given(arguments: Sequence[str], name: str, default: str) -> str:
    """The value of `--name` among the arguments, the last one given; else the default."""
    value = default
    for argument, following in zip(arguments, [*arguments[1:], default], strict=True):
        if argument == f"--{name}":
            value = following
        elif argument.startswith(f"--{name}="):
            value = argument.partition("=")[2]
    return value


def check_settings(
    arguments: Sequence[str],
    config: type[BaseModel],
    command: Callable[..., Any],
    aliases: Sequence[str] = (),
) -> None:
    """Complain of the first setting that does not exist.

    Args:
        arguments: of the command line, without those that have a place of their own.
        config: has a setting for each of its fields, and those of the configurations in it.
        command: has one for each of its parameters.
        aliases: other names of these.

    Raises:
        UnknownName: with the nearest, and all that exist.
    """
    own = [name for name in inspect.signature(command).parameters if name != "config"]
    known = [f"--{name.replace('_', '-')}" for name in (*settings(config), *own, *aliases)]
    accepted = {*known, *(f"--no-{name[2:]}" for name in known), "--help"}
    for argument in arguments:
        if not argument.startswith("--") or argument.startswith("--tyro-"):
            continue
        name = argument.partition("=")[0]
        if name.replace("_", "-") not in accepted:
            raise UnknownName("setting", name, known)


def settings(config: type[BaseModel]) -> Iterator[str]:
    """Names of the fields of a configuration, those inside its parts instead of the parts."""
    for name, field in config.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from settings(kind)
        else:
            yield name
