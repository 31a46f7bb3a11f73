"""`optimize run` from end to end: the real SDKs, a server on a socket, a ledger, and the released file used by hand."""

import csv
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agent.gateway.retries import Clock
from agent.ledger.query import History
from agent.release.runtime import load_prompt
from agent.report.view import task_of
from agent.search.context import dev_rows, sealed_rows
from agent.search.costs import Means
from agent.search.plan import DETECT, Plan, make_plan
from agent.stats.preflight import rows_to_detect
from agent.task.from_file import task_from_file
from agent.types import Budget, Task
from tests.cli.world import (
    INSTRUCTION,
    UNSURE,
    compatible,
    files,
    good,
    good_json,
    knowing,
    learner,
    optimize,
    refused,
    scores_by_hand,
    write_lines,
)
from tests.report.web_world import browsing
from tests.scripted import Toy, Toys
from tests.wire import Fault, WireServer

CAP = 600
SAME = ("task", "status", "model", "seed", "baseline", "winner", "lift", "decision", "trials", "tokens")


def trials(db: Path, run_id: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(db) as connection:
        return connection.execute(
            "SELECT number, round, candidate_id, state, n, mean, low, high FROM trials WHERE run_id = ? ORDER BY 1",
            (run_id,),
        ).fetchall()


def first_scores(task: Task, plan: Plan, result: dict[str, Any]) -> list[float]:
    """What the user's own prompt scored on the rows of trial 0, as the ledger has it."""
    query = "SELECT o.example_id, o.value FROM outcomes o JOIN trials t USING (run_id, candidate_id) WHERE t.number = 0"
    with sqlite3.connect("runs/ledger.db") as db:
        scores = dict(db.execute(f"{query} AND o.split = 'dev' AND o.run_id = ?", (result["run_id"],)))
    return [scores[row.id] for row in dev_rows(task, plan.dev_rows, result["seed"])[: plan.first_rows]]


def test_a_run_on_anthropic_reports_what_the_released_prompt_scores_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """tests/journeys has one on a compatible server."""
    command = files()
    with WireServer(learner) as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.root)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-not-a-key")
        result = good_json(*command, "-m", "anthropic/claude-x", "--max-calls", str(CAP))
        assert {seen.path for seen in server.requests} == {"/v1/messages"}
        lift, calls = result["lift"], result["calls"]
        assert sum(calls[role] for role in ("model", "proposer", "judge")) == len(server.requests) <= CAP
        task, _ = task_from_file("rows.csv", "label", INSTRUCTION, result["seed"])
        plan = make_plan(task, Means(Budget(max_calls=CAP)), has_proposer=True)
        tested = sealed_rows(task, plan.tested_for(rows_to_detect(DETECT, first_scores(task, plan, result))))
        assert lift["n"] == len(tested) == lift["wins"] + lift["losses"] + lift["ties"]
        prompt = load_prompt(result["release"])
        by_hand = scores_by_hand(server, prompt, tested, "claude-x", anthropic=True)
    assert (result["decision"], prompt.model) == ("promote", result["model"])
    assert sum(by_hand) / len(by_hand) == result["winner"]["test"]
    assert lift["diff"] == pytest.approx(result["winner"]["test"] - result["baseline"]["test"], abs=1e-12)
    assert lift["ci95"][0] <= lift["diff"] <= lift["ci95"][1]
    everything = b"".join(path.read_bytes() for path in Path("runs").rglob("*") if path.is_file())
    assert b"sk-ant-not-a-key" not in everything


def test_a_second_run_buys_nothing_and_a_fresh_ledger_makes_the_same_trials(toys: Toys) -> None:
    model = toys(learner)
    command = [*files(200), "-m", model.name, "--max-calls", "240", "--seed", "3"]
    first = good_json(*command)
    bought = len(model.seen)
    second = good_json(*command)
    assert len(model.seen) == bought
    fresh = good_json(*command, "--db", "other/ledger.db")
    assert len(model.seen) == 2 * bought
    assert {key: second[key] for key in SAME} == {key: first[key] for key in SAME} == {key: fresh[key] for key in SAME}
    assert second["calls"]["model"] == second["calls"]["proposer"] == 0
    assert second["calls"]["cached"] == first["calls"]["cached"] + bought
    assert load_prompt(first["release"]).version == load_prompt(second["release"]).version
    ledger, elsewhere = Path("runs/ledger.db"), Path("other/ledger.db")
    table = trials(ledger, first["run_id"])
    assert len(table) > 5
    assert table == trials(ledger, second["run_id"]) == trials(elsewhere, fresh["run_id"])


