"""What a run records: each call's way from reserved to its end, texts once, and replies that come back as they were."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.errors import BadResponse, InputError, LedgerError, RateLimited, Transient, TransportUnknown
from agent.ledger import trail
from agent.ledger.checks import charges
from agent.ledger.provenance import provenance
from agent.ledger.query import History
from agent.ledger.store import Ledger, NewCandidate, NewRun, Reservation
from agent.ledger.verify import verify
from agent.prompt.prompt_candidate import PromptCandidate
from agent.types import Completion, Demo, Message, Outcome, Prediction, Request, Score, Trial, Usage
from tests.ledger.ledgers import candidates, read
from tests.toys import ask, make_task, open_ledger

HOSTILE = "lone \ud800 \udfff NUL \0 bell \a mark ' \" \\ {{message}} \u2028 𝄞"
REPLY = Completion("billing", "stop", Usage(7, 5, 3), "m-1")


async def reserve(ledger: Ledger, key: str = "k", request: Request | None = None, usd: float = 0.5) -> int:
    return await ledger.reserve(Reservation("run-1", "model", "m", key, "c", 1, request or ask("a"), usd, 40))


async def buy(ledger: Ledger, key: str, reply: Completion = REPLY) -> int:
    call = await reserve(ledger, key)
    await ledger.settle("run-1", call, reply, 0.25, 0.5)
    return call


def kept(text: str) -> str:
    """`text` as SQLite can hold it: lone surrogates as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


# -- a call's way ------------------------------------------------------------------------------------------------------


async def test_a_call_is_on_the_disk_at_every_step_before_the_step_returns(ledger: Ledger) -> None:
    state = "SELECT state, reserved_usd, reserved_tokens, cost_usd FROM calls"
    call = await reserve(ledger)
    assert read(ledger.path, state) == [("reserved", 0.5, 40, 0.0)]
    ledger.sent(call)
    await ledger.commit()
    assert read(ledger.path, state) == [("sent", 0.5, 40, 0.0)]
    await ledger.settle("run-1", call, REPLY, 0.25, 0.5)
    assert read(ledger.path, state) == [("ok", 0.5, 40, 0.25)]
    columns = "finish, prompt_tokens, completion_tokens, cached_prompt_tokens, latency_s, served_model"
    assert read(ledger.path, f"SELECT {columns} FROM calls") == [("stop", 7, 5, 3, 0.5, "m-1")]


@pytest.mark.parametrize(
    ("state", "error", "told"),
    [
        ("error", RateLimited("slow", 2.5, status=429), ("rate_limit", "slow", 429, 2.5)),
        ("error", Transient("busy", status=503), ("transient", "busy", 503, None)),
        ("unknown", TransportUnknown("reset"), ("transport_unknown", "reset", None, None)),
        ("error", BadResponse("html", status=200), ("bad_response", "html", 200, None)),
        ("error", "not_sent", ("not_sent", "", None, None)),
    ],
)
async def test_a_failed_attempt_says_how_it_failed_and_what_it_is_charged(
    ledger: Ledger, state: str, error: Any, told: tuple[Any, ...]
) -> None:
    await ledger.fail("run-1", await reserve(ledger), state, error, 0.25, 0.125)
    row = read(ledger.path, "SELECT state, cost_usd, error_class, error, http_status, retry_after FROM calls")
    assert row == [(state, 0.125, *told)]


async def test_a_note_of_sending_that_comes_late_does_not_undo_the_end(ledger: Ledger) -> None:
    call = await reserve(ledger)
    await ledger.settle("run-1", call, REPLY, 0.0, 0.1)
    ledger.sent(call)
    await ledger.commit()
    assert read(ledger.path, "SELECT state FROM calls") == [("ok",)]


async def test_calls_are_numbered_in_the_order_in_which_they_were_asked_for(ledger: Ledger) -> None:
    numbers = await asyncio.gather(*(reserve(ledger, f"k{n}") for n in range(20)))
    ledger.cache_hit("run-1", "model", "m", "k0", "c", Usage(1, 1))
    await ledger.commit()
    assert numbers == list(range(1, 21))
    assert read(ledger.path, "SELECT id, call_key FROM calls WHERE id > 19") == [(20, "k19"), (21, "k0")]


