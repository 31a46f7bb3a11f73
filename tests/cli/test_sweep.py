"""`optimize sweep`: cells out of one file, each with a ledger of its own, which a killed sweep goes on with."""

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
from tests.warm import Process, start
from tests.wire import Fault, WireServer


def slow(messages: list[dict[str, Any]], body: dict[str, Any]) -> Fault:
    return Fault(text=learner(messages, body), delay=0.02)


def children(process: Process) -> list[int]:
    threads = Path(f"/proc/{process.pid}/task").iterdir()
    return [int(pid) for thread in threads for pid in (thread / "children").read_text("utf-8").split()]


def wait_for(server: WireServer, requests: int) -> None:
    deadline = time.monotonic() + 90
    while len(server.requests) < requests and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(server.requests) >= requests


def test_a_sweep_scores_each_cell_and_compares_them() -> None:
    with WireServer(learner) as good_server, WireServer(stubborn) as poor_server:
        models = [compatible(good_server).replace("/x@", "/good@"), compatible(poor_server).replace("/x@", "/poor@")]
        path = write_sweep(models, (0, 1))
        plan = good_json("sweep", path, "--dry-run")
        assert {cell["state"] for cell in plan["cells"]} == {"not begun"}
        assert all(0 < cell["calls"] <= 150 for cell in plan["cells"])
        assert not good_server.requests
        found = good_json("sweep", path, "--jobs", "2", "-q")
        asked = len(good_server.requests) + len(poor_server.requests)
        again = good_json("sweep", path)
        text = good("sweep", path)
        assert len(good_server.requests) + len(poor_server.requests) == asked, "a finished cell is not run again"
    assert again == found
    assert [(cell["state"], cell["error"]) for cell in found["cells"]] == [("finished", "")] * 4
    assert broken_cells() == {}
    assert settled() <= asked
    best, poor = found["groups"]
    assert (best["seeds"], best["lift"]["shown"], best["promoted"]) == ([0, 1], 1, 2)
    assert best["lift"]["p_holm"] >= best["lift"]["p_value"]
    assert best["ci95"][0] <= best["score"] <= best["ci95"][1]
    assert best["n"] > good_json("show", "--db", found["cells"][0]["ledger"])["result"]["lift"]["n"], (
        "rows of both seeds"
    )
    assert poor["lift"]["shown"] == 0
    (task,) = found["tasks"]
    assert (task["best"]["model"], [other["model"] for other in task["beats"]]) == (models[0], [models[1]])
    assert found["cost_usd"] == pytest.approx(sum(cell["cost_usd"] for cell in found["cells"]))
    assert "is shown to be better than openai-compatible/poor" in text
    page = Path(found["report"]).read_text("utf-8")
    assert_harmless(page)
    assert "openai-compatible/good" in page


def test_the_result_of_a_cell_is_that_of_a_plain_run() -> None:
    with WireServer(learner) as server:
        found = good_json("sweep", write_sweep([compatible(server)]), "-q")
        words = ("--target", "label", "--prompt", "p.txt", "--max-calls", "150", "--price", "1,2", "--no-retrieval")
        plain = good_json("run", "rows.csv", *words, "-m", compatible(server), "-q", "--db", "plain.db")
    (cell,) = found["cells"]
    assert (cell["baseline"], cell["score"]) == (plain["baseline"]["test"], plain["winner"]["test"])
    assert cell["lift"] == {key: plain["lift"][key] for key in ("diff", "ci95", "p_value")}
    assert found["groups"][0]["lift"]["diff"] == pytest.approx(plain["lift"]["diff"])
    assert found["groups"][0]["lift"]["p_value"] == plain["lift"]["p_value"]
    assert Path(cell["release"]).is_file()


@pytest.mark.long
def test_a_killed_cell_is_gone_on_with_and_nothing_is_bought_twice() -> None:
    with WireServer(slow) as server:
        path = write_sweep([compatible(server)], (0, 1))
        process = start("sweep", str(path), "-q", "--json")
        wait_for(server, 30)
        (child,) = children(process)[:1]
        os.kill(child, signal.SIGKILL)
        out, err = process.communicate(200)
        assert process.returncode == 0, err
    found = json.loads(out)
    assert [cell["state"] for cell in found["cells"]] == ["finished"] * 2
    assert len(resumed()) == 1
    assert broken_cells() == {}