def test_where_nothing_is_left_to_win_it_stops_before_the_search_and_says_so(toys: Toys) -> None:
    model = toys(knowing)
    command = [*files(120), "-m", model.name, "--max-calls", "200"]
    words = good(*command)
    sent = len(model.seen)
    result = good_json("show")["result"]
    anyway = good_json(*command, "--anyway")
    for says in ("nothing was searched", "not worth a search", "--anyway"):
        assert says in words
    assert result["preflight"]["worth"] is False
    assert result["baseline"] == {"dev": 1.0, "test": 1.0, "dev_rows": None}
    assert (result["decision"], result["status"]) == ("keep_baseline", "complete")
    task, _ = task_from_file("rows.csv", "label", INSTRUCTION, 0)
    plan = make_plan(task, Means(Budget(max_calls=200)), has_proposer=True)
    assert sent == result["calls"]["model"] == plan.dev_rows + plan.test_rows
    assert result["calls"]["proposer"] == 0
    assert sum(result["trials"].values()) == 1
    assert sum(anyway["trials"].values()) > 1
    assert anyway["preflight"] == result["preflight"]


def test_a_gain_that_a_small_test_cannot_show_is_null() -> None:
    def number(constant: str) -> float:
        raise AssertionError(f"{constant} is no JSON")

    command = [*files(120), "-m", "openai-compatible/x@http://127.0.0.1:9/v1", "--dry-run", "--json"]
    told = json.loads(good(*command, "--limit", "40-20-8", "--max-calls", "200"), parse_constant=number)
    assert told["detectable_gain"] is None


def thinker(messages: list[dict[str, Any]], body: dict[str, Any]) -> str | Fault:
    """Thinks for 300 tokens before the first word."""
    if body["max_tokens"] >= 300:
        return learner(messages, body)
    cut = {"message": {"role": "assistant", "content": ""}, "finish_reason": "length"}
    return Fault(body={"choices": [cut], "usage": {"prompt_tokens": 9, "completion_tokens": body["max_tokens"]}})


def test_a_model_that_thinks_is_given_room_to_by_all_that_ask_it_and_without_it_nothing_is_scored() -> None:
    with WireServer(thinker) as server:
        command = [*files(120), "-m", compatible(server), "--max-calls", str(CAP), "-j", "4", "--no-retrieval"]
        told = refused(2, *command)
        assert "on reasoning" in told[-1]
        assert "--thinking 2000" in told[-1]
        before = len(server.requests)
        result = good_json(*command, "--thinking", "400")
        asked = [request.body["max_tokens"] for request in server.requests[before:]]
    assert before < 12
    assert min(asked) > 400
    assert result["calls"]["proposer"]
    assert result["baseline"]["dev"] > 0
    assert result["parameters"]["max_tokens"] > 400


def test_a_model_named_by_a_variable_may_hold_blanks(monkeypatch: pytest.MonkeyPatch) -> None:
    command = [*files(120), "--dry-run", "--max-calls", "200"]
    Path("my replies.jsonl").touch()
    monkeypatch.setenv("OPTIMIZE_MODEL", "scripted/my replies.jsonl")
    assert good_json(*command)["model"] == "scripted/my replies.jsonl"
    assert good_json(*command, "-m", "openai/x")["model"] == "openai/x"


def test_the_word_run_may_be_left_out(toys: Toys) -> None:
    _, *rest = files(120)
    command = [*rest, "-m", toys(learner).name, "--max-calls", "200", "--dry-run"]
    assert good(*command) == good("--dry-run", *command) == good("run", *command)


