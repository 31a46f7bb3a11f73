"""`optimize customize --arms hosted` over a real server: one job for one training, whatever kills or disturbs it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.jobs.customize import hosted as hosted_job
from tests.cli.tuning_provider import TUNED, Provider, answers
from tests.cli.world import compatible, files, good, good_json, optimize, refused
from tests.conftest import clean
from tests.warm import start, wait_until
from tests.wire import Fault, Seen, WireServer

JOBS = "/v1/fine_tuning/jobs"


class Bench:
    """A server that lives as long as the module, and the provider that answers there in a test."""

    def __init__(self) -> None:
        self.provider = Provider()
        self.server = WireServer(answers, other=lambda seen: self.provider(seen))


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bench, Path]]:
    """A folder with a finished search of a model on the server."""
    folder, bench = tmp_path_factory.mktemp("searched"), Bench()
    with bench.server, pytest.MonkeyPatch.context() as monkeypatch:
        clean(monkeypatch, folder)
        words = [*files(120), "-m", compatible(bench.server), "--max-calls", "120", "-n", "2", "-q"]
        good(*words)
        yield bench, folder


@pytest.fixture
def bench(searched: tuple[Bench, Path], here: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """The server, with a fresh provider; a copy of the ledger is in the current folder."""
    found, folder = searched
    shutil.copytree(folder, here, dirs_exist_ok=True)
    found.provider = Provider()
    monkeypatch.setattr(hosted_job, "FIRST_WAIT", 0.02)
    monkeypatch.setattr(hosted_job, "GRACE_SECONDS", 0.5)
    return found


def command(bench: Bench, *more: str) -> list[str]:
    data = ["customize", "rows.csv", "--target", "label", "--prompt", "p.txt"]
    return [*data, "-m", compatible(bench.server), "--arms", "hosted", "-q", *more]


def events(kind: str) -> list[dict[str, Any]]:
    with sqlite3.connect("file:runs/ledger.db?mode=ro", uri=True) as db:
        return [
            json.loads(body) for (body,) in db.execute("SELECT body FROM events WHERE kind = ? ORDER BY seq", [kind])
        ]


def test_the_model_is_trained_once_on_train_and_dev_as_it_is_asked_and_nothing_of_the_test(bench: Bench) -> None:
    words = command(bench, "--train-price", "25", "--max-cost", "9")
    told = good_json(*words)
    provider, (yours, hosted) = bench.provider, told["arms"]
    assert (yours["arm"], hosted["arm"], hosted["test"]) == ("yours", "hosted", 1.0)
    assert hosted["diff"] > 0.5
    assert hosted["train_s"] == 60.0
    assert hosted["elsewhere"]["n"] == 20
    assert hosted["train_usd"] == told["cost_usd"] == pytest.approx(4321 * 25 / 1e6)
    model = f"openai-compatible/{TUNED}@{bench.server.url}"
    assert (told["fine_tuning"]["job"], told["fine_tuning"]["model"]) == ("ftjob-1", model)
    assert provider.jobs["ftjob-1"] == {
        "model": "x",
        "training_file": "file-1",
        "validation_file": "file-2",
        "seed": 0,
        "hyperparameters": {"n_epochs": 3},
    }
    seen = [request.body["messages"] for request in bench.server.requests if request.body["model"] == TUNED]
    train, dev = provider.chats("file-1"), provider.chats("file-2")
    assert len(train) == hosted["labels"] == told["rows"]["train"]
    assert {chat["messages"][-1]["role"] for chat in train + dev} == {"assistant"}
    uploaded = {json.dumps(chat["messages"][:-1]) for chat in train + dev}
    asked = [messages for messages in seen if len(messages) > 1]
    assert {json.dumps(chat["messages"][0]) for chat in train} == {json.dumps(messages[0]) for messages in asked}
    rest = {json.dumps(messages) for messages in asked} - uploaded  # without the dev rows that time a call
    assert len(rest) == told["rows"]["test"]
    good("audit", "verify")
    assert good_json("audit", "check", told["run_id"])["holds"]

    again = good_json(*words)
    assert provider.started == 1
    assert again["cost_usd"] == 0.0
    assert again["arms"][1]["train_usd"] == hosted["train_usd"]
    assert [arm["test"] for arm in again["arms"]] == [arm["test"] for arm in told["arms"]]
    assert again["calls"].get("model", 0) == 0
    afresh = good_json(*words, "--no-cache")
    assert provider.started == 1
    assert afresh["calls"]["cached"] == 0
    assert afresh["calls"]["model"] == again["calls"]["cached"], "what the ledger answered before"


def test_a_job_that_ends_without_a_model_is_told_in_the_providers_words(bench: Bench) -> None:
    bench.provider = Provider(("queued", "failed"), error={"message": "the file is too small", "code": "bad_file"})
    opened = len(events("test_opened"))
    (line,) = refused(1, *command(bench))
    says = "failed (the file is too small / bad_file)"
    assert f"hosted: the job ftjob-1 {says}; the same command starts a new one" in line
    assert [each["status"] for each in events("fine_tuning_ended")] == ["failed"]
    assert len(events("test_opened")) == opened
    bench.provider.course = ("succeeded",)
    told = good_json(*command(bench))
    assert told["fine_tuning"]["job"] == "ftjob-2"
    assert told["unpriced"] == [f"training {compatible(bench.server)}"]
    assert told["arms"][1]["train_usd"] is None


def test_a_killed_command_finds_its_job_again_and_starts_no_second_one(bench: Bench) -> None:
    look = ("GET", f"{JOBS}/ftjob-1")
    bench.provider = Provider(("running", "succeeded"), lambda seen: Fault(delay=60) if seen.path == look[1] else None)
    process = start(*command(bench))
    wait_until(lambda: look in bench.provider.seen)
    process.kill()
    process.communicate()
    assert len(events("fine_tuning_files")) == len(events("fine_tuning_started")) == 1
    bench.provider.disturb = lambda seen: None
    told = good_json(*command(bench))
    assert told["fine_tuning"]["job"] == "ftjob-1"
    assert bench.provider.started == 1
    assert list(bench.provider.files) == ["file-1", "file-2"]
    assert len(events("fine_tuning_started")) == 1
    assert good_json("audit", "check", told["run_id"])["holds"]


@pytest.mark.parametrize("presses", [1, 2])
def test_a_first_ctrl_c_lets_the_job_go_on_and_a_second_cancels_it(bench: Bench, presses: int) -> None:
    bench.provider = Provider(("running",))
    grace = 1 if presses == 1 else 60
    patient = f"from agent.jobs.customize import hosted as h; h.GRACE_SECONDS = {grace}"
    process = start(*command(bench), before=patient)
    cancel = ("POST", f"{JOBS}/ftjob-1/cancel")
    wait_until(lambda: ("GET", f"{JOBS}/ftjob-1") in bench.provider.seen)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    lines = [process.stderr.readline(), process.stderr.readline()]
    assert "the job ftjob-1 continues at the provider" in lines[1]
    assert cancel not in bench.provider.seen
    if presses == 2:
        process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 130
    assert (cancel in bench.provider.seen) == (presses == 2)
    assert ("the job ftjob-1 is cancelled at the provider" in rest) == (presses == 2)
    assert [end["status"] for end in events("fine_tuning_ended")] == ["cancelled"] * (presses - 1)
    bench.provider.course = ("succeeded",)
    assert good_json(*command(bench))["fine_tuning"]["job"] == f"ftjob-{presses}"


def test_a_start_whose_reply_is_lost_is_looked_for_before_it_is_sent_again(bench: Bench) -> None:
    def disturb(seen: Seen) -> Fault | None:
        if (seen.method, seen.path) != ("POST", JOBS) or bench.provider.started > 1:
            return None
        for number in range(4):  # the job and others since, over two pages
            bench.provider.start({**seen.body, "training_file": f"other-{number}" if number else "file-1"})
        return Fault(raw=b"")

    bench.provider = Provider(disturb=disturb)
    assert good_json(*command(bench))["fine_tuning"]["job"] == "ftjob-1"
    assert bench.provider.started == 1


def test_a_model_that_the_provider_does_not_train_is_told_in_one_line(bench: Bench) -> None:
    why = "model x is not available for fine-tuning"

    def disturb(seen: Seen) -> Fault | None:
        is_start = (seen.method, seen.path) == ("POST", JOBS)
        return Fault(400, body={"error": {"message": why, "code": "no"}}) if is_start else None

    bench.provider = Provider(disturb=disturb)
    (line,) = refused(1, *command(bench))
    assert why in line
    assert [end["status"] for end in events("fine_tuning_ended")] == ["refused"]
    bench.provider.disturb = lambda seen: None
    assert good_json(*command(bench))["fine_tuning"]["job"] == "ftjob-1"
    assert list(bench.provider.files) == ["file-1", "file-2", "file-3", "file-4"], "perhaps a file was gone"


def test_a_server_without_the_api_is_refused_before_a_search_is_paid(bench: Bench) -> None:
    shutil.rmtree("runs")
    bench.provider = Provider(disturb=lambda seen: Fault(404, body={"error": {"message": "no such address"}}))
    before = len(bench.server.requests)
    (line,) = refused(1, *command(bench))
    assert "the server has no fine-tuning API (HTTP 404)" in line
    assert bench.provider.seen == [("GET", JOBS)]
    assert len(bench.server.requests) == before


@pytest.mark.parametrize(
    ("code", "model", "more", "says"),
    [
        (2, "local/smollm2-135m", [], "is not trained at a provider"),
        (2, "openai/gpt-4.1-nano", [], "the price of the tuned model is unknown"),
        (2, "openai/gpt-4o-mini-2024-07-18", ["--train-price", "inf"], "inf: write a number of US dollars of at least"),
        (2, "", ["--max-cost", "3"], "give --train-price USD_PER_MILLION"),
        (3, "", ["--max-cost", "0.5", "--train-price", "100"], "more than --max-cost 0.5"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_asked(
    bench: Bench, code: int, model: str, more: list[str], says: str
) -> None:
    words = command(bench, *more)
    words[words.index("-m") + 1] = model or words[words.index("-m") + 1]
    *_, line = refused(code, *words)
    assert says in line
    assert bench.provider.seen == []


def test_the_files_alone_are_written_and_the_commands_start_the_same_job(bench: Bench) -> None:
    told = good_json(*command(bench, "--export-only", "out"))
    assert told["files"] == ["out/train.jsonl", "out/validation.jsonl", "out/start-job.sh"]
    assert bench.provider.seen == []
    assert told["of_run"]
    subprocess.run(["sh", "start-job.sh"], cwd="out", check=True, capture_output=True, timeout=60, env=_with_key())
    by_hand = dict(bench.provider.jobs["ftjob-1"])
    assert bench.provider.files == {
        "file-1": Path("out/train.jsonl").read_bytes(),
        "file-2": Path("out/validation.jsonl").read_bytes(),
    }
    bench.provider = Provider()
    good(*command(bench))
    assert bench.provider.jobs["ftjob-1"] == by_hand
    assert bench.provider.files["file-1"] == Path("out/train.jsonl").read_bytes()


def _with_key() -> dict[str, str]:
    return {**os.environ, "OPENAI_COMPATIBLE_API_KEY": "k", "no_proxy": "*"}


def test_files_without_a_search_have_your_own_prompt(bench: Bench) -> None:
    shutil.rmtree("runs")
    result = optimize(*command(bench, "--export-only", "out"))
    assert result.exit_code == 0
    assert "your own prompt (no finished search yet)" in result.stdout
    chat = json.loads(Path("out/train.jsonl").read_text("utf-8").splitlines()[0])
    assert chat["messages"][0]["content"].startswith(Path("p.txt").read_text("utf-8"))
    assert not Path("runs").exists()


def test_it_takes_part_only_where_it_is_named(bench: Bench) -> None:
    told = good_json(*[word if word != "hosted" else "best,no-model" for word in command(bench)])
    assert "hosted" not in {arm["arm"] for arm in told["arms"]}
    assert bench.provider.seen == []
