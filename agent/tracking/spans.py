"""Model calls as OpenTelemetry spans, following its semantic conventions for generative AI (`gen_ai.*`).

Off unless a receiver is configured. Spans hold texts only with
OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=true.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote, urlsplit

from agent.extras import is_here
from agent.observer import Observer
from agent.redact import mask, rare_secrets_in
from agent.shipped import label_text
from agent.turns import turn_of, turns
from agent.types import Completion, Request, Trial

CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
ENDPOINT, TRACES_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
HEADERS = ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS")
DISABLED = "OTEL_SDK_DISABLED"
SCOPE = "promptassay"
ROLE = "promptassay.role"
"""Span attribute with the role of a call."""
EXPORT_SECONDS = 5.0
"""Timeout of one request to the receiver."""
PROVIDERS: Mapping[str, str] = {"openai-compatible": "openai", "local": "llama_cpp"}
"""Provider names of the conventions that differ from ours."""
NO_VARIABLES: Mapping[str, str] = MappingProxyType({})


class CallTracer:
    """Traces calls with an OpenTelemetry tracer, or not at all without one.

    `environ` decides whether texts are captured, and which secrets to mask.
    """

    def __init__(self, tracer: Any = None, environ: Mapping[str, str] = NO_VARIABLES) -> None:
        self._tracer = tracer
        self._texts = environ.get(CAPTURE, "").lower() == "true"
        self._secrets = rare_secrets_in(environ) if environ else ()

    def parent(self, candidate_id: str) -> Any:
        """Return the parent context of a call's span; None: the current one."""
        return None

    @contextmanager
    def call(
        self, model: str, request: Request, candidate_id: str = "", more: Mapping[str, Any] | None = None
    ) -> Iterator[Callable[[Completion], None]]:
        """Open a span around one model call; yield what takes its reply. An error that leaves the block is recorded.

        `model`: its name here, such as openai/NAME. `candidate_id`: that the call is for. `more`: attributes in
        addition to those of the conventions.
        """
        if self._tracer is None:
            yield lambda completion: None
            return
        from opentelemetry.trace import SpanKind

        operation = "embeddings" if (more or {}).get(ROLE) == "embedding" else "chat"
        found = {"gen_ai.operation.name": operation, **_asked(model, request), **(more or {})}
        if self._texts:
            found |= self._messages(request)
        span = self._tracer.start_span(
            f"{operation} {found['gen_ai.request.model']}", self.parent(candidate_id), SpanKind.CLIENT, found
        )
        try:
            yield lambda completion: span.set_attributes(self._answered(completion, request))
        except BaseException as error:
            _end_failed(span, error)
            raise
        finally:
            span.end()

    def _answered(self, completion: Completion, request: Request) -> dict[str, Any]:
        usage = completion.usage
        found: dict[str, Any] = {
            "gen_ai.response.model": completion.model,
            "gen_ai.response.finish_reasons": (completion.finish,),
            "gen_ai.usage.input_tokens": usage.prompt_tokens,
            "gen_ai.usage.output_tokens": usage.completion_tokens,
            "gen_ai.usage.cache_read.input_tokens": usage.cached_prompt_tokens,
            "gen_ai.usage.cache_creation.input_tokens": usage.written_prompt_tokens,
        }
        if self._texts:
            calls, words = turn_of(completion.text) if request.tools and request.tool_choice else ([], completion.text)
            parts = self._parts(words, [("", *call) for call in calls])
            said = {"role": "assistant", "parts": parts, "finish_reason": "tool_call" if calls else completion.finish}
            found["gen_ai.output.messages"] = json.dumps([said], ensure_ascii=False)
        return found

    def _messages(self, request: Request) -> dict[str, str]:
        system: list[dict[str, Any]] = []
        rest: list[dict[str, Any]] = []
        for turn in turns(request.messages):
            parts = self._parts(turn.said, [(call.id, call.name, call.arguments) for call in turn.calls])
            if turn.role == "system":
                system += parts
            else:
                rest.append({"role": turn.role, "parts": parts})
            for call in turn.calls:
                result = {"type": "tool_call_response", "id": call.id, "response": mask(call.result, self._secrets)}
                rest.append({"role": "tool", "parts": [result]})
        found = {"gen_ai.input.messages": json.dumps(rest, ensure_ascii=False)}
        return {**found, "gen_ai.system_instructions": json.dumps(system, ensure_ascii=False)} if system else found

    def _parts(self, said: str, calls: Sequence[tuple[str, str, Any]]) -> list[dict[str, Any]]:
        texts = [{"type": "text", "content": mask(said, self._secrets)}] if said or not calls else []
        return texts + [
            {
                "type": "tool_call",
                **({"id": id} if id else {}),
                "name": name,
                "arguments": mask(label_text(arguments), self._secrets),
            }
            for id, name, arguments in calls
        ]


NO_TRACER = CallTracer()


@dataclass(slots=True)
class _Group:
    name: str
    attributes: Mapping[str, Any]
    span: Any = None


_GROUP: ContextVar[_Group | None] = ContextVar("_GROUP", default=None)


@contextmanager
def calls_of(name: str, attributes: Mapping[str, Any]) -> Iterator[None]:
    """Group the spans of calls inside below one: that of an agent on a row."""
    group = _Group(name, attributes)
    token = _GROUP.set(group)
    try:
        yield
    finally:
        _GROUP.reset(token)
        if group.span is not None:
            group.span.end()


def _end_failed(span: Any, error: BaseException) -> None:
    from opentelemetry.trace import Status, StatusCode

    span.set_attribute("error.type", type(error).__name__)  # its message may quote a row
    span.set_status(Status(StatusCode.ERROR))


