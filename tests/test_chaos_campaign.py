"""The fault campaign itself: whatever a row does, its table and its exit code come, and no command is left behind.
What it says of a limiter by the provider's timeline can fail, and does not for ours.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent.gateway import limiter as room
from agent.gateway.limiter import Limiter
from tests.chaos.faults import Fault, Faults, spoil
from tests.chaos.harness import WIDTH, Campaign, Row
from tests.chaos.provider import RATE, ROOM, SILENT, Capacity, unkept
from tests.chaos.server import Bill
from tests.child import ROOT
from tests.gateway.virtual import VirtualLoop

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


# -- the verdict on a limiter, with the real limiter and the provider's rule, on a clock that jumps --------------------

CALLS = 400
WAY = 0.001  # seconds from the provider's refusal to the client


def bill_of(kind: Capacity, *faults: Fault) -> dict[str, Any]:
    """The provider's bill of so many calls that a limiter lets out."""
    bill, rule, limiter, opened = Bill(), Faults(faults, 0), Limiter("m", WIDTH), 0

    def arrives(now: float) -> float | None:
        """The wait that is asked for; 0 for none, None for an answer."""
        bill.requests += 1
        bill.arrivals.append(now)
        bill.opened.append(opened)
        if (fault := rule.strike(now, opened)) is None:
            bill.billed_requests += 1
            return None
        bill.by_fault[fault.kind] += 1
        wait = spoil(fault, True, {}, "").wait
        if wait is not None:
            bill.windows.append((now, now + wait, 429))
        return wait or 0.0

    async def call() -> None:
        nonlocal opened
        while True:
            await limiter.acquire()
            opened += 1
            asked = arrives(loop.time())
            opened -= asked is not None  # refused at once
            await asyncio.sleep(kind.latency if asked is None else WAY)
            opened -= asked is None
            if asked is None:
                limiter.succeeded()
            else:
                limiter.rate_limited(asked or None, WAY)
            limiter.release()
            if asked is None:
                return

    async def all_calls() -> None:
        await asyncio.gather(*(call() for _ in range(CALLS)))

    loop = VirtualLoop()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(room, "time", SimpleNamespace(monotonic=loop.time))
            loop.play(all_calls())
    finally:
        loop.close()
    return bill.as_dict(0, with_arrivals=True)


def verdict(kind: Capacity) -> list[str]:
    free = bill_of(kind)["arrivals"]
    return unkept(kind, bill_of(kind, Fault("capacity", **kind.fault)), free[-1] - free[0])


def never_waits(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Limiter, "_pause", lambda self, until: None)


def never_learns(patch: pytest.MonkeyPatch) -> None:
    plain = Limiter.rate_limited

    def rate_limited(self: Limiter, *given: Any) -> None:
        width = self.width
        plain(self, *given)
        self.width = width

    patch.setattr(Limiter, "rate_limited", rate_limited)
    patch.setattr(Limiter, "_learn_pace", lambda self, now: None)


def creeps(patch: pytest.MonkeyPatch) -> None:
    def learn(self: Limiter, now: float) -> None:
        self._interval = 10 / 100  # a tenth of what the provider bears

    patch.setattr(Limiter, "_learn_pace", learn)


def sleeps_in(patch: pytest.MonkeyPatch) -> None:
    plain = Limiter._pause
    patch.setattr(Limiter, "_pause", lambda self, until: plain(self, until + 30))


@pytest.mark.parametrize("kind", [RATE, SILENT, ROOM], ids=lambda kind: kind.words)
def test_our_limiter_keeps_what_the_campaign_promises_of_it(kind: Capacity) -> None:
    assert verdict(kind) == []


@pytest.mark.parametrize(
    ("spoilt", "kind", "said"),
    [
        (never_waits, RATE, "in the second half of a wait"),
        (never_waits, ROOM, "in the second half of a wait"),
        (never_learns, RATE, "% of the requests were refused"),
        (never_learns, SILENT, "% of the requests were refused"),
        (never_learns, ROOM, "% of the requests were refused"),
        (creeps, RATE, "s outside the waits"),
        (creeps, SILENT, "s outside the waits"),
        (sleeps_in, RATE, "s outside the waits"),
        (sleeps_in, ROOM, "s outside the waits"),
    ],
)
def test_a_limiter_that_does_not_keep_it_is_seen(
    spoilt: Callable[[pytest.MonkeyPatch], None], kind: Capacity, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoilt(monkeypatch)
    assert any(said in what for what in verdict(kind)), verdict(kind)
