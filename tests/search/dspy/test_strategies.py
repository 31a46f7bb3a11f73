"""DSPy's optimizers as strategies: inside the budget, the same on any number of threads, nothing bought twice."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from agent.errors import InputError
from agent.models.openai import OpenAIModel
from agent.programs.prompt import PromptProgram
from agent.search.context import SearchContext
from agent.search.dspy import strategies as dspy_strategies
from agent.search.dspy.strategies import OptimizerResult
from agent.search.registered import DSPY, STRATEGIES
from agent.types import Budget, Task
from tests.search import worlds
from tests.search.worlds import TASK, Searched, winner_of
from tests.toys import TEAMS, FakeModel, make_task
from tests.wire import WireServer

CALLS = 450
SECTION = re.compile(r"\[\[ ## (\w+) ## \]\]\n(.*?)(?=\n\n\[\[ ##|\Z)", re.DOTALL)


def pupil(messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
    """Knows one team, others when a demo or the instruction names them; proposes; sometimes unreadable."""
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


async def searched(folder: Path, server: WireServer, method: str, calls: int = CALLS, task: Task = TASK) -> Searched:
    """A search by this method, after a baseline that saw dev."""

    async def strategy(context: SearchContext) -> None:
        await STRATEGIES.get(method).search(context)

    model = OpenAIModel("openai-compatible/x", "x", base_url=server.url)
    found = await worlds.searched(folder, strategy, model, model, task=task, budget=Budget(max_calls=calls), seed=3)
    await model.close()
    assert found.stop is None
    assert found.written.rejected == {}
    return found


@pytest.mark.parametrize("method", DSPY)
async def test_a_method_ends_inside_its_budget_and_its_scores_are_ours(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with WireServer(pupil) as server:
        found = await searched(tmp_path / "one", server, method)
        sent = [json.dumps(seen.body) for seen in server.requests]
        monkeypatch.setattr(dspy_strategies, "THREADS", 1)
        again = await searched(tmp_path / "two", server, method)
    context = found.context
    assert capfd.readouterr() == ("", "")
    assert found.written.events == []
    assert not context.pruned_externally, "every program was tried on all rows"
    assert len(sent) <= CALLS - context.plan.test_calls
    answers = [body for body in sent if '"temperature": 0.0' in body]
    assert len(answers) == len(set(answers)), "DSPy and the evaluator ask the same, so each is sent once"
    assert again.trial_lines() == found.trial_lines(), "one thread or many"
    winner = winner_of(context)
    assert (winner.format, context.trials.by_id[winner.id].n) == ("dspy-chat", len(context.dev))
    assert len(context.trials.by_id) > 2
    reasons = {proposal.candidate.id: proposal.reason for proposal in found.written.admitted}
    for candidate_id in list(context.trials.by_id)[1:]:
        score, rows = re.findall(r"([0-9.]+) on ([0-9]+) rows", reasons[candidate_id])[0]
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
        found = await searched(tmp_path, server, "dspy-bootstrap", calls=260)
    assert len(server.requests) <= 260 - found.context.plan.test_calls
    assert [kind for kind, _ in found.written.events] == ["strategy_ended"]
    assert winner_of(found.context).format == "dspy-chat"


@pytest.mark.parametrize(("method", "dev"), [("dspy-mipro", 60), ("dspy-mipro", 40), ("dspy-gepa", 60)])
async def test_only_mipro_on_a_long_dev_drops_programs_by_parts_of_it(
    method: str, dev: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(*parts: Any) -> OptimizerResult:
        return OptimizerResult()

    monkeypatch.setattr(dspy_strategies, "optimize", nothing)
    with WireServer(pupil) as server:
        found = await searched(tmp_path, server, method, 900 if dev > 40 else CALLS, make_task(dev))
    assert found.context.pruned_externally == (method == "dspy-mipro" and dev > 40)


@pytest.mark.parametrize(("calls", "has_proposer"), [(90, True), (CALLS, False)], ids=["few calls", "DSPy fails"])
async def test_a_method_that_cannot_work_keeps_the_users_prompt(calls: int, has_proposer: bool, tmp_path: Path) -> None:
    """With too few calls, or with a proposer that says nothing, at which MIPROv2 raises."""

    def answer(messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
        return pupil(messages, body) if has_proposer or body["temperature"] == 0.0 else ""

    with WireServer(answer) as server:
        found = await searched(tmp_path, server, "dspy-mipro", calls=calls)
    ((kind, body),) = found.written.events
    assert kind == "strategy_failed"
    assert ("too few for dspy-mipro" in body["why"]) == has_proposer
    assert winner_of(found.context) == found.context.baseline


@pytest.mark.parametrize("method", DSPY)
def test_a_task_that_lays_out_its_own_input_is_refused_before_a_call(method: str) -> None:
    model = FakeModel(lambda request: "")
    assert PromptProgram(TASK, model).strategy(method) == method
    own = PromptProgram(make_task(instruction="Which team? {{message}}"), model)
    assert own.strategy(None) == "evolve"
    with pytest.raises(InputError, match=f"--strategy {method}: DSPy lays out the inputs"):
        own.strategy(method)
