"""A model that plays the user: what it writes goes to the target, and an empty reply of it is no message."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from pathlib import Path

import pytest

from agent.errors import InputError, RowRefused
from agent.evaluate.evaluator import Evaluator
from agent.models.adapters import Adapter
from agent.programs.prompt import PromptProgram
from agent.programs.variants import ConversationProgram, TunedProgram
from agent.prompt.label_calibration import LabelCalibration, read_reply
from agent.prompt.prompt_candidate import PromptCandidate, TunedCandidate, baseline
from agent.scoring.task_metrics import build_metrics
from agent.types import LM, Completion, Demo, Example, Field, Prediction, Request, Signature, SimulatedUser, call_key
from tests.gateway.doors import gateway
from tests.ledger.ledgers import read
from tests.models.lora import lora
from tests.toys import TEAMS, FakeModel, make_task, open_ledger

GOAL = Example("r1", {"goal": "Order tea."}, {"order": "tea"})


class Straight:
    """Calls without a gateway."""

    logprobs, stopped = 0, None

    def __init__(self, target: LM) -> None:
        self._target = target

    async def __call__(self, request: Request, lm: LM | None = None) -> Completion:
        return await (lm or self._target).complete(request)

    async def aside(self, request: Request, lm: LM) -> Completion:
        return await lm.complete(request)


async def talk(user_says: list[str], target_says: str = "Noted.") -> tuple[FakeModel, Prediction]:
    left = iter(user_says)
    target, user = FakeModel(lambda _: target_says), FakeModel(lambda _: next(left), "fake/guest")
    signature = Signature((Field("goal", "conversation"),), (Field("order"),))
    task = make_task(signature=signature, train=(GOAL,), user=SimulatedUser(user.name, "You are a guest.", 4, "[END]"))
    program = ConversationProgram(task, target, user)
    return target, await program.run(program.baseline(), GOAL, Straight(target))


async def test_an_empty_reply_of_the_user_ends_the_conversation() -> None:
    target, prediction = await talk(["A tea.", " \n"])
    assert [message.content for message in target.seen[-1].messages[1:]] == ["A tea."]
    assert (len(target.seen), prediction.raw) == (1, "Noted.")


async def test_a_user_that_says_nothing_at_all_is_named() -> None:
    for said in ("", "[END]"):
        with pytest.raises(RowRefused, match="fake/guest, which plays the user, wrote no message"):
            await talk([said])


async def test_an_empty_reply_of_the_target_is_sent_on_as_none() -> None:
    target, _ = await talk(["A tea.", "Hello?[END]"], " ")
    assert [message.content for message in target.seen[-1].messages[1:]] == ["A tea.", "(no reply)", "Hello?"]


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
    row, plain = TASK.dev[0], PromptProgram(TASK, base())
    assert (program.check(one), program.place(one)) == ("", plain.place(prompt))
    assert program.request(one, row) == plain.request(prompt, row)


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


TEAM = Field("team", "choice", choices=TEAMS)
SCORES = (-2.0, -0.5, -1.0)


def test_the_model_s_own_scores_go_before_the_lists_of_the_likeliest_tokens() -> None:
    calibration = LabelCalibration("fitted", dict(zip(TEAMS, (0.0, -2.0, 0.0), strict=True)))
    lists = [[("billing", math.log(0.9)), ("delivery", math.log(0.1))]]
    assert read_reply("billing", lists, (TEAM,), False, calibration).fields == {"team": "billing"}
    found = read_reply("billing", lists, (TEAM,), False, calibration, exact=SCORES)
    assert found.fields == {"team": "refunds"}
    terms = [math.exp(score + bias) for score, bias in zip(SCORES, calibration.bias.values(), strict=True)]
    assert found.confidence == pytest.approx(terms[2] / sum(terms))
    assert read_reply("billing", (), (TEAM,), False, calibration, exact=SCORES).fields == {"team": "refunds"}
    assert read_reply("billing", lists, (TEAM,), False, calibration, SCORES[:2]).fields == {"team": "billing"}, (
        "not theirs"
    )
