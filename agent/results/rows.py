"""The results of jobs on rows without scores: `apply`, `label`, the playground, `init`, `learn`; and of `tools`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from agent.results.base import CostedResult, Result, WasNow, called


class ApplyResult(CostedResult):
    """A released prompt applied to a file of rows; `path` is the output file."""

    kind: Literal["apply"] = "apply"
    run_id: str
    name: str
    version: str
    model: str
    source: str
    path: str
    rows: int
    answered: int
    unreadable: int
    failed: int
    notes: tuple[str, ...]


class LabelResult(CostedResult):
    """Answers of the run's prompts on unlabelled rows, by row; `apart`: rows with different answers."""

    kind: Literal["label_answers"] = "label_answers"
    run_id: str
    of_run: str
    task: str
    folder: str
    prompts: int
    answers: Mapping[str, tuple[str, ...]]
    apart: int
    status: Literal["complete", "budget"]


class PlayedAnswer(Result):
    """The call of one prompt; `error` if it failed."""

    side: str
    version: str
    call_key: str
    error: str


class PlayedResult(CostedResult):
    """One question of the playground; `of`: the run or release that was asked."""

    kind: Literal["playground"] = "playground"
    run_id: str
    of: str
    model: str
    inputs: Mapping[str, str]
    asked: tuple[PlayedAnswer, ...]


class DraftResult(CostedResult):
    """A drafted task.

    `labels`: with definitions; `confirmed`: rows labelled by feedback in traces; `refused`: unusable replies;
    `wanted`: labels needed for each detectable gain.
    """

    kind: Literal["draft"] = "draft"
    run_id: str
    task: str
    folder: str
    model: str
    labels: Mapping[str, str]
    labels_from: str
    opening: str
    rows: int
    synthetic: int
    confirmed: int
    refused: int
    why_refused: tuple[str, ...]
    wanted: tuple[str, ...]
    status: Literal["complete", "budget"]


class LeftOutRows(Result):
    """Rows of a log that were skipped, and why."""

    why: str
    rows: int
    lines: tuple[int, ...]


class LearnResult(Result):
    """Corrected answers of a log as train rows.

    `source` (`from` in JSON): the folder of the task; `folder`: what was written, None for nothing; `unreadable`: rows
    that do not fit the task, with `problems`.
    """

    task: str
    source: str = called("from")
    folder: str | None
    dry_run: bool
    log: str
    sha256: str
    rows: int
    taken: int
    lines: tuple[int, ...]
    left_out: tuple[LeftOutRows, ...]
    unreadable: int
    problems: tuple[str, ...]
    train: WasNow[int]


class LabellingResult(Result):
    """Labelling progress, and the labels still needed for a verdict.

    `disputed`: rows on which the labellers tie; `next`: the next command; `next_rows`: the most useful rows to label,
    with inputs and reason.
    """

    task: str
    folder: str
    rows: int
    labelled: int
    disputed: int
    by_label: Mapping[str, int]
    splits: Mapping[str, int]
    agreement: tuple[str, ...]
    wanted: tuple[str, ...]
    next: str
    next_rows: tuple[Mapping[str, Any], ...] = ()


class ListedTool(Result):
    """A tool that a model may call. `parameters`: the JSON Schema of its arguments, as text."""

    name: str
    description: str
    parameters: str


class ToolsResult(Result):
    """The tools of a file or server, and the file that they were written to."""

    tools: tuple[ListedTool, ...]
    file: str | None
