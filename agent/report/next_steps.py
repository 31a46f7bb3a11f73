"""Commands to run after a run."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.ledger.connect import LEDGER, ledger_option
from agent.prompt.parts.adapter import ADAPTER_FILE
from agent.release.result import RunResult
from agent.release.versions import is_version
from agent.report.view import RunView
from agent.report.wording import unbeaten
from agent.results.breakdown import Calibration
from agent.results.run_parts import Winner
from agent.task.label_files import rows_to_label

LABELS_AT_ONCE = 20
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


def next_steps(result: RunResult, view: RunView | None) -> list[tuple[str, str]]:
    """Return purpose and command of the next steps, most likely first."""
    options: Mapping[str, Any] = (view.run["options"] if view else None) or {}
    task_words, own_function = _task_words(options), options.get("metric_source")
    promoted = view.promoted if view else None
    of_run = f"{result.run_id}{ledger_option(LEDGER if result.ledger == Path() else result.ledger)}"
    steps, need = list[tuple[str, str]](), result.to_show
    if need is not None and need.max_calls is not None and not own_function:
        caps = "".join(f" {option} MORE" for option in need.other_caps)
        more = f"optimize resume {of_run} --fork --max-calls {need.max_calls}{caps}"
        steps.append(("pay for more test rows", more))
    left_out = result.untested
    if left_out is not None and left_out.next.startswith("--max-calls") and not (own_function or steps):
        steps.append(("test what led on dev", f"optimize resume {of_run} --fork {left_out.next}"))
    if view and task_words and result.decision != "promote" and (to_label := rows_to_label(view.run["folder"])):
        count = min(LABELS_AT_ONCE, to_label)
        task = shlex.quote(shlex.split(task_words)[0])
        steps.append((f"label the {count} rows that help most", f"optimize label {task} --count {count}"))
    is_prompt, file = result.ships_prompt, result.release.path
    if is_version(file):
        if promoted is None and result.held_back:
            steps.append(("promote it anyway", f"optimize promote {of_run} --override --reason WHY"))
        elif promoted is None and result.decision == "promote":
            steps.append(("promote it", f"optimize promote {of_run}"))
        made, loader = ("prompt", "load_prompt") if is_prompt else ("texts", "load_texts")
        load = f"from promptassay import {loader}; {made} = {loader}({str(file)!r})"
        steps.append(("use it in Python", load))
    is_released = promoted is not None or result.decision == "promote"
    needs_code = is_released and _is_more_than_text(result.winner, result.calibration)
    form = " --format python -o DIR" if needs_code else ""
    if (result.release.path.parent / ADAPTER_FILE).is_file():
        form = " --format llama-server -o DIR"
    if is_prompt or not is_version(file):
        steps.append(("export it for other tools", f"optimize export {of_run}{form}"))
    if len(result.yardsticks) > 1 and unbeaten(result.yardsticks):
        steps.append(("export the classic method", f"optimize export {of_run} --arm classic -o DIR"))
    is_trainable = is_prompt and result.model.startswith("local/") and "+" not in result.model
    if task_words and is_trainable and len(result.labels) < 2:
        steps.append(("see whether training pays", f"optimize customize {task_words} --run {of_run}"))
    return [*steps, ("see all details", f"optimize show {of_run}"), ("share it", f"optimize report {of_run}")]


def _is_more_than_text(winner: Winner, calibration: Calibration | None) -> bool:
    # retrieval and calibration do not fit into a template
    return bool(winner.picks or winner.passages or (calibration and calibration.is_calibrated))


def _task_words(options: Mapping[str, Any]) -> str:
    if not options.get("task") or any(options.get(name) for name in OTHER_OPTIONS):
        return ""
    words = [str(options["task"])]
    for name, option in NAMED_OPTIONS.items():
        value = options.get(name) or []
        for each in value if isinstance(value, list) else [value]:
            words += [option, str(each)]
    return shlex.join(words)
