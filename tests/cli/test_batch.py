"""`--batch` and `optimize batch` over a real server: the same winner at a lower price, and back after a kill."""

from __future__ import annotations

import signal
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.gateway import batch_course, batches
from tests.batch.provider import BATCHES, BatchProvider
from tests.cli.judges import PlantedJudge
from tests.cli.test_interrupt import told, trials
from tests.cli.world import compatible, files, good, good_json, learner, optimize, refused
from tests.warm import start, wait_until
from tests.wire import Fault, Reply, Seen, WireServer

SHORT = "from agent.gateway import batch_course as c, batches as b; c.FIRST_WAIT, b.QUIET_SECONDS = 0.02, 0.1"

PRICED = ("--price", "1,2", "-q")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "QUIET_SECONDS", 0.1)
    monkeypatch.setattr(batch_course, "FIRST_WAIT", 0.02)


@contextmanager
def serving(reply: Reply = learner, **how: Any) -> Iterator[tuple[WireServer, BatchProvider]]:
    provider = BatchProvider(reply, **how)
    with WireServer(reply, other=provider) as server:
        yield server, provider


def words(server: WireServer, *more: str) -> list[str]:
    run = [*files(120), "-m", compatible(server), "--price", "1,2", "--max-cost", "5", "--max-calls", "240"]
    return [*run, "--proposer", "none", "-q", *more]


def calls(db: str = "runs/ledger.db") -> list[dict[str, Any]]:
    with sqlite3.connect(f"file:{db}?mode=ro", uri=True) as found:
        found.row_factory = sqlite3.Row
        return [dict(row) for row in found.execute("SELECT * FROM calls ORDER BY id")]


def live_price(call: dict[str, Any]) -> float:
    return float(call["prompt_tokens"] + 2 * call["completion_tokens"]) / 1e6


def alike(result: dict[str, Any]) -> dict[str, Any]:
    """What a batch may not change of a result: all but what it cost, and how long it took."""
    left_out = ("cost_usd", "calls", "ledger")
    return {key: value for key, value in told(result).items() if key not in left_out}


def test_a_run_with_batches_ends_as_one_without_at_half_the_price_of_what_went_so() -> None:
    """The same winner, trials and numbers. Live stay the steps of the search, which hang on what came before."""
    with serving() as (server, provider):
        live = good_json(*words(server, "--db", "runs/live.db"))
        asked = len(server.requests)
        result = good_json(*words(server, "--batch"))
        batched = sum(len(job.rows) for job in provider.jobs.values())
        assert len(server.requests) == 2 * asked - batched
    assert alike(result) == alike(live)
    assert [trial[1:5] for trial in trials()] == [trial[1:5] for trial in trials("runs/live.db")]
    assert len(provider.jobs) == 3  # the baseline, the first rungs, the sealed test
    assert set(provider.asked.values()) == {1}
    in_batches = [call for call in calls() if call["latency_s"] is None]
    assert len(in_batches) == batched
    for call in calls():
        part = 0.5 if call["latency_s"] is None else 1.0
        assert call["cost_usd"] == pytest.approx(part * live_price(call))
    assert result["cost_usd"] == pytest.approx(sum(call["cost_usd"] for call in calls()))
    assert result["cost_usd"] < live["cost_usd"]
    assert good_json("audit", "check", result["run_id"])["holds"]
    assert good_json("reproduce", result["run_id"])["same"]
    good("audit", "verify")
    assert good_json("batch", "list") == {"batches": []}
    ended = good_json("batch", "list", result["run_id"], "--all")["batches"]
    assert [(each["state"], each["is_open"]) for each in ended] == [("completed", False)] * 3
    assert sum(each["calls"] for each in ended) == batched


@pytest.mark.parametrize("moment", ["submitted", "under way"])
@pytest.mark.long
def test_a_killed_run_finds_its_batch_again_and_ends_as_undisturbed(moment: str) -> None:
    with serving() as (server, provider):
        undisturbed = good_json(*words(server, "--batch", "--db", "runs/whole.db"))
        provider.jobs.clear()
        hangs = ("POST", BATCHES) if moment == "submitted" else ("GET", f"{BATCHES}/batch_1")

        def disturb(seen: Seen) -> Fault | None:
            if (seen.method, seen.path) != hangs:
                return None
            if seen.method == "POST":
                provider.answer(seen)
            return Fault(delay=120)

        provider.disturb, before = disturb, provider.seen.count(hangs)
        process = start(*words(server, "--batch"), before=SHORT)
        wait_until(lambda: provider.seen.count(hangs) > before)
        process.kill()
        process.communicate()
        (left,) = good_json("batch", "list")["batches"]
        assert (left["state"], left["job"]) == (("intended", "") if moment == "submitted" else ("submitted", "batch_1"))
        provider.disturb = lambda seen: None
        result = good_json("resume", "-q")
        assert set(provider.asked.values()) == {1}
    assert alike(result) == alike(undisturbed)
    assert result["cost_usd"] == pytest.approx(undisturbed["cost_usd"])
    assert Counter(call["state"] for call in calls())["unknown"] == 0
    assert good_json("audit", "check", result["run_id"])["holds"]


