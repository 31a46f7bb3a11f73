"""A run as an Optuna study in a SQLite file, for optuna-dashboard; and parameter importances (PED-ANOVA).

The file is derived from the ledger and rewritten each time. If a study proposed the candidates (`--sampler tpe`), the
file holds that study.
"""

from __future__ import annotations

import sqlite3
import warnings
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from agent.errors import InputError
from agent.ledger.query import Row, history_of, run_folder, searched
from agent.report.view import RunView
from agent.report.wording import verdict
from agent.safe_file import disk_errors, new_file
from agent.search.study import TOLD, MeanScore, Params, StudyTrial, folded, shrunk
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
    """Write a run's study to RUN_ID/optuna.db next to the ledger. The default is the latest run. Raises InputError."""
    with closing(history_of(db)) as history:
        view = RunView(history, run)
        searched(view.run)
        path = run_folder(db.parent, view.id) / "optuna.db"
        write_study(view, path)
    return path


def write_study(view: RunView, path: Path) -> None:
    """Replace `path` atomically by the run's study with owner-only permissions.

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
        for name in ("id", "task", "status", "model", "proposer", "seed", "started_utc"):
            study.set_user_attr(name, view.run[name])
        if view.result is not None:
            study.set_user_attr("verdict", verdict(view.result))
        study.add_trials(_trials(view, told))
        storage.remove_session()
        data = db.serialize()
    fix = "free or repair the disk"
    with disk_errors(f"{path}: cannot be written", fix, InputError), new_file(path, private=True) as file:
        file.write(data)


def _trials(view: RunView, told: Sequence[StudyTrial]) -> list[optuna.trial.FrozenTrial]:
    from agent.search.samplers import built

    by_trial, by_candidate = _events_by_trial(view), {trial["candidate_id"]: trial for trial in view.trials}
    rows = [by_candidate[trial.candidate_id] for trial in told] if told else view.trials
    trials = built(told).trials if told else _of_ledger(rows, by_trial)
    for row, trial in zip(rows, trials, strict=True):
        events, instruction = by_trial.get(row["number"], []), row["instruction"]
        trial.datetime_start = _time(events[0]["utc"] if events else view.run["started_utc"])
        if trial.state.is_finished():
            trial.datetime_complete = _time(events[-1]["utc"]) if events else trial.datetime_start
        cut = instruction if len(instruction) <= SHOWN else instruction[: SHOWN - 1] + "…"
        known = {name: row[name] for name in ATTRIBUTES} | {"trial": row["number"], "instruction": cut}
        trial.user_attrs = known | ({"dev_score": row["mean"]} if told else {})
    return trials


def _of_ledger(rows: Sequence[Row], by_trial: Mapping[int, Sequence[Row]]) -> list[optuna.trial.FrozenTrial]:
    import optuna

    places = [_place(row) for row in rows]
    distributions: dict[str, optuna.distributions.BaseDistribution] = {
        name: optuna.distributions.CategoricalDistribution(list(dict.fromkeys(place[name] for place in places)))
        for name in (places[0] if places else ())
    }
    if places:
        distributions["n_examples"] = optuna.distributions.IntDistribution(0, max(row["n_examples"] for row in rows))
    return [
        optuna.trial.create_trial(
            state=optuna.trial.TrialState[STATES[row["state"]]],
            value=row["mean"] if row["state"] in ("complete", "pruned") else None,
            params=dict(place),
            distributions=distributions,
            intermediate_values={e["n"]: e["mean"] for e in by_trial.get(row["number"], ()) if e["mean"] is not None},
        )
        for row, place in zip(rows, places, strict=True)
    ]


def _events_by_trial(view: RunView) -> dict[int, list[Row]]:
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


class Importance(NamedTuple):
    """A parameter's share of the total, and its choice with the highest shrunken `mean` dev score, over `trials`."""

    name: str
    share: float
    best: str
    mean: float
    trials: int


def told_trials(view: RunView) -> list[StudyTrial]:
    """Return the last recorded trials of the run's study. Empty if no study proposed the candidates."""
    rows = view.history.facts(TOLD, run_ids=[view.id])
    return folded([[StudyTrial.from_dict(each) for each in row["body"]["trials"]] for row in rows])


def _place(trial: Row) -> Params:
    return {
        "technique": trial["technique"],
        "format": trial["format"],
        "role": trial["role"] or "none",
        "instruction": content_id("i", trial["instruction"])[:10],
        "n_examples": trial["n_examples"],
        "operator": (trial["operator"] or "").partition(":")[0],
    }


def importances(view: RunView) -> list[Importance]:
    """Return the parameters of the candidates by importance for the dev score. Empty with too few trials.

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
    return _importances([told.get(trial["candidate_id"]) or _place(trial) for trial in scored], values)


def _importances(params: Sequence[Params], values: Sequence[float]) -> list[Importance]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    by_choice: dict[str, dict[str, list[float]]] = {}
    for each, value in zip(params, values, strict=True):
        for name, choice in each.items():
            by_choice.setdefault(name, {}).setdefault(str(choice), []).append(value)
    known = {
        name: optuna.distributions.CategoricalDistribution(sorted(choices))
        for name, choices in sorted(by_choice.items())
    }
    study = optuna.create_study(direction="maximize")
    for each, value in zip(params, values, strict=True):
        words = {name: str(choice) for name, choice in each.items()}
        own = {name: known[name] for name in each}
        study.add_trial(optuna.trial.create_trial(params=words, distributions=own, value=value))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of trials that are all alike, which matter nothing
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=BEST_SHARE)
        shares = evaluator.evaluate(study)
    total = sum(shares.values())
    found = []
    for name, share in shares.items():
        if share > 0:
            means = {choice: sum(scores) / len(scores) for choice, scores in by_choice[name].items()}
            best = max(sorted(means), key=means.__getitem__)
            found.append(Importance(name, share / total, best, means[best], len(by_choice[name][best])))
    return sorted(found, key=lambda one: (-one.share, one.name))
