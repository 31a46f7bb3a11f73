"""Exit codes and error lines: 2 usage or bad input, 3 budget too small, 1 anything else that we know; one line each."""

import io
import json
import os
import shlex
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from agent.cli import main
from agent.cli.common import print_json
from tests.cases import each_case
from tests.cli.world import compatible, files, good, learner, optimize, refused
from tests.conftest import Made
from tests.wire import WireServer

ROOT = Path(__file__).resolve().parents[2]
FILE = [
    *["run", "-q", "rows.csv", "--target", "label", "--prompt", "p.txt", "-m"],
    "openai-compatible/x@http://127.0.0.1:9/v1",
]


@each_case(
    ("arguments", "says"),
    [
        (["nothing_here"], "nothing_here: no command or task of this name; `optimize -h` lists the commands"),
        (["rn", "rows.csv"], "rn: no command or task of this name; did you mean `optimize run`?"),
        (["good_tsk", "-n", "1"], "did you mean `optimize good_task`?"),
        (["none.csv"], "none.csv: no such file"),
        (["rows.csv"], "needs --target"),
        (["-n", "1", "nothing_here"], "no task of this name"),
        (["run", "shwo"], "no task of this name"),
        (["run"], "Missing argument"),
        (["run", "rows.csv", "--target", "label", "--prompt", "none.txt"], "none.txt"),
        (["run", "rows.ods", "--target", "label", "--prompt", "p.txt"], "save a spreadsheet as CSV UTF-8"),
        (["run", "p.txt", "--target", "label", "--prompt", "p.txt"], "not a .csv or .jsonl file"),
        (["run", "rows.csv", "--target", "label", "--prompt", "empty.txt"], "empty.txt:1"),
        (["run", "rows.csv", "--target", "label", "--prompt", "latin.txt"], "UTF-8"),
        (["run", "broken.csv", "--target", "label", "--prompt", "p.txt"], "broken.csv:3"),
        (["run", "few.csv", "--target", "label", "--prompt", "p.txt"], "at least 30"),
        ([*FILE[:-1], "opnai/gpt"], "unknown kind 'opnai'"),
        ([*FILE, "--proposer", "scripted/none.jsonl"], "none.jsonl"),
        ([*FILE[:-1], "openai-compatible/x@ftp://y"], "http://host:port/v1"),
        ([*FILE, "-m", "openai/x"], "a run prompts one model"),
        ([*FILE[:-1], "gpt-4o-mini"], "did you mean openai/gpt-4o-mini? Or use one of"),
        ([*FILE[:-1], "claude-sonnet-4"], "did you mean anthropic/claude-sonnet-4?"),
        ([*FILE, "--max-cost", "nan"], "--max-cost"),
        ([*FILE, "--price", "nan,1"], "'--price': (nan, 1.0): write IN,OUT"),
        ([*FILE, "--price", "-1,1"], "'--price': (-1.0, 1.0): write IN,OUT"),
        ([*FILE, "--limit", "²"], "'--limit': '²': write one number"),
        ([*FILE, "--limit", "9" * 5000], "'--limit': '9999"),
        ([*FILE, "--db", ""], "the path is empty; name a file"),
        ([*FILE, "--db", "a\0b"], "a path holds no NUL"),
        (["run", "good_task", "--target", "label"], "task folder"),
        (["models", "nope"], "nope"),
        (["runs"], "no ledger here"),
        (["export"], "no ledger here"),
    ],
)
def test_bad_usage_ends_with_2_and_says_where(arguments: list[str], says: str) -> None:
    files(120)
    rows = Path("rows.csv").read_text("utf-8").splitlines()
    Path("empty.txt").write_text(" \n")
    Path("latin.txt").write_bytes(b"caf\xe9")
    Path("broken.csv").write_text("\n".join([*rows[:2], "r1,only", *rows[3:]]))
    Path("few.csv").write_text("\n".join(rows[:10]))
    Path("tasks/good_task").mkdir(parents=True, exist_ok=True)
    Path("tasks/good_task/task.toml").touch()
    lines = refused(2, *arguments)
    assert says in " ".join(lines)
    ours = [line for line in lines if line.startswith("error: ")]
    usage = [line for line in lines if line.startswith(("Usage: ", "Error: "))]
    assert bool(ours) != bool(usage)
    assert not ours or len(lines) == 1