async def test_only_a_settled_attempt_is_a_cached_reply(ledger: Ledger) -> None:
    assert ledger.settled("k") is None
    await reserve(ledger)
    for state, error in (("error", Transient("busy")), ("unknown", TransportUnknown("reset"))):
        await ledger.fail("run-1", await reserve(ledger), state, error, 0.1, 0.5)
        assert ledger.settled("k") is None
    ledger.cache_hit("run-1", "model", "m", "k", "c", Usage(1, 1))
    await ledger.commit()
    assert ledger.settled("k") is None
    await buy(ledger, "k")
    assert ledger.settled("k") == REPLY


async def test_a_refusal_is_not_served_to_others_and_does_not_hide_a_reply(ledger: Ledger) -> None:
    refused = await buy(ledger, "k", replace(REPLY, text="no", finish="refusal"))
    assert ledger.settled("k") is None
    assert ledger.reply(refused) == replace(REPLY, text="no", finish="refusal"), "whoever bought it can read it"
    await buy(ledger, "k")
    assert ledger.settled("k") == REPLY


async def test_beside_an_outcome_stands_the_reply_that_its_run_took(ledger: Ledger) -> None:
    """Its own; else the one that is served."""
    for run_id in ("run-2", "run-3"):
        ledger.begin_run(NewRun(run_id, make_task(), "m"))
    candidate = candidates()[0]
    ledger.add_candidate("run-1", NewCandidate(0, candidate.shown(), (), "op"))
    for run_id, text, finish in (("run-1", "no", "refusal"), ("run-1", "one", "stop"), ("run-2", "two", "stop")):
        call = await ledger.reserve(Reservation(run_id, "model", "m", "k_1", candidate.id, 1, ask("a"), 0.5, 40))
        await ledger.settle(run_id, call, replace(REPLY, text=text, finish=finish), 0.25, 0.5)
    ledger.cache_hit("run-3", "model", "m", "k_1", candidate.id, REPLY.usage)
    for run_id in ("run-1", "run-2", "run-3"):
        ledger.put_outcome(run_id, "dev", Outcome(candidate.id, "dev-0", Prediction({}, ""), (), 1.0, "k_1"))
    await ledger.commit()
    history = History(ledger.path)
    replies = [history.outcomes(f"run-{n}", candidate.id, "dev")[0]["reply"] for n in (1, 2, 3)]
    assert replies == ["one", "two", "one"]
    assert trail.call_id(history, "k_1") == 2
    hit = history.select("SELECT id FROM calls WHERE state = 'cached'")[0]["id"]
    assert trail.call(history, hit)["reply"]["text"] == "one"


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(), max_size=30))
def test_a_reply_comes_back_from_the_cache_exactly(ledger: Ledger, text: str) -> None:
    tops = (((text, -0.5), ("b", -1.25)), (("c", 0.0),))
    reply = Completion(text, "stop", Usage(7, 5, 3), "m", tops)
    asyncio.run(buy(ledger, f"k-{text!r}", reply))
    assert ledger.settled(kept(f"k-{text!r}")) == reply


# -- texts -------------------------------------------------------------------------------------------------------------


async def test_what_all_rows_of_a_prompt_share_is_kept_once_and_the_request_can_be_put_together(ledger: Ledger) -> None:
    shared = (Message("system", "Sort. " * 100), Message("user", "an example"), Message("assistant", "billing"))
    for number in range(3):
        request = Request((*shared, Message("user", f"row {number}")), 8, stop=("x",))
        await reserve(ledger, f"k{number}", request)
    assert len(read(ledger.path, "SELECT DISTINCT prefix_hash FROM calls")) == 1
    assert read(ledger.path, "SELECT COUNT(*) FROM blobs") == [(4,)]
    prefix, rest = read(
        ledger.path,
        "SELECT p.body, r.body FROM calls k JOIN blobs p ON p.hash = k.prefix_hash "
        "JOIN blobs r ON r.hash = k.request_hash WHERE k.call_key = 'k2'",
    )[0]
    whole = {**json.loads(rest), "messages": json.loads(prefix) + json.loads(rest)["messages"]}
    assert whole == json.loads(json.dumps(Request((*shared, Message("user", "row 2")), 8, stop=("x",)).identity()))


