"""`optimize judge rate` for a run whose rows came from a data file."""

import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from agent.cli import main
from agent.errors import InputError
from agent.report.blinded import field_of
from agent.types import Field, Signature
from tests.cli.judges import PlantedJudge
from tests.cli.world import compatible, good_json, refused
from tests.conftest import Made
from tests.toys import make_task
from tests.wire import WireServer


def test_the_command_that_is_printed_measures_a_judge_with_the_ratings(two_runs: Made) -> None:
    run = two_runs[0]["run_id"]
    done = CliRunner().invoke(main, ["judge", "rate", run, "--rater", "ann"], input="5\n1\n3\n4\n" * 10)
    assert done.exit_code == 0, done.output
    program, *words = shlex.split(done.stdout.splitlines()[-1].partition(": ")[2])
    assert program == "optimize"
    with WireServer(PlantedJudge()) as server:
        told = good_json(*words, "--judge", compatible(server), "--repeats", "1", "--price", "1,2", "-q")
    assert (told["kind"], told["items"]) == ("judge_calibration", 40)


@pytest.mark.parametrize("name", ["item", "rater", "rating", "rating_tone"])
def test_a_field_named_as_a_column_of_ratings_is_refused(name: str) -> None:
    task = replace(make_task(), signature=Signature((Field(name),), (Field("team"),)))
    with pytest.raises(InputError, match=f"field {name} has the name of a column"):
        field_of(task, None)


def test_rows_that_changed_since_are_not_rated(two_runs: Made) -> None:
    run = two_runs[0]["run_id"]
    with Path("rows.csv").open("a", encoding="utf-8") as file:
        file.writelines(f"new{n},a parcel that never came {n},delivery\n" for n in range(40))
    (line,) = refused(2, "judge", "rate", run, "--rater", "ann")
    assert "rows.csv have changed" in line
