"""Spans of runs and of `complete`: in memory, and at an OTLP/HTTP receiver of our own."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.errors import Transient
from agent.release.runtime import load_prompt
from agent.tracking.spans import CAPTURE, NO_TRACER, CallTracer, RunSpans, calls_of, headers_of, program_tracer
from agent.turns import calls_text
from agent.types import Completion, Message, Request, Tool, Trial, Usage
from tests.cli.world import compatible, files, good_json, knowing, learner, refused
from tests.wire import WireServer

SECRET = "correct-horse-4711-battery"
CALLS = ["--max-calls", "200", "--price", "1,2"]
REQUEST = Request((Message("system", "Sort."), Message("user", f"parcel {SECRET}")), 20, seed=7, stop=("END",))
REPLY = Completion("delivery", "stop", Usage(12, 3, 4, 1), "x-2026")


class Receiver:
    """An OTLP/HTTP receiver: what it got, as spans by name, and the headers."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.resources: list[Any] = []
        self.headers: list[dict[str, str]] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    import gzip

                    body = gzip.decompress(body)
                message = ExportTraceServiceRequest()
                message.ParseFromString(body)
                outer.headers.append({name.lower(): value for name, value in self.headers.items()})
                for resource in message.resource_spans:
                    outer.resources.append(resource.resource)
                    outer.spans += [span for scope in resource.scope_spans for span in scope.spans]
                self.send_response(200 if self.path == "/v1/traces" else 404)
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def _sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests of this process may have switched it off, as the command does."""
    monkeypatch.delenv("OTEL_SDK_DISABLED", raising=False)


def in_memory() -> tuple[Any, Any]:
    """A provider whose finished spans are kept, and what keeps them."""
    pytest.importorskip("opentelemetry.sdk", reason="opentelemetry-sdk is not installed here")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    provider, kept = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    return provider, kept


def values(span: Any) -> dict[str, Any]:
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in span.attributes}


def spans_of(
    environ: dict[str, str],
    model: str = "openai/x",
    fault: Exception | None = None,
    request: Request = REQUEST,
    reply: Completion = REPLY,
) -> Any:
    """The one span of a call."""
    provider, kept = in_memory()
    with contextlib.suppress(Transient), CallTracer(provider.get_tracer("t"), environ).call(model, request) as answered:
        if fault is not None:
            raise fault
        answered(reply)
    (done,) = kept.get_finished_spans()
    return done


def test_a_call_has_the_attributes_of_the_conventions() -> None:
    done = spans_of({}, "openai-compatible/x@http://127.0.0.1:81/v1")
    assert (done.name, done.kind.name) == ("chat x", "CLIENT")
    assert dict(done.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "x",
        "gen_ai.request.max_tokens": 20,
        "gen_ai.request.temperature": 0.0,
        "gen_ai.request.seed": 7,
        "gen_ai.request.stop_sequences": ("END",),
        "gen_ai.response.model": "x-2026",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.output_tokens": 3,
        "gen_ai.usage.cache_read.input_tokens": 4,
        "gen_ai.usage.cache_creation.input_tokens": 1,
        "server.address": "127.0.0.1",
        "server.port": 81,
    }


def test_texts_calls_and_results_are_captured_on_request_alone_and_without_keys() -> None:
    look, again = calls_text([("look", {"at": SECRET})], "I look."), calls_text([("look", {})])
    messages = (*REQUEST.messages, Message("assistant", look), Message("tool", f"no {SECRET}"))
    request = replace(REQUEST, messages=messages, tools=(Tool("look", "", "{}"),), tool_choice="auto")
    environ = {CAPTURE: "true", "DEMO_API_KEY": SECRET}
    found = spans_of(environ, request=request, reply=replace(REPLY, text=again)).attributes
    plain = spans_of(environ).attributes
    sort, parcel, said = ([{"type": "text", "content": text}] for text in ("Sort.", "parcel [key]", "delivery"))
    assert json.loads(plain["gen_ai.system_instructions"]) == sort
    assert json.loads(plain["gen_ai.input.messages"]) == [{"role": "user", "parts": parcel}]
    assert json.loads(plain["gen_ai.output.messages"]) == [
        {"role": "assistant", "parts": said, "finish_reason": "stop"}
    ]
    assert "gen_ai.output.type" not in found
    assert json.loads(found["gen_ai.input.messages"])[1:] == [
        {
            "role": "assistant",
            "parts": [
                {"type": "text", "content": "I look."},
                {"type": "tool_call", "id": "call_0", "name": "look", "arguments": '{"at": "[key]"}'},
            ],
        },
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "call_0", "response": "no [key]"}]},
    ]
    calls = [{"type": "tool_call", "name": "look", "arguments": "{}"}]
    answer = {"role": "assistant", "parts": calls, "finish_reason": "tool_call"}
    assert json.loads(found["gen_ai.output.messages"]) == [answer]


def test_an_error_marks_the_span_and_quotes_nothing() -> None:
    done = spans_of({}, fault=Transient("the row said: parcel"))
    assert (done.attributes["error.type"], done.status.is_ok, "parcel" in done.to_json()) == ("Transient", False, False)


def test_calls_are_below_their_trial_and_trials_below_the_run() -> None:
    provider, kept = in_memory()
    from agent.tracking.spans import RunSpans

    spans = RunSpans(provider, {}, "triage", "r1")
    spans.on_trial_updated(Trial(0, 0, "c_0", "incomplete", 0, None))
    for candidate in ("c_0", ""):
        with spans.call("openai/x", REQUEST, candidate) as answered:
            answered(REPLY)
    spans.on_trial_updated(Trial(0, 0, "c_0", "complete", 30, 0.5))
    spans.end(ValueError("x"))
    by_name = {span.name: span for span in kept.get_finished_spans()}
    run, trial = by_name["promptassay run triage"], by_name["promptassay trial 0"]
    called, proposed = (span for span in kept.get_finished_spans() if span.name == "chat x")
    assert (run.parent, run.attributes["error.type"]) == (None, "ValueError")
    assert trial.parent.span_id == run.context.span_id == proposed.parent.span_id
    assert called.parent.span_id == trial.context.span_id
    assert trial.attributes["gen_ai.evaluation.score.value"] == 0.5
    assert trial.start_time <= called.start_time <= trial.end_time


@pytest.mark.extra("otel")
def test_a_run_arrives_at_a_receiver(receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-team=blue%20one")
    with WireServer(learner) as server:
        command = [*files(80), "-m", compatible(server), *CALLS]
        result = good_json(*command, "--trace", "env")
        sent = len(receiver.spans)
        good_json(*command, "--no-cache", "--trials", "1")  # the variable alone is no wish of the user
    assert len(receiver.spans) == sent
    (run,) = [span for span in receiver.spans if not span.parent_span_id]
    trials = [span for span in receiver.spans if span.name.startswith("promptassay trial")]
    calls = [span for span in receiver.spans if span.name == "chat x"]
    assert values(run)["promptassay.run.id"] == result["run_id"]
    assert len(trials) == sum(result["trials"].values())
    assert len(calls) == sum(count for role, count in result["calls"].items() if role != "cached")
    assert sum(values(span)["gen_ai.usage.input_tokens"] for span in calls) == result["tokens"]["prompt"]
    above = {span.span_id for span in (run, *trials)}
    assert {span.parent_span_id for span in calls} <= above
    assert not [span for span in calls if "gen_ai.input.messages" in values(span)]
    assert receiver.headers[0]["x-team"] == "blue one"
    assert {"service.name": "promptassay"}.items() <= values(receiver.resources[0]).items()


@pytest.mark.extra("otel")
def test_a_receiver_that_is_gone_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("agent.tracking.spans.EXPORT_SECONDS", 1.0)
    with WireServer(knowing) as server:
        command = [*files(80), "-m", compatible(server), *CALLS, "--trials", "1"]
        result = good_json(*command, "--trace", "http://127.0.0.1:9")
        assert result["status"] == "complete"
        assert "no address" not in refused(2, *command, "--trace", "localhost")[0]


@pytest.mark.extra("otel")
def test_complete_has_a_span_where_the_program_or_its_environment_says_so(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agent.tracking import spans

    monkeypatch.chdir(tmp_path)
    with WireServer(knowing) as server:
        made = good_json(*files(80), "-m", compatible(server), *CALLS, "--trials", "1")
        monkeypatch.delenv("OTEL_SDK_DISABLED", raising=False)
        prompt = load_prompt(made["release"])
        assert program_tracer() is NO_TRACER
        prompt.complete(text="the parcel is late")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{receiver.url}/v1/traces")
        prompt.complete(text="the parcel is late")
    spans._own_provider(f"{receiver.url}/v1/traces").shutdown()
    spans._own_provider.cache_clear()
    (span,) = receiver.spans
    found = values(span)
    assert found["gen_ai.prompt.name"] == prompt.name
    assert found["promptassay.prompt.version"] == prompt.version
    assert found["gen_ai.usage.output_tokens"] == 1
    assert "gen_ai.output.messages" not in found


def test_headers_are_those_of_the_environment(caplog: pytest.LogCaptureFixture) -> None:
    assert headers_of({"OTEL_EXPORTER_OTLP_HEADERS": "Authorization=Basic%20x, b=c"}) == {
        "authorization": "Basic x",
        "b": "c",
    }
    assert headers_of({}) == {}
    assert headers_of({"OTEL_EXPORTER_OTLP_HEADERS": "bearer sk-secret"}) == {}
    assert caplog.text == "", "a header that cannot be read may hold a key"


def test_the_calls_of_a_rollout_are_below_one_span_of_the_agent() -> None:
    provider, kept = in_memory()
    spans = RunSpans(provider, {}, "shop", "r1")
    with calls_of("agent.py:run", {"promptassay.row.id": "row 7"}):
        for _ in range(2):
            with spans.call("openai/x", REQUEST, "c_1") as answered:
                answered(REPLY)
    with spans.call("openai/x", REQUEST, "c_1"):
        pass
    spans.end()
    made = {span.name: span for span in kept.get_finished_spans()}
    agent = made["invoke_agent agent.py:run"]
    assert agent.attributes["promptassay.row.id"] == "row 7"
    assert agent.parent.span_id == made["promptassay run shop"].context.span_id
    below = [span.parent.span_id for span in kept.get_finished_spans() if span.name == "chat x"]
    assert below == [agent.context.span_id] * 2 + [made["promptassay run shop"].context.span_id]
