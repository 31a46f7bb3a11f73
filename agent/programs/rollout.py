"""One run of an agent on a row: its model calls, counted and checked, and the trace of what it did."""

from __future__ import annotations

import json
import re
from asyncio import CancelledError, create_task
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextvars import copy_context
from dataclasses import dataclass, replace

from agent.errors import InputError
from agent.programs.moves.evidence import line_of
from agent.safe_data import walk
from agent.safe_text import listed
from agent.shipped import label_text
from agent.turns import Call as ToolCall
from agent.turns import turn_of
from agent.types import Call, Completion, Message, Request, canonical

SAMPLES = 2**32  # apart are the repeats of equal requests in one rollout
SHORTEST_MARK = 12  # letters of a part of a text by which it is recognised in a request
MOST_SHOWN = 400  # letters of a reply or a result in a trace
LEFT = "the agent did not wait for the answer"
_HOLES = re.compile(r"\{\{?[^{}]*\}?\}|%\w|\$\w+")  # where the agent may fill in values


@dataclass(frozen=True, slots=True)
class RolloutStep:
    """One model call of a rollout.

    `texts`: the candidate's texts that its request held; `results`: what the tools said that it read, as (tool, text);
    `calls`: of tools, in its reply; `error`: why there is no reply.
    """

    texts: frozenset[str]
    results: tuple[tuple[str, str], ...] = ()
    said: str = ""
    calls: tuple[ToolCall, ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True)
class RolloutTrace:
    """What an agent did on a row; `fault`: how it failed, if it did."""

    inputs: Mapping[str, str]
    steps: tuple[RolloutStep, ...]
    fault: str = ""
    notes: str = ""

    @property
    def took_part(self) -> frozenset[str]:
        """The texts that occurred in a request."""
        return frozenset[str]().union(*(step.texts for step in self.steps))

    @property
    def went_wrong(self) -> int | None:
        """The place of the step after which a call or a tool first failed."""
        for at, step in enumerate(self.steps):
            if step.error:
                return at
            if at and any(is_error(text) for _, text in step.results):
                return at - 1
        return len(self.steps) - 1 if self.fault and self.steps else None

    @property
    def at_fault(self) -> frozenset[str]:
        """The texts of the first step that went wrong."""
        return frozenset() if self.went_wrong is None else self.steps[self.went_wrong].texts

    @property
    def text(self) -> str:
        """The trace as a tree: each call with its texts, tool calls and their results."""
        lines = [f"{name}: {value}" for name, value in self.inputs.items()]
        wrong_at = self.went_wrong
        for at, step in enumerate(self.steps):
            wrong = " (went wrong here)" if at == wrong_at else ""
            named = f" [{', '.join(sorted(step.texts))}]" if step.texts else ""
            lines.append(f"{at + 1}. call{named}{wrong}")
            if step.said:
                lines.append(f"   says: {line_of(step.said, MOST_SHOWN)}")
            later = self.steps[at + 1].results if at + 1 < len(self.steps) else ()
            for number, (tool, arguments) in enumerate(step.calls):
                lines.append(f"   {tool}({line_of(label_text(arguments), MOST_SHOWN)})")
                if number < len(later):
                    lines.append(f"     gives: {line_of(later[number][1], MOST_SHOWN)}")
            if step.error:
                lines.append(f"   fails: {line_of(step.error, MOST_SHOWN)}")
        lines += [f"notes: {line_of(self.notes, MOST_SHOWN)}"] * bool(self.notes)
        lines += [f"the agent {line_of(self.fault, MOST_SHOWN)}"] * bool(self.fault)
        return "\n".join(lines)


def is_error(result: str) -> bool:
    """Return whether a tool's result reports an error, by how it begins.

    >>> is_error('{"error": "no such room"}'), is_error("Error: no such room"), is_error("3 errors were mended")
    (True, True, False)
    """
    return bool(re.match(r"\W*(error|exception|traceback|failed)\b", result.strip(), re.IGNORECASE))


class _NotAllowed(InputError):
    """A call that the agent may not make: its own failure. Other errors are not."""


