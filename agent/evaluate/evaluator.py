"""Evaluation of candidates on rows: run, parse, score. Knows no provider, search or kind of candidate.

Three kinds of failure stay apart: a reply that does not parse scores 0 with its error; a row that the provider never
answers, or that a metric cannot score, gives None; a provider that fails for all raises. No number is made up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from agent.calls import ROOM_TO_THINK
from agent.errors import OF_A_ROW, InputError
from agent.gateway.gateway import ModelClient
from agent.gateway.in_flight import all_of
from agent.observer import NO_OBSERVER, Observer
from agent.prompt.label_calibration import MIN_LABEL_MASS, agree, label_scores, logprobs_for, places, share_of_all
from agent.scoring.llm_judge import JudgeMetric
from agent.scoring.task_metrics import combine
from agent.types import (
    LM,
    NO_CALL,
    CallRole,
    Candidate,
    Completion,
    Example,
    Metric,
    Outcome,
    Prediction,
    Request,
    Runner,
    Score,
    SplitName,
    Task,
    Usage,
    call_key,
)

Answered = Callable[[str, Request, Completion], None]
SILENT = 5  # empty, cut first replies before the model counts as having no room to think
LABEL_METRICS = ("choice", "exact_match")  # what is right is the label, so its weight says how near
READ_BY_LABEL = (*LABEL_METRICS, "agreement")  # weights of labels may decide how a reply is read


class Evaluator:
    """Outcomes of candidates on rows, each bought once and kept.

    `graded`: request log-probabilities of labels. `baseline_id`: the candidate that pairwise judges compare with; it
    must see a row before any other.
    """

    def __init__(
        self,
        task: Task,
        client: ModelClient,
        lm: LM,
        metrics: Sequence[Metric],
        runners: Sequence[Runner],
        observer: Observer = NO_OBSERVER,
        graded: bool = False,
        baseline_id: str = "",
    ) -> None:
        self._task = task
        self._client = client
        self._lm = lm
        self._metrics = metrics
        self._observer = observer
        self._runners = {runner.kind: runner for runner in runners}
        self._baseline_id = baseline_id
        outputs = task.signature.outputs
        graded = graded and len(outputs) == 1 and bool(outputs[0].choices)
        graded = graded and all(spec.name in READ_BY_LABEL for spec in task.metrics)
        self._has_signal = all(spec.name in LABEL_METRICS for spec in task.metrics)
        self.logprobs = logprobs_for(outputs[0].choices) if graded else 0
        """Requested log-probabilities per token of a label; 0: none."""
        self._known: dict[tuple[str, str, int], Outcome] = {}
        self._usage: dict[str, tuple[int, Usage]] = {}
        self._asked: Counter[str] = Counter()  # rows with a reply, by candidate
        self._silent = 0  # replies before the first word

    def usage_of(self, candidate_id: str) -> Usage:
        """Return the mean tokens of a call of this candidate, rounded up."""
        calls, usage = self._usage.get(candidate_id, (1, Usage()))
        prompt, completion, cached = usage.prompt_tokens, usage.completion_tokens, usage.cached_prompt_tokens
        return Usage(-(-prompt // calls), -(-completion // calls), cached // calls, usd=usage.usd / calls)

    def tokens_a_call(self, candidate_id: str) -> int:
        return self.usage_of(candidate_id).tokens

    def calls_a_row(self, candidate_id: str) -> float:
        """Return the mean calls of a row of this candidate, at least 1."""
        calls, _ = self._usage.get(candidate_id, (0, Usage()))
        return max(1.0, calls / max(1, self._asked[candidate_id]))

    async def outcomes(
        self, candidate: Candidate, examples: Sequence[Example], split: SplitName, repeat: int = 0
    ) -> list[Outcome]:
        """Run a candidate on rows and score its answers; known outcomes are reused.

        Raises BudgetExhausted (scored rows stay), ModelError if the provider fails for all rows, and InputError for a
        model without room to think.
        """

        async def one(example: Example) -> Outcome:
            known = self._known.get((candidate.id, example.id, repeat))
            return known or self._keep(await self.outcome(candidate, example, repeat), split, repeat)

        return await all_of(map(one, examples))

    async def outcome(self, candidate: Candidate, example: Example, repeat: int = 0) -> Outcome:
        """Run one row as `outcomes` does, without reading or writing the kept ones."""
        call = RowCall(self._client, self._lm, candidate.id, self.logprobs, self._answered)
        return await self._scored(candidate, example, call, repeat)

    async def adopt(self, candidate: Candidate, example: Example, split: SplitName, completion: Completion) -> None:
        """Score a row whose one reply was bought already; `outcomes` then has it."""
        if (candidate.id, example.id, 0) not in self._known:
            call = RowCall(_StoredReply(completion), self._lm, candidate.id, 0, self._answered)
            self._keep(await self._scored(candidate, example, call, 0), split, 0)

    async def _scored(self, candidate: Candidate, example: Example, call: RowCall, repeat: int) -> Outcome:
        try:
            prediction = await self._runners[candidate.kind].run(candidate, example, call, repeat)
        except OF_A_ROW as failure:
            lost = tuple(Score(metric.name, None, str(failure)) for metric in self._metrics)
            self._asked[candidate.id] += call.reply is not None
            return Outcome(candidate.id, example.id, Prediction({}, "", str(failure)), lost, None, call.key)
        self._asked[candidate.id] += call.reply is not None
        if candidate.id == self._baseline_id:
            for judge in self.judges():
                judge.anchor(example, prediction)
        scores = await self.scores(example, prediction)
        value = combine(scores, self._task.metrics)
        signal: float | None = None
        logs: tuple[float, ...] | None = None
        if call.logprobs and call.reply is not None and call.reply[0].logprobs:
            field, completion = self._task.signature.outputs[0], call.reply[1]
            right = str(example.labels[field.name])
            if logs := completion.label_logprobs or None:
                signal = share_of_all(logs, field.choices.index(right)) if right in field.choices else None
            else:
                signal = label_signal(completion.logprobs, field.choices, right)
                logs = label_scores(completion.logprobs, field.choices)
            signal = signal if self._has_signal else None
        return Outcome(candidate.id, example.id, prediction, scores, value, call.key or NO_CALL, signal, logs)

    async def read_again(
        self, candidate: Candidate, example: Example, like: Outcome, prediction: Prediction, signal: float | None
    ) -> Outcome:
        """Score a candidate from the outcome `like` it, whose call is the same. `signal`: of the right label."""
        if like.candidate_id in self._usage:
            self._usage[candidate.id] = self._usage[like.candidate_id]
            self._asked[candidate.id] = self._asked[like.candidate_id]
        outcome, was = replace(like, candidate_id=candidate.id), like.prediction
        signal = signal if self._has_signal else None
        prediction = replace(prediction, passages=was.passages, conversation=was.conversation)
        if like.value is not None:
            scores = await self.scores(example, prediction)
            value = combine(scores, self._task.metrics)
            outcome = replace(outcome, prediction=prediction, scores=scores, value=value, signal=signal)
        return self._keep(outcome, "dev", 0)

    def _answered(self, candidate_id: str, request: Request, completion: Completion) -> None:
        calls, usage = self._usage.get(candidate_id, (0, Usage()))
        self._usage[candidate_id] = calls + 1, usage + completion.usage
        if self._silent >= 0 and self._lm.concurrency is None:
            is_silent = completion.finish == "length" and not completion.text
            self._silent = self._silent + 1 if is_silent else -1
        if self._silent >= SILENT:
            spent = f"the first {SILENT} replies spent all {request.max_tokens} tokens on reasoning"
            raise InputError(f"{self._lm.name}: {spent}; give it more room, such as {ROOM_TO_THINK}")

    async def scores(self, example: Example, prediction: Prediction) -> tuple[Score, ...]:
        """Return one score per metric of the task, in its order."""
        return tuple([await metric.score(example, prediction) for metric in self._metrics])

    async def value(self, example: Example, prediction: Prediction) -> float | None:
        """Score an answer of any origin, in [0, 1]; None if it cannot be scored."""
        return combine(await self.scores(example, prediction), self._task.metrics)

    def judges(self) -> list[JudgeMetric]:
        return [metric for metric in self._metrics if isinstance(metric, JudgeMetric)]

    def _keep(self, outcome: Outcome, split: SplitName, repeat: int) -> Outcome:
        self._known[outcome.candidate_id, outcome.example_id, repeat] = outcome
        if repeat == 0:
            self._observer.on_outcome_recorded(split, outcome)
        return outcome


class RowCall:
    """A `Call` that remembers its last `key`, and the last `reply` with its request."""

    def __init__(self, client: ModelClient, lm: LM, candidate_id: str, logprobs: int, answered: Answered) -> None:
        self.logprobs, self.key = logprobs, ""
        self.reply: tuple[Request, Completion] | None = None
        self._client, self._lm, self._candidate_id, self._answered = client, lm, candidate_id, answered

    @property
    def stopped(self) -> Exception | None:
        return self._client.stopped

    async def __call__(self, request: Request, lm: LM | None = None) -> Completion:
        model = lm or self._lm
        completion = await self._client.complete("model", model, request, self._candidate_id)
        self._answered(self._candidate_id, request, completion)
        self.key, self.reply = call_key(model, request), (request, completion)
        return completion

    async def aside(self, request: Request, lm: LM) -> Completion:
        return await self._client.complete("model", lm, request, self._candidate_id)


class _StoredReply:
    stopped = None

    def __init__(self, completion: Completion) -> None:
        self._completion = completion

    async def complete(self, role: CallRole, lm: LM, request: Request, candidate_id: str = "") -> Completion:
        return self._completion


def why_unscored(outcome: Outcome) -> str:
    """Return the metric's reason for a missing score."""
    return next((score.reason for score in outcome.scores if score.value is None), outcome.prediction.error)


