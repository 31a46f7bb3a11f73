"""`optimize sweep`: cells out of one file, each with its ledger, which a broken sweep continues."""

from __future__ import annotations

import inspect
import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import promptassay as pa
from agent.errors import ProblemsError
from agent.jobs.sweep.cells import run_cell
from agent.jobs.sweep.file import AXES, OPTIONS, read_sweep
from agent.jobs.sweep.prepare import prepare_sweep
from tests.cli.sweeps import FOLDER, broken_cells, resumed, scores, settled, write_sweep
from tests.cli.world import compatible, files, good, good_json, learner, optimize, refused, stubborn
from tests.report.pages import assert_harmless
from tests.scripted import Toys
from tests.warm import Process, start
from tests.wire import Fault, WireServer


def test_a_sweep_scores_each_cell_as_a_plain_run_and_compares_them() -> None:
    with WireServer(learner) as good_server, WireServer(stubborn) as poor_server:
        models = [compatible(good_server).replace("/x@", "/good@"), compatible(poor_server).replace("/x@", "/poor@")]
        path = write_sweep(models, (0, 1), 'trials = 3\nproposer = "none"')
        plan = good_json("sweep", path, "--dry-run")
        assert {cell["state"] for cell in plan["cells"]} == {"not begun"}
        assert all(0 < cell["calls"] <= 150 for cell in plan["cells"])
        assert not good_server.requests
        for other in prepare_sweep(path).cells[1:]:
            run_cell(other.point.task, other.arguments, other.db)  # what the process of a cell does
        found = good_json("sweep", path, "--jobs", "2", "-q")
        asked = len(good_server.requests) + len(poor_server.requests)
        assert good_json("sweep", path) == found
        text = good("sweep", path)
        assert len(good_server.requests) + len(poor_server.requests) == asked, "a finished cell is not run again"
        words = ("--target", "label", "--prompt", "p.txt", "--max-calls", "150", "--price", "1,2", "--no-retrieval")
        words += ("--trials", "3", "--proposer", "none")
        plain = good_json("run", "rows.csv", *words, "-m", models[0], "-q", "--db", "plain.db")
    cell = found["cells"][0]
    assert (cell["baseline"], cell["score"]) == (plain["baseline"]["test"], plain["winner"]["test"])
    assert cell["lift"] == {key: plain["lift"][key] for key in ("diff", "ci95", "p_value")}
    assert Path(cell["release"]).is_file()
    assert [(cell["state"], cell["error"]) for cell in found["cells"]] == [("finished", "")] * 4
    assert broken_cells() == {}
    assert settled() <= asked
    best, poor = found["groups"]
    assert (best["seeds"], best["lift"]["shown"], best["promoted"]) == ([0, 1], 1, 2)
    assert best["lift"]["p_holm"] >= best["lift"]["p_value"]
    assert best["ci95"][0] <= best["score"] <= best["ci95"][1]
    assert best["n"] > plain["lift"]["n"], "rows of both seeds"
    assert poor["lift"]["shown"] == 0
    (task,) = found["tasks"]
    assert (task["best"]["model"], [other["model"] for other in task["beats"]]) == (models[0], [models[1]])
    assert found["cost_usd"] == pytest.approx(sum(cell["cost_usd"] for cell in found["cells"]))
    assert "is shown to be better than openai-compatible/poor" in text
    page = Path(found["report"]).read_text("utf-8")
    assert_harmless(page)
    assert "openai-compatible/good" in page


# -- broken off -------------------------------------------------------------------------------------------------------


def slow(messages: list[dict[str, Any]], body: dict[str, Any]) -> Fault:
    return Fault(text=learner(messages, body), delay=0.02)


def children(process: Process) -> list[int]:
    threads = Path(f"/proc/{process.pid}/task").iterdir()
    return [int(pid) for thread in threads for pid in (thread / "children").read_text("utf-8").split()]


