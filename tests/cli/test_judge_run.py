"""A task whose score rests on a judge: budget, record, trust, the gate, promotion by override, and rating by people."""

import json
import random
import re
import shlex
import shutil
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from agent.cli import main
from agent.errors import InputError
from agent.ledger.query import History
from agent.ledger.store import Ledger
from agent.release.runtime import load_prompt
from agent.report.blinded import field_of, rubric_of
from agent.task.judge_files import RatingColumns, read_ratings_file
from agent.task.load import load_task
from agent.types import Field, Signature
from tests.cli.judges import PlantedJudge, chance, fenced, quality
from tests.cli.world import compatible, good, good_json, refused, write_lines
from tests.conftest import Made, copied, made_once
from tests.toys import make_task
from tests.wire import Fault, WireServer

TOML = """
name = "boats"
description = "Answer a question about boats."
signature = "question -> answer"
instruction = "Answer the question."
slices = ["harbour"]
{top}
[fields.answer]
max_words = 80

[[metrics]]
name = "judge"
weight = 0.8
{judge}
[[metrics]]
name = "no_repeat"
weight = 0.2

[models]
max_tokens = 60

[search]
techniques = ["zero-shot", "few-shot"]
formats = ["turns"]
demo_counts = [2, 4]
"""
RUBRIC = "# Boats\n\n## clear (weight 2)\n\nIs it clear?\n\n- 1: no\n- 5: yes\n\n## true\n\n- 1: no\n- 5: yes\n"
CAP = ("--max-calls", "420", "--limit", "40-20-30", "--price", "1,2", "--proposer", "none", "-q")
Judged = tuple[dict[str, Any], list[dict[str, Any]]]


def task(judge: str = "", top: str = "") -> Path:
    folder = Path("boats")
    folder.mkdir(exist_ok=True)
    (folder / "task.toml").write_text(TOML.format(judge=judge, top=top), "utf-8")
    (folder / "rubric.md").write_text(RUBRIC, "utf-8")
    rng, rows = random.Random(1), []
    for number in range(150):
        text = f"question {number} of {rng.random():.9f}"
        rows.append({"question": text, "answer": f"word {number} quality-5", "harbour": rng.choice(["north", "south"])})
    for name, part in (("train", rows[:40]), ("dev", rows[40:80]), ("test", rows[80:])):
        write_lines(folder / f"{name}.jsonl", part)
    return folder


class Boats(PlantedJudge):
    """Target and judge in one server: with worked examples the target answers well, without them badly."""

    def __call__(self, messages: list[dict[str, Any]], body: dict[str, Any]) -> str | Fault:
        if "strict and fair judge" in messages[0]["content"]:
            return super().__call__(messages, body)
        good_one = any(m["role"] == "assistant" for m in messages)
        return f"about {messages[-1]['content'][-40:]} quality-{5 if good_one else 2}"


RATED = [
    {"question": f"q{n}", "answer": f"a{n} quality-{1 + n % 5}", "rating": 1 + n % 5, "rater": "a"} for n in range(60)
]


def test_the_scale_of_people_is_that_of_the_rubric_and_each_judge_of_a_field_can_be_measured() -> None:
    folder = task('rubric = "short.md"\n\n[[metrics]]\nname = "judge"\nmode = "reference"\nweight = 0.3')
    (folder / "short.md").write_text(RUBRIC.replace("5: yes", "3: yes"), "utf-8")
    Path("none.jsonl").write_text("")
    command = ("judge", "calibrate", folder, "--labels", "l.jsonl", "--judge", "scripted/none.jsonl", "--dry-run")
    write_lines("l.jsonl", RATED)
    assert "l.jsonl:4: " in refused(2, *command)[0]  # a four, on a scale from one to three
    write_lines("l.jsonl", [{**row, "rating": min(3, row["rating"]), "reference": "x"} for row in RATED])
    assert "(rubric, " in good(*command)
    assert "(reference, " in good(*command, "--mode", "reference")
    assert "a judge with mode pairwise" in refused(2, *command, "--mode", "pairwise")[0]
    assert rubric_of(load_task(folder), "answer").high == 3


def _judged() -> Judged:
    with WireServer(Boats()) as server:
        return good_json("run", task(), "-m", compatible(server), *CAP), [seen.body for seen in server.requests]


