"""Prompts as the ledger holds them, made candidates again. Calls nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from agent.errors import InputError
from agent.ledger.query import Row, is_calibrated
from agent.prompt.calibration import LabelCalibration
from agent.prompt.prompt_candidate import PromptCandidate
from agent.prompt.tool_texts import ToolTexts
from agent.retrieval.passages import Passages
from agent.retrieval.pick import Picks
from agent.strict import read_as
from agent.types import Demo


def best_trials(trials: Iterable[Row]) -> list[Row]:
    """Complete trials but the baseline, the best first; without calibrated ones, whose weights are of one model."""
    whole = [each for each in trials if each["state"] == "complete" and each["number"] and each["mean"] is not None]
    own = [each for each in whole if not is_calibrated(each)]
    return sorted(own, key=lambda trial: (-trial["mean"], trial["number"]))


def recorded_prompt(row: Mapping[str, Any]) -> PromptCandidate:
    """A candidate of `History.candidate`.

    Raises:
        InputError: it has not the id that it was written under, as parts of it were erased.
    """
    demos = tuple(
        Demo(demo["example_id"], demo["inputs"], demo["outputs"], demo["rationale"], demo["source"])
        for demo in row["demos"]
    )
    calibration = row.get("calibration")
    if calibration and calibration["bias"] is None:
        raise InputError(f"{row['id']}: the calibration of this prompt was erased from the ledger")
    if "tool_texts" in row and row["tool_texts"] is None:
        raise InputError(f"{row['id']}: this prompt's texts of the tools were erased from the ledger")
    candidate = PromptCandidate(
        row["technique"],
        row["format"],
        row["instruction"],
        row["role"],
        demos,
        calibration=read_as(LabelCalibration, calibration, "calibration") if calibration else None,
        picks=Picks(**row["picks"]) if row["picks"] else None,
        passages=Passages(**row["passages"]) if row["passages"] else None,
        tool_texts=ToolTexts.of(row["tool_texts"]) if "tool_texts" in row else None,
    )
    if candidate.id != row["id"]:
        raise InputError(f"{row['id']}: parts of this prompt were erased from the ledger, so it cannot be tried again")
    return candidate
