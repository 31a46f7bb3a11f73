"""DSPy programs through our gateway: an engine behind `dspy.LM`, without DSPy's own cache and retries.

    bridge = Bridge(gateway)
    with dspy.context(lm=bridge.lm(model, "model", max_tokens=400)):
        result = await bridge.run(dspy.Evaluate(devset=rows, metric=metric, num_threads=8), program)

DSPy 3.4 catches exceptions, and most optimizers take a failed evaluation for a 0, so a stop would end as a low score.
Here the first stop stays in `bridge.stopped`: nothing more is sent, every later call raises it, and `run` raises
it even if the function caught it. Failed rows are in `bridge.failures`; with any, DSPy's score must not be compared.
"""

from __future__ import annotations

import asyncio
import json
import math
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, fields, replace
from functools import cache, partial
from itertools import count
from types import SimpleNamespace
from typing import Any, ClassVar, ParamSpec, TypeVar

from agent.errors import AgentError, BudgetExhausted, InputError, Interrupted, ModelError, RunRefused
from agent.gateway.gateway import Gateway, ModelClient
from agent.prompt.named_texts import TextsCandidate
from agent.types import (
    LM,
    CallRole,
    Candidate,
    ChatRole,
    Completion,
    Example,
    Message,
    Prediction,
    Proposal,
    Request,
    call_key,
)

P = ParamSpec("P")
T = TypeVar("T")
Send = Callable[[Request], Coroutine[Any, Any, Completion]]

ROLLOUTS = 2**32
_ROLES: dict[str, ChatRole] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_CARRIED = ("max_tokens", "temperature", "seed", "stop", "response_format")
_FINISH = {"stop": "stop", "length": "length", "refusal": "content_filter", "other": "error"}
_repeats: ContextVar[Iterator[int] | None] = ContextVar("repeats", default=None)


