"""`optimize judge tune`: planted defects are mended, fooled judges held back, and a tuned judge judges."""

import json
import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.errors import InputError
from agent.jobs.locations import releases_folder
from agent.jobs.promote import PromoteOptions, promotable
from agent.ledger.store import open_ledger
from agent.metrics.metric_registry import METRICS
from agent.release.gate import gate
from agent.release.promotion import ReleaseRegistry
from agent.scoring.llm_judge import judge_builder
from agent.stats.agreement import kappa
from agent.task.judge_task import FOILS
from agent.task.load import load_task
from agent.types import SPLITS, Field
from tests.cli.judges import PlantedJudge, quality, write_pairs
from tests.cli.test_judge_run import RUBRIC, optimize_with
from tests.cli.test_judge_run import TOML as SLICED
from tests.cli.tuned_judges import MENDS, MendableJudge, write_rated
from tests.cli.world import compatible, good, good_json, optimize, refused, write_task
from tests.conftest import copied, made_once
from tests.toys import FakeModel
from tests.wire import WireServer

RATED = ("--labels", "labels.jsonl", "--input", "question", "--output", "answer", "--price", "1,2", "-q")
CAP = ("--max-calls", "700")
TOML = SLICED.replace('slices = ["harbour"]', "")


def tuned(judge: MendableJudge, times: int = 1) -> list[dict[str, Any]]:
    write_rated(Path("labels.jsonl"), 150)
    with WireServer(judge) as server:
        words = ("judge", "tune", *RATED, *CAP, "--judge", compatible(server))
        return [good_json(*words) for _ in range(times)]


def write_boats(count: int, judge: str = "") -> None:
    rows = {
        split: [{"question": f"{split} boat {n}", "answer": f"quality-{n % 5 + 1}"} for n in range(count)]
        for split in SPLITS
    }
    write_task(TOML.format(top="", judge=judge), rows)


@pytest.fixture(scope="session")
def mended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_once(tmp_path_factory, "mended_judge", lambda: tuned(MendableJudge("length"), times=2))


@pytest.fixture(scope="session")
def fooled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_once(tmp_path_factory, "fooled_judge", lambda: tuned(MendableJudge("length", is_kind=True)))


@pytest.fixture
def told(mended: Path, here: Path) -> dict[str, Any]:
    found: dict[str, Any] = copied(mended, here)[0]
    return found


def test_a_judge_is_mended_on_sealed_ratings_and_stands_next_to_yardsticks(told: dict[str, Any]) -> None:
    before, after = told["before"], told["after"]
    assert before["kappa"] < 0.75 < 0.85 < after["kappa"]
    assert told["gain_ci95"][0] > 0
    assert told["held"] == []
    assert before["shifts"]["said twice"]["mean"] > 0.1
    assert after["shifts"]["said twice"]["mean"] == 0
    assert (before["fooled"], after["fooled"], after["trusted"]) == (0, 0, True)
    assert told["people"]["kappa"] > 0.7
    ridge, mean = told["yardsticks"]
    assert mean["kappa"] == 0
    assert ridge["kappa"] > 0.3
    (group,) = told["disagreements"]
    assert group["name"] == "The judge overlooks facts."
    assert 1 <= len(group["examples"]) <= group["items"] <= 3
    task = load_task("tasks/labels_judge")
    assert MENDS["length"][0] not in task.instruction
    assert MENDS["length"][0] in Path(told["judge"]).read_text("utf-8")
    questions = [{row.inputs["question"] for row in split} for split in (task.train, task.dev, task.test)]
    assert not questions[0] & questions[1] | questions[1] & questions[2] | questions[0] & questions[2]
    assert after["items"] == len(task.test)


def test_the_same_command_measures_again_without_a_search_and_without_a_call(mended: Path, here: Path) -> None:
    told, again = copied(mended, here)
    assert again["of_run"] == told["of_run"]
    assert again["run_id"] != told["run_id"]
    assert again["calls"]["judge"] == again["calls"]["proposer"] == 0
    assert again["after"] == told["after"]
    assert len(json.loads(good("runs", "--json"))["runs"]) == 3