def until(holds: Any, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.long
@pytest.mark.parametrize("how", ["cell killed", "interrupted", "sweep killed"])
def test_a_broken_sweep_continues_and_nothing_is_bought_twice(how: str) -> None:
    with WireServer(slow) as server:
        path = write_sweep([compatible(server)], (0, 1))
        process = start("sweep", str(path), "--jobs", "1", "-q", "--json")
        until(lambda: len(server.requests) >= 30)
        (cell,) = children(process)
        match how:
            case "cell killed":
                os.kill(cell, signal.SIGKILL)
            case "interrupted":
                process.send_signal(signal.SIGINT)
            case "sweep killed":
                process.kill()
        out, err = process.communicate(200)
        until(lambda: not Path(f"/proc/{cell}").exists())
        if how == "cell killed":
            assert process.returncode == 0, err
            found = json.loads(out)
        else:
            assert process.returncode == (130 if how == "interrupted" else -signal.SIGKILL)
            assert out == ""
            assert ("run the same command to continue it" in err) == (how == "interrupted")
            states = [cell["state"] for cell in good_json("sweep", path, "--dry-run")["cells"]]
            assert states == ["partial", "not begun"]
            found = good_json("sweep", path, "-q")
            assert settled() == len(server.requests), "each request was settled once"
    assert [cell["state"] for cell in found["cells"]] == ["finished"] * 2
    assert len(resumed()) == 1
    assert broken_cells() == {}


@pytest.mark.long
def test_a_cell_that_fails_leaves_the_others_and_is_tried_again() -> None:
    broken = True

    def reply(messages: list[dict[str, Any]], body: dict[str, Any]) -> str | Fault:
        if broken and body["model"] == "bad":
            return Fault(401, body={"error": {"message": "no such key"}})
        return learner(messages, body)

    with WireServer(reply) as server:
        good_name = compatible(server)
        path = write_sweep([good_name, good_name.replace("/x@", "/bad@")])
        result = optimize("sweep", path, "--json", "-q")
        assert result.exit_code == 1
        first = json.loads(result.stdout)
        assert [cell["state"] == "finished" for cell in first["cells"]] == [True, False]
        assert "no such key" in first["cells"][1]["error"]
        assert "1 of 2 cells have no result" in result.stderr
        broken = False
        second = good_json("sweep", path, "-q")
    assert scores(second)[0] == scores(first)[0]
    assert [cell["state"] for cell in second["cells"]] == ["finished"] * 2


# -- before anything is spent -----------------------------------------------------------------------------------------


BAD = """\
name = "a/b"
tasks = [1]
models = ["m", "m"]
seeds = [-1]
strategies = ["evolv"]
max_cost = -3
[options]
max_cals = 3
effort = "lazy"
price = [1]
[[cells]]
model = "other"
max_calls = 0
[resources]
num_cpus = -1
"""


def test_all_that_is_wrong_with_a_file_is_said_at_once_with_its_line() -> None:
    files(80)
    Path("bad.toml").write_text(BAD, "utf-8")
    said = refused(2, "sweep", "bad.toml")
    places = [line.removeprefix("error: ").split(":")[1] for line in said if "bad.toml" in line]
    assert sorted(map(int, places)) == [1, 2, 3, 4, 5, 6, 8, 9, 10, 13, 15], said
    assert any("did you mean 'max_calls'" in line for line in said)


def test_every_cell_is_checked_and_each_problem_said_once() -> None:
    path = write_sweep(["nosuch/kind", "openai/some"], (0, 1))
    problems = ["unknown kind 'nosuch'", "OPENAI_API_KEY"]
    for missing in ([], ["p.txt"]):
        for name in missing:
            Path(name).unlink()
        lines = refused(2, "sweep", path)
        assert [word for word in [*missing, *problems] if word in "".join(lines)] == [*missing, *problems]
        assert len(lines) == len(problems) + len(missing)
    assert not list(FOLDER.glob("*.db"))
    result = optimize("sweep", path, "--ray", "auto", "--jobs", "2")
    assert (result.exit_code, "[resources]" in result.stderr) == (2, True)


def test_a_page_that_cannot_be_written_takes_no_result_away(monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_sweep(["scripted/a.jsonl"])
    Path("a.jsonl").write_text('{"reply": "billing"}\n', "utf-8")
    without_cells = replace(prepare_sweep(path), cells=())
    monkeypatch.setattr("agent.jobs.sweep.sweep.prepare_sweep", lambda *_, **__: without_cells)
    (FOLDER / "report.html").mkdir(parents=True)
    result = optimize("sweep", path, "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert (found["sweep"], found["report"]) == ("small", None)
    assert f"no page: {FOLDER}/report.html: cannot be written" in result.stderr


def test_a_finished_cell_of_other_files_is_refused_by_name(toys: Toys) -> None:
    path = write_sweep([toys(learner).name], more='proposer = "none"\ntrials = 1')
    (cell,) = prepare_sweep(path).cells
    run_cell(cell.point.task, cell.arguments, cell.db)
    for file, old, new in (("p.txt", "Read", "Read now"), ("rows.csv", "billing", "repair")):
        kept = Path(file).read_text("utf-8")
        Path(file).write_text(kept.replace(old, new), "utf-8")
        for more in ((), ("--dry-run",)):
            (line,) = [line for line in refused(2, "sweep", path, *more) if f"{cell.name}: {file} " in line]
            assert line.endswith(
                "changed since this cell finished; put it back, or sweep into another folder (--folder)"
            )
        Path(file).write_text(kept, "utf-8")
    path.write_text(path.read_text("utf-8").replace("seeds = [0]", "seeds = [0, 1]"), "utf-8")
    states = [cell["state"] for cell in good_json("sweep", path, "--dry-run")["cells"]]
    assert states == ["finished", "not begun"]


def test_options_and_caps_of_cells() -> None:
    for name in "abc":
        Path(f"{name}.jsonl").write_text('{"reply": "billing"}\n', "utf-8")
    more = '[[cells]]\nmodel = "scripted/a.jsonl"\ntrials = 1\nmax_cost = 4\n'
    path = write_sweep([f"scripted/{name}.jsonl" for name in "abc"], more=more)
    text = path.read_text("utf-8")
    sweep = read_sweep(path)
    assert [sweep.options_of(point) for point in sweep.points] == [
        {**sweep.options, "trials": 1, "max_cost": 4},
        sweep.options,
        sweep.options,
    ]
    path.write_text(f"max_cost = 10\n{text}", "utf-8")
    assert [cell.max_cost for cell in prepare_sweep(path).cells] == [4, 3, 3]
    for cap in (3, 4):  # of 4 nothing is left for the other cells
        path.write_text(f"max_cost = {cap}\n{text}", "utf-8")
        says = f"small.toml:1: max_cost = {cap}: cells have caps of 4 US dollars together; raise it"
        with pytest.raises(ProblemsError, match=says):
            prepare_sweep(path)
    path.write_text(text.replace('["rows.csv"]', '["rows.csv", "./rows.csv"]'), "utf-8")
    with pytest.raises(ProblemsError, match=r"tasks: '\./rows\.csv' is listed twice, also as 'rows\.csv'; keep one"):
        read_sweep(path)
    for tasks in ("", "tasks = []"):
        path.write_text(f'name = "a b"\n{tasks}', "utf-8")
        with pytest.raises(ProblemsError) as told:
            read_sweep(path)
        assert "tasks: missing or empty; list task folders, their names or data files" in str(told.value)
        assert "name = 'a b': should be at most 64 letters, digits, _ and -" in str(told.value)
    arguments = set(inspect.signature(pa.optimize).parameters)
    assert set(OPTIONS) == arguments - {*AXES, "name", "db", "progress", "track", "track_texts", "trace"}
