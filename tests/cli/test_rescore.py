"""An export is scored again on the dev rows of its run, through the exported files, and any drift is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.errors import InputError, ReleaseError
from agent.jobs.tasks import task_of
from agent.ledger.query import History
from agent.options.jobs import RecordedOptions
from agent.release.formats.export_format import FORMATS, Format, Material, Opened, Parse, Sent, Values
from agent.release.formats.proof import DevRun, dev_run, verify_exports
from agent.release.formats.python_module import load_module
from agent.release.runtime import MESSAGES_FILE, PromptRelease, load_prompt
from agent.types import Example, Prediction, Score, Task
from tests.cli.world import good
from tests.conftest import Made

DB = Path("runs/ledger.db")


def released(run: dict[str, Any]) -> PromptRelease:
    return load_prompt(Path(run["release"]).with_name(MESSAGES_FILE)).release


def known(run: dict[str, Any], change: Callable[[Task], Task] = lambda task: task) -> DevRun:
    history = History(DB)
    try:
        found = history.run(run["run_id"])
        task = change(task_of(RecordedOptions.of(found["options"])))
        return dev_run(history, found, task, str(released(run).provenance["candidate_id"]))
    finally:
        history.close()


def notes(form: Format, run: dict[str, Any], **changes: Any) -> list[str]:
    (one,) = verify_exports([form], {form.name: Material(replace(released(run), **changes))}, dev=known(run))
    return list(one.notes())


SAME = dict.fromkeys(("md", "messages", "python", "mlflow"), "requests")
SAME |= dict.fromkeys(("anthropic", "dspy"), "messages, max_tokens and temperature") | {"langchain": "messages"}


@pytest.mark.parametrize("name", SAME)
def test_every_dev_row_makes_the_call_of_the_run_and_scores_as_in_it(two_runs: Made, name: str) -> None:
    form, run = FORMATS.get(name), two_runs[0]
    if form.library and not form.find_library(form.library):
        pytest.skip(f"{form.library} is not installed: {form.install}")
    dev = known(run)
    (one,) = verify_exports([form], {name: Material(released(run))}, dev=dev)
    assert one.dev is not None
    assert (one.dev.rows, one.dev.unfit) == (len(dev.rows), 0)
    assert one.dev.score == pytest.approx(run["winner"]["dev"])
    (note,) = [note for note in one.notes() if f"{one.dev.rows} dev rows rendered" in note]
    assert f", the same {SAME[name]}, score " in note


def rendering(change: Callable[[Sent], None], word: str) -> Format:
    """The python export, which renders rows that hold `word` otherwise."""
    python = FORMATS.get("python")

    def load(folder: Path, release: PromptRelease) -> Opened:
        opened = python.load(folder, release)
        render = opened.render
        assert render is not None

        def changed(values: Values) -> Sent:
            sent = render(values)
            if word in values["text"]:
                change(sent)
            return sent

        return replace(opened, render=changed)

    return replace(python, load=load)


def test_a_dev_row_that_is_sent_otherwise_is_refused_by_its_id_though_hostile_rows_are_right(two_runs: Made) -> None:
    row = known(two_runs[0]).rows[3].row
    word = row.inputs["text"]
    form = rendering(lambda sent: sent[-1].update(content=sent[-1]["content"] + " "), word)
    with pytest.raises(ReleaseError, match=f"python, dev row {row.id}: message .* drifts at character"):
        notes(form, two_runs[0])


def test_a_parameter_that_the_run_did_not_send_is_refused(two_runs: Made) -> None:
    parameters = {**released(two_runs[0]).parameters, "max_tokens": 999}
    with pytest.raises(ReleaseError, match=r"is sent with \{'max_tokens': 999.*as in the run"):
        notes(FORMATS.get("python"), two_runs[0], parameters=parameters)


def reading(read: Parse) -> Format:
    python = FORMATS.get("python")
    return replace(python, load=lambda folder, release: replace(python.load(folder, release), parse=read))


def test_a_target_that_reads_replies_otherwise_is_refused(two_runs: Made) -> None:
    with pytest.raises(ReleaseError, match=r"the reply to dev row .* reads as '\{\"label\":\"other\"\}', in the run"):
        notes(reading(lambda values, reply: Prediction({"label": "other"}, reply)), two_runs[0])
    with pytest.raises(ReleaseError, match="reads as 'unreadable', in the run"):
        notes(reading(lambda values, reply: Prediction({}, reply, "no")), two_runs[0])


def test_python_is_scored_through_its_own_parser(two_runs: Made) -> None:
    python = FORMATS.get("python")

    def files(material: Material) -> dict[str, str]:
        otherwise = "\n\nparse = lambda reply: Prediction({}, reply, 'no')\n"
        return {name: f"{text}{otherwise}" for name, text in python.files(material).items()}

    def load(folder: Path, release: PromptRelease) -> Opened:  # does not try `parse` on replies of its own
        module = load_module(folder / "prompt.py", "exported")
        return Opened(lambda values: list(module.render(**values)), parse=lambda values, reply: module.parse(reply))

    with pytest.raises(ReleaseError, match=r"python: the reply to dev row .* reads as 'unreadable', in the run"):
        notes(replace(python, files=files, load=load), two_runs[0])


def test_dspy_is_scored_through_its_own_program(two_runs: Made) -> None:
    dspy = FORMATS.get("dspy")

    def files(material: Material) -> dict[str, str]:
        return {
            name: text.replace("**read.fields}", "**dict.fromkeys(OUTPUTS, 'x')}")
            for name, text in dspy.files(material).items()
        }

    with pytest.raises(ReleaseError, match=r"dspy: the reply to dev row .* reads as"):
        notes(replace(dspy, files=files), two_runs[0])


def test_a_score_that_the_metric_no_longer_gives_is_refused(two_runs: Made) -> None:
    dev = known(two_runs[0])
    first = replace(dev.rows[0], value=1.0 - (dev.rows[0].value or 0.0))
    material = {"python": Material(released(two_runs[0]))}
    with pytest.raises(ReleaseError, match=f"dev row {first.row.id} scores .*, in the run"):
        verify_exports([FORMATS.get("python")], material, dev=replace(dev, rows=(first, *dev.rows[1:])))
    with pytest.raises(ReleaseError, match=r"the trial has 1\.0"):
        verify_exports([FORMATS.get("python")], material, dev=replace(dev, score=0.01))


def test_a_metric_that_raises_now_is_told_with_its_row_on_one_line(
    two_runs: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        async def score(self, example: Example, prediction: Prediction) -> Score:
            return Score("python", None, "metric.py:3: RuntimeError: boom\nand more")

    monkeypatch.setattr("agent.release.formats.proof.build_metrics", lambda task, judges: [Broken()])
    with pytest.raises(ReleaseError, match=r"dev row \S+ cannot be scored again: metric\.py:3: .* boom and more$"):
        notes(FORMATS.get("python"), two_runs[0])


def test_rows_that_a_target_cannot_carry_are_counted(two_runs: Made) -> None:
    word = known(two_runs[0]).rows[0].row.inputs["text"]
    form = replace(FORMATS.get("python"), unfit=lambda release, values: "it" if values["text"] == word else "")
    assert "; it cannot hold 1 more" in " ".join(notes(form, two_runs[0]))


def test_what_cannot_be_scored_again_is_said(two_runs: Made) -> None:
    run = two_runs[0]
    with pytest.raises(InputError, match="the dev rows of the task changed since the run"):
        known(run, lambda task: replace(task, hashes={**task.hashes, "dev": "other"}))
    with pytest.raises(InputError, match=r"task\.toml of the task changed"):
        known(run, lambda task: replace(task, hashes={**task.hashes, "task.toml": "other"}))
    history = History(DB)
    found = history.run(run["run_id"])
    task = task_of(RecordedOptions.of(found["options"]))
    pruned = next(each for each in history.trials(found["id"]) if each["state"] == "pruned" and each["number"])
    with pytest.raises(InputError, match=rf"its trial ended after {pruned['n']} of \d+ dev rows"):
        dev_run(history, found, task, pruned["candidate_id"])
    with pytest.raises(InputError, match="no score of c_0 on dev"):
        dev_run(history, found, task, "c_0")
    history.close()


def test_replies_that_were_erased_are_not_scored_again(two_runs: Made) -> None:
    text = known(two_runs[0]).rows[0].row.inputs["text"]
    good("audit", "erase", "--containing", text, "--actor", "me", "--reason", "asked to", "--yes")
    with pytest.raises(InputError, match="erased from the ledger"):
        known(two_runs[0])


def test_the_command_tells_it_for_people_and_as_json(two_runs: Made) -> None:
    run = two_runs[0]
    told = json.loads(good("export", run["run_id"], "--format", "md", "--format", "python", "-o", "out", "--json"))
    assert [one["format"] for one in told["formats"]] == ["md", "python"]
    assert all(one["dev"]["score"] == pytest.approx(run["winner"]["dev"]) for one in told["formats"])
    assert sorted(told["files"]) == ["out/prompt.md", "out/prompt.py"]
    assert told["not_scored_again"] == ""
