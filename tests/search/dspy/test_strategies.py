"""DSPy's optimizers as strategies: inside the budget, the same on any number of threads, nothing bought twice."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.errors import InputError
from agent.evaluate.evaluator import Evaluator
from agent.gateway.budget import Account, HeldBack
from agent.gateway.gateway import Gateway
from agent.ledger.store import Ledger
from agent.models.openai import OpenAIModel
from agent.observer import Observer
from agent.programs.prompt import PromptProgram
from agent.scoring.task_metrics import build_metrics
from agent.search.context import SearchContext
from agent.search.costs import Means
from agent.search.dspy import strategies as dspy_strategies
from agent.search.dspy.strategies import OptimizerResult
from agent.search.plan import make_plan
from agent.search.registered import DSPY, STRATEGIES
from agent.search.trials import Trials
from agent.types import Budget, Proposal
from tests.search.worlds import winner_of
from tests.toys import TEAMS, FakeModel, make_task, open_ledger
from tests.wire import WireServer

TASK = make_task(40)
CALLS = 450
SECTION = re.compile(r"\[\[ ## (\w+) ## \]\]\n(.*?)(?=\n\n\[\[ ##|\Z)", re.DOTALL)


def pupil(messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
    """Knows one team by itself, others when a demo or the instruction names them; proposes what it is asked for;
    now and then says what cannot be read.
    """
    system, asked = messages[0]["content"], messages[-1]["content"]
    wanted = [name for name in re.findall(r"`\[\[ ## (\w+) ## \]\]`", asked) if name != "completed"]
    if wanted != ["team"]:
        return (
            "".join(f"[[ ## {name} ## ]]\n{_said(name, len(asked))}\n\n" for name in wanted) + "[[ ## completed ## ]]"
        )
    team = next(team for team in TEAMS if team in asked)
    known = {said.strip() for m in messages if m["role"] == "assistant" for _, said in SECTION.findall(m["content"])}
    if "edition 1" in system:
        known.add("delivery")
    if "again again again" in asked:
        return "no idea"
    said = team if team in known | {"billing"} else "billing"
    return f"[[ ## team ## ]]\n{said}\n\n[[ ## completed ## ]]"


def _said(name: str, size: int) -> str:
    return f"Pick the team (edition {size % 7})." if "instruction" in name else f"about {name}, {size % 5}"


class Written(Observer):
    """What a strategy hands to its observer."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.events: list[tuple[str, Any]] = []
        self.operators: list[str] = []
        self.reasons: dict[str, str] = {}

    def on_candidate_rejected(self, round_: int, proposal: Proposal, reason: str) -> None:
        raise AssertionError(reason)

    def on_candidate_accepted(self, round_: int, proposal: Proposal) -> None:
        self.operators.append(proposal.operator)
        self.reasons[proposal.candidate.id] = proposal.reason

    def on_event(self, kind: str, body: Any, texts: Any = None) -> None:
        self.events.append((kind, body))


def trial_lines(context: SearchContext) -> list[tuple[Any, ...]]:
    return [(i, t.state, t.n, t.mean, t.reason) for i, t in context.trials.by_id.items()]


async def searched(
    folder: Path, server: WireServer, method: str, calls: int = CALLS, **more: Any
) -> tuple[SearchContext, Written]:
    """A search on a ledger of its own, after a baseline that saw dev."""
    task = replace(TASK, **more)
    plan = make_plan(task, Means(Budget(max_calls=calls)), True)
    model = OpenAIModel("openai-compatible/x", "x", base_url=server.url)
    account = Account(Budget(max_calls=calls))
    folder.mkdir(exist_ok=True)
    ledger = open_ledger(folder / "ledger.db")
    gateway = Gateway(ledger, "run-1", account, {})
    trials = Trials()
    program = PromptProgram(task, model)
    evaluator = Evaluator(task, gateway, model, build_metrics(task), [program])
    written = Written(ledger)
    context = SearchContext(
        task=task,
        plan=plan,
        seed=3,
        program=program,
        target=model,
        proposer=model,
        gateway=gateway,
        evaluator=evaluator,
        account=account,
        observer=written,
        trials=trials,
        baseline=program.baseline(),
    )
    account.hold_back(HeldBack(plan.test_calls, 0.0))
    place = Proposal(context.baseline, {}, "baseline", None, "")
    trials.proposals[context.baseline.id] = place
    try:
        await context.see([context.baseline.id], len(context.dev))
        trials.settle(context.baseline.id, "complete", "")
        await STRATEGIES.get(method).search(context)
    finally:
        await gateway.drain()
        await model.close()
        ledger.close()
    return context, written


