"""The live block on a real terminal: it follows the run, and nothing of it stays, however the run ends."""

from __future__ import annotations

import re
import termios
from typing import Any

from tests.cli.world import compatible, files, learner
from tests.terminal import Session, Terminal, on_terminal
from tests.wire import Fault, WireServer

HEAD = re.compile(r"stage (\d) of \d: ([a-z]+)")


def slow(messages: list[dict[str, Any]], body: dict[str, Any]) -> Fault:
    return Fault(text=learner(messages, body), delay=0.3)  # the block is drawn twice a second


def ended_clean(session: Session) -> None:
    assert session.terminal.cursor_is_shown
    assert (session.terminal.modes & termios.ECHO, session.terminal.modes & termios.NOFLSH) == (termios.ECHO, 0)
    assert not any(HEAD.search(line) for line in session.terminal.shown())


def test_a_run_is_shown_while_it_runs_and_its_report_follows() -> None:
    with WireServer(slow) as server:
        session = on_terminal([*files(80), "-m", compatible(server), "--max-calls", "120", "--price", "1,2"])
    assert session.code == 0
    blocks = []
    for screen in session.screens:
        heads = [number for number, line in enumerate(screen) if HEAD.search(line)]
        assert len(heads) <= 1, "never two blocks below each other"
        blocks += [screen[number:] for number in heads]
    stages = [found.groups() for block in blocks if (found := HEAD.search(block[0]))]
    assert [int(number) for number, _ in stages] == sorted(int(number) for number, _ in stages)
    assert {"your", "searching", "sealed"} <= {word for _, word in stages}
    whole = [block for block in blocks if len(block) == 7]
    assert any(re.search(r"waiting for \d+ replies of openai-compatible/x, the oldest \d+ s$", b[-1]) for b in whole)
    assert len({block[-1][0] for block in whole}) > 2, "the mark turns"
    assert re.search(r"all +\d+ of 120 calls +[\d,]+ tokens +\$0\.\d{4}", whole[-1][5])
    assert re.search(r"\x1b\[(?:\d+;)*(?:3[0-8]|9[0-7]|4[0-8])[;m]", session.written), "in colour"
    ended_clean(session)
    last = session.terminal.shown()
    assert any(line.startswith("plan: 120 calls") for line in last), "messages are above"
    assert any(line.startswith("Better: +") for line in last)


def test_a_terminal_without_cursor_control_gets_lines_without_colour() -> None:
    with WireServer(learner) as server:
        words = [*files(80), "-m", compatible(server), "--max-calls", "60", "-n", "1"]
        session = on_terminal(words, environment={"TERM": "dumb"})
    assert (session.code, "\x1b" in session.written) == (0, False)
    assert re.search(r"^\[\d:\d\d\] your own prompt: 0 of \d+ calls", session.written, re.M)


def test_ctrl_c_twice_takes_the_block_away_and_says_how_to_continue() -> None:
    presses: list[str] = []

    def press(terminal: Terminal) -> str:
        said = terminal.shown()
        ready = any(" waiting for " in line for line in said) if not presses else len(presses) == 1
        if ready and (not presses or any("press Ctrl-C again" in line for line in said)):
            assert terminal.modes & termios.NOFLSH, "Ctrl-C discards no part of the block that is still unread"
            presses.append("typed\n\x03")
            return presses[-1]
        return ""

    with WireServer(lambda messages, body: Fault(delay=20.0)) as server:
        session = on_terminal([*files(120), "-m", compatible(server), "--max-calls", "200"], keys=press)
    assert (session.code, len(presses)) == (130, 2)
    ended_clean(session)
    assert not any("typed" in line or "^C" in line for screen in session.screens for line in screen)
    assert any(line.startswith("stopping") for line in session.terminal.shown())
    assert session.terminal.shown()[-1].startswith("optimize resume ")
