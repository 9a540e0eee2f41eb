"""Code blocks of the documentation, and the commands in them."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROGRAMS = ("adaptd", "simrobot", "metatrain")

_FENCE = re.compile(r'^```(\w+)(?: title="([^"\n]*)")?\n(.*?)^```$', re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    """Path in the repository."""
    line: int
    language: str
    title: str
    text: str

    @property
    def commands(self) -> list[str]:
        """Of a block of shell: each with the lines that it goes on in; without comments."""
        joined = re.sub(r"\\\n\s*", "", self.text)
        lines = (re.sub(r"(^|\s+)#.*$", "", line) for line in joined.splitlines())
        return [line for line in lines if line]


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = (ROOT / page).read_text()
    return [
        Block(page, text.count("\n", 0, found.start()) + 1, found[1], found[2] or "", found[3])
        for found in _FENCE.finditer(text)
    ]


def shell(page: str) -> list[Block]:
    """The blocks of commands that are meant to be run."""
    return [b for b in blocks(page) if b.language == "sh" and not b.title]


def titled(page: str) -> list[Block]:
    """The blocks of commands whose title says why nobody runs them in passing."""
    return [b for b in blocks(page) if b.language == "sh" and b.title]


def mentioned(page: str) -> list[str]:
    """What is said of our programs in running text, tables and indented lines."""
    text = _FENCE.sub("", (ROOT / page).read_text())
    spans = re.findall(r"`([^`\n]+)`", text)
    indented = re.findall(r"^    (\w.*?)(?:\s+#.*)?$", text, re.MULTILINE)
    return [code for code in (*spans, *indented) if code.split()[0] in PROGRAMS]
