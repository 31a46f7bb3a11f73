"""`optimize check --every` and `--history`: nothing is asked before it is due, and what was checked is shown."""

from __future__ import annotations

import re
import time
from pathlib import Path

from tests.cli.test_prompt_check import checked, flipping
from tests.cli.world import compatible, good, good_json, learner, optimize, refused
from tests.conftest import Made
from tests.wire import WireServer


def test_a_check_is_made_when_it_is_due_and_its_history_is_shown(two_runs: Made) -> None:
    release = two_runs[0]["release"]
    assert good_json("check", release, "--history") == {"name": "rows", "checks": []}
    with WireServer(learner) as server:
        code, first = checked(server, release, "--every", "1d", "--repeats", "1")
        assert code == 0
        asked = len(server.requests)
        code, skipped = checked(server, release, "--every", "1d", "--repeats", "1")
        assert (code, len(server.requests)) == (0, asked)
        assert skipped["skipped"]
        assert skipped["last"]["run_id"] == first["run_id"]
        said = good("check", "-q", "-m", compatible(server), release, "--every", "1d")
        assert re.search("checked at .* next check due at ", said)
        model = first["model"]
    with WireServer(flipping(2)) as worse:
        code, second = checked(worse, release, "--every", "1d", "--repeats", "1")  # another model: its own history
        assert code == 100
        other = second["model"]
        time.sleep(1.1)
        code, _ = checked(worse, release, "--every", "1s", "--repeats", "1")
        assert code == 100
    found = good_json("check", release, "--history")
    points = found["checks"]
    assert [(each["model"], each["gate"]) for each in points] == [(model, "passed"), *[(other, "failed")] * 2]
    assert points[0]["score"] == first["score"]["now"]["mean"]
    assert points[1]["flipped"] == second["flip_test"]["flipped"] > 0
    assert len(good_json("check", release, "--history", "-m", other)["checks"]) == 2
    shown = optimize("check", release, "--history", "--page", "checks.html")
    assert "failed" in shown.stdout
    page = Path("checks.html").read_text("utf-8")
    assert (page.count("<svg"), "<script" in page, "http-equiv" in page) == (1, False, True)
    assert page.count("<tr>") == len(points) + 1
    assert all(point["run_id"] in page for point in points)


def test_what_makes_no_sense_is_refused(two_runs: Made) -> None:
    release = two_runs[0]["release"]
    with WireServer(learner) as server:
        for every in ("soon", "0d", "-1d", "0"):
            lines = refused(2, "check", release, "-m", compatible(server), "--every", every)
            assert f"'--every': '{every}': write seconds above 0, or a time such as" in lines[-1]
        assert server.requests == []
    assert "--page goes with --history" in optimize("check", release, "--page", "x.html").stderr


def test_without_a_check_it_is_said_and_no_page_is_written(two_runs: Made) -> None:
    words = ("check", two_runs[0]["release"], "--history", "-m", "openai/x", "--page", "checks.html")
    says = "no finished check of rows on openai/x; `optimize check PROMPT` makes one; checks.html was not written"
    for more in ((), ("--json",)):
        assert says in optimize(*words, *more).stderr
    assert not Path("checks.html").exists()
