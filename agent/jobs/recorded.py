"""Prompts of the ledger as candidates, and the starting point of a migration. Calls nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.errors import InputError
from agent.jobs.locations import open_history, prompt_path
from agent.jobs.tasks import changed_parts, task_of
from agent.ledger.provenance import tool_version, utc_now
from agent.ledger.query import RETRIEVAL_EVENTS, TEXT_EVENTS, History, Row, is_calibrated, is_erased, started_with
from agent.models.model_registry import create_model
from agent.options.run import MigrateOptions, Migrates, RecordedOptions
from agent.programs.kinds import Kind, WrittenRelease
from agent.programs.prompt import PromptProgram
from agent.programs.recorded import Recorded
from agent.prompt.parts.kinds import PARTS
from agent.prompt.prompt_candidate import PromptCandidate
from agent.release.export import write_release
from agent.release.result import RunResult, search_result
from agent.release.runtime import load_prompt
from agent.report.wording import without_result
from agent.stats.figures import points
from agent.task.examples import PLAYED
from agent.types import Demo, Proposal, Task


def best_trials(trials: Iterable[Row]) -> list[Row]:
    """Return complete trials without the baseline, best first. Calibrated ones fit one model only and are left out."""
    whole = [each for each in trials if each["state"] == "complete" and each["number"] and each["mean"] is not None]
    own = [each for each in whole if not is_calibrated(each)]
    return sorted(own, key=lambda trial: (-trial["mean"], trial["number"]))


def recorded_prompt(row: Mapping[str, Any]) -> PromptCandidate:
    """Make a candidate of a row of `History.candidate`. Raises InputError if parts of it were erased."""
    demos = tuple(
        Demo(demo["example_id"], demo["inputs"], demo["outputs"], demo["rationale"], demo["source"])
        for demo in row["demos"]
    )
    calibration = row.get("calibration")
    if calibration and calibration["bias"] is None:
        raise InputError(f"{row['id']}: the calibration of this prompt was erased from the ledger")
    if lost := [PARTS.get(name).words for name in TEXT_EVENTS if name in row and row[name] is None]:
        raise InputError(f"{row['id']}: parts of this prompt were erased from the ledger: {', '.join(lost)}")
    kinds = [PARTS.get(name) for name in ("calibration", *RETRIEVAL_EVENTS, *TEXT_EVENTS) if row.get(name)]
    settings = {kind.name: kind.restored(row[kind.name]) for kind in kinds}
    candidate = PromptCandidate(
        row["technique"], row["format"], row["instruction"], row["role"], demos, settings=settings
    )
    if candidate.id != row["id"]:
        raise InputError(f"{row['id']}: parts of this prompt were erased from the ledger, so it cannot be tried again")
    return candidate


# -- what a migration starts from --------------------------------------------------------------------------------------

MOST_SEEDS = 12


@dataclass(frozen=True, slots=True)
class Migration:
    """A released prompt for another model, and what the ledger knows of it.

    `seeds` are other prompts of its run, most promising first; `dev` has its scores by row.
    """

    run_id: str
    version: str
    model: str
    released: PromptCandidate
    trial: int
    seeds: tuple[Proposal, ...]
    dev: Mapping[str, float | None]
    sealed: Recorded
    parameters: Mapping[str, Any]
    prompt_tokens: int

    def write(self, program: Kind, result: RunResult, ledger: str, folder: Path) -> WrittenRelease:
        """Release the old prompt for its old model. `program`: of the new model; `ledger`: its id."""
        assert isinstance(program, PromptProgram)
        was = PromptProgram(program.task, create_model(self.model))
        was.shared = program.shared
        provenance = {
            "run_id": self.run_id,
            "trial": self.trial,
            "candidate_id": self.released.id,
            "test": result.baseline.test,
            "hashes": dict(program.task.hashes),
            "tool": tool_version(),
            "created_utc": utc_now(),
            "ledger": ledger,
        }
        release = was.release(self.released, self.parameters, provenance)
        return WrittenRelease(write_release(release, folder), release.version)


def migration_options(prompt: str, given: MigrateOptions, db: Path) -> RecordedOptions:
    """Return the options of the prompt's run, with another model and caps.

    Raises InputError if the ledger does not know the prompt's run, and ReleaseError if its file is damaged.
    """
    path = prompt_path(prompt, db)
    loaded = load_prompt(path)
    source = {name: str(loaded.provenance.get(name, "")) for name in ("run_id", "candidate_id")}
    if not all(source.values()):
        raise InputError(f"{path}: does not say which run it is from, so there is no history to start from")
    with closing(open_history(db)) as history:
        row = history.search(source["run_id"])
    if loaded.release.target != loaded.release.model:
        raise InputError(
            f"{path}: its model has an adapter, which goes with no other model; train one for {given.model}"
        )
    begun = started_with(row)
    task = task_of(begun)
    judge = begun.judge or task.judges or [row["model"]]  # scores of other judges cannot be compared
    as_begun = ("max_examples", "max_concurrency", "max_wait")
    return begun.model_copy(
        update={
            **{name: value for name, value in given if name not in as_begun or value is not None},
            "proposer": "none",
            "judge": tuple(judge) if task.is_judged else (),
            "trials": None,
            "strategy": None,
            "prefer": "best",
            "anyway": True,
            "tag": {"migrated_from": row["id"]},
            "migrates": Migrates(run=row["id"], candidate=source["candidate_id"], version=loaded.version),
        }
    )


def recorded_migration(options: RecordedOptions, task: Task, db: Path) -> Migration:
    """Load what the options of a migration name. Raises InputError if it cannot be compared with the old run."""
    named = options.migrates
    assert named is not None
    with closing(open_history(db)) as history:
        row = history.search(named.run)
        if options.model == row["model"]:
            raise InputError(f"--model {row['model']}: this is the model that the prompt is for; name another one")
        _require_same_task(row, task)
        result = search_result(row["result"], db)
        if result is None:
            raise InputError(f"{row['id']}: {without_result(row)}, so there is nothing to compare with")
        trials = history.trials(row["id"])
        trial = next((each for each in trials if each["candidate_id"] == named.candidate), None)
        if trial is None:
            raise InputError(f"{row['id']}: has no candidate {named.candidate}; was the prompt changed by hand?")
        released = recorded_prompt(history.candidate(named.candidate))
        tested = history.outcomes(row["id"], named.candidate, "test")
        if any(map(is_erased, tested)):
            erased = "replies to its sealed rows were erased from the ledger; nothing can be compared"
            raise InputError(f"{row['id']}: {erased}")
        if not tested:
            raise InputError(f"{row['id']}: has no sealed replies of {named.candidate} to compare with")
        dev = {each["example_id"]: each["value"] for each in history.outcomes(row["id"], named.candidate, "dev")}
        seeds = _seeds(history, trials, released.having(calibration=None))
        (size,) = history.select(
            "SELECT AVG(prompt_tokens) AS n FROM calls WHERE run_id = ? AND candidate_id = ? AND role = 'model' AND "
            "state IN ('ok', 'cached')",
            row["id"],
            named.candidate,
        )
    return Migration(
        row["id"],
        named.version,
        row["model"],
        released,
        trial["number"],
        seeds,
        dev,
        Recorded.of_ledger(named.candidate, tested),
        result.parameters,
        round(size["n"] or 0),
    )


def _require_same_task(row: Row, task: Task) -> None:
    if task.program:
        raise InputError(f"{row['id']}: a run of your program; only prompts can be migrated")
    if task.user is not None:
        raise InputError(f"{row['id']}: {PLAYED}, which no other model repeats; run the task on the other model")
    if task.is_compared:
        raise InputError(f"{row['id']}: its judge compares with another prompt's answers, which no other run repeats")
    if changed := changed_parts(row, task):
        raise InputError(
            f"{row['id']}: {', '.join(changed)} changed since, so its scores cannot be compared; put it back"
        )


def _seeds(history: History, trials: list[Row], released: PromptCandidate) -> tuple[Proposal, ...]:
    tried = [trial for trial in trials if trial["mean"] is not None and not is_calibrated(trial)]
    best = sorted(tried, key=lambda trial: (trial["state"] != "complete", -trial["mean"], trial["number"]))
    first: dict[tuple[Any, ...], Proposal] = {}
    others: list[Proposal] = []
    for trial in best:
        if trial["candidate_id"] == released.id:
            continue
        try:
            prompt = recorded_prompt(history.candidate(trial["candidate_id"]))
        except InputError:
            continue
        said = f"trial {trial['number']} of {trial['n']} rows at {points(trial['mean'])} on the old model"
        made = Proposal(prompt, {}, "from-history", None, said)
        shape = (prompt.technique, prompt.instruction, prompt.must_prove)
        if shape in first:
            others.append(made)
        else:
            first[shape] = made
    return tuple([*first.values(), *others][:MOST_SEEDS])
