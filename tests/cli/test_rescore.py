"""An export is scored again on the dev rows of its run, through the exported files, and any drift is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.errors import InputError, ReleaseError
from agent.jobs.tasks import task_of
from agent.ledger.query import History
from agent.options.run import RecordedOptions
from agent.release.formats.export_format import FORMATS, Format, Material, Opened, Sent, Values
from agent.release.formats.module_proof import load_module
from agent.release.formats.proof import DevRun, dev_run, verify_exports
from agent.release.runtime import MESSAGES_FILE, PromptRelease, load_prompt
from agent.types import Example, Prediction, Score, Task
from tests.cli.world import good, good_json
from tests.conftest import Made

DB = Path("runs/ledger.db")
PYTHON = FORMATS.get("python")


def released(run: dict[str, Any]) -> PromptRelease:
    return load_prompt(Path(run["release"]).with_name(MESSAGES_FILE)).release


@contextmanager
def recorded(run: dict[str, Any]) -> Iterator[tuple[History, Any, Task]]:
    with closing(History(DB)) as history:
        found = history.run(run["run_id"])
        yield history, found, task_of(RecordedOptions.of(found["options"]))


def known(run: dict[str, Any], **hashes: str) -> DevRun:
    with recorded(run) as (history, found, task):
        task = replace(task, hashes={**task.hashes, **hashes})
        return dev_run(history, found, task, str(released(run).provenance["candidate_id"]))


def notes(form: Format, run: dict[str, Any], dev: DevRun | None = None, **changes: Any) -> list[str]:
    (one,) = verify_exports([form], {form.name: Material(replace(released(run), **changes))}, dev=dev or known(run))
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
    assert (one.dev.rows, one.dev.unfit, one.dev.score) == (len(dev.rows), 0, pytest.approx(run["winner"]["dev"]))
    (note,) = [note for note in one.notes() if f"{one.dev.rows} dev rows rendered" in note]
    assert f", the same {SAME[name]}, score " in note


def rendering(word: str) -> Format:
    """The python export, which renders rows that hold `word` with a blank more."""

    def load(folder: Path, release: PromptRelease) -> Opened:
        opened = PYTHON.load(folder, release)

        def changed(values: Values) -> Sent:
            assert opened.render is not None
            sent = opened.render(values)
            if word in values["text"]:
                sent[-1].update(content=sent[-1]["content"] + " ")
            return sent

        return replace(opened, render=changed)

    return replace(PYTHON, load=load)


def reading(found: dict[str, str], error: str = "") -> Format:
    def load(folder: Path, release: PromptRelease) -> Opened:
        return replace(PYTHON.load(folder, release), parse=lambda values, reply: Prediction(found, reply, error))

    return replace(PYTHON, load=load)


def parsing() -> Format:
    """The python export whose own file reads nothing."""
    otherwise = "\n\nparse = lambda reply: Prediction({}, reply, 'no')\n"

    def load(folder: Path, release: PromptRelease) -> Opened:  # without trying `parse` on sample replies
        module = load_module(folder / "prompt.py", "exported")
        return Opened(lambda values: list(module.render(**values)), parse=lambda values, reply: module.parse(reply))

    return _edited(PYTHON, lambda text: text + otherwise, load=load)


def _edited(form: Format, change: Callable[[str], str], **more: Any) -> Format:
    return replace(form, files=lambda made: {name: change(text) for name, text in form.files(made).items()}, **more)


def program() -> Format:
    return _edited(FORMATS.get("dspy"), lambda text: text.replace("**read.fields}", "**dict.fromkeys(OUTPUTS, 'x')}"))


@pytest.mark.parametrize(
    ("form", "says"),
    [
        (rendering, "python, dev row ROW: message .* drifts at character"),
        (lambda word: reading({"label": "other"}), r"dev row .* reads as '\{\"label\":\"other\"\}', in the run"),
        (lambda word: reading({}, "no"), "reads as 'unreadable', in the run"),
        (lambda word: parsing(), r"python: the reply to dev row .* reads as 'unreadable', in the run"),
        (lambda word: program(), r"dspy: the reply to dev row .* reads as"),
    ],
)
def test_drift_is_refused(two_runs: Made, form: Callable[[str], Format], says: str) -> None:
    dev = known(two_runs[0])
    with pytest.raises(ReleaseError, match=says.replace("ROW", dev.rows[3].row.id)):
        notes(form(dev.rows[3].row.inputs["text"]), two_runs[0], dev)


def test_other_parameters_scores_and_metrics_are_refused(two_runs: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    run, dev = two_runs[0], known(two_runs[0])
    with pytest.raises(ReleaseError, match=r"is sent with \{'max_tokens': 999.*as in the run"):
        notes(PYTHON, run, dev, parameters={**released(run).parameters, "max_tokens": 999})
    first = replace(dev.rows[0], value=1.0 - (dev.rows[0].value or 0.0))
    with pytest.raises(ReleaseError, match=f"dev row {first.row.id} scores .*, in the run"):
        notes(PYTHON, run, replace(dev, rows=(first, *dev.rows[1:])))
    with pytest.raises(ReleaseError, match=r"the trial has 1\.0"):
        notes(PYTHON, run, replace(dev, score=0.01))

    class Broken:
        async def score(self, example: Example, prediction: Prediction) -> Score:
            return Score("python", None, "metric.py:3: RuntimeError: boom\nand more")

    monkeypatch.setattr("agent.release.formats.proof.build_metrics", lambda task, judges: [Broken()])
    with pytest.raises(ReleaseError, match=r"dev row \S+ cannot be scored again: metric\.py:3: .* boom and more$"):
        notes(PYTHON, run, dev)


def test_what_cannot_be_carried_or_scored_again_is_said(two_runs: Made) -> None:
    run, dev = two_runs[0], known(two_runs[0])
    word = dev.rows[0].row.inputs["text"]
    form = replace(PYTHON, unfit=lambda release, values: "it" if values["text"] == word else "")
    assert " 1 more" in " ".join(notes(form, run, dev))
    for name, says in (("dev", "the dev rows of the task changed since the run"), ("task.toml", "of the task changed")):
        with pytest.raises(InputError, match=says):
            known(run, **{name: "other"})
    with recorded(run) as (history, found, task):
        pruned = next(each for each in history.trials(found["id"]) if each["state"] == "pruned" and each["number"])
        for candidate, says in (
            (pruned["candidate_id"], rf"ended after {pruned['n']} of \d+ dev rows"),
            ("c_0", "no score"),
        ):
            with pytest.raises(InputError, match=says):
                dev_run(history, found, task, candidate)
    good("audit", "erase", "--containing", word, "--actor", "me", "--reason", "asked to", "--yes")
    with pytest.raises(InputError, match="erased from the ledger"):
        known(run)


def test_the_command_tells_it_as_json(two_runs: Made) -> None:
    run = two_runs[0]
    told = good_json("export", run["run_id"], "--format", "md", "--format", "python", "-o", "out")
    assert [one["dev"]["score"] for one in told["formats"]] == [pytest.approx(run["winner"]["dev"])] * 2
    assert (sorted(told["files"]), told["not_scored_again"]) == (["out/prompt.md", "out/prompt.py"], "")
