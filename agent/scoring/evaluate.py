"""A candidate on rows: render, call, parse, score. Knows no provider and no search.

Three kinds of failure stay apart: a reply that does not parse scores 0 with its error; a row that the provider never
answers, or that a metric cannot score, gives None; a provider that fails for all raises. No number is made up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from agent.aside import aside
from agent.errors import BadResponse, InputError, RowRefused, Transient, TransportUnknown
from agent.gateway.gateway import Gateway, call_key
from agent.gateway.together import all_of
from agent.prompt.parse import parse_reply
from agent.prompt.render import label_text, template
from agent.prompt.techniques import answers_last, reasons_first
from agent.prompt.template import fill_messages
from agent.scoring.judge import JudgeMetric
from agent.scoring.metrics import combine
from agent.scoring.signal import label_signal
from agent.types import (
    LM,
    Candidate,
    Completion,
    Example,
    Message,
    Metric,
    Outcome,
    Prediction,
    Request,
    Score,
    SplitName,
    Task,
    Usage,
)

REASONING_TOKENS = 180
DSPY_TOKENS = 16  # markers around each field of a reply
SLACK = 4
HOSTED_SLACK = 60  # a hosted model may say a sentence around the answer; it ends by itself
SILENT = 5
"""First replies that are empty and cut, before it is said that the model has no room to think."""
MOST_LOGPROBS = 20
LABEL_METRICS = ("choice", "exact_match")  # what is right is the label, so its weight says how near

T = TypeVar("T")
Record = Callable[[SplitName, Outcome], None]


@dataclass(frozen=True, slots=True)
class ReplyCap:
    """How long a reply may get: from the longest right answer in the model's own tokens. `thinking` comes on top."""

    answer: int
    thinking: int = 0

    @staticmethod
    def of(task: Task, lm: LM) -> ReplyCap:
        if task.max_tokens is not None:
            return ReplyCap(task.max_tokens, task.thinking)
        outputs = task.signature.outputs
        longest = 0
        for field in outputs:
            texts = set(field.choices) or {label_text(example.labels[field.name]) for example in task.train}
            widest = sorted(texts, key=len)[-5:]  # the longest in characters hold the longest in tokens
            tokens = max(lm.count_tokens(text) for text in widest)
            longest += tokens if field.choices else int(tokens * 1.5)
        slack = SLACK * len(outputs) if lm.concurrency is not None else HOSTED_SLACK
        return ReplyCap(longest + slack + (0 if len(outputs) == 1 else 4 * len(outputs)), task.thinking)

    def tokens(self, candidate: Candidate, n_outputs: int) -> int:
        extra = self.thinking + (REASONING_TOKENS if reasons_first(candidate) else 0)
        if candidate.format.startswith("dspy-"):
            extra += DSPY_TOKENS * (n_outputs + 1)
        return self.answer + extra


