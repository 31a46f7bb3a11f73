"""The embedded engine's pure parts: which waiting call an engine takes, what it is asked and how its reply is read."""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import BadResponse, InputError, RowRefused
from agent.models.adapters import Adapter
from agent.models.local import LocalModel, _body, _completion, without_turn_marks
from agent.models.local_engines import WORTH_STEALING, EngineCall, Engines, _load, _shared
from agent.types import Message, Request, Usage
from tests.models.lora import lora
from tests.toys import ask

TEXTS = st.text("ab/\0 ", max_size=12)


@given(TEXTS, TEXTS)
def test_what_two_prompts_share_is_their_common_prefix_by_characters(held: str, text: str) -> None:
    same = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(held, text, strict=False))))
    assert _shared(held, text) * max(1, len(text)) == pytest.approx(same)


def waiting(*texts: str, held: dict[int, str]) -> Engines:
    engines = Engines(Path("x.gguf"), 2)
    engines._waiting = [SimpleNamespace(text=text) for text in texts]  # type: ignore[misc]
    engines._held = dict(held)
    return engines


def picked(engines: Engines, number: int) -> str | None:
    call = engines._pick(number)
    return call and call.text


ONE, TWO, THREE = "instruction one " * 4, "another text " * 4, "/ path-like text " * 4


def test_an_engine_takes_the_call_whose_prefix_it_holds_or_that_nobody_holds_or_enough_to_steal() -> None:
    held = {0: ONE + "a", 1: TWO + "a"}
    few = [TWO + str(n) for n in range(WORTH_STEALING - 1)]
    assert [picked(waiting(TWO, ONE, THREE, held=held), engine) for engine in (0, 1)] == [ONE, TWO]
    assert picked(waiting(TWO, THREE, held=held), 0) == THREE
    assert [picked(waiting(*few, *more, held=held), 0) for more in ((), (TWO,))] == [None, TWO]
    assert [picked(waiting(*texts, held={}), 0) for texts in ((ONE,), ())] == [ONE, None]


async def test_a_call_with_an_adapter_is_free_for_every_engine_and_leaves_no_prefix_behind() -> None:
    call = EngineCall({}, ONE, Adapter(Path("a.gguf"), "00"))
    engines = waiting(held={0: ONE, 1: TWO})
    engines._waiting = [call]
    assert engines._next(1) is call
    assert engines._held == {0: ONE, 1: ""}


async def test_a_body_names_the_scale_of_every_adapter_and_takes_a_cached_prefix_for_the_base_alone() -> None:
    """A scale that is left out would keep another one, and so would the prefix of another adapter."""
    one, two = (Adapter(Path(f"{name}.gguf"), name) for name in ("one", "two"))
    body = _body(ask("x"))
    assert EngineCall(body, "x", None).scales(()) == {}
    base = EngineCall(body, "x", None).scales((one, two))
    tuned = EngineCall(body, "x", two).scales((one, two))
    assert base == {"lora": [{"id": 0, "scale": 0.0}, {"id": 1, "scale": 0.0}], "cache_prompt": True}
    assert tuned == {"lora": [{"id": 0, "scale": 0.0}, {"id": 1, "scale": 1.0}], "cache_prompt": False}
    assert body["cache_prompt"]


def test_marks_of_the_chat_template_stay_text() -> None:
    assert "<|" not in without_turn_marks("a <|im_end|>\n<|im_start|>system")
    for mark in (
        "<start_of_turn>",
        "<end_of_turn>",
        "</s>",
        "<s>",
        "[INST]",
        "[/INST]",
        "<｜Assistant｜>",
        "<|eot_id|>",
    ):
        assert mark not in without_turn_marks(f"a {mark}\nb")
    for text in ("plain < | text", "<b>bold</b> [1] <span>", "x < y > z"):
        assert without_turn_marks(text) == text


@given(st.text(st.characters()))
def test_every_text_can_be_sent_to_the_engine(text: str) -> None:
    sent = without_turn_marks(text)
    sent.encode("utf-8")
    assert "\0" not in sent
    assert "<|" not in sent


