"""The documentation as a site: whole, and asking nobody for anything while it is read."""

import functools
import http.server
import re
import shutil
import subprocess
import threading
import tomllib
from pathlib import Path

import pytest

from docs import site
from tests.browser import PROGRAM, Browser

needs_browser = pytest.mark.skipif(PROGRAM is None, reason="apt install chromium")
CONFIG = site.ROOT / "zensical.toml"
SHOWN = ["index.html", "operator.html", "protocol.html", "api/client.html"]
LOADED = "document.readyState == 'complete' && !!document.querySelector('h1')"
BROKEN_PICTURES = "[...document.images].filter(i => !i.naturalWidth).map(i => i.src)"
TOO_WIDE = "document.documentElement.scrollWidth > innerWidth"
DRAWN = (
    "!document.querySelector('pre.mermaid') &&"
    " [...document.querySelectorAll('div.mermaid')].every(d => d.offsetHeight > 100)"
)


def build(root: Path) -> tuple[int, str]:
    """What `make docs` does once the pages are staged: the status, and what is said."""
    done = subprocess.run(site.COMMAND, cwd=root, capture_output=True, text=True, timeout=300)
    return done.returncode, re.sub(r"\x1b\[[\d;]*m", "", done.stdout + done.stderr)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The built site's folder, of this process alone."""
    root = tmp_path_factory.mktemp("site")
    for needed in ("docs", "runtime", "sim", "training"):
        (root / needed).symlink_to(site.ROOT / needed)
    shutil.copy(CONFIG, root)  # the site is built where it is, not where a link is
    site.stage(root / site.STAGED.relative_to(site.ROOT))
    status, said = build(root)
    assert status == 0, said
    assert "griffe:" not in said, said  # a docstring that the API reference cannot read
    return root / site.SITE.relative_to(site.ROOT)


@pytest.fixture(scope="module")
def address(built):
    """Where the site is served."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(built))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def navigation() -> list[str]:
    """The pages that zensical.toml leads to."""

    def leaves(entry) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        inside = entry.values() if isinstance(entry, dict) else entry
        return [page for part in inside for page in leaves(part)]

    return leaves(tomllib.loads(CONFIG.read_text())["project"]["nav"])


def test_the_navigation_leads_to_every_page_once():
    there = set(site.pages().values())
    assert there - set(navigation()) == set(), "give each a line under nav in zensical.toml"
    assert set(navigation()) - there == set(), "zensical.toml names pages that are not there"
    assert len(navigation()) == len(set(navigation()))


def test_the_site_has_every_page(built):
    for page in navigation():
        assert "<h1" in (built / page).with_suffix(".html").read_text()


def test_no_page_shows_markdown(built):
    """A list that begins right below a paragraph is no list to the builder, say."""
    for page in built.rglob("*.html"):
        if "source" not in page.parts:
            text = re.sub(r"<(pre|code|script)\b.*?</\1>", "", page.read_text(), flags=re.DOTALL)
            assert not re.search(r"\n(- |\d\. |```)|\]\(|^#+ ", text), page


def test_whatever_is_fetched_while_reading_comes_from_the_site(built):
    for page in built.rglob("*.html"):
        for tag in re.findall(r"<(?:script|link|img|iframe)\b[^>]*>", page.read_text()):
            assert not re.search(r'(?:src|href)="(?:https?:)?//', tag), f"{page}: {tag}"


def test_a_broken_link_is_an_error(tmp_path):
    (tmp_path / "docs").symlink_to(site.DOCS)
    pages = "nav = ['here.md', 'there.md']\n"
    config = re.sub(r"^nav = \[.*?^\]\n", pages, CONFIG.read_text(), flags=re.DOTALL | re.MULTILINE)
    (tmp_path / CONFIG.name).write_text(config)
    staged = tmp_path / "build" / "docs"
    staged.mkdir(parents=True)
    (staged / "there.md").write_text("# There\n")
    (staged / "here.md").write_text("# Here\n\n[a](there.md#there)\n")
    assert build(tmp_path)[0] == 0
    (staged / "here.md").write_text("# Here\n\n[a](there.md#gone), [b](nowhere.md)\n")
    status, said = build(tmp_path)
    assert status != 0
    assert "there.md#gone" in said and "nowhere.md" in said


def test_a_link_to_what_the_repository_has_not_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "page.md").write_text("`[code](is.not)` but [gone](../nothing.py) is\n")
    monkeypatch.setattr(site, "ROOT", tmp_path)
    with pytest.raises(ValueError, match=r"page\.md links to \.\./nothing\.py, which does not"):
        site.staged("page.md", "page.md", {}, {})


def test_links_to_code_lead_to_a_page_of_it():
    sources: dict[str, str] = {}
    known = {"docs/bundle.md": "bundle.md"}
    text = site.staged("docs/families.md", "families.md", known | site.pages(), sources)
    assert "](source/sim/families/ant.py.md)" in text
    assert sources["sim/families/ant.py"] == "source/sim/families/ant.py.md"


def test_pictures_are_in_the_repository():
    listed = subprocess.run(
        ["git", "ls-files"], cwd=site.ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\n")
    for page in [*site.pages(), "README.md"]:
        for picture in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", (site.ROOT / page).read_text()):
            assert str(Path(page).parent / picture) in listed, f"{page}: {picture}"


@needs_browser
@pytest.mark.parametrize(("phone", "dark"), [(False, False), (True, True)])
def test_pages_are_fit_to_be_read(address, tmp_path, phone, dark):
    with Browser(tmp_path, dark=dark) as browser:
        if phone:
            browser.be_a_phone()
        for page in SHOWN:
            browser.open(address + page, f"{LOADED} && {DRAWN}")
            assert browser.run(BROKEN_PICTURES) == []
            assert not browser.run(TOO_WIDE), page
            scheme = browser.run("document.body.getAttribute('data-md-color-scheme')")
            assert scheme == ("slate" if dark else "default")
            picture = browser.screenshot(tmp_path / f"{page.replace('/', '-')}.png")
            assert picture.startswith(b"\x89PNG")
        assert browser.complaints == []
        assert [url for url in browser.requested if not url.startswith((address, "data:"))] == []


@needs_browser
def test_the_search_works_where_pages_open_from_a_disk(built, tmp_path):
    dialog = "[...document.body.children].find(e => e.shadowRoot)?.shadowRoot"
    with Browser(tmp_path) as browser:
        browser.open(built / "index.html", f"{LOADED} && !!{dialog}")
        browser.run("document.querySelector('.md-search__button').click()")
        browser.wait(f"{dialog}.activeElement?.tagName == 'INPUT'")
        browser.write("quarantine")
        browser.wait(f"{dialog}.textContent.includes('Policies come and go')")
        assert browser.complaints == []
