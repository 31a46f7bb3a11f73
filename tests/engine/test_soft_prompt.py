"""A soft prompt trained on the embedded model: served beside the base, and by other answers than the base's."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agent.models.adapters import free_tokens
from agent.models.gguf import read_gguf
from agent.models.local import LocalModel
from agent.models.model_registry import create_model
from agent.models.weights import weights_path
from agent.training.base_model import read_architecture
from agent.training.rows import engine_tokens
from agent.training.settings import SoftPromptSettings
from agent.types import Completion, Request
from tests.engine.test_tuning import PAIRS
from tests.training.tiny import train_pairs

BASE = weights_path("smollm2-135m")
pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(not BASE.is_file(), reason="no weights here: run `make setup`"),
]
NAME = "local/smollm2-135m"


def asked(name: str) -> list[Completion]:
    async def run() -> list[Completion]:
        model = create_model(name)
        assert isinstance(model, LocalModel)
        model.engines = 1
        try:
            return [await model.complete(Request(pair.messages, 5)) for pair in PAIRS]
        finally:
            await model.close()

    return asyncio.run(run())


@pytest.mark.long
def test_a_soft_prompt_that_was_trained_is_served_beside_the_base(tmp_path: Path) -> None:
    settings = SoftPromptSettings(batch=5, epochs=6)
    made = train_pairs(BASE, PAIRS, settings, folder=tmp_path)
    assert made.losses[-1] < 1 < made.losses[0]
    assert made.path.stat().st_size < 3_000_000
    before, tuned, after = asked(NAME), asked(f"{NAME}+{made.path}"), asked(NAME)
    assert [reply.text for reply in before] == [reply.text for reply in after]
    right = sum(reply.text.strip() == pair.answer for reply, pair in zip(tuned, PAIRS, strict=True))
    assert right > sum(reply.text.strip() == pair.answer for reply, pair in zip(before, PAIRS, strict=True))
    soft = free_tokens(read_gguf(BASE), settings.vectors)
    assert len(soft.ids) == 14
    trained = engine_tokens(BASE, PAIRS, read_architecture(read_gguf(BASE)), soft)
    assert [reply.usage.prompt_tokens for reply in tuned] == [len(pair.prompt) for pair in trained]
