"""Libraries that not every host needs, and the command that installs them."""

import importlib.util

from runtime.errors import InvalidConfig


def require(module: str, extra: str) -> None:
    """Make sure that a library of an extra is there.

    Raises:
        InvalidConfig: it is not; with the command that installs it.
    """
    if importlib.util.find_spec(module) is None:
        raise InvalidConfig(f"{module} is not installed here: pip install 'adaptd[{extra}]'")
