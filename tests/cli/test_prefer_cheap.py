"""`--prefer cheap`: a cheaper prompt goes to the sealed test where dev shows that it loses less than the margin, and is
compared there with the best, on the same rows and at once."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

from agent.jobs.locations import LEDGER, open_history
from tests.cli.world import compatible, files, good, good_json, knowing, refused
from tests.wire import WireServer

CALLS = ("--max-calls", "700", "--proposer", "none", "--price", "1,1", "--no-calibrate", "--no-retrieval")
LETTERS = 600
"""Of a prompt, from which on the model is right but for an accident here and there."""


def by_length(messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
    """Fails on about half of the rows with a short prompt, and on one in 25 with a longer one: which, is chance."""
    whole = json.dumps(messages)
    draw = zlib.crc32(whole.encode()) % 100
    return "I am not sure" if draw < (4 if len(whole) > LETTERS else 50) else knowing(messages, body)


def opened(run_id: str) -> dict[str, Any]:
    """What the event of the sealed test says."""
    history = open_history(LEDGER)
    try:
        rows = history.select("SELECT body FROM events WHERE kind = 'test_opened' AND run_id = ?", run_id)
    finally:
        history.close()
    found: dict[str, Any] = json.loads(rows[0]["body"])
    return found


def test_the_cheaper_one_is_compared_with_the_best_on_the_same_sealed_rows() -> None:
    with WireServer(by_length) as server:
        words = (*files(), "-m", compatible(server), *CALLS)
        cheap = good_json(*words, "--prefer", "cheap", "--margin", "15")
        sent = sum(cheap["calls"][role] for role in ("model", "proposer", "judge"))
        assert sent <= 700
    found = cheap["cheaper"]
    assert found["dev"]["shown"]
    assert found["dev"]["low"] > -0.15
    assert found["saved_in"] == "tokens", "this server counts every call alike"
    assert 0 < found["saved"] < 1
    assert found["test"]["n"] == cheap["lift"]["n"], "the same rows, opened once"
    assert opened(cheap["run_id"])["best"] == found["best"]
    assert found["test"]["diff"] == cheap["winner"]["test"] - found["best_test"]
    assert found["test"]["shown"] == (found["test"]["low"] > -0.15)
    said = "worse than it by more than 15 points" if found["test"]["shown"] else "a loss of more than 15 points"
    screen, page = good("show", cheap["run_id"]), Path("report.html")
    good("report", cheap["run_id"], "-o", page)
    for surface in (screen, page.read_text("utf-8")):
        assert said in surface
        assert "fewer prompt tokens than the best on dev" in surface
    assert "the same" in good("reproduce", cheap["run_id"], "--offline")
    assert "PROBLEM" not in good("audit", "check", cheap["run_id"])


def test_a_margin_out_of_range_is_refused() -> None:
    for margin in ("0", "51", "-1", "nan"):
        assert "--margin" in refused(2, *files(), "--prefer", "cheap", "--margin", margin)[-1]
    assert "add --prefer cheap" in refused(2, *files(), "--margin", "3")[-1]


def test_a_gain_that_is_no_number_is_refused() -> None:
    assert "--detect" in refused(2, *files(), "--detect", "nan")[-1]
    assert "takes 10,000,000 or more test rows" in good(*files(), *CALLS, "--detect", "0.001", "--dry-run")
    few = good(*files(), *CALLS, "--trials", "5", "--dry-run")
    assert "tries about 5 prompts" in few
    assert "which is few" not in few