def _asked(model: str, request: Request) -> dict[str, Any]:
    kind, _, rest = model.partition("/")
    name, _, address = rest.partition("@")
    found: dict[str, Any] = {
        "gen_ai.provider.name": PROVIDERS.get(kind, kind),
        "gen_ai.request.model": name or model,
        "gen_ai.request.max_tokens": request.max_tokens,
        "gen_ai.request.temperature": request.temperature,
    }
    if request.seed is not None:
        found["gen_ai.request.seed"] = request.seed
    if request.stop:
        found["gen_ai.request.stop_sequences"] = request.stop
    if (request.tools and not request.tool_choice) or request.json_schema:
        found["gen_ai.output.type"] = "json"
    with suppress(ValueError):
        place = urlsplit(address)
        found |= {"server.address": place.hostname} if place.hostname else {}
        found |= {"server.port": place.port} if place.port else {}
    return found


class RunSpans(Observer, CallTracer):
    """The spans of one run: run, trials, calls. Calls outside trials are children of the run."""

    def __init__(self, provider: Any, environ: Mapping[str, str], task: str, run_id: str) -> None:
        super().__init__(provider.get_tracer(SCOPE), environ)
        known = {"promptassay.run.id": run_id, "promptassay.task.name": task}
        self._run = self._tracer.start_span(f"promptassay run {task}", attributes=known)
        self._trials: dict[str, Any] = {}  # the open span of each candidate
        self._updated: dict[str, int] = {}  # when it changed last, in nanoseconds since 1970

    def on_trial_updated(self, trial: Trial) -> None:
        span = self._trials.get(trial.candidate_id)
        if span is None:
            span = self._tracer.start_span(f"promptassay trial {trial.number}", self._below(self._run))
            self._trials[trial.candidate_id] = span
        known = {
            "promptassay.trial.number": trial.number,
            "promptassay.trial.state": trial.state,
            "promptassay.trial.rows": trial.n,
            "promptassay.candidate.id": trial.candidate_id,
            **({} if trial.mean is None else {"gen_ai.evaluation.score.value": trial.mean}),
        }
        span.set_attributes(known)
        self._updated[trial.candidate_id] = time.time_ns()

    def parent(self, candidate_id: str) -> Any:
        if candidate_id in self._updated:
            self._updated[candidate_id] = time.time_ns()
        above = self._below(self._trials.get(candidate_id, self._run))
        if (group := _GROUP.get()) is None:
            return above
        if group.span is None:
            found = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": group.name, **group.attributes}
            group.span = self._tracer.start_span(f"invoke_agent {group.name}", above, attributes=found)
        return self._below(group.span)

    def end(self, error: BaseException | None = None) -> None:
        """End all spans. A trial ends at its last change or the start of its last call."""
        for candidate_id, span in self._trials.items():
            span.end(self._updated[candidate_id])
        if error is not None:
            _end_failed(self._run, error)
        self._run.end()

    @staticmethod
    def _below(span: Any) -> Any:
        from opentelemetry.trace import set_span_in_context

        return set_span_in_context(span)


# -- where spans go ----------------------------------------------------------------------------------------------------


def traces_url(environ: Mapping[str, str]) -> str:
    """Return the configured address for spans; "" if none.

    >>> traces_url({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318/"})
    'http://localhost:4318/v1/traces'
    """
    if own := environ.get(TRACES_ENDPOINT):
        return own
    base = environ.get(ENDPOINT, "")
    return f"{base.rstrip('/')}/v1/traces" if base else ""


def headers_of(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the configured headers of the receiver, written as `name=value,name=value`."""
    # not by OpenTelemetry's parser, which prints a header that it cannot read, and with it a key
    text = next((environ[name] for name in HEADERS if environ.get(name)), "")
    pairs = (part.partition("=") for part in text.split(",") if "=" in part)
    return {name.strip().lower(): unquote(value.strip()) for name, _, value in pairs}


def provider_for(url: str, environ: Mapping[str, str], on_exit: bool) -> Any:
    """Return a tracer provider that sends spans from its own thread. `lost` counts those that did not arrive.

    `on_exit`: shut it down when the process ends; otherwise the caller does.
    """
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    class Exporter(OTLPSpanExporter):  # type: ignore[misc]
        def export(self, spans: Any) -> Any:
            result = super().export(spans)
            provider.lost += 0 if result.name == "SUCCESS" else len(spans)
            return result

    off = os.environ.pop(DISABLED, None)  # the user asked for these spans; those of third parties stay off
    try:
        provider: Any = TracerProvider(resource=Resource.create({SERVICE_NAME: SCOPE}), shutdown_on_exit=on_exit)
    finally:
        if off is not None:
            os.environ[DISABLED] = off
    provider.lost = 0
    exporter = Exporter(endpoint=url, headers=headers_of(environ), timeout=EXPORT_SECONDS)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def program_tracer() -> CallTracer:
    """Return the tracer for `complete`. It is the surrounding program's, or sends where the environment says."""
    if "opentelemetry.trace" in sys.modules:
        from opentelemetry import trace

        if not isinstance(provider := trace.get_tracer_provider(), trace.ProxyTracerProvider):
            return CallTracer(provider.get_tracer(SCOPE), os.environ)
    url = traces_url(os.environ)
    if not url or os.environ.get(DISABLED, "").lower() == "true" or not is_here("otel"):
        return NO_TRACER
    return CallTracer(_own_provider(url).get_tracer(SCOPE), os.environ)


@lru_cache(maxsize=1)
def _own_provider(url: str) -> Any:
    return provider_for(url, os.environ, on_exit=True)
