"""The documentation as a site: the pages of the repository, staged and built.

    python -m docs.site            builds build/site, strictly: a broken link is an error

Pages are written to be read where they lie, as plain Markdown. On the site they lie in one
folder: `stage` copies them there and turns their links to what lies elsewhere in the
repository. A linked source file becomes a page of its own.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
STAGED, SITE = ROOT / "build" / "docs", ROOT / "build" / "site"
"""As `zensical.toml` has them."""
ELSEWHERE = {
    "clients/cpp/README.md": "cpp.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
"""Pages that lie outside docs/, by their name on the site."""
FOLDERS = {"clients/cpp": "cpp.md", "systemd": "systemd.md"}
"""What a link to a folder shows."""
COMMAND = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
"""Builds the site from the staged pages, in the folder of `zensical.toml`."""
LANGUAGES = {".py": "python", ".cpp": "cpp", ".hpp": "cpp", ".json": "json", ".yml": "yaml"}

_LINK = re.compile(r"(?<=\]\()([^)#\s:]+)(?=[)#])")
"""The file in an inline link: no address of the web, no anchor of the same page."""
_CODE = re.compile(r"^```.*?^```$|`[^`\n]+`", re.DOTALL | re.MULTILINE)


def pages() -> dict[str, str]:
    """Name on the site of every page, by its path in the repository."""
    own = sorted(DOCS.rglob("*.md"))
    return {str(p.relative_to(ROOT)): str(p.relative_to(DOCS)) for p in own} | ELSEWHERE


def stage(into: Path = STAGED) -> None:
    """Write the folder that the site is built from, anew.

    Raises:
        ValueError: a page links to what does not exist.
    """
    shutil.rmtree(into, ignore_errors=True)
    known = pages()
    sources: dict[str, str] = {}
    for path, name in known.items():
        _write(into / name, staged(path, name, known, sources))
    for path, name in sources.items():
        _write(into / name, _source_page(path))
    for picture in DOCS.glob("*.png"):
        shutil.copy(picture, into)
    shutil.copytree(DOCS / "assets", into / "assets")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def staged(path: str, name: str, known: dict[str, str], sources: dict[str, str]) -> str:
    """A page with its links as they are on the site.

    Args:
        path, name: of the page, in the repository and on the site.
        known: names of all pages by path.
        sources: of the source files that pages link to; those of this page are added.

    Raises:
        ValueError: the page links to what does not exist.
    """

    def link(match: re.Match[str]) -> str:
        target = os.path.normpath(Path(path).parent / match[0])
        if target.endswith(".png"):
            return match[0]
        if not (ROOT / target).exists():
            raise ValueError(f"{path} links to {match[0]}, which does not exist")
        if target not in known and target not in FOLDERS:
            sources[target] = f"source/{target}.md"
        found = known.get(target) or FOLDERS.get(target) or sources[target]
        return os.path.relpath(found, Path(name).parent)

    text, parts, end = (ROOT / path).read_text(), [], 0
    for code in _CODE.finditer(text):
        parts += [_LINK.sub(link, text[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*parts, _LINK.sub(link, text[end:])])


def _source_page(path: str) -> str:
    """A source file as a page, which the search leaves out."""
    language = LANGUAGES.get(Path(path).suffix, "text")
    code = (ROOT / path).read_text()
    return f"---\nsearch:\n  exclude: true\n---\n# {path}\n\n````{language}\n{code}````\n"


def build() -> int:
    """Stage and build; the builder's exit status."""
    stage()
    return subprocess.run(COMMAND, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(build())
