"""What is reached without a language model, on the rows on which winner and baseline are scored. It costs no call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.errors import InputError, ReleaseError
from agent.evaluate.breakdown import difference, summary
from agent.evaluate.evaluator import Evaluator
from agent.ledger.query import History, Row
from agent.observer import Observer
from agent.programs.classic import ClassicProgram
from agent.programs.classic_release import LOADER
from agent.programs.classifiers import trained
from agent.release.file_release import FileRelease
from agent.release.result import RunResult, search_result
from agent.results.breakdown import Gain
from agent.results.run_parts import Yardstick
from agent.types import Example, Outcome, Proposal, Task


async def measured(
    program: ClassicProgram,
    evaluator: Evaluator,
    observer: Observer,
    dev: Sequence[Example],
    won: tuple[Sequence[Example], Sequence[Outcome]],
    seed: int,
) -> list[Yardstick]:
    """Score each method of the task, the constant answer first; `diff` is the winner's gain over it.

    `won`: the rows of the sealed test, and the winner's outcomes on them.
    """
    await program.fit([*dev, *won[0]], evaluator.value)
    results = []
    for candidate in program.candidates():
        proposal = Proposal(candidate, {}, "yardstick", None, "answers without a language model")
        observer.on_candidate_accepted(0, proposal)
        on_dev = [outcome.value for outcome in await evaluator.outcomes(candidate, dev, "dev")]
        tested = [outcome.value for outcome in await evaluator.outcomes(candidate, won[0], "test")]
        scored = summary(tested)
        results.append(
            Yardstick(
                name=candidate.method,
                candidate_id=candidate.id,
                trained_on=program.rows(candidate),
                dev=summary(on_dev).mean,
                test=scored.mean,
                ci95=scored.ci95,
                **dict(difference([outcome.value for outcome in won[1]], tested, seed)),
            )
        )
    return results


@dataclass(frozen=True, slots=True)
class Arm:
    """The best yardstick of a run, and `release` as which it can get an alias.

    `ahead`: how far the run's prompts are ahead of it on the sealed test (`gate.blocked_arm`).
    """

    best: Yardstick
    release: FileRelease
    ahead: Mapping[str, Gain]


def exported(found: Row, task: Task, history: History) -> tuple[Yardstick, FileRelease]:
    """The best yardstick of a run by its score on dev, the constant answer left out, as files that are a release.

    Its version is the same in every run that has the same rows and method. Raises InputError where the run has no
    yardsticks, and ReleaseError where the files answer a dev row otherwise than was scored.
    """
    _, best = _best(found)
    files = {name: text.encode() for name, text in _proved(found, task, history, best).items()}
    what = f"a method without a language model ({best.name})"
    return best, FileRelease(name=task.name, what=what, loader=LOADER, files=files, provenance=_origin(found, best))


def released(found: Row, task: Task, history: History) -> Arm:
    """`exported`, with what decides whether it may get an alias."""
    result, _ = _best(found)
    best, release = exported(found, task, history)
    return Arm(best, release, _ahead(result, best, history))


def _best(found: Row) -> tuple[RunResult, Yardstick]:
    result = search_result(found["result"])
    if result is None or len(result.yardsticks) < 2:
        raise InputError(f"{found['id']}: this run scored no method without a language model that reads the rows")
    return result, max(result.yardsticks[1:], key=lambda each: each.dev or 0.0)


def _origin(found: Row, best: Yardstick) -> dict[str, Any]:
    interval = list(best.ci95) if best.ci95 else None
    return {"run_id": found["id"], "candidate_id": best.candidate_id, "test": best.test, "ci95": interval}


def _ahead(result: RunResult, best: Yardstick, history: History) -> dict[str, Gain]:
    own_id = history.trials(result.run_id, [0])[0]["candidate_id"]
    values = [
        {row["example_id"]: row["value"] for row in history.outcomes(result.run_id, candidate_id, "test")}
        for candidate_id in (own_id, best.candidate_id)
    ]
    rows = sorted(values[0].keys() & values[1].keys())
    own, arm = ([each[row] for row in rows] for each in values)
    ahead = {"your own prompt": difference(own, arm, result.seed)}
    if result.winner.candidate_id != own_id:
        ahead["the best prompt"] = Gain(diff=best.diff, diff_ci95=best.diff_ci95, p_value=best.p_value)
    return ahead


def _proved(found: Row, task: Task, history: History, best: Yardstick) -> dict[str, str]:
    program = ClassicProgram(task)
    files = program.exported(best.name)
    scored = {row["example_id"]: row["fields"] for row in history.outcomes(found["id"], best.candidate_id, "dev")}
    answer = trained(files["model.json"], files["rows.jsonl"])
    for row in task.dev:
        said = answer(**row.inputs)
        if row.id in scored and (scored[row.id] or {}) != program.fields(said):
            raise ReleaseError(f"{found['id']}: on dev row {row.id} the export says {said!r:.60}, not what was scored")
    return files
