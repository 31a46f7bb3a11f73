"""`kill -9`: at random moments, at every commit point, and under a cap on calls. After each kill the run is resumed,
and what it finds at the end must be what an undisturbed run finds.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from functools import partial
from itertools import count
from typing import Any

from tests.chaos.books import Books, broken_promises, differences
from tests.chaos.command import PATIENCE, Command
from tests.chaos.harness import MAX_COST, QUICK, TINY, WIDTH, Campaign, Folder, Provider, Row, impatient

KILLS = 80
LATENCY = 0.06  # seconds a call, and up to twice that, so that a kill finds calls in flight
BEGINNING = 0.3  # seconds from a start to its kill, at most, for every other kill
FURTHER = 60  # requests from a start to its kill, at most, for the rest
CAPPED = 12
LEAST = ("--effort", "quick", "--trials", "3", "--limit", "12-6-8", "--proposer", "none")
"""A run of 76 calls, which has a commit of each kind: what is killed at every one is to have few of them."""
BIRTH = 7  # fsyncs and deletions until a new ledger has its tables and its owner


def random_kills(c: Campaign) -> Row:
    """Kills at random moments of a run of 400 calls, proposer included; run after run until there were enough. Every
    other one comes while the command starts or reads what there is, the others when more requests have come, however
    long a busy machine takes for them.
    """
    expected, rng = c.reference(*QUICK), c.rng("kills")
    wanted, kills, runs, most, requests = c.times(KILLS, 5), 0, 0, 0, 0
    broken: list[str] = []
    with c.provider(latency=LATENCY, jitter=LATENCY) as server:
        while kills < wanted:
            runs += 1
            server.reset()
            folder = c.folder("kills")
            books: Books | None = None
            while books is None or not books.results:
                further = server.requests() + rng.randint(1, FURTHER)
                begins = kills < wanted and rng.random() < 0.5
                command = folder.again(*QUICK, url=server.url, real=False if begins else None)
                if begins:
                    time.sleep(rng.uniform(0.0, BEGINNING))
                elif kills < wanted:
                    _further(server, command, further)
                ended = command.wait() if kills == wanted else command.poll() or command.kill()
                kills += ended.code == -signal.SIGKILL
                before, books = books, folder.books()
                flying = len(books.in_state("reserved", "sent"))
                most = max(most, flying)
                broken += [f"{flying} unknown outcomes after one kill"] if flying > WIDTH else []
                broken += broken_promises(books, server.bill(), before, MAX_COST)
                if ended.code not in (0, -signal.SIGKILL):
                    broken.append(f"exit {ended.code}: {ended.last_line}")
                    break
            requests += server.bill()["requests"]
            broken += differences(books, expected)
    happened = f"{runs} runs, {requests} requests, at most {most} unknown outcomes a kill"
    promised = "0 settled calls lost or bought again, <= 32 unknown a kill, under the cap, the same result"
    return Row("kill -9 at random", kills, promised, happened, tuple(broken))


def _further(server: Provider, command: Command, requests: int) -> None:
    """Waits until the provider saw `requests` in all, or the command has ended."""
    deadline = time.monotonic() + PATIENCE
    while server.requests() < requests and command.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)


def commit_points(c: Campaign) -> Row:
    """A kill right before and right after each commit, and each time that the seal is broken or set, to the last."""
    expected, broken, killed = c.reference(*LEAST), [], 0
    step = max(1, round(1 / c.scale))
    with c.provider() as server:
        folder = c.folder("commits")
        for number in count(0, step):
            server.reset()
            folder.fresh()
            ended = folder.run(server.url, *LEAST, hook=partial(_at_points, number)).wait()
            if ended.code != -signal.SIGKILL:
                break
            killed += 1
            before = folder.books() if folder.ledger.exists() else None
            if before is None or not before.results:
                ended = folder.again(*LEAST, url=server.url, real=False).wait()
                broken += [f"point {number}: exit {ended.code}: {ended.last_line}"] if ended.code else []
            books = folder.books()
            wrong = broken_promises(books, server.bill(), before, MAX_COST) + differences(books, expected)
            broken += [f"point {number}: {what}" for what in wrong]
    happened = f"{killed} kills, before and after each commit, each breaking and each setting of the seal"
    return Row("kill -9 at every commit", killed, "nothing lost, the same result", happened, tuple(broken))


def _at_points(number: int) -> None:
    """Makes this process kill itself at its point `number`. There is one before and one after each commit and each time
    that the seal is broken or set; the log is copied often.
    """
    from agent.ledger import ledger_file, writer

    writer.LOG_BYTES = 200_000
    passed = count()

    def pass_by() -> None:
        if next(passed) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(owner: Any, name: str) -> None:
        plain = getattr(owner, name)

        def wrapped(*given: Any) -> None:
            pass_by()
            plain(*given)
            pass_by()

        setattr(owner, name, wrapped)

    around(writer.Writer, "_commit")
    for owner in (writer, ledger_file):  # each calls them by its own names
        around(owner, "break_seal")
        around(owner, "set_seal")


def birth(c: Campaign) -> Row:
    """A kill right before each of the first fsyncs and deletions of a new ledger's files."""
    name, promised = "kill -9 while the ledger is made", "the next run makes it or goes on"
    if shutil.which("strace") is None:
        return Row(name, 0, promised, "", skipped="strace is not installed")
    expected, broken, killed = c.reference(*TINY), [], 0
    with c.provider() as server:
        for number in range(1, c.times(BIRTH, 4) + 1):
            server.reset()
            folder = c.folder("birth")
            paths = [word for tail in ("", "-journal", "-wal") for word in ("-P", f"{folder.ledger}{tail}")]
            inject = f"inject=fdatasync,fsync,unlink:signal=SIGKILL:when={number}"
            trace = (
                "strace",
                "-f",
                "-qq",
                *paths,
                "-e",
                "trace=fdatasync,fsync,unlink",
                "-e",
                inject,
                "-o",
                os.devnull,
            )
            ended = folder.run(server.url, *TINY, prefix=trace).wait()
            killed += ended.code == -signal.SIGKILL
            ended = folder.again(*TINY, url=server.url, real=False).wait()
            if ended.code:
                broken.append(f"fsync {number}: exit {ended.code}: {ended.last_line}")
                continue
            books = folder.books()
            wrong = broken_promises(books, server.bill(), None, MAX_COST) + differences(books, expected)
            broken += [f"fsync {number}: {what}" for what in wrong]
    return Row(name, killed, promised, f"{killed} kills, {len(broken)} ledgers of no use any more", tuple(broken))


