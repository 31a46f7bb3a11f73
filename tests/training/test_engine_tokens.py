"""The engine that is asked for tokens: for this process alone, and without what a file of the user's can do to it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent.errors import InputError
from agent.models.gguf import read_gguf
from agent.training.base_model import read_architecture
from agent.training.rows import TokenPair, engine_tokens
from agent.training.settings import TrainingPair
from agent.types import Message
from tests.training.tiny import END, tiny, with_vocabulary

PAIR = TrainingPair((Message("user", "x"),), "y")


def test_the_engine_listens_on_loopback_with_a_new_random_key_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the parameters that it is started with, as those of the engine that serves."""
    import xllamacpp

    architecture = read_architecture(read_gguf(tiny(tmp_path / "tiny.gguf")))
    asked: list[tuple[list[str], list[str]]] = []

    def server(params: Any) -> SimpleNamespace:
        asked.append((list(params.hostnames), list(params.api_keys)))
        raise RuntimeError("no file")

    monkeypatch.setattr(xllamacpp, "Server", server)
    for _ in range(2):
        with pytest.raises(InputError, match=r"x\.gguf: the engine cannot load this file \(no file\)"):
            engine_tokens(Path("x.gguf"), [PAIR], architecture)
    (hosts, one), (_, other) = asked
    assert hosts == ["127.0.0.1"]
    assert one != other
    assert len(bytes.fromhex(one[0])) == 16


def test_a_pair_is_the_tokens_of_prompt_and_answer_and_the_end_of_a_turn(tmp_path: Path) -> None:
    base = with_vocabulary(tiny(tmp_path / "tiny.gguf"))
    (made,) = engine_tokens(base, [PAIR], read_architecture(read_gguf(base)))
    assert isinstance(made, TokenPair)
    assert made.answer[-1] == END
