"""DSPy's own optimizers as strategies: their programs are candidates of the layout `dspy-chat`. Knows no SQL.

The program is `dspy.Predict` on the Signature that `prompt.render` makes of the task, so both send the same messages
and every reply has one score: it is read by `prompt.parse` and scored by the task's own metrics. A row that the
provider never answers counts as 0 for DSPy, which has no word for "unscored"; on the board it stays unscored.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from agent.prompt.parse import parse_reply
from agent.prompt.render import NOT_FOR_DSPY, dspy_signature, label_text
from agent.scoring.metrics import combine
from agent.search.dspy_bridge import Bridge
from agent.search.dspy_methods import Findings, Job, Tried, optimize, train_rows
from agent.search.dspy_sizes import free, val_rows
from agent.search.lab import Lab
from agent.search.meter import Meter, unlimited
from agent.search.pool import Entry
from agent.types import Candidate, Demo, Example, Prediction, Signature, canonical

AUTHOR_TOKENS = 400  # of a proposed instruction or a summary, as many as a reply may have
THREADS = 16


async def search(lab: Lab, method: str) -> None:
    """Lets DSPy's optimizer work on train and on the first rows of dev, then takes its choice to the whole of dev."""
    import dspy

    plain = replace(lab.baseline, format="dspy-chat")
    program = dspy.Predict(dspy_signature(lab.task.signature, plain.instruction.strip()))
    meter = Meter(lab.gateway)
    bridge = Bridge(meter)
    lm = bridge.lm(lab.target, "target", max_tokens=lab.evaluator.max_tokens(plain))
    rows = Rows(lab, bridge, lambda prediction: _said(prediction, lab.task.signature))
    settings = {"lm": lm, "adapter": reader(lab.task.signature)}
    findings = await explore(lab, meter, bridge, rows, method, program, settings)
    chosen = admitted(lab, {tried.number: rows.entry(method, tried) for tried in findings.tried}, findings)
    for _, candidate in chosen:  # what DSPy bought is not bought again: the replies are scored as they are
        for row in lab.dev:
            reply = meter.known(lab.target, lab.evaluator.request(candidate, row))
            if reply is not None:
                await lab.evaluator.adopt(candidate, row, "dev", reply)
    await show(lab, method, chosen)


