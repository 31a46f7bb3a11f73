"""The scripted model answers from its file, and says what is wrong with the file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.errors import InputError, RunRefused
from agent.models.recorded import ScriptedModel
from agent.types import Message, Request, Usage


def script(folder: Path, *lines: object) -> Path:
    file = folder / "script.jsonl"
    texts = [line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines]
    file.write_text("\n".join(texts) + "\n", "utf-8")
    return file


def request(*contents: str) -> Request:
    roles = ("system", "user", "assistant", "user")[-len(contents) :] if len(contents) > 1 else ("user",)
    return Request(tuple(Message(role, text) for role, text in zip(roles, contents, strict=True)), 8)  # type: ignore[arg-type]


async def test_the_first_line_that_fits_answers(tmp_path: Path) -> None:
    lines = ({"match": "parcel", "reply": "delivery"}, {"contains": "clerk", "reply": "refunds"}, {"reply": "billing"})
    model = ScriptedModel("scripted/x", script(tmp_path, *lines))
    assert (await model.complete(request("my parcel"))).text == "delivery"
    assert (await model.complete(request("parcel", "a clerk", "hm"))).text == "refunds", (
        "match reads the last message only"
    )
    assert (await model.complete(request("hello"))).text == "billing"


async def test_both_conditions_of_a_line_must_hold(tmp_path: Path) -> None:
    model = ScriptedModel("m", script(tmp_path, {"match": "a", "contains": "b", "reply": "both"}, {"reply": "other"}))
    assert (await model.complete(request("a"))).text == "other"
    assert (await model.complete(request("a b"))).text == "both"


async def test_a_request_that_no_line_fits_stops_the_run_and_shows_the_message(tmp_path: Path) -> None:
    model = ScriptedModel("scripted/x", script(tmp_path, {"match": "parcel", "reply": "delivery"}))
    with pytest.raises(RunRefused, match="no line of the script matches the message 'hello'"):
        await model.complete(request("hello"))


async def test_calls_are_kept_and_tokens_are_words(tmp_path: Path) -> None:
    model = ScriptedModel("m", script(tmp_path, {"reply": "two words"}))
    sent = request("one two three", "four", "five", "six")
    reply = await model.complete(sent)
    assert model.calls == [sent]
    assert reply.usage == Usage(6, 2)
    assert (reply.finish, reply.model) == ("stop", "m")


@pytest.mark.parametrize("text", ["line\u2028sep \u2029 \x85 \x1c", "two\nlines", "{{message}}", "", "\0"])
async def test_any_reply_text_comes_back_exactly(tmp_path: Path, text: str) -> None:
    model = ScriptedModel("m", script(tmp_path, {"reply": text}))
    assert (await model.complete(request("x"))).text == text


async def test_blank_lines_a_bom_and_crlf_do_no_harm(tmp_path: Path) -> None:
    file = tmp_path / "script.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"reply": "a"}\r\n\r\n  \n')
    assert (await ScriptedModel("m", file).complete(request("x"))).text == "a"


@pytest.mark.parametrize(
    "bad",
    [
        "{",
        "[]",
        "3",
        "{}",
        '{"reply": 3}',
        '{"reply": null}',
        '{"reply": "a", "match": 1}',
        '{"reply": "a", "contains": null}',
    ],
)
def test_a_bad_line_is_named_by_file_and_line(tmp_path: Path, bad: str) -> None:
    with pytest.raises(InputError, match=r"script\.jsonl:3: ") as caught:
        ScriptedModel("m", script(tmp_path, {"reply": "a"}, "", bad))
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_the_users_error(tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    for bad in (tmp_path / "none.jsonl", tmp_path, tmp_path / "bytes"):
        with pytest.raises(InputError, match="cannot be read"):
            ScriptedModel("m", bad)
