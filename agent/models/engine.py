"""One llama.cpp engine with its HTTP server, and exact log-probabilities of labels after a reply.

The server provides what the Python interface lacks (tokens, templates).

Labels form a tree of tokens, of which only the forks count. Where one label alone continues, its tokens are given, as
in constrained decoding: the frequency of the rest of a long name says nothing about the label.

The reply's own distributions cover most forks, always the first. Other forks take a pass of a few tokens each, in a
fixed order and right after the reply, so that results are bit-equal whatever the engine answered before.
"""

from __future__ import annotations

import json
import math
import secrets
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from agent.errors import InputError


class EngineServer(NamedTuple):
    """The loopback address of an engine's server, and its key."""

    address: str
    key: str

    def post(self, path: str, body: Any) -> Any:
        """Post JSON to the server and return its JSON, bypassing any proxy."""
        request = urllib.request.Request(
            f"{self.address}{path}",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {self.key}"},
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=60) as response:
            return json.load(response)


def start_engine(path: Path, context: int, **more: Any) -> tuple[Any, EngineServer]:
    """Start an engine of one thread, and its server with a random key."""
    import xllamacpp

    key, params = secrets.token_hex(16), xllamacpp.CommonParams()
    params.model.path = str(path)
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    own = {"n_ctx": context, "n_parallel": 1, "warmup": False, "verbosity": -1, "api_keys": [key]}
    for name, value in {**own, "endpoint_metrics": True, **more}.items():
        setattr(params, name, value)
    engine = xllamacpp.Server(params)
    engine.handle_metrics()  # computes nothing; an engine ended before its loop answers would never end
    return engine, EngineServer(engine.listening_address, key)


def cannot_load(what: object, error: Exception) -> InputError:
    """Return the error for a file that llama.cpp refuses."""
    return InputError(f"{what}: the engine cannot load this file ({error}); fetch it again or name another GGUF")


# -- labels ------------------------------------------------------------------------------------------------------------


TokenPath = tuple[int, ...]  # ids of a label's first tokens
FLOOR = 1e-6  # least probability that a reply ends where a label ends and others continue
LISTED = 200  # length of the list of likeliest tokens: enough for nearly every label, for 5 % of the time of a call
FORCED = 1000.0  # added to the logit of a forced token; log-probabilities are of the logits without it


class LabelScorer:
    """Scores labels on one engine; used by its thread only."""

    def __init__(self, engine: Any, server: EngineServer) -> None:
        self._engine, self._server = engine, server
        self._tree = lru_cache(maxsize=64)(self._make_tree)

    def scores(
        self, messages: Sequence[dict[str, str]], labels: tuple[str, ...], reply: Any, how: Mapping[str, Any]
    ) -> tuple[float, ...]:
        """Return the log-probability of each label at the reply's start.

        A label counts up to its distinguishing token.
        """
        tree = self._tree(labels)
        replied = (reply["choices"][0].get("logprobs") or {}).get("content") or []
        ids: TokenPath = tuple(place["id"] for place in replied)
        prompt, logs = "", {}
        for path, tokens in tree.forks().items():
            listed: dict[int, float] = {}
            is_read = len(ids) > len(path) and ids[: len(path)] == path
            if is_read:
                listed = _listed(replied[len(path)])
            if not is_read or any(token not in listed for token in tokens):
                prompt = prompt or self._server.post("/apply-template", {"messages": messages})["prompt"]
            if not is_read:
                listed = _listed(self._next(prompt, path, LISTED, how))
            for token in (each for each in tokens if each not in listed):
                found = self._next(prompt, path, 1, {**how, "logit_bias": [[token, FORCED]]})
                if found["id"] != token:
                    raise RuntimeError(f"the engine returned token {found['id']}, not {token}")
                listed[token] = float(found["logprob"])
            logs[path] = {token: listed[token] for token in tokens}
        return tree.scores(logs)

    def _next(self, prompt: str, path: TokenPath, listed: int, how: Mapping[str, Any]) -> Any:
        body = {"prompt": [prompt, *path], "max_tokens": 1, "temperature": 0.0, "logprobs": listed}
        reply = self._engine.handle_completions(body | {"cache_prompt": True, **how})
        try:
            return reply["choices"][0]["logprobs"]["content"][0]
        except (KeyError, IndexError, TypeError) as error:
            raise RuntimeError(f"no log-probability of a label: {reply!s:.200}") from error

    def _make_tree(self, labels: tuple[str, ...]) -> LabelTree:
        return LabelTree(tuple(tuple(self._server.post("/tokenize", {"content": label})["tokens"]) for label in labels))


def _listed(place: Any) -> dict[int, float]:
    return {top["id"]: float(top["logprob"]) for top in place["top_logprobs"]}


@dataclass(frozen=True, slots=True)
class LabelTree:
    labels: tuple[TokenPath, ...]

    def forks(self) -> dict[TokenPath, list[int]]:
        """Return the next token ids, sorted, wherever labels part or one ends and others continue.

        >>> LabelTree(((1, 2), (1, 3), (4,))).forks()
        {(): [1, 4], (1,): [2, 3]}
        """
        following: dict[TokenPath, set[int]] = {}
        for label in self.labels:
            for at, token in enumerate(label):
                following.setdefault(label[:at], set()).add(token)
        ends = set(self.labels)
        return {path: sorted(tokens) for path, tokens in sorted(following.items()) if len(tokens) + (path in ends) > 1}

    def scores(self, logs: Mapping[TokenPath, Mapping[int, float]]) -> tuple[float, ...]:
        """Return the log-probability of each label: the sum over the forks on its path.

        A label that ends at a fork gets the probability that its next tokens leave, at least FLOOR.

        >>> tree = LabelTree(((1, 2), (1, 3), (4,)))
        >>> tree.scores({(): {1: -0.5, 4: -1.0}, (1,): {2: -0.25, 3: -2.0}})
        (-0.75, -2.5, -1.0)
        """
        return tuple(sum(_steps(label, logs)) for label in self.labels)


def _steps(label: TokenPath, logs: Mapping[TokenPath, Mapping[int, float]]) -> Sequence[float]:
    steps = [logs[label[:at]][token] for at, token in enumerate(label) if label[:at] in logs]
    if label in logs:
        steps.append(math.log(max(FLOOR, 1.0 - math.fsum(map(math.exp, logs[label].values())))))
    return steps
