"""Whole runs on a task whose answers stand in documents alone: winner and release look passages up."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

import promptassay as pa
from agent.errors import RunRefused
from agent.prompt.parts.passages import ReleasedPassages
from agent.task.load import load_task
from tests.cli.world import good, good_json
from tests.knowledge.planted import INSTRUCTION, reader, write_task
from tests.scripted import Toys, toy_makers

Whole = tuple[Path, pa.RunResult, list[Any]]
CALLS = {"proposer": "none", "max_calls": 600}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """A folder with a task and a run of it, its result, and the messages that were sent."""
    folder = tmp_path_factory.mktemp("planted")
    with pytest.MonkeyPatch.context() as patch, toy_makers() as toys:
        patch.chdir(folder)
        model = toys(reader)
        result = pa.optimize(write_task(Path("task")), model=model.name, **CALLS)
        return folder, result, [body["messages"] for body in model.bodies]


@pytest.fixture
def whole(made: Whole, here: Path) -> Whole:
    """A copy of it here."""
    shutil.copytree(made[0], here, dirs_exist_ok=True)
    return here, made[1], made[2]


def test_the_users_own_place_for_passages_gets_them_in_the_baseline(here: Path, toys: Toys) -> None:
    own, model = f"{INSTRUCTION}\n\n{{{{ context }}}}\n\nQuestion: {{{{question}}}}", toys(reader)
    result = pa.optimize(write_task(here / "task", own), model=model.name, trials=1, **CALLS)
    assert result.baseline.test == 1.0
    assert result.decision == "keep_baseline"
    (sent,) = model.bodies[0]["messages"]
    assert sent["role"] == "user"
    assert sent["content"].startswith(f"{INSTRUCTION}\n\nPassages of documents")
    assert result.release.load().release.part(ReleasedPassages).settings.k == 4


def test_the_winner_retrieves_passages_its_release_sends_the_same_and_figures_are_those_counted_by_hand(
    whole: Whole, toys: Toys
) -> None:
    here, result, sent = whole
    assert (result.decision, result.baseline.test < 0.2, result.winner.test > 0.95) == ("promote", True, True)
    prompt, rows = result.release.load(), load_task(here / "task").test
    passages = prompt.release.part(ReleasedPassages)
    index, settings = passages.index, passages.settings
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
    assert f"{settings.k} passages by {settings.retriever}" in good("audit", "lineage", result.winner.candidate_id)
    moved = good_json("transfer", result.run_id, "--models", toys(reader, "other").name, "--top", "1", "-q")
    own, other = moved["models"]
    assert [cell["mean"] for cell in other["scores"]] == [cell["mean"] for cell in own["scores"]]


def test_a_stopped_run_goes_on_with_the_documents_that_it_began_with(whole: Whole, toys: Toys) -> None:
    here, result, _ = whole

    def stopping(messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
        if len(model.bodies) > 150:
            raise RunRefused("no such key")
        return reader(messages, body)

    model = toys(stopping)
    db = Path("stopped/ledger.db")
    with pytest.raises(pa.AgentError) as caught:
        pa.optimize(here / "task", model=model.name, db=db, **CALLS)
    model.reply = reader
    page = here / "task" / "pages" / "goods-b.md"
    text = page.read_text("utf-8")
    page.write_text(f"{text}\nMore.\n", "utf-8")
    with pytest.raises(pa.AgentError, match="knowledge"):
        pa.resume(caught.value.run_id, db=db)
    page.write_text(text, "utf-8")
    resumed = pa.resume(caught.value.run_id, db=db)
    assert resumed.winner == result.winner
    assert resumed.retrieval == result.retrieval


def test_an_optimizer_that_cannot_look_up_is_refused_before_anything_is_paid(here: Path, toys: Toys) -> None:
    pytest.importorskip("dspy")
    model = toys(reader)
    with pytest.raises(pa.InputError, match="DSPy's optimizers do not retrieve passages"):
        pa.optimize(write_task(here / "task"), model=model.name, strategy="dspy-gepa", **CALLS)
    assert model.seen == []


def citing(messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
    """Answers, and cites the file of the passage that has the answer."""
    answer = reader(messages, body)
    text = "\n".join(message["content"] for message in messages)
    cited = [part for part in re.split(r"^\[\d+\] ", text, flags=re.MULTILINE)[1:] if f"costs {answer} in" in part]
    return f"answer: {answer}\npage: {cited[0].partition(',')[0] if cited else 'none'}"


def test_citations_are_an_output_that_is_scored_against_the_rows_documents(here: Path, toys: Toys) -> None:
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
    result = pa.optimize(folder, model=toys(citing).name, trials=1, **CALLS)
    assert [row.baseline.mean for row in result.metrics] == [1.0, 1.0, 1.0]
    assert result.retrieval.baseline.recall == 1.0
