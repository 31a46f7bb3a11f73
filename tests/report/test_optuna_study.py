"""The derived study is the run of the ledger, written whole or not at all; and which parameters mattered."""

from __future__ import annotations

import random
import resource
import sqlite3
import stat
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import optuna
import pytest

from agent.errors import InputError
from agent.ledger.query import History
from agent.ledger.store import Ledger, NewCandidate, NewRun
from agent.prompt.prompt_candidate import PromptCandidate
from agent.report import optuna_study
from agent.report.optuna_study import optuna_file, write_study
from agent.report.view import RunView
from agent.search.study import Params
from agent.types import Trial
from tests.cli.test_untrusted import EVIL
from tests.cli.world import good_json
from tests.ledger.ledgers import read
from tests.report.web_world import DB
from tests.toys import make_task

STATES = {"complete": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL", "incomplete": "RUNNING"}
Runs = Mapping[str, str]


def load(path: Path) -> optuna.Study:
    """The only study of the file."""
    url = f"sqlite:///{path}"
    (name,) = optuna.get_all_study_names(url)
    return optuna.load_study(study_name=name, storage=url)


def check(study: optuna.Study, trials: list[dict[str, Any]]) -> None:
    for found, trial in zip(study.trials, trials, strict=True):
        assert found.number == trial["number"] == found.user_attrs["trial"]
        assert found.state.name == STATES[trial["state"]]
        assert found.value == (trial["mean"] if trial["state"] in ("complete", "pruned") else None)
        assert all(found.params[name] == trial[name] for name in ("technique", "format", "n_examples"))
        for name in ("candidate_id", "operator", "n", "low", "high", "calls", "cached", "tokens", "cost_usd"):
            assert found.user_attrs[name] == trial[name]


def test_the_study_is_the_run_and_is_rewritten_each_time(runs: Runs) -> None:
    before, path = DB.read_bytes(), optuna_file(DB, runs["search"])
    study, trials = load(path), good_json("history", runs["search"])["trials"]
    assert (path, study.study_name) == (DB.parent / runs["search"] / "optuna.db", f"rows {runs['search']}")
    check(study, trials)
    assert study.best_value == max(trial["mean"] for trial in trials if trial["state"] == "complete")
    assert study.user_attrs["verdict"]
    body = "SELECT utc, json_extract(body, '$.row.n'), json_extract(body, '$.row.mean') FROM events "
    body += "WHERE run_id = ? AND kind LIKE 'trial_%' AND json_extract(body, '$.row.number') = ? ORDER BY seq"
    words: dict[str, set[str]] = {}
    for found, trial in zip(study.trials, trials, strict=True):
        looks = read(DB, body, runs["search"], found.number)
        assert found.intermediate_values == {n: mean for _, n, mean in looks if mean is not None}
        moments = (found.datetime_start, found.datetime_complete)
        told = [datetime.fromisoformat(looks[at][0]) for at in (0, -1)]
        assert [moment.astimezone(UTC) for moment in moments if moment] == told
        words.setdefault(found.params["instruction"], set()).add(trial["instruction"])
    assert [len(texts) for texts in words.values()] == [1] * len({trial["instruction"] for trial in trials})
    study.enqueue_trial({"technique": "zero-shot"})
    assert len(load(optuna_file(DB, runs["search"])).trials) == len(trials)
    assert DB.read_bytes() == before


@pytest.mark.parametrize(
    ("error", "said"), [(ZeroDivisionError, "division"), (InputError, r"written \(File too large\)")]
)
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, error: type[Exception], said: str
) -> None:
    path = optuna_file(DB, runs["search"])
    files, before, most = sorted(path.parent.iterdir()), path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    with closing(History(DB)) as history:
        view = RunView(history, runs["search"])
        try:
            if error is InputError:
                resource.setrlimit(resource.RLIMIT_FSIZE, (4096, most[1]))
            else:
                monkeypatch.setattr(optuna_study, "_trials", lambda *_: [1 / 0])
            with pytest.raises(error, match=said):
                write_study(view, path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, most)
    assert (sorted(path.parent.iterdir()), path.read_bytes()) == (files, before)


def test_a_run_under_way_with_odd_words_in_an_odd_folder(here: Path) -> None:
    folder = here / "a {x} 100% ? # ü"
    folder.mkdir()
    states = [
        ("complete", 4, 0.5),
        ("failed", 2, 0.9),
        ("pruned", 2, 0.25),
        ("incomplete", 1, 1.0),
        ("incomplete", 0, None),
    ]
    with closing(Ledger(folder / "ledger.db")) as ledger:
        ledger.begin_run(NewRun("run-1", make_task(), EVIL, EVIL, 7))
        for number, (state, n, mean) in enumerate(states):
            candidate = PromptCandidate("zero-shot", "turns", f"{EVIL} {number} {'long ' * 500}", role=EVIL)
            ledger.add_candidate("run-1", NewCandidate(number, candidate.shown(), (), f"{EVIL}:x", None, EVIL))
            trial = Trial(number, 0, candidate.id, state, n, mean, None, EVIL)  # type: ignore[arg-type]
            ledger.put_trial("run-1", trial)
        ledger.begin_run(NewRun("run-2", make_task(), "m"))
    path = optuna_file(folder / "ledger.db", "run-1")
    assert (path, stat.S_IMODE(path.stat().st_mode)) == (folder / "run-1" / "optuna.db", 0o600)
    Path("plain.db").write_bytes(path.read_bytes())
    study = load(Path("plain.db"))
    with closing(History(folder / "ledger.db")) as history:
        check(study, history.trials("run-1"))
    assert (study.best_trial.number, study.trials[3].intermediate_values) == (0, {1: 1.0})
    assert (study.trials[3].datetime_complete, "verdict" in study.user_attrs) == (None, False)
    assert all(len(trial.user_attrs["instruction"]) == optuna_study.SHOWN for trial in study.trials)
    Path("plain.db").write_bytes(optuna_file(folder / "ledger.db").read_bytes())  # the latest, without trials
    assert load(Path("plain.db")).trials == []
    with closing(sqlite3.connect("plain.db")) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    with pytest.raises(InputError):
        optuna_file(folder / "ledger.db", "nothing")


def test_the_parameter_that_decides_comes_first_and_shares_add_up() -> None:
    rng, params, values = random.Random(3), list[Params](), list[float]()
    for number in range(40):
        layout, technique = rng.choice(("turns", "inline")), rng.choice(("zero-shot", "few-shot"))
        conditional = {"size": rng.choice((4, 8))} if technique == "few-shot" else {"role": "expert"}
        params.append({"format": layout, "technique": technique, **conditional})
        values.append((0.8 if layout == "inline" else 0.2) + number / 1000)
    first, *others = optuna_study._importances(params, values)
    assert (first.name, first.best, first.trials) == ("format", "inline", sum(p["format"] == "inline" for p in params))
    assert first.mean > 0.75
    assert all(first.share > other.share for other in others)
    assert sum(one.share for one in [first, *others]) == pytest.approx(1)
    assert optuna_study._importances([{"format": "turns"}] * 14, [0.5] * 14) == []
