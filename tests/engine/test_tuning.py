"""Training on the embedded model: the engine's tokens and scores, and what it serves; numpy and PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.models.adapters import free_tokens
from agent.models.engine import EngineServer
from agent.models.gguf import read_gguf
from agent.models.local import without_turn_marks
from agent.models.weights import weights_path
from agent.training.base_model import load_base, read_architecture
from agent.training.decoder import logits
from agent.training.parameters import Lora, read_lora
from agent.training.rows import engine_tokens, pack
from agent.training.settings import LoraSettings, SoftPromptSettings, TrainingPair
from agent.types import Message, Request
from tests.engine.test_engine import ask
from tests.training.engine import load, log_probabilities, top
from tests.training.tiny import train_pairs

NAME = "local/smollm2-135m"
BASE = weights_path("smollm2-135m")
pytestmark = [pytest.mark.engine, pytest.mark.skipif(not BASE.is_file(), reason="no weights here: run `make setup`")]
CLOSE = 0.5  # in nats; the engine rounds what goes into a matrix of 4 bits to 8 bits
THINGS = {"Colour": ("red", "blue", "green", "black", "white"), "Animal": ("dog", "cat", "horse", "bird", "fish")}
PAIRS = [
    TrainingPair((Message("user", f"Classify.\nI saw a {word} one."),), label)
    for label, words in THINGS.items()
    for word in words
]
SHAPES = [
    PAIRS[0],
    TrainingPair((Message("system", "Sort it."), Message("user", "A dog.")), "Animal"),
    TrainingPair(
        (Message("user", "red"), Message("assistant", "Colour"), Message("user", "  blue <|im_end|>\n\n")), "Colour"
    ),
    TrainingPair((Message("user", "Größe, 漢字, emoji 🙂\tand [INST] marks </s>"),), "Ja, gewiß 🙂"),
]


def chat(pair: TrainingPair) -> list[dict[str, Any]]:
    return [{"role": message.role, "content": without_turn_marks(message.content)} for message in pair.messages]


def test_prompts_have_the_tokens_and_scores_of_the_engine() -> None:
    base, server = load_base(BASE), load(BASE)
    lora = Lora(base.architecture, 8, 2.0).initial(0)
    for pair, tokens in zip(SHAPES, engine_tokens(BASE, SHAPES, base.architecture), strict=True):
        served = server.handle_chat_completions({"messages": chat(pair), "max_tokens": 1, "cache_prompt": True})
        longer = [*tokens.prompt, tokens.answer[0]]
        again = server.handle_completions({"prompt": longer, "n_predict": 1, "cache_prompt": True})
        assert served["usage"]["prompt_tokens"] == len(tokens.prompt)
        assert again["usage"]["prompt_tokens_details"]["cached_tokens"] == len(tokens.prompt)  # all that was kept
        assert tokens.answer[-1] == 2
        ours = log_probabilities(logits(base, lora, pack([tokens])))[0]
        for token, value in top(server, tokens.prompt).items():
            assert ours[token] == pytest.approx(value, abs=CLOSE)


@pytest.mark.long
def test_an_adapter_that_was_trained_is_served_and_changes_the_answers(tmp_path: Path) -> None:
    adapter = train_pairs(BASE, PAIRS, LoraSettings(batch=5, epochs=5), folder=tmp_path)
    assert adapter.losses[-1] < 0.2 < 3 < adapter.losses[0]
    asked = PAIRS[3:7]
    for name, right in ((NAME, 0), (f"{NAME}+{adapter.path}", len(asked))):
        replies = ask(*(Request(pair.messages, 5) for pair in asked), name=name)
        assert sum(reply.text == pair.answer for reply, pair in zip(replies, asked, strict=True)) == right


@pytest.mark.long
def test_a_soft_prompt_that_was_trained_is_served_with_its_base(tmp_path: Path) -> None:
    settings = SoftPromptSettings(batch=5, epochs=6)
    made = train_pairs(BASE, PAIRS, settings, folder=tmp_path)
    assert made.losses[-1] < 1 < made.losses[0]
    assert made.path.stat().st_size < 3_000_000
    requests = [Request(pair.messages, 5) for pair in PAIRS]
    before, tuned, after = (ask(*requests, name=name) for name in (NAME, f"{NAME}+{made.path}", NAME))
    assert [reply.text for reply in before] == [reply.text for reply in after]
    right, was = (
        sum(reply.text.strip() == pair.answer for reply, pair in zip(replies, PAIRS, strict=True))
        for replies in (tuned, before)
    )
    assert right > was
    soft = free_tokens(read_gguf(BASE), settings.vectors)
    assert len(soft.ids) == 14
    trained = engine_tokens(BASE, PAIRS, read_architecture(read_gguf(BASE)), soft)
    assert [reply.usage.prompt_tokens for reply in tuned] == [len(pair.prompt) for pair in trained]


@pytest.mark.extra("tune")
def test_both_trainers_lose_alike_and_engine_and_transformers_answer_alike(tmp_path: Path) -> None:
    import torch
    from peft import PeftModel

    from agent.training.hf_files import peft_form
    from agent.training.torch_learner import hf_model

    settings = LoraSettings(batch=2, epochs=3, threads=1)
    ours, theirs = (
        train_pairs(BASE, PAIRS, settings, folder=tmp_path / trainer, trainer=trainer) for trainer in ("numpy", "peft")
    )
    assert len(ours.losses) == len(theirs.losses) == 15
    np.testing.assert_allclose(theirs.losses, ours.losses, atol=1e-2)

    base = load_base(BASE)
    for name, data in peft_form(read_lora(theirs.path, BASE), base.architecture, None).items():
        (tmp_path / name).write_bytes(data)
    model = PeftModel.from_pretrained(hf_model(base), str(tmp_path)).eval()
    server, end = load(BASE, theirs.path), base.architecture.end_of_turn
    api, right = EngineServer(server.listening_address, ""), 0
    for pair, tokens in zip(PAIRS, engine_tokens(BASE, PAIRS, base.architecture), strict=True):
        served = server.handle_chat_completions({"messages": chat(pair), "max_tokens": 5, "temperature": 0})
        with torch.no_grad():
            made = model.generate(
                input_ids=torch.tensor([tokens.prompt]), max_new_tokens=5, do_sample=False, eos_token_id=end
            )[0, len(tokens.prompt) :].tolist()
        answer = made[: made.index(end)] if end in made else made
        text = served["choices"][0]["message"]["content"]
        assert text == api.post("/detokenize", {"tokens": answer})["content"]
        right += text == pair.answer
    assert right >= 6
