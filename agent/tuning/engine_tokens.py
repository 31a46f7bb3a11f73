"""Pairs as token ids, by the engine that will serve them: its chat template and its tokenizer.

So a prompt is trained on as it is sent: the same marks of turns, the same default system message.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from agent.errors import InputError, Problem, ProblemsError
from agent.models.adapter_file import SoftTokens
from agent.models.engine_server import cannot_load, start_engine
from agent.models.local import engine_messages, without_turn_marks
from agent.tuning.base_model import Architecture
from agent.tuning.packing import TokenPair
from agent.tuning.settings import TrainingPair
from agent.types import Message

NO_TOKENS = SoftTokens((), ())
MOST_TOKENS = 4096
"""Tokens of a pair; a longer one would take gigabytes."""


def engine_tokens(
    base: Path, pairs: Sequence[TrainingPair], architecture: Architecture, soft: SoftTokens = NO_TOKENS
) -> list[TokenPair]:
    """The token ids of each pair, the answer with the token that ends a turn.

    Raises:
        ProblemsError: pairs without a prompt or an answer, or of too many tokens; all of them.
        InputError: the engine cannot load the model, or does not read the tokens of `soft` as they are.
    """
    problems = [
        Problem(f"pair {at}", what)
        for at, pair in enumerate(pairs, 1)
        for what, is_there in (("has no messages", pair.messages), ("has no answer", pair.answer.strip()))
        if not is_there
    ]
    if problems:
        raise ProblemsError(tuple(problems))
    engine = _Engine(base)
    answers = {answer: engine.answer(answer) for answer in dict.fromkeys(pair.answer for pair in pairs)}
    made = [TokenPair(engine.prompt(pair, soft), (*answers[pair.answer], architecture.end_of_turn)) for pair in pairs]
    most = min(MOST_TOKENS, architecture.context)
    sizes = [len(pair.prompt) + len(pair.answer) for pair in made]
    why = f"more than the {most} that can be trained on; leave it out or shorten its prompt"
    if long := [at for at, size in enumerate(sizes) if size > most]:
        raise ProblemsError(tuple(Problem(f"pair {at + 1}", f"has {sizes[at]} tokens, {why}") for at in long))
    return made


def require_soft_tokens(base: Path, messages: Sequence[Message], soft: SoftTokens) -> None:
    """Asks the engine whether it reads the tokens of a soft prompt before these messages as they are.

    Raises:
        InputError: it does not, or it cannot load the model.
    """
    _Engine(base).prompt(TrainingPair(tuple(messages), ""), soft)


class _Engine:
    """An engine that is asked for texts and tokens alone, on loopback, with a random key."""

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
