"""Prompts of a conversation that continues with the model's replies, where a script or a model plays the user.

Each turn is a separate call whose messages hold the replies before it, so a resumed run takes the turns that it bought
from the ledger and buys the next one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from agent.conversation import Role, Turns, as_text, turns_of
from agent.errors import RowRefused
from agent.programs.prompt import PromptProgram
from agent.prompt.prompt_candidate import as_prompt
from agent.search.context import SearchContext
from agent.search.dspy.strategies import DspyForm
from agent.types import LM, Call, Candidate, Completion, Example, Message, Prediction, Request, SimulatedUser, Task

OPENING = "(The conversation begins. Write your first message.)"
"""What the model that plays the user is sent before its first message."""

NO_REPLY = "(no reply)"
"""What stands for an empty reply of the target in the next call: providers refuse a message without text."""


class ConversationProgram(PromptProgram):
    """Prompts for one task and one model; a row takes a call for each turn.

    `user`: the model that plays the user; None where the rows have its messages.
    """

    is_fixed = False

    def __init__(self, task: Task, lm: LM, user: LM | None = None) -> None:
        super().__init__(task, lm)
        assert task.user is not None
        self._user, self._as_user = task.user, user
        self._name = task.signature.conversation
        self.models = () if user is None else (user,)
        self.calls = 2 if user else min(len(self._script(row)) for row in (*task.dev, *task.test))

    def _script(self, row: Example) -> list[str]:
        return [content for role, content in turns_of(row.inputs[self._name]) if role == "user"]

    async def run(self, candidate: Candidate, example: Example, call: Call, repeat: int = 0) -> Prediction:
        if self._as_user is not None:
            return await self._played(self._as_user, candidate, example, call, repeat)
        given = turns_of(example.inputs[self._name])
        said: Turns = given[:1] if given[0][0] == "system" else []
        *before, last = self._script(example)
        for message in before:
            said.append(("user", message))
            request = self._request(as_prompt(candidate), self._row(example, said), "", repeat, 0)
            most = max(request.max_tokens, self._user.reply_tokens)
            reply = _reply(await self.asked(candidate, replace(request, max_tokens=most), call))
            said.append(("assistant", _sendable(reply)))
        return await self._answered(candidate, example, [*said, ("user", last)], call, repeat)

    async def _played(self, user: LM, candidate: Candidate, example: Example, call: Call, repeat: int) -> Prediction:
        said: Turns = []
        prediction: Prediction | None = None
        for _ in range(self._user.max_turns):
            completion = await call.aside(_user_request(self._user, example.inputs[self._name], said, repeat), user)
            text, stop, _ = _reply(completion).partition(self._user.stop)
            if text.strip():
                said.append(("user", text.strip()))
                prediction = await self._answered(candidate, example, said, call, repeat)
                said.append(("assistant", _sendable(prediction.raw)))
            if stop or not text.strip():
                break
        if prediction is None:
            raise RowRefused(f"{user.name}, which plays the user, wrote no message")
        return prediction

    async def _answered(
        self, candidate: Candidate, example: Example, said: Sequence[tuple[Role, str]], call: Call, repeat: int
    ) -> Prediction:
        row = self._row(example, said)
        return replace(await super().run(candidate, row, call, repeat), conversation=row.inputs[self._name])

    def _row(self, example: Example, said: Sequence[tuple[Role, str]]) -> Example:
        return replace(example, inputs={self._name: as_text(said)})

    def max_tokens(self, candidate: Candidate) -> int:
        """The most of a last reply; where a model plays the user, any may be the last."""
        most = super().max_tokens(candidate)
        return most if self._as_user is None else max(most, self._user.reply_tokens)

    def for_dspy(self, context: SearchContext) -> DspyForm:
        raise NotImplementedError("ConversationProgram: DSPy's optimizers know no turns")


def _reply(completion: Completion) -> str:
    """The text of a reply. Raises RowRefused where the provider refuses."""
    if completion.finish == "refusal":
        raise RowRefused.by_provider(completion.text)
    return completion.text


def _sendable(reply: str) -> str:
    return reply if reply.strip() else NO_REPLY


def _user_request(user: SimulatedUser, goal: str, said: Turns, repeat: int) -> Request:
    """The call for the user's next message: the roles are turned round."""
    ending = f"When your goal is reached, or cannot be, end your message with {user.stop}"
    system = f"{user.prompt.strip()}\n\nYour goal: {goal}\n\nWrite the user's next message only. {ending}"
    turned = [Message("assistant" if role == "user" else "user", content) for role, content in said]
    messages = (Message("system", system), Message("user", OPENING), *turned)
    return Request(messages, user.reply_tokens, repeat=repeat)
