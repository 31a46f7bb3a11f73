"""Tables: set for the width of a terminal, the same bytes as ever in a pipe, and never another's escapes."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from agent.report.blocks import Column
from agent.report.terminal import LEVELS, fit, so_far, sparkline, whisker, won_and_lost
from tests.cli.test_untrusted import EVIL
from tests.cli.world import good, good_json
from tests.conftest import Made
from tests.warm import Process, start_on_terminal

ROOT = Path(__file__).resolve().parents[2]
COMMAND = "from agent.cli import main; main()"
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]")
FIGURES = (("baseline", "test"), ("winner", "test"), ("lift", "diff"))
BOX = "─━│┃┏┡▁●▲▼"


def on_terminal(width: int, *arguments: str, code: str = "", **variables: str) -> str:
    """What the command shows on a terminal of that width, with its colour codes."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
    plain = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "FORCE_COLOR")}
    environment = plain | {"TERM": "xterm-256color", "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"} | variables
    done: Process | subprocess.Popen[bytes]
    if code or any(name.startswith("PYTHON") for name in variables):  # what the interpreter reads when it starts
        argv = [sys.executable, "-c", code or COMMAND, *arguments]
        done = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, env=environment)
    else:
        done = start_on_terminal(arguments, theirs, environment)
    os.close(theirs)
    parts = []
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # how Linux says that the other end is closed
            break
        if not part:
            break
        parts.append(part)
    os.close(ours)
    assert done.wait(60) == 0, b"".join(parts)
    return b"".join(parts).decode("utf-8").replace("\r\n", "\n")


def bare(shown: str) -> str:
    """Without rich's colours; what else could steer a terminal fails."""
    text = COLOUR.sub("", shown)
    assert not CONTROL.search(text)
    return text


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_no_line_of_a_table_is_wider_than_the_terminal(two_runs: Made, width: int) -> None:
    first, second = (run["run_id"] for run in two_runs)
    for command in (["runs"], ["history", first], ["compare", first, second]):
        text = bare(on_terminal(width, *command))
        assert max(map(cell_len, text.split("\n"))) <= width
        assert "Traceback" not in text


def test_a_wide_terminal_shows_all_that_a_pipe_has_and_a_narrow_one_names_what_it_lacks(two_runs: Made) -> None:
    first, _ = (run["run_id"] for run in two_runs)
    for command in (["runs"], ["history", first]):
        heads, *rows = [line.split("\t") for line in good(*command).splitlines() if "\t" in line]
        wide = bare(on_terminal(260, *command))
        _, header, rule, *lines = wide.splitlines()
        assert [head for head in heads if head not in header] == []
        assert set(rule) == {"─"}
        body = [row for row in rows if len(row) == len(heads)]  # other tables come after
        body = body[: next((at for at, row in enumerate(body) if row[0] == "proposal"), len(body))]
        for row, line in zip(body, lines, strict=False):
            assert [cell for cell in row if cell not in line] == []
        narrow = bare(on_terminal(80, *command))
        said = narrow.partition("hidden (narrow terminal): ")[2].partition("What the proposer")[0]
        gone = said.replace("\n", " ").strip().split(", ")
        assert [head for head in heads if (head in narrow.splitlines()[1].split()) == (head in gone)] == []
        for row in body:
            assert any(line.split()[:1] == row[:1] for line in narrow.splitlines())


def test_numbers_stand_to_the_right_and_ids_stay_whole(two_runs: Made) -> None:
    first, second = (run["run_id"] for run in two_runs)
    lines = bare(on_terminal(80, "runs")).splitlines()
    end = lines[1].index("winner") + len("winner")
    for run, line in zip((second, first), lines[3:5], strict=True):
        assert line.startswith(run)
    for run, line in zip(reversed(two_runs), lines[3:5], strict=True):
        assert line[:end].endswith(f" {100 * run['winner']['test']:.1f}")
        assert line.split()[-1][-1] in LEVELS


def test_colour_says_gain_loss_and_what_was_pruned_and_can_be_turned_off(two_runs: Made) -> None:
    first = two_runs[0]["run_id"]
    assert two_runs[0]["lift"]["diff"] > 0
    assert f"\x1b[32m+{100 * two_runs[0]['lift']['diff']:.1f}" in on_terminal(120, "runs")
    trials = good_json("history", first)["trials"]
    states = {trial["state"] for trial in trials}
    assert states == {"complete", "pruned"}
    for line in on_terminal(120, "history", first).splitlines()[3 : 3 + len(trials)]:
        assert ("\x1b[2m" in line) == ("pruned" in line)
    both = [f"{first}:0", f"{first}:{_best(trials)}"]
    for pair, mark in ((both, "\x1b[32m▲"), (both[::-1], "\x1b[31m▼")):
        assert mark in on_terminal(120, "compare", *pair)
    for command in (["runs"], ["history", first], ["compare", *both]):
        assert "\x1b" not in on_terminal(90, *command, TERM="dumb")
        assert not re.search(r"\x1b\[[0-9;]*3[0-9]", on_terminal(90, *command, NO_COLOR="1"))


