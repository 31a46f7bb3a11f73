"""What is found in the texts of a ledger: what stands there, nothing that was erased, nothing of another run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from agent.errors import InputError
from agent.ledger import texts as texts_module
from agent.ledger.connect import reader
from agent.ledger.query import History
from agent.ledger.store import Ledger, Reservation
from agent.ledger.texts import search, texts_with
from agent.ledger.verify import verify
from agent.types import Completion, Outcome, Prediction, Score
from tests.ledger import ledgers
from tests.toys import ask


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return ledgers.make(tmp_path / "ledger.db")


@pytest.fixture
def history(path: Path) -> Iterator[History]:
    with closing(History(path)) as opened:
        yield opened


async def say(path: Path, *replies: str, run_id: str = "run-1") -> None:
    """More replies in a run that is there, each of another row."""
    ledger = Ledger(path)
    who = ledgers.candidates()[0].id
    for number, reply in enumerate(replies):
        key, row = f"k-said-{number}", f"said-{number}"
        call = await ledger.reserve(Reservation(run_id, "model", "m", key, who, 1, ask(row), 0.0, 10))
        ledger.sent(call)
        await ledger.settle(run_id, call, Completion(reply, "stop", ledgers.USAGE, "m-1"), 0.0, 0.1)
        right = (Score("exact_match", 1.0, "right"),)
        ledger.put_outcome(run_id, "test", Outcome(who, row, Prediction({"team": "x"}, reply), right, 0.25, key))
    await ledger.commit()
    ledger.close()


def test_replies_prompts_and_reasons_are_found_each_with_where_it_stands(history: History) -> None:
    replies = search(history, "refunds", limit=100)
    assert (replies.matches, {hit.what for hit in replies.hits}) == (6, {"reply"})
    assert {(hit.run, hit.trial) for hit in replies.hits} == {(run, n) for run in ("run-1", "run-2") for n in range(3)}
    assert {(hit.row, hit.split, hit.score, hit.snippet) for hit in replies.hits} == {
        ("dev-2", "dev", 0.5, "**refunds**")
    }

    (prompt, again) = search(history, "think").hits
    assert (prompt.what, prompt.trial, prompt.row, prompt.split, prompt.score) == ("prompt", 2, "", "", 0.5)
    assert {prompt.run, again.run} == {"run-1", "run-2"}
    assert "**Think**.\nThen answer." in prompt.snippet

    reasons = search(history, "reason", limit=100).hits
    assert [hit.what for hit in reasons] == ["reason"] * 8
    assert {(hit.trial, hit.score) for hit in reasons} == {(0, 0.5), (1, 0.5), (2, 0.5), (None, None)}
    (never,) = [hit for hit in search(history, "placeholder", "run-1").hits if hit.what == "reason"]
    assert never.trial is None


def test_only_the_run_that_is_named_is_looked_at_and_only_so_many_are_shown(history: History) -> None:
    everywhere, one = search(history, "refunds"), search(history, "refunds", "run-2")
    assert (everywhere.matches, one.matches) == (6, 3)
    assert {hit.run for hit in one.hits} == {"run-2"}
    assert 0 < one.texts < everywhere.texts
    few = search(history, "refunds", limit=2)
    assert (len(few.hits), few.matches) == (2, 6)
    assert search(history, "refunds", "run-3") == texts_module.Found(0, 0, ())


async def test_what_holds_the_words_more_often_in_less_text_comes_first(path: Path) -> None:
    long = "a parcel, and then " + "nothing of note " * 30
    await say(path, long, "parcel parcel", "the parcel is late")
    with closing(History(path)) as history:
        assert [hit.row for hit in search(history, "parcel").hits] == ["said-1", "said-2", "said-0"]
        assert [hit.row for hit in search(history, '"parcel is"').hits] == ["said-2"]
        assert [hit.row for hit in search(history, "parcel NOT late").hits] == ["said-1", "said-0"]
        assert search(history, "parc*").matches == 3
        assert search(history, "parcel elephant").matches == 0


async def test_an_erased_text_is_not_found_and_the_ledger_is_left_as_it_was(path: Path) -> None:
    await say(path, "ask for Zoë Unal")
    with closing(History(path)) as history:
        assert search(history, "unal").matches == 1
    with closing(reader(path)) as db:
        erased = [*texts_with(db, "Zoë Unal"), *texts_with(db, "Then answer.")]
        assert verify(db) == []
    ledger = Ledger(path)
    ledger.erase(erased, "ann", "asked")
    ledger.close()
    with closing(History(path)) as history:
        assert search(history, "unal").matches == 0
        assert search(history, "think").matches == 0


async def test_any_text_of_a_model_can_be_looked_through(path: Path) -> None:
    await say(path, "lone \ud800 surrogate", "nul \0 byte", "", "\x1b[31mred", "'; DROP TABLE texts; --")
    with closing(History(path)) as history:
        assert [hit.row for hit in search(history, "surrogate OR byte OR red OR drop").hits] != []
        assert search(history, "surrogate").hits[0].snippet == "lone ? **surrogate**"
        assert search(history, "drop").hits[0].row == "said-4"


@pytest.mark.parametrize("words", ["don't", 'an open "quote', "support-triage", "a AND", "(", "nothere:x", "*"])
def test_words_that_are_no_query_are_told_with_how_to_quote_them(history: History, words: str) -> None:
    with pytest.raises(InputError, match="not a full-text query") as error:
        search(history, words)
    told = str(error.value)
    assert "\n" not in told
    quoted = told.rpartition("for plain words use ")[2]
    search(history, quoted)  # what was offered works


def test_no_words_at_all_are_told(history: History) -> None:
    with pytest.raises(InputError, match="no search words"):
        search(history, " ")


def test_more_than_an_index_may_hold_is_refused_with_what_to_do(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = search(history, "refunds").texts
    monkeypatch.setattr(texts_module, "MOST_TEXTS", texts // 2 + 2)
    with pytest.raises(InputError, match="name one run"):
        search(history, "refunds")
    assert search(history, "refunds", "run-1").matches == 3
    monkeypatch.setattr(texts_module, "MOST_CHARS", 50)
    with pytest.raises(InputError, match="or 50 characters"):
        search(history, "refunds", "run-1")