def test_a_tuned_judge_that_was_promoted_judges_a_task_and_is_trusted(told: dict[str, Any]) -> None:
    assert "labels_judge@production" in good("promote", told["of_run"])
    write_boats(20, 'judge = "labels_judge@production"')
    answers = MendableJudge("length")

    def model(messages: list[dict[str, Any]], body: dict[str, Any]) -> Any:
        if MENDS["length"][0] in messages[0]["content"]:
            return answers(messages, body)
        return "The boat is early, quality-4" if "in full" in str(messages) else "The boat is late, quality-2"

    with WireServer(model) as server:
        shutil.copy(told["judge"], "boats/judge.md")
        asked = compatible(server)
        words = ("run", "boats", "-m", asked, "--judge", asked, "--max-calls", "300", "--price", "1,2")
        found = good_json(*words, "--proposer", "none", "--trials", "1", "-q")
        (trust,) = found["judges"]
        assert trust["judge_id"] == told["after"]["judge_id"]
        assert trust["trusted"]
        toml = Path("boats/task.toml")
        toml.write_text(toml.read_text("utf-8").replace("labels_judge@production", "judge.md"), "utf-8")
        by_file = good_json(*words, "--proposer", "none", "--trials", "1", "-q")
    assert by_file["judges"][0]["judge_id"] == trust["judge_id"]
    bare = load_task("boats")
    with pytest.raises(InputError, match=r"its judge judge\.md was not loaded"):
        judge_builder(bare, [FakeModel(str)], None)(bare.metrics[0])  # type: ignore[arg-type]
    assert found["baseline"]["test"] == by_file["baseline"]["test"] == pytest.approx(0.8 * 0.25 + 0.2)
    toml.write_text(toml.read_text("utf-8").replace('signature = "question', 'signature = "query'), "utf-8")
    for file in Path("boats").glob("*.jsonl"):
        file.write_text(file.read_text("utf-8").replace('"question"', '"query"'), "utf-8")
    (line,) = refused(2, *words)
    assert line.endswith("it was tuned with the input question, which boats does not have")


def test_a_judge_that_agrees_better_and_is_fooled_more_is_held_back(fooled: Path, here: Path) -> None:
    (told,) = copied(fooled, here)
    assert told["after"]["kappa"] > 0.85
    assert {*told["held_codes"]} == {"judge_fooled"}
    assert "HELD BACK" in good("show", told["run_id"])
    lines = refused(100, "promote", told["of_run"])
    assert lines[0] == f"error: {told['of_run']}: {told['held'][0]}"
    assert "labels_judge@production" in good("promote", told["of_run"], "--override", "--reason", "a try")


def test_a_judge_that_gives_no_rating_when_answers_ask_for_one_is_held_back(here: Path) -> None:
    (told,) = tuned(MendableJudge("length", is_kind=True, pleaded=9))
    after = told["after"]
    assert (after["unscored"], after["fooled"], after["shifts"]["asks for it"]["n"]) == (0, 0, 0)
    assert told["held_codes"] == ["judge_unreadable"]
    assert told["held"] == ["20 of its 20 verdicts on answers with the change 'asks for it' cannot be read"]


def test_a_judge_that_was_searched_and_not_measured_is_not_promoted(told: dict[str, Any]) -> None:
    options = ("--tag", "judge=tune", "--max-calls", "400", "--seed", "9", "--price", "1,2", "-q")
    with WireServer(MendableJudge("length")) as server:
        found = good_json("run", "labels_judge", "-m", compatible(server), *options)
    lines = refused(100, "promote", found["run_id"])
    assert any("the judge was not measured yet" in line for line in lines)


