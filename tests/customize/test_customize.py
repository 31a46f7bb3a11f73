"""A comparison from end to end: the same sealed rows for all, what is in the ledger, what is shown and shipped."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

import promptassay as pa
from agent.jobs.customize.arms import bare_prompt, instructed_prompt, prompt_arms
from agent.jobs.customize.forgetting import other_tasks
from agent.jobs.customize.plan import require_arms
from agent.jobs.customize.table import rows_a_label
from agent.jobs.recorded import recorded_prompt
from agent.ledger.query import History
from agent.models.adapters import Adapter
from agent.models.gguf import read_gguf
from agent.prompt.parts.adapter import ReleasedAdapter
from agent.release.runtime import load_prompt
from agent.report.comparison import _settings
from agent.results.customize import ArmSettings
from agent.stats.figures import points
from tests.cli.world import good, good_json, refused
from tests.customize.conftest import Made
from tests.customize.world import write_world
from tests.report.web_world import browsing
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
    assert arms["classifier"]["test"] > 0.8  # its words tell the label
    assert made["advice"]["verdict"] == "no model"
    assert len(events(made["run_id"], "test_opened")) == 1
    for name, arm in arms.items():
        tasks = [(one["task"], one["n"]) for one in (arm["elsewhere"] or {"tasks": []})["tasks"]]
        assert tasks == ([("support_triage", 6), ("word_problems", 6)] if arm["family"] == "tuned" else []), name
    assert [task.name for task in other_tasks("support_triage")] == ["word_problems", "clinic_intake"]


def test_prompts_are_taken_by_dev_and_never_by_the_sealed_test(compared: Made) -> None:
    search, _ = compared
    specs, _ = require_arms(["best", "retrieved"])
    with contextlib.closing(History(LEDGER)) as history:
        found = prompt_arms(history, history.run(search["run_id"]), specs)
        trials = history.trials(search["run_id"])
        tried = {trial["candidate_id"]: history.candidate(trial["candidate_id"]) for trial in trials}
    means = {trial["candidate_id"]: trial["mean"] for trial in trials if trial["state"] == "complete"}
    picking = {name: mean for name, mean in means.items() if tried[name]["picks"]}
    assert list(found) == ["yours", "best", "retrieved"]
    assert found["yours"].id == trials[0]["candidate_id"]
    assert found["best"].id == search["winner"]["candidate_id"]
    assert picking[found["retrieved"].id] == max(picking.values())
    best = recorded_prompt(tried[found["retrieved"].id])
    made = instructed_prompt(best)
    assert (made.instruction, made.format) == (best.instruction, best.format)
    assert (made.demos, made.settings, made.technique) == ((), {}, "zero-shot")
    task = make_task(12)
    assert bare_prompt(task).instruction == "Classify."
    assert sum(rows_a_label(task).values()) == len(task.train)


def test_the_ledger_can_tell_what_was_trained_on_what_and_how(compared: Made) -> None:
    _, made = compared
    run, train = made["run_id"], made["rows"]["train"]
    before, after = (events(run, kind) for kind in ("training", "trained"))
    names = [(arm, size) for size in (16, train) for arm in ("lora", "lora+prompt")]
    assert [(one["arm"], one["labels"]) for one in before] == [(one["arm"], one["labels"]) for one in after] == names
    for one, two in zip(before, after, strict=True):
        assert len(set(one["rows"])) == one["labels"]
        assert one["seed"] == one["settings"]["seed"] == 0
        assert one["settings"] == two["settings"]
        assert set(one["versions"]) == {"promptassay", "numpy"}
        assert two["losses"]
        assert all(loss > 0 for loss in two["losses"])
    assert before[0]["rows"] == before[1]["rows"]
    assert set(before[0]["rows"]) < set(before[2]["rows"])
    assert len({one["train"] for one in before}) == 2
    chosen = events(run, "settings_chosen")
    assert [line["arm"] for line in made["settings"]] == [line["arm"] for line in chosen] == ["lora", "lora+prompt"]
    for line in made["settings"]:
        best = min(line["tried"], key=lambda each: each["dev_loss"])
        assert {line["chosen"][name] == best[name] for name in ("learning_rate", "rank")} == {True}
        of_arm = [one for one in after if one["arm"] == line["arm"]]
        assert {one["settings"]["learning_rate"] for one in of_arm} == {best["learning_rate"]}
        assert by_name(made)[line["arm"]]["train_s"] >= of_arm[-1]["seconds"] - 0.1
    epochs = events(run, "training_epoch")
    assert {one["name"] for one in epochs} > {"lora", "lora+prompt"}
    assert all(one["losses"] for one in epochs)


def test_the_curve_has_each_arm_that_learns_with_each_number_of_rows(compared: Made) -> None:
    _, made = compared
    arms, train = by_name(made), made["rows"]["train"]
    points = {(line["arm"], line["labels"]): line for line in made["curve"]}
    learn = ("retrieved", "lora", "lora+prompt", "classifier", "nearest")
    assert points.keys() == {(arm, size) for arm in learn for size in (16, train)}
    assert len(points) == len(made["curve"])
    for arm in learn:
        line = points[arm, train]
        assert (line["test"], line["ci95"]) == (arms[arm]["test"], arms[arm]["ci95"])
    assert made["curve_text"].startswith("Of the arms that learn ")


def test_again_with_two_seeds_nothing_is_asked_twice_and_the_arm_is_the_first(compared: Made) -> None:
    _, made = compared
    words = ["customize", *WORDS, "--arms", "lora", "--settings", "2", "--seeds", "2"]
    plan = good_json(*words, "--dry-run")
    assert (plan["of_run"], plan["arms"], plan["trainings"]) == (made["of_run"], ["yours", "lora"], 2 + 1)
    again = good_json(*words, "-q")
    lora, was = by_name(again)["lora"], by_name(made)["lora"]
    each = lora["seeds"]["each"]
    assert [one["seed"] for one in each] == [0, 1]
    assert each[0]["test"] == lora["test"] == was["test"]
    assert lora["seeds"]["min"] <= lora["seeds"]["mean"] <= lora["seeds"]["max"]
    first, second = events(again["run_id"], "trained")
    assert (first["settings"]["seed"], second["settings"]["seed"]) == (0, 1)
    assert first["adapter"] != second["adapter"]
    assert first["adapter"] in {one["adapter"] for one in events(made["run_id"], "trained")}
    assert again["calls"]["model"] == made["rows"]["test"], "the second seed alone"
    assert again["calls"]["model"] + again["calls"]["cached"] <= plan["calls"]


def test_python_gets_the_same_comparison_typed_or_all_that_is_wrong(compared: Made) -> None:
    _, made = compared
    given: dict[str, Any] = {"target": "label", "prompt": "p.txt", "model": "local/tiny.gguf"}
    found = pa.customize("rows.csv", **given, arms=["best", "lora"], settings=2)
    assert [arm.arm for arm in found.arms] == ["yours", "best", "lora"]
    assert found.of_run == made["of_run"]
    lora, line = found.arms[2], by_name(made)["lora"]
    assert (lora.test, lora.ci95, lora.diff) == (line["test"], tuple(line["ci95"]), line["diff"])
    assert pa.load_prompt(lora.path).release.part(ReleasedAdapter) is not None
    assert (found.arm, found.verdict, found.curve) == ("best", "instruct", ())
    assert found.to_json()["advice"]["text"] == found.text
    with pytest.raises(pa.InputError) as wrong:
        pa.customize("rows.csv", **given, arms=["lorra"], curve=[3])
    assert [line.split(":")[0] for line in str(wrong.value).splitlines()] == ["--arms lorra", "--curve"]
    with pytest.raises(pa.InputError, match="expected_calls: 0: write a whole number of at least 1"):
        pa.customize("rows.csv", **given, expected_calls=0)


def test_its_advice_is_in_lists_reports_and_pages(compared: Made) -> None:
    _, made = compared
    advice = f"no model: {made['advice']['arm']}"
    (line,) = (line for line in good("runs").splitlines() if line.startswith(made["run_id"]))
    assert line.endswith(advice)
    good("report", made["run_id"], "-o", "report.html")
    assert Path("report.html").read_text("utf-8").count("<svg") == 2
    texts = made["advice"]["text"], made["curve_text"]
    address = f"/run/{made['run_id']}"
    with browsing() as client:
        shown = client.page(address)
        sections = {each["name"]: each for each in client.data(f"{address}.json")["sections"]}
        live = client.data(f"{address}/live.json")
        listed = client.page("/")
    scores = [points(arm["test"]) for arm in made["arms"]]
    for text in (*texts, *scores, "Score against cost", "settings that were tried on dev"):
        assert text in shown.words
    assert {"arms", "curve", "settings", "cost", "losses"} <= set(sections)
    assert live["training"].startswith("lora+prompt, ")
    assert live["loss"] > 0
    assert advice in listed.words


def test_the_settings_of_a_training_without_a_rank_are_shown() -> None:
    first = {"learning_rate": 0.01, "epochs": 2, "dev_loss": 1.5, "seconds": 3.0, "diverged": False, "ended": ""}
    tried = [first, {**first, "learning_rate": 0.03, "dev_loss": None}]
    line = ArmSettings.from_json({"arm": "soft-prompt", "chosen": {"learning_rate": 0.01}, "tried": tried})
    chosen, other = _settings([line]).rows
    assert chosen[:3] == ("soft-prompt", "0.01", "")
    assert (chosen[4], chosen[-1], other[4]) == ("1.500", "chosen", "-")


def test_a_tuned_arm_is_released_exported_and_promoted_when_its_gain_is_shown_or_overridden(compared: Made) -> None:
    search, made = compared
    noted = {one["arm"]: one["version"] for one in events(made["run_id"], "released")}
    for name in ("lora", "lora+prompt"):
        arm = by_name(made)[name]
        assert Path(arm["path"]) == Path("runs") / made["run_id"] / name / "prompt.md"
        prompt = load_prompt(arm["path"])
        adapter = prompt.release.part(ReleasedAdapter)
        assert adapter is not None
        assert adapter.sha256 == Adapter.read(Path(arm["path"]).parent / "adapter.gguf").sha256
        assert (prompt.provenance["run_id"], prompt.provenance["test"]) == (made["run_id"], arm["test"])
        assert prompt.version == noted[name]
    exported = good_json("export", "--arm", "lora", "--format", "peft", "--format", "llama-server", "-o", "out")
    assert (exported["run_id"], exported["version"]) == (made["run_id"], noted["lora"])
    assert [one["verified"] for one in exported["formats"]] == [True, True]
    for words in (["promote"], ["export", "--format", "peft", "-o", "more"]):
        (line,) = refused(2, words[0], search["run_id"], "--arm", "lora", *words[1:])
        assert "not a run of `optimize customize`" in line
    why = refused(100, "promote", made["run_id"], "--arm", "lora")
    assert any("its gain over your prompt is not significant" in line for line in why)
    assert any("the arm best is better on the sealed test" in line for line in why)
    done = good_json("promote", "--arm", "lora", "--override", "--reason", "a trial")
    assert (done["run_id"], done["promoted"], done["overridden"]) == (made["run_id"], "lora", True)
    assert load_prompt("rows@production", root=Path("runs/releases")).version == done["version"] == noted["lora"]
    assert good("audit", "verify").startswith("whole: ")
    own, other = (Path(by_name(made)[name]["path"]).parent for name in ("lora", "lora+prompt"))
    for file in other.iterdir():
        (own / file.name).write_bytes(file.read_bytes())
    lines = refused(1, "promote", made["run_id"], "--arm", "lora", "--override", "--reason", "x")
    assert any(f"is not what {made['run_id']} released as lora" in line for line in lines)


@pytest.mark.extra("tune")
def test_a_comparison_by_peft_is_as_one_by_numpy_and_releases_a_whole_model(here: Path) -> None:
    good_json("run", *write_world(), "-n", "1", "--limit", "36-20-20", "-q")
    words = ["customize", *WORDS, "--limit", "36-20-20", "--settings", "1", "-q"]
    (numpy,) = events(good_json(*words, "--arms", "lora")["run_id"], "trained")
    found = good_json(*words, "--arms", "lora,full", "--trainer", "peft")
    before, after = (events(found["run_id"], kind) for kind in ("training", "trained"))
    assert [(one["arm"], one["trainer"]) for one in before] == [("lora", "peft"), ("full", "peft")]
    assert set(before[0]["versions"]) == {"promptassay", "numpy", "torch", "transformers", "peft"}
    assert numpy["trainer"] == "numpy"
    assert after[0]["losses"] == pytest.approx(numpy["losses"], abs=1e-2)
    prompt = load_prompt(by_name(found)["full"]["path"])
    model = Path(prompt.model.removeprefix("local/"))
    assert prompt.release.part(ReleasedAdapter) is None
    assert model.name == f"model-{after[1]['adapter'][:16]}.gguf"
    assert read_gguf(model).tensors.keys() == read_gguf(Path("tiny.gguf")).tensors.keys()
    assert prompt.complete(text="a parcel that is late") is not None
