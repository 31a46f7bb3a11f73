"""Whatever rows, replies, labels, names and prompts hold, it is only text: on pages, as JSON, in Datasette's tables."""

import csv
import json
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from agent.ledger.store import Ledger, NewCandidate, NewRun
from agent.prompt.prompt_candidate import PromptCandidate
from agent.safe_text import plain
from agent.types import Message, Trial
from tests.cli.world import compatible, good_json
from tests.report.hostile import PAYLOADS
from tests.report.web_world import crawl, require_harmless, signed_in
from tests.toys import make_task
from tests.wire import WireServer

DB = Path("runs/ledger.db")
TABLES = ("runs", "candidates", "examples", "proposals", "trials", "outcomes", "calls", "blobs", "events", "prompts")
TOGETHER = [" | ".join(PAYLOADS[start : start + 12]) for start in range(0, len(PAYLOADS), 12)]


@pytest.fixture
def run_id(here: Path) -> str:
    """A real run whose rows, labels and replies are payloads, and beside it one whose every name is one."""
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
        result = good_json(*command, "--max-calls", "200", "--proposer", "none", "--tag", f"{PAYLOADS[1]}=x", "-q")
    everything_named()
    return str(result["run_id"])


def everything_named() -> None:
    """A run with payloads as task name, folder, model, tag, instruction, operator, reason and proposal."""
    ledger, first = Ledger(DB), TOGETHER[0]
    task = make_task(name=first, folder=first)
    ledger.begin_run(NewRun("named", task, TOGETHER[1], TOGETHER[2], 0, {}, {TOGETHER[3]: first}, options={"x": first}))
    for number, texts in enumerate(TOGETHER):
        candidate = PromptCandidate("zero-shot", "turns", texts, role=texts)
        layout = (Message("system", texts), Message("user", "{{message}}"))
        ledger.add_candidate("named", NewCandidate(0, candidate.shown(), layout, texts, None, texts))
        ledger.put_trial("named", Trial(number, 0, candidate.id, "pruned", 1, 0.5, (0.1, 0.9), texts))
    ledger.end_run("named", "failed", 1.0, {"kind": TOGETHER[-1]})
    ledger.close()


def as_shown(text: str) -> str:
    """What a page says for it, with single blanks."""
    return " ".join(plain(text).split())


async def test_payloads_stay_text_wherever_they_are_shown(run_id: str) -> None:
    assert len(set(PAYLOADS)) >= 200
    words, sources = [], []
    async with signed_in(DB) as (client, _):

        async def look(address: str, **params: str) -> None:
            reply = await client.get(address, params=params or None)
            assert reply.status_code == 200, (address, reply.text[:300])
            if page := require_harmless(reply):
                words.append(page.words)
            else:
                sources.append(json.dumps(reply.json()))

        await crawl(client, 2)
        for end in ("", ".json"):
            for number, texts in enumerate(TOGETHER):
                await look(f"/run/named/trial/{number}{end}")
                await look(f"/compare{end}", a=texts, b=texts)
                await look(f"/ledger{end}", sql="SELECT :said AS said", said=texts)
            for number in range(1, 6):
                await look(f"/run/{run_id}/trial/0{end}", page=str(number))
        for place, texts in enumerate(TOGETHER):
            others = (
                (f"/run/{run_id}", {"text": texts, "state": texts}),
                (f"/run/{run_id}/rate", {"rater": texts}),
                ("/ledger/runs", {"task__contains": texts}),
            )
            await look(others[place % 3][0], **others[place % 3][1])
        for table in TABLES:
            await look(f"/ledger/{table}", _size="100")
            await look(f"/ledger/{table}.json", _size="100")
            assert (await client.get(f"/ledger/{table}.csv")).status_code == 404
        await look("/ledger/blobs", _size="1000")
    shown, given = " ".join(words), " ".join(sources)
    assert [payload for payload in PAYLOADS if as_shown(payload) not in shown] == []
    assert [payload for payload in PAYLOADS if json.dumps(payload)[1:-1] not in given] == []
