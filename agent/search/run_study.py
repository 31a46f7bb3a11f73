"""A run as one Optuna study by ask and tell: what makes a candidate, and the settings of it, are its parameters.

The parameters are conditional: a new design (`FRESH`) has the coordinates of its place, a change of a good candidate
the rank of its parent (0: the best), each setting that an operator takes is named OPERATOR.SETTING.

Optuna fixes the choices of a parameter within a study and closes a trial that was told, but instructions come in and
candidates climb while a run goes on. So a study is built of the trials of the run at each step (`built`), from the same
records that the ledger keeps: what is shown afterwards is what decided.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from agent.search.study import MeanScore, shrunk
from agent.types import TrialState

if TYPE_CHECKING:
    import optuna

OPERATOR, PARENT = "operator", "parent"
TOLD = "study_told"
"""The ledger's event with the trials that are new or have changed since the one before."""
Params = Mapping[str, str | int]


@dataclass(frozen=True, slots=True)
class StudyTrial:
    """One candidate as a trial of the study.

    Args:
        candidate_id: the candidate.
        params: by parameter what was chosen; the rank of the parent is a whole number, all else a word.
        state: of its trial in the run.
        steps: by rows seen (rungs), the mean of its evidence over them, in [0, 1].
    """

    candidate_id: str
    params: Params
    state: TrialState
    steps: Mapping[int, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The trial as the ledger keeps it."""
        return asdict(self) | {"steps": {str(rows): mean for rows, mean in self.steps.items()}}

    @staticmethod
    def from_dict(row: Mapping[str, Any]) -> StudyTrial:
        """The trial of `as_dict`."""
        steps = {int(rows): float(mean) for rows, mean in row["steps"].items()}
        return StudyTrial(str(row["candidate_id"]), dict(row["params"]), row["state"], steps)

    @property
    def last(self) -> MeanScore:
        """The mean over the most rows; over none where there is none."""
        rows = max(self.steps, default=0)
        return MeanScore(self.steps[rows], rows) if rows else MeanScore(0.0, 0)


def folded(told: Sequence[Sequence[StudyTrial]]) -> list[StudyTrial]:
    """The trials as they stand after what was told, each in the place where it came first."""
    trials: dict[str, StudyTrial] = {}
    for batch in told:
        trials |= {trial.candidate_id: trial for trial in batch}
    return list(trials.values())


def prior_of(trials: Sequence[StudyTrial]) -> float:
    """The mean of the means of all that have rows; 0 for none."""
    means = [trial.last.mean for trial in trials if trial.steps]
    return sum(means) / len(means) if means else 0.0


def distributions_of(
    trials: Sequence[StudyTrial], choices: Mapping[str, Sequence[str]], ranks: int
) -> dict[str, optuna.distributions.BaseDistribution]:
    """What each parameter can be: the choices as of now, and all that was chosen before.

    Args:
        trials: the trials so far.
        choices: by parameter the words that can be chosen now.
        ranks: how many parents there can be, at least 1.

    Returns:
        The distributions by parameter; choices stand in the order of their words.
    """
    from optuna.distributions import CategoricalDistribution, IntDistribution

    words: dict[str, set[str]] = {name: set(each) for name, each in choices.items()}
    for trial in trials:
        for name, value in trial.params.items():
            if isinstance(value, int):
                ranks = max(ranks, value + 1)
            else:
                words.setdefault(name, set()).add(value)
    categories = {name: CategoricalDistribution(sorted(each)) for name, each in sorted(words.items()) if each}
    return {**categories, PARENT: IntDistribution(0, ranks - 1)}


def frozen(
    trial: StudyTrial, prior: float, distributions: Mapping[str, optuna.distributions.BaseDistribution]
) -> optuna.trial.FrozenTrial:
    """The trial for Optuna.

    A candidate that may still climb is complete with its mean so far, shrunk towards `prior` (few rows say little); one
    that was pruned has its means at the rungs, and stands behind all others; one that failed has no value.
    """
    from optuna.trial import TrialState as State
    from optuna.trial import create_trial

    value: float | None = shrunk(trial.last, prior)
    state = {"pruned": State.PRUNED, "failed": State.FAIL}.get(trial.state, State.COMPLETE)
    if state == State.PRUNED:
        value = trial.last.mean
    if state != State.FAIL and not trial.steps:
        state = State.RUNNING
    return create_trial(
        state=state,
        value=None if state in (State.FAIL, State.RUNNING) else value,
        params=dict(trial.params),
        distributions={name: distributions[name] for name in trial.params},
        intermediate_values=dict(trial.steps),
        user_attrs={"candidate_id": trial.candidate_id},
    )


def built(
    trials: Sequence[StudyTrial],
    distributions: Mapping[str, optuna.distributions.BaseDistribution] | None = None,
    **options: Any,
) -> optuna.Study:
    """The study of these trials; the same trials make the same one.

    Args:
        trials: the trials, in their order.
        distributions: what each parameter can be; None: what the trials have.
        options: of `optuna.create_study`, such as its storage and its name.

    Returns:
        The study.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    known, prior = distributions or distributions_of(trials, {}, 1), prior_of(trials)
    study = optuna.create_study(direction="maximize", **options)
    study.add_trials([frozen(trial, prior, known) for trial in trials])
    return study