@pytest.mark.long
def test_ctrl_c_stops_cells_gently_and_the_same_command_goes_on() -> None:
    with WireServer(slow) as server:
        path = write_sweep([compatible(server)], (0, 1, 2))
        process = start("sweep", str(path), "--jobs", "2", "-q", "--json")
        wait_for(server, 40)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(100)
        assert process.returncode == 130, err
        assert out == ""
        assert "run the same command to continue it" in err
        states = {cell["state"] for cell in good_json("sweep", path, "--dry-run")["cells"]}
        assert states == {"partial", "not begun"}
        before = settled()
        found = good_json("sweep", path, "--jobs", "2", "-q")
        assert settled() == len(server.requests), "each request was settled once"
    assert before > 0
    assert resumed()
    assert broken_cells() == {}
    assert [cell["state"] for cell in found["cells"]] == ["finished"] * 3


@pytest.mark.long
def test_a_sweep_whose_process_is_killed_lets_its_cells_land() -> None:
    with WireServer(slow) as server:
        path = write_sweep([compatible(server)])
        process = start("sweep", str(path), "-q", "--json")
        wait_for(server, 30)
        (child,) = children(process)
        process.kill()
        process.wait(20)
        deadline = time.monotonic() + 30
        while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not Path(f"/proc/{child}").exists()
        (cell,) = good_json("sweep", path, "--dry-run")["cells"]
        assert cell["state"] == "partial"
        found = good_json("sweep", path, "-q")
    assert found["cells"][0]["state"] == "finished"
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


def test_all_that_is_wrong_with_a_file_is_said_at_once_with_its_line() -> None:
    files(80)
    Path("bad.toml").write_text(
        'name = "a/b"\n'
        "tasks = [1]\n"
        'models = ["m", "m"]\n'
        "seeds = [-1]\n"
        'strategies = ["evolv"]\n'
        "max_cost = -3\n"
        "[options]\n"
        "max_cals = 3\n"
        'effort = "lazy"\n'
        "price = [1]\n"
        "[[cells]]\n"
        'model = "other"\n'
        "max_calls = 0\n"
        "[resources]\n"
        "num_cpus = -1\n",
        "utf-8",
    )
    lines = refused(2, "sweep", "bad.toml")
    places = [line.removeprefix("error: ").split(":")[1] for line in lines if "bad.toml" in line]
    assert sorted(map(int, places)) == [1, 2, 3, 4, 5, 6, 8, 9, 10, 13, 15], lines
    assert any("did you mean 'max_calls'" in line for line in lines)


def test_every_cell_is_checked_before_anything_is_spent() -> None:
    with WireServer(learner) as server:
        path = write_sweep([compatible(server), "nosuch/kind", "openai/some"], (0, 1))
        lines = refused(2, "sweep", path)
        assert not server.requests
    assert any("unknown kind 'nosuch'" in line for line in lines)
    assert any("OPENAI_API_KEY" in line for line in lines)
    assert not list(FOLDER.glob("*.db"))
    assert len(lines) == 2, "once each, with the cells that have it"


def test_models_are_checked_where_the_task_cannot_be_read() -> None:
    path = write_sweep(["nosuch/kind", "openai/some"], (0, 1))
    Path("p.txt").unlink()
    lines = refused(2, "sweep", path)
    assert [word for word in ("p.txt", "unknown kind 'nosuch'", "OPENAI_API_KEY") if word in "".join(lines)] == [
        *("p.txt", "unknown kind 'nosuch'", "OPENAI_API_KEY")
    ]
    assert len(lines) == 3


