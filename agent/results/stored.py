"""The results of jobs as the ledger keeps them, by their `kind`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.errors import InputError
from agent.results.base import CostedResult
from agent.results.calibration import CalibrationResult
from agent.results.checks import BlessResult, CheckResult
from agent.results.customize import CustomizeResult
from agent.results.rows import ApplyResult, DraftResult, LabelResult, PlayedResult
from agent.results.transfer import TransferResult

JOBS: Mapping[str, type[CostedResult]] = {
    "apply": ApplyResult,
    "bless": BlessResult,
    "check": CheckResult,
    "customize": CustomizeResult,
    "draft": DraftResult,
    "judge_calibration": CalibrationResult,
    "label_answers": LabelResult,
    "playground": PlayedResult,
    "transfer": TransferResult,
}


def job_result(stored: Mapping[str, Any]) -> CostedResult:
    """Raises InputError for a result of another version."""
    kind = str(stored.get("kind"))
    if kind not in JOBS:
        raise InputError(f"a result of another version: kind {kind!r:.40} is not known")
    return JOBS[kind].from_json(stored)
