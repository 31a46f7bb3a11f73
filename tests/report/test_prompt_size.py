"""A reader meets one figure for the size of a prompt, on every surface of a run."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from agent.evaluate.evaluator import Evaluator
from agent.release.result import RunResult
from agent.report import findings
from tests.cli.world import compatible, files, good, good_json, learner
from tests.conftest import Made
from tests.report.pages import Page
from tests.report.test_web import DB
from tests.report.web_world import signed_in
from tests.wire import WireServer

SAID = re.compile(r"(?:[Aa]bout )?[\d,]+ (?:prompt tokens|tokens a call)")
FRONT = "The Pareto front: nothing beats these in score, prompt length and cost"


def said_of_size(html: str) -> set[str]:
    """The sizes that a page or screen gives, charts left out."""
    shown = Page(re.sub("<svg.*?</svg>", "", html, flags=re.DOTALL)).text
    return {found.replace("About", "about") for found in SAID.findall(" ".join(shown.split()))}


async def surfaces(run_id: str) -> dict[str, set[str]]:
    """The sizes that a reader meets in a run, by surface."""
    await asyncio.to_thread(good, "report", run_id, "-o", "page.html")
    screen = await asyncio.to_thread(good, "show", run_id)
    found = {"screen": set(SAID.findall(screen)), "report": said_of_size(Path("page.html").read_text("utf-8"))}
    async with signed_in(DB) as (client, _):
        pages = {at: (await client.get(at)).text for at in (f"/run/{run_id}", f"/run/{run_id}/report")}
    return found | {at: said_of_size(html) for at, html in pages.items()}


@pytest.mark.parametrize("number", [0, 1])
async def test_screen_report_browser_and_json_give_one_figure(two_runs: Made, number: int) -> None:
    run_id = two_runs[number]["run_id"]
    result = (await asyncio.to_thread(good_json, "show", run_id))["result"]
    measured = result["winner"]["tokens_a_call"]
    assert measured != result["winner"]["prompt_tokens"]
    assert (result["change"] or {"winner": result["winner"]})["winner"]["tokens_a_call"] == measured
    (chosen,) = [row for row in result["pareto"] if row["chosen"]]
    assert chosen["tokens_a_call"] == measured
    for surface, sizes in (await surfaces(run_id)).items():
        assert sizes == {f"{measured:,} tokens a call"}, surface
    front = Page(Path("page.html").read_text("utf-8")).tables[FRONT]
    place = front[0].index("tokens a call")
    assert [line[place] for line in front[1:]] == [f"{row['tokens_a_call']:,}" for row in result["pareto"]]


async def test_where_no_call_was_measured_all_say_that_it_is_an_estimate(here: Path) -> None:
    with WireServer(learner) as server, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Evaluator, "tokens_a_call", lambda self, candidate_id: 0)
        command = [*files(120), "-m", compatible(server), "--max-calls", "300", "--proposer", "none", "-q"]
        result = await asyncio.to_thread(good_json, *command)
    assert [each["tokens_a_call"] for each in (result["winner"], result["pareto"][0])] == [0, 0]
    said = f"about {result['winner']['prompt_tokens']:,} prompt tokens"
    for surface, sizes in (await surfaces(result["run_id"])).items():
        assert sizes == {said}, surface
    assert Page(Path("page.html").read_text("utf-8")).tables[FRONT][0].count("prompt tokens, about") == 1


def test_a_result_of_an_older_version_has_its_measured_figure_in_what_changed(two_runs: Made) -> None:
    told: dict[str, Any] = two_runs[0]
    measured = told["winner"].pop("tokens_a_call")
    assert findings.prompt_size(RunResult.from_json(told)) == f"{measured:,} tokens a call"
