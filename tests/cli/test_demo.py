"""`optimize demo`: a whole run over recorded replies, and every command that comes after it.

Each test reads one demo, made once. Its replies were recorded with the search as it was then. Where a change of the
search asks for others, record those that are missing:

    python -m tests.bench.record_demo ~/.cache/promptassay/qwen2.5-coder-0.5b-1d9614638d18.gguf
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from agent.cli import main
from agent.jobs.search import FOLDER, MODEL
from agent.models.recorded import PREFIX, RECORDINGS, SUFFIX
from tests.cli.world import good, good_json, refused
from tests.conftest import made_once
from tests.report.web_world import signed_in
from tests.terminal import on_terminal

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


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_once(tmp_path_factory, "demo", _demo)


@pytest.fixture
def demo(demo_folder: Path, here: Path) -> dict[str, Any]:
    """A copy of the demo's folder is the current one; what the demo printed."""
    shutil.copytree(demo_folder, here, dirs_exist_ok=True)
    said = json.loads(Path("made.json").read_text("utf-8"))
    assert isinstance(said, dict)
    return said


def select(sql: str) -> list[Any]:
    with closing(sqlite3.connect("runs/ledger.db")) as db:
        return db.execute(sql).fetchall()


def test_every_request_was_recorded_and_the_verdict_is_better(demo: dict[str, Any]) -> None:
    failed = select("SELECT DISTINCT state, error FROM calls WHERE state <> 'ok'")
    assert failed == [], AGAIN
    (body,) = (json.loads(row[0]) for row in select("SELECT b.body FROM runs r JOIN blobs b ON b.hash = r.result_hash"))
    assert (body["decision"], body["model"], body["status"]) == ("promote", MODEL, "complete"), AGAIN
    assert body["baseline"]["test"] <= 0.5, "the user's prompt works half at most"
    assert body["lift"]["ci95"][0] > 0
    assert body["calls"]["model"] == len(select("SELECT id FROM calls")) > 200, "each was made and is in the ledger"
    assert demo["stdout"].startswith(f"\nBetter: +{100 * body['lift']['diff']:.1f} points on ")


def test_the_screen_says_that_replies_are_recorded_and_fits_80_columns(demo: dict[str, Any]) -> None:
    screen = on_terminal(["demo", "-q"], columns=80)
    assert screen.code == 0
    for command in ("optimize show", "optimize export --format python -o demo_prompt.py", "optimize audit verify"):
        assert any(line.rstrip().endswith(f"  {command}") for line in screen.terminal.lines), "in one piece"
    lines = demo["stdout"].splitlines()
    assert ABOUT in demo["stdout"]
    assert ABOUT in demo["stderr"], "before the first call, too"
    assert f"model {MODEL}" in demo["stderr"]
    for words in ("your prompt", "best found", "95 % CI", "optimize show", "optimize report", "optimize ui"):
        assert words in demo["stdout"]
    assert FOLDER.is_dir()
    assert all(Path(path).exists() for path in (*(line.split()[-1] for line in file_lines(lines)),))


def file_lines(lines: list[str]) -> list[str]:
    start = lines.index("files:") + 1
    return lines[start : start + 3]


def test_each_command_that_the_screen_names_works(demo: dict[str, Any]) -> None:
    steps = [
        line.split("optimize ")[1]
        for line in demo["stdout"].splitlines()
        if line.startswith("  ") and "  optimize " in line
    ]
    assert [words.split()[0] for words in steps] == ["show", "report", "ui", "promote", "export", "audit", "run"]
    for words in steps:
        if words.split()[0] not in ("ui", "run"):  # the one waits for a browser, the other for a file of the user
            good(*words.split())
    assert ABOUT in good("show")
    assert good("audit", "verify").startswith("whole: ")
    assert good("load", "demo@production")
    (report,) = Path("runs").glob("*/report.html")
    assert ABOUT in report.read_text("utf-8")
    assert "def " in Path("demo_prompt.py").read_text("utf-8")


async def test_the_browser_says_that_replies_are_recorded(demo: dict[str, Any]) -> None:
    ((run,),) = select("SELECT id FROM runs")
    async with signed_in(Path("runs/ledger.db")) as (client, _):
        for page in (f"/run/{run}", f"/run/{run}/report"):
            reply = await client.get(page)
            assert reply.status_code == 200
            assert ABOUT in reply.text


def test_a_second_demo_is_a_second_run_out_of_the_ledger(demo: dict[str, Any]) -> None:
    ((first,),) = select("SELECT b.body FROM runs r JOIN blobs b ON b.hash = r.result_hash")
    again, before = good_json("demo", "-q"), json.loads(first)
    assert again["run_id"] != before["run_id"]
    assert again["model"] == MODEL
    assert (again["winner"]["candidate_id"], again["lift"]) == (before["winner"]["candidate_id"], before["lift"])
    assert (again["calls"]["model"], again["calls"]["cached"]) == (0, before["calls"]["model"])


def test_a_row_that_was_not_recorded_is_refused_and_never_invented(demo: dict[str, Any]) -> None:
    Path("rows.jsonl").write_text('{"request": "Ring a bell in the attic at noon"}\n', "utf-8")
    good("promote")
    said = refused(1, "apply", "demo@production", "rows.jsonl", "-o", "out.jsonl")
    assert f"{MODEL}: no reply to this request was recorded" in said[-1]
    assert not Path("out.jsonl").exists()


def test_a_ledger_with_runs_of_others_is_left_alone(two_runs: Any) -> None:
    before = select("SELECT count(*) FROM events")
    (line,) = refused(2, "demo")
    assert line.startswith("error: runs/ledger.db: holds other runs; keep the demo apart: optimize demo --db ")
    assert select("SELECT count(*) FROM events") == before
    assert not FOLDER.exists()


def test_a_task_of_the_user_that_has_its_name_is_left_alone(here: Path) -> None:
    FOLDER.mkdir(parents=True)
    (FOLDER / "task.toml").write_text("mine", "utf-8")
    (line,) = refused(2, "demo")
    assert f"error: {FOLDER}/" in line
    assert "run the demo in another folder" in line
    assert [path.name for path in FOLDER.iterdir()] == ["task.toml"]
    assert not Path("runs").exists()


def test_the_recording_is_small() -> None:
    assert (RECORDINGS / f"{MODEL.removeprefix(PREFIX)}{SUFFIX}").stat().st_size < 500_000
