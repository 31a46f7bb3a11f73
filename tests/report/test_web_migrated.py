"""The pages of a migration name the released prompt, and not one of the reader's, where it is compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.cli.world import compatible, good_json, learner
from tests.conftest import Made
from tests.report.pages import Page
from tests.report.web_world import require_harmless, signed_in
from tests.wire import WireServer

DB = Path("runs/ledger.db")


@pytest.fixture
def migrated(two_runs: Made) -> dict[str, Any]:
    with WireServer(learner) as server:
        return good_json(
            "migrate", two_runs[0]["run_id"], "--model", compatible(server), "--price", "0,0", "-q", "--margin", "10"
        )


async def test_trials_rows_and_changes_name_the_released_prompt(migrated: dict[str, Any], two_runs: Made) -> None:
    here = f"/run/{migrated['run_id']}"
    async with signed_in(DB) as (client, _):
        run = (await client.get(f"{here}.json")).json()
        own = next(trial for trial in run["board"]["trials"] if trial["number"] == 0)
        assert own["which"].startswith("released prompt")
        assert run["prompts"][-1]["title"] == "Released prompt in full"
        rows = (await client.get(f"{here}/rows.json")).json()
        assert rows["names"] == {"baseline": "old model", "winner": "new model"}
        for address in (here, f"{here}/trial/1", f"{here}/rows", f"{here}/report"):
            page = require_harmless(await client.get(address))
            assert page is not None
            assert "your prompt" not in page.words.casefold().partition("your prompt, or baseline")[0], address
        before = (await client.get(f"/run/{two_runs[0]['run_id']}.json")).json()
        first = next(trial for trial in before["board"]["trials"] if trial["number"] == 0)
        assert first["which"].startswith("your prompt")
        assert "your prompt" in Page((await client.get(f"/run/{two_runs[0]['run_id']}/rows")).text).words
