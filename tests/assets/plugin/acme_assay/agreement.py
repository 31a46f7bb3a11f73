"""`optimize agreement`: how often two released prompts answer alike on the rows of a file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from agent.jobs.locations import prompt_path
from agent.jobs.registry import DB, job
from agent.jobs.released import AskedRelease, rows_task
from agent.jobs.session import Session
from agent.jobs.work import Work
from agent.options.option import option
from agent.options.shared import MODELS, SpendingOptions
from agent.release.runtime import load_prompt
from agent.report.blocks import Block, text
from agent.results.base import CostedResult
from agent.types import Example


class AgreementResult(CostedResult):
    """How many of the rows two prompts answer alike."""

    kind: Literal["agreement"] = "agreement"
    run_id: str
    rows: int
    alike: int

    def blocks(self) -> Iterator[Block]:
        yield text(f"{self.alike} of {self.rows} rows are answered alike")


@job("agreement", asks="asking both prompts")
def agreement(
    a: str,
    b: str,
    rows: Path,
    *,
    model: str | None = option(None, "The model to ask. Default: that of each prompt.", MODELS, short="-m"),
    options: SpendingOptions,
    db: Path = DB,
) -> Work[AgreementResult]:
    """Say how often two released prompts, A and B, answer alike on ROWS, a .jsonl file."""
    paths = [prompt_path(word, db) for word in (a, b)]
    prompts = [load_prompt(path) for path in paths]
    asked = [AskedRelease.of(*each, db, model or each[0].model) for each in zip(prompts, paths, strict=True)]
    lines = [json.loads(line) for line in rows.read_text("utf-8").splitlines()]
    inputs = prompts[0].release.inputs
    examples = [Example(str(at), {name: line[name] for name in inputs}, {}) for at, line in enumerate(lines)]

    async def perform(asking: Session[AgreementResult]) -> AgreementResult:
        answers = []
        for each in asked:
            evaluator, candidate, _ = await each.evaluator(asking, examples)
            outcomes = await evaluator.outcomes(candidate, examples, "dev")
            answers.append([each.prediction.fields for each in outcomes])
        alike = sum(one == two for one, two in zip(*answers, strict=True))
        return AgreementResult(run_id=asking.id, rows=len(examples), alike=alike, **asking.spent())

    task = rows_task(prompts[0], rows.parent, f"agreement on {rows}", examples, "")
    calls = 2 * len(examples)
    return Work(
        "agreement", "agreed", perform, task, [each.lm for each in asked], options, calls, options.budget_for(calls)
    )
