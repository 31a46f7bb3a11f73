"""What to type after a run: commands that are right for it, and the line of Python that loads its prompt."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.ledger.connect import ledger_option
from agent.release.prompt_file import ADAPTER_FILE, HELD
from agent.release.result import RunResult
from agent.report import facts

LABELS_AT_ONCE = 20


@dataclass(frozen=True, slots=True)
class NextStep:
    """What for, and what to type; `is_python`: in Python, not in a shell."""

    what: str
    command: str
    is_python: bool = False


def next_steps(
    result: RunResult,
    db: Path,
    promoted: Mapping[str, Any] | None = None,
    own_function: bool = False,
    task_words: str = "",
    to_label: int = 0,
) -> list[NextStep]:
    """The next steps, the most likely first.

    Args:
        result: of the run.
        db: the ledger, as the commands are to name it.
        promoted: the promotion, since the run, of a winner that it had held back.
        own_function: whether a function in Python scores, without which no command can start such a run.
        task_words: what names its task and model in a command; "": no short command does.
        to_label: rows of its task that have no label yet.
    """
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
        steps.append(NextStep("use it in Python", load, is_python=True))
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
