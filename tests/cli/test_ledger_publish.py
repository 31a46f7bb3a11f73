"""`optimize ledger publish` and `verify`, `--ledger-url` of a run: what is said, how it ends, and no password."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

from tests.cli.world import compatible, files, good, good_json, learner, optimize, refused
from tests.conftest import Made
from tests.ledger.ledgers import read
from tests.wire import WireServer

TEAM = "sqlite:///team.sqlite"
SECRET = "pw-S3cret-77"


def test_a_run_is_published_and_checked_there(two_runs: Made) -> None:
    run_id = two_runs[0]["run_id"]
    made = good_json("ledger", "publish", run_id, "--to", TEAM)
    assert made["new"]
    assert made["texts"] == 0
    assert "stands there already" in good("ledger", "publish", run_id, "--to", TEAM)
    said = good("ledger", "verify", run_id, "--from", TEAM, "--anchor", made["digest"])
    assert said == f"whole: {made['events']} events, {made['rows']} rows, 0 texts, digest {made['digest']}\n"
    release = Path("runs") / run_id / "prompt.md"  # notes a head of the chain
    assert good_json("ledger", "verify", run_id, "--from", TEAM, "--anchor", release)["whole"]
    with closing(sqlite3.connect("team.sqlite", isolation_level=None)) as db:
        db.execute("UPDATE promptassay_trials SET mean = 0.99 WHERE number = 1")
    result = optimize("ledger", "verify", run_id, "--from", TEAM)
    assert result.exit_code == 1
    assert "a row of trials is not what event" in result.stdout


def test_a_run_with_a_ledger_url_is_published_when_it_has_finished() -> None:
    command = files(120)
    with WireServer(learner) as server:
        command += ["-m", compatible(server), "--price", "1,2", "--max-calls", "100", "-n", "1", "-q"]
        result = optimize(*command, "--ledger-url", TEAM, "--json")
        assert result.exit_code == 0
        run_id = json.loads(result.stdout)["run_id"]
        assert f"{run_id}: published: " in result.stderr
        assert good_json("ledger", "verify", run_id, "--from", TEAM)["whole"]
        again = optimize(*command, "--ledger-url", f"postgresql://team:{SECRET}@127.0.0.1:1/team", "--json")
        plain = optimize(*command, "--ledger-url", f"mysql://team:{SECRET}@127.0.0.1/team")
    if "needs psycopg" in again.stderr:
        assert again.exit_code == 2
    else:
        run_id = json.loads(again.stdout)["run_id"]
        assert again.exit_code == 0
        words = f"publish it with: optimize ledger publish {run_id} --to 'postgresql://team:[key]@127.0.0.1:1/team'"
        assert words in again.stderr
    assert plain.exit_code == 2
    assert "unsupported kind of database" in plain.stderr
    assert len(read(Path("runs/ledger.db"), "SELECT id FROM runs")) == (2 if again.exit_code == 0 else 1)
    assert SECRET not in again.output + plain.output
    for path in Path().rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path


def test_what_is_missing_is_said_in_a_line(two_runs: Made) -> None:
    assert "no such run" in refused(2, "ledger", "verify", "x", "--from", TEAM)[0]
    assert "no run x" in refused(2, "ledger", "publish", "x", "--to", TEAM)[0]
    assert "not a database address" in refused(2, "ledger", "publish", two_runs[0]["run_id"], "--to", "team")[0]
