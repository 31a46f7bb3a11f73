"""A wrong address, key or name is found before a run is made, by a question that costs nothing, or leaves no advice to
resume; what only may be wrong holds up nothing."""

import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cli.world import compatible, files, good, good_json, knowing, optimize, refused
from tests.warm import start
from tests.wire import Fault, WireServer

KEY = "sk-secret-secret-0123456789"
SHORT = ["--max-calls", "200", "-n", "1", "-q"]


def body(code: str, words: str) -> dict[str, Any]:
    return {"error": {"message": words, "type": code, "param": None, "code": code}}


def runs() -> list[dict[str, Any]]:
    found = good_json("runs")["runs"]
    assert isinstance(found, list)
    return found


REFUSED = [
    (Fault(401, body=body("invalid_api_key", f"Incorrect API key provided: {KEY}")), "set OPENAI_COMPATIBLE_API_KEY"),
    (Fault(404, body=body("model_not_found", "The model 'x' does not exist")), "check the name"),
]


@pytest.mark.parametrize(("look", "says"), REFUSED)
def test_what_no_call_can_work_with_is_refused_before_a_run_is_made(
    look: Fault, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_COMPATIBLE_API_KEY", KEY)
    with WireServer(knowing) as server:
        server.look = look
        (line,) = refused(2, *files(120), "-m", compatible(server), *SHORT)
        assert (server.requests, len(server.looks)) == ([], 1)
        assert server.looks[0].headers["authorization"] == f"Bearer {KEY}"
    assert line.startswith(f"error: openai-compatible/x@{server.url}: HTTP {look.status}: ")
    assert says in line
    assert KEY not in line
    assert runs() == []


@pytest.mark.parametrize(
    "look",
    [
        Fault(403, body=body("permission_error", "this key may not list models")),
        Fault(401, delay=2.0, body=body("x", "late")),
    ],
)
def test_what_may_work_all_the_same_is_run(look: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.models.hosted.PROBE_SECONDS", 0.2)
    with WireServer(knowing) as server:
        server.look = look
        good(*files(120), "-m", compatible(server), *SHORT)
        assert len(server.looks) == 1
    assert [run["status"] for run in runs()] == ["complete"]


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/v1", "http://no-such-host.invalid/v1"])
def test_an_address_where_nobody_is_makes_no_run(address: str) -> None:
    (line,) = refused(2, *files(120), "-m", f"openai-compatible/x@{address}", *SHORT)
    assert "cannot connect" in line
    assert "check the address" in line
    assert runs() == []


@pytest.mark.parametrize(("model", "more"), [("openai/x", ["--dry-run"]), ("openai-compatible/x", [])])
def test_a_gateway_is_named_before_its_first_call(monkeypatch: pytest.MonkeyPatch, model: str, more: list[str]) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with WireServer(knowing) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        found = optimize(*files(120), "-m", model, "--price", "1,2", "--max-calls", "200", "-n", "1", *more)
        assert found.exit_code == 0, found.stderr
        assert bool(server.requests) is not bool(more)
    told = found.stderr.splitlines()
    line = f"{model}: rows go to {server.url} (OPENAI_BASE_URL)"
    assert told.count(line) == 1
    assert not any(each.startswith("plan:") for each in told[: told.index(line)])


def test_what_the_ledger_answers_needs_nobody_and_a_dry_run_connects_to_nobody() -> None:
    with WireServer(knowing) as server:
        command = [*files(120), "-m", compatible(server), *SHORT]
        good(*command, "--dry-run")
        assert (server.requests, server.looks, server.opened) == ([], [], 0)
        first = good_json(*command)
        asked = len(server.requests)
        server.look = Fault(401, body=body("invalid_api_key", "wrong"))
        assert good_json(*command)["baseline"] == first["baseline"]
        assert (len(server.requests), len(server.looks)) == (asked, 1)
    assert good_json(*command)["baseline"] == first["baseline"], "the server is gone"
    assert "cannot connect" in refused(2, *command, "--no-cache")[0]
    assert len(runs()) == 3


def test_a_mistake_that_only_the_first_call_shows_leaves_its_reason_and_no_advice_to_resume() -> None:
    with WireServer(lambda messages, body: Fault(404)) as server:
        error, advice = refused(1, *files(120), "-m", compatible(server), *SHORT)
    assert "unknown model or address" in error
    assert advice == "no call was made; fix this and run the same command again"
    (run,) = runs()
    assert (run["status"], f"error: {run['error']}") == ("failed", error)
    assert run["error"] in good("runs")
    assert run["error"] in good("history")
    assert run["error"] in refused(2, "show")[0]
    good("report", "-o", "r.html")
    assert "unknown model or address" in Path("r.html").read_text("utf-8")


def test_an_interrupt_while_it_is_asked_leaves_no_run() -> None:
    with WireServer(knowing) as server:
        server.look = Fault(delay=4.0)
        process = start(*files(120), "-m", compatible(server), *SHORT)
        deadline = time.monotonic() + 60
        while not server.looks and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
        assert (process.returncode, err, server.requests) == (130, "interrupted\n", [])
    assert runs() == []


def test_the_doctor_asks_about_a_model_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_COMPATIBLE_API_KEY", KEY)
    with WireServer(knowing) as server:
        name = compatible(server)
        server.look = Fault(body={"id": "x"})
        assert f"{name}\tok\tanswers" in optimize("doctor", "--model", name).stdout
        server.look = Fault(404, body=body("not_found", "no such address"))
        assert f"{name}\tok\tcannot be told without a call: " in optimize("doctor", "--model", name).stdout
        server.look = Fault(401, body=body("invalid_api_key", f"wrong: {KEY}"))
        done = optimize("doctor", "--model", name)
        assert server.requests == []
    assert done.exit_code == 1
    assert f"{name}\tPROBLEM\t" in done.stdout
    assert "the key was refused" in done.stdout
    assert KEY not in done.stdout
    assert "openai/x\tPROBLEM\t" in optimize("doctor", "--model", "openai/x").stdout
    assert not Path("runs").exists()
