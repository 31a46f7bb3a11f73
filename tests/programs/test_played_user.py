"""A model that plays the user: what it writes goes to the target, and an empty reply of it is no message."""

from __future__ import annotations

import pytest

from agent.errors import RowRefused
from agent.programs.variants import ConversationProgram
from agent.types import LM, Completion, Example, Field, Prediction, Request, Signature, SimulatedUser
from tests.toys import FakeModel, make_task

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
