"""A comparison from end to end: the same sealed rows for all, what is in the ledger, what is shown and shipped."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

import promptassay as pa
from agent.jobs.customize.arms import ARMS, bare_prompt, instructed_prompt, prompt_arms
from agent.jobs.customize.forgetting import other_tasks
from agent.jobs.customize.plan import require_arms
from agent.jobs.customize.table import rows_a_label
from agent.jobs.recorded import recorded_prompt
from agent.ledger.query import History
from agent.models.adapters import Adapter
from agent.release.runtime import load_prompt
from tests.cli.world import good, good_json, optimize, refused
from tests.customize.conftest import Made
from tests.toys import make_task

LEDGER = Path("runs/ledger.db")
WORDS = ["rows.csv", "--target", "label", "--prompt", "p.txt", "-m", "local/tiny.gguf"]


def events(run: str, kind: str) -> list[dict[str, Any]]:
    with contextlib.closing(History(LEDGER)) as history:
        found = history.select("SELECT body FROM events WHERE run_id = ? AND kind = ? ORDER BY seq", run, kind)
    return [json.loads(row["body"]) for row in found]


def by_name(made: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {arm["arm"]: arm for arm in made["arms"]}


def test_every_arm_answers_the_sealed_rows_that_the_search_opened(compared: Made) -> None:
    search, made = compared
    assert made["of_run"] == search["run_id"]
    arms = by_name(made)
    assert {"yours", "best", "retrieved", "lora", "lora+prompt", "classifier", "nearest"} <= set(arms)
    with contextlib.closing(History(LEDGER)) as history:
        base = history.trials(search["run_id"], [0])[0]["candidate_id"]
        opened = {row["example_id"] for row in history.outcomes(search["run_id"], base, "test")}
        for arm in arms.values():
            rows = history.outcomes(made["run_id"], arm["candidate_id"], "test")
            assert {row["example_id"] for row in rows} == opened
            assert arm["test"] == pytest.approx(sum(row["value"] for row in rows) / len(rows))
    assert made["rows"]["test"] == len(opened)
    assert arms["yours"]["diff"] is None
    assert arms["classifier"]["test"] > 0.8  # its words tell the label; the model says noise
    assert made["advice"]["verdict"] == "no model"
    assert len(events(made["run_id"], "test_opened")) == 1


def test_prompts_are_taken_by_dev_and_never_by_the_sealed_test(compared: Made) -> None:
    search, _ = compared
    specs, unknown = require_arms(["best", "retrieved"])
    assert not unknown
    with contextlib.closing(History(LEDGER)) as history:
        found = prompt_arms(history, history.run(search["run_id"]), specs)
        trials = {trial["number"]: trial for trial in history.trials(search["run_id"])}
        means = {trial["candidate_id"]: trial["mean"] for trial in trials.values()}
        picking = [
            trial
            for trial in trials.values()
            if trial["state"] == "complete" and history.candidate(trial["candidate_id"])["picks"]
        ]
    assert list(found) == ["yours", "best", "retrieved"]
    assert found["yours"].id == trials[0]["candidate_id"]
    assert found["best"].id == search["winner"]["candidate_id"]
    assert means[found["retrieved"].id] == max(trial["mean"] for trial in picking)


def test_an_arm_is_asked_the_bare_input_or_the_instruction_without_examples(compared: Made) -> None:
    search, _ = compared
    with contextlib.closing(History(LEDGER)) as history:
        tried = [history.candidate(trial["candidate_id"]) for trial in history.trials(search["run_id"])]
    best = recorded_prompt(next(each for each in tried if each["picks"]))
    made = instructed_prompt(best)
    assert (made.instruction, made.format) == (best.instruction, best.format)
    assert (made.demos, made.picks, made.calibration, made.technique) == ((), None, None, "zero-shot")
    task = make_task(12)
    assert bare_prompt(task).instruction == "Classify."
    assert sum(rows_a_label(task).values()) == len(task.train)


def test_the_ledger_can_tell_what_was_trained_on_what_and_how(compared: Made) -> None:
    _, made = compared
    before, after = (events(made["run_id"], kind) for kind in ("training", "trained"))
    names = [(arm, size) for size in (16, 24, made["rows"]["train"]) for arm in ("lora", "lora+prompt")]
    assert [(one["arm"], one["labels"]) for one in before] == [(one["arm"], one["labels"]) for one in after] == names
    for one, two in zip(before, after, strict=True):
        assert len(set(one["rows"])) == one["labels"]
        assert one["seed"] == one["settings"]["seed"] == 0
        assert one["settings"] == two["settings"]
        assert set(one["versions"]) == {"promptassay", "numpy"}
        assert two["losses"]
        assert all(loss > 0 for loss in two["losses"])
    assert before[0]["rows"] == before[1]["rows"] == before[2]["rows"][:16]
    assert len({one["train"] for one in before}) == 3


def test_the_curve_has_each_arm_that_learns_with_each_number_of_rows(compared: Made) -> None:
    _, made = compared
    arms, train = by_name(made), made["rows"]["train"]
    points = {(line["arm"], line["labels"]): line for line in made["curve"]}
    assert {size for _, size in points} == {16, 24, train}
    assert {arm for arm, _ in points} == {"retrieved", "lora", "lora+prompt", "classifier", "nearest"}
    assert len(points) == len(made["curve"]) == 15
    for (arm, size), line in points.items():
        if size == train:
            assert (line["test"], line["ci95"]) == (arms[arm]["test"], arms[arm]["ci95"])
    assert made["curve_text"].startswith("Of the arms that learn ")


def test_a_second_comparison_asks_nothing_again_and_trains_nothing_again(compared: Made) -> None:
    _, made = compared
    again = good_json("customize", *WORDS, "--arms", "best,lora", "-q")
    assert [arm["arm"] for arm in again["arms"]] == ["yours", "best", "lora"]
    assert again["calls"].get("model", 0) == 0
    adapters = [
        {one["adapter"] for one in events(run, "trained") if one["arm"] == "lora" and one["labels"] > 24}
        for run in (made["run_id"], again["run_id"])
    ]
    assert adapters[0] == adapters[1]
    assert by_name(again)["lora"]["test"] == by_name(made)["lora"]["test"]
    assert good("audit", "verify").startswith("whole: ")


def test_seeds_show_a_spread_and_the_arm_is_the_first(compared: Made) -> None:
    _, made = compared
    words = ["customize", *WORDS, "--arms", "lora", "--seeds", "2"]
    plan = good_json(*words, "--dry-run")
    assert (plan["of_run"], plan["arms"], plan["trainings"]) == (made["of_run"], ["yours", "lora"], 3 + 1)
    again = good_json(*words, "-q")
    lora = by_name(again)["lora"]
    each = lora["seeds"]["each"]
    assert [one["seed"] for one in each] == [0, 1]
    assert each[0]["test"] == lora["test"] == by_name(made)["lora"]["test"]
    assert lora["seeds"]["min"] <= lora["seeds"]["mean"] <= lora["seeds"]["max"]
    first, second = events(again["run_id"], "trained")
    assert (first["settings"]["seed"], second["settings"]["seed"]) == (0, 1)
    assert first["adapter"] != second["adapter"]
    assert again["calls"]["model"] + again["calls"]["cached"] <= plan["calls"]


def test_dev_chooses_the_settings_and_the_ledger_has_what_it_saw(compared: Made) -> None:
    _, made = compared
    chosen = events(made["run_id"], "settings_chosen")
    assert [line["arm"] for line in made["settings"]] == [line["arm"] for line in chosen] == ["lora", "lora+prompt"]
    for line, arm in zip(made["settings"], ("lora", "lora+prompt"), strict=True):
        losses = [each["dev_loss"] for each in line["tried"]]
        best = line["tried"][losses.index(min(losses))]
        assert {line["chosen"][name] == best[name] for name in ("learning_rate", "rank")} == {True}
        trained = [one for one in events(made["run_id"], "trained") if one["arm"] == arm]
        assert {one["settings"]["learning_rate"] for one in trained} == {best["learning_rate"]}
        assert by_name(made)[arm]["train_s"] >= trained[-1]["seconds"] - 0.1
    epochs = events(made["run_id"], "training_epoch")
    assert {one["name"] for one in epochs} > {"lora", "lora+prompt"}
    assert all(one["losses"] for one in epochs)


def test_an_adapter_is_tried_on_other_tasks(compared: Made) -> None:
    _, made = compared
    for name, arm in by_name(made).items():
        if arm["family"] != "tuned":
            assert arm["elsewhere"] is None
            continue
        assert [one["task"] for one in arm["elsewhere"]["tasks"]] == ["support_triage", "word_problems"], name
        assert {one["n"] for one in arm["elsewhere"]["tasks"]} == {6}
    assert [task.name for task in other_tasks("support_triage")] == ["word_problems", "clinic_intake"]


def test_python_gets_the_same_comparison_typed(compared: Made) -> None:
    _, made = compared
    found = pa.customize("rows.csv", target="label", prompt="p.txt", model="local/tiny.gguf", arms=["best", "lora"])
    assert [arm.arm for arm in found.arms] == ["yours", "best", "lora"]
    assert found.of_run == made["of_run"]
    lora, line = found.arms[2], by_name(made)["lora"]
    assert (lora.test, lora.ci95, lora.diff) == (line["test"], tuple(line["ci95"]), line["diff"])
    assert lora.path is not None
    assert pa.load_prompt(lora.path).release.adapter is not None
    assert (found.arm, found.verdict) == ("best", "instruct")
    assert found.curve == ()
    assert found.to_json()["advice"]["text"] == found.text


@pytest.mark.long
def test_a_training_is_two_short_lines_and_not_one_for_each_step(compared: Made) -> None:
    for file in Path("runs/adapters").iterdir():
        file.unlink()
    done = optimize("customize", *WORDS, "--arms", "lora,lora+prompt")
    assert done.exit_code == 0, done.output
    lines = [line for line in done.stderr.splitlines() if line.startswith("lora")]
    assert all(len(line) <= 80 for line in lines)
    assert [line for line in lines if ": training on " in line]
    ends = [line for line in lines if ": trained in " in line]
    assert [line.split(":")[0] for line in ends] == ["lora", "lora+prompt"]
    assert len([line for line in lines if ": step " in line]) < 8


def test_python_names_all_that_is_wrong(compared: Made) -> None:
    with pytest.raises(pa.InputError) as refused:
        pa.customize(
            "rows.csv",
            target="label",
            prompt="p.txt",
            model="local/tiny.gguf",
            arms=["lorra"],
            curve=[3],
        )
    lines = str(refused.value).splitlines()
    assert [line.split(":")[0] for line in lines] == ["--arms lorra", "--curve"]
    with pytest.raises(pa.InputError, match="expected_calls: 0: write a whole number of at least 1"):
        pa.customize("rows.csv", target="label", prompt="p.txt", model="local/tiny.gguf", expected_calls=0)


def test_lists_and_show_have_its_advice(compared: Made) -> None:
    _, made = compared
    (line,) = (line for line in good("runs").splitlines() if line.startswith(made["run_id"]))
    assert line.endswith(f"no model: {made['advice']['arm']}")
    shown = good("show", made["run_id"])
    assert made["advice"]["text"] in shown
    assert made["curve_text"] in shown
    assert good_json("show", made["run_id"])["result"] == made
    good("report", made["run_id"], "-o", "report.html")
    page = Path("report.html").read_text("utf-8")
    assert made["advice"]["text"] in page
    assert page.count("<svg") == 2
    assert "<script" not in page


def test_a_tuned_arm_is_a_released_prompt_with_its_adapter(compared: Made) -> None:
    _, made = compared
    for name in ("lora", "lora+prompt"):
        arm = by_name(made)[name]
        assert Path(arm["path"]) == Path("runs") / made["run_id"] / name / "prompt.md"
        prompt = load_prompt(arm["path"])
        assert prompt.release.adapter is not None
        assert prompt.release.adapter.sha256 == Adapter.read(Path(arm["path"]).parent / "adapter.gguf").sha256
        assert prompt.provenance["run_id"] == made["run_id"]
        assert prompt.provenance["test"] == arm["test"]
    noted = {one["arm"]: one["version"] for one in events(made["run_id"], "released")}
    assert noted == {name: load_prompt(by_name(made)[name]["path"]).version for name in ("lora", "lora+prompt")}


def test_promote_takes_it_when_its_gain_is_shown_or_overridden(compared: Made) -> None:
    search, made = compared
    why = refused(100, "promote", made["run_id"], "--arm", "lora")
    assert any("its gain over your prompt is not significant" in line for line in why)
    assert any("the arm best is better on the sealed test" in line for line in why)
    (line,) = refused(2, "promote", search["run_id"], "--arm", "lora")
    assert "not a run of `optimize customize`" in line
    done = good_json("promote", "--arm", "lora", "--override", "--reason", "a trial")
    assert (done["run_id"], done["promoted"], done["overridden"]) == (made["run_id"], "lora", True)
    found = load_prompt("rows@production", root=Path("runs/releases"))
    assert found.version == done["version"] == load_prompt(by_name(made)["lora"]["path"]).version
    assert good("audit", "verify").startswith("whole: ")


def test_a_folder_that_holds_another_prompt_is_not_promoted_on_its_evidence(compared: Made) -> None:
    _, made = compared
    own, other = (Path(by_name(made)[name]["path"]).parent for name in ("lora", "lora+prompt"))
    for file in other.iterdir():
        (own / file.name).write_bytes(file.read_bytes())
    lines = refused(1, "promote", made["run_id"], "--arm", "lora", "--override", "--reason", "x")
    assert any(f"is not what {made['run_id']} released as lora" in line for line in lines)


def test_arms_have_one_name_each() -> None:
    assert list(ARMS) == [
        "yours",
        "best",
        "retrieved",
        "calibrated",
        "soft-prompt",
        "lora",
        "lora+prompt",
        "full",
        "hosted",
        "no-model",
    ]
