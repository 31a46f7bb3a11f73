"""Training rows: pairs as token ids of the engine that will serve them, and the packs of a batch.

Prompts are tokenized as they are sent, with the same turn marks and default system message. A pack holds rows as one
sequence without padding: their common prefix once, then the rest of each. A row sees the prefix and itself; as
attention is causal, a packed row has the same loss and gradients as alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agent.errors import InputError, Problem, refuse_all
from agent.models.adapters import SoftTokens
from agent.models.engine import cannot_load, start_engine
from agent.models.gguf import Array
from agent.models.local import engine_messages, without_turn_marks
from agent.training.base_model import Architecture
from agent.training.settings import TrainingPair
from agent.types import Message

AT_ONCE = 512
"""Tokens of a pack: more need memory and are hardly faster."""


@dataclass(frozen=True, slots=True)
class TokenPair:
    """Token ids of a prompt, and of the answer with the token that ends it."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Pack:
    """Rows as one sequence of T tokens, of which all rows share the first `prefix`.

    `positions`: (T,) the index of each in its row; `outputs`: (n,) the indices whose output is compared with `targets`.
    """

    ids: Array
    positions: Array
    prefix: int
    spans: tuple[tuple[int, int], ...]
    outputs: Array
    targets: Array


def pack(pairs: Sequence[TokenPair]) -> Pack:
    prefix = shared_prefix(pairs)
    ids, positions = list(pairs[0].prompt[:prefix]), list(range(prefix))
    spans, outputs, targets = list[tuple[int, int]](), list[int](), list[int]()
    for pair in pairs:
        start = len(ids)
        row = [*pair.prompt, *pair.answer[:-1]]  # the last token of the answer is only predicted
        ids += row[prefix:]
        positions += range(prefix, len(row))
        spans.append((start, len(ids)))
        outputs += range(len(ids) - len(pair.answer), len(ids))
        targets += pair.answer
    return Pack(np.array(ids), np.array(positions), prefix, tuple(spans), np.array(outputs), np.array(targets))


def packs(pairs: Sequence[TokenPair], at_once: int) -> list[Pack]:
    """Pack the rows of a batch into `at_once` tokens each; a longer row goes alone."""
    shared = shared_prefix(pairs)
    groups: list[list[TokenPair]] = []
    room = 0
    for pair in pairs:
        own = len(pair.prompt) + len(pair.answer) - shared
        if own > room:
            groups.append([])
            room = at_once - shared
        groups[-1].append(pair)
        room -= own
    return [pack(group) for group in groups]


def parts(pairs: Sequence[TokenPair], count: int) -> list[list[TokenPair]]:
    """Divide the rows of a batch into at most `count` groups of similar size."""
    shared = shared_prefix(pairs)
    sizes = [len(pair.prompt) + len(pair.answer) - shared for pair in pairs]
    total, before = sum(sizes), 0
    groups: list[list[TokenPair]] = [[] for _ in range(count)]
    for pair, size in zip(pairs, sizes, strict=True):
        groups[(2 * before + size) * count // (2 * total)].append(pair)  # where its middle lies
        before += size
    return [group for group in groups if group]


def shared_prefix(pairs: Sequence[TokenPair]) -> int:
    """Count the tokens that all prompts start with, but leave one of each to compare."""
    if len(pairs) == 1:
        return 0
    first, last = min(pair.prompt for pair in pairs), max(pair.prompt for pair in pairs)
    most = min(len(pair.prompt) for pair in pairs) - 1
    return next((at for at in range(most) if first[at] != last[at]), most)


NO_TOKENS = SoftTokens((), ())
MOST_TOKENS = 4096
"""Maximum tokens of a pair; longer ones would take gigabytes."""


def engine_tokens(
    base: Path, pairs: Sequence[TrainingPair], architecture: Architecture, soft: SoftTokens = NO_TOKENS
) -> list[TokenPair]:
    """Tokenize each pair, the answer with the token that ends a turn.

    Raises ProblemsError with all pairs that are incomplete or too long; InputError where the engine cannot load the
    model, or changes the tokens of `soft`.
    """
    refuse_all(
        Problem(f"pair {at}", "has no messages or no answer")
        for at, pair in enumerate(pairs, 1)
        if not (pair.messages and pair.answer.strip())
    )
    engine = _Engine(base)
    answers = {answer: engine.answer(answer) for answer in dict.fromkeys(pair.answer for pair in pairs)}
    made = [TokenPair(engine.prompt(pair, soft), (*answers[pair.answer], architecture.end_of_turn)) for pair in pairs]
    most = min(MOST_TOKENS, architecture.context)
    refuse_all(
        Problem(f"pair {at}", f"has {size} tokens, more than {most}; leave it out or shorten its prompt")
        for at, pair in enumerate(made, 1)
        if (size := len(pair.prompt) + len(pair.answer)) > most
    )
    return made


def require_soft_tokens(base: Path, messages: Sequence[Message], soft: SoftTokens) -> None:
    """Check that the engine keeps the tokens of a soft prompt before these messages.

    Raises InputError where it does not, or cannot load the model.
    """
    _Engine(base).prompt(TrainingPair(tuple(messages), ""), soft)


class _Engine:
    """An engine for templates and tokens only, on loopback, with a random key."""

    def __init__(self, base: Path) -> None:
        self._base = base
        try:
            self._engine, self._api = start_engine(base, 256)  # nothing is computed
        except Exception as error:  # the engine raises plain RuntimeErrors for damaged files
            raise cannot_load(base, error) from error

    def prompt(self, pair: TrainingPair, soft: SoftTokens) -> tuple[int, ...]:
        text = self._api.post("/apply-template", {"messages": engine_messages(pair.messages, soft.texts)})["prompt"]
        ids = tuple(
            self._api.post("/tokenize", {"content": text, "add_special": True, "parse_special": True})["tokens"]
        )
        if tuple(token for token in ids if token in soft.ids) != soft.ids:
            raise InputError(f"{self._base}: its tokenizer or chat template changes the tokens of a soft prompt")
        return ids

    def answer(self, text: str) -> tuple[int, ...]:
        asked = {"content": without_turn_marks(text), "add_special": False, "parse_special": False}
        return tuple(self._api.post("/tokenize", asked)["tokens"])
