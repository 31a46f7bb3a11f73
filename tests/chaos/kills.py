"""`kill -9` of runs: at random moments, at every commit, while the ledger is made, under a cap, with batches.

Each run is continued after its kills and must end as an undisturbed one, with no settled call lost or bought again.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from functools import partial

from tests.chaos.books import Books, broken_promises, differences
from tests.chaos.command import Command, Ended, Hook
from tests.chaos.harness import MAX_COST, QUICK, TINY, WIDTH, Campaign, Folder, Provider, Row
from tests.chaos.points import MARKS, mark_and_die, points, spread

KILLS = 80
BATCH_KILLS = 30
CAPPED = 12
LATENCY = 0.06
"""Seconds per call, and up to twice that, so that a kill finds calls in flight."""
BEGINNING = 0.3
"""Seconds from a start to its kill, at most, for every other kill."""
FURTHER = 60
"""Requests from a start to its kill, at most, for the rest."""
LEAST = ("--effort", "quick", "--trials", "3", "--limit", "12-6-8", "--proposer", "none")
"""A run of 76 calls with a commit of each kind."""
BIRTH = 7
"""Fsyncs and deletions until a new ledger has its tables and its owner."""


def random_kills(c: Campaign) -> Row:
    """Kill runs of 400 calls with a proposer at random moments: at their start, or after more requests."""

    def strike(server: Provider, command: Command, rng: random.Random) -> Ended:
        if rng.random() < 0.5:
            time.sleep(rng.uniform(0.0, BEGINNING))
        else:
            server.further(command, server.requests() + rng.randint(1, FURTHER))
        return command.poll() or command.kill()

    with c.provider(latency=LATENCY, jitter=LATENCY) as server:
        return _killed(c, "kill -9 at random", server, QUICK, c.times(KILLS, 5), strike)


def batches(c: Campaign) -> Row:
    """Kill runs of three batches each; one row in seven of a batch stays unanswered."""
    with c.provider("batches") as server:
        ended = c.folder("whole").run(server.url, *TINY, "--batch", hook=impatient).wait()
        if ended.code:
            raise RuntimeError(f"the undisturbed run failed: {ended.err[-500:]}")
        submitted = server.bill()["batches"]

        def strike(server: Provider, command: Command, rng: random.Random) -> Ended:
            time.sleep(rng.uniform(0.0, ended.seconds))
            return command.poll() or command.kill()

        row = _killed(c, "kill -9 with batches", server, (*TINY, "--batch"), c.times(BATCH_KILLS, 3), strike, impatient)
        runs = int(row.happened.split()[0]) + 1
        if (found := server.bill()["batches"]) != submitted * runs:
            raise RuntimeError(f"{found} batches of {runs} runs with {submitted} each")
        return row


def impatient() -> None:
    """A hook: submit sets and look at them sooner than a provider would like."""
    from agent.gateway import batch_course
    from agent.gateway import batches as sets

    sets.QUIET_SECONDS, batch_course.FIRST_WAIT = 0.05, 0.02


Strike = Callable[[Provider, Command, random.Random], Ended]
"""Kills a command at a random moment, and returns how it ended."""


def _killed(
    c: Campaign,
    name: str,
    server: Provider,
    options: tuple[str, ...],
    wanted: int,
    strike: Strike,
    hook: Hook | None = None,
) -> Row:
    """Run after run until there were enough kills."""
    expected, rng, kills, runs, most = c.reference(*TINY if "--batch" in options else options), c.rng(name), 0, 0, 0
    broken: list[str] = []
    while kills < wanted:
        runs += 1
        server.reset()
        folder = c.folder("kills")
        books: Books | None = None
        while books is None or not books.results:
            command = folder.again(*options, url=server.url, hook=hook)
            ended = strike(server, command, rng) if kills < wanted else command.wait()
            kills += ended.code == -signal.SIGKILL
            before, books = books, folder.books()
            flying = len(books.in_state("reserved", "sent"))
            most = max(most, flying)
            broken += [f"{flying} unknown outcomes after one kill"] if flying > WIDTH else []
            broken += broken_promises(books, None if "--batch" in options else server.bill(), before, MAX_COST)
            if ended.code not in (0, -signal.SIGKILL):
                broken.append(f"exit {ended.code}: {ended.last_line}")
                break
        broken += differences(books, expected)
    happened = f"{runs} runs, at most {most} unknown outcomes a kill"
    promised = f"0 settled calls lost or bought again, <= {WIDTH} unknown a kill, under the cap, the same result"
    return Row(name, kills, promised, happened, tuple(broken))


def commit_points(c: Campaign) -> Row:
    """Kill a run before and after each commit, and each breaking and setting of the seal."""
    expected, broken, killed = c.reference(*LEAST), [], 0
    with c.provider() as server:
        whole = c.folder("commits")
        whole.run(server.url, *LEAST, hook=partial(mark_and_die, whole.path / MARKS)).wait()
        chosen = spread(points(whole.path / MARKS), max(1, round(1 / c.scale)))
        for at in chosen:
            server.reset()
            folder = c.folder("commits")
            ended = folder.run(server.url, *LEAST, hook=partial(mark_and_die, folder.path / MARKS, at)).wait()
            killed += ended.code == -signal.SIGKILL  # calls in flight share commits, so a run may have fewer points
            broken += [] if ended.code in (0, -signal.SIGKILL) else [f"{at}: exit {ended.code}: {ended.last_line}"]
            broken += [f"{at}: {what}" for what in _continued(folder, server, LEAST, expected)]
        broken += [f"only {killed} kills for {len(chosen)} points"] if 2 * killed < len(chosen) else []
    happened = f"{killed} kills, before and after commits, breakings and settings of the seal"
    return Row("kill -9 at every commit", killed, "nothing lost, the same result", happened, tuple(broken))


def birth(c: Campaign) -> Row:
    """Kill a run right before each of the first fsyncs and deletions of a new ledger's files."""
    name, promised, broken, killed = "kill -9 while the ledger is made", "the next run makes it or continues", [], 0
    if shutil.which("strace") is None:
        return Row(name, 0, promised, "", skipped="strace is not installed")
    expected, numbers = c.reference(*TINY), range(1, c.times(BIRTH, 4) + 1)
    with c.provider() as server:
        for number in numbers:
            server.reset()
            folder = c.folder("birth")
            paths = [word for tail in ("", "-journal", "-wal") for word in ("-P", f"{folder.ledger}{tail}")]
            calls = ("-e", "trace=fdatasync,fsync,unlink")
            inject = ("-e", f"inject=fdatasync,fsync,unlink:signal=SIGKILL:when={number}", "-o", os.devnull)
            ended = folder.run(server.url, *TINY, prefix=("strace", "-f", "-qq", *paths, *calls, *inject)).wait()
            killed += ended.code == -signal.SIGKILL
            broken += [f"fsync {number}: {what}" for what in _continued(folder, server, TINY, expected)]
    return Row(name, killed, promised, f"{killed} kills", tuple(broken))


