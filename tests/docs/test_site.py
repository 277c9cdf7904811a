"""The documentation site builds, has no broken links, and requests nothing from other hosts."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from ruamel.yaml import YAML

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))
# Attributes that a browser fetches by itself; an `<a href>` waits for a click.
FETCHED = {("link", "href"), ("use", "href"), ("image", "href"), ("object", "data")}


class Page(HTMLParser):
    """What a built page links to, what it loads, and the anchors it has."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("id", "name") and value:
                self.anchors.add(value)
            elif name == "src" or (tag, name) in FETCHED:
                self.loaded.append(value or "")
            elif (tag, name) == ("a", "href"):
                self.links.append(value or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built in strict mode as `make docs` does it."""
    place = tmp_path_factory.mktemp("site")
    shutil.copy(ROOT / "mkdocs.yml", place)
    shutil.copytree(DOCS, place / "docs")
    built = subprocess.run(
        [Path(sys.executable).with_name("zensical"), "build", "--strict"],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return place / "site"


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in sorted(site.rglob("*.html")) if path.name != "404.html"}


def test_every_page_is_built(site: Path, pages: dict[Path, Page]) -> None:
    assert {str(path.relative_to(site).with_suffix(".md")) for path in pages} == set(PAGES)


def test_every_page_is_in_the_navigation_once() -> None:
    def leaves(entry: object) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        parts = entry.values() if isinstance(entry, dict) else entry
        return [leaf for part in parts for leaf in leaves(part)]  # type: ignore[attr-defined]

    navigation = leaves(YAML(typ="safe").load(ROOT / "mkdocs.yml")["nav"])
    assert sorted(navigation) == PAGES


def test_every_internal_link_and_anchor_exists(site: Path, pages: dict[Path, Page]) -> None:
    broken = []
    for path, page in pages.items():
        for link in page.links + page.loaded:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            anchors = pages[target].anchors if target in pages else set()
            if not target.is_file() or (parts.fragment and unquote(parts.fragment) not in anchors | {"__top"}):
                broken.append(f"{path.relative_to(site)}: {link}")
    assert broken == []


def test_every_external_link_is_well_formed(pages: dict[Path, Page]) -> None:
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                assert parts.scheme in ("https", "http", "mailto"), f"{path.name}: {link}"
                assert parts.scheme == "mailto" or re.fullmatch(r"[\w.-]+(:\d+)?", parts.netloc), f"{path.name}: {link}"


def test_the_site_requests_nothing_from_another_host(site: Path, pages: dict[Path, Page]) -> None:
    outside = re.compile(r"^(https?:)?//")
    for path, page in pages.items():
        assert not [url for url in page.loaded if outside.match(url)], path
    for style in site.rglob("*.css"):
        assert not re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", style.read_text(encoding="utf-8")), style
    # The theme loads these from a content delivery network, when a page has such an element.
    for path in pages:
        assert not re.search(r'class="(?:mermaid|glightbox|arithmatex)', path.read_text(encoding="utf-8")), path
