"""The derived study: loaded with optuna itself it is the ledger's run, and it is written whole or not at all."""

import resource
import sqlite3
import stat
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
from agent.types import Trial
from tests.cli.test_untrusted import EVIL
from tests.cli.world import good_json
from tests.conftest import Made
from tests.ledger.ledgers import read
from tests.toys import make_task

DB = Path("runs/ledger.db")
STATES = {"complete": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL", "incomplete": "RUNNING"}


def load(path: Path) -> optuna.Study:
    """The only study of the file."""
    url = f"sqlite:///{path}"
    (name,) = optuna.get_all_study_names(url)
    return optuna.load_study(study_name=name, storage=url)


def check(study: optuna.Study, trials: list[dict[str, Any]]) -> None:
    assert len(study.trials) == len(trials)
    for found, trial in zip(study.trials, trials, strict=True):
        assert found.number == trial["number"] == found.user_attrs["trial"]
        assert found.state.name == STATES[trial["state"]]
        assert found.value == (trial["mean"] if trial["state"] in ("complete", "pruned") else None)
        assert {name: found.params[name] for name in ("technique", "format", "n_examples")} == {
            name: trial[name] for name in ("technique", "format", "n_examples")
        }
        for name in ("candidate_id", "operator", "n", "low", "high", "calls", "cached", "tokens", "cost_usd"):
            assert found.user_attrs[name] == trial[name]


def test_the_study_is_the_run(two_runs: Made) -> None:
    for result in two_runs:
        path = optuna_file(DB, result["run_id"])
        assert path == DB.parent / result["run_id"] / "optuna.db"
        study = load(path)
        trials = good_json("history", result["run_id"])["trials"]
        check(study, trials)
        assert study.study_name == f"rows {result['run_id']}"
        assert study.direction == optuna.study.StudyDirection.MAXIMIZE
        complete = [trial for trial in trials if trial["state"] == "complete"]
        best = max(trial["mean"] for trial in complete)
        assert study.best_value == best
        assert study.best_trial.number in [trial["number"] for trial in complete if trial["mean"] == best]
        assert result["winner"]["candidate_id"] in [trial.user_attrs["candidate_id"] for trial in study.trials]
        assert study.user_attrs["id"] == result["run_id"]
        assert study.user_attrs["verdict"]
    assert optuna_file(DB).parent.name == two_runs[1]["run_id"]


def test_rungs_are_the_steps_and_times_are_those_of_the_chain(two_runs: Made) -> None:
    result = two_runs[0]
    study = load(optuna_file(DB, result["run_id"]))
    body = "SELECT utc, json_extract(body, '$.row.n'), json_extract(body, '$.row.mean') FROM events "
    body += "WHERE run_id = ? AND kind LIKE 'trial_%' AND json_extract(body, '$.row.number') = ? ORDER BY seq"
    steps = set()
    for trial in study.trials:
        looks = read(DB, body, result["run_id"], trial.number)
        assert trial.intermediate_values == {n: mean for _, n, mean in looks if mean is not None}
        steps |= set(trial.intermediate_values)
        assert trial.datetime_start is not None
        assert trial.datetime_complete is not None
        began, ended = (moment.astimezone(UTC) for moment in (trial.datetime_start, trial.datetime_complete))
        assert (began, ended) == (datetime.fromisoformat(looks[0][0]), datetime.fromisoformat(looks[-1][0]))
    plan = good_json("show", result["run_id"])["plan"]
    assert len(steps) > 1
    assert steps <= {*plan["rungs"], plan["baseline_rows"]}


def test_same_words_are_the_same_instruction(two_runs: Made) -> None:
    run_id = two_runs[0]["run_id"]
    study = load(optuna_file(DB, run_id))
    words = {trial["number"]: trial["instruction"] for trial in good_json("history", run_id)["trials"]}
    by_id: dict[str, set[str]] = {}
    for trial in study.trials:
        by_id.setdefault(trial.params["instruction"], set()).add(words[trial.number])
        assert trial.user_attrs["instruction"] == words[trial.number]
    assert len(by_id) == len(set(words.values())) > 1
    assert all(len(found) == 1 for found in by_id.values())


def test_it_is_written_anew_each_time_and_the_ledger_is_left_alone(two_runs: Made) -> None:
    before = DB.read_bytes()
    path = optuna_file(DB)
    load(path).enqueue_trial({"technique": "zero-shot"})
    count = len(load(path).trials)
    assert len(load(optuna_file(DB)).trials) == count - 1
    path.write_bytes(b"not a database")
    assert len(load(optuna_file(DB)).trials) == count - 1
    assert DB.read_bytes() == before


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    two_runs: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = optuna_file(DB)
    files, before = sorted(path.parent.iterdir()), path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(optuna_study, "_trials", lambda *_: [1 / 0])
        with pytest.raises(ZeroDivisionError):
            optuna_file(DB)
    assert sorted(path.parent.iterdir()) == files
    assert path.read_bytes() == before


def test_a_disk_that_is_full_is_one_line(two_runs: Made) -> None:
    path = optuna_file(DB)
    files, before = sorted(path.parent.iterdir()), path.read_bytes()
    most = resource.getrlimit(resource.RLIMIT_FSIZE)
    with closing(History(DB)) as history:
        view = RunView(history, "")
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, most[1]))  # as a disk that is full
        try:
            with pytest.raises(InputError, match=r"optuna\.db: cannot be written \(File too large\)"):
                write_study(view, path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, most)
    assert sorted(path.parent.iterdir()) == files
    assert path.read_bytes() == before


def test_a_run_under_way_with_odd_words_in_an_odd_folder(here: Path) -> None:
    folder = here / "a {x} 100% ? # ü"
    folder.mkdir()
    ledger = Ledger(folder / "ledger.db")
    ledger.begin_run(NewRun("run-1", make_task(), EVIL, EVIL, 7, {}, {}, options={}))
    states = [
        ("complete", 4, 0.5),
        ("failed", 2, 0.9),
        ("pruned", 2, 0.25),
        ("incomplete", 1, 1.0),
        ("incomplete", 0, None),
    ]
    for number, (state, n, mean) in enumerate(states):
        candidate = PromptCandidate("zero-shot", "turns", f"{EVIL} {number} {'long ' * 500}", role=EVIL)
        ledger.add_candidate("run-1", NewCandidate(number, candidate.shown(), (), f"{EVIL}:x", None, EVIL))
        ledger.put_trial("run-1", Trial(number, 0, candidate.id, state, n, mean, None, EVIL))  # type: ignore[arg-type]
    ledger.close()
    path = optuna_file(folder / "ledger.db")
    assert path == folder / "run-1" / "optuna.db"
    plain = here / "plain.db"
    plain.write_bytes(path.read_bytes())
    study = load(plain)
    history = History(folder / "ledger.db")
    check(study, history.trials("run-1"))
    assert (study.best_trial.number, study.best_value) == (0, 0.5)
    assert study.trials[3].intermediate_values == {1: 1.0}
    assert study.trials[3].datetime_complete is None
    assert "verdict" not in study.user_attrs
    assert all(len(trial.user_attrs["instruction"]) == optuna_study.SHOWN for trial in study.trials)
    assert write_study(RunView(history), plain) == 5


def test_a_run_without_trials_is_an_empty_study(here: Path) -> None:
    ledger = Ledger(Path("ledger.db"))
    ledger.begin_run(NewRun("run-1", make_task(), "m", "none", 7, {}, {}, options={}))
    ledger.close()
    path = optuna_file(Path("ledger.db"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load(path).trials == []
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    with pytest.raises(InputError):
        optuna_file(Path("ledger.db"), "nothing")
