"""Training on the embedded model: the same tokens and scores as the engine, and an adapter that the engine serves."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.errors import ProblemsError
from agent.models.gguf import read_gguf
from agent.models.local import without_turn_marks
from agent.models.weights import weights_path
from agent.training.base_model import load_base, read_architecture
from agent.training.decoder import logits
from agent.training.parameters import Lora
from agent.training.rows import engine_tokens, pack
from agent.training.settings import LoraSettings, TrainingPair
from agent.types import Message
from tests.training.engine import load, log_probabilities, top
from tests.training.tiny import train_pairs

BASE = weights_path("smollm2-135m")
pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(not BASE.is_file(), reason="no weights here: run `make setup`"),
]

CLOSE = 0.5  # in nats; the engine rounds what goes into a matrix of 4 bits to 8 bits
COLOURS = ("red", "blue", "green", "black", "white")
ANIMALS = ("dog", "cat", "horse", "bird", "fish")
PAIRS = [
    TrainingPair((Message("user", f"Classify.\nI saw a {word} one."),), answer)
    for words, answer in ((COLOURS, "Colour"), (ANIMALS, "Animal"))
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


def test_prompts_have_the_tokens_that_the_engine_makes_of_them() -> None:
    pairs = [*SHAPES, *PAIRS, *(TrainingPair((Message("user", f"Number {n}: {'ab ' * n}"),), "x") for n in range(11))]
    made = engine_tokens(BASE, pairs, read_architecture(read_gguf(BASE)))
    server = load(BASE)
    for pair, tokens in zip(pairs, made, strict=True):
        messages = [{"role": message.role, "content": without_turn_marks(message.content)} for message in pair.messages]
        served = server.handle_chat_completions({"messages": messages, "max_tokens": 1, "cache_prompt": True})
        longer = [*tokens.prompt, tokens.answer[0]]
        again = server.handle_completions({"prompt": longer, "n_predict": 1, "cache_prompt": True})
        assert served["usage"]["prompt_tokens"] == len(tokens.prompt)
        assert again["usage"]["prompt_tokens_details"]["cached_tokens"] == len(tokens.prompt)  # all that was kept
    assert len(pairs) == 25
    assert all(tokens.answer[-1] == 2 for tokens in made)


def test_scores_are_close_to_those_of_the_engine() -> None:
    base = load_base(BASE)
    lora, server = Lora(base.architecture, 8, 2.0).initial(0), load(BASE)
    for tokens in engine_tokens(BASE, SHAPES, base.architecture):
        ours = log_probabilities(logits(base, lora, pack([tokens])))[0]
        theirs = top(server, tokens.prompt)
        for token, value in theirs.items():
            assert ours[token] == pytest.approx(value, abs=CLOSE)


@pytest.mark.long
def test_an_adapter_that_was_trained_is_served_and_changes_the_answers(tmp_path: Path) -> None:
    adapter = train_pairs(BASE, PAIRS, LoraSettings(batch=5, epochs=5), folder=tmp_path)
    assert adapter.losses[-1] < 0.2 < 3 < adapter.losses[0]
    asked = PAIRS[3:7]
    for file, right in ((None, 0), (adapter.path, len(asked))):
        server, found = load(BASE, file), 0
        for pair in asked:
            messages = [{"role": message.role, "content": message.content} for message in pair.messages]
            reply = server.handle_chat_completions({"messages": messages, "max_tokens": 5, "temperature": 0})
            found += reply["choices"][0]["message"]["content"] == pair.answer
        assert found == right


def test_pairs_that_cannot_be_trained_on_are_named_all_at_once(tmp_path: Path) -> None:
    wrong = [PAIRS[0], TrainingPair((), "x"), TrainingPair(PAIRS[0].messages, " ")]
    with pytest.raises(ProblemsError, match=r"pair 2: has no messages\npair 3: has no answer"):
        train_pairs(BASE, wrong, LoraSettings(), folder=tmp_path)
    long = TrainingPair((Message("user", "word " * 5000),), "x")
    with pytest.raises(ProblemsError, match=r"pair 2: has 50\d\d tokens, more than the 4096"):
        train_pairs(BASE, [PAIRS[0], long], LoraSettings(), folder=tmp_path)
