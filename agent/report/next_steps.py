"""What to type after a run, and texts of it that its result does not hold, so that erasing them is enough."""

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
from agent.report import facts, prompt_texts
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
"""Options of a run that another command takes too, by their names in the ledger."""
OTHER_OPTIONS = ("judge", "knowledge", "tools", "embeddings", "metric_source", "strip_html")
"""Those without which the task is another, and that it does not take."""


class NextStep(NamedTuple):
    """What for, and what to type."""

    what: str
    command: str


def next_steps(
    result: RunResult, db: Path, promoted: Mapping[str, Any] | None = None, texts: Excerpts | None = None
) -> list[NextStep]:
    """The next steps, the most likely first.

    Args:
        db: the ledger, as the commands are to name it.
        promoted: the promotion, since the run, of a winner that it had held back.
        texts: what the ledger has of the run; None: nothing.
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
    if facts.ships_prompt(result):
        steps += _promote(result, of_run, promoted)
        path = str(result.release.path)
        load = f"from promptassay import load_prompt; prompt = load_prompt({path!r})"
        steps.append(NextStep("use it in Python", load))
    form = " --format python -o DIR" if _takes_python(result, promoted) else ""
    if (result.release.path.parent / ADAPTER_FILE).is_file():
        form = " --format llama-server -o DIR"
    steps.append(NextStep("write it for other tools", f"optimize export {of_run}{form}"))
    if facts.against_yardsticks(result) and len(result.yardsticks) > 1:
        classic = f"optimize export {of_run} --arm classic -o DIR"
        steps.append(NextStep("take what needs no language model", classic))
    if task_words and _can_be_trained(result):
        steps.append(NextStep("see whether training pays", f"optimize customize {task_words} --run {of_run}"))
    return [
        *steps,
        NextStep("see it whole", f"optimize show {of_run}"),
        NextStep("send it", f"optimize report {of_run}"),
    ]


def _can_be_trained(result: RunResult) -> bool:
    """Whether its model is one that adapters are trained for here, and the prompt has one answer at most that is a
    choice."""
    is_plain = result.model.startswith("local/") and "+" not in result.model
    return is_plain and len(result.labels) < 2 and facts.ships_prompt(result)


def _takes_python(result: RunResult, promoted: Mapping[str, Any] | None) -> bool:
    """Whether what was released looks rows or passages up, or weighs labels, which templates cannot."""
    winner, calibration = result.winner, result.calibration
    is_released = promoted is not None or result.decision == "promote"
    return is_released and bool(winner.picks or winner.passages or (calibration and calibration.is_calibrated))


def _promote(result: RunResult, of_run: str, promoted: Mapping[str, Any] | None) -> list[NextStep]:
    if promoted is not None:
        return []
    if facts.held_back(result):
        return [NextStep("promote it all the same", f"optimize promote {of_run} --override --reason WHY")]
    return [NextStep("promote it", f"optimize promote {of_run}")] if result.decision == "promote" else []


def held_folder(result: RunResult) -> Path | None:
    """Where the best found lies when the user's own prompt was released; None where it is not there."""
    folder = result.release.path.parent / HELD
    return folder if result.decision != "promote" and not result.is_own and folder.is_dir() else None


# -- texts of a run ----------------------------------------------------------------------------------------------------


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
    prompt = prompt_texts.prompt_text(history.candidate(result.winner.candidate_id))
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
    return tuple(Reply(row, facts.cut(text, REPLY_LETTERS)) for row, text in texts.items())


def _task_words(options: Mapping[str, Any]) -> str:
    if not options.get("task") or any(options.get(name) for name in OTHER_OPTIONS):
        return ""
    words = [str(options["task"])]
    for name, option in NAMED_OPTIONS.items():
        value = options.get(name) or []
        for each in value if isinstance(value, list) else [value]:
            words += [option, str(each)]
    return shlex.join(words)