def test_a_local_address_needs_no_price_and_it_is_said_that_it_is_free() -> None:
    with WireServer(learner) as server:
        command = [*files(120), "-m", compatible(server)]
        planned = optimize(*command, "--max-cost", "1", "--dry-run")
        assert planned.exit_code == 0
        free = f"{compatible(server)}: local address, priced at $0; set --price IN,OUT if it is not free"
        assert free in planned.stderr.splitlines()
        assert "$0.00" in planned.stdout
        assert "local address" not in optimize(*command, "--price", "1,2", "--dry-run").stderr
        bare = compatible(server).removesuffix("/v1")
        assert f"most servers need /v1: {server.url}" in optimize(*command[:-1], bare, "--dry-run").stderr


def test_a_dry_run_names_every_model_file_that_is_not_there_as_the_run_does() -> None:
    command = [*files(60), "-m", "local/gone.gguf", "--proposer", "local/also/gone.gguf"]
    said = refused(2, *command)
    assert [line.partition(": no such model file")[0] for line in said[-2:]] == [
        "error: gone.gguf",
        "error: also/gone.gguf",
    ]
    assert said == refused(2, *command, "--dry-run")


def test_a_key_that_is_missing_is_found_out_before_another_model_is_paid(toys: Toys) -> None:
    model = toys(learner)
    words = refused(2, *files(120), "-m", model.name, "--proposer", "anthropic/x", "--max-calls", "200")
    assert model.seen == []
    assert "anthropic/x: no API key: the environment variable ANTHROPIC_API_KEY is not set" in words[-1]