class Evaluator:
    """Outcomes of candidates on rows, each bought once and kept; `record` writes them down as they come.

    `graded` asks for log-probabilities where the answer is a label, for models that give some (`signal.py`). What
    `baseline_id` answers is what pairwise judges compare with, so it must see a row before any other candidate.
    """

    def __init__(
        self,
        task: Task,
        gateway: Gateway,
        lm: LM,
        metrics: Sequence[Metric],
        record: Record,
        graded: bool = False,
        baseline_id: str = "",
    ) -> None:
        self._task = task
        self._gateway = gateway
        self._lm = lm
        self._metrics = metrics
        self._record = record
        self._baseline_id = baseline_id
        outputs = task.signature.outputs
        graded = graded and len(outputs) == 1 and bool(outputs[0].choices) and self._scores_labels()
        self._logprobs = min(MOST_LOGPROBS, max(5, 2 * len(outputs[0].choices))) if graded else 0
        self._known: dict[tuple[str, str, int], Outcome] = {}
        self._usage: dict[str, tuple[int, Usage]] = {}
        self._templates: dict[str, tuple[Message, ...]] = {}
        self.cap = ReplyCap.of(task, lm)
        self._silent = 0  # replies before the first word

    def _scores_labels(self) -> bool:
        return all(spec.name in LABEL_METRICS for spec in self._task.metrics)

    def template(self, candidate: Candidate) -> tuple[Message, ...]:
        """The candidate's messages with placeholders, made once."""
        if candidate.id not in self._templates:
            self._templates[candidate.id] = template(candidate, self._task.signature)
        return self._templates[candidate.id]

    def request(self, candidate: Candidate, example: Example, repeat: int = 0) -> Request:
        """Exactly what is sent for this candidate on this row."""
        return Request(
            messages=fill_messages(self.template(candidate), example.inputs),
            max_tokens=self.max_tokens(candidate),
            logprobs=0 if reasons_first(candidate) else self._logprobs,
            repeat=repeat,
        )

    def usage_of(self, candidate_id: str) -> Usage:
        """Mean tokens of this candidate's calls, rounded up; nothing when it had none."""
        calls, usage = self._usage.get(candidate_id, (1, Usage()))
        prompt, completion, cached = usage.prompt_tokens, usage.completion_tokens, usage.cached_prompt_tokens
        return Usage(-(-prompt // calls), -(-completion // calls), cached // calls)

    def max_tokens(self, candidate: Candidate) -> int:
        return self.cap.tokens(candidate, len(self._task.signature.outputs))

    async def outcomes(
        self, candidate: Candidate, examples: Sequence[Example], split: SplitName, repeat: int = 0
    ) -> list[Outcome]:
        """One outcome per example, in order. Raises what the gateway raises; rows that were scored before it stay."""
        return await all_of(self._one(candidate, example, split, repeat) for example in examples)

    async def _one(self, candidate: Candidate, example: Example, split: SplitName, repeat: int) -> Outcome:
        known = self._known.get((candidate.id, example.id, repeat))
        if known is not None:
            return known
        request = self.request(candidate, example, repeat)
        try:
            completion = await self._gateway.complete("target", self._lm, request, candidate.id)
        except (RowRefused, BadResponse, Transient, TransportUnknown) as failure:
            return self._keep(_unscored(candidate, example, self._metrics, str(failure)), split, repeat)
        self._require_words(request, completion)
        return self._keep(await self._scored(candidate, example, request, completion), split, repeat)

    def _require_words(self, request: Request, completion: Completion) -> None:
        """Raises InputError where a hosted model's first replies are all empty and cut at their cap."""
        if self._silent >= 0 and self._lm.concurrency is None:
            is_silent = completion.finish == "length" and not completion.text
            self._silent = self._silent + 1 if is_silent else -1
        if self._silent >= SILENT:
            raise InputError(
                f"{self._lm.name}: its first {SILENT} replies are empty and were cut at {request.max_tokens} tokens, "
                "which it spent on thinking; give it room to, such as --thinking 2000"
            )

    async def adopt(self, candidate: Candidate, example: Example, split: SplitName, completion: Completion) -> None:
        """Scores a reply to `request(candidate, example)` that was bought already; `outcomes` then has the row."""
        if (candidate.id, example.id, 0) not in self._known:
            request = self.request(candidate, example)
            self._keep(await self._scored(candidate, example, request, completion), split, 0)

    async def _scored(
        self, candidate: Candidate, example: Example, request: Request, completion: Completion
    ) -> Outcome:
        key = call_key(self._lm, request)
        calls, usage = self._usage.get(candidate.id, (0, Usage()))
        self._usage[candidate.id] = calls + 1, usage + completion.usage
        if completion.finish == "refusal":
            why = f"the provider refused this row: {completion.text[:200]}"
            return _unscored(candidate, example, self._metrics, why, key)
        outputs = self._task.signature.outputs
        text, reasoning = completion.text, answers_last(candidate)
        prediction = await aside(len(text), partial(parse_reply, text, outputs, reasoning=reasoning))
        if candidate.id == self._baseline_id:
            for judge in self.judges():
                judge.anchor(example, prediction)
        scores = await self.scores(example, prediction)
        value = combine(scores, self._task.metrics)
        signal = None
        if request.logprobs:
            field = self._task.signature.outputs[0]
            signal = label_signal(completion.logprobs, field.choices, str(example.labels[field.name]))
        return Outcome(candidate.id, example.id, prediction, scores, value, key, signal)

    async def scores(self, example: Example, prediction: Prediction) -> tuple[Score, ...]:
        """One score per metric of the task, in its order."""
        return tuple([await metric.score(example, prediction) for metric in self._metrics])

    def judges(self) -> list[JudgeMetric]:
        """The judges among the metrics."""
        return [metric for metric in self._metrics if isinstance(metric, JudgeMetric)]

    def _keep(self, outcome: Outcome, split: SplitName, repeat: int) -> Outcome:
        self._known[outcome.candidate_id, outcome.example_id, repeat] = outcome
        if repeat == 0:
            self._record(split, outcome)
        return outcome


def _unscored(candidate: Candidate, example: Example, metrics: Sequence[Metric], why: str, key: str = "") -> Outcome:
    """A row without an answer: no score, which is not 0."""
    scores = tuple(Score(metric.name, None, why) for metric in metrics)
    return Outcome(candidate.id, example.id, Prediction({}, "", why), scores, None, key)


def why_unscored(outcome: Outcome) -> str:
    """Why a row has no score, in the words of the metric that could give none."""
    return next((score.reason for score in outcome.scores if score.value is None), outcome.prediction.error)


def values(outcomes: Sequence[Outcome]) -> list[float]:
    """The scored values; unscored rows are left out."""
    return [outcome.value for outcome in outcomes if outcome.value is not None]