def test_a_task_that_is_written_in_two_ways_stands_twice() -> None:
    path = write_sweep(["scripted/a.jsonl"])
    path.write_text(path.read_text("utf-8").replace('["rows.csv"]', '["rows.csv", "./rows.csv"]'), "utf-8")
    with pytest.raises(ProblemsError, match=r"tasks: '\./rows\.csv' is listed twice, also as 'rows\.csv'; keep one"):
        read_sweep(path)


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
    assert good("sweep", path).endswith("0 cells, $0.0000\n")


def finish(path: Path) -> str:
    """Runs the only cell of a sweep in this process; its name."""
    (cell,) = prepare_sweep(path).cells
    run_cell(cell.point.task, cell.arguments, cell.db)
    return cell.name


def test_a_finished_cell_of_other_files_is_refused_by_name() -> None:
    with WireServer(learner) as server:
        path = write_sweep([compatible(server)], more='proposer = "none"\ntrials = 1')
        name = finish(path)
        prompt, rows = (Path(file).read_text("utf-8") for file in ("p.txt", "rows.csv"))
        Path("p.txt").write_text("Another prompt.", "utf-8")
        for more in ((), ("--dry-run",)):
            (line,) = refused(2, "sweep", path, *more)
            said = (
                "p.txt (or how rows.csv is read) changed since this cell finished; put it back, or sweep into another"
            )
            assert line == f"error: small.toml: {name}: {said} folder (--folder)"
        Path("p.txt").write_text(prompt, "utf-8")
        Path("rows.csv").write_text(rows.replace("billing", "repair"), "utf-8")
        path.write_text(path.read_text("utf-8").replace("seeds = [0]", "seeds = [0, 1]"), "utf-8")
        assert any(f"{name}: rows.csv changed" in line for line in refused(2, "sweep", path))
        Path("rows.csv").write_text(rows, "utf-8")
        states = [cell["state"] for cell in good_json("sweep", path, "--dry-run")["cells"]]
    assert states == ["finished", "not begun"]


def test_caps_of_cells_are_within_the_cap_of_the_sweep() -> None:
    names = ["scripted/a.jsonl", "scripted/b.jsonl", "scripted/c.jsonl"]
    for name in "abc":
        Path(f"{name}.jsonl").write_text('{"reply": "billing"}\n', "utf-8")
    more = '[[cells]]\nmodel = "scripted/a.jsonl"\nmax_cost = 4\n'
    path = write_sweep(names, more=more)
    path.write_text(f"max_cost = 10\n{path.read_text('utf-8')}", "utf-8")
    caps = [cell.max_cost for cell in prepare_sweep(path).cells]
    assert caps == [4, 3, 3]
    path.write_text(path.read_text("utf-8").replace("max_cost = 10", "max_cost = 3"), "utf-8")
    with pytest.raises(ProblemsError, match=r"small.toml:1: max_cost = 3: cells have caps of 4"):
        prepare_sweep(path)
    path.write_text(path.read_text("utf-8").replace("max_cost = 3", "max_cost = 4", 1), "utf-8")
    with pytest.raises(ProblemsError, match="max_cost = 4: nothing left for 2 cells without a cap"):
        prepare_sweep(path)


def test_options_of_cells_make_other_cells() -> None:
    path = write_sweep(
        ["scripted/a.jsonl", "scripted/b.jsonl"], more='[[cells]]\nmodel = "scripted/a.jsonl"\ntrials = 1\n'
    )
    sweep = read_sweep(path)
    one, two = sweep.points
    assert sweep.options_of(one) == {**sweep.options, "trials": 1}
    assert sweep.options_of(two) == sweep.options


def test_a_file_takes_the_options_of_a_run() -> None:
    """All arguments of `optimize` but those that are axes, or no words of a file."""
    arguments = set(inspect.signature(pa.optimize).parameters)
    assert set(OPTIONS) == arguments - {*AXES, "name", "db", "progress", "track", "track_texts", "trace"}


def test_jobs_are_not_for_ray() -> None:
    result = optimize("sweep", write_sweep(["scripted/a.jsonl"]), "--ray", "auto", "--jobs", "2")
    assert result.exit_code == 2
    assert "[resources]" in result.stderr
