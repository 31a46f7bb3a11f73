"""A clean environment for every test of the models: no keys, no proxies, no tracing, nothing redirected."""

from __future__ import annotations

import os

import pytest

_PREFIXES = ("OPENAI_", "ANTHROPIC_", "LANGCHAIN_", "LANGSMITH_", "OPTIMIZE_")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(_PREFIXES) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
