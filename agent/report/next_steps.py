"""Commands to run after a run, and texts of it that its result does not hold, so that they can be erased."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from agent.ledger.connect import ledger_option
from agent.ledger.query import History, Row
from agent.prompt.fence import Fence
from agent.prompt.parts.adapter import ADAPTER_FILE
from agent.release.prompt_file import HELD
from agent.release.result import RunResult
from agent.report import prompt_texts, wording
from agent.report.findings import side_name
from agent.results.base import SideName
from agent.task.label_files import rows_to_label

LABELS_AT_ONCE = 20
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
"""Run options that other commands share, by their names in the ledger."""
OTHER_OPTIONS = ("judge", "knowledge", "tools", "embeddings", "metric_source", "strip_html")
"""Options that define the task and that other commands do not take."""


class NextStep(NamedTuple):
    """A purpose and its command."""

    what: str
    command: str


def next_steps(
    result: RunResult, db: Path, promoted: Mapping[str, Any] | None = None, texts: Excerpts | None = None
) -> list[NextStep]:
    """Return the next steps, most likely first.

    Args:
        db: the ledger, as commands name it.
        promoted: a later promotion of a winner that was held back.
        texts: the ledger's texts of the run; None: nothing.
    """
    texts = texts or Excerpts()
    task_words, to_label, own_function = texts.task_words, texts.to_label, texts.own_function
    of_run = f"{result.run_id}{ledger_option(db)}"
    steps, need = [], result.to_show
    if need is not None and need.max_calls is not None and not own_function:
        caps = "".join(f" {option} MORE" for option in need.other_caps)
        more = f"optimize resume {of_run} --fork --max-calls {need.max_calls}{caps}"
        steps.append(NextStep("pay for more test rows", more))
    left_out = result.untested
    if left_out is not None and left_out.next.startswith("--max-calls") and not (own_function or steps):
        steps.append(NextStep("test what led on dev", f"optimize resume {of_run} --fork {left_out.next}"))
    if to_label and task_words and result.decision != "promote":
        count = min(LABELS_AT_ONCE, to_label)
        task = shlex.quote(shlex.split(task_words)[0])
        steps.append(NextStep(f"label the {count} rows that help most", f"optimize label {task} --count {count}"))
    if wording.ships_prompt(result):
        steps += _promote(result, of_run, promoted)
        path = str(result.release.path)
        load = f"from promptassay import load_prompt; prompt = load_prompt({path!r})"
        steps.append(NextStep("use it in Python", load))
    form = " --format python -o DIR" if _takes_python(result, promoted) else ""
    if (result.release.path.parent / ADAPTER_FILE).is_file():
        form = " --format llama-server -o DIR"
    steps.append(NextStep("export it for other tools", f"optimize export {of_run}{form}"))
    if wording.against_yardsticks(result) and len(result.yardsticks) > 1:
        classic = f"optimize export {of_run} --arm classic -o DIR"
        steps.append(NextStep("export the classic method", classic))
    if task_words and _can_be_trained(result):
        steps.append(NextStep("see whether training pays", f"optimize customize {task_words} --run {of_run}"))
    return [
        *steps,
        NextStep("see all details", f"optimize show {of_run}"),
        NextStep("share it", f"optimize report {of_run}"),
    ]


def _can_be_trained(result: RunResult) -> bool:
    # local model, and at most one output that is a choice
    is_plain = result.model.startswith("local/") and "+" not in result.model
    return is_plain and len(result.labels) < 2 and wording.ships_prompt(result)


def _takes_python(result: RunResult, promoted: Mapping[str, Any] | None) -> bool:
    # retrieval and calibration do not fit into a template
    winner, calibration = result.winner, result.calibration
    is_released = promoted is not None or result.decision == "promote"
    return is_released and bool(winner.picks or winner.passages or (calibration and calibration.is_calibrated))


def _promote(result: RunResult, of_run: str, promoted: Mapping[str, Any] | None) -> list[NextStep]:
    if promoted is not None:
        return []
    if wording.held_back(result):
        return [NextStep("promote it anyway", f"optimize promote {of_run} --override --reason WHY")]
    return [NextStep("promote it", f"optimize promote {of_run}")] if result.decision == "promote" else []


def held_folder(result: RunResult) -> Path | None:
    """Return the folder of the winner when the baseline was released; None if it is gone."""
    folder = result.release.path.parent / HELD
    return folder if result.decision != "promote" and not result.is_own and folder.is_dir() else None


# -- texts of a run ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reply:
    """An unreadable reply, truncated; untrusted."""

    row: str
    text: str


@dataclass(frozen=True, slots=True)
class Excerpts:
    """Texts of a run from the ledger.

    `prompt`: the winner's, whole; `replies`: of the prompt that `of` names; `own_function`: the score is a Python
    function; `task_words`: task and model as command arguments, "" if they need more options; `to_label`: unlabelled
    rows of the task.
    """

    prompt: str = ""
    replies: tuple[Reply, ...] = ()
    of: str = ""
    own_function: bool = False
    task_words: str = ""
    to_label: int = 0

    def fenced(self) -> str:
        """Return the replies between markers that they cannot forge, one per line."""
        lines = [f"{reply.row}: {' '.join(reply.text.split())}" for reply in self.replies]
        return Fence.around(lines)("\n".join(lines)) if lines else ""


def excerpts(history: History, run: Row, result: RunResult) -> Excerpts:
    """Return the current texts of a run in the ledger; `run` is its row."""
    own, words = bool((run["options"] or {}).get("metric_source")), _task_words(run["options"] or {})
    prompt = prompt_texts.prompt_text(history.candidate(result.winner.candidate_id))
    side = _quoted_side(result)
    if side is None or result.answers is None:
        return Excerpts(prompt, own_function=own, task_words=words, to_label=rows_to_label(run["folder"]))
    of, rows = side_name(result, side), result.answers.side(side).unreadable_rows
    replies = _replies(history, result, side, rows)
    return Excerpts(prompt, replies, of, own, words, rows_to_label(run["folder"]))


def _quoted_side(result: RunResult) -> SideName | None:
    # the winner first; None: both prompts' replies are all readable
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
    return tuple(Reply(row, wording.cut(text, REPLY_LETTERS)) for row, text in texts.items())


def _task_words(options: Mapping[str, Any]) -> str:
    if not options.get("task") or any(options.get(name) for name in OTHER_OPTIONS):
        return ""
    words = [str(options["task"])]
    for name, option in NAMED_OPTIONS.items():
        value = options.get(name) or []
        for each in value if isinstance(value, list) else [value]:
            words += [option, str(each)]
    return shlex.join(words)