async def test_hostile_and_huge_text_survives_in_every_place(ledger: Ledger) -> None:
    text = HOSTILE + "x" * 1_000_000
    demo = Demo("train-1", {"message": text}, {"team": text}, text, "target")
    candidate = PromptCandidate("few-shot-cot", "turns", text, HOSTILE, (demo,))
    ledger.add_candidate("run-1", NewCandidate(1, candidate.shown(), (Message("user", text),), "op", None, text))
    made = Prediction({"team": text}, text, text)
    ledger.put_outcome("run-1", "dev", Outcome(candidate.id, "d", made, (Score("m", None, text),), None, "k"))
    ledger.put_trial("run-1", Trial(1, 1, candidate.id, "failed", 0, None, None, text))
    call = await reserve(ledger, "k", ask(text))
    await ledger.settle("run-1", call, replace(REPLY, text=text), 0.0, 0.1)
    failed = await reserve(ledger, f"k{HOSTILE}")
    await ledger.fail("run-1", failed, "error", Transient(text), 0.1, 0.0)
    ledger.event("run-1", "note", {"text": text, "deep": {"list": [text]}})
    ledger.end_run("run-1", "failed", 0.0, {"why": text})
    await ledger.commit()
    history, expected = History(ledger.path), kept(text)
    found = history.candidate(candidate.id)
    assert (found["instruction"], found["role"]) == (expected, kept(HOSTILE))
    assert found["template"] == [{"role": "user", "content": text}], "what is kept as JSON comes back exactly"
    (demo_row,) = found["demos"]
    assert (demo_row["inputs"], demo_row["rationale"]) == ({"message": text}, text)
    (outcome,) = history.outcomes("run-1", candidate.id, "dev")
    assert (outcome["reply"], outcome["error"], outcome["scores"]) == (text, text, [["m", None, text]])
    assert history.trials("run-1")[0]["reason"] == expected
    assert history.run()["result"] == {"why": text}
    assert read(ledger.path, "SELECT error FROM calls WHERE id = ?", failed) == [(expected,)]
    assert verify(ledger.db) == []


async def test_a_secret_of_the_environment_is_nowhere_in_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = 'pla"nted-\\sécret-0123456789'
    monkeypatch.setenv("SOME_API_KEY", secret)
    ledger = open_ledger(tmp_path / "ledger.db")
    said = f"it says {secret}!"
    candidate = PromptCandidate("zero-shot", "turns", said)
    ledger.begin_run(NewRun("run-2", make_task(), said, said, 0, {"cap": said}, {said: said}, origin={"argv": [said]}))
    ledger.add_candidate("run-2", NewCandidate(0, candidate.shown(), (Message("user", said),), "op", None, said, said))
    made = Outcome("c", "e", Prediction({"team": said}, said, said), (Score("m", None, said),), None)
    ledger.put_outcome("run-2", "dev", made)
    ledger.event("run-2", "note", {"text": said, "deep": [{"x": said}]}, {"reply": said})
    call = await reserve(ledger, said, ask(said))
    await ledger.settle("run-1", call, replace(REPLY, text=said, model=said), 0.0, 0.1)
    await ledger.fail("run-1", await reserve(ledger), "error", Transient(said), 0.1, 0.0)
    ledger.end_run("run-2", "failed", 0.0, {"why": said})
    await ledger.commit()
    parts = (secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1])
    forms = [form.encode() for form in (*parts, json.dumps(parts[1])[1:-1], json.dumps(parts[2])[1:-1])]
    files = {file.name: file.read_bytes() for file in tmp_path.iterdir()}  # also the log of what is not copied yet
    ledger.close()
    files |= {f"closed {file.name}": file.read_bytes() for file in tmp_path.iterdir()}
    assert [name for name, content in files.items() for form in forms if form in content] == []
    assert b"[key]" in files["closed ledger.db"]


# -- candidates, trials, outcomes --------------------------------------------------------------------------------------


