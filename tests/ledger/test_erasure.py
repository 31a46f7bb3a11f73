"""A text is found however JSON wrote it, and nothing of it stays in the file when it was erased."""

from __future__ import annotations

import json
import random
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.ledger.connect import reader
from agent.ledger.store import Ledger
from agent.ledger.texts import events_with, files_with, holds, kinds_of, texts_with
from agent.ledger.verify import verify
from tests.ledger import ledgers
from tests.toys import open_ledger

NAME = 'Zoë "Zo" Öz\\Ünal\n😀'
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


@given(needle=TEXT, around=TEXT, depth=st.integers(0, 3), is_ascii=st.booleans())
def test_a_text_is_found_at_every_depth_of_quoting(needle: str, around: str, depth: int, is_ascii: bool) -> None:
    text = around + needle + around
    for _ in range(depth):
        text = json.dumps({"a": [text, 1]}, ensure_ascii=is_ascii)
    assert holds(text, needle)


@given(TEXT)
def test_a_text_is_not_found_where_it_is_not(needle: str) -> None:
    assert not holds(json.dumps({"text": "[]" * 5}), needle + "|")


def test_the_texts_that_hold_a_name_are_found_with_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    ledgers.make(path)
    ledger = Ledger(path)
    ledger.event("run-1", "note", {"why": f"because of {NAME}"}, {"text": f"about {NAME}"})
    ledger.event("run-1", "note", {"other": 1}, {"text": json.dumps({"text": json.dumps([NAME])})})
    ledger.event("run-1", "note", {"other": 2}, {"text": "about nobody"})
    ledger.close()
    with closing(reader(path)) as db:
        found = texts_with(db, NAME)
        assert len(found) == 2
        assert kinds_of(db, found) == {"other text": 2}
        last = db.execute("SELECT MAX(seq) FROM events").fetchone()[0]
        assert events_with(db, NAME) == [last - 2]
        kinds = kinds_of(db, [digest for (digest,) in db.execute("SELECT hash FROM blobs")])
    assert kinds["result"] == 2
    assert kinds["reply"] == 3
    assert {"request", "instruction", "prompt", "example", "outcome"} <= set(kinds)


def test_a_page_that_shows_a_text_is_found_however_it_is_marked_up(tmp_path: Path) -> None:
    (tmp_path / "has.html").write_text("<p>by O&#39;<ins>Brien &amp; Zoë</ins></p>", "utf-8")
    (tmp_path / "not.html").write_text("<p>by O&#39;Brian &amp; Zoë</p>", "utf-8")
    assert files_with(tmp_path, "O'Brien & Zoë") == [tmp_path / "has.html"]


def test_nothing_of_an_erased_text_stays_in_any_page(tmp_path: Path) -> None:
    rng = random.Random(5)
    path = tmp_path / "ledger.db"
    words = {
        n: " ".join(rng.choice("abcdefgh") * 3 + f"-{n}-{i}" for i in range(rng.choice([5, 900]))) for n in range(60)
    }
    ledger = open_ledger(path)
    for number, text in words.items():
        ledger.event("run-1", "note", {"number": number}, {"text": text})
    ledger.close()
    for number in rng.sample(range(60), 25):
        with closing(reader(path)) as db:
            found = texts_with(db, words[number])
        ledger = Ledger(path)
        ledger.erase(found, "ann", "asked")
        ledger.close()
        data = b"".join(file.read_bytes() for file in tmp_path.iterdir())
        assert not [word for word in words.pop(number).split() if word.encode() in data]
    with closing(reader(path)) as db:
        assert verify(db) == []
        assert len(db.execute("SELECT 1 FROM blobs").fetchall()) == len(words)


@pytest.mark.parametrize("form", [NAME, json.dumps(NAME), json.dumps(NAME, ensure_ascii=False)])
def test_files_that_hold_a_text_are_named(tmp_path: Path, form: str) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "prompt.md").write_bytes(b"before " + form.encode() + b" after")
    (tmp_path / "other").write_text("nothing")
    assert files_with(tmp_path, NAME) == [tmp_path / "inner" / "prompt.md"]
