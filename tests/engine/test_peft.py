"""On the embedded model: numpy and peft lose alike, and engine and transformers give the same answers.

Runs by `make test-extras`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agent.models.engine import EngineServer
from agent.models.weights import weights_path
from agent.training.base_model import load_base
from agent.training.parameters import read_lora
from agent.training.rows import engine_tokens
from agent.training.settings import LoraSettings, TrainingPair
from agent.types import Message
from tests.training.engine import load
from tests.training.tiny import train_pairs

BASE = weights_path("smollm2-135m")
pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(not BASE.is_file(), reason="no weights here: run `make setup`"),
    pytest.mark.extra("tune"),
]

THINGS = {
    "Colour": ("red", "blue", "green", "black", "white", "yellow", "pink", "brown", "grey"),
    "Animal": ("dog", "cat", "horse", "bird", "fish", "cow", "pig", "sheep", "mouse"),
    "Food": ("bread", "cheese", "soup", "rice", "cake", "pasta", "apple"),
}
PAIRS = [
    TrainingPair((Message("user", f"Classify.\nI saw {word} today."),), label)
    for label, words in THINGS.items()
    for word in words
]
TRAIN = [*PAIRS[:7], *PAIRS[9:16], *PAIRS[18:24]]
SETTINGS = LoraSettings(batch=2, epochs=2, threads=1)


def test_both_trainers_lose_alike_and_engine_and_transformers_answer_alike(tmp_path: Path) -> None:
    import torch
    from peft import PeftModel

    from agent.training.hf_files import peft_form
    from agent.training.torch_learner import hf_model

    assert len(PAIRS) == 25
    ours, theirs = (
        train_pairs(BASE, TRAIN, SETTINGS, folder=tmp_path / trainer, trainer=trainer) for trainer in ("numpy", "peft")
    )
    assert len(ours.losses) == len(theirs.losses) == 20
    np.testing.assert_allclose(theirs.losses, ours.losses, atol=1e-2)

    base = load_base(BASE)
    for name, data in peft_form(read_lora(theirs.path, BASE), base.architecture, None).items():
        (tmp_path / name).write_bytes(data)
    model = PeftModel.from_pretrained(hf_model(base), str(tmp_path)).eval()
    server, end = load(BASE, theirs.path), base.architecture.end_of_turn
    api, answers, right = EngineServer(server.listening_address, ""), [], 0
    for pair, tokens in zip(PAIRS, engine_tokens(BASE, PAIRS, base.architecture), strict=True):
        messages = [{"role": message.role, "content": message.content} for message in pair.messages]
        served = server.handle_completions({"prompt": list(tokens.prompt), "n_predict": 5, "temperature": 0})
        chat = server.handle_chat_completions({"messages": messages, "max_tokens": 5, "temperature": 0})
        with torch.no_grad():
            made = model.generate(
                input_ids=torch.tensor([tokens.prompt]), max_new_tokens=5, do_sample=False, eos_token_id=end
            )[0, len(tokens.prompt) :].tolist()
        said = chat["choices"][0]["message"]["content"]
        assert served["choices"][0]["text"] == said
        answer = made[: made.index(end)] if end in made else made
        answers.append((said, api.post("/detokenize", {"tokens": answer})["content"]))
        right += said == pair.answer
    assert all(one == other for one, other in answers)
    assert right >= 15
