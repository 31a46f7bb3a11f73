"""A text is found however JSON wrote it, and an erased text leaves the file while its history verifies."""

from __future__ import annotations

import json
import random
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.ledger.connect import reader
from agent.ledger.query import History
from agent.ledger.store import Ledger
from agent.ledger.texts import events_with, files_with, holds, kinds_of, texts_with
from agent.ledger.verify import verify
from tests.ledger.ledgers import alter, candidates, fill, first_naming, in_memory, read
from tests.toys import open_ledger

NAME = 'Zoë "Zo" Öz\\Ünal\n😀'
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


@given(needle=TEXT, around=TEXT, depth=st.integers(0, 3), is_ascii=st.booleans())
def test_a_text_is_found_at_every_depth_of_quoting(needle: str, around: str, depth: int, is_ascii: bool) -> None:
    text = around + needle + around
    for _ in range(depth):
        text = json.dumps({"a": [text, 1]}, ensure_ascii=is_ascii)
    assert holds(text, needle)
    assert not holds(json.dumps({"text": "[]" * 5}), needle + "|")


def test_texts_and_events_with_a_name_are_found_with_their_kinds(whole: Path) -> None:
    with closing(Ledger(whole)) as ledger:
        ledger.event("run-1", "note", {"why": f"because of {NAME}"}, {"text": f"about {NAME}"})
        ledger.event("run-1", "note", {"other": 1}, {"text": json.dumps({"text": json.dumps([NAME])})})
        ledger.event("run-1", "note", {"other": 2}, {"text": "about nobody"})
    with closing(reader(whole)) as db:
        found = texts_with(db, NAME)
        assert kinds_of(db, found) == {"other text": 2}
        assert events_with(db, NAME) == [db.execute("SELECT MAX(seq) FROM events").fetchone()[0] - 2]
        kinds = kinds_of(db, [digest for (digest,) in db.execute("SELECT hash FROM blobs")])
    assert (kinds["result"], kinds["reply"]) == (2, 3)
    assert {"request", "instruction", "prompt", "example", "outcome"} <= set(kinds)


@pytest.mark.parametrize("form", [NAME, json.dumps(NAME), json.dumps(NAME, ensure_ascii=False)])
def test_files_with_a_text_are_found_and_pages_by_their_visible_text(tmp_path: Path, form: str) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "prompt.md").write_bytes(b"before " + form.encode() + b" after")
    (tmp_path / "has.html").write_text("<p>by O&#39;<ins>Brien &amp; Zoë</ins></p>", "utf-8")
    (tmp_path / "not.html").write_text("<p>by O&#39;Brian &amp; Zoë</p>", "utf-8")
    assert files_with(tmp_path, NAME) == [tmp_path / "inner" / "prompt.md"]
    assert files_with(tmp_path, "O'Brien & Zoë") == [tmp_path / "has.html"]


def test_nothing_of_an_erased_text_stays_in_any_page(tmp_path: Path) -> None:
    rng, path = random.Random(5), tmp_path / "ledger.db"
    words = {
        n: " ".join(rng.choice("abcdefgh") * 3 + f"-{n}-{i}" for i in range(rng.choice([5, 900]))) for n in range(30)
    }
    with closing(open_ledger(path)) as ledger:
        for number, text in words.items():
            ledger.event("run-1", "note", {"number": number}, {"text": text})
    for number in rng.sample(range(30), 8):
        with closing(reader(path)) as db:
            found = texts_with(db, words[number])
        with closing(Ledger(path)) as ledger:
            ledger.erase(found, "ann", "asked")
        data = b"".join(file.read_bytes() for file in tmp_path.iterdir())
        assert not [word for word in words.pop(number).split() if word.encode() in data]
    with closing(reader(path)) as db:
        assert verify(db) == []
        assert len(db.execute("SELECT 1 FROM blobs").fetchall()) == len(words)
    told = json.loads(read(path, "SELECT body FROM events WHERE kind = 'texts_erased' ORDER BY seq DESC")[0][0])
    assert told == {"erased": found, "actor": "ann", "reason": "asked"}


@pytest.mark.parametrize("reopened", [True, False], ids=["another process", "the same process"])
async def test_numbers_outlive_erased_texts_which_may_come_again_with_a_later_run_only(
    tmp_path: Path, reopened: bool
) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    await fill(ledger, "run-1")
    texts = dict(read(ledger.path, "SELECT hash, body FROM blobs"))
    ledger.erase([*texts], "somebody", "all of it")
    history = History(ledger.path)
    assert [trial["mean"] for trial in history.trials("run-1")] == [0.5] * 3
    assert history.run("run-1")["result"] is None
    assert {row["error"] for row in history.outcomes("run-1", candidates()[0].id, "dev")} == {"(erased)"}
    assert history.candidate(candidates()[1].id)["demos"][0]["rationale"] == "(erased)"
    if reopened:
        ledger.close()
        ledger = Ledger(ledger.path)
    with closing(in_memory(ledger.path) if reopened else reader(ledger.path)) as db:
        assert verify(db) == []
        if reopened:  # put back behind its back
            digest, body = next(iter(texts.items()))
            alter(db, "INSERT INTO blobs VALUES (?, ?)", values=(digest, body))
            assert [(seq, what) for seq, what in verify(db)] == [
                (first_naming(db, digest), f"an erased text is back: {digest}")
            ]
    await fill(ledger, "run-2")
    assert verify(ledger.db) == []
    assert read(ledger.path, "SELECT COUNT(*) FROM blobs")[0][0] > 0
    ledger.close()
