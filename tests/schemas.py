"""The results that commands print with `--json`, and their JSON Schemas."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator

from agent.jobs import JOBS
from agent.release.result import RunResult
from agent.results.base import Result
from agent.results.customize import CustomizeResult

RESULTS: Mapping[str, type[Result]] = {
    "run": RunResult,
    "resume": RunResult,
    "migrate": RunResult,
    "demo": RunResult,
    "customize": CustomizeResult,
    **{name: model for name in JOBS.names() if (model := JOBS.get(name).result) is not None},
}
"""By command."""
APART = ("--dry-run", "--history", "--export-only", "--every")
"""Options with which a command prints another object."""


@cache
def schema_of(model: type[Result]) -> dict[str, Any]:
    """The JSON Schema (2020-12) of what a command prints."""
    return model.model_json_schema(mode="serialization")


def schema_text(model: type[Result]) -> str:
    return json.dumps(schema_of(model), indent=1) + "\n"


def result_of(words: tuple[str, ...]) -> type[Result] | None:
    """The result of a command line; None where it prints another object."""
    if set(words) & set(APART) or (words[0] == "init" and "--describe" not in words):
        return None
    return RESULTS.get(" ".join(words[:2])) or RESULTS.get(words[0])


def require_schema(words: tuple[str, ...], found: Mapping[str, Any]) -> None:
    """Fails where what a command printed does not fit its schema."""
    if (model := result_of(words)) is not None:
        Draft202012Validator(schema_of(model)).validate(found)
