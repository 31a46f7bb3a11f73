"""`optimize apply` over a real server: rows with their answers, nothing bought twice, no file but a whole one."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from agent.jobs import apply
from agent.jobs.apply import without_formula, write_answers
from tests.cli.world import compatible, good, good_json, learner, optimize, refused
from tests.conftest import Made
from tests.wire import Fault, WireServer

TEXTS = [
    "the invoice and the vat again",
    "parcel courier van please",
    "password login reset",
    "screen cracked battery",
    "bank ledger payment",
    "nothing that anybody knows",
]


def mail(path: str = "mail.csv", texts: list[str] = TEXTS, **more: str) -> Path:
    """Rows of `date,text` and `more` columns, in the order of `texts`."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, ["date", "text", *more])
        table.writeheader()
        table.writerows({"date": f"2026-11-{at + 1:02d}", "text": text, **more} for at, text in enumerate(texts))
    return Path(path)


def written(path: str) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def words(server: WireServer, *more: str | Path) -> list[str | Path]:
    return ["-q", "-m", compatible(server), *more]


def test_each_row_gets_its_answer_in_its_place_and_other_columns_stay(
    two_runs: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apply, "AT_ONCE", 2)  # rows begin in groups
    with WireServer(learner) as server:
        command = ["apply", two_runs[0]["release"], mail(), *words(server), "-o"]
        told = good_json(*command, "out.csv")
        assert len(server.requests) == len(TEXTS)
        assert good_json(*command, "some.csv", "--limit", "5")["rows"] == 5
    assert [row["text"] for row in written("some.csv")] == TEXTS[:5]
    rows = written("out.csv")
    assert list(rows[0]) == ["date", "text", "label", "error"]
    assert [row["text"] for row in rows] == TEXTS
    assert [row["date"] for row in rows] == [f"2026-11-{at + 1:02d}" for at in range(len(TEXTS))]
    assert [row["label"] for row in rows] == ["billing", "delivery", "account", "repair", "billing", ""]
    assert [bool(row["error"]) for row in rows] == [False] * 5 + [True]
    assert (told["rows"], told["answered"], told["unreadable"], told["failed"]) == (6, 5, 1, 0)
    assert told["calls"] == {"model": 6, "cached": 0}
    assert told["path"] == "out.csv"
    assert "6 rows (5 answered, 1 unreadable, 0 failed)" in good("show", told["run_id"])
    good("audit", "verify")
    assert good_json("audit", "check", told["run_id"])["holds"]


def test_a_cap_stops_it_without_a_file_and_the_same_command_asks_only_the_rest(two_runs: Made) -> None:
    with WireServer(learner) as server:
        command = ["apply", two_runs[0]["release"], mail(), "-o", "out.csv", *words(server)]
        *_, said = refused(1, *command, "--max-calls", "4")
        assert "4 of 6 rows are answered, and nothing was written" in said
        assert "same command" in said
        assert len(server.requests) == 4
        assert not Path("out.csv").exists()
        told = good_json(*command)
        assert len(server.requests) == 6
        assert told["calls"] == {"model": 2, "cached": 4}
        first = Path("out.csv").read_bytes()
        assert good_json(*command)["calls"] == {"cached": 6}
        assert len(server.requests) == 6
    assert Path("out.csv").read_bytes() == first


def test_rows_that_the_provider_refuses_and_empty_ones_are_written_with_the_reason(two_runs: Made) -> None:
    def refusing(messages: list[dict[str, Any]], body: dict[str, Any]) -> str | Fault:
        if "courier" in messages[-1]["content"]:
            return Fault(400, body={"error": {"message": "content_filter", "code": "content_filter"}})
        return learner(messages, body)

    with WireServer(refusing) as server:
        source = mail(texts=[*TEXTS[:2], " "])
        told = good_json("apply", two_runs[0]["release"], source, "-o", "out.jsonl", *words(server))
        assert len(server.requests) == 2
        none = mail("none.csv", ["", " "])
        *_, said = refused(1, "apply", two_runs[0]["release"], none, "-o", "none.jsonl", *words(server))
        assert ("none of the 2 rows got an answer" in said, len(server.requests)) == (True, 2)
    rows = [json.loads(line) for line in Path("out.jsonl").read_text("utf-8").splitlines()]
    assert rows[0] == {"date": "2026-11-01", "text": TEXTS[0], "label": "billing"}
    assert "content_filter" in rows[1]["error"]
    assert rows[2]["error"] == "not asked: text is empty"
    assert not Path("none.jsonl").exists()
    assert (told["answered"], told["unreadable"], told["failed"]) == (1, 0, 2)