def _continued(folder: Folder, server: Provider, options: tuple[str, ...], expected: Books) -> list[str]:
    """Continue a killed run to its end; returns what does not hold then."""
    before = folder.books() if folder.ledger.exists() else None
    if before is None or not before.results:
        ended = folder.again(*options, url=server.url, real=False).wait()
        if ended.code:
            return [f"exit {ended.code}: {ended.last_line}"]
    books = folder.books()
    return broken_promises(books, server.bill(), before, MAX_COST) + differences(books, expected)


def caps(c: Campaign) -> Row:
    """Kill runs with a cap on calls up to three times; a tenth of the requests fails."""
    rng, broken, kills, most, stopped = c.rng("caps"), [], 0, 0.0, 0
    runs = c.times(CAPPED, 2)
    with c.provider(latency=0.05, fails=0.1) as server:
        for _ in range(runs):
            cap = rng.randint(84, 140)
            server.reset()
            folder, options = c.folder("caps"), ("--max-calls", str(cap))
            for left in range(rng.randint(0, 3), -1, -1):
                command = folder.again(*options, url=server.url, hook=soon_again)
                if left:
                    server.further(command, server.requests() + rng.randint(1, FURTHER))
                ended = command.poll() or (command.kill() if left else command.wait())
                kills += ended.code == -signal.SIGKILL
                if ended.code >= 0:
                    break
            if ended.code:
                stopped += 1
                broken += [] if ended.code == 1 and "max_calls" in ended.err else [f"cap {cap}: {ended.told()}"]
            books, bill = folder.books(), server.bill()
            broken += [f"cap {cap}: {what}" for what in broken_promises(books, bill, None, MAX_COST)]
            spent = max(bill["requests"], len(books.attempts))
            most = max(most, spent / cap)
            broken += [f"cap {cap}: {spent} calls"] if spent > cap else []
    happened = f"{kills} kills; at most {100 * most:.0f} % of a cap was used; {stopped} ended before their sealed test"
    promised = "never above the cap, each request in the ledger"
    return Row("--max-calls, kills and 500s", runs, promised, happened, tuple(broken))


def soon_again() -> None:
    """A hook: a failed call is tried again soon."""
    from agent.gateway import limiter

    limiter.LONGEST = 0.02
