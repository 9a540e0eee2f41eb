"""What every process beside the daemon needs: the tap, and what the ticks on it mean.

Ticks are numbers; which policy made them, and what its elements are called, the control
plane tells. A thread asks it now and then, so that whoever reads ticks never waits.
"""

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from runtime.client import Client
from runtime.errors import AdaptdError
from runtime.messages import default_endpoint
from runtime.spec import Manifest
from runtime.tap import Tap, Tick

ASK_TIMEOUT_S = 5.0
PAGE = 100
"""Sessions per `status`: the daemon's loop is held for well under a millisecond by each."""


class Onlooker:
    """Subscribes to the tap of a daemon and follows its status; a context manager.

    It need not be there yet, and may be restarted meanwhile.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        session: int | None = None,
        status_every_s: float = 1.0,
        queued: int = 100_000,
        key: Path | None = None,
    ):
        """
        Args:
            endpoint: of the daemon; None for the default.
            session: the one to look at; None for all.
            status_every_s: how often the daemon is asked how its sessions are.
            queued: ticks that may wait to be read, after which they are missed.
            key: file, for a daemon that asks for keys.
        """
        self.endpoint = endpoint or default_endpoint()
        self.session = session
        self.sessions: dict[int, dict[str, Any]] = {}
        """The rows of the last `status`, by session."""
        self.status: dict[str, Any] = {}
        """The whole of it; empty while the daemon has not answered."""
        self.trouble = "it has not been asked yet"
        """Why the daemon does not answer; empty while it does."""
        self._client = Client(self.endpoint, key=key)
        self.tap: Tap = self._client.tap(session, queued)
        self._labels: dict[tuple[int, int], str] = {}
        self._manifests: dict[str, Manifest] = {}
        self._wanted: set[str] = set()
        self._period_s = status_every_s
        self._questions: queue.SimpleQueue[_Question | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._follow, name="control", daemon=True)
        self._thread.start()

    def ticks(self, timeout_s: float = 0.0) -> list[Tick]:
        """The ticks that have come, waiting up to `timeout_s` for the first."""
        return self.tap.ticks(timeout_s)

    def label(self, session: int, generation: int) -> str | None:
        """The policy, ``name@version``, that made a session's ticks of a generation.

        None while it is not known: soon after a session or a generation is first seen it is.
        """
        return self._labels.get((session, generation))

    def manifest(self, session: int, generation: int) -> Manifest | None:
        """The manifest of that policy; None while it is not known."""
        return self._manifests.get(self._labels.get((session, generation), ""))

    @property
    def manifests(self) -> dict[str, Manifest]:
        """Manifests of the policies that sessions have used while this looked on, by label."""
        return dict(self._manifests)

    def events(self) -> list[dict[str, Any]]:
        """What else happened to sessions since the last call (docs/events.md), oldest first."""
        waiting = self.tap.events
        found = [waiting.popleft() for _ in range(len(waiting))]
        for event in found:
            label = event.get("new") or event.get("policy")
            if label and "generation" in event:
                self._labels[event["session"], event["generation"]] = label
                if label not in self._wanted:  # it may be gone by the next status
                    self._wanted.add(label)
                    question = partial(self._learn, label=label)
                    self._questions.put(_Question(Future(), question))
        return found

    def catch_up(self, timeout_s: float) -> None:
        """Wait until what has been asked so far is answered, or for so long."""
        done = _Question(Future(), lambda client: {})
        self._questions.put(done)
        with suppress(FutureTimeout):
            done.future.result(timeout_s)

    def ask(self, op: str, **fields: Any) -> "Future[dict[str, Any]]":
        """Make a control request without waiting; the future has its result or exception."""
        question = _Question(Future(), lambda client: client.request(op, **fields))
        self._questions.put(question)
        return question.future

    def _follow(self) -> None:
        """Ask for the status now and then, and what else is wanted in between."""
        with Client(self.endpoint, ASK_TIMEOUT_S, self._client.key) as client:
            next_look_s = 0.0
            while True:
                if time.monotonic() >= next_look_s:
                    self._look(client)
                    next_look_s = time.monotonic() + self._period_s
                try:
                    left_s = max(0.0, next_look_s - time.monotonic())
                    question = self._questions.get(timeout=left_s)
                except queue.Empty:
                    continue
                if question is None:
                    return
                question.answer(client)

    def _look(self, client: Client) -> None:
        try:
            status = _status(client, self.session)
        except (AdaptdError, TimeoutError) as error:
            self.trouble = str(error)
            return
        rows = {row["session"]: row for row in status["sessions"]}
        for label in {row["policy"] for row in rows.values()} - set(self._manifests):
            with suppress(AdaptdError, TimeoutError):
                self._learn(client, label)
        for row in rows.values():
            self._labels[row["session"], row["generation"]] = row["policy"]
        self.sessions, self.status, self.trouble = rows, status, ""

    def _learn(self, client: Client, label: str) -> dict[str, Any]:
        found = client.request("manifest", policy=label)["manifest"]
        self._manifests[label] = Manifest.model_validate(found)
        return found

    def close(self) -> None:
        """Stop looking on."""
        self._questions.put(None)
        self._thread.join(timeout=1.0)  # it may be waiting for a daemon that is gone
        self._client.close()

    def __enter__(self) -> "Onlooker":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()


def _status(client: Client, session: int | None) -> dict[str, Any]:
    """`status` of all sessions, a page at a time, or of one, which need not be open yet."""
    if session is not None:
        facts = client.request("status", after=session - 1, count=1)
        return {**facts, "sessions": [r for r in facts["sessions"] if r["session"] == session]}
    facts = client.request("status", count=PAGE)
    rows = facts["sessions"]
    while facts["sessions_left"]:
        facts = client.request("status", after=rows[-1]["session"], count=PAGE)
        rows += facts["sessions"]
    return {**facts, "sessions": rows}


class _Question:
    """A control request that somebody waits for, or not."""

    def __init__(
        self, future: "Future[dict[str, Any]]", request: Callable[[Client], dict[str, Any]]
    ):
        self.future, self._request = future, request

    def answer(self, client: Client) -> None:
        try:
            self.future.set_result(self._request(client))
        except Exception as error:
            self.future.set_exception(error)
