"""Optional dependencies: a command that lacks one says which command installs it."""

from importlib.util import find_spec

from runtime.errors import InvalidConfig


def need(extra: str, *modules: str) -> None:
    """See that an extra of the package is installed.

    Args:
        extra: its name in pyproject.toml.
        modules: top-level modules that it brings.

    Raises:
        InvalidConfig: one is missing, with the command that installs it.
    """
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise InvalidConfig(
            f"this needs {', '.join(missing)}: install it by pip install 'adaptd[{extra}]'"
        )