class RolloutCalls:
    """Answers the calls of one rollout. `failed`: the first error that leaves its row without a score.

    `own`: what a request does not say; `names`: the names of the model that the agent may ask.
    """

    def __init__(
        self, call: Call, own: Request, texts: Mapping[str, str], names: Sequence[str], most_calls: int
    ) -> None:
        self.failed: Exception | None = None
        self.fault = ""
        self.models = tuple(names)
        self._call, self._own, self._most = call, own, most_calls
        self._marks = {name: marks_of(text) for name, text in texts.items()}
        self._steps: list[RolloutStep] = []
        self._times = Counter[str]()
        self._free = defaultdict[str, list[int]](list)  # samples that the agent left unanswered, by request
        self._waiting = 0
        self._left_at = 0  # how many calls there were when it last did so
        self._context = copy_context()

    async def answer(self, model: str, request: Request) -> Completion:
        """Call the model. Raises the error of the gateway, or InputError for what the agent may not ask."""
        if self.failed is not None:
            raise self.failed.with_traceback(None)
        at = len(self._steps)
        self._steps.append(RolloutStep(self._parts(request), tuple(results_in(request.messages))))
        try:
            if model not in self.models:
                raise self._refused(f"asked for the model {model!r:.80}, and may ask {listed(self.models)}")
            if at >= self._most:
                raise self._refused(f"made more than {self._most} model calls (most_calls)")
            completion = await self._answered(request)
        except CancelledError:
            self._steps[at], self._left_at = replace(self._steps[at], error=LEFT), len(self._steps)
            raise
        except Exception as error:
            self._steps[at] = replace(self._steps[at], error=str(error) or type(error).__name__)
            if not isinstance(error, _NotAllowed):
                self.failed = self.failed or error
            raise
        calls, said = turn_of(completion.text) if request.tools else ([], completion.text)
        self._steps[at] = replace(self._steps[at], said=said.strip(), calls=tuple(calls))
        return completion

    async def _answered(self, request: Request) -> Completion:
        request = replace(request, max_tokens=request.max_tokens or self._own.max_tokens, repeat=self._own.repeat)
        key = canonical(request.identity())
        if free := self._free[key]:  # asked again, which is no other sample
            sample = free.pop()
        else:
            sample, self._times[key] = self._times[key], self._times[key] + 1
        self._waiting += 1
        try:
            # in the context of the rollout, as requests come in that of the endpoint
            call = self._call(replace(request, repeat=request.repeat + SAMPLES * sample))
            return await create_task(call, context=self._context)
        except CancelledError:
            free.append(sample)
            raise
        finally:
            self._waiting -= 1

    @property
    def is_waiting(self) -> bool:
        """Whether the agent waits for a model, or did so until it was ended."""
        return self._waiting > 0 or 0 < self._left_at == len(self._steps)

    def trace(self, inputs: Mapping[str, str], fault: str = "", notes: str = "") -> RolloutTrace:
        return RolloutTrace(inputs, tuple(self._steps), fault, notes)

    def error(self) -> Exception | None:
        """Return what ends the run or leaves the row unscored, even if handled."""
        if self._call.stopped is not None:
            return self._call.stopped
        return self.failed

    def _refused(self, what: str) -> InputError:
        self.fault = self.fault or what
        return _NotAllowed(f"the agent {what}")

    def _parts(self, request: Request) -> frozenset[str]:
        told = [message.content for message in request.messages if message.role != "tool"]
        for tool in request.tools:
            inside = (part for part, _ in walk(json.loads(tool.parameters)) if isinstance(part, str))
            told += [tool.description, *inside]
        whole = "\n".join(told)
        return frozenset(name for name, marks in self._marks.items() if marks and all(mark in whole for mark in marks))


def marks_of(text: str) -> list[str]:
    """Return the parts of a text between its placeholders, by which requests show it.

    >>> marks_of("You help {customer} with orders.")
    ['with orders.']
    """
    parts = [part.strip() for part in _HOLES.split(text)]
    long = [part for part in parts if len(part) >= SHORTEST_MARK]
    return long or [part for part in (max(parts, key=len, default=""),) if part]


def results_in(messages: Sequence[Message]) -> list[tuple[str, str]]:
    """Return the results of the last tool calls, as (tool, text)."""
    last = max((at for at, message in enumerate(messages) if message.role == "assistant"), default=None)
    if last is None:
        return []
    calls, _ = turn_of(messages[last].content)
    told = [message.content for message in messages[last + 1 :] if message.role == "tool"]
    return [(name, text) for (name, _), text in zip(calls, told, strict=False)]