def test_what_was_measured_decides_on_a_judge_and_not_the_yardsticks_of_its_search(told: dict[str, Any]) -> None:
    db = Path("runs/ledger.db")
    found = promotable(told["of_run"], False, db)
    constant = found.result.yardsticks[0].model_copy(update={"diff": -3.4, "diff_ci95": (-7.0, 0.2), "p_value": 0.07})
    behind = replace(found, result=found.result.model_copy(update={"yardsticks": (constant,)}))
    assert [reason.code for reason in gate(behind.result).reasons] == ["no_better_than_constant"]
    with closing(open_ledger(db)) as ledger:
        offer = behind.offer(PromoteOptions(), ReleaseRegistry(releases_folder(db)), ledger)
    assert offer.blocked == ()


def test_a_judge_of_pairs_is_measured_in_both_orders(here: Path) -> None:
    write_pairs(Path("pairs.jsonl"), 120)
    judge = PlantedJudge(first=0.3)

    def model(messages: list[dict[str, Any]], body: dict[str, Any]) -> Any:
        if "data-" in messages[0]["content"]:
            return judge(messages, body)
        left, _, right = messages[-1]["content"].casefold().rpartition("left:")[2].partition("right:")
        return "1" if quality(left) > quality(right) else "2" if quality(right) > quality(left) else "tie"

    with WireServer(model) as server:
        words = ("--labels", "pairs.jsonl", "--input", "question", "--pair", "left,right", "--rating", "votes")
        more = ("--judge", compatible(server), "--price", "1,2", "--proposer", "none", "-q")
        told = good_json("judge", "tune", *words, *more, "--max-calls", "900")
    assert told["mode"] == "pairwise"
    assert told["before"]["shifts"]["position"]["mean"] > 0.1
    assert {name: shift["mean"] for name, shift in told["after"]["shifts"].items()} == dict.fromkeys(
        ("said twice", "dressed up", "asks for it", "position"), 0
    )
    assert told["after"]["kappa"] == 1.0
    assert told["people"]["kappa"] == 1.0
    labels = {row.labels["verdict"] for row in load_task("tasks/pairs_judge").train}
    assert labels == {"1", "2", "tie"}


def test_ratings_of_answers_without_inputs_tune_a_judge(here: Path) -> None:
    write_rated(Path("labels.jsonl"), 150)
    with WireServer(MendableJudge("length")) as server:
        words = ("--labels", "labels.jsonl", "--output", "answer", "--price", "1,2", "-q", *CAP)
        found = good_json("judge", "tune", *words, "--judge", compatible(server))
    task = load_task(Path("tasks") / "labels_judge")
    assert [field.name for field in task.signature.inputs] == ["answer"]
    foils = [[row.inputs["answer"] for row in getattr(task, name) if row.inputs["answer"] in FOILS] for name in SPLITS]
    assert sorted(map(len, foils)) == [0, 2, 2]
    assert len({*foils[0], *foils[1], *foils[2]}) == 4
    assert found["after"]["kappa"] > found["before"]["kappa"]


def test_ratings_of_single_answers_tune_a_judge_of_pairs(here: Path) -> None:
    write_boats(30, 'mode = "pairwise"')
    write_rated(Path("boats/calibration.jsonl"))
    with WireServer(MendableJudge("length")) as server:
        words = ("judge", "tune", "boats", "--judge", compatible(server), "--price", "1,2", "--dry-run")
        assert good_json(*words)["task"] == "boats_judge"
    assert not Path("tasks").exists()


