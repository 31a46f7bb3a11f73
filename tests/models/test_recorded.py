"""Recorded replies: what was recorded comes back whole, and nothing else is ever answered."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import InputError, RowRefused
from agent.gateway.prices import price_of
from agent.jobs.demo import MODEL
from agent.models.model_registry import create_model, leads_elsewhere
from agent.models.recorded import RecordedModel, RecordedWeights, Recording, note, read_recording, request_key
from agent.types import Completion, Message, Request, Tool, Usage
from tests.recordings import write_recording

WEIGHTS = RecordedWeights("A Model, Q4 GGUF", "0" * 64, "Apache-2.0")
ASKED = Request((Message("system", "Add."), Message("user", "1 + 1")), max_tokens=8, logprobs=2, labels=("2", "3"))
NUMBERS = st.floats(-100, 0)
REPLIES = st.builds(
    Completion,
    text=st.text(),
    finish=st.sampled_from(["stop", "length"]),
    usage=st.builds(Usage, st.integers(0, 9999), st.integers(0, 9999), st.integers(0, 9999)),
    model=st.just("recorded/a"),
    logprobs=st.lists(st.lists(st.tuples(st.text(max_size=5), NUMBERS), max_size=3).map(tuple), max_size=3).map(tuple),
    label_logprobs=st.lists(NUMBERS, max_size=3).map(tuple),
)


@given(st.dictionaries(st.text("0123456789abcdef", min_size=1, max_size=8), REPLIES, max_size=5))
def test_what_is_written_is_read_back(replies: dict[str, Completion]) -> None:
    recording = Recording(WEIGHTS, replies)
    with tempfile.TemporaryDirectory() as folder:
        one, other = Path(folder) / "a.jsonl.gz", Path(folder) / "b.jsonl.gz"
        write_recording(one, recording)
        assert read_recording(one, "recorded/a") == recording
        write_recording(other, Recording(WEIGHTS, dict(reversed(replies.items()))))
        assert one.read_bytes() == other.read_bytes(), "equal recordings are equal files"


CHANGES = [
    {"messages": (*ASKED.messages[:1], Message("user", "1 + 2"))},
    {"messages": (Message("user", "Add."), *ASKED.messages[1:])},
    {"max_tokens": 9},
    {"temperature": 0.5},
    {"seed": 1},
    {"stop": ("\n",)},
    {"json_schema": "{}"},
    {"choices": ("2", "3")},
    {"logprobs": 3},
    {"repeat": 1},
    {"labels": ("2", "4")},
    {"tools": (Tool("add", "", "{}"),)},
]


def test_a_request_that_was_recorded_is_answered_with_its_usage_and_log_probabilities() -> None:
    reply = Completion("2", "stop", Usage(7, 1, 3), "recorded/a", ((("2", -0.1), ("3", -2.5)),), (-0.1, -2.5))
    model = RecordedModel("recorded/a", Recording(WEIGHTS, {request_key(ASKED): reply}))
    assert asyncio.run(model.complete(ASKED)) is reply
    assert asyncio.run(model.complete(replace(ASKED, timeout=1))) is reply, "the time limit is no part of a request"


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_any_other_request_is_refused_for_its_row(change: dict[str, object]) -> None:
    reply = Completion("2", "stop", Usage(7, 1), "recorded/a")
    model = RecordedModel("recorded/a", Recording(WEIGHTS, {request_key(ASKED): reply}))
    with pytest.raises(RowRefused, match="recorded/a: no reply to this request was recorded"):
        asyncio.run(model.complete(replace(ASKED, **change)))  # type: ignore[arg-type]


def test_the_model_of_the_demo_is_free_and_says_what_it_is() -> None:
    model, price = create_model(MODEL), price_of(MODEL)
    assert isinstance(model, RecordedModel)
    assert price is not None
    assert price(Usage(10**9, 10**9)) == 0
    assert not leads_elsewhere(MODEL)
    assert note(MODEL).startswith("the replies are recorded, not live (Qwen2.5-Coder-")
    assert note(MODEL).endswith(", Apache-2.0)")
    assert (note("local/smollm2-135m"), note("openai/recorded/x")) == ("", "")


def test_an_unknown_recording_names_those_there_are() -> None:
    with pytest.raises(InputError, match=f"recorded/other: no such recording; use one of: {MODEL.partition('/')[2]}"):
        create_model("recorded/other")
    assert note("recorded/other") == "the replies are recorded, not live (recorded/other)"
