"""Replies that are kept in a file, so that what several systems ask alike is computed once.

At temperature 0 a model answers the same request alike, and most of what is asked on a test set is: the user's prompt,
and the first candidates of two runs of ours that differ in their proposer. Calls and tokens are counted as if each had
been made; only seconds are saved, so runs with kept replies say nothing of time. Samples (a temperature above 0) are
always made.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agent.types import LM, Completion, Request, Usage, scores_labels


class KeptReplies:
    """A model whose replies are looked up in `file` first.

    Args:
        model: the model that answers what is not kept.
        weights: what tells it from other models in the file, as the name of its weights.
        file: an SQLite file, made when it is missing.
    """

    def __init__(self, model: LM, weights: str, file: Path) -> None:
        self._model, self._weights = model, weights
        self.name, self.concurrency, self.scores_labels = model.name, model.concurrency, scores_labels(model)
        self.count_tokens = model.count_tokens
        self._kept = sqlite3.connect(file, isolation_level=None)
        self._kept.execute("CREATE TABLE IF NOT EXISTS replies (request TEXT PRIMARY KEY, reply TEXT) WITHOUT ROWID")

    async def complete(self, request: Request) -> Completion:
        if request.temperature:
            return await self._model.complete(request)
        asked = json.dumps([self._weights, request.identity()], sort_keys=True)
        key = hashlib.sha256(asked.encode()).hexdigest()
        row = self._kept.execute("SELECT reply FROM replies WHERE request = ?", (key,)).fetchone()
        if row is not None:
            return completion(json.loads(row[0]))
        reply = await self._model.complete(request)
        self._kept.execute("INSERT OR REPLACE INTO replies VALUES (?, ?)", (key, json.dumps(asdict(reply))))
        return reply

    async def close(self) -> None:
        self._kept.close()
        await self._model.close()


def completion(body: dict[str, Any]) -> Completion:
    """A completion as it was before `dataclasses.asdict` and JSON."""
    tops = tuple(tuple((token, log) for token, log in place) for place in body["logprobs"])
    lists = {"logprobs": tops, "label_logprobs": tuple(body["label_logprobs"])}
    return Completion(**{**body, **lists, "usage": Usage(**body["usage"])})
