"""A model that needs no weights: answers as the demonstration that shares most words with the input. To try the arena
out in seconds (`--model toy`); its scores mean nothing."""

from __future__ import annotations

import json
import re
from itertools import pairwise

from agent.types import Completion, Request, Usage

TOY = "toy"


class ToyModel:
    name = "toy"
    concurrency = None

    async def complete(self, request: Request) -> Completion:
        text = self._answer(request)
        if request.json_schema:
            fields = json.loads(request.json_schema).get("properties", {"label": {}})
            text = json.dumps({name: field.get("enum", [text])[0] for name, field in fields.items()})
        prompt = sum(self.count_tokens(message.content) for message in request.messages)
        return Completion(text, "stop", Usage(prompt, self.count_tokens(text)), self.name)

    def _answer(self, request: Request) -> str:
        words = set(re.findall(r"\w+", request.messages[-1].content.lower()))
        best, answer = -1, "I cannot tell."
        for user, assistant in pairwise(request.messages):
            if assistant.role == "assistant":
                shared = len(words & set(re.findall(r"\w+", user.content.lower())))
                if shared > best:
                    best, answer = shared, assistant.content
        return answer

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    async def close(self) -> None: ...
