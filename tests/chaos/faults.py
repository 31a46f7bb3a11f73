"""Faults of the machine that no test of the suite provokes: failing disks, foreign locks, standstill, connections."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sqlite3
import time
from contextlib import closing

from tests.chaos.books import broken_promises, differences
from tests.chaos.command import Ended
from tests.chaos.harness import MAX_COST, QUICK, TINY, Campaign, Folder, Row

UNDER_WAY = 150
"""Requests before anything happens."""
STANDS = 3.0
LOCKED = 6.0
"""Seconds: longer than the 5 that Python's SQLite client waits by default."""
FSYNCS = (1, 3, 30)


def io_errors(c: Campaign) -> Row:
    """From the nth on, each fdatasync and fsync of a thread fails."""
    name, promised, broken = "EIO from the nth fsync on", "an error, exit 1, no damage, resumable", list[str]()
    if shutil.which("strace") is None:
        return Row(name, 0, promised, "", skipped="strace is not installed")
    expected = c.reference(*TINY)
    with c.provider() as server:
        for nth in FSYNCS:
            server.reset()
            folder = c.folder("eio")
            inject = ("-e", "trace=fdatasync,fsync", "-e", f"inject=fdatasync,fsync:error=EIO:when={nth}+")
            prefix = ("strace", "-f", "-qq", "--seccomp-bpf", *inject, "-o", os.devnull)
            broken += [
                f"{nth}: {what}" for what in _ended_well(folder.run(server.url, *TINY, prefix=prefix).wait(), folder)
            ]
            before = folder.books() if folder.ledger.exists() else None
            again = folder.again(*TINY, url=server.url).wait()
            broken += [f"{nth}, resumed: {again.err[-300:]}"] if again.code else []
            books = folder.books()
            wrong = differences(books, expected) + broken_promises(books, server.bill(), before, MAX_COST)
            broken += [f"{nth}: {what}" for what in wrong]
    happened = f"n = {', '.join(map(str, FSYNCS))}: all continued"
    return Row(name, len(FSYNCS), promised, happened, tuple(broken))


def _ended_well(ended: Ended, folder: Folder) -> list[str]:
    """Exit 1, one line of error and, if a run was recorded, the line that resumes it."""
    if folder.has_run():
        return ended.told()
    return [] if ended.code == 1 and len(ended.errors) == 1 else [f"exit {ended.code}: {ended.err[-300:]!r}"]


def locked(c: Campaign) -> Row:
    """A plain SQLite client holds the write lock for some seconds."""
    with c.provider(latency=0.2) as server:
        folder = c.folder("locked")
        command = folder.run(server.url, *QUICK)
        server.further(command, UNDER_WAY)
        with closing(sqlite3.connect(folder.ledger, isolation_level=None, timeout=60)) as db:
            db.execute("BEGIN IMMEDIATE")
            time.sleep(LOCKED)
            broken = ["the run was over before the lock was"] if command.poll() else []
            db.execute("ROLLBACK")
        ended = command.wait()
        broken += _as_undisturbed(c, folder, ended, server.bill())
    happened = f"locked for {LOCKED:g} s, exit {ended.code}"
    return Row("locked by another process", 1, "waits and continues, the same result", happened, tuple(broken))


def standstill(c: Campaign) -> Row:
    """SIGSTOP during a run, some seconds of nothing, SIGCONT."""
    with c.provider(latency=0.1) as server:
        folder = c.folder("stop")
        command = folder.run(server.url, *QUICK)
        server.further(command, UNDER_WAY)
        command.send(signal.SIGSTOP)
        time.sleep(STANDS)
        broken = ["the run was over before the standstill"] if command.poll() else []
        command.send(signal.SIGCONT)
        ended = command.wait()
        broken += _as_undisturbed(c, folder, ended, server.bill())
    happened = f"{STANDS:g} s of standstill, exit {ended.code}"
    return Row("SIGSTOP, SIGCONT", 1, "continues, the same result", happened, tuple(broken))


def _as_undisturbed(c: Campaign, folder: Folder, ended: Ended, bill: dict[str, object]) -> list[str]:
    if ended.code:
        return [f"exit {ended.code}: {ended.err[-300:]}"]
    books = folder.books()
    lost = [f"{books.unscored()} rows without a score"] if books.unscored() else []
    return lost + differences(books, c.reference(*QUICK)) + broken_promises(books, bill, None, MAX_COST)


def connections(c: Campaign) -> Row:
    """Each address that a run connects to, as the kernel sees it."""
    name, promised = "connect", "only to 127.0.0.1 and the provider's port"
    if shutil.which("strace") is None:
        return Row(name, 0, promised, "", skipped="strace is not installed")
    expected = c.reference(*TINY)
    with c.provider() as server:
        folder = c.folder("connect")
        trace = folder.path / "trace.txt"
        calls = ("-e", "trace=connect,sendto,sendmsg", "-o", str(trace))
        prefix = ("strace", "-f", "-qq", "--seccomp-bpf", "--signal=none", *calls)
        ended = folder.run(server.url, *TINY, prefix=prefix).wait(120)
        broken = [f"exit {ended.code}: {ended.err[-300:]}"] if ended.code else differences(folder.books(), expected)
        port = server.root.rpartition(":")[2]
    lines = [line for line in trace.read_text("utf-8", "replace").splitlines() if "AF_INET" in line]
    own = re.compile(rf"sin_port=htons\({port}\), sin_addr=inet_addr\(\"127\.0\.0\.1\"\)")
    foreign = [line for line in lines if not own.search(line)]
    broken += [f"{len(foreign)} elsewhere, such as {foreign[0][:160]}"] if foreign else []
    broken += [] if lines else ["no connection was seen"]
    return Row(name, 1, promised, f"{len(lines)} connections, {len(foreign)} elsewhere", tuple(broken))
