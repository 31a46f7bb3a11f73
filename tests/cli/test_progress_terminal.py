"""The live block of a run on a real terminal: there while it runs, gone when it ends, whatever ends it."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cli.world import compatible, files, good_json, learner
from tests.terminal import Session, Terminal, on_terminal
from tests.wire import Fault, WireServer

COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-8]|9[0-7]|4[0-8])[;m]")
HEAD = re.compile(r"stage (\d) of \d: ([a-z]+)")


@pytest.fixture
def model() -> Iterator[str]:
    def slow(messages: list[dict[str, Any]], body: dict[str, Any]) -> Fault:
        return Fault(text=learner(messages, body), delay=0.4)  # the block is drawn twice a second

    with WireServer(slow) as server:
        yield compatible(server)


def blocks(session: Session) -> list[list[str]]:
    """The live block of each screen that had one: from its first line to its last."""
    found = []
    for screen in session.screens:
        heads = [number for number, line in enumerate(screen) if HEAD.search(line)]
        assert len(heads) <= 1, screen  # never two blocks below each other
        if heads:
            found.append(screen[heads[0] :])
    return found


def ended_clean(session: Session) -> None:
    """Nothing of the block stays, and the cursor is there."""
    assert session.terminal.cursor_is_shown
    assert not any(HEAD.search(line) for line in session.terminal.shown())


def test_a_run_is_shown_while_it_goes_on_and_its_report_follows(model: str) -> None:
    session = on_terminal([*files(120), "-m", model, "--max-calls", "200", "--price", "1,2"])
    assert session.code == 0
    shown = blocks(session)
    stages = [found.groups() for block in shown if (found := HEAD.search(block[0]))]
    assert [int(number) for number, _ in stages] == sorted(int(number) for number, _ in stages)
    assert {"baseline", "searching", "sealed"} <= {word for _, word in stages}
    whole = [block for block in shown if len(block) == 7]
    assert len(whole) > 5
    assert not [block for block in shown if len(block) > 8]
    assert any(re.search(r"waiting for \d+ replies of openai-compatible/x, the oldest \d+ s$", b[-1]) for b in whole)
    assert len({block[-1][0] for block in whole}) > 2  # the mark turns
    assert any(re.search(r"at most \d+:\d\d left", block[0]) for block in whole)
    assert re.search(r"best [\d.]+ \(95 % CI [\d.]+ to [\d.]+\), baseline [\d.]+: .*, c_", whole[-1][2])
    assert re.search(r"all +\d+ of 200 calls +[\d,]+ tokens +\$0\.\d{4}", whole[-1][5])
    assert COLOUR.search(session.written)
    ended_clean(session)
    last = session.terminal.shown()
    assert any(line.startswith("plan: 200 calls") for line in last)  # messages stand above
    assert any(line.startswith("Better: +") for line in last)


def test_a_narrow_terminal_does_not_break_the_block(model: str) -> None:
    session = on_terminal([*files(120), "-m", model, "--max-calls", "100", "-n", "1"], columns=30)
    assert session.code == 0
    shown = blocks(session)
    assert shown
    assert all(len(block) <= 8 for block in shown)
    ended_clean(session)


def test_no_color_is_kept(model: str) -> None:
    arguments = [*files(120), "-m", model, "--max-calls", "100", "-n", "1"]
    session = on_terminal(arguments, environment={"NO_COLOR": "1"})
    assert blocks(session)
    assert not COLOUR.search(session.written)


def test_a_terminal_that_moves_no_cursor_gets_lines(model: str) -> None:
    arguments = [*files(120), "-m", model, "--max-calls", "100", "-n", "1"]
    session = on_terminal(arguments, environment={"TERM": "dumb"})
    assert session.code == 0
    assert "\x1b" not in session.written
    assert re.search(r"^\[\d:\d\d\] baseline \(your own prompt\): 0 of \d+ calls", session.written, re.M)


def test_ctrl_c_takes_the_block_away_and_says_how_to_go_on(model: str) -> None:
    pressed: list[str] = []

    def press(terminal: Terminal) -> str:
        if not pressed and any("searching" in line for line in terminal.shown()):
            pressed.append("\x03")
            return "\x03"
        return ""

    session = on_terminal([*files(120), "-m", model, "--max-calls", "200"], keys=press)
    assert session.code == 130
    ended_clean(session)
    assert session.terminal.shown()[-1].startswith("optimize resume ")
    assert any(line.startswith("stopping") for line in session.terminal.shown())


def test_a_second_ctrl_c_leaves_the_terminal_as_it_was() -> None:
    presses: list[str] = []

    def press(terminal: Terminal) -> str:
        said = terminal.shown()
        ready = any(" waiting for " in line for line in said) if not presses else len(presses) == 1
        if ready and (not presses or any("press Ctrl-C again" in line for line in said)):
            presses.append("\x03")
            return "\x03"
        return ""

    with WireServer(lambda messages, body: Fault(delay=20.0)) as server:
        session = on_terminal([*files(120), "-m", compatible(server), "--max-calls", "200"], keys=press)
    assert session.code == 130
    ended_clean(session)
    assert session.terminal.shown()[-1].startswith("optimize resume ")


def test_a_job_is_shown_too(model: str) -> None:
    assert on_terminal([*files(120), "-m", model, "--max-calls", "100", "-n", "1"]).code == 0
    with WireServer(lambda messages, body: Fault(text=learner(messages, body), delay=0.5)) as server:
        other = compatible(server).replace("/x@", "/y@")
        session = on_terminal(["transfer", good_json("runs")["runs"][0]["id"], "--models", other])
    assert session.code == 0
    shown = [screen for screen in session.screens if any("scoring prompts on other models" in line for line in screen)]
    assert any("waiting for" in line and "openai-compatible/y" in line for screen in shown for line in screen)
    assert session.terminal.cursor_is_shown
    assert not any("scoring prompts on other models" in line for line in session.terminal.shown())
