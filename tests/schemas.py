"""The results that commands print with `--json`, and their JSON Schemas."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache, reduce
from operator import or_
from typing import Any

from jsonschema import Draft202012Validator
from pydantic import TypeAdapter

from agent.jobs import JOBS
from agent.results.base import Result

RESULTS: Mapping[str, tuple[type[Result], ...]] = {
    name: tuple(models) for name in JOBS.names() if (models := JOBS.get(name).results)
}
"""By command what it prints: one of these."""


@cache
def schema_of(*models: type[Result]) -> dict[str, Any]:
    """The JSON Schema (2020-12) of what a command prints."""
    if len(models) == 1:
        return models[0].model_json_schema(mode="serialization")
    return TypeAdapter(reduce(or_, models)).json_schema(mode="serialization")


def schema_text(*models: type[Result]) -> str:
    return json.dumps(schema_of(*models), indent=1) + "\n"


def results_of(words: tuple[str, ...]) -> tuple[type[Result], ...]:
    """The results of a command line."""
    return RESULTS.get(" ".join(words[:2])) or RESULTS.get(words[0]) or ()


def require_schema(words: tuple[str, ...], found: Mapping[str, Any]) -> None:
    """Fails where what a command printed does not fit its schema."""
    if models := results_of(words):
        Draft202012Validator(schema_of(*models)).validate(found)
