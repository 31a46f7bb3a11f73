"""Other ways to run prompts: conversations, prompts with an adapter, and released prompts as in production.

Each turn of a conversation is a call whose messages hold the replies before it, so a resumed run takes the turns that
it bought from the ledger. A search makes no adapter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, ClassVar, Protocol

from agent.conversation import Speaker, Turns, as_text, turns_of
from agent.errors import InputError, RowRefused
from agent.gateway.embedding import Embedder
from agent.models.adapters import Adapter
from agent.programs.kinds import unrefused
from agent.programs.prompt import PromptProgram
from agent.prompt.prompt_candidate import PromptCandidate, TunedCandidate, as_prompt
from agent.release.completion import parameters_of
from agent.release.runtime import Prompt
from agent.types import LM, Call, Candidate, Completion, Example, Message, Prediction, Request, SimulatedUser, Task

OPENING = "(The conversation begins. Write your first message.)"  # the first message to the model that plays the user

NO_REPLY = "(no reply)"  # replaces an empty reply of the target in the next call: providers refuse empty messages


class ConversationProgram(PromptProgram):
    """Prompts with one call per turn. `user` plays the user; None if rows have its messages."""

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
            request = self.request(candidate, self._said(example, said), repeat)
            most = max(request.max_tokens, self._user.reply_tokens)
            reply = unrefused(await self.asked(candidate, replace(request, max_tokens=most), call)).text
            said.append(("assistant", _sendable(reply)))
        return await self._answered(candidate, example, [*said, ("user", last)], call, repeat)

    async def _played(self, user: LM, candidate: Candidate, example: Example, call: Call, repeat: int) -> Prediction:
        said: Turns = []
        prediction: Prediction | None = None
        for _ in range(self._user.max_turns):
            completion = await call.aside(_user_request(self._user, example.inputs[self._name], said, repeat), user)
            text, stop, _ = unrefused(completion).text.partition(self._user.stop)
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
        self, candidate: Candidate, example: Example, said: Sequence[tuple[Speaker, str]], call: Call, repeat: int
    ) -> Prediction:
        row = self._said(example, said)
        return replace(await super().run(candidate, row, call, repeat), conversation=row.inputs[self._name])

    def _said(self, example: Example, said: Sequence[tuple[Speaker, str]]) -> Example:
        return replace(example, inputs={self._name: as_text(said)})

    def max_tokens(self, candidate: Candidate) -> int:
        """Return the most tokens of a last reply. With a simulated user, any may be the last."""
        most = super().max_tokens(candidate)
        return most if self._as_user is None else max(most, self._user.reply_tokens)


def _sendable(reply: str) -> str:
    return reply if reply.strip() else NO_REPLY


def _user_request(user: SimulatedUser, goal: str, said: Turns, repeat: int) -> Request:
    ending = f"When your goal is reached, or cannot be, end your message with {user.stop}"
    system = f"{user.prompt.strip()}\n\nYour goal: {goal}\n\nWrite the user's next message only. {ending}"
    turned = [Message("assistant" if role == "user" else "user", content) for role, content in said]
    messages = (Message("system", system), Message("user", OPENING), *turned)
    return Request(messages, user.reply_tokens, repeat=repeat)


class AdaptedModel(LM, Protocol):
    @property
    def adapter(self) -> Adapter | None: ...


def adapter_of(candidate: Candidate) -> str:
    return as_prompt(candidate).part("adapter") if isinstance(candidate, TunedCandidate) else ""


class TunedProgram(PromptProgram):
    """Prompts answered by a base (`lm`) with one of several adapters, or by a fine-tuned copy."""

    kind = TunedCandidate.kind

    def __init__(
        self, task: Task, lm: LM, models: Sequence[AdaptedModel], copies: Mapping[str, LM] = MappingProxyType({})
    ) -> None:
        super().__init__(task, lm)
        if plain := [model.name for model in models if model.adapter is None]:
            raise InputError(f"{', '.join(plain)}: no adapter; name it as local/BASE+ADAPTER.gguf")
        self._models: dict[str, LM] = {model.adapter.sha256: model for model in models if model.adapter is not None}
        self._models |= copies

    def candidates(self, prompt: PromptCandidate) -> list[TunedCandidate]:
        return [TunedCandidate.of(prompt, adapter) for adapter in self._models]

    def model_of(self, candidate: Candidate) -> LM:
        return self._models[adapter_of(candidate)]

    def check(self, candidate: Candidate) -> str:
        if adapter_of(candidate) not in self._models:
            return "unknown adapter"
        return super().check(candidate)

    async def asked(self, candidate: Candidate, request: Request, call: Call) -> Completion:
        return await call(request, self.model_of(candidate))


@dataclass(frozen=True, slots=True)
class ReleasedCandidate(Candidate):
    kind: ClassVar[str] = "released"

    version: str

    def parts(self) -> dict[str, Any]:
        return {"version": self.version}


class ReleasedProgram:
    """Runs a released prompt on a model; `embedder`: of picks by a provider's vectors."""

    kind = ReleasedCandidate.kind

    def __init__(self, prompt: Prompt, task: Task, lm: LM, embedder: Embedder | None = None) -> None:
        self._embedder = embedder
        self.candidate = ReleasedCandidate(prompt.version)
        self._release = prompt.release
        self._parameters = parameters_of(prompt.release)
        self._more = 0 if lm.name == prompt.model else task.room(0)  # the released cap holds its own model's

    async def run(self, candidate: Candidate, example: Example, call: Call, repeat: int = 0) -> Prediction:
        parameters, release = self._parameters, self._release
        row = release.row(example.inputs)
        if self._embedder is not None:
            row = release.row(example.inputs, vector=await self._embedder.vector(row.text))
        request = release.request(
            row,
            max_tokens=int(parameters["max_tokens"]) + self._more,
            repeat=repeat,
            **{name: parameters[name] for name in ("temperature", "stop", "seed", "logprobs", "labels")},
        )
        return await release.read_aside(await call(request), row)
