"""An option is declared once: every surface has it, and refuses a wrong value in the same words."""

from __future__ import annotations

import contextlib
import inspect
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import promptassay as pa
from agent.cli.declared import OptionType, command, job_command
from agent.errors import ProblemsError
from agent.jobs import JOBS as DECLARED
from agent.jobs.in_python import takes
from agent.jobs.sweep.cells import cells_of
from agent.jobs.sweep.file import read_sweep
from agent.options.kinds import seconds
from agent.options.option import JobOptions, option
from agent.options.run import TASK_RUN, RecordedOptions, RunOptions
from agent.options.shared import SEARCH
from agent.task.task_file import parse
from tests.cases import each_case

MODELS = list({id(model): model for name in DECLARED.names() for model in DECLARED.get(name).models.values()}.values())
"""The options of every job."""
WRONG: tuple[tuple[str, str, Any], ...] = (
    ("max_calls", "0", 0),
    ("detect", "200", 200),
    ("effort", "huge", "huge"),
    ("max_wait", "soon", "soon"),
    ("limit", "0", 0),
    ("seed", "-1", -1),
)
"""An option, and a value out of its range as a command line and a program write it."""


TASK = {"name": "toy", "description": "Sort notes.", "signature": "note -> team", "instruction": "Which team?"}


def sweep_with(folder: Path, line: str) -> Path:
    path = folder / "sweep.toml"
    path.write_text(f'tasks = ["toy"]\n[options]\n{line}\n', "utf-8")
    return path


def said(error: ProblemsError) -> str:
    (found,) = error.problems
    return found.what


@each_case(("name", "text", "value"), WRONG)
def test_a_range_error_reads_the_same_from_every_surface(name: str, text: str, value: Any, tmp_path: Path) -> None:
    what = RunOptions.problems({name: value})[name]
    assert what.startswith((f"{value}: write ", f"{value!r}: write ")), what
    flag = RunOptions.spelled(name)
    typed = CliRunner().invoke(job_command(DECLARED.get("run")), ["toy", flag, text])
    assert typed.exit_code == 2
    assert f"Invalid value for '{flag}': {what}" in " ".join(typed.output.split()) or f"': {what}" in typed.output
    with pytest.raises(ProblemsError) as program:
        pa.optimize("toy", **{name: value})
    assert said(program.value) == what
    if name in TASK_RUN:
        (fault,) = parse({**TASK, "run": {name: value}}).faults
        assert (fault.path, fault.what) == (("run", name), f"{name} = {what}")
    if name != "seed":  # an axis of a sweep
        with pytest.raises(ProblemsError) as file:
            read_sweep(sweep_with(tmp_path, f"{name} = {value!r}"))
        assert said(file.value) == f"{name} = {what}"


def test_one_more_field_is_an_option_of_every_surface(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class More(RunOptions):
        dummy: int | None = option(None, "Try something.", SEARCH, metavar="N", ge=1, le=9)

    @command(More)
    @click.argument("task")
    def run(options: More, task: str) -> None:
        click.echo(f"{task} {options.dummy} {sorted(options.model_fields_set)}")

    shown = CliRunner().invoke(run, ["--help-all"]).output
    assert "--dummy N" in shown
    assert "Try something." in shown
    assert CliRunner().invoke(run, ["toy", "--dummy", "3"]).output == "toy 3 ['dummy']\n"
    assert CliRunner().invoke(run, ["toy"], env={"OPTIMIZE_DUMMY": "4"}).output == "toy 4 ['dummy']\n"
    assert "'--dummy': 12: write a whole number from 1 to 9" in CliRunner().invoke(run, ["toy", "--dummy", "12"]).output

    @takes(More)
    def optimize(task: str, options: More) -> int | None:
        """Search.

        Args:
            task: a task.
            options: of the run.
        """
        return options.dummy

    assert optimize("toy", dummy=5) == 5
    assert inspect.signature(optimize).parameters["dummy"].annotation == "int | None"
    assert "dummy: Try something. (a whole number from 1 to 9)" in inspect.getdoc(optimize)
    assert More.of(More(dummy=7).stored()).dummy == 7, "what the ledger keeps"
    assert More.problems({"dummy": 0}) == {"dummy": "0: write a whole number from 1 to 9"}
    monkeypatch.setattr("agent.task.task_file.RunOptions", More)
    monkeypatch.setattr("agent.task.task_file.TASK_RUN", (*TASK_RUN, "dummy"))
    assert parse({**TASK, "run": {"dummy": 3}}).faults == ()
    monkeypatch.setattr("agent.jobs.sweep.file.RunOptions", More)
    monkeypatch.setattr("agent.jobs.sweep.file.OPTIONS", tuple(More.declared()))
    assert read_sweep(sweep_with(tmp_path, "dummy = 2")).options == {"dummy": 2}


@each_case("model", MODELS)
def test_every_option_has_a_help_text_a_flag_of_its_own_and_a_default_that_is_right(model: type[JobOptions]) -> None:
    declared = model.declared()
    assert model.problems({name: each.field.default for name, each in declared.items()}) == {}
    assert all(each.help.endswith(".") for each in declared.values())
    flags = [flag for each in declared.values() for flag in (each.flag, each.short) if flag]
    assert len(set(flags)) == len(flags)
    if model.__module__ == "agent.options.jobs":  # what the ledger and sweeps keep
        assert model.of(model().stored()) == model()


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "max_calls": st.integers(1, 10**9),
            "max_cost": st.floats(0, 1e6),
            "time_limit": st.one_of(st.floats(1, 1e6), st.sampled_from(["5m", "1h30m"])),
            "limit": st.one_of(st.integers(1, 99), st.tuples(*[st.integers(1, 99)] * 3)),
            "price": st.tuples(st.floats(0, 99), st.floats(0, 99)),
            "judge": st.one_of(st.text(max_size=5), st.lists(st.text(max_size=5))),
            "target": st.one_of(st.none(), st.text(max_size=5), st.lists(st.text(max_size=5), min_size=2)),
            "tag": st.dictionaries(st.text(min_size=1, max_size=3), st.text(max_size=3)),
            "cache": st.booleans(),
        },
    )
)
def test_the_ledger_gives_back_what_a_run_was_asked(values: dict[str, Any]) -> None:
    asked = RecordedOptions.of({**values, "task": "toy"})
    assert RecordedOptions.of(asked.stored()) == asked


