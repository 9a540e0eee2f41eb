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
    parts[::2] = [part.replace("*", r"\*") for part in parts[::2]]
    parts[1::2] = [part.replace("``", "`") for part in parts[1::2]]
    return "".join(parts)


def wrapped(text: str, first: str = "", rest: str = "") -> str:
    """Lines of `WIDTH`, none of which begins with an operator, which would make a list of it."""
    glued = re.sub(r" ([-+*=>]) ", rf"{_GLUE}\1 ", inline(text))
    glued = re.sub(r"\[[^\]`]{1,16}\]", lambda span: span[0].replace(" ", _GLUE), glued)
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
    return "\n".join(_item(part) for part in parts if part != "Ends: never.")


def _item(text: str) -> str:
    if not _ITEM.match(text):
        return wrapped(text)
    label, _, rest = text.partition(": ")
    return item(label, rest)


def item(label: str, text: str) -> str:
    """A list item that begins with a label in bold."""
    before = f"- **{label}:** "
    return before + wrapped(text, " " * len(before), "  ").lstrip()


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
