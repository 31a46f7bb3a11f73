"""`optimize learn`: corrected answers become train rows, and nothing of dev and test does."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from agent.cli import main
from agent.task.load import load_task
from tests.knowledge.planted import write_task

SAMPLE = Path(__file__).resolve().parents[2] / "tasks" / "support_triage"
NEW = {"message": "The kayak came with a hole near the seat, so who pays for the patch?", "team": "refund_request"}


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "triage"
    shutil.copytree(SAMPLE, folder)
    return folder


def log_of(tmp_path: Path, *rows: dict[str, Any]) -> Path:
    file = tmp_path / "log.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    return file


def learn(*words: object, code: int = 0) -> dict[str, Any]:
    done = CliRunner().invoke(main, ["learn", *map(str, words), "--json"])
    assert done.exit_code == code, done.output
    return json.loads(done.stdout) if code == 0 else {"error": done.output}


def rows_in(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_corrected_answer_is_a_train_row_of_a_new_version(task: Path, tmp_path: Path) -> None:
    before, log = hashes(task), log_of(tmp_path, {**NEW, "reply": "Billing", "user": 7})
    result = learn("triage", log)
    assert (result["taken"], result["lines"], result["folder"]) == (1, [1], "triage-2")
    assert hashes(task) == before
    then, now = load_task(task), load_task(tmp_path / "triage-2")
    assert {name for name in now.hashes if now.hashes[name] != then.hashes[name]} == {"train"}
    assert (now.dev, now.test, now.train[:-1]) == (then.dev, then.test, then.train)
    assert dict(now.train[-1].labels) == {"team": "refund_request"}
    (source,) = rows_in(tmp_path / "triage-2" / "learned.jsonl")
    digest = hashlib.sha256(log.read_bytes()).hexdigest()
    assert {**source, "date": ""} == {
        "id": now.train[-1].id, "source": "log.jsonl", "sha256": digest, "line": 1, "date": "",
    }  # fmt: skip
    assert learn("triage", log)["folder"] == "triage-3"


def test_rows_of_dev_test_and_train_are_left_out_with_a_count(task: Path, tmp_path: Path) -> None:
    then = load_task(task)
    dev, test, train = (split[0] for split in (then.dev, then.test, then.train))
    other = next(team for team in then.signature.outputs[0].choices if team != train.labels["team"])
    rows = [
        {"message": dev.inputs["message"].upper(), **dev.labels},
        {"message": f"{test.inputs['message']} Please", "team": test.labels["team"]},
        {"message": train.inputs["message"], **train.labels},
        {"message": train.inputs["message"], "team": other},
        NEW,
        {**NEW, "message": f"  {NEW['message']}"},
        {"message": "Is the attic lamp on offer again in spring?", "team": "buying_price"},
        {"message": "Is the attic lamp on offer again in spring?", "team": other},
        {**NEW, "message": "My access token sk-abcdefgh12345678 opens nothing at all today"},
        {**NEW, "message": "A wholly different sentence about teapots", "team": "no_such_team"},
    ]
    result = learn("triage", log_of(tmp_path, *rows))
    assert {each["why"]: each["lines"] for each in result["left_out"]} == {
        "is equal or near to a row of dev": [1],
        "is equal or near to a row of test": [2],
        "is in train already": [3],
        "is in train with another answer": [4],
        "repeated in the log": [6],
        "also in the log with another answer": [7, 8],
        "holds what looks like a key": [9],
    }
    assert (result["taken"], result["lines"], result["unreadable"]) == (1, [5], 1)
    assert "is not one of the choices" in result["problems"][0]
    assert len(load_task(tmp_path / "triage-2").train) == len(then.train) + 1
    assert b"sk-abcdefgh" not in b"".join(path.read_bytes() for path in (tmp_path / "triage-2").iterdir())


def test_a_row_that_is_near_by_way_of_another_new_row_is_left_out(task: Path, tmp_path: Path) -> None:
    words = load_task(task).test[0].inputs["message"].split()
    near = " ".join([*words, "oh"])
    nearer = " ".join([*words, "oh", "my"])
    result = learn("triage", log_of(tmp_path, *({"message": text, "team": "buying_price"} for text in (near, nearer))))
    assert result["taken"] == 0
    assert result["folder"] is None
    assert not (tmp_path / "triage-2").exists()


def test_a_dry_run_writes_nothing_and_in_place_adds_to_the_task(task: Path, tmp_path: Path) -> None:
    log, before = log_of(tmp_path, NEW), hashes(tmp_path)
    assert learn("triage", log, "--dry-run")["taken"] == 1
    assert hashes(tmp_path) == before
    assert learn("triage", log, "--in-place")["folder"] == "triage"
    after = hashes(tmp_path)
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {"triage/train.jsonl", "triage/learned.jsonl"}
    assert learn("triage", log, "--in-place")["left_out"] == [{"why": "is in train already", "rows": 1, "lines": [1]}]
    assert len(rows_in(task / "learned.jsonl")) == 1


@pytest.mark.parametrize(
    ("row", "options"),
    [
        ({"inputs": {"message": NEW["message"]}, "answer": NEW["team"], "team": "buying_price"}, ()),
        ({"in": {"message": NEW["message"]}, "fix": {"label": NEW["team"]}}, ("in", "fix.label")),
    ],
)
def test_keys_may_have_other_names(task: Path, tmp_path: Path, row: dict[str, Any], options: tuple[str, ...]) -> None:
    named = ("--inputs-column", options[0], "--answer-column", options[1]) if options else ()
    assert learn("triage", log_of(tmp_path, row), *named)["taken"] == 1
    added = rows_in(tmp_path / "triage-2" / "train.jsonl")[-1]
    assert {name: added[name] for name in ("message", "team")} == NEW


def test_a_table_with_rows_that_nobody_answered(task: Path, tmp_path: Path) -> None:
    with (tmp_path / "log.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerows([("message", "answer"), (NEW["message"], NEW["team"]), ("Is it blue?", ""), ("Or red?", "")])
    result = learn("triage", "log.csv")
    assert (result["taken"], result["rows"], result["unreadable"]) == (1, 3, 2)
    assert "log.csv:3: team: no answer" in result["problems"][0]


def test_numbers_and_several_outputs_are_read_by_their_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "sums"
    folder.mkdir()
    (folder / "task.toml").write_text(
        'name = "sums"\nsignature = "question -> total, unit"\ninstruction = "Add."\ndescription = "Sums."\n'
        '[fields.total]\ntype = "number"\n[[metrics]]\nname = "exact_match"\nfield = "unit"\n',
        "utf-8",
    )
    for number, split in enumerate(("train", "dev", "test")):
        row = {"question": f"{'abc'[number]} {number}{number}", "total": number, "unit": "kg"}
        (folder / f"{split}.jsonl").write_text(json.dumps(row) + "\n", "utf-8")
    with (tmp_path / "log.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("question", "total", "unit"), ("q of nine", "9.5", "g"), ("q of ten", "ten", "g")])
    result = learn("sums", "log.csv")
    assert result["taken"] == 1
    assert "ten" in result["problems"][0]
    (folder / "more.jsonl").write_text('{"question": "and x", "answer": {"total": 3, "unit": "t"}}\n', "utf-8")
    learn("sums-2", folder / "more.jsonl")
    added = rows_in(tmp_path / "sums-3" / "train.jsonl")[1:]
    assert [(row["total"], row["unit"]) for row in added] == [(9.5, "g"), (3, "t")]
    assert [row["source"] for row in rows_in(tmp_path / "sums-3" / "learned.jsonl")] == ["log.csv", "more.jsonl"]


def test_a_linked_train_file_stays_as_it_is_and_a_private_one_stays_private(task: Path, tmp_path: Path) -> None:
    real = task / "rows.jsonl"
    (task / "train.jsonl").rename(real)
    (task / "train.jsonl").symlink_to(real)
    real.chmod(0o600)
    before = real.read_bytes()
    assert learn("triage", log_of(tmp_path, NEW))["taken"] == 1
    assert real.read_bytes() == before
    made = tmp_path / "triage-2" / "train.jsonl"
    assert made.read_bytes().startswith(before)
    assert not made.is_symlink()
    assert stat.S_IMODE(made.stat().st_mode) == 0o600


def refused(*words: object) -> Result:
    done = CliRunner().invoke(main, ["learn", *map(str, words)])
    assert done.exit_code == 2
    return done


def test_what_is_wrong_is_refused_before_anything_is_written(task: Path, tmp_path: Path) -> None:
    log = log_of(tmp_path, NEW)
    before = hashes(tmp_path)
    assert "is there already" in refused("triage", log, "-o", task).output
    assert "exclude each other" in refused("triage", log, "-o", "x", "--in-place").output
    assert "no such file" in refused("triage", "nowhere.jsonl").output
    assert hashes(tmp_path) == before
    bad = log_of(tmp_path, {"text": "x", "team": "buying_price"})
    assert "log.jsonl:1: the column 'message' is missing" in refused("triage", bad).output
    shutil.copytree(task, tmp_path / "table")
    (tmp_path / "table" / "train.jsonl").unlink()
    with (tmp_path / "table" / "train.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("message", "team"), ("Is it blue?", "buying_price")])
    assert "save the train rows as train.jsonl" in refused("table", log).output


def test_a_task_with_documents_learns_the_answer_and_its_source(tmp_path: Path) -> None:
    folder = write_task(tmp_path / "shop")
    row = {
        "question": "I wonder what the shop takes nowadays if somebody wants to buy a belta?",
        "answer": "742 crowns",
    }
    other = {"question": "Could you tell my aunt how dear a brand new corami would be for her?", "answer": "815 crowns"}
    result = learn(folder, log_of(tmp_path, {**row, "page": "goods-b.md"}, other))
    assert result["taken"] == 2
    learned = rows_in(tmp_path / "shop-2" / "train.jsonl")[-2:]
    assert [(row["answer"], row["page"]) for row in learned] == [("742 crowns", "goods-b.md"), ("815 crowns", "")]
    assert [example.sources for example in load_task(tmp_path / "shop-2").train[-2:]] == [("goods-b.md",), ()]
    said = learn(folder, log_of(tmp_path, {**row, "page": "goods-bb.md"}), code=2)["error"]
    assert "page: 'goods-bb.md' is not a document" in said


@pytest.mark.parametrize(
    ("cell", "words"), [("abc", "total: 'abc' is not a finite number"), ("{", "items: '{' is not JSON")]
)
def test_a_cell_that_is_no_number_or_no_json_names_its_field(tmp_path: Path, cell: str, words: str) -> None:
    folder = tmp_path / "bills"
    folder.mkdir()
    outputs = {"total": 'type = "number"', "items": 'type = "json"\nschema = {}'}
    name = words.partition(":")[0]
    (folder / "task.toml").write_text(
        f'name = "bills"\ndescription = "d"\nsignature = "text -> {name}"\ninstruction = "Read it."\n'
        f"[fields.{name}]\n{outputs[name]}\n",
        "utf-8",
    )
    value: Any = 3 if name == "total" else {"a": 1}
    for number, split in enumerate(("train", "dev", "test")):
        rows = [{"text": f"bill {number}{at} of {'abcdefgh'[at] * 5}", name: value} for at in range(8)]
        (folder / f"{split}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    log = tmp_path / "log.csv"
    log.write_text(f'text,{name}\nsome other bill,"{cell}"\n', "utf-8")
    assert words in learn(folder, log, code=2)["error"]
