"""The task `bank_answers`: its pages agree with each other, and every answer stands in the page that it names.

`assets/bank_answers.json` has, for the rows concerned, the figure of the superseded page (`superseded`) and the
arithmetic that leads to the answer (`derived`).
"""

import ast
import csv
import html
import json
import operator
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.cases import each_case

ROOT = Path(__file__).resolve().parents[1]
TASK = ROOT / "tasks" / "bank_answers"
PAGES = {path.name: path.read_text("utf-8") for path in sorted((TASK / "docs").iterdir())}
NOTES: dict[str, dict[str, str]] = json.loads((ROOT / "tests/assets/bank_answers.json").read_text("utf-8"))
ROWS: dict[str, list[dict[str, str]]] = {
    split: [json.loads(line) for line in (TASK / f"{split}.jsonl").read_text("utf-8").splitlines()]
    for split in ("train", "dev", "test")
}
ALL = {row["id"]: row for rows in ROWS.values() for row in rows}
KINDS = {"plain", "superseded", "footnote", "tier", "two pages", "near name", "arithmetic", "unanswerable"}
NUMBER_WORDS = {
    "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9",
    "ten": "10", "twelve": "12", "thirteen": "13", "fifteen": "15",
}  # fmt: skip
SAME_AS_ZERO = ("£0", "free", "waived", "none", "nothing", "no charge", "no fee")
OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
}  # fmt: skip


def plain(text: str) -> str:
    """A text for comparing: no tags, no thousands separators, no `.00`, digits for numbers, one blank between words."""
    text = html.unescape(re.sub(r"<[^>]+>", " ", text)).casefold()
    text = re.sub(r"(?<=\d),(?=\d{3})", "", text)
    text = re.sub(r"(?<=\d)\.00\b", "", text)
    text = re.sub(r"[a-z]+", lambda word: NUMBER_WORDS.get(word[0], word[0]), text)
    return " ".join(text.split())


def numbers(text: str) -> set[str]:
    """The numbers of a text, each in its shortest form."""
    return {f"{float(number):g}" for number in re.findall(r"\d+(?:\.\d+)?", plain(text))}


def stands_in(answer: str, text: str) -> bool:
    """Whether an answer occurs in a text as a whole: `£5` does not occur in `£50`, nor `5%` in `15%`."""
    return re.search(rf"(?<![\w.£]){re.escape(plain(answer))}(?!\w|\.\d)", plain(text)) is not None


def value(formula: str) -> float:
    """The value of an arithmetic expression of numbers, `+`, `-`, `*` and `/`."""

    def walk(node: ast.expr) -> float:
        if isinstance(node, ast.BinOp):
            return float(OPERATORS[type(node.op)](walk(node.left), walk(node.right)))
        assert isinstance(node, ast.Constant)
        return float(node.value)

    return walk(ast.parse(formula, mode="eval").body)


def head(text: str) -> str:
    """What precedes the first section of a page: its title, number, version and state."""
    if text.startswith("code,"):
        return "\n".join(text.splitlines()[:2])
    return re.split(r"\n## |<h2>|\n\n(?=[^#T])", text, maxsplit=1)[0]


def documents(page: str) -> set[str]:
    return set(re.findall(r"TQ-\d{3}", head(PAGES[page])))


STATE = re.compile(r"superseded on \d", re.I)
SUPERSEDED = {name for name, text in PAGES.items() if STATE.search(head(text))}
IN_FORCE = set(PAGES) - SUPERSEDED


def sources(row: dict[str, str]) -> list[str]:
    return row["source"].split("; ") if row["source"] else []


def older(row: dict[str, str]) -> str:
    """The superseded pages of the documents that a row's answer comes from."""
    wanted = {number for name in sources(row) for number in documents(name)}
    return "\n".join(PAGES[name] for name in SUPERSEDED if documents(name) & wanted)


# ---- the pages


def test_there_are_thirty_pages_of_a_readable_size() -> None:
    assert len(PAGES) == 30
    assert Counter(Path(name).suffix for name in PAGES) == {".md": 23, ".html": 5, ".csv": 2}
    assert len(SUPERSEDED) == 7
    lengths = {name: len(plain(text).split()) for name, text in PAGES.items()}
    assert not {name: words for name, words in lengths.items() if not 250 <= words <= 900}
    assert sum(path.stat().st_size for path in TASK.rglob("*") if path.is_file()) < 300_000


