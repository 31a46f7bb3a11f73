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

from agent.task.load import load_task
from tests.cli.world import good_json, refused, write_lines, write_task
from tests.knowledge.planted import write_task as write_shop

SAMPLE = Path(__file__).resolve().parents[2] / "tasks" / "support_triage"
NEW = {"message": "The kayak came with a hole near the seat, so who pays for the patch?", "team": "refund_request"}
LEARNED = Path("triage-2")


@pytest.fixture
def task(here: Path) -> Path:
    return Path(shutil.copytree(SAMPLE, "triage"))


def learned(*rows: dict[str, Any], more: tuple[str, ...] = ()) -> dict[str, Any]:
    """What the task `triage` learns from a log of these rows."""
    write_lines("log.jsonl", rows)
    return good_json("learn", "triage", "log.jsonl", *more)


def rows_in(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_corrected_answer_is_a_train_row_of_a_new_version(task: Path) -> None:
    before, corrected = hashes(task), {**NEW, "reply": "Billing", "user": 7}
    result = learned(corrected)
    assert (result["taken"], result["lines"], result["folder"]) == (1, [1], "triage-2")
    assert hashes(task) == before
    then, now = load_task(task), load_task(LEARNED)
    assert {name for name in now.hashes if now.hashes[name] != then.hashes[name]} == {"train"}
    assert (now.dev, now.test, now.train[:-1]) == (then.dev, then.test, then.train)
    assert dict(now.train[-1].labels) == {"team": "refund_request"}
    (source,) = rows_in(LEARNED / "learned.jsonl")
    digest = hashlib.sha256(Path("log.jsonl").read_bytes()).hexdigest()
    assert {**source, "date": ""} == {
        "id": now.train[-1].id, "source": "log.jsonl", "sha256": digest, "line": 1, "date": "",
    }  # fmt: skip
    assert learned(corrected)["folder"] == "triage-3"


def test_rows_of_dev_test_and_train_are_left_out_with_a_count(task: Path) -> None:
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
    result = learned(*rows)
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
    assert len(load_task(LEARNED).train) == len(then.train) + 1
    assert b"sk-abcdefgh" not in b"".join(path.read_bytes() for path in LEARNED.iterdir())


def test_a_row_that_is_near_by_way_of_another_new_row_is_left_out(task: Path) -> None:
    text = load_task(task).test[0].inputs["message"]
    near, nearer = ({"message": f"{text} {more}", "team": "buying_price"} for more in ("oh", "oh my"))
    result = learned(near, nearer)
    assert (result["taken"], result["folder"], LEARNED.exists()) == (0, None, False)


def test_in_place_adds_to_the_task_once(task: Path) -> None:
    before = hashes(task)
    assert learned(NEW, more=("--in-place",))["folder"] == "triage"
    after = hashes(task)
    assert {name for name in after if after[name] != before.get(name)} == {"train.jsonl", "learned.jsonl"}
    again = learned(NEW, more=("--in-place",))
    assert again["left_out"] == [{"why": "is in train already", "rows": 1, "lines": [1]}]
    assert len(rows_in(task / "learned.jsonl")) == 1


@pytest.mark.parametrize(
    ("row", "options"),
    [
        ({"inputs": {"message": NEW["message"]}, "answer": NEW["team"], "team": "buying_price"}, ()),
        (
            {"in": {"message": NEW["message"]}, "fix": {"label": NEW["team"]}},
            ("--inputs-column", "in", "--answer-column", "fix.label"),
        ),
    ],
)
def test_keys_may_have_other_names(task: Path, row: dict[str, Any], options: tuple[str, ...]) -> None:
    assert learned(row, more=options)["taken"] == 1
    added = rows_in(LEARNED / "train.jsonl")[-1]
    assert {name: added[name] for name in ("message", "team")} == NEW


def write_table(path: str, *rows: tuple[str, ...]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def test_a_table_with_rows_that_nobody_answered(task: Path) -> None:
    write_table("log.csv", ("message", "answer"), (NEW["message"], NEW["team"]), ("Is it blue?", ""), ("Or red?", ""))
    result = good_json("learn", "triage", "log.csv")
    assert (result["taken"], result["rows"], result["unreadable"]) == (1, 3, 2)
    assert "log.csv:3: team: no answer" in result["problems"][0]


def test_numbers_and_several_outputs_are_read_by_their_types() -> None:
    toml = 'name = "sums"\nsignature = "question -> total, unit"\ninstruction = "Add."\ndescription = "Sums."\n'
    metrics = '[fields.total]\ntype = "number"\n[[metrics]]\nname = "exact_match"\nfield = "unit"\n'
    splits = enumerate(("train", "dev", "test"))
    write_task(
        f"{toml}{metrics}",
        {split: [{"question": f"{'abc'[at]} {at}{at}", "total": at, "unit": "kg"}] for at, split in splits},
    )
    write_table("log.csv", ("question", "total", "unit"), ("q of nine", "9.5", "g"), ("q of ten", "ten", "g"))
    result = good_json("learn", "sums", "log.csv")
    assert result["taken"] == 1
    assert "ten" in result["problems"][0]
    write_lines("more.jsonl", [{"question": "and x", "answer": {"total": 3, "unit": "t"}}])
    good_json("learn", "sums-2", "more.jsonl")
    added = rows_in(Path("sums-3/train.jsonl"))[1:]
    assert [(row["total"], row["unit"]) for row in added] == [(9.5, "g"), (3, "t")]
    assert [row["source"] for row in rows_in(Path("sums-3/learned.jsonl"))] == ["log.csv", "more.jsonl"]


def test_a_linked_train_file_stays_as_it_is_and_a_private_one_stays_private(task: Path) -> None:
    real = task / "rows.jsonl"
    (task / "train.jsonl").rename(real)
    (task / "train.jsonl").symlink_to(real.absolute())
    real.chmod(0o600)
    before = real.read_bytes()
    assert learned(NEW)["taken"] == 1
    assert real.read_bytes() == before
    made = LEARNED / "train.jsonl"
    assert made.read_bytes().startswith(before)
    assert not made.is_symlink()
    assert stat.S_IMODE(made.stat().st_mode) == 0o600


def test_what_is_wrong_is_refused_before_anything_is_written(task: Path) -> None:
    write_lines("log.jsonl", [NEW])
    write_lines("bad.jsonl", [{"text": "x", "team": "buying_price"}])
    shutil.copytree(task, "table")
    Path("table/train.jsonl").unlink()
    write_table("table/train.csv", ("message", "team"), ("Is it blue?", "buying_price"))
    before = hashes(Path())
    for said, *words in (
        ("is there already", "triage", "log.jsonl", "-o", "triage"),
        ("exclude each other", "triage", "log.jsonl", "-o", "x", "--in-place"),
        ("no such file", "triage", "nowhere.jsonl"),
        ("bad.jsonl:1: the column 'message' is missing", "triage", "bad.jsonl"),
        ("save the train rows as train.jsonl", "table", "log.jsonl"),
    ):
        assert said in "\n".join(refused(2, "learn", *words))
    assert hashes(Path()) == before


def test_a_task_with_documents_learns_the_answer_and_its_source() -> None:
    write_shop(Path("shop"))
    row = {"question": "I wonder what the shop takes if somebody wants to buy a belta?", "answer": "742 crowns"}
    other = {"question": "Could you tell my aunt how dear a brand new corami is?", "answer": "815 crowns"}
    write_lines("log.jsonl", [{**row, "page": "goods-b.md"}, other])
    assert good_json("learn", "shop", "log.jsonl")["taken"] == 2
    added = rows_in(Path("shop-2/train.jsonl"))[-2:]
    assert [(row["answer"], row["page"]) for row in added] == [("742 crowns", "goods-b.md"), ("815 crowns", "")]
    assert [example.sources for example in load_task("shop-2").train[-2:]] == [("goods-b.md",), ()]
    write_lines("log.jsonl", [{**row, "page": "goods-bb.md"}])
    assert "page: 'goods-bb.md' is not a document" in "\n".join(refused(2, "learn", "shop", "log.jsonl"))


@pytest.mark.parametrize(
    ("field", "type_", "value", "cell", "says"),
    [
        ("total", '"number"', 3, "abc", "total: 'abc' is not a finite number"),
        ("items", '"json"\nschema = {}', {"a": 1}, "{", "items: '{' is not JSON"),
    ],
)
def test_a_cell_that_is_no_number_or_no_json_names_its_field(
    field: str, type_: str, value: Any, cell: str, says: str
) -> None:
    toml = f'name = "bills"\ndescription = "d"\nsignature = "text -> {field}"\ninstruction = "Read it."\n'
    rows = [{"text": f"bill {at} of {letter * 5}", field: value} for at, letter in enumerate("abcdefgh" * 3)]
    write_task(
        f"{toml}[fields.{field}]\ntype = {type_}\n",
        {split: rows[8 * at : 8 * at + 8] for at, split in enumerate(("train", "dev", "test"))},
    )
    write_table("log.csv", ("text", field), ("some other bill", cell))
    assert says in "\n".join(refused(2, "learn", "bills", "log.csv"))
