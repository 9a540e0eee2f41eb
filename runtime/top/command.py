"""The command `adaptd top`."""

from runtime.background import stand_back
from runtime.commandline import THERE, To
from runtime.errors import InvalidConfig
from runtime.extras import need
from runtime.onlooker import Onlooker


def top(to: To = THERE, every_s: float = 1.0) -> None:
    """Watch sessions in the terminal; keys freeze, reset, swap and roll back.

    Latency and returns are followed of the sessions that are on the screen.

    Args:
        every_s: seconds between two looks.
    """
    if not 0.2 <= every_s <= 3600:
        raise InvalidConfig(f"--every-s must be between 0.2 and 3600, got {every_s:g}")
    need("top", "textual")
    from runtime.top.app import Top

    with Onlooker(to.endpoint, status_every_s=every_s, key=to.key) as onlooker:
        stand_back()
        Top(onlooker).run()