def test_an_interrupt_before_the_first_call_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def pressed(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("agent.jobs.launch.prepare", pressed)
    assert refused(130, *FILE) == ["interrupted"]


def test_a_budget_that_cannot_compare_two_prompts_ends_with_3_and_names_one_that_is_enough() -> None:
    files(120)
    for cap in ("1", "83"):
        (line,) = refused(3, *FILE, "--max-calls", cap)
        assert line.startswith(f"error: max_calls = {cap} is too few")
    good(*FILE, "--max-calls", line.split()[-1], "--dry-run")


def test_questions_about_runs_that_are_not_there_end_with_2(two_runs: Made) -> None:
    one, two = two_runs
    assert "no run nope" in refused(2, "show", "nope")[0]
    assert "no trial 999" in refused(2, "history", "--trial", "999")[0]
    common = one["run_id"][:4]  # of the same year
    assert "2 run ids" in refused(2, "export", common)[0]
    Path(two["release"]).unlink()
    assert len(refused(1, "export")) == 1
    Path(one["release"]).write_text("changed")
    assert len(refused(1, "export", one["run_id"])) == 1


def test_a_ledger_that_cannot_be_used_ends_with_1_and_one_line() -> None:
    files(120)
    Path("text.db").write_text("this is no database " * 100)
    Path("folder.db").mkdir()
    with sqlite3.connect("other.db") as db:
        db.execute("CREATE TABLE runs (id TEXT)")
    with WireServer(learner) as server:
        for name, code in (("text.db", 1), ("folder.db", 2), ("p.txt/ledger.db", 1)):
            *_, line = refused(code, *FILE[:-1], compatible(server), "--max-calls", "100", "--db", name)
            assert name in line
            assert "--db" in line
        assert server.requests == []
    for command in (["runs"], ["show"], ["history"]):
        (line,) = refused(1, *command, "--db", "other.db")
        assert line.startswith("error: other.db")
    assert optimize("doctor", "--db", "other.db").exit_code == 1


def test_debug_adds_the_traceback() -> None:
    result = CliRunner().invoke(main, ["--debug", "show"])
    assert result.exit_code == 2
    assert "Traceback" in result.stderr


def in_a_shell(redirected: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """The command in a separate process, its streams as the shell is told."""
    words = shlex.join([sys.executable, "-c", "from agent.cli import main; main()", *arguments])
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | variables
    return subprocess.run(["sh", "-c", f"{words} {redirected}"], capture_output=True, env=environment, check=False)


@pytest.mark.parametrize("words", ["models list --json", "-h"])
def test_a_disk_that_is_full_is_one_line(words: str) -> None:
    done = in_a_shell(">/dev/full", *words.split())
    (line,) = done.stderr.decode().splitlines()
    assert (done.returncode, line.partition(";")[0]) == (1, "error: No space left on device")


def test_a_stream_that_is_closed_ends_nothing() -> None:
    done = in_a_shell(">&-", "models", "list")
    assert (done.returncode, done.stderr) == (0, b"")
    files(120)
    with WireServer(learner) as server:
        command = [word for word in FILE[:-1] if word != "-q"]
        done = in_a_shell("2>&-", *command, compatible(server), "--max-calls", "100", "-n", "1")
    assert done.returncode == 0
    assert b"your prompt" in done.stdout


def test_a_machine_without_a_folder_for_temporary_files_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    files(120)
    monkeypatch.setattr(tempfile, "tempdir", "gone")
    (line,) = refused(1, *FILE)
    assert "No such file or directory" in line
    assert "TMPDIR" in line


def test_letters_that_the_encoding_lacks_stand_as_escapes(two_runs: Made) -> None:
    done = in_a_shell("", "history", two_runs[0]["run_id"], PYTHONIOENCODING="latin-1")
    assert (done.returncode, rb"\u2026" in done.stdout) == (0, True)


def test_json_is_ascii_where_stdout_is_not_utf_8(monkeypatch: pytest.MonkeyPatch) -> None:
    value, written = {"é": "…\U0001f600"}, io.BytesIO()
    stdout = io.TextIOWrapper(written, "latin-1", write_through=True)
    monkeypatch.setattr(sys, "stdout", stdout)
    print_json(value)
    assert json.loads(written.getvalue().decode("ascii")) == value


def test_a_report_goes_to_standard_output(two_runs: Made) -> None:
    run_id = two_runs[0]["run_id"]
    good("report", run_id)
    assert good("report", run_id, "-o", "-") == Path(f"runs/{run_id}/report.html").read_text("utf-8")
    assert not Path("-").exists()
    assert "leave out one of them" in refused(2, "report", run_id, "-o", "-", "--json")[-1]
    assert "'-' is no path here" in refused(2, "export", run_id, "-o", "-")[-1]
