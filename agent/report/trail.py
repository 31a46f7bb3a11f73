"""The audit trail of a run, trial, call or prompt: the results of `optimize audit show` and `lineage`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agent.ledger import trail
from agent.ledger.query import History
from agent.prompt.template import label_text
from agent.report import run_tables, wording
from agent.report.aliases import MovedAlias
from agent.report.blocks import Block, Column, PageCell, TableBlock, table, text
from agent.report.prompt_texts import change_lines
from agent.report.view import RunView
from agent.results import recorded
from agent.results.base import Result, absent, hidden
from agent.stats.figures import points

MADE_WITH = ("origin", "options", "hashes", "budget", "plan")
ANCESTORS = (
    "candidate_id=candidate round technique format n_examples=examples operator parent_id=parent reason rejected"
)
ATTEMPTS = "id=call run_id=run attempt state error_class=error http_status=status cost_usd=$ latency_s=seconds sent_utc"
ADDRESSES = {"id": "/call/", "run_id": "/run/", "seq": "/ledger/events/"}
"""By field the start of its page in the web view."""
COSTS = "role model state calls prompt_tokens completion_tokens cost_usd=$"


def field_table(title: str, columns: str, rows: Sequence[Result]) -> TableBlock:
    """Return a listing of the named fields; `field=word` renames a column."""
    names = [column.partition("=") for column in columns.split()]
    heads = [word or name.replace("_", " ") for name, _, word in names]
    cells = [[_cell(name, getattr(row, name)) for name, _, _ in names] for row in rows]
    return table(title, heads, cells, tabbed=True)


def _cell(name: str, value: Any) -> Any:
    if name in ADDRESSES and value is not None:
        return PageCell(str(value), f"{ADDRESSES[name]}{value}")
    if name in ("mean", "low", "high"):
        return points(value)
    return wording.amount(value, 6) if name == "cost_usd" else value


def _exact(*lines: str) -> Block:
    return text(*lines, exact=True)


class RunTrail(Result):
    """The trail of a run: its row, events and costs."""

    run: recorded.RecordedRun
    events: tuple[recorded.RecordedEvent, ...]
    costs: tuple[recorded.RecordedCost, ...]

    def blocks(self) -> Iterator[Block]:
        run = self.run
        yield _exact(f"run {run.id}  {run.task}  {run.model}  {run.status}")
        names = ("started_utc", "ended_utc", "seconds", "parent", "proposer", "seed", "tool", "prices")
        rows = [(name, getattr(run, name)) for name in names]
        rows += [("tags", label_text(run.tags)), ("result_hash", run.result_hash)]
        for name in MADE_WITH:
            rows += [(f"{name}.{key}", label_text(value)) for key, value in (getattr(run, name) or {}).items()]
        made = [row for row in rows if row[1] not in (None, "", "{}", "[]")]
        yield table("made with", ("what", "value"), made, tabbed=True)
        yield field_table("spent", COSTS, self.costs)
        yield field_table("events", "seq utc kind", self.events)


class TrialTrail(Result):
    """A trial: its states, its prompt with its origin, and the outcome of each row by split."""

    trial: recorded.RecordedTrial
    states: tuple[recorded.TrialState, ...]
    lineage: tuple[recorded.Ancestor, ...]
    candidate: recorded.RecordedPrompt
    outcomes: Mapping[str, tuple[recorded.RecordedOutcome, ...]]
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
                yield from run_tables.traces(split, (row.model_dump() for row in rows))


class CallTrail(Result):
    """A call: its row, request and reply (None: erased or missing), other attempts, and events."""

    call: recorded.RecordedCall
    request: Mapping[str, Any] | None
    reply: Mapping[str, Any] | None
    attempts: tuple[recorded.RecordedAttempt, ...]
    events: tuple[recorded.RecordedEvent, ...]

    @property
    def said(self) -> str:
        """The text of the reply, or why it is missing."""
        return self.reply["text"] if self.reply else "(erased)" if self.call.state in ("ok", "cached") else "(none)"

    def recorded_table(self) -> TableBlock:
        filled = [(name, value) for name, value in self.call if value not in (None, "")]
        return table("recorded", ("what", Column("value", "break")), filled, tabbed=True)

    def attempts_table(self) -> TableBlock:
        return field_table("attempts at the same call", ATTEMPTS, self.attempts)

    def events_table(self) -> TableBlock:
        return field_table("events", "seq utc kind", self.events)

    def blocks(self) -> Iterator[Block]:
        call = self.call
        yield _exact(f"call {call.id}: {call.role}, {call.model}, {call.state}, {call.call_key}")
        yield self.recorded_table()
        sent = dict(self.request or {})
        asked = [f"[{message['role']}]\n{message['content']}" for message in sent.pop("messages", ())]
        asked = ["(erased)"] if self.request is None else [*asked, json.dumps(sent, ensure_ascii=False)]
        yield text(*asked, heading="== request ==", exact=True)
        yield text(self.said, heading="== reply ==", exact=True)
        yield self.attempts_table()
        yield self.events_table()


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
    chain: tuple[recorded.Ancestor, ...]
    proposal: MadeBy | None
    trials: tuple[recorded.TrialScore, ...]
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

    @property
    def moved(self) -> str:
        return f"{'* ' * self.mine}{self.name}@{self.alias}"


class PromptLineage(Result):
    """The origin of a prompt in each run that proposed it, its released `versions`, and alias moves."""

    candidate: recorded.RecordedPrompt
    runs: tuple[PromptInRun, ...]
    versions: tuple[str, ...]
    aliases: tuple[PromptMove, ...]

    def blocks(self) -> Iterator[Block]:
        one, released = self.candidate, "".join(f", released as {version}" for version in self.versions)
        yield _exact(f"{one.id}: {wording.design(one)}{released}")
        yield _exact(f"template {one.template_hash}\ninstruction {one.instruction_hash}", one.instruction)
        yield _exact(*(f"tools: {line}" for line in change_lines(one.to_json())))
        if found := one.calibration:
            near, prior = found.get("neighbours"), found.get("prior")
            votes = [f"{near['k']} neighbours with weight {near['weight']:g}"] if near else []
            votes += [f"a classifier of the train rows with weight {prior['weight']:g}"] if prior else []
            numbers = (found["method"], f"temperature {found['temperature']:g}", *votes, str(found["bias"]))
            yield _exact(f"calibration: {', '.join(numbers)}")
        if one.demos:
            yield _exact("examples: " + ", ".join(demo.example_id for demo in one.demos))
        for run in self.runs:
            yield from run.blocks(sum(m.mine and m.evidence.get("run_id") == run.run_id for m in self.aliases))
        if self.aliases:
            columns = "moved=alias version_for=version before utc action actor reason"
            yield field_table("aliases, oldest first (*: to this prompt)", columns, self.aliases)


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
    found = {
        "run_id": view.id,
        "trial": trial,
        "states": trail.trial_states(history, view.id, number),
        "lineage": trail.chain_of_parents(history, view.id, name),
        "candidate": history.candidate(name),
        "outcomes": {split: history.outcomes(view.id, name, split) for split in ("train", "dev", "test")},
    }
    return TrialTrail.model_validate(found)


def call_trail(history: History, number: int, with_events: bool = True) -> CallTrail:
    """Return the trail of a call; raise InputError if missing."""
    return CallTrail.model_validate(trail.call(history, number, with_events))
