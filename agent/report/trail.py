"""What was recorded about a run, a trial, a call or a prompt: the results of `optimize audit show` and `lineage`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agent.ledger import trail
from agent.ledger.query import History, Row
from agent.report import facts, findings, run_tables
from agent.report.blocks import Block, TableBlock, table, text
from agent.report.facts import points
from agent.report.prompt_texts import change_lines
from agent.report.view import RunView
from agent.results.base import Result, hidden

MADE_WITH = ("origin", "options", "hashes", "budget", "plan")
ABOUT = ("started_utc", "ended_utc", "seconds", "parent", "proposer", "seed", "tool", "prices")
ANCESTORS = (
    "candidate_id=candidate round technique format n_examples=examples operator parent_id=parent reason rejected"
)
ATTEMPTS = "id=call run_id=run attempt state error_class=error http_status=status cost_usd=$ latency_s=seconds sent_utc"
COSTS = "role model state calls prompt_tokens completion_tokens cost_usd=$"
MOVES = "alias version from=before utc action actor reason"


def field_table(title: str, columns: str, rows: Sequence[Row]) -> TableBlock:
    """A listing of the named values; `key=word` gives a column another name."""
    names = [column.partition("=") for column in columns.split()]
    heads = [word or name.replace("_", " ") for name, _, word in names]
    cells = [[_cell(name, row[name]) for name, _, _ in names] for row in rows]
    return table(title, heads, cells, tabbed=True)


def _cell(name: str, value: Any) -> Any:
    if name in ("mean", "low", "high"):
        return points(value)
    return facts.amount(value, 6) if name == "cost_usd" else value


def _exact(*lines: str) -> Block:
    return text(*lines, exact=True)


def _words(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


class RunTrail(Result):
    """What was recorded about a run: its row, its events and its costs."""

    run: Row
    events: tuple[Row, ...]
    costs: tuple[Row, ...]

    def blocks(self) -> Iterator[Block]:
        run = self.run
        yield _exact(f"run {run['id']}  {run['task']}  {run['model']}  {run['status']}")
        rows = [(name, run[name]) for name in ABOUT]
        rows += [("tags", _words(run["tags"])), ("result_hash", run["result_hash"])]
        for name in MADE_WITH:
            rows += [(f"{name}.{key}", _words(value)) for key, value in (run[name] or {}).items()]
        made = [row for row in rows if row[1] not in (None, "", "{}", "[]")]
        yield table("made with", ("what", "value"), made, tabbed=True)
        yield field_table("spent", COSTS, self.costs)
        yield field_table("events", "seq utc kind", self.events)


class TrialTrail(Result):
    """What was recorded about a trial: where it stood when, how its prompt came about, and each row's outcome."""

    trial: Row
    states: tuple[Row, ...]
    lineage: tuple[Row, ...]
    candidate: Row
    outcomes: Mapping[str, tuple[Row, ...]]
    run_id: str = hidden()

    def blocks(self) -> Iterator[Block]:
        one = self.trial
        found = f"{one['candidate_id']}, {one['state']}, {points(one['mean'])}"
        yield text(f"trial {one['number']} of {self.run_id}: {found}")
        yield field_table("lineage, newest first", ANCESTORS, self.lineage)
        yield field_table("states", "seq utc state n=rows mean=score reason", self.states)
        yield run_tables.messages(self.candidate["template"], "== prompt ==")
        for split, rows in self.outcomes.items():
            if rows:
                yield run_tables.outcomes(split, rows)


class CallTrail(Result):
    """A call: its row, what was sent and what came back (None: erased, or none came), the attempts at the same call,
    and the events about it."""

    call: Row
    request: Row | None
    reply: Row | None
    attempts: tuple[Row, ...]
    events: tuple[Row, ...]

    @property
    def recorded(self) -> list[tuple[str, Any]]:
        """Its row by name, without what is empty."""
        return [(name, value) for name, value in self.call.items() if value not in (None, "")]

    @property
    def said(self) -> str:
        """The text of the reply, or why there is none."""
        return self.reply["text"] if self.reply else "(erased)" if self.call["state"] in ("ok", "cached") else "(none)"

    def blocks(self) -> Iterator[Block]:
        call = self.call
        yield _exact(f"call {call['id']}: {call['role']}, {call['model']}, {call['state']}, {call['call_key']}")
        yield table("recorded", ("what", "value"), self.recorded, tabbed=True)
        sent = dict(self.request or {})
        asked = [f"[{message['role']}]\n{message['content']}" for message in sent.pop("messages", ())]
        asked = ["(erased)"] if self.request is None else [*asked, json.dumps(sent, ensure_ascii=False)]
        yield text(*asked, heading="== request ==", exact=True)
        yield text(self.said, heading="== reply ==", exact=True)
        yield field_table("attempts at the same call", ATTEMPTS, self.attempts)
        yield field_table("events", "seq utc kind", self.events)


