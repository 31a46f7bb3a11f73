"""From a released prompt to a blessing that is ready to start: its rows, the models that are asked, and the budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.errors import InputError
from agent.ledger.provenance import user
from agent.run.launch import require_judging, whole_budget
from agent.run.released_files import metric_folder, models_of, prompt_path, require_named, rubrics_of, task_for
from agent.run.session import Ready


def blessing(
    prompt: str,
    reason: str,
    actor: str,
    model: str | None,
    judge: Sequence[str],
    task: str | None,
    suite: Path | None,
    limit: int | None,
    repeats: int,
    options: Mapping[str, Any],
    db: Path,
) -> Ready:
    """Finds the prompt and the rows to record, and checks that they can be asked; calls nothing.

    The rows are those of the suite that is there, else the dev rows of the prompt's task, or of `task`.

    Args:
        prompt: the path of a prompt.md, NAME@LABEL, NAME@VERSION, or the id of a run.
        reason: why these answers are right; kept in the suite and in the chain.
        actor: who decides. "": the user of this machine.
        model: the model to ask. None: that of the suite, else that of the prompt.
        judge: the models that judge. (): as before.
        task: takes the dev rows of this task.
        suite: the file to write. None: suite.json beside the prompt.
        limit: at most so many rows, the first; at least 1.
        repeats: how often each row is asked, 1 to 5.
        options: has the caps (`whole_budget`).
        db: the ledger.

    Raises:
        InputError: something of it is missing or does not fit.
        ReleaseError: the prompt or the suite is damaged.
    """
    from agent.release.runtime import load_prompt
    from agent.release.suite import SUITE_FILE, read_suite, require_fit
    from agent.run.check import Asking, Bless

    if not reason.strip():
        raise InputError("--reason: say why, in a few words; it is kept with the suite")
    path = prompt_path(prompt, db)
    loaded = load_prompt(path)
    file = suite or path.with_name(SUITE_FILE)
    before = read_suite(file) if file.exists() else None
    if before and not task:
        require_fit(before, loaded, str(file))
        asked = before.task(loaded, metric_folder(before, loaded, task, path, db), rubrics_of(before))
    else:
        asked = task_for(loaded, task, db)
    asked = replace(asked, dev=asked.dev[:limit])
    if judge:
        require_judging(asked)
        asked = replace(asked, judges=tuple(judge))
    name, typed = model or (before.model if before else loaded.model), {model, *judge}
    brought = {loaded.model, *((before.model, *([] if task else before.judges)) if before else ())}
    judging = [each for each in asked.judges if each not in typed]
    source = file if before else path
    require_named(source, brought, {"--model": [] if model else [name], "--judge": judging}, db)
    lm, judges = models_of(name, asked.judges)
    asking = Asking(loaded, asked, lm, judges, repeats)
    budget = whole_budget(options, asking.planned, "to record this suite")
    replaced, decider = before.id if before else "", actor or user()
    return Ready(
        lambda means: Bless(asking, file, reason.strip(), decider, replaced, means),
        asking.lms,
        (name, *asked.judges),
        budget,
        use_cache=False,
    )
