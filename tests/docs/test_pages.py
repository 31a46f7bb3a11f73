"""README and manual hold together: size, links, pages of the site, hosts, and what is made out of the code."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, MANUAL, NAMES, PAGES, ROOT, prose
from tests.docs.reference import PAGES as MADE

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.M)
HOST = re.compile(r"https?://([^/\s`\"')>]+)")
HOSTS = {
    "127.0.0.1:8080": "a server of the reader's own",
    "host:port": "a server of the reader's own",
    "localhost:4318": "a receiver of spans of the reader's own",
    "datasette.io": "what `optimize ui` is made with",
}
EACH = pytest.mark.parametrize("page", PAGES, ids=NAMES)


def anchors(page: Path) -> set[str]:
    """What a heading is called in an address, by the rules of GitHub and Zensical."""
    return {re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-") for title in HEADING.findall(prose(page))}


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_bytes()) <= 7000


@EACH
def test_every_link_leads_to_a_file_and_a_heading_and_no_other_host_is_named(page: Path) -> None:
    assert set(HOST.findall(page.read_text("utf-8"))) <= set(HOSTS)
    for link in LINK.findall(prose(page)):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link
        inside = DOCS in page.parents
        assert not inside or DOCS in target.parents, f"{link} leads out of the site"


def test_each_page_of_the_manual_is_in_the_navigation_once() -> None:
    project = tomllib.loads((ROOT / "zensical.toml").read_text("utf-8"))["project"]
    named = [page for part in project["nav"] for pages in part.values() for page in pages]
    assert sorted(named) == sorted(path.relative_to(DOCS).as_posix() for path in MANUAL)
    assert project["theme"]["font"] is False, "fonts come from another host"


@pytest.mark.parametrize("name", MADE)
def test_what_is_made_out_of_the_code_is_up_to_date(name: str) -> None:
    assert (DOCS / name).read_text("utf-8") == MADE[name](), f"docs/{name}: run `make docs-reference`"


def test_no_schema_is_left_of_a_command_that_is_gone() -> None:
    assert {f"schemas/{path.name}" for path in (DOCS / "schemas").iterdir()} <= set(MADE)


@pytest.mark.parametrize("name", ["development/index.md", "extend.md"])
def test_every_file_of_the_code_that_is_named_is_there(name: str) -> None:
    text = (DOCS / name).read_text("utf-8")
    for path in re.findall(r"`([\w/]+\.py|[\w/]+/)`", text):
        places = [ROOT / path, ROOT / "agent" / path]
        alone = "/" not in path and list((ROOT / "agent").rglob(path))
        assert alone or any(place.exists() for place in places), f"docs/{name} names {path}"