def caps(c: Campaign) -> Row:
    """Runs with a cap on calls, killed up to three times; a tenth of the requests fails and is soon tried again."""
    rng, broken, kills, most, stopped = c.rng("caps"), [], 0, 0.0, 0
    runs = c.times(CAPPED, 2)
    with c.provider(latency=0.05) as server:
        for _ in range(runs):
            cap = rng.randint(84, 140)
            server.reset({"kind": "status", "status": 500, "rate": 0.1})
            folder, options = c.folder("caps"), ("--max-calls", str(cap))
            kills += _killed(folder, server, options, rng)
            ended = folder.again(*options, url=server.url, hook=impatient).wait() if _unfinished(folder) else None
            if ended is not None and ended.code:
                stopped += 1
                if ended.code != 1 or "max_calls" not in ended.err:
                    broken.append(f"cap {cap}: {ended.told()}")
            books, bill = folder.books(), server.bill()
            broken += [f"cap {cap}: {what}" for what in broken_promises(books, bill, None, MAX_COST)]
            spent = max(bill["requests"], len(books.attempts))
            most = max(most, spent / cap)
            if spent > cap:
                broken.append(f"cap {cap}: {bill['requests']} requests, {len(books.attempts)} in the ledger")
    happened = f"{kills} kills; at most {100 * most:.0f} % of a cap was used; {stopped} ended before their sealed test"
    return Row(
        "--max-calls, kills and 500s", runs, "never above the cap, each request in the ledger", happened, tuple(broken)
    )


def _killed(folder: Folder, server: Provider, options: tuple[str, ...], rng: random.Random) -> int:
    kills = 0
    for _ in range(rng.randint(0, 3)):
        further = server.requests() + rng.randint(1, FURTHER)
        command = folder.again(*options, url=server.url, hook=impatient)
        _further(server, command, further)
        ended = command.poll() or command.kill()
        kills += ended.code == -signal.SIGKILL
        if not _unfinished(folder):
            break
    return kills


def _unfinished(folder: Folder) -> bool:
    return not folder.has_run() or not folder.books().results
