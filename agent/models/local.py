"""The embedded engine: a GGUF model run in this process by llama.cpp (package xllamacpp).

One single-threaded engine for each core: two of them do as much work as one engine with two threads and do not collapse
beside other load. Flash attention is off: without it a reply is bit-equal whether the prompt's prefix came from the
cache or not, so the same call gives the same reply in any order, on any engine. Only a token that is computed alone may
round otherwise: a prompt that the cache holds whole is asked again without its end there.

Calls wait in one queue; a free engine takes the call that shares most of its text with the prompt it saw last, so that
the rows of a candidate stay on the engine that holds its prefix.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import threading
from functools import lru_cache
from pathlib import Path
from typing import Any

from agent.errors import BadResponse, InputError, RowRefused, Transient
from agent.models.engine_server import EngineServer
from agent.models.label_scoring import LISTED, LabelScorer
from agent.models.model_registry import NO_FILE, model
from agent.models.weights import known_weights, weights_path
from agent.types import Completion, FinishReason, Request, Usage

WEIGHTS = "sha256:"
"""Begins the endpoint of weights that have a name of ours; their hash follows."""
CONTEXT_TOKENS = 8192
CACHE_MIB = 512  # of prefixes that an engine keeps: those of an earlier candidate are not computed again
SHARED_ENOUGH = 0.5  # share of a prompt that an engine must already hold for a call to stay with it
WORTH_STEALING = 6  # waiting calls of another engine's candidate from which a free engine takes one
END = 8  # characters at the end of a prompt that are left out of the cache, to be computed again


class _Job:
    """One request to an engine, with the future of the event loop that waits for it."""

    __slots__ = ("body", "future", "labels", "listed", "loop", "text")

    def __init__(self, request: Request) -> None:
        self.body = _body(request)
        self.labels = tuple(map(_defused, request.labels))
        self.listed = request.logprobs
        self.text = "\0".join(message.content for message in request.messages)
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()

    def settle(self, result: Any, error: BaseException | None) -> None:
        def deliver() -> None:
            if self.future.done():
                return
            if error is not None:
                self.future.set_exception(error)
            else:
                self.future.set_result(result)

        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(deliver)


class LocalModel:
    """A GGUF file behind the LM protocol. Engines start with the first call, one thread each.

    Args:
        name: what the user typed.
        path: of the file.
        engines: how many run at once; None: one for each core.
        endpoint: what tells the replies of these weights from those of others under the same name.
    """

    def __init__(self, name: str, path: Path, engines: int | None = None, endpoint: str = "") -> None:
        self.name = name
        self.path = path
        self.endpoint = endpoint
        self.engines = engines or max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2)
        self._waiting: list[_Job] = []
        self._held: dict[int, str] = {}
        self._wake = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._closed = False
        self._tokenize = lru_cache(maxsize=4096)(self._ask_tokenizer)
        self._server: EngineServer | None = None

    @property
    def scores_labels(self) -> bool:
        """It gives the exact log-probability of each of a request's labels."""
        return True

    @property
    def concurrency(self) -> int | None:
        return 64 * self.engines

    async def complete(self, request: Request) -> Completion:
        self._start()
        job = _Job(request)
        with self._wake:
            self._waiting.append(job)
            self._wake.notify_all()
        try:
            reply, scores = await job.future
        except asyncio.CancelledError:
            with self._wake:
                if job in self._waiting:
                    self._waiting.remove(job)
            raise
        return _completion(self.name, reply, job.listed, scores)

    def count_tokens(self, text: str) -> int:
        """The exact number of tokens of `text`, without the chat template."""
        return self._tokenize(text)

    async def close(self) -> None:
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        for thread in self._threads:
            await asyncio.to_thread(thread.join)
        self._threads, self._server = [], None

    # -- engines ------------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        if self._threads:
            return
        if not self.path.is_file():
            raise InputError(f"{self.path}: {NO_FILE}")
        self._closed = False
        ready: list[threading.Event] = []
        for number in range(self.engines):
            event = threading.Event()
            thread = threading.Thread(target=self._serve, args=(number, event), name=f"engine-{number}", daemon=True)
            self._threads.append(thread)
            ready.append(event)
            thread.start()
        for event in ready:
            event.wait()

    def _serve(self, number: int, ready: threading.Event) -> None:
        try:
            engine, server = _load(self.path)
        except Exception as error:  # the engine raises plain RuntimeErrors for damaged files
            failure = InputError(
                f"{self.path}: the engine cannot load this file ({error}); fetch it again or name another GGUF"
            )
            ready.set()
            self._fail_all(failure)
            return
        if self._server is None:
            self._server = server
        ready.set()
        scorer = LabelScorer(engine, server)
        while (job := self._next(number)) is not None:
            try:
                job.settle(_answer(engine, scorer, job), None)
            except Exception as error:
                job.settle(None, Transient(f"{self.name}: the engine failed: {error}"))
            del job

    def _fail_all(self, failure: Exception) -> None:
        while (job := self._next(-1)) is not None:
            job.settle(None, failure)

    def _next(self, number: int) -> _Job | None:
        with self._wake:
            while True:
                if self._closed:
                    return None
                job = self._pick(number)
                if job is not None:
                    self._waiting.remove(job)
                    self._held[number] = job.text
                    return job
                self._wake.wait()

    def _pick(self, number: int) -> _Job | None:
        """The waiting call whose prefix this engine holds; else one that no engine holds; else one worth stealing."""
        mine = self._held.get(number, "")
        others = [text for engine, text in self._held.items() if engine != number]
        free: _Job | None = None
        taken: list[_Job] = []
        for job in self._waiting:
            if _shared(mine, job.text) >= SHARED_ENOUGH:
                return job
            if any(_shared(text, job.text) >= SHARED_ENOUGH for text in others):
                taken.append(job)
            elif free is None:
                free = job
        if free is not None:
            return free
        return taken[-1] if len(taken) >= WORTH_STEALING else None

    def _ask_tokenizer(self, text: str) -> int:
        self._start()
        if self._server is None:
            raise InputError(f"{self.path}: the engine did not start")
        return len(self._server.post("/tokenize", {"content": _defused(text)})["tokens"])


