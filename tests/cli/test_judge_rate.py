"""`optimize judge rate` for a run whose rows came from a data file."""

import json
from pathlib import Path

from click.testing import CliRunner

from agent.cli import main
from tests.cli.conftest import Made
from tests.cli.world import TOPICS, refused


def test_the_answers_of_a_run_of_a_data_file_are_shown_with_their_rows_and_rated(two_runs: Made) -> None:
    run = two_runs[0]["run_id"]
    done = CliRunner().invoke(main, ["judge", "rate", run, "--rater", "ann", "--count", "3"], input="5\n1\nq\n")
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in Path("runs", run, "ratings.jsonl").read_text("utf-8").splitlines()]
    assert [row["rating"] for row in rows] == [5, 1]
    assert all(row["rater"] == "ann" and row["text"] in done.output for row in rows)
    assert all(row["label"] in (*TOPICS, "I am not sure") for row in rows)


def test_rows_that_changed_since_are_not_rated(two_runs: Made) -> None:
    run = two_runs[0]["run_id"]
    with Path("rows.csv").open("a", encoding="utf-8") as file:
        file.writelines(f"new{n},a parcel that never came {n},delivery\n" for n in range(40))
    (line,) = refused(2, "judge", "rate", run, "--rater", "ann")
    assert "rows.csv changed since" in line
