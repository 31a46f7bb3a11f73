"""The kind `tuned`: the prompt as ever, the model that carries the adapter, and a release that holds both."""

from __future__ import annotations

import contextlib
from collections import Counter
from pathlib import Path

import pytest

from agent.errors import InputError
from agent.evaluate.evaluator import Evaluator
from agent.gateway.gateway import call_key
from agent.models.adapters import Adapter
from agent.programs.prompt import PromptProgram
from agent.programs.variants import TunedProgram
from agent.prompt.prompt_candidate import PromptCandidate, TunedCandidate, baseline
from agent.scoring.task_metrics import build_metrics
from agent.types import Demo
from tests.gateway.doors import gateway
from tests.ledger.ledgers import read
from tests.models.lora import lora
from tests.toys import FakeModel, make_task, open_ledger

TASK = make_task()


class Tuned(FakeModel):
    """A model that answers with the name of its adapter's file."""

    def __init__(self, path: Path) -> None:
        super().__init__(lambda request: path.stem, f"local/smollm2-135m+{path}")
        self.adapter: Adapter | None = Adapter.read(path)

    @property
    def endpoint(self) -> str:
        assert self.adapter is not None
        return f"sha256:+{self.adapter.sha256}"


@pytest.fixture
def models(tmp_path: Path) -> list[Tuned]:
    return [Tuned(lora(tmp_path / f"{name}.gguf", seed, layers=1)) for seed, name in enumerate(("billing", "delivery"))]


def base() -> FakeModel:
    return FakeModel(lambda request: "base", "local/smollm2-135m")


def few_shot() -> PromptCandidate:
    demos = tuple(Demo(row.id, dict(row.inputs), {"team": str(row.labels["team"])}) for row in TASK.train[:2])
    return PromptCandidate(technique="few-shot", format="labelled-turns", instruction="Sort it.", demos=demos)


def test_a_candidate_is_the_prompt_s_parts_and_the_adapter(models: list[Tuned]) -> None:
    program = TunedProgram(TASK, base(), models)
    prompt = few_shot()
    one, two = program.candidates(prompt)
    assert models[0].adapter is not None
    assert one.parts() == {**prompt.parts(), "adapter": models[0].adapter.sha256}
    assert len({prompt.id, one.id, two.id}) == 3
    assert (one.kind, one.demos, one.n_examples) == ("tuned", prompt.demos, 2)
    assert models[0].adapter.sha256[:12] in program.shown(one).text


@pytest.mark.parametrize("prompt", [baseline(TASK), few_shot()], ids=["zero-shot", "few-shot"])
def test_it_sends_what_the_prompt_sends(models: list[Tuned], prompt: PromptCandidate) -> None:
    plain, program = PromptProgram(TASK, base()), TunedProgram(TASK, base(), models)
    (tuned, _), row = program.candidates(prompt), TASK.dev[0]
    assert program.request(tuned, row) == plain.request(prompt, row)
    assert program.prompt_tokens(tuned) == plain.prompt_tokens(prompt)
    assert program.place(tuned) == plain.place(prompt)
    assert program.check(tuned) == plain.check(prompt)


async def test_calls_go_through_the_gateway_to_the_model_with_the_adapter(models: list[Tuned], tmp_path: Path) -> None:
    lm = base()
    plain, program = PromptProgram(TASK, lm), TunedProgram(TASK, lm, models)
    prompt = baseline(TASK)
    with contextlib.closing(open_ledger(tmp_path / "l.db")) as ledger:
        door = gateway(ledger)
        evaluator = Evaluator(TASK, door, lm, build_metrics(TASK, {}), [plain, program])
        seen = [
            await evaluator.outcomes(candidate, TASK.dev, "dev") for candidate in (prompt, *program.candidates(prompt))
        ]
        await ledger.commit()
        calls = Counter(name for (name,) in read(ledger.path, "SELECT model FROM calls WHERE state = 'ok'"))
    assert [{outcome.prediction.raw for outcome in outcomes} for outcomes in seen] == [
        {"base"},
        {"billing"},
        {"delivery"},
    ]
    assert calls == dict.fromkeys((lm.name, *(model.name for model in models)), len(TASK.dev))
    wanted = {call_key(models[0], plain.request(prompt, row)) for row in TASK.dev}
    assert {outcome.call_key for outcome in seen[1]} == wanted


def test_an_adapter_that_was_not_given_is_rejected_and_a_model_without_one_refused(models: list[Tuned]) -> None:
    program = TunedProgram(TASK, base(), models)
    assert "unknown adapter" in program.check(TunedCandidate.of(baseline(TASK), "0" * 64))
    assert "unknown adapter" in program.check(baseline(TASK))
    models[1].adapter = None
    with pytest.raises(InputError, match="no adapter; name it as"):
        TunedProgram(TASK, base(), models)