def _best(trials: list[dict[str, Any]]) -> int:
    complete = [trial for trial in trials if trial["state"] == "complete"]
    return int(max(complete, key=lambda trial: float(trial["mean"]))["number"])


def test_the_strip_of_a_comparison_has_a_mark_for_each_row(two_runs: Made) -> None:
    first = two_runs[0]["run_id"]
    both = [f"{first}:0", f"{first}:{_best(good_json('history', first)['trials'])}"]
    text = bare(on_terminal(100, "compare", *both))
    tests = good_json("compare", *both)["paired"]
    assert tests["dev"]["wins"] > 0
    for found in tests.values():
        strip = re.search(rf"B minus A on {found['n']} (?:.|\n)*?\stied\n([▲▼·\n]+)", text)
        assert strip
        marks = strip[1].replace("\n", "")
        assert [marks.count(mark) for mark in "▲▼·"] == [found["wins"], found["losses"], found["ties"]]


def test_a_pipe_gets_tabs_and_no_decoration(two_runs: Made) -> None:
    first, second = (run["run_id"] for run in two_runs)
    heads = {
        "runs": "run task model seed status baseline winner lift decision",
        "history": "trial round state score rows technique format examples operator calls tokens $ instruction reason",
        "compare": "what A B ",
    }
    for command in (["runs"], ["show", first], ["history", first], ["compare", first, second]):
        text = good(*command)
        assert not set(text) & {*BOX, "\x1b"}
        assert text == good(*command)
        if command[0] in heads:
            assert text.splitlines()[0] == heads[command[0]].replace(" ", "\t")
    by_id = {line.split("\t")[0]: line.split("\t") for line in good("runs").splitlines()}
    for run in two_runs:
        base, winner, lift = (100 * run[one][two] for one, two in FIGURES)
        assert by_id[run["run_id"]][5:] == [f"{base:.1f}", f"{winner:.1f}", f"{lift:+.1f}", run["decision"]]


def test_untrusted_text_and_markup_are_shown_as_they_are() -> None:
    code = "from agent.report.blocks import DiffBlock, table, text\nfrom agent.report.terminal import show\n"
    code += f"evil = {EVIL + '[red]x[/red] :smile:'!r}\n"
    code += "show(table(evil, (evil,), [(evil,), ('[/]',)], tabbed=True), text(evil, strong=True), DiffBlock('', evil))"
    text = bare(on_terminal(150, code=code))
    assert text.count("[red]x[/red] :smile:") == 5
    assert "[/]" in text
    assert text.count("\\x1b]0;owned") == 5


def test_a_terminal_without_our_letters_gets_the_numbers(two_runs: Made) -> None:
    first, _ = (run["run_id"] for run in two_runs)
    for command in (["runs"], ["history", first]):
        text = bare(on_terminal(80, *command, PYTHONUTF8="0", PYTHONIOENCODING="ascii"))
        assert not set(text) & set(BOX)
        assert "best dev" not in text.splitlines()[1]
        assert good(*command).splitlines()[1].split("\t")[0] in text


# -- the pure parts ---------------------------------------------------------------------------------------------------


def test_columns_go_by_rank_and_only_as_many_as_they_must() -> None:
    ranks, widths, least = [0, 2, 1, 0], [10, 10, 10, 20], [10, 10, 10, 8]
    assert fit(ranks, widths, least, 56) == {0: 10, 1: 10, 2: 10, 3: 20}
    assert fit(ranks, widths, least, 50) == {0: 10, 1: 10, 2: 10, 3: 14}
    assert fit(ranks, widths, least, 43) == {0: 10, 2: 10, 3: 19}
    assert fit(ranks, widths, least, 20) == {0: 10, 3: 8}
    assert fit(ranks, widths, least, 5) == {0: 10, 3: 8}
    assert fit([0, 0], [30, 20], [5, 12], 32) == {0: 15, 1: 15}
    assert fit([0, 0], [30, 20], [5, 18], 32) == {0: 12, 1: 18}
    assert Column("x").rank == 0


def test_strips_draw_what_the_numbers_say() -> None:
    assert sparkline([0.0, 0.5, 1.0], 8) == "▁▅█"
    assert sparkline([n / 100 for n in range(101)], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([], 8) == ""
    assert so_far([None, 0.2, None, 0.1, 0.4]) == [0.2, 0.2, 0.2, 0.4]
    assert whisker(0.5, 0.2, 0.8, 10) == "  ───●─── "
    assert whisker(1.0, 1.0, 1.0, 4) == "   ●"
    assert whisker(0.0, None, None, 4) == "●   "
    assert whisker(None, None, None, 4) == ""
    assert won_and_lost([0.5, -0.1, 0.0]) == "▲▼·"
