"""A run comes out the same from its stored replies, without a request, and what would not is named."""

import hashlib
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agent.errors import RowRefused, RunRefused
from agent.ledger.store import Ledger
from agent.types import Outcome, Prediction, Score, Trial
from tests.cli.world import files, good, good_json, learner, optimize, refused
from tests.conftest import Made
from tests.ledger.ledgers import read
from tests.scripted import Toys
from tests.wire import Reply, WireServer

DB = Path("runs/ledger.db")


def drifted(*arguments: str) -> list[str]:
    result = optimize("reproduce", *arguments, "--json")
    assert result.exit_code == 1
    answer = json.loads(result.stdout)
    assert answer["same"] is False
    assert answer["requests"] == 0
    lines = answer["drift"]
    assert isinstance(lines, list)
    return lines


def test_a_run_comes_out_the_same_without_its_model_and_the_ledger_stays_as_it_is(two_runs: Made) -> None:
    before = {path: path.read_bytes() for path in Path("runs").rglob("*") if path.is_file()}
    for result in two_runs:
        answer = good_json("reproduce", result["run_id"], "--offline")
        assert answer["same"] is True
        assert answer["drift"] == []
        assert answer["requests"] == 0
        run = result["run_id"]
        assert answer["trials"] == read(DB, "SELECT COUNT(*) FROM trials WHERE run_id = ?", run)[0][0]
        assert answer["outcomes"] == read(DB, "SELECT COUNT(*) FROM outcomes WHERE run_id = ?", run)[0][0]
    assert good("reproduce").startswith(f"{two_runs[1]['run_id']}: the same: ")
    after = {path: path.read_bytes() for path in Path("runs").rglob("*") if path.is_file()}
    assert {path: after[path] for path in before} == before
    assert {path.suffix for path in after.keys() - before.keys()} <= {".db-shm", ".db-wal"}


def flaky(messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
    """Refuses some rows for good."""
    if hashlib.sha256(messages[-1]["content"].encode()).hexdigest()[0] == "0":
        raise RowRefused("too long")
    return learner(messages, body)


def wordy(messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
    """With examples it says far more to a row in 16 than it was let, and is paid for it: no plan expects that."""
    said = learner(messages, body)
    rare = hashlib.sha256(messages[-1]["content"].encode()).digest()[0] % 16 == 0
    return said + " well" * 6000 if rare and any(m["role"] == "assistant" for m in messages) else said


@pytest.mark.parametrize(
    ("answer", "options", "status"),
    [
        (flaky, ["--max-calls", "300"], "complete"),
        (wordy, ["--max-calls", "600", "--max-tokens", "70000", "-j", "3"], "budget"),
        (wordy, ["--max-cost", "0.07"], "budget"),
    ],
    ids=["refused rows", "ended by tokens", "ended by dollars"],
)
def test_every_kind_of_run_comes_out_the_same(answer: Reply, options: list[str], status: str, toys: Toys) -> None:
    model = toys(answer)
    command = [*files(200), "-m", model.name, "--price", "1,2", "-q", *options]
    assert good_json(*command)["status"] == status
    good(*command)  # mostly from the ledger, where it is not told otherwise
    sent = len(model.seen)
    for run in good_json("runs")["runs"]:
        assert good_json("reproduce", run["id"])["same"] is True
    assert len(model.seen) == sent


def test_a_run_at_an_address_of_the_environment_is_reproduced_and_exported_from_its_own_calls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "secret-0123456789")
    with WireServer(learner) as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.root)
        result = good_json(*files(200), "-m", "anthropic/m", "--price", "1,2", "-q", "--max-calls", "200")
    assert good_json("reproduce")["same"] is True
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:9")
    assert "offline: this reply is not in the ledger" in "".join(drifted())
    monkeypatch.delenv("ANTHROPIC_BASE_URL")
    told = optimize("export", result["run_id"], "--format", "python", "-o", "prompt.py", "--strict")
    assert told.exit_code == 0
    assert "dev rows rendered" in told.stderr


