"""Runs with `--batch`: killed at random moments, and with results of which a line cannot be read.

In the end each must be as an undisturbed one, with no request in two batches and no settled call bought again.
"""

from __future__ import annotations

import signal
import time

from tests.batch.provider import DAMAGE
from tests.chaos.books import Books, broken_promises, differences
from tests.chaos.comparisons import bill
from tests.chaos.harness import MAX_COST, TINY, Campaign, Row
from tests.child import ChildServer

KILLS = 30


def impatient() -> None:
    """A hook: sets are submitted and looked at sooner than a provider would like."""
    from agent.gateway import batch_course, batches

    batches.QUIET_SECONDS, batch_course.FIRST_WAIT = 0.05, 0.02


def kills(c: Campaign) -> Row:
    """Runs with three batches each, one row of seven unanswered in each."""
    rng, wanted, killed, runs = c.rng("batch"), c.times(KILLS, 3), 0, 0
    broken: list[str] = []
    with ChildServer("tests.chaos.batch_server") as server:
        whole = c.folder("batch")
        undisturbed = whole.run(f"{server.root}/v1", *TINY, "--batch", hook=impatient).wait()
        if undisturbed.code:
            raise RuntimeError(f"the undisturbed run failed: {undisturbed.err[-500:]}")
        expected, one = whole.books(), bill(server)
        batches, before_all = one["batches"], one
        while killed < wanted:
            runs += 1
            folder, before = c.folder("batch"), None
            ledger_of_run = bill(server)
            while before is None or not before.results:
                command = folder.again(*TINY, "--batch", url=f"{server.root}/v1", hook=impatient)
                if killed < wanted:
                    time.sleep(rng.uniform(0.0, undisturbed.seconds))
                    ended = command.poll() or command.kill()
                else:
                    ended = command.wait()
                killed += ended.code == -signal.SIGKILL
                books = folder.books()
                broken += broken_promises(books, None, before, MAX_COST)
                if ended.code not in (0, -signal.SIGKILL):
                    broken.append(f"exit {ended.code}: {ended.err[-300:]}")
                    break
                before = books
            else:
                broken += differences(before, expected)
            submitted = bill(server)["batches"] - ledger_of_run["batches"]
            broken += [f"{submitted} batches of a run that has {batches}"] if submitted > batches else []
        last = bill(server)
    happened = f"{runs} runs, {last['batches'] - before_all['batches']} batches of {last['rows']} rows in all"
    promised = "as undisturbed; no batch submitted twice, no settled call bought again, under the cap"
    return Row("kill -9 with batches", killed, promised, happened, tuple(broken))


def unreadable_lines(c: Campaign) -> Row:
    """Damage one line in each file of results: that row alone is bought live, and it is told."""
    broken, told = list[str](), list[str]()

    def played(*damage: str) -> tuple[Books, int, int, str]:
        with ChildServer("tests.chaos.batch_server", *damage) as server:
            folder = c.folder("lines")
            ended = folder.run(f"{server.root}/v1", *TINY, "--batch", hook=impatient).wait()
            seen = bill(server)
        broken.extend([f"{damage}: exit {ended.code}: {ended.err[-300:]}"] if ended.code else [])
        return folder.books(), seen["batches"], seen["requests"], ended.err

    expected, batches, live, _ = played()
    for damage in DAMAGE:
        books, submitted, requests, err = played(damage)
        told.append(f"{damage}: {requests - live} rows bought live")
        broken += differences(books, expected) + broken_promises(books, None, None, MAX_COST)
        broken += [] if "of its results cannot be read" in err else [f"{damage}: not told"]
        broken += [] if submitted == batches else [f"{damage}: {submitted} batches for {batches}"]
        broken += [] if 0 < requests - live <= batches else [f"{damage}: {requests - live} rows of {batches} batches"]
    promised = f"as undisturbed; one row of each of {batches} batches live, and told"
    return Row("results with an unreadable line", len(DAMAGE), promised, "; ".join(told), tuple(broken))
