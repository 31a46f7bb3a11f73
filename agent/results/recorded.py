"""Records of the ledger, as commands and pages show them: runs, trials, prompts, outcomes, calls, events.

Times are in UTC, scores in [0, 1] (None: no row has a score); dollars are None if the price is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.results.base import Result, absent


class RecordedRun(Result):
    """A run of any kind; `result` is the `--json` output of its command."""

    id: str
    task: str
    folder: str
    status: str
    model: str
    proposer: str
    seed: int
    started_utc: str
    ended_utc: str | None
    tool: str
    python: str
    sqlite: str
    hashes: Mapping[str, Any]
    budget: Mapping[str, Any]
    plan: Mapping[str, Any] | None
    tags: Mapping[str, Any]
    parent: str | None
    seconds: float
    origin: Mapping[str, Any]
    options: Mapping[str, Any]
    prices: str
    result_hash: str | None
    error: str
    result: Mapping[str, Any] | None


class TrialScore(Result):
    """Number, state and score of a trial."""

    number: int
    round: int
    state: str
    n: int
    mean: float | None
    low: float | None
    high: float | None
    reason: str


class RecordedTrial(TrialScore):
    """A trial with its candidate, its examples by row id, and its cost.

    `cached` calls were answered from the ledger. `proposal`: why it was proposed; `reason`: why it ended.
    """

    candidate_id: str
    technique: str
    format: str
    role: str
    n_examples: int
    instruction: str
    operator: str | None
    parent_id: str | None
    proposal: str | None
    demos: tuple[str, ...]
    calls: int
    cached: int
    tokens: int
    cost_usd: float | None
    seconds: float


class RecordedExample(Result):
    """An example of a prompt; without its texts if only its position is shown."""

    position: int
    example_id: str
    source: str
    rationale: str
    body: str | None = absent()
    inputs: Mapping[str, Any] | None = absent()
    outputs: Mapping[str, Any] | None = absent()


class RecordedPrompt(Result):
    """A candidate: messages (`template`), examples, retrieval, calibration, tool texts and shape of the answer.

    None: the prompt retrieves no examples, or no passages.
    """

    id: str
    technique: str
    format: str
    role: str
    n_examples: int
    instruction_hash: str
    template_hash: str
    instruction: str
    template: tuple[Mapping[str, str], ...]
    demos: tuple[RecordedExample, ...]
    picks: Mapping[str, Any] | None
    passages: Mapping[str, Any] | None
    calibration: Mapping[str, Any] | None = absent()
    tool_texts: Mapping[str, Any] | None = absent()
    tool_texts_hash: str | None = absent()
    shape: Mapping[str, Any] | None = absent()
    shape_hash: str | None = absent()


class RecordedOutcome(Result):
    """A row with the reply of a prompt, the parsed answer, and scores as (metric, score, reason).

    `trace` is what was done for the answer, where a row takes several calls.
    """

    example_id: str
    value: float | None
    call_key: str
    reply: str
    fields: Mapping[str, Any]
    error: str
    scores: tuple[tuple[str, float | None, str], ...]
    trace: str | None = absent()


class RecordedCost(Result):
    """Calls of one role, model and state."""

    role: str
    model: str
    state: str
    calls: int
    prompt_tokens: int | None
    cached_prompt_tokens: int | None
    completion_tokens: int | None
    cost_usd: float | None
    seconds: float | None


class RecordedEvent(Result):
    """An event of the hash chain; without `body` if only its position is shown."""

    seq: int
    utc: str
    kind: str
    body: Mapping[str, Any] | None = absent()


class RecordedAttempt(Result):
    """One attempt at a call."""

    id: int
    run_id: str
    role: str
    attempt: int
    state: str
    finish: str | None
    error_class: str | None
    http_status: int | None
    cost_usd: float | None
    latency_s: float | None
    sent_utc: str


class RecordedCall(RecordedAttempt):
    """A call with its tokens, its budget reservation, and the hashes of its texts."""

    model: str
    call_key: str
    candidate_id: str
    prompt_tokens: int
    cached_prompt_tokens: int
    completion_tokens: int
    reserved_usd: float
    error: str | None
    request_hash: str
    response_hash: str | None
    prefix_hash: str
    reserved_tokens: int
    served_model: str | None
    retry_after: float | None
    written_prompt_tokens: int


class TrialState(Result):
    """State and score of a trial at one event."""

    seq: int
    utc: str
    state: str
    n: int
    mean: float | None
    reason: str


class Ancestor(Result):
    """A candidate and its parent in a run."""

    candidate_id: str
    round: int
    technique: str | None
    format: str | None
    n_examples: int | None
    operator: str
    parent_id: str | None
    reason: str
    rejected: str


class RejectedCandidate(Result):
    """A candidate that broke a hard rule and was never tried."""

    candidate_id: str
    operator: str
    rejected: str
