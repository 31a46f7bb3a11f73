"""The fault campaign itself: whatever a row does, its table and its exit code come, and no command is left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.harness import Campaign, Row
from tests.child import ROOT

DONE = Row("a fault", 1, "a promise", "what happened")
SCRIPT = """
import sys
from tests import test_chaos_campaign as own
from tests.chaos import __main__ as campaign
campaign.preload = lambda: None  # nothing here runs for long enough to need it
campaign.SCENARIOS = {name: own.ROWS[name] for name in sys.argv.pop().split(",")}
sys.exit(campaign.main())
"""


def played(*names: str) -> tuple[int, str, str]:
    """Exit code, table and stderr of a campaign of these rows, in a process of its own."""
    command = [sys.executable, "-c", SCRIPT, ",".join(names)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    return ended.returncode, ended.stdout, ended.stderr


def slow() -> None:
    time.sleep(60)


def fine(c: Campaign) -> Row:
    return DONE


def raises(c: Campaign) -> Row:
    raise RuntimeError("a mistake of the row")


def leaves(c: Campaign) -> Row:
    sys.exit("nothing more to do")


def killed_early(c: Campaign) -> Row:
    """Signals that come as soon as there is a command to send them to."""
    folder = c.folder("early")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL) * 5:
        command = folder.start("--version", hook=slow)
        command.send(number)
        ended = command.wait()
        if ended.code == 0:
            return Row("early", 1, "", "", (f"{number.name} did not end it",))
    return DONE


def vanished(c: Campaign) -> Row:
    """A child that somebody else waited for, and its files are gone."""
    folder = c.folder("vanished")
    command = folder.start("--version", hook=slow)
    os.kill(command.pid, signal.SIGKILL)
    os.waitpid(command.pid, 0)
    for path in folder.path.glob("command-*"):
        path.unlink()
    return DONE


def lost(c: Campaign) -> Row:
    """The same, and the row waits for it."""
    vanished(c)
    ended = c._running[-1].wait()
    return Row("lost", 1, "", "", () if "gone" in ended.err and ended.code else (f"exit {ended.code}: {ended.err}",))


def interrupts(c: Campaign) -> Row:
    """Ctrl-C of the campaign while a command runs."""
    print(f"child {c.folder('left').start('--version', hook=slow).pid}", flush=True)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)
    return DONE


def terminates(c: Campaign) -> Row:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
    return DONE


ROWS: dict[str, Callable[[Campaign], Row]] = {
    each.__name__: each for each in (fine, raises, leaves, killed_early, vanished, lost, interrupts, terminates)
}


@pytest.mark.parametrize(
    ("name", "said"),
    [("raises", "RuntimeError: a mistake of the row"), ("leaves", "SystemExit: nothing more to do")],
)
def test_a_row_that_does_not_come_to_its_end_is_broken_and_the_others_are_played(name: str, said: str) -> None:
    code, out, err = played(name, "fine")
    assert code == 1, err
    assert f"BROKEN {name}: {said}" in out
    assert "2 of 2 rows, 1 broken" in out
    assert re.search(r"^a fault +1 .* ok$", out, re.MULTILINE)


def test_a_command_may_be_signalled_as_soon_as_it_is_there() -> None:
    code, out, err = played("killed_early", "raises")
    assert "FileNotFoundError" not in out + err
    assert "ChildProcessError" not in out + err
    assert "did not end it" not in out
    assert (code, "2 of 2 rows" in out) == (1, True), out + err


def test_children_and_files_that_are_gone_end_no_campaign() -> None:
    code, out, err = played("vanished", "lost", "raises")
    assert code == 1, err
    assert "3 of 3 rows, 1 broken" in out, out


@pytest.mark.parametrize("name", ["interrupts", "terminates"])
def test_an_interrupted_campaign_shows_what_was_done_and_leaves_no_command(name: str) -> None:
    code, out, err = played("fine", name, "raises")
    assert code == 130, err
    assert "a fault" in out
    assert f"interrupted in {name}" in out
    assert "1 of 3 rows" in out
    for line in out.splitlines():
        if line.startswith("child "):
            assert not Path(f"/proc/{line.split()[1]}").exists()