def test_ctrl_c_leaves_the_batch_and_says_how_to_come_back_and_how_to_end_it() -> None:
    with serving(course=("in_progress",)) as (server, provider):
        process = start(*words(server, "--batch"), before=SHORT)
        wait_until(lambda: ("GET", f"{BATCHES}/batch_1") in provider.seen)
        process.send_signal(signal.SIGINT)
        _, lines = process.communicate(timeout=120)
        assert process.returncode == 130
        (run,) = good_json("runs")["runs"]
        assert (
            f"1 batch goes on at the provider (batch_1): `optimize resume {run['id']}` takes what comes, "
            f"`optimize batch cancel {run['id']}` ends it" in lines
        )
        assert lines.splitlines()[-1] == f"optimize resume {run['id']}"
        assert ("POST", f"{BATCHES}/batch_1/cancel") not in provider.seen
        ended = refused(1, "resume", "-q", "--batch-wait", "0.2")
        assert any("has not ended within 0.2 seconds" in line for line in ended)
        assert ended[-1] == f"optimize resume {run['id']}"
        shown = good("batch", "list")
        assert "batch_1" in shown
        assert "submitted" in shown
        provider.disturb = lambda seen: Fault(403) if seen.path.endswith("/cancel") else None
        refusal = optimize("batch", "cancel", run["id"])
        assert refusal.exit_code == 1
        assert "(batch_1): not cancelled: " in refusal.stdout
        provider.disturb = lambda seen: None
        cancelled = good_json("batch", "cancel", run["id"])["cancelled"]
        assert [(each["job"], each["status"]) for each in cancelled] == [("batch_1", "cancelled")]
        provider.course = ("completed",)
        result = good_json("resume", "-q")  # a third of its rows was answered by then
        taken = [call for call in calls() if call["latency_s"] is None]
        assert len(taken) >= len(provider.jobs["batch_1"].rows) // 3
        assert set(provider.asked.values()) == {1}
    assert good_json("audit", "check", result["run_id"])["holds"]


# -- what cannot go as a batch ----------------------------------------------------------------------------------------


def test_a_model_without_a_batch_api_is_refused_before_anything_is_asked() -> None:
    *_, line = refused(2, *files(120), "-m", "local/smollm2-135m", "--batch")
    assert "--batch: local/smollm2-135m: no batch API" in line
    assert not Path("runs").exists()


def test_a_server_without_a_batch_api_is_refused_before_a_run_is_made() -> None:
    with WireServer(learner) as server:
        (line,) = refused(2, *words(server, "--batch"))
        assert "the server has no batch API (HTTP 404); leave --batch out" in line
        assert [(seen.method, seen.path) for seen in server.requests] == [("GET", BATCHES)]
    assert good_json("runs")["runs"] == []


# -- jobs -------------------------------------------------------------------------------------------------------------


def test_a_check_asks_all_its_repeats_in_one_batch_and_goes_on_after_it_was_left(names: Mapping[str, str]) -> None:
    with serving(course=("in_progress",)) as (server, provider):
        command = ["check", f"runs/{names['search']}/prompt.md", "-m", compatible(server), *PRICED, "--batch"]
        refused(1, *command, "--batch-wait", "0.2")
        begun = good_json("batch", "list")["batches"][0]["run_id"]
        lines = refused(1, *command, "--batch-wait", "0.2")  # of a run that took up the batch of the first one
        assert any(f"`optimize batch cancel {begun}` ends it" in line for line in lines), lines
        forgotten, provider.jobs = provider.jobs, {}
        assert good("batch", "cancel", begun).endswith("(batch_1): gone at the provider\n")
        provider.jobs, provider.course = forgotten, ("completed",)
        checked = good_json(*command)
        assert len(provider.jobs) == 1
        assert server.requests == []
        live = good_json(*[word for word in command if word != "--batch"])
    assert checked["gate"] == "passed"
    assert checked["score"] == live["score"]
    assert checked["flips"] == live["flips"]
    assert checked["cost_usd"] == pytest.approx(live["cost_usd"] / 2)


@pytest.mark.parametrize(
    ("words", "same", "jobs"),
    [
        ("transfer {search} --models {model} --top 2", None, 1),
        ("judge calibrate --labels ratings.jsonl --input question --output answer --judge {model}", "kappa", 1),
        ("migrate {search} -m {model} --max-calls 100 --margin 10", "winner", 2),
        ("apply rows@production rows.csv -o out.jsonl --prefix its_ -m {model}", None, 1),
    ],
    ids=["transfer", "calibrate", "migrate", "apply"],
)
def test_a_job_asks_in_batches_what_it_asks_live_for_less(
    words: str, same: str | None, jobs: int, names: Mapping[str, str]
) -> None:
    reply, found, out = PlantedJudge() if "judge" in words else learner, [], Path("out.jsonl")
    with serving(reply) as (one, provider), WireServer(reply) as two:
        for server, more in ((one, ["--batch"]), (two, [])):
            result = good_json(*words.format(**names, model=compatible(server)).split(), *PRICED, *more)
            found.append((result, out.read_text("utf-8") if out.exists() else ""))
    (batched, wrote), (live, wrote_live) = found
    assert wrote == wrote_live
    assert same is None or batched[same] == live[same]
    assert len(provider.jobs) == jobs
    assert "judge" in words or set(provider.asked.values()) == {1}, "a judge is asked the same several times"
    assert len(one.requests) + provider.asked.total() == len(two.requests)
    assert batched["cost_usd"] < live["cost_usd"]
    if jobs == 1:
        assert one.requests == []
        assert batched["cost_usd"] == pytest.approx(live["cost_usd"] / 2)


def comparison(server: WireServer, *more: str) -> list[str]:
    """With a curve, as the search has asked the sealed rows of the arms themselves."""
    return ["customize", *files(120)[1:], "-m", compatible(server), "--curve", "16", *PRICED, *more]


def test_a_comparison_that_was_left_takes_up_its_batch() -> None:
    with serving(course=("in_progress",)) as (server, provider):
        search = good_json(*words(server, "-n", "3"))
        said = refused(1, *comparison(server, "--batch", "--batch-wait", "0.2"))
        assert any("goes on at the provider" in line for line in said)
        provider.course = ("completed",)
        assert good_json(*comparison(server, "--batch"))["of_run"] == search["run_id"]
        assert len(provider.jobs) == 1
