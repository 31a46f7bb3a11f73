"""Labels are scored by a model that can: asked for in the request, kept in the ledger, read before any list."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from agent.ledger.store import Ledger, Reservation
from agent.programs.prompt import PromptProgram
from agent.prompt.calibration import LabelCalibration, read_reply
from agent.prompt.prompt_candidate import PromptCandidate, baseline
from agent.shipped import Field
from agent.types import Completion, Request, Usage
from tests.toys import TEAMS, FakeModel, ask, make_task, open_ledger

TEAM = Field("team", "choice", choices=TEAMS)
SCORES = (-2.0, -0.5, -1.0)


class Scoring(FakeModel):
    scores_labels = True


def asked(lm: FakeModel, candidate: PromptCandidate, logprobs: int) -> Request:
    task = make_task()
    return PromptProgram(task, lm).request(candidate, task.dev[0], logprobs=logprobs)


def test_labels_are_asked_for_only_where_the_model_scores_them_and_the_reply_begins_with_one() -> None:
    own = baseline(make_task())
    reasoned = PromptCandidate(technique="chain-of-thought", format="turns", instruction=own.instruction)
    plain, scoring = FakeModel(lambda _: ""), Scoring(lambda _: "")
    assert asked(scoring, own, 5).labels == TEAMS
    assert asked(scoring, own, 0).labels == asked(plain, own, 5).labels == asked(scoring, reasoned, 5).labels == ()


@pytest.mark.parametrize("scores", [(), SCORES])
async def test_the_ledger_gives_scores_back_bit_for_bit_and_a_reply_without_any_as_it_was(
    tmp_path: Path, scores: tuple[float, ...]
) -> None:
    path = tmp_path / "ledger.db"
    reply = Completion("billing", "stop", Usage(3, 1), "fake/m", ((("billing", -0.1),),), scores)
    ledger: Ledger = open_ledger(path)
    request = ask("x", labels=TEAMS if scores else ())
    call = await ledger.reserve(Reservation("run-1", "model", "fake/m", "k_1", "", 1, request, 0.0, 9))
    await ledger.settle("run-1", call, reply, 0.0, 0.1)
    assert ledger.settled("k_1") == reply
    (body,) = ledger.db.execute("SELECT b.body FROM calls k JOIN blobs b ON b.hash = k.response_hash").fetchone()
    assert ("label_logprobs" in body) == bool(scores)
    ledger.close()


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
