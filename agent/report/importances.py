"""What mattered in a search: how far each parameter told the best trials from the others (Optuna's PED-ANOVA)."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agent.report.view import RunView
from agent.search.study import TOLD, MeanScore, Params, StudyTrial, folded, shrunk
from agent.types import content_id

FEWEST = 12
"""Scored trials, below which nothing is said."""
BEST_SHARE = 0.25
"""Of the trials, those that count as the best ones."""


@dataclass(frozen=True, slots=True)
class Importance:
    """What one parameter mattered.

    Args:
        share: of all that mattered, in [0, 1].
        best: the choice whose `trials` have the highest `mean` of dev scores, each shrunk towards the mean of all.
    """

    name: str
    share: float
    best: str
    mean: float
    trials: int


def told_trials(view: RunView) -> list[StudyTrial]:
    """The trials of the run's study as they were told last; none for a run whose candidates no study proposed."""
    rows = view.history.select("SELECT body FROM events WHERE run_id = ? AND kind = ? ORDER BY seq", view.id, TOLD)
    return folded([[StudyTrial.from_dict(each) for each in json.loads(row["body"])["trials"]] for row in rows])


def place(trial: Mapping[str, object]) -> dict[str, str | int]:
    """The parameters of a trial of the ledger; the instruction as a hash of its words."""
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
    """The parameters of a run's candidates by how much they mattered, most first; none with too few trials.

    The parameters are those of the run's study, where one proposed them. The score is the mean on dev.

    Source: Watanabe et al. 2023, "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary Subspaces".
    """
    told = {trial.candidate_id: trial.params for trial in told_trials(view)}
    scored = [trial for trial in view.trials if trial["mean"] is not None and trial["state"] != "failed"]
    scored = [trial for trial in scored if not told or trial["candidate_id"] in told]
    if len(scored) < FEWEST:
        return []
    prior = sum(trial["mean"] for trial in scored) / len(scored)
    values = [shrunk(MeanScore(trial["mean"], trial["n"]), prior) for trial in scored]
    return _of([told.get(trial["candidate_id"]) or place(trial) for trial in scored], values)


def _of(params: Sequence[Params], values: Sequence[float]) -> list[Importance]:
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
