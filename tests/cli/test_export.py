"""`optimize export` from the outside: several formats at once, drift, missing libraries, rows of the task."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from agent.release.formats.export_format import FORMATS
from agent.release.runtime import load_prompt
from tests.cli.world import good, optimize, refused, write_csv
from tests.conftest import Made

MANUAL = Path(__file__).resolve().parents[2] / "docs" / "production.md"


def test_several_formats_go_into_one_folder(two_runs: Made) -> None:
    names = ("md", "messages", "anthropic", "langchain", "python", "dspy", "finetune-jsonl")
    result = optimize("export", two_runs[0]["run_id"], *(f"--format={name}" for name in names), "-o", "out")
    assert result.exit_code == 0
    assert result.stdout == ""
    assert sorted(os.listdir("out")) == [
        "anthropic.json", "dspy", "finetune.jsonl", "langchain.json", "messages.json", "prompt.md", "prompt.py",
    ]  # fmt: skip
    assert Path("out/prompt.md").read_bytes() == Path(two_runs[0]["release"]).read_bytes()
    assert re.search(r"langchain: \d{3} hostile rows rendered by langchain-core", result.stderr)
    assert "byte-equal to what was scored" in result.stderr
    rows = [json.loads(line) for line in Path("out/finetune.jsonl").read_text("utf-8").splitlines()]
    assert rows
    assert all([message["role"] for message in row["messages"]][-2:] == ["user", "assistant"] for row in rows)


def test_several_formats_or_files_need_a_folder(two_runs: Made) -> None:
    assert "name a folder with -o DIR" in refused(2, "export", "--format", "md", "--format", "python")[0]
    assert "dspy has several files" in refused(2, "export", "--format", "dspy")[0]


def test_where_nothing_can_be_written_a_line_says_so_and_a_folder_that_is_there_keeps_the_rest(
    two_runs: Made, tmp_path: Path
) -> None:
    folder = tmp_path / "here"
    (folder / "prompt.md").mkdir(parents=True)
    (folder / "mine.txt").write_text("mine", "utf-8")
    for words in (["-o", "rows.csv/x.md"], ["-o", "x" * 300], ["-o", folder], ["--format", "python", "-o", folder]):
        assert "cannot write the export" in refused(1, "export", "--format", "md", *words)[0]
    assert sorted(os.listdir(folder)) == ["mine.txt", "prompt.md"]
    good("export", "--format", "python", "-o", folder)
    good("export", "--format", "python", "-o", folder)  # again, over the old one
    assert sorted(os.listdir(folder)) == ["mine.txt", "prompt.md", "prompt.py"]
    good("export", "--format", "md", "-o", "new/deep/x.md")
    assert load_prompt("new/deep/x.md").version == load_prompt(two_runs[1]["release"]).version


def test_what_cannot_be_proved_is_said_and_strict_refuses_it(two_runs: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    lacking = replace(FORMATS.get("python"), name="llm", library="no-such", install="pip install x")
    monkeypatch.setitem(FORMATS._known, "llm", (lacking, __name__))
    result = optimize("export", "--format", "llm", "-o", "x.py")
    assert result.exit_code == 0
    assert "llm: not verified with no-such: pip install x" in result.stderr
    assert "(--strict)" in refused(1, "export", "--format", "llm", "--strict", "-o", "y.py")[0]
    assert not Path("y.py").exists()


def test_rows_of_a_task_that_changed_are_not_exported(two_runs: Made) -> None:
    with Path("rows.csv").open("a", encoding="utf-8") as file:
        file.write("r999,a new row about a parcel,delivery\n")
    assert (
        "the task changed since the run (rows.csv)" in refused(2, "export", "--format", "finetune-jsonl", "-o", "x")[0]
    )
    assert not Path("x").exists()


def test_help_and_manual_name_every_format() -> None:
    said = optimize("export", "-h").output
    manual = MANUAL.read_text("utf-8")
    for name in FORMATS.names():
        assert name in said
        assert f"| `{name}` |" in manual


def test_init_makes_a_task_of_promptfoo_tests() -> None:
    write_csv(Path("rows.csv"), 120)
    lines = Path("rows.csv").read_text("utf-8").splitlines()
    Path("t.csv").write_text("\n".join(["id,text,__expected", *lines[1:]]) + "\n", "utf-8")
    said = good("init", "mine", "--from", "t.csv")
    assert "target expected: choice of 4" in said
    assert 'signature = "text -> expected"' in Path("tasks/mine/task.toml").read_text("utf-8")
    assert "--target COLUMN" in refused(2, "init", "other", "--from", "rows.csv")[0]
