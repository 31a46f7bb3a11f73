"""The audit trail of a run, trial, call or prompt: the results of `optimize audit show` and `lineage`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agent.ledger import trail
from agent.ledger.query import History
from agent.report import findings, run_tables, wording
from agent.report.aliases import MovedAlias
from agent.report.blocks import Block, TableBlock, table, text
from agent.report.prompt_texts import change_lines
from agent.report.view import RunView
from agent.report.wording import points
from agent.results.base import Result, absent, hidden
from agent.results.recorded import (
    Ancestor,
    RecordedAttempt,
    RecordedCall,
    RecordedCost,
    RecordedEvent,
    RecordedOutcome,
    RecordedPrompt,
    RecordedRun,
    RecordedTrial,
    TrialScore,
    TrialState,
)

MADE_WITH = ("origin", "options", "hashes", "budget", "plan")
ANCESTORS = (
    "candidate_id=candidate round technique format n_examples=examples operator parent_id=parent reason rejected"
)
ATTEMPTS = "id=call run_id=run attempt state error_class=error http_status=status cost_usd=$ latency_s=seconds sent_utc"
COSTS = "role model state calls prompt_tokens completion_tokens cost_usd=$"


def field_table(title: str, columns: str, rows: Sequence[Result]) -> TableBlock:
    """Return a listing of the named fields; `field=word` renames a column."""
    names = [column.partition("=") for column in columns.split()]
    heads = [word or name.replace("_", " ") for name, _, word in names]
    cells = [[_cell(name, getattr(row, name)) for name, _, _ in names] for row in rows]
    return table(title, heads, cells, tabbed=True)


def _cell(name: str, value: Any) -> Any:
    if name in ("mean", "low", "high"):
        return points(value)
    return wording.amount(value, 6) if name == "cost_usd" else value


def _exact(*lines: str) -> Block:
    return text(*lines, exact=True)


def _words(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


class RunTrail(Result):
    """The trail of a run: its row, events and costs."""

    run: RecordedRun
    events: tuple[RecordedEvent, ...]
    costs: tuple[RecordedCost, ...]

    def blocks(self) -> Iterator[Block]:
        run = self.run
        yield _exact(f"run {run.id}  {run.task}  {run.model}  {run.status}")
        names = ("started_utc", "ended_utc", "seconds", "parent", "proposer", "seed", "tool", "prices")
        rows = [(name, getattr(run, name)) for name in names]
        rows += [("tags", _words(run.tags)), ("result_hash", run.result_hash)]
        for name in MADE_WITH:
            rows += [(f"{name}.{key}", _words(value)) for key, value in (getattr(run, name) or {}).items()]
        made = [row for row in rows if row[1] not in (None, "", "{}", "[]")]
        yield table("made with", ("what", "value"), made, tabbed=True)
        yield field_table("spent", COSTS, self.costs)
        yield field_table("events", "seq utc kind", self.events)


class TrialTrail(Result):
    """The trail of a trial: its states, the origin of its prompt, and the outcome of each row."""

    trial: RecordedTrial
    states: tuple[TrialState, ...]
    lineage: tuple[Ancestor, ...]
    candidate: RecordedPrompt
    outcomes: Mapping[str, tuple[RecordedOutcome, ...]]
    run_id: str = hidden()

    def blocks(self) -> Iterator[Block]:
        trial = self.trial
        yield text(f"trial {trial.number} of {self.run_id}: {trial.candidate_id}, {trial.state}, {points(trial.mean)}")
        yield field_table("lineage, newest first", ANCESTORS, self.lineage)
        yield field_table("states", "seq utc state n=rows mean=score reason", self.states)
        yield run_tables.messages(self.candidate.template, "== prompt ==")
        for split, rows in self.outcomes.items():
            if rows:
                yield run_tables.outcomes(split, rows)


class CallTrail(Result):
    """A call: its row, request and reply (None: erased or missing), other attempts, and events."""

    call: RecordedCall
    request: Mapping[str, Any] | None
    reply: Mapping[str, Any] | None
    attempts: tuple[RecordedAttempt, ...]
    events: tuple[RecordedEvent, ...]

    @property
    def recorded(self) -> list[tuple[str, Any]]:
        """The non-empty columns of its row."""
        return [(name, value) for name, value in self.call.to_json().items() if value not in (None, "")]

    @property
    def said(self) -> str:
        """The text of the reply, or why it is missing."""
        return self.reply["text"] if self.reply else "(erased)" if self.call.state in ("ok", "cached") else "(none)"

    def blocks(self) -> Iterator[Block]:
        call = self.call
        yield _exact(f"call {call.id}: {call.role}, {call.model}, {call.state}, {call.call_key}")
        yield table("recorded", ("what", "value"), self.recorded, tabbed=True)
        sent = dict(self.request or {})
        asked = [f"[{message['role']}]\n{message['content']}" for message in sent.pop("messages", ())]
        asked = ["(erased)"] if self.request is None else [*asked, json.dumps(sent, ensure_ascii=False)]
        yield text(*asked, heading="== request ==", exact=True)
        yield text(self.said, heading="== reply ==", exact=True)
        yield field_table("attempts at the same call", ATTEMPTS, self.attempts)
        yield field_table("events", "seq utc kind", self.events)


class MadeBy(Result):
    """The event in which the proposer wrote a text: request, reason, target rows, and explanation."""

    seq: int
    utc: str
    of: str
    round: int | None
    operator: str | None
    rows: tuple[str, ...] | None
    hypothesis: str | None
    claim: str | None


class PromptInRun(Result):
    """A prompt in one run: its ancestors, author and trials, and whether the run released it."""

    run_id: str
    task: str
    model: str
    status: str
    started_utc: str
    chain: tuple[Ancestor, ...]
    proposal: MadeBy | None
    trials: tuple[TrialScore, ...]
    released: bool
    decision: str | None
    promoted: Mapping[str, Any] | None
    test: float | None
    release: str | None

    def blocks(self, moved: int) -> Iterator[Block]:
        """Yield the output; `moved`: aliases that this run moved to the prompt."""
        yield _exact(f"\nrun {self.run_id}  {self.task}  {self.model}  {self.status}")
        yield field_table("lineage, newest first", ANCESTORS, self.chain)
        if made := self.proposal:
            words = filter(None, (made.operator, made.hypothesis, made.claim))
            why = f" ({': '.join(words)})" if made.operator else ""
            yield _exact(f"the proposer wrote the {made.of}: event {made.seq}{why}")
        yield field_table("trials", "number=trial round state n=rows mean=score low high reason", self.trials)
        if self.released:
            by = wording.promotion(self.promoted) if self.promoted else self.decision
            yield _exact(f"released ({by}, test {points(self.test)}): {self.release}")
        else:
            yield _exact("not released" + (f" by the run; aliases that came to it: {moved}" if moved else ""))


class PromptMove(MovedAlias):
    """A move of an alias of the prompt's name; `mine`: to this prompt."""

    mine: bool
    release_hash: str | None = absent()


