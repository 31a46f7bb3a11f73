"""The engines of a model file: llama.cpp in this process (package xllamacpp), shared by all models of that file.

One single-threaded engine per core. Flash attention is off: without it a base reply is bit-equal whether the prompt's
prefix was cached or not, in any order, on any engine; a prompt cached whole is evaluated again near its end. A free
engine takes the call that shares most text with its last prompt.

An engine holds adapters in addition to the base and receives the scale of each with every call. A call with an adapter
takes no prefix from the cache (float32 matrices round differently for one token than for many), and an engine with
adapters keeps only its last prompt's prefix: the larger cache would give one adapter's prefix to another.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from pathlib import Path
from typing import Any

from agent.errors import InputError, Transient
from agent.models.adapters import Adapter
from agent.models.engine import EngineServer, LabelScorer, cannot_load, start_engine
from agent.models.model_registry import NO_FILE

CONTEXT_TOKENS = 8192
CACHE_MIB = 512  # size of an engine's prefix cache, which keeps those of earlier candidates
SHARED_ENOUGH = 0.5  # share of a prompt that an engine must already have cached to keep the call
WORTH_STEALING = 6  # waiting calls for another engine from which a free engine takes one
END = 8  # characters at the end of a prompt that are not cached


class EngineCall:
    """One request to an engine and its future; `adapter` None: the base alone, which also scores `labels`."""

    __slots__ = ("adapter", "body", "future", "labels", "seconds", "taken", "text")

    def __init__(self, body: dict[str, Any], text: str, adapter: Adapter | None, labels: tuple[str, ...] = ()) -> None:
        self.body, self.adapter, self.labels = body, adapter, labels
        self.text = "" if adapter else text  # no engine has cached anything of it
        self.taken = self.seconds = 0.0  # when an engine began with it, and for how long it worked on it
        self.future: Future[Any] = Future()

    def scales(self, loaded: Sequence[Adapter]) -> dict[str, Any]:
        """Set the scale of every loaded adapter, as an omitted one keeps its last scale."""
        if not loaded:
            return {}
        scales = [{"id": number, "scale": float(each == self.adapter)} for number, each in enumerate(loaded)]
        return {"lora": scales, "cache_prompt": self.adapter is None}

    def settle(self, result: Any, error: BaseException | None) -> None:
        self.seconds = time.monotonic() - self.taken
        with contextlib.suppress(InvalidStateError):  # it was cancelled
            if error is not None:
                self.future.set_exception(error)
            else:
                self.future.set_result(result)


class Engines:
    """The engines of one model file. They start with the first call, one thread each."""

    def __init__(self, path: Path, count: int) -> None:
        self.path, self.count = path, count
        self._users: list[Adapter | None] = []
        self._waiting: list[EngineCall] = []
        self._held: dict[int, str] = {}
        self._wake = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._closed = False
        self._server: EngineServer | None = None
        self._publishing = threading.Lock()
        """Held while the tokenizer is used, and while its engine is replaced."""

    async def complete(self, call: EngineCall) -> tuple[Any, tuple[float, ...]]:
        """Return the engine's reply to a call, and the log-probability of each of its labels."""
        with self._wake:
            self._waiting.append(call)
            self._wake.notify_all()
        try:
            reply, scores = await asyncio.wrap_future(call.future)
            return reply, scores
        except asyncio.CancelledError:
            with self._wake:
                if call in self._waiting:
                    self._waiting.remove(call)
            raise

    def count_tokens(self, text: str) -> int:
        with self._publishing:
            if self._server is None:
                raise InputError(f"{self.path}: the engine did not start")
            return len(self._server.post("/tokenize", {"content": text})["tokens"])

    # -- life ---------------------------------------------------------------------------------------------------------

    def join(self, adapter: Adapter | None) -> None:
        """Add a model that uses the engines; start them if none runs."""
        self._users.append(adapter)
        if self._threads:
            return
        ready: list[threading.Event] = []
        for number in range(self.count):
            event = threading.Event()
            thread = threading.Thread(target=self._serve, args=(number, event), name=f"engine-{number}", daemon=True)
            self._threads.append(thread)
            ready.append(event)
            thread.start()
        for event in ready:
            event.wait()

    def leave(self, adapter: Adapter | None) -> bool:
        """Remove a model; return True if it was the last and the engines end."""
        self._users.remove(adapter)
        return not self._users

    def end(self) -> None:
        """End all threads after their current calls."""
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        for thread in self._threads:
            thread.join()

    def _serve(self, number: int, ready: threading.Event) -> None:
        loaded = self._wanted(None)
        try:
            engine, server = _load(self.path, loaded)
        except Exception as error:  # the engine raises plain RuntimeErrors for damaged files
            failure = cannot_load(self.path, error)
            ready.set()
            while (call := self._next(-1)) is not None:
                call.settle(None, failure)
            return
        with self._publishing:
            if self._server is None:
                self._server = server
        ready.set()
        scorer = LabelScorer(engine, server)
        while (call := self._next(number)) is not None:
            try:
                if call.adapter is not None and call.adapter not in loaded:
                    wanted = self._wanted(call.adapter)
                    engine, server = self._replaced(server, wanted)
                    scorer, loaded = LabelScorer(engine, server), wanted
                call.settle(_answer(engine, scorer, call, call.scales(loaded)), None)
            except InputError as error:
                call.settle(None, error)
            except Exception as error:
                call.settle(None, Transient(f"{self.path}: the engine failed: {error}"))
            del call

    def _wanted(self, adapter: Adapter | None) -> tuple[Adapter, ...]:
        return tuple(dict.fromkeys(each for each in [*self._users, adapter] if each is not None))

    def _replaced(self, old: EngineServer, adapters: Sequence[Adapter]) -> tuple[Any, EngineServer]:
        try:
            engine, new = _load(self.path, adapters)
        except InputError:
            raise
        except Exception as error:
            raise cannot_load(", ".join(str(each.path) for each in adapters), error) from error
        with self._publishing:
            if self._server == old:
                self._server = new
        return engine, new

    # -- queue --------------------------------------------------------------------------------------------------------

    def _next(self, number: int) -> EngineCall | None:
        with self._wake:
            while True:
                if self._closed:
                    return None
                call = self._pick(number)
                if call is not None:
                    self._waiting.remove(call)
                    self._held[number] = call.text
                    call.taken = time.monotonic()
                    return call
                self._wake.wait()

    def _pick(self, number: int) -> EngineCall | None:
        """Take a call whose prefix this engine holds, a free one, or one to steal."""
        mine = self._held.get(number, "")
        others = [text for engine, text in self._held.items() if engine != number]
        free: EngineCall | None = None
        taken: list[EngineCall] = []
        for call in self._waiting:
            if _shared(mine, call.text) >= SHARED_ENOUGH:
                return call
            if any(_shared(text, call.text) >= SHARED_ENOUGH for text in others):
                taken.append(call)
            elif free is None:
                free = call
        if free is not None:
            return free
        return taken[-1] if len(taken) >= WORTH_STEALING else None


