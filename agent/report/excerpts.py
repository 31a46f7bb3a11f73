"""Texts of a run that its result does not hold, so that erasing them from the ledger erases them everywhere: the new
prompt, and some replies that could not be read."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.ledger.query import History, Row
from agent.prompt.fence import Fence
from agent.release.result import RunResult
from agent.report.answer_facts import side_name
from agent.report.facts import cut, prompt_text
from agent.results.base import SideName
from agent.task.label_files import rows_to_label

REPLY_LETTERS = 200
NAMED_OPTIONS = {
    "target_field": "--target",
    "prompt": "--prompt",
    "metric": "--metric",
    "type": "--type",
    "input": "--input",
    "ignore": "--ignore",
    "encoding": "--encoding",
    "sheet": "--sheet",
    "model": "-m",
    "limit": "--limit",
}
"""Options of a run that another command takes too, by their names in the ledger."""
OTHER_OPTIONS = ("judge", "knowledge", "tools", "embeddings", "metric_source", "strip_html")
"""Those without which the task is another, and that it does not take."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply that could not be read, cut; untrusted."""

    row: str
    text: str


@dataclass(frozen=True, slots=True)
class Excerpts:
    """`prompt`: the winner's, whole; `replies`: of the prompt that `of` names; `own_function`: whether a function in
    Python scores the run; `task_words`: what names its task and model in a command, "" where more is needed;
    `to_label`: rows of its task that have no label yet."""

    prompt: str = ""
    replies: tuple[Reply, ...] = ()
    of: str = ""
    own_function: bool = False
    task_words: str = ""
    to_label: int = 0

    def fenced(self) -> str:
        """The replies between marks that they cannot know, one a line."""
        lines = [f"{reply.row}: {' '.join(reply.text.split())}" for reply in self.replies]
        return Fence.around(lines)("\n".join(lines)) if lines else ""


def excerpts(history: History, run: Row, result: RunResult) -> Excerpts:
    """The texts of a run, as the ledger has them now; `run` is its row."""
    own, words = bool((run["options"] or {}).get("metric_source")), _task_words(run["options"] or {})
    prompt = prompt_text(history.candidate(result.winner.candidate_id))
    side = _quoted_side(result)
    if side is None or result.answers is None:
        return Excerpts(prompt, own_function=own, task_words=words, to_label=rows_to_label(run["folder"]))
    of, rows = side_name(result, side), result.answers.side(side).unreadable_rows
    replies = _replies(history, result, side, rows)
    return Excerpts(prompt, replies, of, own, words, rows_to_label(run["folder"]))


def _quoted_side(result: RunResult) -> SideName | None:
    """The winner, or the baseline where the winner's replies could all be read; None where both's could."""
    if result.answers is None:
        return None
    order: Sequence[SideName] = ("baseline",) if result.is_own else ("winner", "baseline")
    return next((side for side in order if result.answers.side(side).unreadable), None)


def _replies(history: History, result: RunResult, side: SideName, rows: Sequence[str]) -> tuple[Reply, ...]:
    run_id, old = result.run_id, result.migration
    if side == "winner":
        candidate_id = result.winner.candidate_id
    elif old is not None:
        run_id, candidate_id = old.run, old.candidate_id
    else:
        candidate_id = history.trials(run_id, [0])[0]["candidate_id"]
    said = {row["example_id"]: row for row in history.outcomes(run_id, candidate_id, "test")}
    texts = {row: said[row]["reply"].strip() or f"(no text: {said[row]['error']})" for row in rows if row in said}
    return tuple(Reply(row, cut(text, REPLY_LETTERS)) for row, text in texts.items())


def _task_words(options: Mapping[str, Any]) -> str:
    if not options.get("task") or any(options.get(name) for name in OTHER_OPTIONS):
        return ""
    words = [str(options["task"])]
    for name, option in NAMED_OPTIONS.items():
        value = options.get(name) or []
        for each in value if isinstance(value, list) else [value]:
            words += [option, str(each)]
    return shlex.join(words)