class Bridge:
    """Connects DSPy's threads and loops to the gateway's event loop; create it on that loop.

    `stopped` is the first error after which nothing more may be sent, `failures` are all other ModelErrors of calls.
    """

    def __init__(self, gateway: ModelClient) -> None:
        self.stopped: Exception | None = None
        self.failures: list[ModelError] = []
        self._gateway = gateway
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    def lm(self, lm: LM, role: CallRole, *, max_tokens: int, temperature: float = 0.0, candidate_id: str = "") -> Any:
        """Return a `dspy.LM` whose calls are calls of `lm` in `role`. DSPy's own settings override the arguments.

        `rollout_id` r (0 to 2**32 - 1) is repeat r, each of n samples a separate call; what a Request cannot carry is
        refused.
        """
        own = Request((), max_tokens, temperature)
        engine = Engine(self, lm.name, own, lambda request: self._gateway.complete(role, lm, request, candidate_id))
        both = {"engine": engine, "async_engine": SimpleNamespace(complete=engine.acomplete, stream=engine.stream)}
        return _lm_class()(lm.name, cache=False, num_retries=0, **both)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function in a new thread, which stays behind if cancelled. Raises `stopped` if set at the end."""
        pool = ThreadPoolExecutor(1, thread_name_prefix="program")  # the loop's own has few, and others wait for them
        call = partial(copy_context().run, partial(function, *args, **kwargs))
        try:
            return await self.through(self._loop.run_in_executor(pool, call))
        except asyncio.CancelledError:
            self.stop(Interrupted())
            raise
        finally:
            pool.shutdown(wait=False)

    async def through(self, work: Awaitable[T]) -> T:
        """Await `work` on the gateway's loop. Raises `stopped` if set at the end."""
        try:
            result = await work
        except Exception:
            if self.stopped is None:
                raise
        self._check()
        return result

    def stop(self, error: Exception) -> None:
        """Stop sending: every later call raises the first `error`."""
        self.stopped = self.stopped or error

    async def ask(self, send: Send, request: Request) -> Completion:
        """Await the reply of `send` on the gateway's loop, from any loop."""
        if asyncio.get_running_loop() is self._loop:
            return await self._guarded(lambda: send(request))
        return await asyncio.wrap_future(self._hand_over(lambda: self._guarded(lambda: send(request))))

    def wait(self, send: Send, request: Request) -> Completion:
        if threading.get_ident() == self._thread:
            raise InputError("the program blocks the loop that would answer it; await the model, or ask it in a thread")
        return self.fetch(lambda: send(request))

    def fetch(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine on the gateway's loop and block the thread. Other errors than a row's stop the bridge."""
        future = self._hand_over(lambda: self._guarded(make))
        while not (future.done() or self._loop.is_closed()):
            wait_for([future], timeout=1.0)
        if future.cancelled() or not future.done():  # the loop ended, with the call in the air or in its queue
            self.stop(Interrupted())
            self._check()
        return future.result()

    def _hand_over(self, make: Callable[[], Coroutine[Any, Any, T]]) -> Future[T]:
        if self._loop.is_closed():
            self.stop(Interrupted())
        self._check()
        return asyncio.run_coroutine_threadsafe(make(), self._loop)

    async def _guarded(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        self._check()
        try:
            return await make()
        except asyncio.CancelledError:
            if self._gateway.stopped is None:
                raise
            self.stop(self._gateway.stopped)  # the gateway called off what was not sent
            raise self._gateway.stopped from None
        except Exception as error:
            if isinstance(error, ModelError) and not isinstance(error, RunRefused):
                self.failures.append(error)
            else:
                self.stop(error)
            raise

    def _check(self) -> None:
        if self.stopped is not None:
            raise self.stopped.with_traceback(None)  # many threads raise it: its traceback would grow with each


@dataclass(frozen=True, slots=True, eq=False)
class Engine:
    """The engine that DSPy calls in a thread. `own`: request defaults for what DSPy does not set."""

    bridge: Bridge
    name: str
    own: Request
    send: Send
    supports_response_schema: ClassVar[bool] = True
    supported_params: ClassVar[frozenset[str]] = frozenset(_CARRIED)

    def complete(self, request: Any) -> Any:
        return _response(self.bridge.wait(self.send, self.translated(request)), request.model)

    async def acomplete(self, request: Any) -> Any:
        return _response(await self.bridge.ask(self.send, self.translated(request)), request.model)

    def stream(self, request: Any) -> Any:
        raise self._refusal(["streaming"])

    def translated(self, request: Any) -> Request:
        """Translate DSPy's request. Raises InputError, which stops the bridge, rather than lose a part."""
        config = request.config
        turns: list[tuple[str, Any]] = [("system", request.system)] if request.system else []
        turns += [(message.role, message.parts) for message in request.messages]
        lost = [f.name for f in fields(config) if f.name not in _CARRIED and getattr(config, f.name) is not None]
        lost += ["tools"] * bool(request.tools)
        lost += [f"{role} messages" for role, _ in turns if role not in _ROLES]
        lost += [part.type for _, parts in turns if not isinstance(parts, str) for part in parts if part.type != "text"]
        if lost:
            raise self._refusal(lost)
        schema = config.response_format and config.response_format.get("schema", {"type": "object"})
        schema_text = json.dumps(schema, ensure_ascii=False) if schema else None  # unsorted: the fields have an order
        return replace(
            self.own,
            messages=tuple(
                Message(_ROLES[role], parts if isinstance(parts, str) else "".join(part.text for part in parts))
                for role, parts in turns
            ),
            max_tokens=config.max_tokens or self.own.max_tokens,
            temperature=self.own.temperature if config.temperature is None else config.temperature,
            seed=config.seed,
            stop=config.stop,
            json_schema=schema_text,
            repeat=next(_repeats.get() or iter((0,))),
        )

    def _refusal(self, lost: list[str]) -> InputError:
        what = ", ".join(dict.fromkeys(lost))
        error = InputError(f"{self.name}: the gateway cannot carry {what} of a DSPy call; write the program without")
        self.bridge.stop(error)
        return error

    def __deepcopy__(self, memo: dict[int, Any]) -> Engine:
        return self  # optimizers copy programs together with their models; there is one gateway


def _response(reply: Completion, model: str) -> Any:
    from dspy import lm15

    used = reply.usage
    usage = lm15.Usage(used.prompt_tokens, used.completion_tokens, cache_read_tokens=used.cached_prompt_tokens)
    return lm15.Response(None, reply.model or model, lm15.Message.assistant(reply.text), _FINISH[reply.finish], usage)


@contextmanager
def _call(settings: dict[str, Any]) -> Iterator[None]:
    rollout = settings.get("rollout_id") or 0
    if not isinstance(rollout, int) or not 0 <= rollout < ROLLOUTS:
        raise InputError(f"rollout_id = {rollout!r}: give a whole number from 0 to {ROLLOUTS - 1}")
    token = _repeats.set(rollout + ROLLOUTS * sample for sample in count())
    try:
        yield
    except Exception as error:
        ours = error.__cause__
        if isinstance(ours, AgentError):
            raise ours from ours.__cause__
        raise
    finally:
        _repeats.reset(token)


@cache
def _lm_class() -> Any:
    import dspy

    class GatewayLM(dspy.LM):  # type: ignore[misc]
        def __call__(self, prompt: Any = None, *, messages: Any = None, **kwargs: Any) -> Any:
            with _call({**self.kwargs, **kwargs}):
                return super().__call__(prompt, messages=messages, **{**kwargs, "cache": False})

        async def acall(self, prompt: Any = None, *, messages: Any = None, **kwargs: Any) -> Any:
            with _call({**self.kwargs, **kwargs}):
                return await super().acall(prompt, messages=messages, **{**kwargs, "cache": False})

    return GatewayLM


class Meter:
    """A `ModelClient` that limits calls to `room()`, including those in flight; more raise BudgetExhausted."""

    def __init__(self, gateway: Gateway) -> None:
        self.room: Callable[[], float] = lambda: math.inf
        self._gateway = gateway
        self._calls: dict[str, asyncio.Task[Completion]] = {}
        self._in_flight = 0

    @property
    def stopped(self) -> Exception | None:
        return self._gateway.stopped

    async def complete(self, role: CallRole, lm: LM, request: Request, candidate_id: str = "") -> Completion:
        """Return the reply, or raise the gateway's error of the first such call."""
        key = call_key(lm, request)
        if key not in self._calls:
            if self.room() <= self._in_flight:
                raise BudgetExhausted("the optimizer has used its share of the calls")
            self._in_flight += 1
            call = self._gateway.complete(role, lm, request, candidate_id)
            self._calls[key] = task = asyncio.get_running_loop().create_task(call)
            task.add_done_callback(self._ended)
        return await asyncio.shield(self._calls[key])

    def _ended(self, task: asyncio.Task[Completion]) -> None:
        self._in_flight -= 1
        if not task.cancelled():
            task.exception()  # retrieved, or asyncio warns when nothing waits for it any more

    def reply(self, lm: LM, request: Request) -> Completion | None:
        """Return the reply to a call that was made here and answered; else None."""
        task = self._calls.get(call_key(lm, request))
        if task is None or not task.done() or task.cancelled() or task.exception():
            return None
        return task.result()

    async def settle(self) -> None:
        await asyncio.gather(*self._calls.values(), return_exceptions=True)


# -- programs for DSPy's optimizers ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DspyForm:
    """A kind for DSPy's optimizers: a `module` that runs under `settings`.

    `read` makes a prediction of its output, `proposal` a candidate of a tried program; `paid`: the reply to its call.
    """

    meter: Meter
    module: Any
    settings: Mapping[str, Any]
    max_tokens: int
    read: Callable[[Any], Prediction]
    proposal: Callable[[str, TriedProgram], Proposal]
    paid: Callable[[Candidate, Example], Completion | None] = lambda candidate, row: None


@dataclass(slots=True)
class TriedProgram:
    """The `number`-th program with its best mean in percent; `whole`: on all val rows."""

    state: TextsCandidate
    number: int
    score: float
    rows: int
    whole: bool

    def reason(self, method: str) -> str:
        return f"program {self.number} of {method}: {self.score:.1f} on {self.rows} rows"
