"""The task `bank_answers`: its pages agree with each other, and every answer is in the page that it names.

`assets/bank_answers.json` has, for the rows concerned, the figure of the superseded page (`superseded`) and the
arithmetic that leads to the answer (`derived`).
"""

import csv
import html
import json
import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TASK = ROOT / "tasks" / "bank_answers"
PAGES = {path.name: path.read_text("utf-8") for path in sorted((TASK / "docs").iterdir())}
NOTES: dict[str, dict[str, str]] = json.loads((ROOT / "tests/assets/bank_answers.json").read_text("utf-8"))
SPLITS: list[list[dict[str, str]]] = [
    [json.loads(line) for line in (TASK / f"{split}.jsonl").read_text("utf-8").splitlines()]
    for split in ("train", "dev", "test")
]
ROWS = {row["id"]: row for rows in SPLITS for row in rows}
COUNTED = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
NUMBERS = {word: str(number) for number, word in enumerate(COUNTED.split(), 1)}
SAME_AS_ZERO = ("£0", "free", "waived", "none", "nothing", "no charge", "no fee")
STATE = re.compile(r"superseded on \d", re.I)


def plain(text: str) -> str:
    """A text for comparing: no tags, no thousands separators, no `.00`, digits for numbers, one blank between words."""
    text = html.unescape(re.sub(r"<[^>]+>", " ", text)).casefold()
    text = re.sub(r"(?<=\d),(?=\d{3})", "", text)
    text = re.sub(r"(?<=\d)\.00\b", "", text)
    text = re.sub(r"[a-z]+", lambda word: NUMBERS.get(word[0], word[0]), text)
    return " ".join(text.split())


def numbers(text: str) -> set[str]:
    return {f"{float(number):g}" for number in re.findall(r"\d+(?:\.\d+)?", plain(text))}


def is_in(answer: str, text: str) -> bool:
    """Whether an answer occurs as a whole: `£5` does not occur in `£50`, nor `5%` in `15%`."""
    return re.search(rf"(?<![\w.£]){re.escape(plain(answer))}(?!\w|\.\d)", plain(text)) is not None


def head(text: str) -> str:
    """What precedes the first section of a page: its title, number, version and state."""
    if text.startswith("code,"):
        return "\n".join(text.splitlines()[:2])
    return re.split(r"\n## |<h2>|\n\n(?=[^#T])", text, maxsplit=1)[0]


SUPERSEDED = {name for name, text in PAGES.items() if STATE.search(head(text))}
IN_FORCE = set(PAGES) - SUPERSEDED


def sources(row: dict[str, str]) -> list[str]:
    return row["source"].split("; ") if row["source"] else []


def test_pages_say_what_is_in_force_and_agree_with_the_list_of_versions() -> None:
    assert (len(PAGES), len(SUPERSEDED)) == (30, 7)
    for name, text in PAGES.items():
        assert bool(STATE.search(text)) == (name in SUPERSEDED), name
        assert set(re.findall(r"[a-z0-9-]+\.(?:md|html|csv)", text)) <= IN_FORCE, f"{name} refers to an old page"
        if name.endswith(".csv"):
            lines = list(csv.reader(text.splitlines()))
            assert len({len(line) for line in lines}) == 1, name
            assert len({line[0] for line in lines}) == len(lines), name
    listed = re.findall(r"\| (TQ-\d{3}) \|[^|]+\| ([\d.]+) \| (\d+ \w+ \d{4}) \|", PAGES["page-versions.md"])
    pattern = r"(TQ-\d{3})\W.*?[Vv]ersion ([\d.]+).*?[Ii]n force from (\d+ \w+ \d{4})"
    heads = [re.findall(pattern, PAGES[name])[:1] for name in IN_FORCE - {"page-versions.md"}]
    assert sorted(found for each in heads for found in each) == sorted(listed)


def test_each_split_asks_about_every_page_in_force_and_has_its_share_of_kinds() -> None:
    for rows in SPLITS:
        assert {name for row in rows for name in sources(row)} == IN_FORCE
        kinds = Counter(row["kind"] for row in rows)
        assert kinds["unanswerable"] == len(rows) // 10
        assert kinds["superseded"] >= len(rows) / 3
        for row in rows:
            is_blank = row["kind"] == "unanswerable"
            assert is_blank == (row["answer"] == "not stated") == (not row["source"]), row["id"]


def test_an_answer_is_in_its_source_or_follows_from_it() -> None:
    assert set(NOTES) <= set(ROWS)
    for key, row in ROWS.items():
        answer, pages = row["answer"], "\n".join(PAGES[name] for name in sources(row))
        if derived := NOTES.get(key, {}).get("derived"):
            assert numbers(derived) - {"0", "1", "2", "100"} <= numbers(pages) | numbers(row["question"]), key
            assert re.fullmatch(r"[\d.+*/() -]+", derived), key
            value = eval(derived)  # noqa: S307  (an expression of numbers, as was just checked)
            assert numbers(answer) == {f"{round(value, 2):g}"}, key
        elif answer == "£0":
            assert any(word in plain(pages) for word in SAME_AS_ZERO), key
        elif answer not in ("yes", "no", "not stated"):
            given = plain(answer).removeprefix("yes, ")
            assert is_in(given, pages) or (" and " in given and numbers(given) <= numbers(pages)), key


def test_the_superseded_page_has_another_figure() -> None:
    for key in (key for key, row in ROWS.items() if row["kind"] == "superseded"):
        answer, other = ROWS[key]["answer"], NOTES[key]["superseded"]
        documents = {number for name in sources(ROWS[key]) for number in re.findall(r"TQ-\d{3}", head(PAGES[name]))}
        older = [PAGES[name] for name in SUPERSEDED if documents & set(re.findall(r"TQ-\d{3}", head(PAGES[name])))]
        assert is_in(other, "\n".join(older)), key
        assert plain(other) != plain(answer), key
        assert answer in ("yes", "no", "£0") or not is_in(other, answer), key
