"""`kill -9` of runs with `--batch`, at random moments. After each kill the run goes on; in the end it must be as an
undisturbed one, no request may have been submitted in two batches, and no settled call bought again.
"""

from __future__ import annotations

import signal
import time

from tests.chaos.books import broken_promises, differences
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