@pytest.mark.parametrize("method", DSPY)
async def test_a_method_ends_inside_its_budget_and_its_scores_are_ours(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with WireServer(pupil) as server:
        context, written = await searched(tmp_path / "one", server, method)
        sent = [json.dumps(seen.body) for seen in server.requests]
        monkeypatch.setattr(dspy_strategies, "THREADS", 1)
        again, _ = await searched(tmp_path / "two", server, method)
    assert capfd.readouterr() == ("", "")
    assert written.events == []
    assert not context.pruned_externally, "every program was tried on all rows"
    assert len(sent) <= CALLS - context.plan.test_calls
    answers = [body for body in sent if '"temperature": 0.0' in body]
    assert len(answers) == len(set(answers)), "DSPy and the evaluator ask the same, so each is sent once"
    assert trial_lines(again) == trial_lines(context), "one thread or many"
    winner = winner_of(context)
    assert (winner.format, context.trials.by_id[winner.id].n) == ("dspy-chat", len(context.dev))
    assert len(context.trials.by_id) > 2
    for candidate_id in list(context.trials.by_id)[1:]:
        score, rows = re.findall(r"([0-9.]+) on ([0-9]+) rows", written.reasons[candidate_id])[0]
        seen = context.trials.outcomes[candidate_id][: int(rows)]
        assert round(100 * sum(outcome.value or 0.0 for outcome in seen) / len(seen), 1) == float(score)
    demos = [demo for proposal in context.trials.proposals.values() for demo in proposal.candidate.demos]
    sources = {demo.source for demo in demos}
    assert sources == (set() if method == "dspy-gepa" else {"label", "target"})
    assert {demo.example_id for demo in demos} <= {row.id for row in TASK.train}


async def test_an_optimizer_that_would_spend_more_is_stopped_and_the_best_so_far_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pupil never gets a bootstrap right, so each set of demonstrations asks every row of train."""
    monkeypatch.setattr(dspy_strategies, "train_rows", lambda rows, calls, seed: list(rows))

    def hopeless(messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
        return "no idea" if "train note" in messages[-1]["content"] else pupil(messages, body)

    with WireServer(hopeless) as server:
        context, written = await searched(tmp_path, server, "dspy-bootstrap", calls=260)
    assert len(server.requests) <= 260 - context.plan.test_calls
    assert [kind for kind, _ in written.events] == ["strategy_ended"]
    assert winner_of(context).format == "dspy-chat"


@pytest.mark.parametrize("method", DSPY)
@pytest.mark.parametrize(("dev", "calls"), [(60, 900), (40, CALLS)])
async def test_a_lab_knows_that_mipro_drops_programs_by_parts_of_dev(
    method: str, dev: int, calls: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(*parts: Any) -> OptimizerResult:
        return OptimizerResult()

    monkeypatch.setattr(dspy_strategies, "optimize", nothing)
    with WireServer(pupil) as server:
        context, _ = await searched(tmp_path, server, method, calls=calls, dev=make_task(dev).dev)
    assert context.pruned_externally == (method == "dspy-mipro" and dev > 40)


async def test_a_budget_that_dspy_cannot_work_with_keeps_the_users_prompt(tmp_path: Path) -> None:
    with WireServer(pupil) as server:
        context, written = await searched(tmp_path, server, "dspy-mipro", calls=90)
    assert [kind for kind, _ in written.events] == ["strategy_failed"]
    assert "too few for dspy-mipro" in written.events[0][1]["why"]
    assert winner_of(context) == context.baseline


async def test_a_failure_of_dspy_itself_keeps_the_users_prompt(tmp_path: Path) -> None:
    """A proposer that says nothing at all: MIPROv2 raises."""

    def silent(messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
        return pupil(messages, body) if body["temperature"] == 0.0 else ""

    with WireServer(silent) as server:
        context, written = await searched(tmp_path, server, "dspy-mipro")
    assert [kind for kind, _ in written.events] == ["strategy_failed"]
    assert winner_of(context) == context.baseline


@pytest.mark.parametrize("method", DSPY)
def test_a_task_that_lays_out_its_own_input_is_refused_before_a_call(method: str) -> None:
    model = FakeModel(lambda request: "")
    assert PromptProgram(TASK, model).strategy(method) == method
    own = PromptProgram(make_task(instruction="Which team? {{message}}"), model)
    assert own.strategy(None) == "evolve"
    with pytest.raises(InputError, match=f"--strategy {method}: DSPy lays out the inputs"):
        own.strategy(method)
