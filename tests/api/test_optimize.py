"""`pa.optimize`: rows, files and folders, a function as metric, in and out of a loop."""

import asyncio
import csv
import json
import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas
import pytest

import promptassay as pa
from agent.errors import ProblemsError
from agent.scoring import task_metrics
from tests.cli.test_interrupt import told
from tests.cli.world import (
    INSTRUCTION,
    files,
    good,
    good_json,
    learner,
    optimize,
    refused,
    write_csv,
    write_lines,
)
from tests.scripted import Toys

SMALL = {"max_calls": 200, "proposer": "none"}


def table(count: int = 120) -> list[dict[str, Any]]:
    with write_csv(Path("made.csv"), count).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_rows_and_a_function_make_a_release_that_all_commands_can_read(
    toys: Toys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What docs/python.md shows, and what another process can do with a run that a function scored."""

    @pa.metric("close_enough")
    def close_enough(row: dict[str, Any], answer: str) -> float:
        return float(answer == row["label"])

    own = {"target": "label", "prompt": INSTRUCTION, "metric": "close_enough", "name": "notes"}
    result = pa.optimize(table(), model=toys(learner).name, **own, **SMALL)
    assert (result.decision, result.task) == ("promote", "notes")
    assert result.winner.test is not None
    assert result.baseline.test is not None
    assert result.lift.ci95[0] > 0
    assert result.winner.test > result.baseline.test
    assert result.release.load().render(text="where is my parcel")[-1]["content"].endswith("parcel")
    assert [part["metric"] for part in result.to_json()["metrics"]] == ["readable", "close_enough"]
    assert result.to_json() == json.loads(good("show", "--json"))["result"]
    assert repr(result).startswith(f"<RunResult {result.run_id} of notes: ")
    assert "<svg" in result._repr_html_()
    (folder,) = Path("runs/tasks").iterdir()
    kept = {path.name: path for path in folder.iterdir()}
    assert set(kept) == {"notes.jsonl", "prompt.txt"}
    assert {path.stat().st_mode & 0o777 for path in kept.values()} == {0o600}
    assert kept["prompt.txt"].read_text("utf-8") == INSTRUCTION
    assert good_json("reproduce")["same"]
    assert {"example_id", "input.text"} <= set(pa.load_run().outcomes_df().columns)

    monkeypatch.setattr(task_metrics, "_REGISTERED", {})
    assert "its metric close_enough is a Python function" in refused(2, "reproduce")[-1]
    assert good("audit", "verify").startswith("whole: ")
    assert "cannot be loaded" not in good("audit", "check")
    good("export", result.run_id, "--format", "finetune-jsonl", "-o", "rows.out.jsonl")
    assert Path("rows.out.jsonl").stat().st_size
    done = optimize("export", "-o", "prompt.md")
    assert done.exit_code == 0
    assert "not scored again: " in done.stderr
    assert "close_enough" in done.stderr
    with pytest.raises(pa.InputError, match="no function is registered as 'close_enough'"):
        pa.optimize(table(), **own)


def test_a_table_a_list_and_a_file_of_the_same_rows_are_the_same_task(toys: Toys) -> None:
    rows = table()
    write_lines("rows.jsonl", rows)
    own = {"target": "label", "prompt": INSTRUCTION, "model": toys(learner).name, **SMALL}
    listed = pa.optimize(rows, **own)
    framed = pa.optimize(pandas.DataFrame(rows), **own)
    from_file = pa.optimize("rows.jsonl", **own)
    assert framed.winner == listed.winner
    assert framed.lift == listed.lift
    assert framed.calls["cached"] > 0
    assert sum(framed.calls_made.values()) == 0
    assert from_file.winner == listed.winner
    assert len(list(Path("runs/tasks").iterdir())) == 2  # rows and prompt, and the prompt beside a file


def test_the_command_line_comes_to_the_same_end(toys: Toys) -> None:
    command, name = files(120), toys(learner).name
    ours = pa.optimize("rows.csv", target="label", prompt="p.txt", model=name, seed=3, db="a/ledger.db", **SMALL)
    words = ["--max-calls", "200", "--proposer", "none", "--seed", "3", "-m", name, "-q"]
    assert told(ours.to_json()) == told(good_json(*command, *words, "--db", "b/ledger.db"))
    runs = [good_json("runs", "--db", db)["runs"][0] for db in ("a/ledger.db", "b/ledger.db")]
    assert runs[0].keys() == runs[1].keys()
    assert ours.ledger == Path("a/ledger.db")


def test_it_runs_where_a_loop_runs_already(toys: Toys) -> None:
    """As in a notebook: the cell itself runs in the kernel's loop."""
    given = {"target": "label", "prompt": INSTRUCTION, "model": toys(learner).name}
    rows, beats = table(), 0

    async def cell() -> pa.RunResult:
        return pa.evaluate(rows, max_calls=100, **given)

    async def beat() -> None:
        nonlocal beats
        while True:
            await asyncio.sleep(0.005)
            beats += 1

    async def program() -> pa.RunResult:
        task = asyncio.create_task(beat())
        result = await pa.aoptimize(rows, **given, **SMALL)
        task.cancel()
        return result

    scored, found = asyncio.run(cell()), asyncio.run(program())
    assert scored.winner.instruction == INSTRUCTION
    assert scored.to_json()["trials"]["complete"] == 1
    assert found.decision == "promote"
    assert beats > 3  # the loop of the program went on meanwhile


def test_what_a_run_says_goes_to_the_log_and_its_state_to_the_callback(
    toys: Toys, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[str] = []
    given = {"target": "label", "prompt": INSTRUCTION, "model": toys(learner).name, "max_calls": 100}
    with caplog.at_level(logging.INFO, logger="promptassay"):
        pa.evaluate(table(), progress=lambda snapshot: seen.append(snapshot.stage), **given)
    assert "sealed test" in seen
    assert any(line.startswith("plan: ") for message in caplog.messages for line in message.splitlines())
    assert {record.name for record in caplog.records if record.name.startswith("promptassay")} == {"promptassay"}


def test_tracing_is_switched_off_in_the_process_and_that_is_a_warning(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANGSMITH_TRACING", "true")
    with pytest.raises(pa.InputError):
        pa.optimize("nothing")
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("promptassay", "WARNING")
    assert record.message.startswith("tracing is off: LANGSMITH_TRACING ignored")
    assert "LANGSMITH_TRACING" not in os.environ


def test_all_that_is_wrong_is_told_at_once_and_nothing_is_called_or_kept(toys: Toys) -> None:
    rows: list[Any] = [*table(), "a text", {"text": float("nan"), "label": "billing"}, {"text": {1, 2}, "label": "x"}]
    model = toys(learner)
    wrong: dict[str, Any] = {"prompt": " ", "metric": lambda answer: 1.0, "max_calls": 0, "max_cost": -1}
    wrong |= {"effort": "huge", "time_limit": "soon", "seed": -1, "name": "a/b"}
    with pytest.raises(ProblemsError) as error:
        pa.optimize(rows, model=model.name, **wrong)
    assert [problem.where for problem in error.value.problems] == [
        "max_calls", "max_cost", "effort", "time_limit", "seed", "row 120", "row 121", "row 122", "name", "target",
        "prompt", "metric",
    ]  # fmt: skip
    assert error.value.exit_code == 2
    assert not model.seen
    assert not Path("runs").exists()


def test_rows_that_make_no_task_are_not_kept() -> None:
    with pytest.raises(pa.InputError, match="at least 30 are needed"):
        pa.optimize(table()[:20], target="label", prompt=INSTRUCTION)
    with pytest.raises(pa.InputError, match="is not a column"):
        pa.optimize(table(), target="nothing", prompt=INSTRUCTION)
    with pytest.raises(pa.InputError, match="prompt: 3: write a text"):
        pa.optimize(table(), target="label", prompt=3)  # type: ignore[arg-type]
    with pytest.raises(pa.InputError, match="row 120: 'text': holds half a character"):
        pa.optimize([*table(), {"text": "\ud800", "label": "billing"}], target="label", prompt=INSTRUCTION)
    with pytest.raises(pa.AgentError, match="too few"):
        pa.optimize(table(), target="label", prompt=INSTRUCTION, max_calls=20)
    assert not list(Path("runs/tasks").iterdir())


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (42, "is int; give a path"),
        ({"text": "x"}, "is dict; give a path"),
        (pandas.DataFrame([[1, 2]], columns=["a", "a"]), "give each column a different name"),
    ],
)
def test_what_is_no_task_is_refused(task: Any, said: str) -> None:
    with pytest.raises(pa.InputError, match=said):
        pa.optimize(task, target="a", prompt="x")


def test_an_argument_that_is_not_known_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="max_call"):
        pa.evaluate("x", max_call=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="no trials"):
        pa.evaluate("x", trials=3)


def test_a_task_object_is_the_folder_that_it_was_loaded_from(toys: Toys) -> None:
    good("init", "mine", "--from", str(write_csv(Path("rows.csv"), 120)), "--target", "label")
    task, name = pa.load_task("tasks/mine"), toys(learner).name
    assert pa.evaluate(task, model=name, max_calls=100).task == "mine"
    with pytest.raises(pa.InputError, match="was changed after it was loaded"):
        pa.evaluate(replace(task, instruction="Other."), model=name)


def test_a_misspelled_argument_is_told_with_the_one_that_is_meant() -> None:
    with pytest.raises(TypeError, match=r"'max_call'; did you mean 'max_calls'\?$"):
        pa.optimize("mine.csv", max_call=50)  # type: ignore[call-arg]
