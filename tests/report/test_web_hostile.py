"""Whatever rows, replies, labels, names and prompts hold, it is only text: on pages, as JSON, in Datasette's tables."""

import csv
import json
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from agent.ledger.store import Ledger
from agent.types import Candidate, Message, Trial
from tests.cli.world import compatible, good_json
from tests.report.web_payloads import PAYLOADS
from tests.report.web_world import CONTROL, crawl, require_harmless, signed_in
from tests.toys import make_task
from tests.wire import WireServer

DB = Path("runs/ledger.db")
TABLES = ("runs", "candidates", "demos", "proposals", "trials", "outcomes", "calls", "blobs", "events", "prompts")


@pytest.fixture
def run_id(here: Path) -> str:
    """A real run whose rows, labels and replies are payloads, and after it a run named after each."""
    with Path("rows.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "text", "label"])
        for number, payload in enumerate(PAYLOADS):
            table.writerow([f"r{number}{payload[:40]}", payload, PAYLOADS[-1 - number]])
    Path("p.txt").write_text(f"Answer well. {PAYLOADS[0]} {PAYLOADS[-1]}", "utf-8")
    turn = count()

    def reply(messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
        return PAYLOADS[next(turn) % len(PAYLOADS)]

    with WireServer(reply) as server:
        command = ["run", "rows.csv", "--target", "label", "--prompt", "p.txt", "-m", compatible(server), "--anyway"]
        result = good_json(*command, "--max-calls", "500", "--proposer", "none", "--tag", f"{PAYLOADS[1]}=x", "-q")
    runs_named(PAYLOADS)
    return str(result["run_id"])


def runs_named(payloads: tuple[str, ...]) -> None:
    """A run for each payload, by the program's writer: as task name, model, tag, instruction, operator and reason."""
    ledger = Ledger(DB)
    for number, payload in enumerate(payloads):
        task = make_task(name=payload, folder=payload)
        ledger.begin_run(
            f"named-{number:03}", task, payload, payload, 0, {}, {payload: payload}, options={"x": payload}
        )
        candidate = Candidate("zero-shot", "turns", payload, role=payload)
        layout = (Message("system", payload), Message("user", "{{message}}"))
        ledger.add_candidate(f"named-{number:03}", 0, candidate, layout, payload, None, payload, "")
        ledger.put_trial(f"named-{number:03}", Trial(0, 0, candidate.id, "pruned", 1, 0.5, (0.1, 0.9), payload))
        ledger.end_run(f"named-{number:03}", "failed", 1.0)
    ledger.close()


async def test_payloads_stay_text_wherever_they_are_shown(run_id: str) -> None:
    assert len(set(PAYLOADS)) >= 200
    async with signed_in(DB) as (client, _):
        found = await crawl(client, 6)
        texts = []
        for number in range(len(PAYLOADS)):
            for address in (
                f"/run/named-{number:03}",
                f"/run/named-{number:03}/trial/0",
                f"/run/named-{number:03}.json",
            ):
                reply = await client.get(address)
                assert reply.status_code == 200
                page = require_harmless(reply)
                texts.append(page.text if page else json.dumps(reply.json()))
        for table in TABLES:
            for address in (f"/ledger/{table}?_size=1000", f"/ledger/{table}.json?_size=1000&_shape=array&_nl=on"):
                reply = await client.get(address)
                assert reply.status_code == 200
                require_harmless(reply)
            assert (await client.get(f"/ledger/{table}.csv")).status_code == 404
        said = "SELECT :said AS said, body FROM blobs WHERE instr(body, :said) LIMIT 5"
        for number, payload in enumerate(PAYLOADS):
            addresses = (
                ("/compare", {"a": payload, "b": payload}),
                (f"/run/{run_id}", {"text": payload, "state": payload}),
                (f"/run/{run_id}/rate", {"rater": payload}),
                ("/ledger/runs", {"task__contains": payload}),
                ("/ledger.json", {"sql": said, "said": payload}),
            )
            for address, words in (("/ledger", {"sql": said, "said": payload}), addresses[number % len(addresses)]):
                reply = await client.get(address, params=words)
                assert reply.status_code == 200
                require_harmless(reply)
        for end in ("", ".json"):
            for page_number in range(1, 6):
                reply = await client.get(f"/run/{run_id}/trial/0{end}?page={page_number}")
                require_harmless(reply)
                found[f"{page_number}{end}"] = reply
    shown = " ".join(texts)
    for number in range(len(PAYLOADS)):
        assert str(1000 + number % 36 * 10 + number // 36) in shown  # the number of each payload is there to be read
    assert any("\\x1b" in reply.text for reply in found.values())
    assert any(CONTROL.search(payload) for payload in PAYLOADS)
