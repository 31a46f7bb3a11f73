"""Model calls as OpenTelemetry spans, following its semantic conventions for generative AI (`gen_ai.*`).

Off unless a receiver is configured. Spans hold texts only with
OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=true.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from agent.extras import is_here
from agent.observer import Observer
from agent.redact import mask, rare_secrets_in
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


class CallSpan:
    """One call: `span` is None if not traced; `texts`: whether the span holds the reply."""

    def __init__(self, span: Any = None, texts: bool = False, secrets: tuple[str, ...] = ()) -> None:
        self._span, self._texts, self._secrets = span, texts, secrets

    def answered(self, completion: Completion) -> None:
        if self._span is None:
            return
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
            said = {**_message("assistant", mask(completion.text, self._secrets)), "finish_reason": completion.finish}
            found["gen_ai.output.messages"] = json.dumps([said], ensure_ascii=False)
        self._span.set_attributes(found)


class CallTracer:
    """Traces calls with an OpenTelemetry tracer, or not at all without one.

    Args:
        tracer: of `opentelemetry.trace`.
        environ: decides whether texts are captured, and which secrets to mask.
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
    ) -> Iterator[CallSpan]:
        """Open a span around one model call; an error that leaves the block is recorded on it.

        Args:
            model: its name here, such as openai/NAME.
            candidate_id: the candidate that the call is for; "": none.
            more: attributes in addition to those of the conventions.
        """
        if self._tracer is None:
            yield CallSpan()
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
            yield CallSpan(span, self._texts, self._secrets)
        except BaseException as error:
            end_failed(span, error)
            raise
        finally:
            span.end()

    def _messages(self, request: Request) -> dict[str, str]:
        turns = [(message.role, mask(message.content, self._secrets)) for message in request.messages]
        system = [_message("", text)["parts"][0] for role, text in turns if role == "system"]
        rest = [_message(role, text) for role, text in turns if role != "system"]
        found = {"gen_ai.input.messages": json.dumps(rest, ensure_ascii=False)}
        return {**found, "gen_ai.system_instructions": json.dumps(system, ensure_ascii=False)} if system else found


NO_TRACER = CallTracer()


def end_failed(span: Any, error: BaseException) -> None:
    """Mark a span as failed; only with the kind of error, as its message may quote a row."""
    from opentelemetry.trace import Status, StatusCode

    span.set_attribute("error.type", type(error).__name__)
    span.set_status(Status(StatusCode.ERROR))


def _message(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "parts": [{"type": "text", "content": text}]}


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
    if request.tools or request.json_schema:
        found["gen_ai.output.type"] = "json"
    with suppress(ValueError):
        place = urlsplit(address)
        found |= {"server.address": place.hostname} if place.hostname else {}
        found |= {"server.port": place.port} if place.port else {}
    return found


class RunSpans(Observer, CallTracer):
    """The spans of one run: run, trials, calls. Calls outside trials are children of the run.

    Args:
        provider: of OpenTelemetry.
        environ: as in `CallTracer`.
        task: its name.
        run_id: of the ledger.
    """

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
        return self._below(self._trials.get(candidate_id, self._run))

    def end(self, error: BaseException | None = None) -> None:
        """End all spans; a trial ends at its last change or the start of its last call."""
        for candidate_id, span in self._trials.items():
            span.end(self._updated[candidate_id])
        if error is not None:
            end_failed(self._run, error)
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
    from urllib.parse import unquote

    text = next((environ[name] for name in HEADERS if environ.get(name)), "")
    pairs = (part.partition("=") for part in text.split(",") if "=" in part)
    return {name.strip().lower(): unquote(value.strip()) for name, _, value in pairs}


def provider_for(exporter: Any, on_exit: bool) -> Any:
    """Return a tracer provider that sends spans to `exporter` in batches from its own thread.

    `on_exit`: shut it down when the process ends; otherwise the caller does.
    """
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    off = os.environ.pop(DISABLED, None)  # the user asked for these spans; those of third parties stay off
    try:
        provider = TracerProvider(resource=Resource.create({SERVICE_NAME: SCOPE}), shutdown_on_exit=on_exit)
    finally:
        if off is not None:
            os.environ[DISABLED] = off
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def otlp_exporter(url: str, headers: Mapping[str, str]) -> Any:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter(endpoint=url, headers=dict(headers), timeout=EXPORT_SECONDS)


class CountedExporter:
    """Wraps a span exporter and counts the spans that it could not deliver."""

    def __init__(self, exporter: Any) -> None:
        self._exporter, self.lost = exporter, 0

    def export(self, spans: Any) -> Any:
        result = self._exporter.export(spans)
        self.lost += 0 if result.name == "SUCCESS" else len(spans)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return bool(self._exporter.force_flush(timeout_millis))


def program_tracer() -> CallTracer:
    """Return the tracer for `complete`.

    It uses the provider of the surrounding program, else the receiver that the environment names; None without either,
    or without the extra `otel`.
    """
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
    return provider_for(otlp_exporter(url, headers_of(os.environ)), on_exit=True)
