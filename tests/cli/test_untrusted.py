"""Escape sequences in data, prompts, labels, replies and error bodies never reach the terminal as such."""

import csv
import json
import random
import re
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from agent.cli.common import plain, print_json
from agent.errors import InputError
from agent.jobs.optimize import RunState
from agent.ledger.store import Ledger, NewRun
from tests.cli.world import compatible, good, optimize, refused
from tests.toys import FakeModel, launched, make_task
from tests.wire import Fault, WireServer

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\x7f\u202e\x08"
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@pytest.fixture
def command() -> list[str]:
    """Rows, labels and prompt full of control characters (a text target: a choice would refuse them)."""
    rng = random.Random(1)
    words = [f"word{n}" for n in range(400)]
    with Path("rows.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["text", "label"])
        for number in range(120):
            table.writerow([f"{EVIL} {' '.join(rng.sample(words, 8))}", f"{EVIL} answer {number}"])
    Path("p.txt").write_text(f"Answer well. {EVIL}", "utf-8")
    return ["run", "rows.csv", "--target", "label", "--prompt", "p.txt", "--max-calls", "200", "--proposer", "none"]


def test_a_ledger_from_elsewhere_does_not_say_where_to_write(tmp_path: Path) -> None:
    deep = tmp_path / "deep" / "er"
    deep.mkdir(parents=True)
    path = deep / "ledger.db"
    task = make_task(60)
    launch = launched(task, FakeModel("x"), max_calls=300)
    with closing(Ledger(path)) as ledger:
        ledger.begin_run(NewRun("../../out", task, "m", "none", 7, {}, {}, options={"task": "toy"}))
        with pytest.raises(InputError, match=r"\.\./\.\./out: not a valid folder name"):
            RunState.of(replace(launch, run_id="../../out")).open(ledger)
    for words in (["report"], ["ui", "--optuna"], ["judge", "rate", "--rater", "ann"]):
        (line,) = refused(2, *words, "--db", path)
        assert "../../out: not a valid folder name" in line
    assert [place for place in tmp_path.rglob("*") if place.is_dir()] == [deep.parent, deep]
    good("report", "-o", tmp_path / "here.html", "--db", path)


def test_error_lines_hold_no_control_character(command: list[str]) -> None:
    body = {"error": {"message": f"no {EVIL} way", "code": EVIL}}
    with WireServer(lambda messages, sent: Fault(401, body=body)) as server:
        refusals = [optimize(*command, "-m", compatible(server), "-q")]
        server.look = Fault(401, body=body)
        refusals.append(optimize(*command, "-m", compatible(server), "-q", "--no-cache"))
    refusals += [optimize(EVIL), optimize("run", f"{EVIL}.csv"), optimize("show", EVIL, "--db", EVIL)]
    for arguments in (["-m", EVIL], ["--limit", EVIL], ["--tag", EVIL], ["--price", EVIL], ["--time-limit", EVIL]):
        refusals.append(optimize(*command, *arguments, "-q"))
    for result in refusals:
        assert result.exit_code in (1, 2)
        assert result.stdout == ""
        assert not CONTROL.search(result.stderr)
        lines = result.stderr.splitlines()
        is_usage = len(lines) == 4 and lines[-1].startswith("Error: Invalid value for ")
        assert is_usage or len(lines) == 1 or (len(lines) == 2 and lines[1].startswith("no call was made"))


def test_json_stays_the_same_value_with_every_character_escaped_that_could_steer_a_terminal() -> None:
    text = "".join(map(chr, [*range(0x300), *range(0x2000, 0x2070), 0xD800, 0xFEFF, 0x1F600, 0xE0001]))

    @click.command()
    def show() -> None:
        print_json({text: [text]})

    output = CliRunner().invoke(show).stdout
    assert json.loads(output) == {text: [text]}
    assert not CONTROL.search(output)
    assert "é" in output
    assert "😀" in output
    assert not CONTROL.search(plain(text))
