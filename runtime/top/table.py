"""The table of sessions: of thousands, only the lines on the screen are made."""

import math
from typing import Any, ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from runtime.top.board import RETURNS, Board, Row, sparkline

COLUMNS = (
    ("SESSION", 16), ("POLICY", 27), ("ADAPTATION", 11), ("HZ", 6), ("P50 us", 7), ("P99 us", 7),
    ("RETURN", 9), ("EPISODES", RETURNS + 1), ("GAPS", 6), ("CLAMPS", 7), ("STALE", 6),
)  # fmt: skip
"""Headings and widths; what else there is to say of a session follows."""
LEFT = {"SESSION", "POLICY", "ADAPTATION", "EPISODES"}
PLAIN, DIM, ALARM = Style(), Style(dim=True), Style(color="bright_red", bold=True)
ADAPTATION = {
    "unadapted": Style(color="bright_blue"),
    "adapting": Style(color="yellow"),
    "adapted": Style(color="green"),
    "invalid": ALARM,
}
SPARK = Style(color="cyan")
NOTE = Style(color="yellow")
CHOSEN = Style(bgcolor="grey27", bold=True)
HEADING = Style(bgcolor="grey15", bold=True)
NOTES_WIDTH = 30


class SessionTable(ScrollView, can_focus=True):
    """One line per session, of which one is chosen."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "choose(-1)", "Up", show=False),
        Binding("down,j", "choose(1)", "Down", show=False),
        Binding("pageup", "page(-1)", "Page up", show=False),
        Binding("pagedown", "page(1)", "Page down", show=False),
        Binding("home", "choose(-1000000)", "First", show=False),
        Binding("end", "choose(1000000)", "Last", show=False),
    ]
    chosen: reactive[int | None] = reactive(None)
    """Session that the keys act on; it stays chosen where the order changes."""

    class Scrolled(Message):
        """Other sessions may be on the screen."""

    def __init__(self, board: Board, **options: Any):
        super().__init__(**options)
        self.board = board

    def refresh_board(self) -> None:
        """The board has changed."""
        ids = self.board.ids
        width = sum(width for _, width in COLUMNS) + NOTES_WIDTH
        self.virtual_size = Size(width, len(ids) + 1)  # the headings are the first line
        if self.chosen not in self.board.rows:
            self.chosen = ids[0] if ids else None
        self.refresh()
        self.post_message(self.Scrolled())

    def on_screen(self) -> list[int]:
        """The sessions whose lines are seen."""
        first = int(self.scroll_offset.y)
        return self.board.ids[first : first + self._lines]

    @property
    def _lines(self) -> int:
        """Sessions that fit on the screen, below the headings."""
        return max(1, self.size.height - 1)

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        self.post_message(self.Scrolled())

    def watch_chosen(self) -> None:
        self.refresh()

    def action_choose(self, by: int) -> None:
        """Choose another session, so many lines away."""
        ids = self.board.ids
        if not ids:
            return
        at = ids.index(self.chosen) if self.chosen in self.board.rows else 0
        at = min(max(at + by, 0), len(ids) - 1)
        self.chosen = ids[at]
        top = int(self.scroll_offset.y)
        if not top <= at < top + self._lines:
            self.scroll_to(y=at if at < top else at - self._lines + 1, animate=False)

    def action_page(self, direction: int) -> None:
        """Choose a session a screen away."""
        self.action_choose(direction * self._lines)

    def render_line(self, y: int) -> Strip:
        ids, at = self.board.ids, y - 1 + int(self.scroll_offset.y)
        if y == 0:
            return self._line(_HEADINGS, HEADING)
        if at >= len(ids):
            return self._line([], PLAIN)
        chosen = ids[at] == self.chosen
        return self._line(cells(self.board.rows[ids[at]]), CHOSEN if chosen else PLAIN)

    def _line(self, segments: list[Segment], style: Style) -> Strip:
        """What is seen of a line, on its background from end to end."""
        ground = self.rich_style + style
        x = int(self.scroll_offset.x)
        strip = Strip(Segment.apply_style(segments, ground))
        return strip.crop_extend(x, x + self.size.width, ground)


def cells(row: Row) -> list[Segment]:
    """A session's line."""
    facts, asleep = row.facts, row.facts["asleep"]
    p50, p99 = row.percentiles_us(50, 99)
    episodes = row.episodes
    last = episodes.returns[-1] if episodes.returns else math.nan
    plain = DIM if asleep else PLAIN
    texts: list[tuple[str, Style]] = [
        (str(facts["session"]), plain),
        (facts["policy"], plain),
        (facts["adaptation"], DIM if asleep else ADAPTATION[facts["adaptation"]]),
        (_number(row.rate_hz, ".1f"), plain),
        (_number(p50), plain),
        (_number(p99), plain),
        (_number(last, ".1f"), plain),
        (sparkline(episodes.returns), SPARK),
        *(
            (str(facts[n]), ALARM if n in row.grown else plain)
            for n in ("gaps", "limited", "stale")
        ),
    ]
    fitted = [
        Segment(_fit(text, width, name in LEFT), style)
        for (text, style), (name, width) in zip(texts, COLUMNS, strict=True)
    ]
    return [*fitted, Segment(notes(facts), ALARM if facts["stopped"] else NOTE)]


def _count(row: Row, name: str, plain: Style) -> tuple[str, Style]:
    """A counter: loud while it grows, quiet where nothing was counted."""
    count = row.facts[name]
    return str(count), ALARM if name in row.grown else plain if count else DIM


def notes(facts: dict[str, Any]) -> str:
    """What is worth saying of a session beyond its columns."""
    said = [word for word in ("stopped", "frozen", "asleep") if facts[word]]
    if facts["waiting_policy"]:
        said.append(f"waits for {facts['waiting_policy']}")
    if facts["probation"]:
        said.append(f"probation {facts['probation']}")
    if facts["candidate"]:
        said.append(f"shadow {facts['candidate']['policy']}")
    if facts["refused"]:
        said.append(f"{facts['refused']} refused")
    return ", ".join(said)


def _number(value: float, form: str = ".0f") -> str:
    return f"{value:{form}}" if math.isfinite(value) else "-"


def _fit(text: str, width: int, left: bool) -> str:
    """A text in its column, with a space after it."""
    room = width - 1
    text = text if len(text) <= room else text[: room - 1] + "…"
    return (text.ljust(room) if left else text.rjust(room)) + " "


_HEADINGS = [Segment(_fit(name, width, name in LEFT)) for name, width in COLUMNS]
_HEADINGS.append(Segment("NOTES"))
