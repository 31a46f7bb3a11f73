"""llama.cpp reads the same models and adapters, and says the same: rotation, biases, shared heads, scale."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agent.training.base_model import load_base
from agent.training.decoder import logits
from agent.training.parameters import Lora, lora_size
from agent.training.rows import TokenPair, pack
from tests.training.engine import load, log_probabilities, top
from tests.training.tiny import tiny, with_vocabulary

IDS = (5, 6, 7, 20, 31, 12, 9)
CLOSE = 0.02  # the engine keeps keys and values in float16


@pytest.mark.parametrize(("family", "tied"), [("llama", True), ("qwen2", False)])
def test_the_engine_gives_the_same_log_probabilities(tmp_path: Path, family: str, tied: bool) -> None:
    path = with_vocabulary(tiny(tmp_path / "tiny.gguf", family, tied))
    base = load_base(path)
    flat = np.random.default_rng(1).normal(0, 0.2, lora_size(base.architecture, 3)).astype(np.float32)
    trained = Lora(base.architecture, 3, 2.0, flat)
    adapter, _ = trained.write(tmp_path)
    found = []
    for file, lora in ((None, Lora(base.architecture, 3, 2.0).initial(0)), (adapter, trained)):
        theirs = top(load(path, file), IDS)
        ours = log_probabilities(logits(base, lora, pack([TokenPair(IDS, (1,))])))[0]
        assert int(ours.argmax()) == max(theirs, key=theirs.__getitem__)
        for token, value in theirs.items():
            assert ours[token] == pytest.approx(value, abs=CLOSE)
        found.append(ours)
    assert np.abs(found[0] - found[1]).max() > 10 * CLOSE  # the adapter changes something
