"""Libraries that not every host needs, and the command that installs them."""

import importlib

from runtime.errors import InvalidConfig


def require(module: str, extra: str) -> None:
    """Make sure that a library of an extra is there.

    Raises:
        InvalidConfig: it is not; with the command that installs it.
    """
    try:
        importlib.import_module(module)
    except ModuleNotFoundError:
        name = module.replace("_", "-")
        raise InvalidConfig(
            f"{name} is not installed here: pip install 'adaptd[{extra}]'"
        ) from None
