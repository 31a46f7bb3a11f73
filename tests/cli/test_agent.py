"""An agent as a task: its texts are searched over whole rollouts, tested on sealed rows, and released as a file."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest

import promptassay as pa
from agent.release.texts import TEXTS_FILE
from agent.report.blocks import PageSection
from agent.report.html import standalone
from agent.report.view import RowPair
from agent.report.web.row_pages import row_block
from tests.cases import each_case
from tests.chaos.agents import SAY
from tests.cli.world import TOPICS, WORD, compatible, good, good_json, refused, write_csv, write_task
from tests.wire import Fault, WireServer

AGENT = f"""{SAY}

async def run(texts, row, model):
    print("rubbish on stdout")
    gist = say(model, texts["reader"], row["text"])
    return {{"label": say(model, texts["router"], gist)}}
"""
TEXTS = {"reader": "Say what the note is about.", "router": "Name the department for it."}
RULE = "Decide by the topic word alone."
TOML = f"""
name = "notes"
description = "Route a note to a department."
signature = "text -> label"
program = "agent.py:run"

[texts]
reader = "{TEXTS["reader"]}"
router = "{TEXTS["router"]}"

[fields.label]
type = "choice"
choices = {json.dumps(list(TOPICS))}
"""


def answering(messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
    """As the reader the topic's word; as the router its department, if the rule is there; as the proposer the rule."""
    system, last = messages[0]["content"], messages[-1]["content"]
    if system.startswith(TEXTS["reader"]):
        words = WORD.findall(last.lower())
        return next((word for word in words for known in TOPICS.values() if word in known.split()), "nothing")
    if system.startswith(TEXTS["router"]):
        label = next((name for name, known in TOPICS.items() if last in known.split()), "billing")
        return label if RULE in system else "billing"
    return f"ADD: {RULE}" if "ADD" in last else RULE


def folder(count: int = 60) -> Path:
    rows = [{"text": text, "label": label} for text, label in _rows(count)]
    write_task(TOML, {split: rows[at::3] for at, split in enumerate(("train", "dev", "test"))})
    (Path("notes") / "agent.py").write_text(AGENT, "utf-8")
    return Path("notes")


def _rows(count: int) -> list[tuple[str, str]]:
    with write_csv(Path("rows.csv"), count).open(encoding="utf-8") as file:
        return [(row["text"], row["label"]) for row in csv.DictReader(file)]


def gists() -> list[dict[str, str]]:
    """Rows of a single word."""
    return [{"gist": gist, "label": label} for label, known in TOPICS.items() for gist in known.split()]


def test_the_texts_of_an_agent_are_searched_tested_and_released_by_one_command() -> None:
    folder()
    with WireServer(answering) as server:
        model = ("-m", compatible(server), "--max-calls", "250")
        plan = good("run", "notes", *model, "--dry-run")
        counted = "makes 1 call or more, which the plan counts as one until the baseline shows how many"
        assert f"agent.py:run {counted}" in plan
        assert not server.requests, "a dry run calls nothing"
        found = good_json("run", "notes", *model)
    assert (found["decision"], found["winner"]["test"]) == ("promote", 1.0)
    released = json.loads((Path("runs") / found["run_id"] / TEXTS_FILE).read_text("utf-8"))
    assert released["texts"] == {"reader": TEXTS["reader"], "router": f"{TEXTS['router']} {RULE}"}
    shown = good("show")
    assert "the texts of your program changed: router" in shown
    assert f"\nrouter: {TEXTS['router']}" in shown
    good("report", "-o", "page.html")
    page = Path("page.html").read_text("utf-8")
    lines = (shown + page).casefold().splitlines()
    assert [line for line in lines if "your prompt" in line or "your own prompt" in line] == []
    for words in (shown, page):
        assert "your texts" in words
        assert "[system]" not in words
    trail = good("history", "--trial", "0")
    assert "1. call [reader]" in trail
    assert "2. call [router]\n   says: billing" in trail


def test_a_function_is_an_agent_too_and_its_run_is_resumed_with_it() -> None:
    asked = 0

    async def run(texts: Any, row: Any, model: Any) -> str:
        from openai import AsyncOpenAI

        client = AsyncOpenAI(base_url=model.url, api_key=model.key)
        messages: Any = [{"role": "system", "content": texts["router"]}, {"role": "user", "content": row["gist"]}]
        reply = await client.chat.completions.create(model=model.name, messages=messages)
        return str(reply.choices[0].message.content)

    def breaking(messages: list[dict[str, Any]], body: dict[str, Any]) -> str | Fault:
        nonlocal asked
        asked += 1
        return Fault(401) if asked == 60 else answering(messages, body)

    rows, texts = gists(), {"router": TEXTS["router"]}
    with WireServer(breaking) as server:
        name = compatible(server)
        with pytest.raises(pa.AgentError) as broken:
            pa.optimize(rows, agent=run, texts=texts, target="label", model=name, max_calls=250)
        with pytest.raises(pa.InputError, match="nothing"):
            pa.resume("nothing", agent=run)
        result = pa.resume(broken.value.run_id, agent=run)
    assert result.winner.test == 1.0
    assert dict(pa.load_texts(result.release.path)) == {"router": f"{TEXTS['router']} {RULE}"}