_RUNNING: dict[tuple[type[Engines], str, int], Engines] = {}  # the engines of this process by kind, file and number
_CHANGING = threading.RLock()


def open_engines(path: Path, count: int, adapter: Adapter | None, kind: type[Engines] = Engines) -> Engines:
    """Return the shared engines of a file, started on demand, until `close_engines`. Raises InputError."""
    if not path.is_file():
        raise InputError(f"{path}: {NO_FILE}")
    with _CHANGING:
        key = kind, os.path.abspath(path), count
        engines = _RUNNING.get(key) or kind(path, count)
        engines.join(adapter)
        _RUNNING[key] = engines
        return engines


def close_engines(engines: Engines, adapter: Adapter | None) -> None:
    """Release engines; unused ones end after their current calls."""
    with _CHANGING:
        if not engines.leave(adapter):
            return
        _RUNNING.pop((type(engines), os.path.abspath(engines.path), engines.count), None)
    engines.end()


def _answer(
    engine: Any, scorer: LabelScorer, call: EngineCall, scales: dict[str, Any]
) -> tuple[Any, tuple[float, ...]]:
    body = call.body | scales
    reply = engine.handle_chat_completions(body)
    usage: dict[str, Any] = reply.get("usage") or {}
    cached = int(usage.get("prompt_tokens_details", {}).get("cached_tokens", 0))
    if 0 < cached >= int(usage["prompt_tokens"]) - 1:
        *before, last = body["messages"]
        shorter = {**last, "content": last["content"][:-END] if last["content"] else "."}
        engine.handle_chat_completions({**body, "messages": [*before, shorter], "max_tokens": 1})
        reply = engine.handle_chat_completions(body)
    if not call.labels or "choices" not in reply:
        return reply, ()
    return reply, scorer.scores(body["messages"], call.labels, reply, scales)


def _load(path: Path, adapters: Sequence[Adapter] = ()) -> tuple[Any, EngineServer]:
    import xllamacpp

    for adapter in adapters:
        if Adapter.read(adapter.path) != adapter:
            raise InputError(f"{adapter.path}: the adapter was changed while it was in use; start again")
    how: dict[str, Any] = {
        "flash_attn_type": xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED,
        "cache_ram_mib": 0 if adapters else CACHE_MIB,
    }
    if adapters:
        how["lora_adapters"] = [xllamacpp.CommonAdapterLoraInfo(str(adapter.path), 0.0) for adapter in adapters]
        how |= {"lora_init_without_apply": True, "n_ctx_checkpoints": 0}
    return start_engine(path, CONTEXT_TOKENS, **how)


def _shared(held: str, text: str) -> float:
    low, high = 0, min(len(held), len(text))
    while low < high:
        middle = (low + high + 1) // 2
        if held.startswith(text[:middle]):
            low = middle
        else:
            high = middle - 1
    return low / max(1, len(text))
