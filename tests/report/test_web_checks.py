"""The page of a prompt's checks over time: what the ledger holds, who links to it, and nothing that runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.report.charts import over_time
from agent.report.checks import CheckPoint
from tests.cli.test_prompt_check import checked, flipping
from tests.cli.world import learner
from tests.report.conftest import Playable
from tests.report.pages import Page
from tests.report.web_world import require_harmless, signed_in
from tests.wire import WireServer

DB = Path("runs/ledger.db")


LINK = "/checks/rows"


@pytest.fixture
def two_checks(playable: Playable) -> list[dict[str, Any]]:
    """A check that passed and one that failed, of the version in production."""
    made = []
    for reply in (learner, flipping(2)):
        with WireServer(reply) as server:
            made.append(checked(server, f"rows@{playable.version}", "--repeats", "1")[1])
    assert [each["gate"] for each in made] == ["passed", "failed"]
    return made


async def test_checks_over_time_are_a_page_that_runs_and_versions_link_to(
    playable: Playable, two_checks: list[dict[str, Any]]
) -> None:
    async with signed_in(DB) as (client, _):
        data = (await client.get(f"{LINK}.json")).json()
        assert (data["name"], [each["gate"] for each in data["checks"]]) == ("rows", ["passed", "failed"])
        assert data["checks"][1]["score"] == two_checks[1]["score"]["now"]["mean"]
        reply = await client.get(LINK)
        page = require_harmless(reply)
        assert page is not None
        assert reply.text.count("<svg") == 1
        for check in two_checks:
            assert f"/run/{check['run_id']}" in page.links
            assert f"{check['flip_test']['flipped']} of {check['compared']}" in page.words
        for address in (
            f"/run/{playable.run_id}",
            f"/run/{two_checks[0]['run_id']}",
            f"/release/rows/{playable.version}",
        ):
            assert LINK in Page((await client.get(address)).text).links, address


def test_a_long_model_name_takes_no_room_from_the_plot_and_the_reference_is_that_of_each_check() -> None:
    model = "openai-compatible/" + "a_model_with_a_long_name" * 4 + "@http://127.0.0.1:8080/v1"
    times = [f"2026-11-{day}T08:00:00+00:00" for day in (10, 11, 12)]
    points = [
        CheckPoint(
            run_id="r",
            utc=time,
            name="rows",
            version="p_1",
            model=model,
            gate="passed",
            score=0.9,
            reference=reference,
            flipped=1,
            rows=30,
            p_value=0.5,
        )
        for time, reference in zip(times, (0.867, 0.867, 0.933), strict=True)
    ]
    figure = over_time(points)
    figure.draw_without_rendering()
    (axes,), (legend,) = figure.axes, figure.legends
    assert axes.get_position().width > 0.75
    assert axes.get_position().height > 0.4
    shown = legend.get_window_extent().transformed(figure.transFigure.inverted())
    assert 0 <= shown.x0 < shown.x1 <= 1
    assert axes.get_position().y1 < shown.y0 < shown.y1 <= 1
    assert "".join(legend.get_texts()[0].get_text().split()) == f"p_1on{model}"
    (dashed,) = [line for line in axes.lines if line.get_linestyle() == "--"]
    assert list(dashed.get_ydata()) == pytest.approx([86.7, 86.7, 93.3])  # type: ignore[arg-type]


async def test_without_a_check_there_is_no_page_and_no_link(playable: Playable) -> None:
    async with signed_in(DB) as (client, _):
        missing = await client.get(LINK)
        assert missing.status_code == 404
        assert "rows: no finished check of a prompt of this name" in Page(missing.text).words
        for address in (f"/run/{playable.run_id}", f"/release/rows/{playable.version}"):
            assert LINK not in Page((await client.get(address)).text).links