async def explore(
    lab: Lab,
    meter: Meter,
    bridge: Bridge,
    rows: Rows,
    method: str,
    program: Any,
    settings: Mapping[str, Any],
    per_row: int = 1,
) -> Findings:
    """The optimizer's work, within what the lab has left when its choice must still see the rest of dev.

    A row costs about `per_row` calls.
    """
    lab.stage(method, 1)
    calls = free(lab.left(), len(lab.dev), per_row)
    val = [row for row in lab.dev[: val_rows(method, calls // per_row, len(lab.dev))] if _is_plain(row)]
    train = train_rows([row for row in lab.task.train if _is_plain(row)], calls // per_row, lab.seed)
    unseen = len(lab.dev) - len(val)
    limit = lab.task.constraints.max_demos
    job = Job(
        program=program,
        train=[rows.example(row) for row in train],
        val=[rows.example(row) for row in val],
        judge=rows.judge,
        author=bridge.lm(lab.proposer or lab.target, "proposer", max_tokens=AUTHOR_TOKENS, temperature=1.0),
        calls=max(0, free(lab.left(), unseen, per_row)),
        seed=lab.seed,
        threads=lab.target.concurrency or THREADS,
        max_demos=len(train) if limit is None else limit,
        per_row=per_row,
    )
    lab.sifted = job.size.sifts(method)
    meter.room = lambda: free(lab.left(), unseen, per_row)
    findings = await optimize(bridge, method, job, settings)
    await meter.settle()
    meter.room = unlimited
    if findings.ended:
        lab.note("strategy_ended" if findings.tried else "strategy_failed", {"why": findings.ended})
        lab.failed = "" if findings.tried else findings.ended
    if bridge.failures:
        lab.note("strategy_unscored", {"rows": len(bridge.failures), "why": str(bridge.failures[0])})
    return findings


Chosen = list[tuple[Tried, Candidate]]


def admitted(lab: Lab, entries: Mapping[int, Entry], findings: Findings) -> Chosen:
    """Takes the programs into the pool, by their numbers; returns those that DSPy saw on all of its rows, the best
    first, or the best of the others when there is none.
    """
    lab.admit(list(entries.values()))
    ranked = [(tried, entries[tried.number].candidate) for tried in findings.ranked()]
    ranked = [(tried, candidate) for tried, candidate in ranked if candidate.id in lab.board.entries]
    return [(tried, candidate) for tried, candidate in ranked if tried.whole] or ranked[:1]


async def show(lab: Lab, method: str, chosen: Chosen) -> None:
    """Gives each a trial on the rows on which DSPy compared them, and takes the first of them to the whole of dev."""
    board = lab.board
    done = board.in_state("complete")  # a program of the user's own is tried by DSPy too
    seen = min((tried.rows for tried, _ in chosen if tried.whole), default=0)
    in_order = sorted(chosen, key=lambda pair: pair[0].number)
    new = list(dict.fromkeys(candidate.id for _, candidate in in_order if candidate.id not in done))
    living = await lab.see(new, seen) if seen else new
    first = next((candidate.id for _, candidate in chosen if candidate.id in {*living, *done}), None)
    whole = living if seen == len(lab.dev) else await lab.see([i for i in living if i == first], len(lab.dev))
    for candidate_id in living:
        if candidate_id in whole:
            board.settle(candidate_id, "complete", "saw the whole of dev")
        elif candidate_id in board.trials and board.trials[candidate_id].state == "incomplete":
            board.settle(candidate_id, "pruned", f"{method} preferred another on the same {seen} rows")


class Rows:
    """A task's rows as DSPy's examples and back, and its score for them."""

    def __init__(self, lab: Lab, bridge: Bridge, read: Callable[[Any], Prediction]) -> None:
        self._task, self._evaluator, self._bridge, self._read = lab.task, lab.evaluator, bridge, read
        self._rows: dict[str, Example] = {}
        self._train: dict[str, Example] = {}
        for row in reversed((*lab.task.train, *lab.dev)):
            self._rows[_key(self._texts(row))] = row
        for row in reversed(lab.task.train):
            self._train[_key(row.inputs)] = row

    def _texts(self, row: Example) -> dict[str, str]:
        outputs = {field.name: row.labels.get(field.name) for field in self._task.signature.outputs}
        return {**row.inputs, **{name: label_text(value) for name, value in outputs.items() if value is not None}}

    def example(self, row: Example) -> Any:
        import dspy

        return dspy.Example(**self._texts(row)).with_inputs(*row.inputs)

    def judge(self, example: Any, prediction: Any) -> tuple[float, str]:
        """The evaluator's score of this reply, with the reasons of what is not perfect."""
        row = self._rows[_key(dict(example.items()))]
        said = self._read(prediction)
        scores = self._bridge.fetch(lambda: self._evaluator.scores(row, said))
        value = combine(scores, self._task.metrics)
        return value or 0.0, " ".join(score.reason for score in scores if score.reason) or f"score {value}"

    def entry(self, method: str, tried: Tried) -> Entry:
        """The candidate that renders what this program sends."""
        ((instruction, demos),) = tried.state.values()
        found = tuple(self._demo(demo) for demo in demos)
        candidate = Candidate("few-shot" if found else "zero-shot", "dspy-chat", instruction, demos=found)
        place = {"layout": f"{candidate.technique}/dspy-chat", "instruction": method, "trial": str(tried.number)}
        reason = f"program {tried.number} of {method}: {tried.score:.1f} on {tried.rows} rows"
        return Entry(candidate, place, method, None, reason)

    def _demo(self, demo: dict[str, Any]) -> Demo:
        inputs = {field.name: demo[field.name] for field in self._task.signature.inputs}
        outputs = {field.name: demo[field.name] for field in self._task.signature.outputs}
        row = self._train[_key(inputs)]
        return Demo(row.id, inputs, outputs, source="target" if demo.get("augmented") else "label")


def _is_plain(row: Example) -> bool:
    """Whether DSPy takes the row's texts for text."""
    return not any(mark in canonical([dict(row.inputs), dict(row.labels)]) for mark in NOT_FOR_DSPY)


def _key(texts: Any) -> str:
    return canonical(dict(texts))


def _said(prediction: Any, signature: Signature) -> Prediction:
    fields = {field.name: _typed(prediction[field.name], field.type) for field in signature.outputs}
    return Prediction(fields, canonical(fields))


def _typed(text: str, kind: str) -> Any:
    return json.loads(text) if kind in ("number", "json") else text


@cache
def _reader_class() -> Any:
    from dspy.adapters import ChatAdapter
    from dspy.utils.exceptions import AdapterParseError

    class Reader(ChatAdapter):  # type: ignore[misc]
        """DSPy's chat layout, read as the run reads it; a reply of one field without its header is that field."""

        def __init__(self, signature: Signature) -> None:
            super().__init__(use_json_adapter_fallback=False)
            self._own = signature

        def parse(self, signature: Any, completion: str) -> dict[str, Any]:
            if self._is_own(signature):
                found = parse_reply(completion, self._own.outputs)
                if found.error:
                    raise AdapterParseError("dspy-chat", signature, completion, found.error)
                return {name: label_text(value) for name, value in found.fields.items()}
            try:
                return dict(super().parse(signature, completion))
            except AdapterParseError:
                if len(signature.output_fields) != 1 or not completion.strip():
                    raise
                return {next(iter(signature.output_fields)): completion.split("[[ ##")[0].strip() or completion}

        def _is_own(self, signature: Any) -> bool:
            names = [field.name for field in self._own.inputs], [field.name for field in self._own.outputs]
            return (list(signature.input_fields), list(signature.output_fields)) == names

    return Reader


def reader(signature: Signature) -> Any:
    """DSPy's ChatAdapter for this task and for whatever else an optimizer asks."""
    return _reader_class()(signature)
