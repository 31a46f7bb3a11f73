"""A run as an Optuna study in a SQLite file of its own, for optuna-dashboard. Derived: the ledger is what counts, and
the file is made anew each time. Where a study proposed the candidates (`--sampler tpe`), it is that very study.
"""

from __future__ import annotations

import sqlite3
import warnings
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import InputError
from agent.files import new_files
from agent.ledger.query import Row, history_of, run_folder, searched
from agent.report.facts import verdict
from agent.report.importances import place, told_trials
from agent.report.view import RunView
from agent.search.study import StudyTrial, built

if TYPE_CHECKING:
    import optuna

STATES = {"complete": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL", "incomplete": "RUNNING"}
SHOWN = 500
"""Characters of an instruction in the file, which is for charts."""
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
    """Writes the study of a run, by default the latest, to RUN_ID/optuna.db next to the ledger. Raises InputError."""
    with closing(history_of(db)) as history:
        view = RunView(history, run)
        searched(view.run)
        path = run_folder(db.parent, view.id) / "optuna.db"
        write_study(view, path)
    return path


def write_study(view: RunView, path: Path) -> int:
    """Replaces `path` by the run's study, for its owner only, whole or not at all; returns how many trials it has.

    The value is the mean dev score (0 to 1), rows seen are the steps in between. A pruned trial's value is its last
    one, on fewer rows than a complete trial's. What an unfinished run left incomplete stands as running.
    Of a run whose candidates a study proposed, parameters, values, states and steps are what that study was told: a
    value is then the mean of the evidence, shrunk. Raises InputError when the disk refuses.
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
        trials = _told(view, told) if told else _trials(view)
        study.add_trials(trials)
        storage.remove_session()
        data = db.serialize()
    try:
        with new_files(path.parent) as beside:
            new = beside / path.name
            new.touch(mode=0o600)
            new.write_bytes(data)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}); free or repair the disk") from error
    return len(trials)


def _about(view: RunView) -> dict[str, Any]:
    about = {name: view.run[name] for name in ("id", "task", "status", "model", "proposer", "seed", "started_utc")}
    return about if view.result is None else about | {"verdict": verdict(view.result)}


def _trials(view: RunView) -> list[optuna.trial.FrozenTrial]:
    from optuna.trial import FrozenTrial, TrialState

    by_trial = _events_by_trial(view)
    places = [place(trial) for trial in view.trials]
    distributions = _distributions(places)
    trials = []
    for number, (trial, params) in enumerate(zip(view.trials, places, strict=True)):
        state = TrialState[STATES[trial["state"]]]
        events = by_trial.get(trial["number"], [])
        begun = _time(events[0]["utc"] if events else view.run["started_utc"])
        trials.append(
            FrozenTrial(
                number=number,
                trial_id=number,
                state=state,
                value=trial["mean"] if state in (TrialState.COMPLETE, TrialState.PRUNED) else None,
                datetime_start=begun,
                datetime_complete=(_time(events[-1]["utc"]) if events else begun) if state.is_finished() else None,
                params=params,
                distributions=distributions,
                user_attrs=_attributes(trial),
                system_attrs={},
                intermediate_values={event["n"]: event["mean"] for event in events if event["mean"] is not None},
            )
        )
    return trials


def _told(view: RunView, told: Sequence[StudyTrial]) -> list[optuna.trial.FrozenTrial]:
    by_trial, rows = _events_by_trial(view), {trial["candidate_id"]: trial for trial in view.trials}
    trials: list[optuna.trial.FrozenTrial] = built(told).trials
    for trial, known in zip(trials, told, strict=True):
        row = rows[known.candidate_id]
        events = by_trial.get(row["number"], [])
        trial.datetime_start = _time(events[0]["utc"] if events else view.run["started_utc"])
        if trial.state.is_finished():
            trial.datetime_complete = _time(events[-1]["utc"]) if events else trial.datetime_start
        trial.user_attrs = _attributes(row) | {"dev_score": row["mean"]}
    return trials


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
    """By trial, its events in order: when, after how many rows, and the mean by then."""
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
    """Optuna keeps times of the machine's zone, without it."""
    return datetime.fromisoformat(utc).replace(tzinfo=UTC).astimezone().replace(tzinfo=None)
