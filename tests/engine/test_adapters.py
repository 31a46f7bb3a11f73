"""Adapters on the embedded model: one engine serves the base and three of them, and no reply depends on the order."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from collections.abc import Sequence

import pytest

from agent.models import local_engines
from agent.models.local import LocalModel
from agent.models.model_registry import create_model
from agent.models.weights import weights_path
from agent.types import Completion, Message, Request
from tests.models.lora import lora

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(not weights_path("smollm2-135m").is_file(), reason="no weights here: run `make setup`"),
]

REQUESTS = int(os.environ.get("ADAPTER_REQUESTS", "12"))
"""How many are mixed; 200 shows more and takes minutes."""
SYSTEMS = (
    "Answer the question about the sea in a few words. " * 4,
    "Mountains are high and cold; say what the climber asks. " * 4,
    "You sort letters for the post office of a small town. " * 4,
)
QUESTIONS = ("How far is it?", "Who is there?")

Question = tuple[int, int]


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The base, and three adapters of it."""
    folder = tmp_path_factory.mktemp("adapters")
    adapters = [lora(folder / f"{seed}.gguf", seed) for seed in range(3)]
    return ["local/smollm2-135m", *(f"local/smollm2-135m+{path}" for path in adapters)]


def request(question: Question) -> Request:
    system, user = question
    return Request((Message("system", SYSTEMS[system]), Message("user", QUESTIONS[user])), 6, logprobs=2)


def ask(names: Sequence[str], asked: Sequence[tuple[int, Question]], at_once: bool = False) -> list[Completion]:
    """Replies in order; one engine, whose models are open at the same time."""

    async def run() -> list[Completion]:
        models: list[LocalModel] = [create_model(name) for name in names]  # type: ignore[misc]
        for model in models:
            model.engines = 1
        try:
            calls = [models[which].complete(request(question)) for which, question in asked]
            return list(await asyncio.gather(*calls)) if at_once else [await call for call in calls]
        finally:
            for model in models:
                await model.close()

    return asyncio.run(run())


def test_replies_do_not_depend_on_the_order_of_calls_to_the_base_and_its_adapters(names: list[str]) -> None:
    """Each prompt comes back under another adapter, after others, so that a prefix of the wrong one would be there."""
    rng = random.Random(0)
    asked = [(rng.randrange(4), (rng.randrange(3), rng.randrange(2))) for _ in range(REQUESTS)]
    mixed = ask(names, asked)
    for which in range(4):
        mine = [(question, reply) for (other, question), reply in zip(asked, mixed, strict=True) if other == which]
        wanted = sorted({question for question, _ in mine})
        alone = dict(zip(wanted, ask([names[which]], [(0, question) for question in wanted]), strict=True))
        assert [reply.text for _, reply in mine] == [alone[question].text for question, _ in mine]
        assert [reply.logprobs for _, reply in mine] == [alone[question].logprobs for question, _ in mine]
    by_question = {
        question: {(which, reply.text) for (which, other), reply in zip(asked, mixed, strict=True) if other == question}
        for _, question in asked
    }
    assert max(len({text for _, text in seen}) for seen in by_question.values()) > 1, "no adapter changes a reply"


def test_models_of_one_file_share_one_engine_and_the_last_one_ends_it(names: list[str]) -> None:
    async def run() -> None:
        before = set(local_engines._RUNNING)
        base, tuned = create_model(names[0]), create_model(names[1])
        await base.complete(request((0, 0)))
        threads = threading.active_count()
        await tuned.complete(request((0, 0)))
        assert len(set(local_engines._RUNNING) - before) == 1
        assert threading.active_count() - threads <= 1  # the HTTP thread of the new engine may outlive the old one's
        await base.close()
        assert (await tuned.complete(request((0, 1)))).text
        assert tuned.count_tokens("cancellations") == 3
        await tuned.close()
        assert set(local_engines._RUNNING) == before

    asyncio.run(run())


def test_calls_at_once_get_the_replies_of_calls_one_by_one(names: list[str]) -> None:
    asked = [(which, (0, user)) for which in range(3) for user in range(2)]
    assert [reply.text for reply in ask(names, asked, at_once=True)] == [reply.text for reply in ask(names, asked)]