def _answer(engine: Any, scorer: LabelScorer, job: _Job) -> tuple[Any, tuple[float, ...]]:
    """The engine's reply, and the log-probability of each label of the request."""
    body = job.body
    reply = engine.handle_chat_completions(body)
    if _is_cached_whole(reply):
        *before, last = body["messages"]
        shorter = {**last, "content": last["content"][:-END] if last["content"] else "."}
        engine.handle_chat_completions({**body, "messages": [*before, shorter], "max_tokens": 1})
        reply = engine.handle_chat_completions(body)
    if not job.labels or "choices" not in reply:
        return reply, ()
    return reply, scorer.scores(body["messages"], job.labels, reply)


def _is_cached_whole(reply: Any) -> bool:
    """Whether all of a prompt but its last token came from the cache."""
    usage: dict[str, Any] = reply.get("usage") or {}
    cached = int(usage.get("prompt_tokens_details", {}).get("cached_tokens", 0))
    return 0 < cached >= int(usage["prompt_tokens"]) - 1


def _load(path: Path) -> tuple[Any, EngineServer]:
    """One engine, with its HTTP server: on loopback, not to be switched off, with a random key."""
    import xllamacpp

    key = secrets.token_hex(16)
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx = CONTEXT_TOKENS
    params.n_parallel = 1
    params.cpuparams.n_threads = 1
    params.cpuparams_batch.n_threads = 1
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.cache_ram_mib = CACHE_MIB
    params.warmup = False
    params.verbosity = -1
    params.api_keys = [key]
    server = xllamacpp.Server(params)
    return server, EngineServer(server.listening_address, key)


def _shared(held: str, text: str) -> float:
    """The share of `text` in [0, 1] that is a common prefix with `held`."""
    low, high = 0, min(len(held), len(text))
    while low < high:
        middle = (low + high + 1) // 2
        if held.startswith(text[:middle]):
            low = middle
        else:
            high = middle - 1
    return low / max(1, len(text))


def _body(request: Request) -> dict[str, Any]:
    body: dict[str, Any] = {
        "messages": [{"role": m.role, "content": _defused(m.content)} for m in request.messages],
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "seed": ((request.seed or 0) + request.repeat) % 2**32,  # samples of one prompt differ
        "cache_prompt": True,
    }
    if request.stop:
        body["stop"] = list(request.stop)
    if request.json_schema is not None:
        schema = json.loads(request.json_schema)
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "reply", "schema": schema}}
    elif request.choices:
        body["grammar"] = "root ::= " + " | ".join(json.dumps(choice, ensure_ascii=False) for choice in request.choices)
    if listed := max(request.logprobs, LISTED if request.labels else 0):
        body |= {"logprobs": True, "top_logprobs": listed}
    return body


_TURN = re.compile(
    r"<(?=[|\uff5c]|/?(?:s|bos|eos|start_of_turn|end_of_turn)>)|\[(?=/?INST\])", re.IGNORECASE
)  # of SmolLM, Qwen, DeepSeek, Llama, Gemma, Mistral


def _defused(text: str) -> str:
    """`text` with a zero-width space in chat-template marks such as <|im_end|> or [INST], which so stay text.

    Lone surrogates and NUL, which the engine cannot take, become the replacement character.
    """
    clean = text.encode("utf-8", "replace").decode("utf-8").replace("\0", "\ufffd")
    return _TURN.sub(lambda match: f"{match[0]}\u200b", clean)


def _completion(name: str, reply: Any, listed: int, scores: tuple[float, ...] = ()) -> Completion:
    """The reply with `listed` log-probabilities for each token, and those of the labels."""
    if isinstance(reply, dict) and "error" in reply:
        error = reply["error"]
        message = f"{name}: {error.get('message', error)}"
        if error.get("type") == "exceed_context_size_error":
            raise RowRefused(f"{message}; use fewer or shorter demos")
        if error.get("code") == 400:
            raise RowRefused(message)
        raise BadResponse(message)
    try:
        choice, usage = reply["choices"][0], reply["usage"]
        logprobs = tuple(
            tuple((top["token"], float(top["logprob"])) for top in token["top_logprobs"][:listed])
            for token in (choice.get("logprobs") or {}).get("content", [])
            if listed
        )
        finish: FinishReason = "length" if choice["finish_reason"] == "length" else "stop"
        return Completion(
            text=choice["message"]["content"] or "",
            finish=finish,
            usage=Usage(
                usage["prompt_tokens"],
                usage["completion_tokens"],
                usage.get("prompt_tokens_details", {}).get("cached_tokens", 0),
            ),
            model=name,
            logprobs=logprobs,
            label_logprobs=scores,
        )
    except (KeyError, IndexError, TypeError) as error:
        raise BadResponse(f"{name}: the engine's reply has no {error}") from error


def _own_file(rest: str) -> Path | None:
    return Path(rest) if rest.endswith(".gguf") else None


@model(
    "local",
    form="local/smollm2-135m",
    about="the embedded model; also local/PATH.gguf",
    own_file=_own_file,
    leads_elsewhere=False,
)
def embedded(name: str, rest: str) -> LocalModel:
    weights = None if _own_file(rest) else known_weights(rest)
    return LocalModel(name, weights_path(rest), endpoint=f"{WEIGHTS}{weights.running[:16]}" if weights else "")