@given(st.text(max_size=20))
def test_no_text_of_a_command_line_is_a_traceback(text: str) -> None:
    for name, each in RunOptions.declared().items():
        if each.kind is bool:
            continue
        with contextlib.suppress(click.BadParameter):
            OptionType(RunOptions, each).convert(text, None, None)
        if wrong := RunOptions.problems({name: text}):
            assert "write " in wrong[name]


def test_a_task_sets_options_of_its_runs_and_what_is_given_takes_precedence() -> None:
    assert parse({**TASK, "run": {"effort": "quick", "seed": 3}}).faults == ()
    (fault,) = parse({**TASK, "run": {"effrt": "quick"}}).faults
    assert "unknown key 'effrt'; did you mean 'effort'" in fault.what
    asked = RecordedOptions(task="toy", seed=5).filled({"effort": "quick", "seed": 3})
    assert (asked.effort, asked.seed) == ("quick", 5)
    assert RecordedOptions.of(asked.stored()).filled({"effort": "thorough"}).effort == "quick", "a resumed run"


def test_options_that_contradict_each_other_are_refused_before_anything_is_called() -> None:
    with pytest.raises(ProblemsError, match="margin: is the loss that prefer cheap accepts"):
        pa.optimize("toy", margin=3)
    with pytest.raises(ProblemsError, match="batch_wait: limits the wait for a batch; add batch"):
        pa.optimize("toy", batch_wait="1h")
    shown = CliRunner().invoke(job_command(DECLARED.get("run")), ["toy", "--margin", "3"])
    assert "--margin: is the loss that --prefer cheap accepts" in str(shown.exception)


def test_a_comparison_refuses_what_its_search_would() -> None:
    with pytest.raises(ProblemsError, match="margin: is the loss that prefer cheap accepts"):
        pa.customize("toy", margin=3)
    with pytest.raises(ProblemsError, match="settings: settings and tune both say"):
        pa.customize("toy", settings=2, tune=4)


def test_a_cell_gives_its_run_what_its_file_says_and_the_task_the_rest(tmp_path: Path) -> None:
    (cell,) = cells_of(read_sweep(sweep_with(tmp_path, 'effort = "quick"')), tmp_path)
    assert cell.arguments == {"effort": "quick", "seed": 0}
    asked = RecordedOptions(task="toy", **cell.arguments)
    assert asked.filled({"strategy": "dspy-gepa", "effort": "thorough"}).strategy == "dspy-gepa"


def test_seconds_are_above_zero_and_a_word_is_none() -> None:
    assert (seconds("1h30m"), seconds(90)) == (5400.0, 90.0)
    for wrong in ("", "h", -1, 0, True, float("nan"), "1e3", [1]):
        with pytest.raises(ValueError, match="write seconds above 0"):
            seconds(wrong)