class LineageResult(Result):
    """The prompts of a name or a hash: how each came about in the runs that proposed it, what it was released as, and
    the moves of the aliases of its name."""

    prompts: tuple[Row, ...]

    def blocks(self) -> Iterator[Block]:
        for prompt in self.prompts:
            yield from _candidate(prompt["candidate"], prompt["versions"])
            moves = prompt["aliases"]
            for run in prompt["runs"]:
                yield from _in_run(run, sum(m["mine"] and m["evidence"].get("run_id") == run["run_id"] for m in moves))
            if moves:
                part = {m["hash"]: "" if m["share"] is None else f" for {m['share']:.0%}" for m in moves}
                rows = [
                    {
                        **m,
                        "alias": f"{'* ' * m['mine']}{m['name']}@{m['alias']}",
                        "version": m["version"] + part[m["hash"]],
                    }
                    for m in moves
                ]
                yield field_table("aliases, oldest first (*: to this prompt)", MOVES, rows)


def _candidate(one: Row, versions: Sequence[str]) -> Iterator[Block]:
    design = f"{one['technique']}, format {one['format']}, {one['n_examples']} examples{findings.picked(one['picks'])}"
    looks_up = f", {findings.looks_up(one['passages'])}" if one["passages"] else ""
    yield _exact(f"{one['id']}: {design}{looks_up}" + "".join(f", released as {version}" for version in versions))
    yield _exact(f"template {one['template_hash']}\ninstruction {one['instruction_hash']}", one["instruction"])
    yield _exact(*(f"tools: {line}" for line in change_lines(one)))
    if found := one.get("calibration"):
        near, prior = found.get("neighbours"), found.get("prior")
        voting = f", {near['k']} neighbours with weight {near['weight']:g}" if near else ""
        voting = f", a classifier of the train rows with weight {prior['weight']:g}" if prior else voting
        numbers = f"temperature {found['temperature']:g}{voting}, {found['bias']}"
        yield _exact(f"calibration: {found['method']}, {numbers}")
    if one["demos"]:
        yield _exact("examples: " + ", ".join(demo["example_id"] for demo in one["demos"]))


def _in_run(run: Row, moved: int) -> Iterator[Block]:
    yield _exact(f"\nrun {run['run_id']}  {run['task']}  {run['model']}  {run['status']}")
    yield field_table("lineage, newest first", ANCESTORS, run["chain"])
    if made := run["proposal"]:
        words = filter(None, (made["operator"], made["hypothesis"], made["claim"]))
        why = f" ({': '.join(words)})" if made["operator"] else ""
        yield _exact(f"the proposer wrote the {made['of']}: event {made['seq']}{why}")
    yield field_table("trials", "number=trial round state n=rows mean=score low high reason", run["trials"])
    if run["released"]:
        by = facts.promotion(run["promoted"]) if run["promoted"] else run["decision"]
        yield _exact(f"released ({by}, test {points(run['test'])}): {run['release']}")
    else:
        yield _exact("not released" + (f" by the run; aliases that came to it: {moved}" if moved else ""))


def run_trail(history: History, run: Row) -> RunTrail:
    """What was recorded about a run."""
    return RunTrail(run=run, events=tuple(trail.events_of(history, run["id"])), costs=tuple(history.costs(run["id"])))


def trial_trail(view: RunView, number: int) -> TrialTrail:
    """What was recorded about a trial. Raises InputError without one."""
    trial, history = view.numbered(number), view.history
    name = trial["candidate_id"]
    return TrialTrail(
        run_id=view.id,
        trial=trial,
        states=tuple(trail.trial_states(history, view.id, number)),
        lineage=tuple(trail.chain_of_parents(history, view.id, name)),
        candidate=history.candidate(name),
        outcomes={split: tuple(history.outcomes(view.id, name, split)) for split in ("train", "dev", "test")},
    )


def call_trail(history: History, number: int, with_events: bool = True) -> CallTrail:
    """A call whole. Raises InputError without one."""
    return CallTrail.model_validate(trail.call(history, number, with_events))
