"""The fault campaign itself: its table and exit code always come, and no command is left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.books import Books, broken_promises
from tests.chaos.harness import Campaign, Row
from tests.chaos.points import MARKS, epochs_again, spread
from tests.child import ROOT

DONE = Row("a fault", 1, "a promise", "what happened")
SCRIPT = """
import sys
from tests import test_chaos_campaign as own
from tests.chaos import __main__ as campaign
campaign.preload = lambda: None  # no command here runs long enough to need it
campaign.SCENARIOS = {name: own.ROWS[name] for name in sys.argv.pop().split(",")}
sys.exit(campaign.main())
"""


def played(*names: str) -> tuple[int, str, str]:
    """Return exit code, table and stderr of a campaign of these rows."""
    command = [sys.executable, "-c", SCRIPT, ",".join(names)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    return ended.returncode, ended.stdout, ended.stderr


def slow() -> None:
    time.sleep(60)


def fine(c: Campaign) -> Row:
    return DONE


def raises(c: Campaign) -> Row:
    raise RuntimeError("a mistake of the row")


def killed_early(c: Campaign) -> Row:
    """Signals that come as soon as there is a command to send them to."""
    folder = c.folder("early")
    for number in (signal.SIGTERM, signal.SIGKILL) * 2:
        command = folder.start("--version", hook=slow)
        command.send(number)
        if command.wait().code == 0:
            return Row("early", 1, "", "", (f"{number.name} did not end it",))
    return DONE


def lost(c: Campaign) -> Row:
    """A child that somebody else waited for, and its files are gone."""
    folder = c.folder("lost")
    command = folder.start("--version", hook=slow)
    os.kill(command.pid, signal.SIGKILL)
    os.waitpid(command.pid, 0)
    for path in folder.path.glob("command-*"):
        path.unlink()
    ended = command.wait()
    return Row("lost", 1, "", "", () if "gone" in ended.err and ended.code else (f"exit {ended.code}: {ended.err}",))


def interrupts(c: Campaign) -> Row:
    """Ctrl-C of the campaign while a command runs."""
    print(f"child {c.folder('left').start('--version', hook=slow).pid}", flush=True)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)
    return DONE


ROWS: dict[str, Callable[[Campaign], Row]] = {
    each.__name__: each for each in (fine, raises, killed_early, lost, interrupts)
}


def test_a_row_that_fails_is_broken_and_the_others_are_played() -> None:
    code, out, err = played("raises", "killed_early", "lost", "fine")
    assert code == 1, err
    assert "BROKEN raises: RuntimeError: a mistake of the row" in out
    assert "4 of 4 rows, 1 broken" in out, out
    assert re.search(r"^a fault +1 .* ok$", out, re.MULTILINE)


def test_an_interrupted_campaign_shows_what_was_done_and_leaves_no_command() -> None:
    code, out, err = played("fine", "interrupts", "raises")
    assert code == 130, err
    assert "a fault" in out
    assert "interrupted in interrupts" in out
    assert "1 of 3 rows" in out
    (pid,) = re.findall(r"^child (\d+)$", out, re.MULTILINE)
    assert not Path(f"/proc/{pid}").exists()


def call(number: int, key: str, state: str = "ok", **more: Any) -> dict[str, Any]:
    paid = {"cost_usd": 0.001, "reserved_usd": 0.002, "error_class": None, "response_hash": f"reply of {key}"}
    return {"id": number, "state": state, "call_key": key, "request_hash": key, "prefix_hash": "", **paid, **more}


def books(*calls: dict[str, Any]) -> Books:
    bodies = {
        each["call_key"]: json.dumps({"max_tokens": 5, "temperature": 0, "messages": [], "logprobs": 0, "seed": None})
        for each in calls
    }
    return Books(list(calls), bodies, {}, {}, {}, {})


@pytest.mark.parametrize(
    ("now", "bill", "said"),
    [
        ([call(1, "a"), call(2, "b", "sent")], {}, ""),
        ([call(1, "a"), call(2, "a")], {}, "bought again"),
        ([call(1, "a", response_hash="another")], {}, "1 settled calls were lost"),
        ([call(1, "a"), call(2, "b", "sent", reserved_usd=9.0)], {}, "above the cap"),
        ([call(1, "a")], {"requests": 2}, "the provider saw 2 requests, the ledger 1"),
        ([call(1, "a")], {"requests": 0}, "the ledger settled 1"),
        ([call(1, "a")], {"completion_tokens": 10_000}, "the provider billed $0.02"),
        ([call(1, "a")], {"by_key": {"x": 1}}, "more often than the ledger says"),
    ],
)
def test_a_broken_promise_is_seen(now: list[dict[str, Any]], bill: dict[str, Any], said: str) -> None:
    found = books(*now)
    honest = {"requests": len(now), "by_key": found.bodies(), "prompt_tokens": 0, "completion_tokens": 0}
    wrong = broken_promises(found, honest | bill, before=books(call(1, "a")), max_cost=1.0)
    assert [said in each for each in wrong] == ([True] if said else [])


def test_every_kind_of_point_is_chosen() -> None:
    assert spread(Counter(commit=5, seal=1), 2) == [("commit", 0), ("commit", 2), ("commit", 4), ("seal", 0)]


@pytest.mark.parametrize(("lines", "again"), [("begins a/1\nkept a/1\nbegins a/2\n", 0), ("kept a/1\nbegins a/1\n", 1)])
def test_an_epoch_that_was_kept_and_trained_again_is_seen(lines: str, again: int, tmp_path: Path) -> None:
    (tmp_path / MARKS).write_text(lines)
    assert len(epochs_again(tmp_path / MARKS)) == again
