"""Whole runs on a task whose answers stand in documents alone: winner and release look passages up."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import promptassay as pa
from agent.prompt.parts.passages import ReleasedPassages
from agent.task.load import load_task
from tests.cli.world import compatible, good, good_json
from tests.knowledge.planted import INSTRUCTION, reader, write_task
from tests.wire import Fault, WireServer


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(folder: Path, **more: Any) -> tuple[Any, list[Any]]:
    with WireServer(reader) as server:
        result = pa.optimize(folder, model=compatible(server), proposer="none", max_calls=600, **more)
        return result, server.requests


def test_the_users_own_place_for_passages_gets_them_in_the_baseline(here: Path) -> None:
    own = f"{INSTRUCTION}\n\n{{{{ context }}}}\n\nQuestion: {{{{question}}}}"
    result, requests = run(write_task(here / "task", own), trials=1)
    assert result.baseline.test == 1.0
    assert result.decision == "keep_baseline"
    sent = requests[0].body["messages"]
    assert [message["role"] for message in sent] == ["user"]
    assert sent[0]["content"].startswith(f"{INSTRUCTION}\n\nPassages of documents")
    assert result.release.load().release.part(ReleasedPassages).settings.k == 4


def test_the_winner_retrieves_passages_its_release_sends_the_same_and_figures_are_those_counted_by_hand(
    here: Path,
) -> None:
    result, requests = run(write_task(here / "task"))
    assert (result.decision, result.baseline.test < 0.2, result.winner.test > 0.95) == ("promote", True, True)
    prompt, rows = result.release.load(), load_task(here / "task").test
    passages = prompt.release.part(ReleasedPassages)
    index, settings = passages.index, passages.settings
    sent = [request.body["messages"] for request in requests]
    hits = []
    for row in rows:
        messages = prompt.render(**row.inputs)
        assert messages in sent
        assert prompt.parse(reader(messages, {})).fields["answer"] == row.labels["answer"]
        shown = {each.file for each in index.found(row.inputs["question"], settings.retriever, settings.k)}
        hits += [row.sources[0] in shown] if row.sources else []
    found = result.to_json()["retrieval"]
    assert found["rows"] == found["answerable_rows"] == len(hits)
    assert found["unanswerable_rows"] == len(rows) - len(hits) == 6
    assert found["winner"]["recall"] == found["winner"]["recall_all"] == sum(hits) / len(hits)
    assert found["baseline"]["recall"] is None
    assert found["baseline"]["unanswerable_right"] == found["baseline"]["answerable_wrong"] == 1.0
    assert found["winner"]["unanswerable_right"] == 1.0
    assert found["winner"]["answerable_wrong"] < 0.1
    assert {row.part for row in result.attribution} >= {"passages"}
    assert result.to_json()["winner"]["passages"]["pool"] == settings.pool
    good("report")
    for text in (good("show"), next(here.rglob("report.html")).read_text("utf-8")):
        assert "a relevant document retrieved for 100.0 %" in text
        assert f"{settings.k} passages by {settings.retriever}" in text
    exported = good_json("export", result.run_id, "--format", "python", "--format", "md", "-o", "out")
    for form in exported["formats"]:  # the export sends for each dev row the very call of the run
        assert form["dev"]["score"] == pytest.approx(result.winner.dev)
    good("reproduce", result.run_id)
    lineage = good("audit", "lineage", result.winner.candidate_id)
    assert f"{result.winner.passages['k']} passages by {result.winner.passages['retriever']}" in lineage
    with WireServer(reader) as server:
        moved = good_json("transfer", result.run_id, "--models", compatible(server), "--top", "1", "-q")
    own, other = moved["models"]
    assert [cell["mean"] for cell in other["scores"]] == [cell["mean"] for cell in own["scores"]]


def test_a_stopped_run_goes_on_with_the_documents_that_it_began_with(here: Path) -> None:
    folder = write_task(here / "task")
    whole, _ = run(folder, cache=False)
    asked = 0

    def stopping(messages: list[dict[str, Any]], body: dict[str, Any]) -> str | Fault:
        nonlocal asked
        asked += 1
        return Fault(401, body={"error": {"message": "no such key"}}) if 150 < asked < 400 else reader(messages, body)

    page = folder / "pages" / "goods-b.md"
    text = page.read_text("utf-8")
    with WireServer(stopping) as server:
        with pytest.raises(pa.AgentError) as caught:
            pa.optimize(folder, model=compatible(server), proposer="none", max_calls=600, cache=False)
        asked = 1000
        page.write_text(f"{text}\nMore.\n", "utf-8")
        with pytest.raises(pa.AgentError, match="knowledge"):
            pa.resume(caught.value.run_id)
        page.write_text(text, "utf-8")
        resumed = pa.resume(caught.value.run_id)
    assert resumed.winner == whole.winner
    assert resumed.retrieval == whole.retrieval


def test_an_optimizer_that_cannot_look_up_is_refused_before_anything_is_paid(here: Path) -> None:
    pytest.importorskip("dspy")
    with WireServer(reader) as server:
        with pytest.raises(pa.InputError, match="DSPy's optimizers do not retrieve passages"):
            pa.optimize(
                write_task(here / "task"),
                model=compatible(server),
                strategy="dspy-gepa",
                proposer="none",
                max_calls=500,
            )
        assert server.requests == []


def citing(messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
    """Answers, and cites the file of the passage that has the answer."""
    answer = reader(messages, body)
    text = "\n".join(message["content"] for message in messages)
    cited = [part for part in re.split(r"^\[\d+\] ", text, flags=re.MULTILINE)[1:] if f"costs {answer} in" in part]
    return f"answer: {answer}\npage: {cited[0].partition(',')[0] if cited else 'none'}"


def test_citations_are_an_output_that_is_scored_against_the_rows_documents(here: Path) -> None:
    own = f"{INSTRUCTION} Cite the file.\n\n{{{{context}}}}"
    folder = write_task(here / "task", own)
    toml = folder / "task.toml"
    metrics = '[[metrics]]\nname = "exact_match"\nfield = "answer"\n\n[[metrics]]\nname = "set_f1"\nfield = "page"\n'
    text = toml.read_text("utf-8").replace("-> answer", "-> answer, page")
    toml.write_text(f'{text}\n{metrics}separator = ";"\n', "utf-8")
    for split in ("train", "dev", "test"):
        rows = folder / f"{split}.jsonl"
        rows.write_text(rows.read_text("utf-8").replace('"page": ""', '"page": "none"'), "utf-8")
    with pytest.raises(pa.InputError, match="'none' is not a document"):
        load_task(folder)
    for split in ("train", "dev", "test"):
        rows = folder / f"{split}.jsonl"
        kept = [line for line in rows.read_text("utf-8").splitlines() if '"none"' not in line]
        rows.write_text("\n".join(kept) + "\n", "utf-8")
    with WireServer(citing) as server:
        result = pa.optimize(folder, model=compatible(server), proposer="none", max_calls=300, trials=1)
    assert [row.baseline.mean for row in result.metrics] == [1.0, 1.0, 1.0]
    assert result.retrieval.baseline.recall == 1.0