def test_what_does_not_fit_is_refused_before_the_first_call(two_runs: Made) -> None:
    release = two_runs[0]["release"]
    Path("other.csv").write_text("message\nhello\n")
    with WireServer(learner) as server:
        for said, *given in (
            ("no column 'text'; the inputs of", "other.csv", "-o", "out.csv"),
            ("already has a column 'label'", mail("labelled.csv", label="x"), "-o", "out.csv"),
            ("is the file of rows itself", mail(), "-o", "mail.csv"),
            ("give a .csv or a .jsonl file", mail(), "-o", "out.txt"),
            ("-o none.csv/out.csv: cannot be written", mail("none.csv"), "-o", "none.csv/out.csv"),
            ("no such file", "nothing.csv", "-o", "out.csv"),
        ):
            (line,) = refused(2, "apply", release, *given, *words(server))
            assert said in line
        assert not server.requests
        good("apply", release, "labelled.csv", "-o", "out.csv", "--prefix", "answer_", *words(server))
    row = written("out.csv")[0]
    assert (row["label"], row["answer_label"], row["answer_error"]) == ("x", "billing", "")


def test_a_model_at_an_address_that_only_the_file_names_is_not_asked(two_runs: Made) -> None:
    with WireServer(learner) as server:
        done = optimize("apply", two_runs[0]["release"], mail(), "-o", "out.csv", "--db", "other/ledger.db")
        assert not server.requests
    assert done.exit_code == 2
    assert "give it yourself: --model" in done.stderr


def test_a_text_of_a_model_is_no_formula_in_a_csv_and_exact_in_jsonl(tmp_path: Path) -> None:
    text = '=HYPERLINK("http://x","y")'
    rows: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"in": "=1+1"}, {"out": text, "n": -5.5}),
        ({"in": "a\rb"}, {"out": "a,\n\0b"}),
    ]
    for name, trusted, first in (("a.csv", True, "=1+1"), ("b.csv", False, "'=1+1")):
        write_answers(tmp_path / name, ["in"], ["out", "n"], rows, trusted)
        one, two = written(str(tmp_path / name))
        assert one == {"in": first, "out": f"'{text}", "n": "-5.5"}
        assert two == {"in": "a\rb", "out": "a,\n\\x00b", "n": ""}
    write_answers(tmp_path / "a.jsonl", ["in"], ["out", "n"], rows, False)
    assert json.loads((tmp_path / "a.jsonl").read_text("utf-8").splitlines()[0])["out"] == text


@pytest.mark.parametrize("text", ["=1", "+cmd|' /C calc'!A0", "-1+1", "@SUM(1)", "\t=1", "\n=1", " =1", "＝1"])
def test_what_a_spreadsheet_would_run_gets_an_apostrophe(text: str) -> None:
    assert without_formula(text) == f"'{text}"


@pytest.mark.parametrize("text", ["", "billing", "-5", "+49.5", "1=1", "a@b.c", "-"])
def test_other_texts_stay_as_they_are(text: str) -> None:
    assert without_formula(text) == text


def test_a_key_that_a_model_repeats_is_not_written(two_runs: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_COMPATIBLE_API_KEY", "very-secret-4711")
    with WireServer(lambda messages, body: "your key is very-secret-4711") as server:
        command = ["apply", two_runs[0]["release"], mail(), "-o", "out.csv", *words(server)]
        told = good_json(*command)
        first = Path("out.csv").read_bytes()
        assert good_json(*command)["calls"] == {"cached": 6}
    assert told["unreadable"] == 6
    assert b"your key is [key]" in first
    assert Path("out.csv").read_bytes() == first