async def test_a_candidate_is_written_once_by_all_runs_and_each_run_tells_how_it_came_to_it(ledger: Ledger) -> None:
    ledger.begin_run(NewRun("run-2", make_task(), "m"))
    few = candidates()[1]
    for run_id, reason in (("run-1", "first"), ("run-2", "second")):
        ledger.add_candidate(run_id, NewCandidate(0, few.shown(), (), "op", None, reason))
    await ledger.commit()
    assert read(ledger.path, "SELECT COUNT(*) FROM candidates") == [(1,)]
    assert read(ledger.path, "SELECT position, example_id FROM examples") == [(0, "train-0"), (1, "train-1")]
    assert read(ledger.path, "SELECT run_id, reason FROM proposals") == [("run-1", "first"), ("run-2", "second")]


async def test_a_trial_is_what_was_said_of_it_last(ledger: Ledger) -> None:
    candidate = candidates()[0]
    ledger.add_candidate("run-1", NewCandidate(0, candidate.shown(), (), "op"))
    ledger.put_trial("run-1", Trial(1, 0, candidate.id, "incomplete", 3, 0.5))
    ledger.put_trial("run-1", Trial(1, 0, candidate.id, "complete", 9, 0.75, (0.5, 0.9)))
    await ledger.commit()
    assert read(ledger.path, "SELECT n, state, low, high FROM trials") == [(9, "complete", 0.5, 0.9)]
    kinds = read(ledger.path, "SELECT kind FROM events WHERE kind LIKE 'trial%' ORDER BY seq")
    assert kinds == [("trial_incomplete",), ("trial_complete",)], "its whole way stands in the events"


async def test_a_run_ends_with_its_result_and_nothing_belongs_to_one_that_does_not_exist(ledger: Ledger) -> None:
    ledger.end_run("run-1", "complete", 12.3456, {"winner": "c"})
    await ledger.commit()
    assert read(ledger.path, "SELECT status, seconds, ended_utc IS NULL FROM runs") == [("complete", 12.346, 0)]
    assert History(ledger.path).run("run-1")["result"] == {"winner": "c"}
    with pytest.raises(InputError, match="no run run-2"):
        History(ledger.path).run("run-2")
    ledger.cache_hit("run-2", "model", "m", "k", "c", Usage())
    with pytest.raises(LedgerError, match="FOREIGN KEY"):
        await ledger.commit()


async def test_a_run_that_failed_keeps_why_as_one_short_line_without_a_key(ledger: Ledger) -> None:
    ledger.end_run(
        "run-1", "failed", 1.0, error=f"the key sk-live-0123456789abcdef was refused\r\n{HOSTILE} {'x' * 900}"
    )
    await ledger.commit()
    error = History(ledger.path).run("run-1")["error"]
    assert error.startswith("the key [key] was refused lone \\ud800")
    assert "\n" not in error
    assert len(error) <= 520, "as long as its escapes make it"
    assert verify(ledger.db) == []
    ledger.resume_run("run-1", {})
    await ledger.commit()
    assert History(ledger.path).run("run-1")["error"] == "", "it goes on"
    assert verify(ledger.db) == []


def test_where_a_run_came_from_is_told_whatever_git_prints(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.txt")).touch()
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    for words in (["init", "-q"], ["config", "core.quotepath", "false"], ["commit", "-q", "--allow-empty", "-m", "x"]):
        subprocess.run([*git, *words], check=True)
    assert re.fullmatch("[0-9a-f]{40} dirty", provenance(tmp_path, [])["git"])


@pytest.mark.parametrize(("calls", "limited", "holds"), [(1, 2, True), (3, 2, False), (1, 1, False)])
def test_a_request_that_was_refused_with_429_is_no_call_of_a_result(calls: int, limited: int, holds: bool) -> None:
    def call(error_class: str | None, tokens: int = 0) -> dict[str, Any]:
        told = {"role": "model", "state": "error" if error_class else "ok", "error_class": error_class}
        return {**told, "cost_usd": 0.0, "prompt_tokens": 5 * tokens, "completion_tokens": tokens}

    counts = {"model": calls, "proposer": 0, "judge": 0, "cached": 0}
    told = {"calls": counts, "tokens": {"prompt": 5, "completion": 1}, "cost_usd": 0.0, "limited": limited}
    made = [call(None, 1), call("rate_limit"), call("rate_limit"), call("not_sent")]
    assert charges({"result": told, "prices": ""}, made).ok is holds