def test_a_superseded_page_says_so_in_its_head_alone_and_a_page_in_force_does_not() -> None:
    for name in SUPERSEDED:
        assert PAGES[name].casefold().count("superseded") == 1, name
    for name in IN_FORCE:
        assert not STATE.search(PAGES[name]), name


def test_pages_refer_to_pages_that_exist_and_are_in_force() -> None:
    for name, text in PAGES.items():
        named = set(re.findall(r"[a-z0-9-]+\.(?:md|html|csv)", text))
        assert named <= IN_FORCE, name


def test_the_list_of_versions_agrees_with_the_heads_of_the_pages() -> None:
    listed = {
        number: (version, since)
        for number, version, since in re.findall(
            r"\| (TQ-\d{3}) \|[^|]+\| ([\d.]+) \| (\d+ \w+ \d{4}) \|", PAGES["page-versions.md"]
        )
    }
    in_heads = {}
    for name in IN_FORCE - {"page-versions.md"}:
        at = re.search(r"(TQ-\d{3})\W.*?[Vv]ersion ([\d.]+).*?[Ii]n force from (\d+ \w+ \d{4})", PAGES[name])
        assert at is not None, name
        in_heads[at[1]] = (at[2], at[3])
    assert in_heads == listed


def test_price_lists_have_the_same_columns_in_every_line_and_no_code_twice() -> None:
    for name in (name for name in PAGES if name.endswith(".csv")):
        lines = list(csv.reader(PAGES[name].splitlines()))
        assert len({len(line) for line in lines}) == 1, name
        assert len({line[0] for line in lines}) == len(lines), name


# ---- the rows


def test_notes_are_about_rows_that_exist() -> None:
    assert set(NOTES) <= set(ALL)
    assert {key for note in NOTES.values() for key in note} <= {"superseded", "derived"}


def test_every_source_is_a_page_in_force_and_each_page_in_force_is_asked_about_in_each_split() -> None:
    for rows in ROWS.values():
        named = Counter(name for row in rows for name in sources(row))
        assert set(named) == IN_FORCE


def test_a_tenth_of_each_split_is_unanswerable_and_a_third_has_a_superseded_answer() -> None:
    for rows in ROWS.values():
        kinds = Counter(row["kind"] for row in rows)
        assert set(kinds) == KINDS
        assert kinds["unanswerable"] == len(rows) // 10
        assert kinds["superseded"] >= len(rows) / 3
        for row in rows:
            blank = row["kind"] == "unanswerable"
            assert blank == (row["answer"] == "not stated") == (not row["source"]), row["id"]


@each_case("key", sorted(ALL))
def test_an_answer_stands_in_its_source_or_follows_from_it(key: str) -> None:
    row, note = ALL[key], NOTES.get(key, {})
    answer, pages = row["answer"], "\n".join(PAGES[name] for name in sources(row))
    assert 1 <= len(answer.split()) <= 12
    if "derived" in note:
        operands = numbers(note["derived"]) - {"0", "1", "2", "100"}
        assert operands <= numbers(pages) | numbers(row["question"])
        assert numbers(answer) == {f"{round(value(note['derived']), 2):g}"}
    elif answer == "£0":
        assert any(word in plain(pages) for word in SAME_AS_ZERO)
    elif answer not in ("yes", "no", "not stated"):
        given = plain(answer).removeprefix("yes, ")
        assert stands_in(given, pages) or (" and " in given and numbers(given) <= numbers(pages))


@each_case("key", sorted(key for key, row in ALL.items() if row["kind"] == "superseded"))
def test_the_superseded_page_has_another_figure(key: str) -> None:
    row, other = ALL[key], NOTES[key]["superseded"]
    assert stands_in(other, older(row))
    assert plain(other) != plain(row["answer"])
    if row["answer"] not in ("yes", "no", "£0"):
        assert not stands_in(other, row["answer"])
