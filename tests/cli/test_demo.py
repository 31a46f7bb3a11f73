"""`optimize demo`: a whole run over recorded replies, and every command that comes after it.

Each test reads one demo, made once. Where a change of the search asks for other replies, record the missing ones:

    python -m tests.bench.record_demo ~/.cache/promptassay/qwen2.5-coder-0.5b-1d9614638d18.gguf
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from agent.cli import main
from agent.jobs.demo import FOLDER, MODEL
from agent.models.recorded import PREFIX, RECORDINGS, SUFFIX
from tests.cli.world import good, good_json, refused
from tests.conftest import copied, made_once
from tests.report.web_world import browsing

AGAIN = "the search asks for replies that were not recorded: python -m tests.bench.record_demo FILE.gguf"
ABOUT = "he replies are recorded, not live (Qwen2.5-Coder-"


def _demo() -> dict[str, Any]:
    def refuse(*_: object) -> None:
        raise AssertionError("the demo opened a connection")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("socket.socket.connect", refuse)
        said = CliRunner().invoke(main, ["demo"], env={"COLUMNS": "80"})
    assert said.exit_code == 0, said.output
    return {"stdout": said.stdout, "stderr": said.stderr}


@pytest.fixture
def demo(tmp_path_factory: pytest.TempPathFactory, here: Path) -> dict[str, Any]:
    """A copy of the demo's folder is the current one; what the demo printed."""
    said = copied(made_once(tmp_path_factory, "demo", _demo), here)
    assert isinstance(said, dict)
    return said


def select(sql: str) -> list[Any]:
    with closing(sqlite3.connect("runs/ledger.db")) as db:
        return db.execute(sql).fetchall()


def test_every_request_was_recorded_and_the_verdict_is_better(demo: dict[str, Any]) -> None:
    assert select("SELECT DISTINCT state, error FROM calls WHERE state <> 'ok'") == [], AGAIN
    ((body,),) = select("SELECT b.body FROM runs r JOIN blobs b ON b.hash = r.result_hash")
    before = json.loads(body)
    assert (before["decision"], before["model"], before["status"]) == ("promote", MODEL, "complete"), AGAIN
    assert before["baseline"]["test"] <= 0.5, "the user's prompt works half at most"
    assert before["lift"]["ci95"][0] > 0
    assert before["calls"]["model"] == len(select("SELECT id FROM calls")) > 200, "each was made and is in the ledger"
    assert demo["stdout"].startswith(f"\nBetter: +{100 * before['lift']['diff']:.1f} points on ")
    assert ABOUT in demo["stderr"], "before the first call, too"
    again = good_json("demo", "-q")  # a second run, answered from the ledger
    assert again["run_id"] != before["run_id"]
    assert (again["winner"]["candidate_id"], again["lift"]) == (before["winner"]["candidate_id"], before["lift"])
    assert (again["calls"]["model"], again["calls"]["cached"]) == (0, before["calls"]["model"])


def test_each_command_that_the_screen_names_works_and_says_that_replies_are_recorded(demo: dict[str, Any]) -> None:
    lines = [line for line in demo["stdout"].splitlines() if line.startswith("  ") and "  optimize " in line]
    steps = [line.split("optimize ")[1].split() for line in lines]
    assert [words[0] for words in steps] == ["show", "report", "ui", "promote", "export", "audit", "run"]
    shown = [good(*words) for words in steps if words[0] not in ("ui", "run")]  # a browser; a file of the user
    assert shown[-1].startswith("whole: ")
    (report,) = Path("runs").glob("*/report.html")
    with browsing() as client:
        page = client.get(f"/run/{report.parent.name}").text
    assert all(ABOUT in text for text in (demo["stdout"], shown[0], report.read_text("utf-8"), page))
    assert "def " in Path("demo_prompt.py").read_text("utf-8")
    assert good("load", "demo@production")
    Path("rows.jsonl").write_text('{"request": "Ring a bell in the attic at noon"}\n', "utf-8")
    said = refused(1, "apply", "demo@production", "rows.jsonl", "-o", "out.jsonl")
    assert f"{MODEL}: no reply to this request was recorded" in said[-1]
    assert not Path("out.jsonl").exists()


def test_a_ledger_and_a_task_of_the_user_are_left_alone(two_runs: Any) -> None:
    before = select("SELECT count(*) FROM events")
    (line,) = refused(2, "demo")
    assert line.startswith("error: runs/ledger.db: holds other runs; keep the demo apart: optimize demo --db ")
    assert (select("SELECT count(*) FROM events"), FOLDER.exists()) == (before, False)
    FOLDER.mkdir(parents=True)
    (FOLDER / "task.toml").write_text("mine", "utf-8")
    (line,) = refused(2, "demo", "--db", "new/ledger.db")
    assert f"error: {FOLDER}/" in line
    assert ([path.name for path in FOLDER.iterdir()], Path("new").exists()) == (["task.toml"], False)


def test_the_recording_is_small() -> None:
    assert (RECORDINGS / f"{MODEL.removeprefix(PREFIX)}{SUFFIX}").stat().st_size < 500_000
