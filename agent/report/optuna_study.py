"""A run as an Optuna study in a SQLite file, for optuna-dashboard; and parameter importances (PED-ANOVA).

The file is derived from the ledger and rewritten each time. If a study proposed the candidates (`--sampler tpe`), the
file holds that study.
"""

from __future__ import annotations

import json
import sqlite3
import warnings
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import InputError
from agent.ledger.query import Row, history_of, run_folder, searched
from agent.report.view import RunView
from agent.report.wording import verdict
from agent.safe_file import disk_errors, new_file
from agent.search.study import TOLD, MeanScore, Params, StudyTrial, built, folded, shrunk
from agent.types import content_id

if TYPE_CHECKING:
    import optuna

STATES = {"complete": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL", "incomplete": "RUNNING"}
SHOWN = 500
"""Maximum length of an instruction in the file, which is for charts."""
FEWEST = 12
"""Minimum number of scored trials."""
BEST_SHARE = 0.25
"""Share of trials that count as the best."""
ATTRIBUTES = (
    "candidate_id",
    "round",
    "operator",
    "reason",
    "n",
    "low",
    "high",
    "calls",
    "cached",
    "tokens",
    "cost_usd",
)


def optuna_file(db: Path, run: str = "") -> Path:
    """Write the study of a run (the latest by default) to RUN_ID/optuna.db next to the ledger. Raises InputError."""
    with closing(history_of(db)) as history:
        view = RunView(history, run)
        searched(view.run)
        path = run_folder(db.parent, view.id) / "optuna.db"
        write_study(view, path)
    return path


def write_study(view: RunView, path: Path) -> int:
    """Replace `path` atomically by the run's study with owner-only permissions; return its number of trials.

    A value is the mean dev score (0 to 1), a step is the number of rows seen. A pruned trial has its last value, on
    fewer rows than a complete trial. Incomplete trials of an unfinished run are stored as running. If a study proposed
    the candidates, parameters, values, states and steps are those of that study, whose values are shrunken means.
    Raises InputError if the file cannot be written.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    told = told_trials(view)
    with closing(sqlite3.connect(":memory:")) as db:
        storage = optuna.storages.RDBStorage("sqlite://", {"creator": lambda: db})
        study = optuna.create_study(storage=storage, study_name=f"{view.run['task']} {view.id}", direction="maximize")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # optuna marks names of metrics as experimental
            study.set_metric_names(["evidence on dev" if told else "dev score"])
        for name, value in _about(view).items():
            study.set_user_attr(name, value)
        trials = _trials(view, told)
        study.add_trials(trials)
        storage.remove_session()
        data = db.serialize()
    fix = "free or repair the disk"
    with disk_errors(f"{path}: cannot be written", fix, InputError), new_file(path, private=True) as file:
        file.write(data)
    return len(trials)


def _about(view: RunView) -> dict[str, Any]:
    about = {name: view.run[name] for name in ("id", "task", "status", "model", "proposer", "seed", "started_utc")}
    return about if view.result is None else about | {"verdict": verdict(view.result)}


def _trials(view: RunView, told: Sequence[StudyTrial]) -> list[optuna.trial.FrozenTrial]:
    by_trial, by_candidate = _events_by_trial(view), {trial["candidate_id"]: trial for trial in view.trials}
    rows = [by_candidate[trial.candidate_id] for trial in told] if told else view.trials
    trials = built(told).trials if told else _of_ledger(rows, by_trial)
    for row, trial in zip(rows, trials, strict=True):
        events = by_trial.get(row["number"], [])
        trial.datetime_start = _time(events[0]["utc"] if events else view.run["started_utc"])
        if trial.state.is_finished():
            trial.datetime_complete = _time(events[-1]["utc"]) if events else trial.datetime_start
        trial.user_attrs = _attributes(row) | ({"dev_score": row["mean"]} if told else {})
    return trials


def _of_ledger(rows: Sequence[Row], by_trial: Mapping[int, Sequence[Row]]) -> list[optuna.trial.FrozenTrial]:
    from optuna.trial import TrialState, create_trial

    places = [place(row) for row in rows]
    distributions = _distributions(places)
    return [
        create_trial(
            state=TrialState[STATES[row["state"]]],
            value=row["mean"] if row["state"] in ("complete", "pruned") else None,
            params=params,
            distributions=distributions,
            intermediate_values={e["n"]: e["mean"] for e in by_trial.get(row["number"], ()) if e["mean"] is not None},
        )
        for row, params in zip(rows, places, strict=True)
    ]


def _distributions(places: Sequence[Mapping[str, Any]]) -> dict[str, optuna.distributions.BaseDistribution]:
    from optuna.distributions import CategoricalDistribution, IntDistribution

    distributions: dict[str, optuna.distributions.BaseDistribution] = {}
    for name in places[0] if places else ():
        values = [place[name] for place in places]
        is_count = isinstance(values[0], int)
        distributions[name] = (
            IntDistribution(0, max(values)) if is_count else CategoricalDistribution(list(dict.fromkeys(values)))
        )
    return distributions


def _attributes(trial: Row) -> dict[str, Any]:
    text = trial["instruction"]
    text = text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
    return {name: trial[name] for name in ATTRIBUTES} | {"trial": trial["number"], "instruction": text}


def _events_by_trial(view: RunView) -> dict[int, list[Row]]:
    # by trial: time, rows seen and mean of each event
    rows = view.history.select(
        "SELECT json_extract(body, '$.row.number') AS number, utc, json_extract(body, '$.row.n') AS n, "
        "json_extract(body, '$.row.mean') AS mean FROM events WHERE run_id = ? AND kind IN "
        "('trial_incomplete', 'trial_complete', 'trial_pruned', 'trial_failed') ORDER BY seq",
        view.id,
    )
    by_trial: dict[int, list[Row]] = {}
    for row in rows:
        by_trial.setdefault(row["number"], []).append(row)
    return by_trial


def _time(utc: str) -> datetime:
    # Optuna stores naive local times
    return datetime.fromisoformat(utc).replace(tzinfo=UTC).astimezone().replace(tzinfo=None)


# -- what mattered -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Importance:
    """The importance of one parameter.

    Args:
        share: of the total, in [0, 1].
        best: the choice with the highest `mean` dev score over `trials`, shrunk towards the mean of all.
    """

    name: str
    share: float
    best: str
    mean: float
    trials: int


def told_trials(view: RunView) -> list[StudyTrial]:
    """Return the last recorded trials of the run's study; empty if no study proposed the candidates."""
    rows = view.history.select("SELECT body FROM events WHERE run_id = ? AND kind = ? ORDER BY seq", view.id, TOLD)
    return folded([[StudyTrial.from_dict(each) for each in json.loads(row["body"])["trials"]] for row in rows])


def place(trial: Mapping[str, object]) -> dict[str, str | int]:
    """Return the parameters of a trial of the ledger, with the instruction as a hash."""
    demos = trial["n_examples"]
    assert isinstance(demos, int)
    return {
        "technique": str(trial["technique"]),
        "format": str(trial["format"]),
        "role": str(trial["role"] or "none"),
        "instruction": content_id("i", str(trial["instruction"]))[:10],
        "n_examples": demos,
        "operator": str(trial["operator"] or "").partition(":")[0],
    }


def importances(view: RunView) -> list[Importance]:
    """Return the parameters of the candidates by importance for the dev score; empty with too few trials.

    If a study proposed the candidates, its parameters are used.

    Source: Watanabe et al. 2023, "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary
    Subspaces".
    """
    told = {trial.candidate_id: trial.params for trial in told_trials(view)}
    scored = [trial for trial in view.trials if trial["mean"] is not None and trial["state"] != "failed"]
    scored = [trial for trial in scored if not told or trial["candidate_id"] in told]
    if len(scored) < FEWEST:
        return []
    prior = sum(trial["mean"] for trial in scored) / len(scored)
    values = [shrunk(MeanScore(trial["mean"], trial["n"]), prior) for trial in scored]
    return _importances([told.get(trial["candidate_id"]) or place(trial) for trial in scored], values)


def _importances(params: Sequence[Params], values: Sequence[float]) -> list[Importance]:
    import optuna
    from optuna.distributions import CategoricalDistribution

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    names = sorted({name for each in params for name in each})
    known = {name: CategoricalDistribution(sorted({str(p[name]) for p in params if name in p})) for name in names}
    study = optuna.create_study(direction="maximize")
    for each, value in zip(params, values, strict=True):
        words = {name: str(choice) for name, choice in each.items()}
        own = {name: known[name] for name in words}
        study.add_trial(optuna.trial.create_trial(params=words, distributions=own, value=value))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of trials that are all alike, which matter nothing
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=BEST_SHARE)
        shares = evaluator.evaluate(study)
    total = sum(shares.values())
    if total <= 0:
        return []
    found = [_best(name, share / total, params, values) for name, share in shares.items() if share > 0]
    return sorted(found, key=lambda one: (-one.share, one.name))


def _best(name: str, share: float, params: Sequence[Params], values: Sequence[float]) -> Importance:
    by_choice: dict[str, list[float]] = {}
    for each, value in zip(params, values, strict=True):
        if name in each:
            by_choice.setdefault(str(each[name]), []).append(value)
    means = {choice: sum(scores) / len(scores) for choice, scores in by_choice.items()}
    best = max(sorted(means), key=lambda choice: means[choice])
    return Importance(name, share, best, means[best], len(by_choice[best]))
