"""From a released prompt to a check that is ready to start: what was recorded of it, who is asked, and its budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import InputError
from agent.run.launch import earlier_prices, whole_budget
from agent.run.released_files import (
    metric_folder,
    models_of,
    prompt_path,
    require_named,
    rubrics_of,
    run_options,
    suite_in_run,
    task_for,
)
from agent.run.session import Ready

if TYPE_CHECKING:
    from agent.release.suite import Suite


@dataclass(frozen=True, slots=True)
class Checking:
    """A check that is ready to start, and what was recorded."""

    recorded: Suite
    ready: Ready


def checking(
    prompt: str,
    model: str | None,
    judge: Sequence[str],
    task: str | None,
    suite: Path | None,
    repeats: int,
    options: Mapping[str, Any],
    db: Path,
) -> Checking:
    """Finds the prompt and what was recorded of it, and checks that it can be asked again; calls nothing.

    `options` has the caps. Raises InputError, or a ReleaseError for a file that is damaged.
    """
    from agent.release.runtime import load_prompt
    from agent.release.suite import SUITE_FILE, read_suite, require_fit
    from agent.run.check import Asking, Check

    path = prompt_path(prompt, db)
    loaded = load_prompt(path)
    file = suite or path.with_name(SUITE_FILE)
    if suite or file.exists():
        recorded = read_suite(file)
        require_fit(recorded, loaded, str(file))
        source, brought = file, {recorded.model, *recorded.judges}
    else:
        recorded = suite_in_run(loaded, task_for(loaded, task, db), db)
        source, brought = path, {loaded.model}
    if other := [each for each in judge if each not in recorded.judges]:
        own = ", ".join(recorded.judges) or "no judge"
        raise InputError(
            f"--judge {', '.join(other)}: recorded are scores of {own}; another one "
            "needs a new record: optimize bless PROMPT --judge NAME --reason WHY"
        )
    name, typed = model or recorded.model, {model, *judge}
    judging = [each for each in recorded.judges if each not in typed]
    require_named(source, brought, {"--model": [] if model else [name], "--judge": judging}, db)
    lm, judges = models_of(name, recorded.judges)
    asked = recorded.task(loaded, metric_folder(recorded, loaded, task, path, db), rubrics_of(recorded))
    asking = Asking(loaded, asked, lm, judges, repeats)
    budget = whole_budget(options, asking.planned, "this check")
    words = run_options(loaded, db)
    ready = Ready(
        lambda means: Check(asking, recorded, means),
        asking.lms,
        (name, *recorded.judges),
        budget,
        use_cache=False,
        prices=earlier_prices(words, recorded.model, *recorded.judges),
    )
    return Checking(recorded, ready)