def values(outcomes: Sequence[Outcome]) -> list[float]:
    """Return the scores of the scored rows."""
    return [outcome.value for outcome in outcomes if outcome.value is not None]


WEIGHT = 1.0  # of the signal against the score, when candidates are compared


def label_signal(tokens: Sequence[Sequence[tuple[str, float]]], choices: Sequence[str], right: str) -> float | None:
    """Return the probability of the right label relative to all labels.

    None without tokens or a known label. `tokens`: for each token of the reply its most likely (token, log-probability)
    pairs. As long as the reply spells the right label the shares of its tokens are multiplied.

    A graded signal for choosing, never reported: over 110 recorded candidates of a 6-label task, among the better half,
    its mean over 8 rows correlated 0.53 with the score on the other rows, and the score over the same 8 rows 0.33; over
    22 rows 0.66 and 0.50. Without normalising over the labels it is worse than the score.

    >>> round(label_signal([[("yes", -0.1), ("no", -2.4)]], ["yes", "no"], right="yes"), 3)
    0.909
    """
    if not tokens or right not in choices:
        return None
    labels, goal, spelled, signal = [choice.casefold() for choice in choices], right.casefold(), "", 0.0
    for place in places(tokens, labels):
        mine = every = 0.0
        for text, weight in place.listed:
            if any(agree(text, label) for label in labels):
                every += weight
                mine += weight * agree(text, goal)
        signal = (signal if spelled else 1.0) * mine / max(every, MIN_LABEL_MASS)
        if not goal.startswith(place.likeliest):
            break
        spelled = place.likeliest
    return min(1.0, signal)


def evidence(value: float, signal: float | None) -> float:
    """Return a row's weight in comparisons: score, averaged with the signal if any."""
    return value if signal is None else (value + WEIGHT * signal) / (1 + WEIGHT)
