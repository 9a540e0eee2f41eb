"""Docstrings and tables as Markdown."""

import re
from collections.abc import Iterable, Sequence
from textwrap import fill

WIDTH = 118
LABELS = ("Source", "Body", "Task", "Observation", "Action", "Start", "Reward", "Ends", "Differs")
"""With these and a colon a line of a family's docstring begins a list item."""

_ITEM = re.compile(rf"({'|'.join(LABELS)}): ")
_GLUE = "\x01"  # a space at which no line is broken
_CODE = re.compile(r"(`+[^`]+`+)")


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; a bar inside a cell stays a bar."""
    lines = [list(header), ["---"] * len(header), *map(list, rows)]
    cells = [[cell.replace("|", r"\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def prose(text: str) -> str:
    """A docstring, whose blocks are paragraphs, items that begin with `LABELS`, or tables."""
    blocks = (block.splitlines() for block in re.split(r"\n\s*\n", text.strip("\n")))
    return "\n\n".join(_table(b) if set(b[0]) == {"=", " "} else _paragraph(b) for b in blocks)


def inline(text: str) -> str:
    """Plain text with code in it: formulas without accidental emphasis, code in single ticks."""
    text = text.replace("^2", "²").replace("|_1", "|₁")
    parts = _CODE.split(text)
    return "".join(
        part.replace("``", "`") if i % 2 else part.replace("*", r"\*") for i, part in enumerate(parts)
    )


def wrapped(text: str, first: str = "", rest: str = "") -> str:
    """Lines of `WIDTH`, none of which begins with an operator, which would make a list of it."""
    glued = re.sub(r" ([-+*=>]) ", rf"{_GLUE}\1 ", inline(text))
    lines = fill(
        glued,
        WIDTH,
        initial_indent=first,
        subsequent_indent=rest,
        break_on_hyphens=False,
        break_long_words=False,
    )
    return lines.replace(_GLUE, " ")


def _paragraph(lines: Sequence[str]) -> str:
    parts: list[str] = []
    for line in lines:
        if not parts or _ITEM.match(line):
            parts.append(line.strip())
        else:
            parts[-1] += " " + line.strip()
    items = [_ITEM.sub(r"**\1.** ", p, count=1) if _ITEM.match(p) else p for p in parts]
    return "\n".join(_item(item) for item in items)


def _item(text: str) -> str:
    label, bold, rest = text.partition(".** ")
    if not bold:
        return wrapped(text)
    lines = wrapped(rest, " " * (len(label + bold) + 2), "  ")
    return f"- {label}{bold}{lines.lstrip()}"


def _table(lines: Sequence[str]) -> str:
    """reStructuredText's simple table: columns are where the rules are."""
    spans = [match.span() for match in re.finditer("=+", lines[0])]
    ends = [start for start, _ in spans[1:]] + [None]
    rows = [
        [inline(line[start:end].strip()) for (start, _), end in zip(spans, ends, strict=True)]
        for line in lines
        if set(line) != {"=", " "}
    ]
    header, *body = rows
    return table(header, [[f"`{row[0]}`", *row[1:]] for row in body])