class PromptLineage(Result):
    """The origin of a prompt in each run that proposed it, its released `versions`, and alias moves."""

    candidate: RecordedPrompt
    runs: tuple[PromptInRun, ...]
    versions: tuple[str, ...]
    aliases: tuple[PromptMove, ...]

    def blocks(self) -> Iterator[Block]:
        one = self.candidate
        design = (
            f"{one.id}: {one.technique}, format {one.format}, {one.n_examples} examples{findings.picked(one.picks)}"
        )
        looks_up = f", {findings.looks_up(one.passages)}" if one.passages else ""
        yield _exact(design + looks_up + "".join(f", released as {version}" for version in self.versions))
        yield _exact(f"template {one.template_hash}\ninstruction {one.instruction_hash}", one.instruction)
        yield _exact(*(f"tools: {line}" for line in change_lines(one.to_json())))
        if found := one.calibration:
            near, prior = found.get("neighbours"), found.get("prior")
            voting = f", {near['k']} neighbours with weight {near['weight']:g}" if near else ""
            voting = f", a classifier of the train rows with weight {prior['weight']:g}" if prior else voting
            numbers = f"temperature {found['temperature']:g}{voting}, {found['bias']}"
            yield _exact(f"calibration: {found['method']}, {numbers}")
        if one.demos:
            yield _exact("examples: " + ", ".join(demo.example_id for demo in one.demos))
        for run in self.runs:
            yield from run.blocks(sum(m.mine and m.evidence.get("run_id") == run.run_id for m in self.aliases))
        if self.aliases:
            rows = [
                (f"{'* ' * m.mine}{m.name}@{m.alias}", m.version_for, m.before, m.utc, m.action, m.actor, m.reason)
                for m in self.aliases
            ]
            heads = ("alias", "version", "before", "utc", "action", "actor", "reason")
            yield table("aliases, oldest first (*: to this prompt)", heads, rows, tabbed=True)


class LineageResult(Result):
    """The prompts of a name or hash, with their origins."""

    prompts: tuple[PromptLineage, ...]

    def blocks(self) -> Iterator[Block]:
        for prompt in self.prompts:
            yield from prompt.blocks()


def run_trail(history: History, run: Mapping[str, Any]) -> RunTrail:
    events, costs = trail.events_of(history, run["id"]), history.costs(run["id"])
    return RunTrail.model_validate({"run": run, "events": events, "costs": costs})


def trial_trail(view: RunView, number: int) -> TrialTrail:
    """Return the trail of a trial; raise InputError if missing."""
    trial, history = view.numbered(number), view.history
    name = trial["candidate_id"]
    outcomes = {split: history.outcomes(view.id, name, split) for split in ("train", "dev", "test")}
    found = {
        "run_id": view.id,
        "trial": trial,
        "states": trail.trial_states(history, view.id, number),
        "lineage": trail.chain_of_parents(history, view.id, name),
        "candidate": history.candidate(name),
        "outcomes": outcomes,
    }
    return TrialTrail.model_validate(found)


def call_trail(history: History, number: int, with_events: bool = True) -> CallTrail:
    """Return the trail of a call; raise InputError if missing."""
    return CallTrail.model_validate(trail.call(history, number, with_events))
