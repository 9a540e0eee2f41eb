"""What a terminal shows of training: how far, how well, how fast, how long it still takes."""

from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn


def progress(console: Console) -> Progress:
    """A line that fits 80 columns and takes no more than it needs of wider ones."""
    return Progress(
        BarColumn(bar_width=max(4, min(40, console.width - 71))),
        TextColumn("{task.fields[note]}"),
        console=console,
        disable=not console.is_terminal,
    )


def note(row: Mapping[str, float], total: int, rate: float) -> str:
    """Steps done and to do, returns of the first and the last episode, steps/s, time left.

    Args:
        row: of the learning curve.
        total: environment steps to train for.
        rate: environment steps per second.
    """
    done = row["env_steps"]
    left = duration((total - done) / rate) if rate > 0 else "?"
    return (
        f"{millions(done)}/{millions(total)} steps  return {returns(row)}  "
        f"{rate:,.0f} steps/s  {left} left"
    )


def returns(row: Mapping[str, float]) -> str:
    """The mean return of the first episode, and of the last where there are several."""
    values = [value for name, value in row.items() if name.startswith("return/")]
    shown = values[:1] + values[1:][-1:]
    return (" / " if len(values) <= 2 else " .. ").join(f"{v:.4g}" for v in shown)


def millions(steps: float) -> str:
    """As 40M, 1.25M or 800k."""
    return f"{steps / 1e6:.4g}M" if steps >= 1e6 else f"{steps / 1e3:.4g}k"


def duration(seconds: float) -> str:
    """As 1:02:03 or 2:03."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