def test_the_engine_listens_on_loopback_with_a_new_random_key_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the parameters that it is started with; none is started here, as the weights need not be there."""
    import xllamacpp

    asked: list[tuple[list[str], list[str]]] = []

    def server(params: Any) -> SimpleNamespace:
        asked.append((list(params.hostnames), list(params.api_keys)))
        return SimpleNamespace(listening_address="http://127.0.0.1:1", handle_metrics=lambda: "")

    monkeypatch.setattr(xllamacpp, "Server", server)
    keys = [_load(Path("x.gguf"))[1].key for _ in range(2)]
    assert asked == [(["127.0.0.1"], [key]) for key in keys]
    assert keys[0] != keys[1]
    assert all(len(bytes.fromhex(key)) == 16 for key in keys)


def test_an_engine_with_adapters_keeps_no_prefixes_by_their_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import xllamacpp

    asked: list[tuple[int, int, list[tuple[str, float]], bool]] = []

    def server(params: Any) -> SimpleNamespace:
        adapters = [(each.path, each.scale) for each in params.lora_adapters]
        asked.append((params.cache_ram_mib, params.n_ctx_checkpoints, adapters, params.lora_init_without_apply))
        return SimpleNamespace(listening_address="http://127.0.0.1:1", handle_metrics=lambda: "")

    monkeypatch.setattr(xllamacpp, "Server", server)
    path = lora(tmp_path / "a.gguf", 0, layers=1)
    adapter = Adapter.read(path)
    _load(Path("x.gguf"))
    _load(Path("x.gguf"), [adapter])
    assert asked[0][0] > 0
    assert asked[0][2:] == ([], False)
    assert asked[1] == (0, 0, [(str(path), 0.0)], True)
    lora(path, 1, layers=1, strength=0.5)
    with pytest.raises(InputError, match="changed while it was in use"):
        _load(Path("x.gguf"), [adapter])


def test_a_request_asks_for_what_it_says() -> None:
    body = _body(Request((Message("user", "x"),), 5, 0.5, 7, ("\n",), choices=('say "a"', "b"), logprobs=3))
    assert (body["max_tokens"], body["temperature"], body["seed"], body["stop"]) == (5, 0.5, 7, ["\n"])
    assert body["grammar"] == 'root ::= "say \\"a\\"" | "b"'
    assert body["top_logprobs"] == 3
    assert "grammar" not in _body(ask("x"))
    assert [_body(ask("x", repeat=sample))["seed"] for sample in range(3)] == [0, 1, 2], "samples of one prompt differ"


def reply(**changes: Any) -> dict[str, Any]:
    choice = {"message": {"content": "hi"}, "finish_reason": "stop", **changes}
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 3}}
    return {"choices": [choice], "usage": usage}


def test_a_reply_is_read_with_its_tokens_and_log_probabilities() -> None:
    tops = [{"top_logprobs": [{"token": "hi", "logprob": -0.5}, {"token": "ho", "logprob": -1}]}]
    found = _completion("m", reply(logprobs={"content": tops}), 2, (-0.5, -1.0))
    assert found.text == "hi"
    assert found.usage == Usage(5, 2, 3)
    assert found.logprobs == ((("hi", -0.5), ("ho", -1.0)),)
    assert found.label_logprobs == (-0.5, -1.0)
    assert _completion("m", reply(logprobs={"content": tops}), 1).logprobs == ((("hi", -0.5),),)
    assert _completion("m", reply(logprobs={"content": tops}), 0).logprobs == ()
    assert _completion("m", reply(finish_reason="length"), 0).finish == "length"
    assert _completion("m", reply(message={"content": None}), 0).text == ""


@pytest.mark.parametrize("bad", [{}, [], None, {"choices": []}, {"choices": [{}], "usage": {}}])
def test_what_is_no_reply_is_a_bad_response(bad: Any) -> None:
    with pytest.raises(BadResponse):
        _completion("m", bad, 0)


def test_a_prompt_that_is_too_long_fails_its_row_only() -> None:
    error = {"error": {"type": "exceed_context_size_error", "message": "too long", "code": 400}}
    with pytest.raises(RowRefused, match="fewer or shorter examples"):
        _completion("m", error, 0)


async def test_a_file_that_is_not_there_is_the_users_error(tmp_path: Any) -> None:
    with pytest.raises(InputError, match="no such model file"):
        await LocalModel("local/x.gguf", tmp_path / "x.gguf").complete(ask("x"))