def test_answers_worth_rating_are_named_and_rated(here: Path) -> None:
    write_boats(30)
    Path("boats/rubric.md").write_text(RUBRIC)
    write_rated(Path("boats/calibration.jsonl"), 90)
    judge = MendableJudge("swapped")

    def model(messages: list[dict[str, Any]], body: dict[str, Any]) -> Any:
        if "judge" in messages[0]["content"]:
            reply = judge(messages, body)
            return reply.replace('"quality"', '"clear": 3, "true"') if "data-" in messages[0]["content"] else reply
        number = sum(map(ord, messages[-1]["content"]))
        return f"It is as late as {number}, quality-{number % 5 + 1}"

    with WireServer(model) as server:
        model_words = ("-m", compatible(server), "--price", "1,2", "-q", "--proposer", "none")
        run = ("run", "boats", *model_words, "--max-calls", "300", "--trials", "2")
        opened = optimize("run", "boats", "-m", compatible(server), "--dry-run")
        assert "first: optimize judge tune boats" in opened.output
        good_json(*run)
        words = ("judge", "tune", "boats", "--judge", compatible(server), "--price", "1,2", "-q", "--next", "6")
        told = good_json(*words, "--max-calls", "700")
    assert told["rated_next"] == 6
    named = [json.loads(line)["item"] for line in Path(told["to_rate"]).read_text("utf-8").splitlines()]
    assert len(set(named)) == 6
    rate = ("judge", "rate", told["rated_run"], "--rater", "ann", "--only", told["to_rate"])
    assert "6 answers" in optimize_with("5\n5\n5\n" * 6, *rate)
    rated = Path(next(Path("runs").glob("*/ratings.jsonl"))).read_text("utf-8").splitlines()
    assert {json.loads(line)["item"] for line in rated} == {*named}


def test_what_cannot_be_tuned_is_refused_before_a_call(here: Path) -> None:
    write_rated(Path("labels.jsonl"), 40)
    few = refused(2, "judge", "tune", *RATED)
    assert few == ["error: labels.jsonl:1: 40 items; a judge cannot be measured on fewer than 60"]
    write_rated(Path("labels.jsonl"), 90)
    lines = refused(2, "judge", "tune", *RATED, "--judge", "a/b", "--judge", "c/d")
    assert lines == ["error: --judge: tune one model at a time; a panel of tuned judges is one metric for each"]
    (line,) = refused(2, "judge", "tune", *RATED, "--max-calls", "100")
    assert line.startswith("error: --max-calls 100: measuring takes ")
    text = Path("labels.jsonl").read_text("utf-8")
    Path("labels.jsonl").write_text(text.replace('"question"', '"what for?"'), "utf-8")
    words = ("--labels", "labels.jsonl", "--input", "what for?", "--output", "answer")
    assert "cannot be a field of a task; rename it" in refused(2, "judge", "tune", *words)[0]
    Path("labels.jsonl").write_text(text, "utf-8")
    assert "at most 11 apart" in refused(2, "judge", "tune", *RATED, "--scale", "0-50")[0]
    assert not Path("tasks").exists()


def test_agreement_does_not_pay_for_the_middle_and_orders_judges_as_kappa_does() -> None:
    rule = METRICS.get("agreement")
    assert rule.build is not None
    check: Any = rule.build(rule.options(low=1, high=6, mean=4.5), Field("rating"))
    people = [6, 6, 6, 5, 5, 4, 4, 3, 2, 1] * 3
    judges = {
        "exact": people,
        "near": [max(1, min(6, each + (1 if at % 2 else -1))) for at, each in enumerate(people)],
        "good": [6 if each > 4 else 3 for each in people],
        "middle": [5 if at % 5 else 4 for at in range(30)],
        "all six": [6] * 30,
        "reversed": [7 - each for each in people],
    }
    shares = {name: [(each - 1) / 5 for each in given] for name, given in {**judges, "people": people}.items()}
    by_kappa = {name: kappa(shares[name], shares["people"], 6, weighted=True, seed=0).value or 0 for name in judges}
    by_score = {
        name: sum(check(got, label)[0] for got, label in zip(given, people, strict=True)) / 30
        for name, given in judges.items()
    }
    assert sorted(judges, key=by_score.__getitem__)[3:] == sorted(judges, key=by_kappa.__getitem__)[3:]
    assert by_score["reversed"] < by_score["middle"] < by_score["good"] < by_score["exact"] == 1.0
