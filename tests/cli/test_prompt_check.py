"""`optimize check` and `optimize bless`: what fails is told, and a suite of somebody else leads nowhere."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from agent.jobs import interrupts
from agent.release.runtime import load_prompt
from tests.cli.test_judge_run import CAP, Boats, task
from tests.cli.world import compatible, good, good_json, learner, optimize, refused, write_task
from tests.conftest import Made
from tests.scripted import Toys
from tests.wire import Fault, WireServer


def test_a_cap_that_cannot_pay_every_row_is_refused_before_the_first_call(two_runs: Made, toys: Toys) -> None:
    run, model = two_runs[0]["run_id"], toys(learner)
    words = ("-m", model.name, "--max-calls", "7")
    (said,) = refused(2, "check", run, *words)
    assert re.fullmatch(
        r"error: --max-calls 7: this check takes \d+ calls at least; raise it, or lower --repeats", said
    )
    (said,) = refused(2, "bless", run, "--reason", "x", "--limit", "4", *words)
    assert "to record this suite takes 12 calls at least" in said
    assert not model.seen


def test_a_place_that_cannot_be_written_is_refused_before_the_first_call(two_runs: Made, toys: Toys) -> None:
    model = toys(learner)
    Path("old.xml").write_text("old")
    for option, place in (("--junit", "rows.csv/c.xml"), ("--markdown", ""), ("--markdown", "runs")):
        words = ("-m", model.name, "--junit", "old.xml", "--markdown", "new/c.md", option, place)
        said = refused(2, "check", two_runs[0]["run_id"], *words)[-1]
        assert said.startswith((f"error: {option} {place}: ", f"Error: Invalid value for '{option}': "))
    assert not model.seen
    assert Path("old.xml").read_text() == "old"
    assert not list(Path("new").glob("*"))


def test_the_result_is_told_also_where_a_file_of_it_can_no_longer_be_written(
    two_runs: Made, toys: Toys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.jobs.check.require_place", lambda path, option: None)  # the disk runs full meanwhile
    done = optimize("check", two_runs[0]["run_id"], "-q", "-m", toys(learner).name, "--junit", "rows.csv/c.xml")
    assert done.exit_code == 1
    assert ": PASSED" in done.stdout
    assert "rows.csv/c.xml: cannot be written" in done.stderr


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (Fault(body="<html>Log in</html>"), "the reply is not JSON: <html>Log in</html>"),
        (Fault(body={"choices": []}), "the reply has no choices"),
    ],
)
def test_a_check_without_any_answer_says_what_came_instead(two_runs: Made, fault: Fault, says: str) -> None:
    first, _ = two_runs
    with WireServer(lambda messages, body: fault) as server:
        words = ("check", first["release"], "-q", "-m", compatible(server), "--price", "1,2", "--markdown", "c.md")
        done = optimize(*words)
    assert done.exit_code == 100
    assert f"{compatible(server)}: {says}" in done.stdout
    assert says.split(":")[0] in Path("c.md").read_text("utf-8")
    assert "bless" not in done.stdout
    assert re.search(r"0 tokens, (\$0\.\d+) \(up to \1 of it for failed calls", done.stdout)


def test_an_outage_is_told_in_a_line(two_runs: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = two_runs
    monkeypatch.setattr(interrupts, "BEAT_SECONDS", 0.005)
    with WireServer(lambda messages, body: Fault(status=500)) as server:
        words = ("-m", compatible(server), "--max-wait", "1s")
        for command in (["check", first["release"]], ["run", "rows.csv", "--target", "label", "--prompt", "p.txt"]):
            done = optimize(*command, *words, "--max-calls", "300")
            (line,) = [each for each in done.stderr.splitlines() if each.startswith("waiting")]
            assert line.startswith(f"waiting for {compatible(server)}: HTTP 500: the provider failed")
            assert re.search(r"; giving up in \d s$", line)


def test_a_provider_that_refuses_rows_is_no_score_of_0(two_runs: Made) -> None:
    first, _ = two_runs
    refuse = Fault(400, body={"error": {"message": "too long", "code": "context_length_exceeded"}})
    with WireServer(lambda messages, body: refuse) as server:
        model = ("-q", "-m", compatible(server))
        done = optimize("check", first["release"], *model, "--json")
        (line,) = refused(1, "bless", first["release"], "--reason", "x", *model)
    told = json.loads(done.stdout)
    assert (done.exit_code, told["difference"]) == (100, None)
    (why,) = told["why"]
    assert why.startswith("no row has an answer on both sides: ")
    assert why.endswith("the request is too long for this model (too long); shorten the prompt")
    assert "nothing was recorded" in line
    assert not Path(first["release"]).with_name("suite.json").exists()


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["check", "--suite", "none.json"], 1, "none.json"),
        (["bless", "--reason", " "], 2, "say why"),
        (["bless", "--reason", "x", "--judge", "openai/other"], 2, "--judge, but no metric of the task is a judge"),
        (["check", "--db", "none.db", "--task", "t"], 2, "optimize bless"),
    ],
)
def test_wrong_use_is_refused_in_a_line(two_runs: Made, words: list[str], code: int, says: str) -> None:
    if "none.db" in words:
        Path("rows.csv").unlink()
        write_task(TASK, labelled({"train": 2, "dev": 2, "test": 2}))
    assert says in " ".join(refused(code, *words, two_runs[0]["release"]))


TASK = """
name = "t"
description = "Route."
signature = "text -> label"
instruction = "Route."
[fields.label]
type = "choice"
choices = ["billing", "repair"]
"""


def labelled(counts: dict[str, int]) -> dict[str, list[dict[str, str]]]:
    """Write that many rows for each split."""
    return {
        split: [{"text": f"{split} number {n}", "label": ("billing", "repair")[n % 2]} for n in range(count)]
        for split, count in counts.items()
    }


# -- metrics that need more than the suite ----------------------------------------------------------------------------


def test_a_judge_of_the_suite_scores_again(toys: Toys) -> None:
    task()
    model = ("-m", toys(Boats()).name)
    run = good_json("run", "boats", *CAP, *model)
    first = good_json("check", run["release"], "-q", *model)
    assert first["gate"] == "passed"
    assert first["calls"]["judge"] > 0
    told = good_json("bless", run["release"], "--reason", "first", "-q", *model)
    suite = json.loads(Path(told["path"]).read_text("utf-8"))
    assert suite["judges"] == [model[1]]
    assert "rubric.md" in suite["rubrics"]
    Path("boats/rubric.md").unlink()
    assert good_json("check", run["release"], "-q")["gate"] == "passed"
    for shown in ("show", "audit show", "audit check"):
        good(*shown.split(), told["run_id"])


def test_a_pairwise_judge_compares_with_the_recorded_answers(toys: Toys) -> None:
    task('mode = "pairwise"\n')
    model = ("-m", toys(Boats()).name)
    run = good_json("run", "boats", *CAP, *model)
    assert "compares with another prompt's answers" in refused(2, "check", run["release"], "-q", *model)[0]
    told = good_json("bless", run["release"], "--reason", "first", "-q", *model)
    found = good_json("check", run["release"], "-q", *model)
    assert told["score"]["mean"] == found["score"]["now"]["mean"]
    assert found["gate"] == "passed"


def test_a_metric_of_the_users_own_is_taken_from_the_task_and_never_from_the_suite(toys: Toys) -> None:
    Path("tasks").mkdir()
    toml = TASK + '[[metrics]]\nname = "python"\n[models]\nproposer = "none"\n'
    write_task(toml, labelled({"train": 20, "dev": 20, "test": 40}))
    score = "def metric(example, prediction):\n    return float(prediction['fields'].get('label') == 'billing')\n"
    Path("t/metric.py").write_text(score, "utf-8")
    Path("t").rename("tasks/t")
    run = good_json("run", "t", "-m", toys(lambda messages, body: "billing").name, "--max-calls", "300", "-q")
    good("bless", run["release"], "--reason", "first", "-q", "--limit", "10")
    assert good_json("check", run["release"], "-q")["score"]["now"]["mean"] == 1.0
    Path("tasks/t").rename("tasks/u")
    assert "no task of this name" in refused(2, "check", run["release"], "-q")[0]
    assert good_json("check", run["release"], "-q", "--task", "u")["gate"] == "passed"


# -- a suite of somebody else -----------------------------------------------------------------------------------------


def away_from_home(release: str, folder: Path, **changes: Any) -> Path:
    """The prompt and its suite as somebody else would send them, with changes of theirs; no ledger knows them."""
    folder.mkdir(parents=True)
    suite = {**json.loads(Path(release).with_name("suite.json").read_text("utf-8")), **changes}
    (folder / "prompt.md").write_bytes(Path(release).read_bytes())
    (folder / "suite.json").write_text(json.dumps(suite), "utf-8")
    return folder / "prompt.md"


@pytest.fixture
def release(two_runs: Made, toys: Toys) -> str:
    """A prompt with a suite of six rows."""
    found: str = two_runs[0]["release"]
    good("bless", found, "--reason", "first", "-q", "-m", toys(learner).name, "--limit", "6")
    return found


JUDGED = {
    "metrics": [{"name": "judge", "field": "label", "weight": 1.0, "options": {}}],
    "rubrics": {"rubric.md": "How good is the answer?\n- 1: bad\n- 5: good\n"},
}
NOBODY = ("--db", "none.db", "-q")


@pytest.mark.parametrize("command", [["check"], ["bless", "--reason", "x"]])
def test_a_model_that_only_a_suite_names_is_asked_at_no_address_and_from_no_file(
    release: str, toys: Toys, command: list[str]
) -> None:
    own = toys(learner)
    with WireServer(learner) as theirs:
        evil = compatible(theirs)
        for number, name in enumerate((evil, "scripted//etc/hostname", "local//etc/passwd.gguf")):
            prompt = away_from_home(release, Path(f"model{number}"), model=name)
            (line,) = refused(2, *command, prompt, *NOBODY)
            assert line.startswith(f"error: {prompt.with_name('suite.json')}: names the model {name}, and neither you")
            assert line.endswith(f"if you trust it, give it yourself: --model {name}")
        judged = away_from_home(release, Path("judge"), judges=[evil], **JUDGED)
        (line,) = refused(2, *command, judged, "-m", own.name, *NOBODY)
        assert line.endswith(f"give it yourself: --judge {evil}")
        assert not theirs.requests
    assert not own.seen


def test_a_model_that_was_typed_or_that_the_ledger_has_asked_is_allowed(release: str) -> None:
    def boats(messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
        return '{"reason": "x", "rating": 5}' if "rating" in json.dumps(body) else learner(messages, body)

    with WireServer(boats) as server:
        name = compatible(server)
        judge = name.replace("/x@", "/j@")
        prompt = away_from_home(release, Path("sent"), model=name, judges=[judge], **JUDGED)
        assert "give it yourself: --judge" in refused(2, "check", prompt, "-m", name, *NOBODY)[0]
        words = ("check", prompt, "--db", "own.db", "-q")
        assert optimize(*words, "-m", name, "--judge", judge).exit_code in (0, 100)
        asked = len(server.requests)
        assert optimize(*words).exit_code in (0, 100)
        assert len(server.requests) == 2 * asked
        (line,) = refused(2, *words, "--judge", "openai/other")
    assert f"--judge openai/other: recorded are scores of {judge}; another one needs a new record" in line


@pytest.mark.parametrize("name", ["download", "../download"])
def test_a_name_in_a_suite_or_a_prompt_is_no_path_to_a_metric(release: str, here: Path, name: str) -> None:
    Path("tasks").mkdir()
    metrics = [{"name": "python", "field": "label", "weight": 1.0, "options": {}}]
    prompt = away_from_home(release, here / "download", name=name, metrics=metrics)
    renamed = prompt.read_text("utf-8").replace('"name": "rows"', f'"name": "{name}"', 1)
    prompt.write_text(renamed, "utf-8")
    before, after = re.findall(r'(?m)^  "version": "(.*)",$', renamed)[0], load_prompt(prompt, verify=False).version
    prompt.write_text(renamed.replace(before, after), "utf-8")
    prompt.with_name("task.toml").write_text("", "utf-8")
    code = f"open({str(here / 'ran')!r}, 'w')\ndef metric(example, prediction): return 1\n"
    prompt.with_name("metric.py").write_text(code, "utf-8")
    for _ in range(2):
        assert "no task of this name under tasks/" in refused(2, "check", prompt, "-m", "toy/x", *NOBODY)[0]
        prompt.with_name("suite.json").unlink(missing_ok=True)
    assert not (here / "ran").exists()