def test_a_cap_on_dollars_still_pays_a_finalist_that_is_far_dearer_than_the_baseline(toys: Toys) -> None:
    """The user's prompt answers next to nothing, and eight long examples most rows at eight times its price."""

    def pupil(messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
        luck = sum(messages[-1]["content"].encode()) % 10
        return learner(messages, body) if luck < 7 else UNSURE

    command = files(160)
    rows = Path("rows.csv").read_text("utf-8").splitlines()
    longer = [line.replace(",", ", " + "and so on and so forth " * 12, 1) for line in rows[1:]]
    Path("rows.csv").write_text("\n".join([rows[0], *longer]), "utf-8")
    result = good_json(*command, "-m", toys(pupil).name, "--price", "1,2", "--seed", "2", "--max-cost", "0.1")
    assert (result["status"], result["search_ended"], result["decision"]) == ("complete", "", "promote")
    assert result["winner"]["n_examples"] >= 4


def test_what_nobody_knows_the_price_of_is_not_said_to_cost_nothing(toys: Toys) -> None:
    model = toys(learner)
    command = [*files(120), "-m", model.name, "--max-calls", "200"]
    words = good(*command)
    result = good_json("show")["result"]
    again = good(*command)
    priced = good(*command, "--price", "1,1", "--no-cache")
    assert result["unpriced"] == [model.name]
    assert "tokens, unknown price, " in words
    assert " tokens (cached replies included), $0.0000, " in again  # all of it was in the ledger
    assert "tokens, unknown price, " in good("show", result["run_id"])
    assert "unknown price" not in priced
    good("report", result["run_id"], "-o", "page.html")
    page = Path("page.html").read_text("utf-8")
    assert "unknown price" in page
    assert "0.0000" not in page

    run = result["run_id"]
    assert {trial["cost_usd"] for trial in good_json("history", run)["trials"]} == {None}
    spent = {row["state"]: row["cost_usd"] for row in good_json("audit", "show", run)["costs"]}
    assert spent["ok"] is None
    assert spent.get("cached", 0.0) == 0.0
    call = good_json("audit", "show", "call:1")
    assert (call["call"]["cost_usd"], call["attempts"][0]["cost_usd"]) == (None, None)
    assert {row["usd_per_1000"] for row in result["pareto"]} == {None}
    for words in (good("history", run), good("audit", "show", run)):
        assert "unknown" in words
    with browsing() as client:
        for path in ("/", f"/run/{run}", f"/run/{run}/trial/0"):
            assert "unknown price" in client.get(path).text, path
        assert "unknown" in client.get("/call/1").text


def test_the_marks_of_a_prompt_say_which_columns_are_inputs_also_after_the_run(toys: Toys) -> None:
    command = files(120)
    Path("p.txt").write_text(f"{INSTRUCTION} {{{{text}}}}", "utf-8")
    with Path("rows.csv").open(encoding="utf-8", newline="") as file:
        write_lines("rows.jsonl", ({**row, "channel": f"c{n % 2}"} for n, row in enumerate(csv.DictReader(file))))
    words = ["rows.jsonl" if word == "rows.csv" else word for word in command]
    good(*words, "-m", toys(learner).name, *["-n", "1", "-q", "--max-calls", "200"])
    with closing(History(Path("runs/ledger.db"))) as history:
        run = history.run("")
        task = task_of(run)
    assert [field.name for field in task.signature.inputs] == ["text"]
    assert dict(task.hashes) == run["hashes"]


@pytest.fixture
def ticking(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> Toy:
    """A model whose calls take a second each, by the clock of the run."""
    model = toys(learner)
    monkeypatch.setattr(Clock, "now", lambda clock: float(len(model.seen)))
    return model


def test_a_cap_that_ends_the_baseline_leaves_the_sealed_test_closed_and_can_be_raised(ticking: Toy) -> None:
    command = [*files(120), "-m", ticking.name, "--max-calls", "200", "-j", "1"]
    said = refused(1, *command, "--time-limit", "10", "-q")
    assert "time_limit = 10" in said[0]
    assert good_json("history")["trials"][0]["state"] == "incomplete"
    result = good_json("resume", "--time-limit", "9m")
    assert (result["status"], result["search_ended"]) == ("complete", "")
    events = good_json("audit", "show", result["run_id"])["events"]
    assert [event["kind"] for event in events].count("test_opened") == 1
    assert good_json("audit", "check")["holds"]


def test_a_time_limit_that_pays_for_fewer_calls_than_planned_leaves_time_for_a_smaller_sealed_test(
    ticking: Toy,
) -> None:
    command = [*files(120), "-m", ticking.name, "--max-calls", "600", "-j", "1", "--proposer", "none"]
    whole = good_json(*command, "--db", "whole.db")
    begun = len(ticking.seen)
    result = good_json(*command, "--time-limit", "100", "--db", "short.db")
    assert whole["lift"]["n"] > result["lift"]["n"] > 0
    assert result["status"] in ("complete", "budget")
    assert len(ticking.seen) - begun <= 100


def test_a_dry_run_says_no_more_than_the_caps_allow() -> None:
    command = [*files(120), "-m", "openai/gpt-4o-mini", "--dry-run", "-q"]
    free = good_json(*command)
    for cap, tokens, usd in (("--max-tokens", 100_000, 0.05), ("--max-cost", 10_000_000, 0.05)):
        caps = ["--max-cost", str(usd), "--max-tokens", str(tokens)]
        capped = good_json(*command, *caps)
        assert capped["cost_usd_at_most"] <= usd < free["cost_usd_at_most"]
        assert capped["tokens_at_most"] <= tokens
        parts = capped["roles"].values()
        assert sum(part["tokens"] for part in parts) == capped["tokens_at_most"] < free["tokens_at_most"]
        assert sum(part["usd"] for part in parts) == pytest.approx(capped["cost_usd_at_most"])
        assert f", as {cap} allows; nothing was called" in good(*command, *caps)
    assert capped["cost_usd_at_most"] == pytest.approx(usd, abs=0.001)


def test_unusable_replies_of_the_proposer_are_near_the_verdict_with_one_of_them() -> None:
    Path("proposer.jsonl").write_text('{"reply": "Sure, gladly!"}\n', "utf-8")
    with WireServer(learner) as server:
        proposer = ("--proposer", "scripted/proposer.jsonl")
        screen = good(*files(120), "-m", compatible(server), *proposer, "--max-calls", "200", "-q").splitlines()
    (note,) = (line for line in screen if line.startswith("note: ") and "of the proposer were unusable; one " in line)
    assert note.endswith(": 'Sure, gladly!'")
    assert screen.index(note) < next(at for at, line in enumerate(screen) if line.startswith("Scores, 0 to 100"))
