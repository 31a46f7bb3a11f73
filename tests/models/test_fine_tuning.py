"""The fine-tuning API with the real SDK: what is sent, what is read, and what a hostile server cannot do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest

from agent.errors import BadResponse, RequestRefused, RunRefused
from agent.models.openai import OpenAIModel
from agent.models.provider_jobs import FineTuning, TuningSettings, tuned_name, tuning_body
from tests.wire import Fault, Seen, WireServer

T = TypeVar("T")
KEY = "own-key-of-the-server"


def none(messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
    raise AssertionError("no call is made")


async def asked(answer: Fault, ask: Callable[[FineTuning], Awaitable[T]]) -> tuple[T, Seen]:
    with WireServer(none, other=lambda seen: answer) as server:
        api = FineTuning.of(OpenAIModel(f"openai-compatible/x@{server.url}", "x", base_url=server.url, api_key=KEY))
        try:
            return await ask(api), server.others[0]
        finally:
            await api.close()


def job(**changes: Any) -> Fault:
    return Fault(body={"id": "ftjob-1", "status": "running", "training_file": "file-1", **changes})


async def test_a_gateway_trains_and_runs_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-openai-0123")
    listed = Fault(body={"object": "list", "data": [], "has_more": False})
    with WireServer(none, other=lambda seen: listed) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        model = OpenAIModel("openai/m", "m")
        api = FineTuning.of(model)
        await api.check()
        await api.close()
        await model.batch_api().check()
        await model.close()
    assert [seen.path for seen in server.others] == ["/v1/fine_tuning/jobs", "/v1/batches"]
    assert {seen.headers["authorization"] for seen in server.others} == {"Bearer sk-of-openai-0123"}


async def test_openai_gets_the_method_and_other_servers_the_older_field() -> None:
    settings = TuningSettings(epochs=2, seed=7)
    official = tuning_body(OpenAIModel("openai/m", "m"), "file-1", "", settings)
    assert official == {
        "model": "m",
        "training_file": "file-1",
        "seed": 7,
        "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}},
    }
    made, seen = await asked(job(), lambda api: api.create("file-1", "file-2", settings))
    assert (made.id, made.status, made.is_ended) == ("ftjob-1", "running", False)
    assert seen.body == {
        "model": "x",
        "training_file": "file-1",
        "validation_file": "file-2",
        "seed": 7,
        "hyperparameters": {"n_epochs": 2},
    }


async def test_a_foreign_address_gets_its_own_key_and_nothing_of_openai(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-openai-1")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-openai-2")
    _, seen = await asked(Fault(body={"id": "file-1"}), lambda api: api.upload("train.jsonl", b"{}\n"))
    assert seen.headers["authorization"] == f"Bearer {KEY}"
    assert "of-openai" not in str(seen.headers) + str(seen.data)


async def test_an_ended_job_says_its_model_tokens_and_seconds() -> None:
    done = job(status="succeeded", fine_tuned_model="ft:x:me::1", trained_tokens=99, created_at=10, finished_at=70)
    found, _ = await asked(done, lambda api: api.look("ftjob-1"))
    assert (found.model, found.tokens, found.seconds, found.is_ended) == ("ft:x:me::1", 99, 60.0, True)


async def test_why_a_job_failed_is_one_line_without_keys() -> None:
    failed = job(status="failed", error={"message": f"bad\x1b[31m\nrow {KEY}", "code": "bad_file"})
    found, _ = await asked(failed, lambda api: api.look("ftjob-1"))
    assert found.words.isprintable()
    assert KEY not in found.words
    assert found.words.endswith("/ bad_file")


@pytest.mark.parametrize("name", ["x@http://evil/v1", "a b", "", None, "x" * 201, "x\n", 7])
async def test_a_name_that_could_lead_elsewhere_is_no_model(name: Any) -> None:
    with pytest.raises(RequestRefused, match="no usable name"):
        await asked(job(status="succeeded", fine_tuned_model=name), lambda api: api.look("ftjob-1"))


@pytest.mark.parametrize("changes", [{"id": "../files"}, {"id": 1}, {"status": "\x1b[2J"}, {"status": None}])
async def test_what_is_no_job_is_a_bad_response(changes: dict[str, Any]) -> None:
    with pytest.raises(BadResponse):
        await asked(job(**changes), lambda api: api.look("ftjob-1"))


@pytest.mark.parametrize("body", ["not JSON", [1], {"id": ["file"]}])
async def test_an_upload_without_an_id_is_a_bad_response(body: Any) -> None:
    with pytest.raises(BadResponse):
        await asked(Fault(body=body), lambda api: api.upload("train.jsonl", b"{}\n"))


@pytest.mark.parametrize(
    ("status", "says"),
    [*((status, f"no fine-tuning API .HTTP {status}.") for status in (404, 405, 501)), (401, "the key was refused")],
)
async def test_a_server_without_the_api_is_told_as_one_and_a_refused_key_is_not(status: int, says: str) -> None:
    with pytest.raises(RunRefused, match=says):
        await asked(Fault(status, body={"error": {"message": "no"}}), lambda api: api.check())


@pytest.mark.parametrize("fault", [Fault(403, body={}), Fault(503, body={}), Fault(body={"data": []}), Fault(raw=b"")])
async def test_what_is_unclear_about_the_api_passes(fault: Fault) -> None:
    await asked(fault, lambda api: api.check())


async def test_a_job_on_another_file_is_not_ours_and_a_list_without_an_end_is_left() -> None:
    endless = Fault(body={"data": [{"id": "ftjob-9", "status": "running", "training_file": "other"}], "has_more": True})
    found, seen = await asked(endless, lambda api: api.find("file-1"))
    assert found is None
    assert seen.query == "limit=100"


def test_a_tuned_model_stays_at_the_address_of_its_base() -> None:
    assert tuned_name("openai/m", "ft:m:me::1") == "openai/ft:m:me::1"
    assert tuned_name("openai-compatible/m@http://h/v1", "ft:m") == "openai-compatible/ft:m@http://h/v1"
