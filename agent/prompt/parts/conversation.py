"""A conversation as an input: its messages are sent, and the model answers the last one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.conversation import as_text, messages_of, user_text, waiting_text
from agent.prompt.parts.part import PromptPart
from agent.shipped import ChatRole

ROLES: tuple[ChatRole, ...] = ("system", "user", "assistant", "user")


@dataclass(frozen=True, slots=True)
class Conversing(PromptPart):
    """The input `field` is a conversation, kept as one text."""

    name = "conversation"

    field: str

    def texts_of(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        value = given.get(self.field)
        if not isinstance(value, list | str):
            return given
        try:
            return {**given, self.field: user_text(value) if isinstance(value, str) else waiting_text(value)}
        except ValueError as error:
            raise ValueError(f"{self.field} {error}") from None

    def as_given(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {**values, self.field: messages_of(values[self.field])}

    def tried(self, rows: Iterable[Mapping[str, str]], hostile: Sequence[str]) -> Iterator[Mapping[str, str]]:
        """Yield conversations of hostile messages, then rows whose texts a user wrote."""
        texts = [text for text in hostile if text.strip()]  # an empty message is refused
        for at in range(len(texts)):
            yield {self.field: as_text(list(zip(ROLES, (*texts[at:], *texts[:at]), strict=False)))}
        for values in rows:
            yield {**values, self.field: user_text(values[self.field])}

    def data(self) -> dict[str, Any]:
        return {}