@each_case(
    "given, words",
    [
        ({"texts": None}, "texts: is missing; rows need the column to predict and the texts of your agent"),
        ({"texts": {}}, "texts: has no texts"),
        ({"texts": {"a/b": "x"}}, "is no name of a text"),
        ({"texts": {"a": " "}}, "a: is no text; write one"),
        ({"agent": lambda row: row}, "agent: agent agent: takes 1 arguments"),
        ({"prompt": "x"}, "its instructions are its --texts; leave out --prompt"),
    ],
)
def test_what_a_function_and_its_texts_lack_is_told_before_a_call(given: dict[str, Any], words: str) -> None:
    def run(texts: Any, row: Any, model: Any) -> str:
        return "x"

    whole: dict[str, Any] = {"agent": run, "texts": {"router": "x"}, "target": "label", "max_calls": 90, **given}
    with pytest.raises(pa.InputError) as wrong:
        pa.optimize(gists(), model="openai-compatible/x@http://127.0.0.1:9/v1", **whole)
    assert words in str(wrong.value), wrong.value


def test_a_data_file_takes_the_agent_and_its_texts_as_options() -> None:
    _rows(60)
    Path("agent.py").write_text(AGENT, "utf-8")
    Path("texts.json").write_text(json.dumps(TEXTS), "utf-8")
    words = ("run", "rows.csv", "--target", "label", "--input", "text", "--agent", "agent.py:run")
    assert "--agent: needs --texts FILE" in refused(2, *words, "--dry-run")[0]
    Path("texts").mkdir()
    for name, text in TEXTS.items():
        (Path("texts") / f"{name}.md").write_text(text, "utf-8")
    assert "agent.py:run makes 1 call or more" in good(*words, "--texts", "texts", "--max-calls", "120", "--dry-run")
    with WireServer(answering) as server:
        found = good_json(*words, "--texts", "texts.json", "-m", compatible(server), "--max-calls", "120", "-n", "1")
    assert found["baseline"]["test"] < 0.5


def test_rows_run_side_by_side_no_cap_is_passed_and_a_search_that_they_leave_no_trial_says_so() -> None:
    folder(90)
    with WireServer(answering) as server:
        told = good("run", "notes", "-m", compatible(server), "--max-calls", "150")
        assert len(server.requests) <= 150
    found = good_json("show")["result"]
    assert sum(found["calls"][role] for role in ("model", "proposer")) <= 150
    assert "the search ended early: a row takes about 2 calls; what the baseline and the sealed test leave" in told
    assert "Keep your texts" in told


def test_an_agent_may_report_the_score_of_its_answer_and_notes_for_its_trace() -> None:
    def run(texts: Any, row: Any, model: Any) -> pa.Rollout:
        from openai import OpenAI

        messages: Any = [{"role": "user", "content": f"{texts['router']} {row['gist']}"}]
        client = OpenAI(base_url=model.url, api_key=model.key)
        said = client.chat.completions.create(model=model.name, messages=messages).choices[0].message.content
        return pa.Rollout(said, notes="asked once", score=0.25 if row["gist"] == "invoice" else 0.75)

    own: dict[str, Any] = {"agent": run, "texts": {"router": "Name it."}, "target": "label", "metric": "reported"}
    with WireServer(lambda messages, body: "billing") as server:
        found = pa.evaluate(gists(), **own, model=compatible(server), max_calls=90)
    assert found.baseline.dev is not None
    assert found.baseline.dev >= 0.7
    trail = good("history", "--trial", "0")
    assert "notes: asked once" in trail


def test_the_calls_of_an_agent_are_a_metric_next_to_others() -> None:
    toml = folder() / "task.toml"
    calls = '[[metrics]]\nname = "calls"\nweight = 0.25\nat_most = 1\n'
    toml.write_text(f'{TOML}\n[[metrics]]\nname = "choice"\nweight = 0.75\n\n{calls}', "utf-8")
    with WireServer(answering) as server:
        found = good_json("run", "notes", "-n", "1", "-m", compatible(server), "--max-calls", "150")
    by_name = {each["metric"]: each["baseline"]["mean"] for each in found["metrics"]}
    assert by_name["calls"] == 0.5  # two calls a row
    assert found["baseline"]["test"] == pytest.approx(0.75 * by_name["choice"] + 0.25 * 0.5)
    plain = TOML.replace('program = "agent.py:run"', 'instruction = "Route it."')
    plain = re.sub(r"\[texts\].*?\n\n", "", plain, flags=re.DOTALL)
    toml.write_text(f"{plain}\n{calls.replace('0.25', '1.0')}", "utf-8")
    (said,) = refused(2, "run", "notes", "-m", "random/x", "--dry-run")
    assert "metric calls scores what an agent did" in said


def test_pages_show_the_answer_of_an_agent_and_not_its_last_words() -> None:
    said = {"value": 1.0, "reply": "Done.", "fields": {"a": "7"}, "error": "", "scores": [], "call_key": "k"}
    told = {"trace": "1. call [reader]\n   says: Done."}
    for more, shown, is_folded in ((told, "7", True), ({}, "Done.", False)):
        pair = RowPair("r1", {"q": "how many"}, {}, {**said, **more}, None)
        page = standalone("rows", "", "", [PageSection("rows", "Rows", (row_block(pair, ["yours"]),))])
        shows = [word for word in ("7", "Done.") if f">{word}</p>" in page]
        assert ("What was done" in page, shows) == (is_folded, [shown])
