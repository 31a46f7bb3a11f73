"""Documents of rows that were given in Python, and of data files: read where they are, and hashed like a task's own."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import promptassay as pa
from agent.jobs.tasks import task_of
from agent.ledger.query import History
from agent.options.run import RecordedOptions
from tests.cli.world import good_json, refused, write_lines
from tests.knowledge.planted import INSTRUCTION, reader, write_task
from tests.knowledge.test_faithfulness import judging
from tests.scripted import Toys

OWN = f"{INSTRUCTION}\n\n{{{{ context }}}}"


def planted(folder: Path) -> tuple[list[dict[str, Any]], Path]:
    """Rows without the column of their pages, and the folder of these, which is somewhere else."""
    task = write_task(folder / "elsewhere")
    rows = [json.loads(line) for split in ("train", "dev", "test") for line in (task / f"{split}.jsonl").open()]
    return [{"question": row["question"], "answer": row["answer"]} for row in rows], task / "pages"


def test_prompts_for_rows_look_passages_up_and_a_run_goes_on_with_the_same_documents_alone(
    here: Path, toys: Toys
) -> None:
    rows, pages = planted(here)
    model = toys(reader)
    given: dict[str, Any] = {"target": "answer", "prompt": OWN, "knowledge": pages, "price": (0, 0)}
    result = pa.optimize(rows, proposer="none", trials=1, model=model.name, **given)
    assert result.baseline.test == 1.0
    assert "Passages of documents" in model.bodies[0]["messages"][0]["content"]
    assert result.release.load().render(question="What of a belata?")[0]["content"].count("goods-b.md") > 0
    assert result.to_json()["retrieval"]["rows"] == 0
    with closing(History(Path("runs/ledger.db"))) as history:
        assert history.run(result.run_id)["options"]["knowledge"] == str(pages)
    good_json("reproduce", result.run_id)
    page = pages / "goods-b.md"
    page.write_text(page.read_text("utf-8") + "\nMore.\n", "utf-8")
    assert f"the documents in {pages}" in refused(2, "reproduce", result.run_id)[0]


def test_a_data_file_takes_them_from_the_command_line_and_a_judge_goes_by_them(here: Path, toys: Toys) -> None:
    rows, pages = planted(here)
    model = toys(judging)
    write_lines("rows.jsonl", rows)
    Path("p.txt").write_text(OWN, "utf-8")
    words = ("run", "rows.jsonl", "--target", "answer", "--prompt", "p.txt", "--proposer", "none", "-n", "1", "-q")
    words += ("-m", model.name)
    more = ("--knowledge", pages, "--metric", "judge,mode=faithfulness")
    result = good_json(*words, *more, "--price", "1,2")
    assert 0.6 < result["baseline"]["test"] < 0.9
    assert [judge["mode"] for judge in result["judges"]] == ["faithfulness"]
    asked = len(model.seen)
    assert "context" in refused(2, *words)[0]  # the mark is no column without documents
    assert "--knowledge none: no such file or folder" in refused(2, *words, "--knowledge", "none")[0]
    assert len(model.seen) == asked


def test_a_link_out_of_the_named_folder_is_refused(here: Path) -> None:
    rows, pages = planted(here)
    write_lines("rows.jsonl", rows)
    asked = RecordedOptions(task="rows.jsonl", target="answer", prompt="Which one?")
    (here / "linked").symlink_to(pages)
    assert len(task_of(asked.changed(knowledge="linked")).knowledge.documents) == len(list(pages.iterdir()))  # type: ignore[union-attr]
    (pages.parent / "secret.md").write_text("A secret.", "utf-8")
    (pages / "link.md").symlink_to(pages.parent / "secret.md")
    with pytest.raises(pa.InputError, match=r"link\.md"):
        task_of(asked.changed(knowledge=str(pages)))


def test_what_cannot_be_is_refused_before_anything_is_called(here: Path, toys: Toys) -> None:
    rows, pages = planted(here)
    (pages / "page.docx").write_bytes(b"PK")
    named = [{"context": row["question"], "answer": row["answer"]} for row in rows]
    model = toys(reader)
    given: dict[str, Any] = {"model": model.name, "proposer": "none", "target": "answer", "prompt": "Which?"}
    with pytest.raises(pa.InputError, match="is no document that can be read"):
        pa.optimize(rows, knowledge=pages, **given)
    (pages / "page.docx").unlink()
    with pytest.raises(pa.InputError, match="a column is called context"):
        pa.optimize(named, knowledge=pages, **given)
    with pytest.raises(pa.InputError, match="--knowledge needs a data file"):
        pa.optimize("elsewhere", knowledge=pages, model=model.name, proposer="none")
    assert model.seen == []