@pytest.fixture(scope="module")
def boats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of a judge that was never measured. Its models are gone."""
    return made_once(tmp_path_factory, "boats", _judged)


@pytest.fixture
def judged(boats: Path, here: Path) -> Judged:
    """A copy of it here: the result of the run, and the requests that it made."""
    result, asked = copied(boats, here)
    return result, asked


def test_a_winner_whose_judge_was_never_measured_is_held_back_until_there_is_a_reason(judged: Judged) -> None:
    result, _ = judged
    assert result["lift"]["diff"] > 0.2
    assert result["decision"] == "keep_baseline"
    assert [why for why in result["blocked"] if "never calibrated" in why]
    assert load_prompt(result["release"]).provenance["candidate_id"] != result["winner"]["candidate_id"]
    assert "held back" in good("show")
    before = Path(result["release"]).read_bytes()
    assert any("never calibrated" in line for line in refused(100, "promote"))
    assert Path(result["release"]).read_bytes() == before
    assert any("--reason" in line for line in refused(2, "promote", "--override"))
    assert any("--own promotes your own prompt" in line for line in refused(100, "promote"))
    share = ["--alias", "ab", "--share", "0.2"]
    assert "needs a version in production" in refused(2, "promote", "--override", "--reason", "x", *share)[0]
    assert Path(result["release"]).read_bytes() == before
    assert not Path("runs/releases").exists()
    own = good_json("promote", "--own", "--alias", "staging")  # it needs no judge: it claims nothing
    assert (own["promoted"], own["version"]) == ("own", load_prompt(result["release"]).version)
    shutil.copytree("runs", "backup")
    backup = Path("backup", result["run_id"], "prompt.md")
    told = good_json("promote", "--override", "--reason", "try", "--db", "backup/ledger.db")
    assert (told["release"], Path(result["release"]).read_bytes()) == (str(backup), before)
    assert load_prompt(backup).provenance["promoted"]["reason"] == "try"
    told = good_json("promote", "--override", "--reason", "read by hand", "--actor", "jo")
    assert told["overridden"]
    shipped = load_prompt(result["release"])
    assert shipped.provenance["candidate_id"] == result["winner"]["candidate_id"]
    assert shipped.provenance["promoted"]["reason"] == "read by hand"
    (event,) = History(Path("runs/ledger.db")).select("SELECT body FROM events WHERE kind = 'promoted'")
    assert json.loads(event["body"])["actor"] == "jo"
    again = good_json("promote", "--override", "--reason", "read by hand", "--actor", "jo")  # as after a kill
    assert (again["version"], again["moved"]) == (told["version"], False)
    assert len(History(Path("runs/ledger.db")).select("SELECT body FROM events WHERE kind = 'promoted'")) == 1
    _, line = [json.loads(line) for line in Path("runs/releases/boats/aliases.jsonl").read_text().splitlines()]
    assert (line["reason"], line["actor"]) == ("read by hand", "jo")
    assert any("never calibrated" in why for why in line["evidence"]["overridden"])
    assert "lies where your own prompt lay" in refused(2, "promote", "--own")[0]
    assert load_prompt("boats@production").provenance["promoted"]["reason"] == "read by hand"
    told = good_json("export", "--format", "python", "-o", "prompt.py")  # the judge's server is gone
    assert told["formats"][0]["dev"]["rows"] == 20
    assert told["formats"][0]["dev"]["score"] == pytest.approx(result["winner"]["dev"])
    assert good("audit", "verify").startswith("whole")
    for text in (good("show"), good("report", "-o", "report.html") or Path("report.html").read_text("utf-8")):
        assert "promoted by jo; reason: read by hand; against: " in text
        assert "your own prompt is released" not in text.lower()
        assert "promote it anyway" not in text
    assert good_json("show")["promoted"]["actor"] == "jo"
    found = good_json("audit", "lineage", result["winner"]["candidate_id"])["prompts"][0]["runs"][0]
    assert (found["released"], found["test"]) == (True, result["winner"]["test"])
    assert good_json("reproduce", "--offline")["same"] is True


def test_a_judge_that_earned_trust_promotes_and_every_call_is_counted() -> None:
    folder = task()
    with WireServer(Boats()) as server:
        model = compatible(server)
        write_lines("l.jsonl", RATED)
        calibrate = ("judge", "calibrate", folder, "--labels", "l.jsonl", "--judge", model, "--price", "1,2")
        trust = good_json(*calibrate)
        asked = len(server.requests)
        result = good_json("run", folder, "-m", model, *CAP)
        judged = [seen for seen in server.requests[asked:] if "strict and fair" in seen.body["messages"][0]["content"]]
        assert result["calls"]["judge"] == len(judged)
        assert result["calls"]["model"] + result["calls"]["judge"] == len(server.requests) - asked <= 420
    assert trust["trusted"]
    assert re.search(r"alpha among 1 rater\b", good("show", trust["run_id"]))
    assert result["decision"] == "promote"
    (judge,) = result["judges"]
    assert judge["trusted"]
    assert judge["kappa"] == 1.0
    metrics = {part["metric"]: part for part in result["metrics"]}
    assert set(metrics) == {"readable", "judge", "no_repeat"}
    assert metrics["judge"]["diff"] == pytest.approx(0.75)
    assert {group["value"] for group in result["slices"][0]["groups"]} == {"north", "south"}
    shown = good("show")
    for words in ("on the sealed test", "By harbour", "kappa 1.00", "variety of answer"):
        assert words in shown
    assert good_json("reproduce", result["run_id"], "--offline")["same"]
    with closing(Ledger(Path("runs/ledger.db"))) as ledger:  # measured again after the run
        measured = ledger.calibration(judge["judge_id"], "")
        assert measured is not None
        ledger.event(trust["run_id"], "judge_calibrated", {**measured, "trusted": False, "why": ["it slipped"]})
        ledger.flush()
    assert any(f"({judge['metric']}) is not trusted: it slipped" in line for line in refused(100, "promote"))
    with closing(Ledger(Path("runs/ledger.db"))) as ledger:
        ledger.event(trust["run_id"], "judge_calibrated", measured)
        ledger.flush()
    assert "boats@production is p_" in good("promote")
    assert load_prompt("boats@production").provenance["run_id"] == result["run_id"]


def test_a_judge_call_that_fails_changes_no_mean_and_too_many_fail_the_trial() -> None:
    folder, failed = task(), Fault(status=400)
    some = Boats(fails=lambda answer: failed if quality(answer) == 5 and chance(answer, "fails") < 0.1 else None)
    with WireServer(some) as server:
        holed = good_json("run", folder, "-m", compatible(server), *CAP)
    part = next(part for part in holed["metrics"] if part["metric"] == "judge")
    assert (part["winner"]["unscored"] > 0, part["winner"]["mean"]) == (True, 1.0)
    with WireServer(Boats(fails=lambda answer: failed if quality(answer) == 5 else None)) as server:
        found = good_json("run", folder, "-m", compatible(server), *CAP, "--db", "other/ledger.db")
    assert found["trials"]["failed"] > 0
    assert found["winner"]["candidate_id"] == load_prompt(found["release"]).provenance["candidate_id"]
    assert "rows unscored: the judge gave no answer" in good("history", "--db", "other/ledger.db")


def test_a_judge_on_anthropic_s_sdk_a_panel_and_a_reference() -> None:
    folder = task(judge='mode = "reference"')

    def verdict(messages: list[dict[str, Any]], body: dict[str, Any]) -> str | Fault:
        if "strict and fair judge" not in messages[0]["content"]:
            return Boats()(messages, body)
        wanted, said = fenced(messages)[-2:]
        assert "quality-5" in wanted
        said_right = quality(said) == 5
        return json.dumps({"reason": "compared", "verdict": "correct" if said_right else "wrong"})

    def mean_one(messages: list[dict[str, Any]], body: dict[str, Any]) -> str | Fault:
        return json.dumps({"reason": "no", "verdict": "wrong"})

    with WireServer(verdict) as one, WireServer(mean_one) as two, pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANTHROPIC_BASE_URL", one.root)
        patch.setenv("ANTHROPIC_API_KEY", "secret-0123456789")
        judges = ("--judge", "anthropic/j", "--judge", compatible(one), "--judge", compatible(two))
        result = good_json("run", folder, "-m", compatible(one), *judges, *CAP)
        asked = [seen for seen in one.requests if seen.path == "/v1/messages"]
    assert len(two.requests) == len(asked) > 40
    assert asked[0].body["output_config"]["format"]["type"] == "json_schema"
    part = next(part for part in result["metrics"] if part["metric"] == "judge")
    assert (part["baseline"]["mean"], part["winner"]["mean"]) == (0.0, 1.0)  # two of three: the median
    assert result["calls"]["judge"] == 3 * len(asked)


def test_the_commands_that_are_printed_measure_the_judge_of_the_run_against_the_labels_too() -> None:
    folder = task('mode = "reference"\n\n[[metrics]]\nname = "judge"\nmode = "pairwise"\nweight = 0.1')

    def verdict(messages: list[dict[str, Any]], body: dict[str, Any]) -> str | Fault:
        asks = "strict and fair judge" in messages[0]["content"]
        return '{"reason": "compared", "verdict": "wrong"}' if asks else Boats()(messages, body)

    with WireServer(verdict) as server:
        judges = [word for name in "ab" for word in ("--judge", f"openai-compatible/{name}@{server.url}")]
        result = good_json("run", folder, "-m", compatible(server), "-n", "1", *judges, *CAP)
    said = optimize_with("5\n5\n5\n" * 12, "judge", "rate", "--rater", "jo", "--count", "12").splitlines()[-1]
    advice, other = (judge["why"].partition("never calibrated; ")[2] for judge in result["judges"])
    assert shlex.split(other)[4:] == ["--output", "answer", "--mode", "pairwise", *judges]
    for command in (said.partition(": ")[2], f"{advice} --labels runs/{result['run_id']}/ratings.jsonl"):
        assert result["judges"][0]["judge_id"] in good(*shlex.split(command)[1:], "--dry-run")


def test_repeats_say_how_steady_the_answers_are() -> None:
    folder = task(top="repeats = 3")
    seen: Counter[str] = Counter()

    def wavering(messages: list[dict[str, Any]], body: dict[str, Any]) -> str | Fault:
        said = Boats()(messages, body)
        if not isinstance(said, str) or "{" in said:
            return said
        seen[json.dumps(messages)] += 1
        return f"{said[:-10]}, {seen[json.dumps(messages)] % 2}{said[-10:]}"

    with WireServer(wavering) as server:
        result = good_json("run", folder, "-m", compatible(server), *CAP)
    steady = result["consistency"]["winner"]
    assert steady["k"] == 3
    assert 0 < steady["agreement"] < 1
    assert steady["entropy"] > 0
    assert "repeated answers (3 per row" in good("show")


def test_people_rate_without_knowing_whose_answer_it_is_stop_and_go_on(judged: Judged) -> None:
    run, _ = judged
    first = optimize_with("5\n4\n5\n9\n1\n2\n1\nq\n", "judge", "rate", "--rater", "jo", "--count", "4")
    assert "a whole number from 1 to 5" in first
    assert "2 of 4 rated by jo; the same command continues" in first
    assert run["winner"]["candidate_id"] not in first
    second = optimize_with("s\n3\n3\n3\n", "judge", "rate", "--rater", "jo", "--count", "4")
    assert "4 answers, 2 rated before by jo" in second
    optimize_with("5\n5\n5\n" * 4, "judge", "rate", "--rater", "ann", "--count", "4")
    path = Path("runs") / run["run_id"] / "ratings.jsonl"
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert len(rows) == 7
    assert set(rows[0]) == {"item", "rater", "question", "answer", "rating", "rating_clear", "rating_true"}
    third = optimize_with("2\n2\n2\n", "judge", "rate", "--rater", "jo", "--count", "4")
    assert "agreement of 2 raters on 4 answers" in third
    items = read_ratings_file(path, RatingColumns(("question",), ("answer",)))
    assert len(items) == 4
    assert all(set(item.ratings) == {"jo", "ann"} for item in items)


def optimize_with(keys: str, *words: str) -> str:
    result = CliRunner().invoke(main, list(words), input=keys)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_judge_sees_no_instruction_and_everything_foreign_is_fenced(judged: Judged) -> None:
    result, asked = judged
    bodies = [body for body in asked if "strict and fair judge" in body["messages"][0]["content"]]
    assert len(bodies) == result["calls"]["judge"]
    for body in bodies:
        assert "Answer the question." not in json.dumps(body["messages"])
        assert len(fenced(body["messages"])) == 2
        assert body["response_format"]["type"] == "json_schema"
        fields = list(body["response_format"]["json_schema"]["schema"]["properties"])
        assert fields == ["reason", "clear", "true"]


# -- rating the rows of a data file ------------------------------------------------------------------------------------


def test_the_command_that_is_printed_measures_a_judge_with_the_ratings(two_runs: Made) -> None:
    run = two_runs[0]["run_id"]
    said = optimize_with("5\n1\n3\n4\n" * 10, "judge", "rate", run, "--rater", "ann")
    program, *words = shlex.split(said.splitlines()[-1].partition(": ")[2])
    assert program == "optimize"
    with WireServer(PlantedJudge()) as server:
        told = good_json(*words, "--judge", compatible(server), "--repeats", "1", "--price", "1,2", "-q")
    assert (told["kind"], told["items"]) == ("judge_calibration", 40)


@pytest.mark.parametrize("name", ["item", "rater", "rating", "rating_tone"])
def test_a_field_named_as_a_column_of_ratings_is_refused(name: str) -> None:
    task = replace(make_task(), signature=Signature((Field(name),), (Field("team"),)))
    with pytest.raises(InputError, match=f"field {name} has the name of a column"):
        field_of(task, None)


def test_rows_that_changed_since_are_not_rated(two_runs: Made) -> None:
    run = two_runs[0]["run_id"]
    with Path("rows.csv").open("a", encoding="utf-8") as file:
        file.writelines(f"new{n},a parcel that never came {n},delivery\n" for n in range(40))
    (line,) = refused(2, "judge", "rate", run, "--rater", "ann")
    assert "rows.csv have changed" in line