def test_a_run_that_was_stopped_and_resumed_comes_out_the_same(toys: Toys) -> None:
    def key_expires(messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
        if len(model.bodies) > 90:
            raise RunRefused("expired")
        return learner(messages, body)

    model = toys(key_expires)
    assert optimize(*files(120), "-m", model.name, "--max-calls", "300", "-j", "4", "-q").exit_code == 1
    model.reply = learner
    assert good_json("resume", "-q")["status"] == "complete"
    assert good_json("reproduce")["same"] is True
    assert good_json("audit", "check")["holds"] is True


def test_what_was_recorded_otherwise_is_drift(two_runs: Made) -> None:
    second, first = two_runs  # the shorter one is made again in each case
    run_id, whole = first["run_id"], DB.read_bytes()
    row = "SELECT candidate_id, example_id, value, call_key FROM outcomes WHERE run_id = ? AND split = 'test' LIMIT 1"
    candidate, example, value, key = read(DB, row, run_id)[0]
    made = Prediction({"label": "billing"}, "billing")
    with closing(Ledger(DB)) as ledger:
        ledger.put_outcome(
            run_id, "test", Outcome(candidate, example, made, (Score("choice", 1 - value),), 1 - value, key)
        )
    assert drifted(run_id) == [f"test row {example} of {candidate} is {value}, it was {1 - value}"]
    assert ": 1 thing drifted: " in optimize("reproduce", run_id).stdout

    DB.write_bytes(whole)
    tried = read(DB, "SELECT candidate_id FROM trials WHERE run_id = ? AND number = 2", run_id)[0][0]
    changed = {**first, "decision": "keep_baseline", "seconds": 0.0, "cost_usd": 0.0}
    with closing(Ledger(DB)) as ledger:
        ledger.put_trial(run_id, Trial(2, 1, tried, "complete", 3, 0.25, None, "made up"))
        ledger.put_trial(run_id, Trial(99, 1, tried, "complete", 3, 0.25, None, "made up"))
        ledger.end_run(run_id, "complete", 1.0, changed)
    trial, *others = drifted(run_id)
    assert trial.startswith("trial 2 is ")
    assert others == ["trial 99 did not come again", "result.decision is promote, it was keep_baseline"]

    DB.write_bytes(whole)
    worded = {**first, "search_ended": "it ended", "preflight": {**first["preflight"], "why": "in other words"}}
    assert first["preflight"]["why"]
    with closing(Ledger(DB)) as ledger:
        ledger.end_run(run_id, "complete", 1.0, worded)
    assert drifted(run_id) == ["result.search_ended is False, it was True"]

    DB.write_bytes(whole)
    reply = "SELECT k.response_hash FROM calls k JOIN outcomes o ON o.call_key = k.call_key WHERE k.run_id = ? "
    (digest,) = read(DB, f"{reply} AND o.split = 'test' AND k.state = 'ok' LIMIT 1", run_id)[0]
    with closing(Ledger(DB)) as ledger:
        ledger.erase([digest], "ann", "asked")
    lines = drifted(run_id)
    assert lines[0] == "it stopped: offline: this reply is not in the ledger"
    assert any(line.endswith("did not come again") for line in lines)

    DB.write_bytes(whole)
    Path(first["release"]).write_bytes(Path(second["release"]).read_bytes())
    (line,) = drifted(run_id)
    assert line.startswith("the released prompt is p_")
    Path(first["release"]).unlink()
    assert good_json("reproduce", run_id)["same"] is True


def test_a_run_whose_rows_changed_is_refused(two_runs: Made) -> None:
    first, _ = two_runs
    Path("rows.csv").write_text(Path("rows.csv").read_text().replace("invoice", "bill"))
    run = f"error: {first['run_id']}: "
    fix = "error: put it back to reproduce it"
    assert refused(2, "reproduce", first["run_id"]) == [f"{run}rows.csv changed", fix]
    Path("p.txt").write_text("Say where it goes.")
    told = [f"{run}p.txt (or how rows.csv is read) changed", f"{run}rows.csv changed", fix]
    assert refused(2, "reproduce", first["run_id"]) == told
    Path("rows.csv").unlink()
    assert len(refused(2, "reproduce", first["run_id"])) == 1


def test_a_run_without_a_result_is_refused(two_runs: Made) -> None:
    run_id = two_runs[0]["run_id"]
    with closing(Ledger(DB)) as ledger:
        ledger.erase([read(DB, "SELECT result_hash FROM runs WHERE id = ?", run_id)[0][0]], "ann", "asked")
    for name in (run_id, "no-run"):
        assert len(refused(2, "reproduce", name)) == 1
