"""The command `adaptd view`."""

import json as to_json
import time
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Annotated, Any

import tyro

from runtime.background import stand_back
from runtime.commandline import THERE, To
from runtime.errors import InvalidConfig, NotSaved
from runtime.extras import need
from runtime.onlooker import Onlooker
from runtime.view.watching import MOST_SESSIONS, choose_sessions, watch

Files = Annotated[list[Path], tyro.conf.Positional]
PORT = 8765
"""Where Foxglove looks unless told otherwise."""
JSON_PORT = 9872
"""Where PlotJuggler does."""
LIVE_MINUTES = 1.0
QUEUED = 10_000


def view(
    recordings: Files = [],  # noqa: B006  # tyro reads the default; nobody writes to it
    /,
    session: int | None = None,
    html: Path | None = None,
    minutes: float | None = None,
    json: bool = False,
    layout: Path | None = None,
    port: int | None = None,
    to: To = THERE,
) -> None:
    """Look at sessions: live in Foxglove or PlotJuggler, or as a page for any browser.

    Without further settings it serves ws://127.0.0.1:8765 to Foxglove and Lichtblick.

    Args:
        recordings: files or folders of `adaptd record`, for --html.
        session: which; all that are open if not given, at most 20.
        html: write one page of a session: of the recordings, or else of what it does from now on.
        minutes: of the recordings the last ones; of a live session how long (1 if not given),
            or until Ctrl-C.
        json: publish JSON on tcp://127.0.0.1:9872 for PlotJuggler's ZMQ Subscriber instead.
        layout: write a layout for Foxglove and Lichtblick, of the session and its policy.
        port: another one to serve on, of this machine alone.
    """
    _check(recordings, html, minutes, port)
    need("view", "foxglove", "mcap", "orjson")
    if html is not None and recordings:
        _report_recordings(recordings, session, html, minutes)
        return
    with Onlooker(to.endpoint, status_every_s=0.5, queued=QUEUED, key=to.key) as onlooker:
        chosen = [] if session is None else [session]
        one = html is not None or layout is not None
        sessions = choose_sessions(onlooker, chosen, 1 if one else MOST_SESSIONS)
        if layout is not None:
            _write_layout(onlooker, sessions[0], layout)
        elif html is not None:
            _report_live(onlooker, sessions[0], html, minutes or LIVE_MINUTES)
        elif json:
            stand_back()
            _publish_json(onlooker, sessions, JSON_PORT if port is None else port)
        else:
            stand_back()
            _serve(onlooker, sessions, PORT if port is None else port)


def _check(
    recordings: list[Path], html: Path | None, minutes: float | None, port: int | None
) -> None:
    if recordings and html is None:
        raise InvalidConfig(
            "recordings are shown as a page: add --html FILE (Foxglove opens .mcap files itself)"
        )
    if minutes is not None and not 0 < minutes <= 1e6:
        raise InvalidConfig(f"--minutes must be above 0, got {minutes:g}")
    if port is not None and not 0 <= port <= 65535:
        raise InvalidConfig(f"--port must be between 0 and 65535, got {port}")


def _report_recordings(
    recordings: list[Path], session: int | None, html: Path, minutes: float | None
) -> None:
    from runtime.recording.reading import Recording
    from runtime.view.page import write_page
    from runtime.view.story import tell

    found = Recording(recordings).session(session)
    write_page(tell(found, None if minutes is None else 60 * minutes), html)
    print(f"{html}: session {found.session}, {len(found.ticks)} ticks in the recording")


def _report_live(onlooker: Onlooker, session: int, html: Path, minutes: float) -> None:
    from runtime.view.live import LiveSession
    from runtime.view.page import write_page
    from runtime.view.story import tell

    live = LiveSession(session, 60 * minutes)
    print(f"looking at session {session} for {minutes:g} minutes, or until Ctrl-C", flush=True)
    with suppress(KeyboardInterrupt):
        watch(onlooker, [session], [live], _after(60 * minutes))
    found = live.session(onlooker)
    write_page(tell(found), html)
    print(f"{html}: session {session}, {len(found.ticks)} ticks")


def _after(seconds: float) -> Callable[[], bool]:
    deadline = time.monotonic() + seconds
    return lambda: time.monotonic() >= deadline


def _never() -> bool:
    return False


def _write_layout(onlooker: Onlooker, session: int, path: Path) -> None:
    from runtime.view.layout import layout

    manifest = onlooker.manifest(session, onlooker.sessions[session]["generation"])
    if manifest is None:
        raise InvalidConfig(f"the daemon does not tell the manifest of session {session}")
    try:
        path.write_text(to_json.dumps(layout(session, manifest), indent=1) + "\n")
    except OSError as error:
        raise NotSaved(f"{path} cannot be written: {error.strerror}") from None
    print(f"{path}: open it in Foxglove or Lichtblick, Layout > Import from file")


def _publish_json(onlooker: Onlooker, sessions: list[int], port: int) -> None:
    from runtime.view.plotjuggler import JsonPublisher

    with closing(JsonPublisher(port)) as publisher:
        print(f"JSON of {_words(sessions)} on {publisher.address}", flush=True)
        watch(onlooker, sessions, [publisher], _never)


def _serve(onlooker: Onlooker, sessions: list[int], port: int) -> None:
    from runtime.view.bridge import Bridge
    from runtime.view.scene_link import SceneFollower

    with ExitStack() as stack:
        bridge = stack.enter_context(closing(Bridge(port, f"adaptd {onlooker.endpoint}")))
        scenes: dict[int, Any] = {
            session: stack.enter_context(closing(SceneFollower(onlooker.endpoint, session)))
            for session in sessions
        }

        def show_scenes() -> None:
            for session, follower in scenes.items():
                if (scene := follower.latest()) is not None:
                    bridge.scene(session, scene)

        address = f"ws://127.0.0.1:{bridge.port}"
        print(f"{_words(sessions)} on {address}: open it in Foxglove or Lichtblick", flush=True)
        watch(onlooker, sessions, [bridge], _never, show_scenes)


def _words(sessions: list[int]) -> str:
    return f"session{'s' * (len(sessions) > 1)} {', '.join(map(str, sessions))}"
