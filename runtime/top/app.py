"""The screen of `adaptd top` and its keys."""

import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, ClassVar

from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Footer, Static

from runtime.onlooker import Onlooker
from runtime.top.board import Board
from runtime.top.dialogs import ChoosePolicy, Confirm
from runtime.top.table import SessionTable

Facts = dict[str, Any]
LOOK_S = 0.1
"""Between two looks at the tap: taking ticks in bulk costs less than waking up for each."""


class Top(App[None]):
    """A daemon's sessions, once a second."""

    TITLE = "adaptd top"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #summary { height: 2; padding: 0 1; background: $primary-background; }
    #trouble { height: auto; padding: 0 1; background: $error; color: $text; display: none; }
    SessionTable { height: 1fr; scrollbar-size: 0 1; }
    Confirm, ChoosePolicy { align: center middle; }
    .dialog { width: 72; max-width: 90%; height: auto; max-height: 80%; padding: 1 2;
              border: round $accent; background: $surface; }
    .question { text-style: bold; width: 100%; }
    .consequence { color: $text-muted; width: 100%; margin: 1 0; }
    .keys { color: $accent; }
    OptionList { height: auto; max-height: 16; margin: 1 0; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f", "freeze", "Freeze/thaw"),
        Binding("r", "reset", "Reset"),
        Binding("s", "swap", "Swap"),
        Binding("b", "roll_back", "Roll back"),
        Binding("o", "order", "Order"),
        Binding("q,ctrl+c", "quit", "Quit"),
    ]

    def __init__(self, onlooker: Onlooker):
        """
        Args:
            onlooker: of the daemon; what it listens to is chosen here.
        """
        super().__init__()
        self.onlooker = onlooker
        self.onlooker.tap.leave(None)
        self.board = Board()
        self._followed: set[int] = set()
        self._shown: Facts | None = None
        self._heard_s = 0.0

    def compose(self) -> ComposeResult:
        yield Static("waiting for the daemon ...", id="summary", markup=False)
        yield Static("", id="trouble", markup=False)
        yield SessionTable(self.board)
        yield Footer()

    def on_mount(self) -> None:
        """Begin to look."""
        self.theme = "textual-dark"
        self.set_interval(LOOK_S, self.look)

    def on_session_table_scrolled(self) -> None:
        """Follow the ticks of what is on the screen, and of nothing else."""
        wanted = set(self.query_one(SessionTable).on_screen())
        for session in self._followed - wanted:
            self.onlooker.tap.leave(session)
        for session in wanted - self._followed:
            self.onlooker.tap.follow(session)
        self._followed = wanted

    def look(self) -> None:
        """Take in what has come, and show it if the daemon has told of all its sessions."""
        self.board.take_messages(self.onlooker.tap.messages())
        self._show_trouble()
        status = self.onlooker.status
        if not status or status is self._shown:
            return
        self._shown, self._heard_s = status, time.monotonic()
        self.board.take_status(status, self._heard_s)
        text = summary(self.board, self.onlooker.endpoint)
        self.query_one("#summary", Static).update(text)
        self.query_one(SessionTable).refresh_board()

    def _show_trouble(self) -> None:
        banner, trouble = self.query_one("#trouble", Static), self.onlooker.trouble
        banner.display = bool(trouble)
        if trouble:
            age_s = time.monotonic() - self._heard_s
            banner.update(trouble + (f" (figures are {age_s:.0f} s old)" if self._heard_s else ""))

    def _chosen(self) -> Facts | None:
        session = self.query_one(SessionTable).chosen
        if session is None or session not in self.board.rows:
            self.notify("no session is open", severity="warning")
            return None
        return self.board.rows[session].facts

    def action_order(self) -> None:
        """Order the table by something else."""
        order = self.board.next_order()
        self.query_one(SessionTable).refresh_board()
        self.notify(f"ordered by {order}", timeout=2)

    def action_freeze(self) -> None:
        """Freeze the chosen session, or let it adapt again."""
        if (facts := self._chosen()) is None:
            return
        if facts["frozen"]:
            question, consequence = "Thaw", "It adapts again from the memory it has."
        else:
            question, consequence = "Freeze", "It goes on acting, and what it learns is dropped."
        frozen = not facts["frozen"]
        self._confirm(question, consequence, facts, "freeze", frozen=frozen)

    def action_reset(self) -> None:
        """Put the chosen session back to the prior."""
        if (facts := self._chosen()) is not None:
            consequence = "It forgets all that it has learned of its task, at its next tick."
            self._confirm("Reset", consequence, facts, "reset")

    def action_roll_back(self) -> None:
        """The chosen session's policy before."""
        if (facts := self._chosen()) is None:
            return
        if not (facts["previous_policy"] or facts["waiting_policy"]):
            self.notify(f"session {facts['session']} has had one policy only", severity="warning")
            return
        before = facts["previous_policy"] or facts["policy"]
        self._confirm("Roll back", f"{before} takes over between two ticks.", facts, "rollback")

    def action_swap(self) -> None:
        """Another policy for the chosen session."""
        if (facts := self._chosen()) is not None:
            self._ask("policies", lambda found: self._choose_policy(found["policies"], facts))

    def _choose_policy(self, policies: list[Facts], facts: Facts) -> None:
        def chosen(policy: str | None) -> None:
            if policy is not None:
                consequence = (
                    f"{policy} takes over between two ticks; memory is kept, rebuilt from recent "
                    f"transitions, or reset."
                )
                self._confirm("Swap", consequence, facts, "swap", policy=policy)

        self.push_screen(ChoosePolicy(policies, facts["policy"]), chosen)

    def _confirm(
        self, verb: str, consequence: str, facts: Facts, op: str, **fields: object
    ) -> None:
        """Ask whether, then do it and say what came of it."""
        session = facts["session"]

        def done(result: Facts) -> None:
            self.notify(outcome(verb, session, result))

        def answered(yes: bool | None) -> None:
            if yes:
                self._ask(op, done, session=session, **fields)

        question = f"{verb} session {session} ({facts['policy']})?"
        self.push_screen(Confirm(question, consequence), answered)

    def _ask(self, op: str, done: Callable[[Facts], None], **fields: object) -> None:
        """Make a request beside the screen; its result is taken there, a refusal shown."""

        def answered(future: "Future[Facts]") -> None:
            error = future.exception()
            if error is None:
                self.call_later(done, future.result())
            else:
                self.call_later(self.notify, str(error), severity="error", timeout=10)

        self.onlooker.ask(op, **fields).add_done_callback(answered)


def outcome(verb: str, session: int, result: Facts) -> str:
    """What a request came to, in a sentence."""
    for report in result.get("swaps", ()):
        return f"{report['old']} -> {report['new']} on session {session}: memory {report['carry']}"
    return f"{verb}: done, session {session}"


def summary(board: Board, endpoint: str) -> str:
    """Two lines about the daemon as a whole."""
    rows, facts = board.rows.values(), board.daemon
    adaptation = Counter(row.facts["adaptation"] for row in rows)
    told = ", ".join(f"{count} {name}" for name, count in sorted(adaptation.items()))
    rate = sum(row.rate_hz for row in rows if row.rate_hz > 0)
    refused = sum(facts["refused_frames"].values())
    first = f"adaptd {facts['pid']} at {endpoint}   {len(rows)} sessions"
    words = [f"{rate:,.0f} ticks/s", f"{refused} frames refused"]
    words += [f"quarantined: {', '.join(facts['quarantined'])}"] if facts["quarantined"] else []
    return f"{first}{': ' + told if told else ''}\n{'   '.join(words)}   by {board.order}"
