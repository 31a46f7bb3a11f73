"""The bench of public claims: its arithmetic, the split of the rows, and a run with a scripted model."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from agent.stats.intervals import mean_ci
from tests.bench.claims.__main__ import invoice_score, main, math_score, write_sentiment, write_task
from tests.bench.claims.published import CLAIMS, Claim, interval, lines
from tests.cli.world import compatible
from tests.wire import WireServer

PIPELINE = 'import dspy\n\ndef build():\n    class Solve(dspy.Signature):\n        """Add the numbers."""\n'


def example(folder: Path) -> Path:
    (folder / "data").mkdir(parents=True)
    (folder / "pipeline.py").write_text(PIPELINE, "utf-8")
    for split, numbers in (("train", range(34)), ("val", range(40, 52))):
        rows = ({"problem": f"How much is {n} + 0.5?", "answer": n + 0.5, "trap": "none"} for n in numbers)
        (folder / "data" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return folder


def test_intervals_and_best_cases_are_those_of_rows_that_give_the_published_means() -> None:
    assert interval(0.5, 22) == mean_ci([1.0] * 11 + [0.0] * 11)[1:]
    low, high = interval(5.4 / 12, 12)
    assert low < 0.45 < high
    for rows, p_value in ((5, 2 / 32), (6, 2 / 64)):
        certain = Claim("all", "x", rows, 0.0, 1.0, (0.0, 1.0)).best_case()
        assert certain is not None
        assert certain.p_value == pytest.approx(p_value)
    best = {claim.name: claim.best_case() for claim in CLAIMS}
    math, later = best["math"], best["math, later"]
    assert math is not None
    assert later is not None
    assert (round(math.diff, 3), round(later.diff, 3)) == (0.25, 0.083)
    assert (math.p_value, later.p_value) == (pytest.approx(0.0625), pytest.approx(0.5))
    assert best["invoices"] is best["sentiment"] is None
    assert Claim("none", "x", 3, 0.5, 1.0, (0.0, 1.0)).best_case() is None, "no rows give half of three"
    assert len(list(lines())) == 2 + len(CLAIMS) + 3


def test_the_last_number_scores_within_a_tenth() -> None:
    row = {"answer": "27.3"}
    assert [math_score(row, said) for said in ("3 then 27.3", "26", "$1,027.3", "nothing")] == [1.0, 0.2, 0.0, 0.0]


def test_an_invoice_scores_by_the_published_weights(tmp_path: Path) -> None:
    item = {"description": "Tea", "quantity": 2, "unit_price": 3.5}
    right = {"vendor": "Leaf Ltd", "date": "2026-01-02", "line_items": [item, item | {"quantity": 1}], "total": 10.5}
    folder = example(tmp_path / "theirs")
    for split in ("train", "val"):
        rows = json.dumps({"text": "Leaf Ltd, 2 January 2026 ...", **right}) + "\n"
        (folder / "data" / f"{split}.jsonl").write_text(rows * 4, "utf-8")
    (row, *_) = (write_task(folder, tmp_path / "invoices", 9) / "test.jsonl").read_text("utf-8").splitlines()
    given = json.loads(row)
    assert given["record"] == right
    changes: tuple[tuple[dict[str, Any], float], ...] = (
        ({}, 1.0),
        ({"vendor": "leaf ltd", "total": 10.9}, 1.0),
        ({"vendor": "Tea"}, 0.85),
        ({"date": "2 January"}, 0.85),
        ({"total": "10.5"}, 0.85),
        ({"line_items": [item]}, 0.65 + 0.35 * 2 / 3),
        ({"line_items": [item, item]}, 0.65 + 0.35 / 2),
        ({"line_items": []}, 0.65),
    )
    for change, score in changes:
        assert invoice_score(given, right | change) == pytest.approx(score), change
    for unreadable in (None, "text", [], {"vendor": "Leaf Ltd"}, right | {"line_items": "tea"}):
        assert invoice_score(given, unreadable) == 0.0


def test_train_rows_are_halved_and_validation_rows_are_sealed(tmp_path: Path) -> None:
    task = write_task(example(tmp_path / "theirs"), tmp_path / "math", 9)
    splits = {name: (task / f"{name}.jsonl").read_text("utf-8").splitlines() for name in ("train", "dev", "test")}
    assert [len(rows) for rows in splits.values()] == [17, 17, 12]
    assert not {*splits["train"]} & {*splits["dev"]}
    assert '"40.5"' in splits["test"][0]
    assert "Add the numbers." in (task / "task.toml").read_text("utf-8")


def test_22_sentiments_are_searched_and_all_others_sealed(tmp_path: Path) -> None:
    task = write_sentiment(tmp_path / "sentiment")
    rows = {
        name: [json.loads(line) for line in (task / f"{name}.jsonl").read_text("utf-8").splitlines()]
        for name in ("train", "dev", "test")
    }
    assert [len(split) for split in rows.values()] == [11, 11, 77]
    assert len({row["text"] for split in rows.values() for row in split}) == 99
    for split in rows.values():
        counts = Counter(row["sentiment"] for row in split)
        assert max(counts.values()) - min(counts.values()) <= 1, counts


def test_a_rerun_prints_our_scores_next_to_the_published_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def solve(messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
        asked = re.findall(r"How much is (\d+) \+ 0.5", messages[-1]["content"])
        return f"{asked[-1]}.5" if asked and len(messages) > 2 else "0"

    with WireServer(solve) as server:
        words = ["--data", str(example(tmp_path / "theirs")), "--out", str(tmp_path / "out"), "--calls", "250"]
        monkeypatch.setattr("sys.argv", ["claims", "math", "--model", compatible(server), *words])
        main()
    printed = capsys.readouterr().out
    assert "ours, 12 sealed rows: 0.0 (0.0 to 24.2) -> 100.0" in printed
    assert "difference: +100.0 points (95 % CI +42.3 to +100.0, p = 0.00049); 12 won, 0 lost" in printed
    assert "published, LFM2.5-1.2B, the 12 rows that chose: 45.0" in printed
