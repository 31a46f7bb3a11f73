"""`optimize check --every` and `--history`: nothing is asked before it is due, and what was checked is shown."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

from tests.cli.world import good, good_json, learner, optimize, refused, stubborn
from tests.conftest import Made
from tests.scripted import Toys


def checked(*words: str) -> tuple[int, dict[str, Any]]:
    done = optimize("check", "-q", *words, "--repeats", "1", "--json")
    return done.exit_code, json.loads(done.stdout)


def test_a_check_is_made_when_it_is_due_and_its_history_is_shown(two_runs: Made, toys: Toys) -> None:
    release, model, worse = two_runs[0]["release"], toys(learner), toys(stubborn, "worse")
    assert good_json("check", release, "--history") == {"name": "rows", "checks": []}
    code, first = checked(release, "-m", model.name, "--every", "1d")
    assert code == 0
    asked = len(model.bodies)
    code, skipped = checked(release, "-m", model.name, "--every", "1d")
    assert (code, len(model.bodies), skipped["skipped"]) == (0, asked, True)
    assert skipped["last"]["run_id"] == first["run_id"]
    said = good("check", "-q", "-m", model.name, release, "--every", "1d")
    assert re.search("checked at .* next check due at ", said)
    code, second = checked(release, "-m", worse.name, "--every", "1d")  # another model: its own history
    assert code == 100
    time.sleep(1.1)
    code, _ = checked(release, "-m", worse.name, "--every", "1s")
    assert code == 100
    points = good_json("check", release, "--history")["checks"]
    gates = [(model.name, "passed"), *[(worse.name, "failed")] * 2]
    assert [(each["model"], each["gate"]) for each in points] == gates
    assert points[0]["score"] == first["score"]["now"]["mean"]
    assert points[1]["flipped"] == second["flip_test"]["flipped"] > 0
    assert len(good_json("check", release, "--history", "-m", worse.name)["checks"]) == 2
    shown = optimize("check", release, "--history", "--page", "checks.html")
    assert "failed" in shown.stdout
    page = Path("checks.html").read_text("utf-8")
    assert (page.count("<svg"), "<script" in page, "http-equiv" in page) == (1, False, True)
    assert page.count("<tr>") == len(points) + 1
    assert all(point["run_id"] in page for point in points)


def test_what_makes_no_sense_is_refused(two_runs: Made, toys: Toys) -> None:
    release, model = two_runs[0]["release"], toys(learner)
    for every in ("soon", "0d", "-1d", "0"):
        lines = refused(2, "check", release, "-m", model.name, "--every", every)
        assert f"'--every': '{every}': write seconds above 0, or a time such as" in lines[-1]
    assert model.bodies == []
    assert "--page goes with --history" in optimize("check", release, "--page", "x.html").stderr


def test_without_a_check_it_is_said_and_no_page_is_written(two_runs: Made) -> None:
    words = ("check", two_runs[0]["release"], "--history", "-m", "openai/x", "--page", "checks.html")
    says = "no finished check of rows on openai/x; `optimize check PROMPT` makes one; checks.html was not written"
    for more in ((), ("--json",)):
        assert says in optimize(*words, *more).stderr
    assert not Path("checks.html").exists()
