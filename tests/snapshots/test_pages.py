"""Every page of `optimize ui` says, links to and asks for what its snapshot has.

After a change on purpose: `pytest tests/snapshots --update-snapshots`, and read the difference.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.release.runtime import load_prompt
from agent.report.web.app import ROUTES
from tests.cli.label_world import label_place
from tests.report.pages import Page
from tests.report.web_world import Browser, browsing
from tests.snapshots.keep import Snapshots
from tests.snapshots.normal import Words, page_text
from tests.snapshots.world import names_in, surroundings

RUN, RELEASE = "/run/{search}", "/release/rows/{version}"
PAGES = {
    "runs": "/runs",
    "run": RUN,
    "run-sorted": f"{RUN}?sort=tokens&order=up&state=complete&least=40.5",
    "run-kept": "/run/{kept}",
    "run-migrated": "/run/{migrated}",
    "run-interrupted": "/run/{interrupted}",
    "run-check": "/run/{passed}",
    "run-judge": "/run/{calibrated}",
    "run-customize": "/run/{customized}",
    "run-live": f"{RUN}/live.json",
    "report": f"{RUN}/report",
    "trial": f"{RUN}/trial/1?rows=unreadable",
    "trial-migrated": "/run/{migrated}/trial/0",
    "rows": f"{RUN}/rows?rows=won&text=parcel",
    "rows-migrated": "/run/{migrated}/rows",
    "rate": f"{RUN}/rate",
    "rate-answer": f"{RUN}/rate?rater=Ann",
    "rate-stopped": f"{RUN}/rate?rater=Ann&stopped=1",
    "play": "/play",
    "play-run": "/run/{first}/play?in.text=my+parcel",
    "play-release": f"{RELEASE}/play?text=parcel",
    "events": f"{RUN}/events?after=400",
    "compare": "/compare?a={search}:0&b={search}:1",
    "compare-runs": "/compare?pick={first}&pick={search}&pick={kept}",
    "compare-one": "/compare?a={search}",
    "audit": "/audit",
    "releases": "/releases?text=p_",
    "release": RELEASE,
    "aliases": "/aliases",
    "checks": "/checks/rows",
    "label": "/label",
    "label-row": "/label?labeller=Ann",
    "call": "/call/1?events=1",
}
FIELDS = ("action", "name", "value", "data-key", "data-live", "data-show", "data-url")


@pytest.fixture(scope="module")
def client(recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Browser, Words, dict[str, str]]]:
    folder = tmp_path_factory.mktemp("pages") / "world"
    shutil.copytree(recorded, folder)
    with surroundings(folder), browsing(labelling=label_place(Path("tasks/mails"))) as found:
        names = names_in(folder)
        yield found, Words(names, folder), {**names, "version": load_prompt("rows@production").version}


@pytest.mark.parametrize("name", PAGES)
def test_page(name: str, client: tuple[Browser, Words, dict[str, str]], snapshots: Snapshots) -> None:
    browser, words, names = client
    reply = browser.get(PAGES[name].format(**names))
    assert reply.status_code == 200, reply.text
    if not reply.headers["content-type"].startswith("text/html"):
        snapshots.check(f"pages/{name}.txt", words.json(reply.text))
        return
    page = Page(reply.text)
    fields = (
        " ".join(f"{key}={own[key]}" for key in FIELDS if own.get(key)) for tag, own in page.nodes if tag != "meta"
    )
    asked = "\n".join(dict.fromkeys(field for field in fields if field and "csrftoken" not in field))
    links = "\n".join(dict.fromkeys(page.links))
    snapshots.check(
        f"pages/{name}.txt", words.text(f"{page_text(reply.text)}--- links\n{links}\n--- fields\n{asked}\n")
    )


def test_every_route_has_a_snapshot(snapshots: Snapshots) -> None:
    snapshots.check_names("pages", {f"{name}.txt" for name in PAGES})
    shown = [address.partition("?")[0].removesuffix(".json") for address in PAGES.values()]
    for route in ROUTES[1:]:
        pattern = re.sub(r"\{\w+\}", "[^/]+", route.path)
        assert any(re.fullmatch(pattern, address) for address in shown), route.path
