"""Whatever stands in rows, answers, names, labels and reasons stays text: no element of its own, no control character,
and nothing of it is lost."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.ledger.query import History
from agent.ledger.store import Ledger, NewCandidate, NewRun
from agent.prompt.fence import defused
from agent.prompt.prompt_candidate import PromptCandidate
from agent.report import html as page_module
from agent.report.html import report_html, visible
from agent.report.view import RunView
from agent.types import Message, Outcome, Prediction, Score, Trial
from tests.cli.judges import PlantedJudge
from tests.cli.world import compatible, good_json
from tests.report.hostile import PAYLOADS
from tests.report.pages import Page, assert_harmless
from tests.toys import make_task
from tests.wire import Fault, WireServer

TOML = """
name = "evil"
description = "Answer a question."
signature = "question -> answer"
instruction = {instruction}
slices = ["harbour"]

[fields.answer]
max_words = 80

[[metrics]]
name = "judge"

[models]
max_tokens = 60

[search]
techniques = ["zero-shot", "few-shot"]
formats = ["turns"]
demo_counts = [2, 4]
"""
RUBRIC = "# Evil\n\n## clear\n\nIs it clear?\n\n- 1: no\n- 5: yes\n"


class Evil(PlantedJudge):
    """Target, judge and proposer in one server, each of whose texts is a payload."""

    def __call__(self, messages: list[dict[str, Any]], body: dict[str, Any]) -> str | Fault:
        payload = random.Random(messages[-1]["content"]).choice(PAYLOADS)
        if "strict and fair judge" in messages[0]["content"]:
            found = json.loads(str(super().__call__(messages, body)))
            return json.dumps({**found, "reason": f"reason {payload}"})
        if "improve the instruction" in messages[0]["content"]:
            short = [each for each in PAYLOADS[:30] if defused(each) == each and len(each) < 40]  # others are refused
            return f"<instruction>Answer {random.Random(messages[-1]['content']).choice(short)}</instruction>"
        is_shown = any(message["role"] == "assistant" for message in messages)
        return f"reply {payload} quality-{5 if is_shown else 2}"


def write_task() -> Path:
    folder = Path("evil")
    folder.mkdir()
    instruction = json.dumps(f"Answer the question. {PAYLOADS[0]} {PAYLOADS[3]}")
    (folder / "task.toml").write_text(TOML.format(instruction=instruction), "utf-8")
    (folder / "rubric.md").write_text(RUBRIC, "utf-8")
    for split, count in (("train", 40), ("dev", 40), ("test", 64)):
        rows = []
        for number in range(count):
            texts = [PAYLOADS[(4 * number + place) % len(PAYLOADS)] for place in range(4)]
            own = {"id": f"{split} {number} {PAYLOADS[number]}", "question": " | ".join([f"{split}{number}", *texts])}
            rows.append({**own, "answer": f"{texts[0]} quality-5", "harbour": PAYLOADS[number % 4]})
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return folder


def harmless_twin(view: RunView, monkeypatch: pytest.MonkeyPatch) -> Page:
    """The same report with every character of a text that could mean something to a browser as an x."""
    plain = page_module.environment().overlay(finalize=_plain)
    monkeypatch.setattr(page_module, "environment", lambda: plain)
    return Page(report_html(view))


def _plain(value: Any) -> Any:
    shown = visible(value)
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return shown
    return "".join(c if c.isalnum() or c in " .,:-_\n" else "x" for c in value)


@pytest.fixture
def shows_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.report.run_tables.FLIPS", 1000)
    monkeypatch.setattr("agent.report.run_tables.BEST", 1000)


@pytest.mark.usefixtures("shows_all")
def test_a_run_over_payloads_makes_a_report_of_text(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_task()
    with WireServer(Evil()) as server:
        result = good_json("run", folder, "-m", compatible(server), "--max-calls", "1500", "--price", "1,2", "-q")
    view = RunView(History(Path("runs/ledger.db")))
    html = report_html(view)
    page = assert_harmless(html)
    assert (result["lift"]["wins"], result["lift"]["n"]) == (result["lift"]["n"],) * 2
    assert result["lift"]["n"] >= 50
    missing = [payload for payload in PAYLOADS if visible(payload) not in page.text]
    assert missing == []
    for word in ("reply ", "reason ", "Answer "):
        assert any(word + visible(payload) in page.text for payload in PAYLOADS)
    assert len([p for p in PAYLOADS if f"reason {visible(p)}" in page.text]) > 30
    assert page.structure == harmless_twin(view, monkeypatch).structure


def made_up(path: Path) -> None:
    """A finished run in whose every text is a payload: names, ids, operators, reasons, tags and the result."""
    pick: Callable[[], str] = iter(PAYLOADS * 20).__next__
    task, ledger = make_task(6, name=pick()), Ledger(path)
    ledger.begin_run(NewRun("run", task, pick(), pick(), 0, {}, {pick(): pick()}))
    ids = []
    for number, payload in enumerate(PAYLOADS):
        candidate = PromptCandidate("few-shot", "turns", payload)
        rejected = pick() if number % 10 == 9 else ""
        messages = (Message("system", payload), Message("user", "{{message}}"))
        ledger.add_candidate("run", NewCandidate(0, candidate.shown(), messages, pick(), None, pick(), rejected))
        if not rejected:
            ids.append(candidate.id)
            ledger.put_trial("run", Trial(len(ids) - 1, 0, candidate.id, "complete", 6, 0.5, (0.2, 0.8), pick()))
    for candidate_id, value in ((ids[0], 0.0), (ids[1], 1.0)):
        for row in task.test:
            prediction = Prediction({"team": pick()}, pick(), pick())
            score = Score(pick(), value, pick())
            ledger.put_outcome("run", "test", Outcome(candidate_id, row.id, prediction, (score,), value))
    ledger.end_run("run", "complete", 1.0, made_up_result(ids[1], pick))
    ledger.close()


def made_up_result(winner: str, pick: Callable[[], str]) -> dict[str, Any]:
    side = {"mean": 0.5, "ci95": [0.2, 0.8], "n": 6, "unscored": 0}
    line = {"winner": side, "baseline": side, "diff": 0.1, "diff_ci95": [0.0, 0.2], "p_value": 0.5}
    judge = {"metric": pick(), "models": [pick()], "mode": pick(), "trusted": False, "why": pick()}
    return {
        "run_id": "run",
        "task": pick(),
        "status": "complete",
        "model": pick(),
        "seed": 0,
        "baseline": {"dev": 0.1, "test": 0.0},
        "winner": {
            "candidate_id": winner,
            "technique": pick(),
            "format": pick(),
            "n_examples": 0,
            "instruction": pick(),
            "dev": 0.5,
            "test": 1.0,
            "dev_corrected": 0.4,
            "prompt_tokens": 5,
        },
        "lift": {"diff": 1.0, "ci95": [0.5, 1.0], "p_value": 0.01, "wins": 6, "losses": 0, "ties": 0, "n": 6},
        "decision": "keep_baseline",
        "blocked": [pick(), pick()],
        "trials": {"complete": 2, "pruned": 0, "failed": 0},
        "calls": {"model": 1, "proposer": 0, "judge": 0, "cached": 0},
        "tokens": {"prompt": 1, "completion": 1},
        "cost_usd": 0.5,
        "seconds": 61,
        "release": f"{pick()}\x1b\u202e",
        "ledger_head": pick(),
        "metrics": [{"metric": pick(), "field": pick(), "weight": 1.0, **line}],
        "slices": [
            {"slice": pick(), "groups": [{"value": pick(), **line}], "winner_gap": 0.1, "baseline_gap": 0.2},
        ],
        "consistency": None,
        "variety": [{"field": pick(), "winner": {"n": 6, "distinct_2": 0.5, "openings": 0.5}, "baseline": None}],
        "judges": [{**judge, "kappa": None, "ci95": None, "compared": 0, "turned": 0}],
        "preflight": {"why": pick(), "noise": None, "worth": True},
        "attribution": [
            {"part": part, "points": 1.0, "ci95": [0.5, 2.0], "how": "measured", "rows": 6} for part in PAYLOADS[::6]
        ],
        "pareto": [
            {"candidate_id": pick(), "dev": 0.5, "prompt_tokens": 5, "usd_per_1000": 1.0, "latency_s": 1.0}
            | {"chosen": True}
        ],
    }


@pytest.mark.usefixtures("shows_all")
def test_every_name_and_reason_of_a_ledger_stays_text(monkeypatch: pytest.MonkeyPatch) -> None:
    made_up(Path("ledger.db"))
    view = RunView(History(Path("ledger.db")))
    page = assert_harmless(report_html(view))
    assert view.result is not None
    told = [view.run["task"], view.run["model"], view.run["proposer"], *view.run["tags"], *view.run["tags"].values()]
    told += [trial[key] for trial in view.trials for key in ("instruction", "operator", "reason")]
    told += [row[key] for row in view.history.rejected("run") for key in ("operator", "rejected")]
    result = view.result
    told += [*result.blocked, str(result.release.path), result.judges[0].why, result.slices[0].slice]
    told += [result.slices[0].groups[0].value, result.ledger_head]
    told += [row.part for row in result.attribution]
    assert len(set(told)) > 200
    assert [text for text in told if visible(text) not in page.text] == []
    assert page.structure == harmless_twin(view, monkeypatch).structure


def test_a_letter_that_utf_8_has_not_becomes_a_mark() -> None:
    assert visible("a\ud800b\x1b\t\n") == "a\\xd800b\\x1b\t\n"
