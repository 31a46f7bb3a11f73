"""`optimize monitor` and `optimize ab report` from the command line: exit codes, tables, limits of the task."""

import json
import random
import re
from pathlib import Path
from typing import Any

from tests.cli.world import TOPICS, good, good_json, learner, optimize, refused, write_lines, write_task
from tests.conftest import Made
from tests.scripted import Toys


def log(path: str, weights: list[int], count: int = 1000, seed: int = 1) -> Path:
    rng = random.Random(seed)
    replies = rng.choices(list(TOPICS), weights, k=count)
    write_lines(path, ({"reply": reply, "time": f"2026-11-{n % 27 + 1:02d}"} for n, reply in enumerate(replies)))
    return Path(path)


def drifted(*words: str | Path) -> dict[str, Any]:
    done = optimize("monitor", *words, "--json")
    assert done.exit_code == 100, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_fall_of_the_score_is_shown_below_0(two_runs: Made) -> None:
    for name, right in (("good.jsonl", 270), ("bad.jsonl", 210)):
        write_lines(name, ({"reply": "billing", "score": float(at < right)} for at in range(300)))
    words = ("monitor", two_runs[0]["release"], "--reference", "good.jsonl")
    assert re.search(r"ALARM +score +90.0 % -> 70.0 % +-0.200 +-0.05 ", optimize(*words, "bad.jsonl").stdout)
    assert re.search(r" score +90.0 % -> 90.0 % +\+0.000 +-0.05 ", good(*words, "good.jsonl"))


def test_the_suite_is_the_reference_unless_another_is_given(two_runs: Made, toys: Toys) -> None:
    release = two_runs[0]["release"]
    clean = log("clean.jsonl", [1, 1, 1, 1])
    assert "optimize bless" in refused(2, "monitor", release, clean)[0]
    good("bless", release, "--reason", "first", "-q", "-m", toys(learner).name)
    told = good_json("monitor", two_runs[0]["run_id"], clean)
    assert not told["drift"]
    Path("broken.jsonl").write_text('{"reply": "no idea"}\n' * 300, "utf-8")
    assert "unreadable replies" in drifted(release, "broken.jsonl")["alarms"]


def test_the_task_says_what_is_drift(two_runs: Made) -> None:
    release = two_runs[0]["release"]
    good_week, now = log("good.jsonl", [4, 3, 2, 1]), log("now.jsonl", [2, 3, 2, 3])
    assert drifted(release, now, "--reference", good_week)
    labels = ("billing", "repair")
    write_task(TASK, {name: [{"text": f"{name} {label}", "label": label} for label in labels] for name in SPLITS})
    assert not good_json("monitor", release, now, "--reference", good_week, "--task", "t")["drift"]
    Path("t/task.toml").write_text(TASK.replace("labels = 0.9", "labels = 0"), "utf-8")
    assert "t/task.toml:10" in refused(2, "monitor", release, now, "--reference", good_week, "--task", "t")[0]


SPLITS = ("train", "dev", "test")
TASK = """name = "t"
description = "Route."
signature = "text -> label"
instruction = "Route."
[fields.label]
type = "choice"
choices = ["billing", "repair"]
[monitor]
alpha = 0.01
labels = 0.9
length = 0.9
"""


def test_ab_report_takes_names_and_says_which_outcomes_it_leaves_out() -> None:
    """What it finds is in tests/release/test_ab_report.py, and what it prints in the snapshots."""
    rows: list[dict[str, Any]] = [{"user": f"u{at}", "group": "AB"[at % 2], "won": at % 3 == 0} for at in range(30)]
    rows[3]["won"] = "unclear"
    write_lines("o.jsonl", [*rows, rows[0]])
    words = ("ab", "report", "o.jsonl", "--unit-column", "user", "--arm-column", "group", "--outcome-column", "won")
    assert "--several first" in refused(2, *words)[0]
    told = good_json(*words, "--several", "first", "--control", "B")
    assert (told["units"], told["left_out"], told["control"]) == ([14, 15], 1, "B")
    assert "note: o.jsonl:4: outcome: 'unclear' is not a number" in good(*words, "--several", "first")
    assert "none.jsonl" in refused(2, "ab", "report", "none.jsonl")[0]
