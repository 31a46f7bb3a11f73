"""What happens to the ledger's files: no space, errors of the disk, locks, overwritten bytes, other schemas."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path

from agent.ledger.chain import VERSION
from tests.chaos.books import broken_promises, differences
from tests.chaos.command import Ended
from tests.chaos.harness import MAX_COST, QUICK, TINY, Campaign, Folder, Row
from tests.chaos.process import HUNG, UNDER_WAY, under_way

SIZES = range(300, 2700, 525)  # KB of the disk: from too small for the tables to enough for all but the last copy
FSYNCS = (1, 3, 30)
COPIES = 50
LOCKED = 6.0  # seconds: longer than the 5 that SQLite's Python client waits unless it is told to
BLOCK = 4096
WAL_HEADER, FRAME = 32, 24 + 4096
"""Bytes of a write-ahead log: its header, and a frame with its page."""


def full(c: Campaign) -> Row:
    """A small disk that fills up; then there is space, and the run goes on."""
    name, promised = "disk full", "one line, exit 1, resumable, nothing settled lost"
    expected, broken, stopped, runs = c.reference(*TINY), [], 0, 0
    with c.provider() as server:
        for size in SIZES:
            folder = c.folder("full", db="disk/l.db")
            disk = folder.ledger.parent
            mount = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(disk)]
            if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
                return Row(name, 0, promised, "", skipped="only root may mount a small disk")
            try:  # whatever ends it: a disk that is in use goes when its last user does
                runs += 1
                server.reset()
                ended = folder.run(server.url, *TINY).wait()
                stopped += ended.code != 0
                broken += [f"{size} KB: {what}" for what in _ended_well(ended, folder)]
                before = folder.books() if folder.ledger.exists() else None
                subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
                if ended.code:
                    ended = folder.again(*TINY, url=server.url).wait()
                    broken += [f"{size} KB, resumed: {ended.err[-300:]}"] if ended.code else []
                books = folder.books()
                wrong = differences(books, expected) + broken_promises(books, server.bill(), before, MAX_COST)
                broken += [f"{size} KB: {what}" for what in wrong]
            finally:
                subprocess.run(["umount", "--lazy", str(disk)], check=True)
    return Row(name, runs, promised, f"{stopped} of {runs} ran out of space, all went on", tuple(broken))


def _ended_well(ended: Ended, folder: Folder) -> list[str]:
    """Exit 0, or one line of error and, where a run was noted, the line that resumes it."""
    if ended.code == 0:
        return []
    if folder.has_run():
        return ended.told()
    return [] if ended.code == 1 and len(ended.errors) == 1 else [f"exit {ended.code}: {ended.err[-300:]!r}"]


def io_errors(c: Campaign) -> Row:
    """From the nth on, each fdatasync and fsync of a thread fails."""
    name, promised = "EIO from the nth fsync on", "an error, exit 1, no damage, resumable"
    if shutil.which("strace") is None:
        return Row(name, 0, promised, "", skipped="strace is not installed")
    expected, broken, stopped = c.reference(*TINY), [], 0
    with c.provider() as server:
        for nth in FSYNCS:
            server.reset()
            folder = c.folder("eio")
            inject = f"inject=fdatasync,fsync:error=EIO:when={nth}+"
            prefix = (
                "strace",
                "-f",
                "-qq",
                "--seccomp-bpf",
                "-e",
                "trace=fdatasync,fsync",
                "-e",
                inject,
                "-o",
                os.devnull,
            )
            ended = folder.run(server.url, *TINY, prefix=prefix).wait()
            stopped += ended.code == 1
            broken += [f"{nth}: {what}" for what in _ended_well(ended, folder)]
            broken += [f"{nth}: exit 0"] if ended.code == 0 else []
            before = folder.books() if folder.ledger.exists() else None
            again = folder.again(*TINY, url=server.url).wait()
            broken += [f"{nth}, resumed: {again.err[-300:]}"] if again.code else []
            books = folder.books()
            wrong = differences(books, expected) + broken_promises(books, server.bill(), before, MAX_COST)
            broken += [f"{nth}: {what}" for what in wrong]
    happened = f"n = {', '.join(map(str, FSYNCS))}: {stopped} ended with an error, all went on"
    return Row(name, len(FSYNCS), promised, happened, tuple(broken))


def locked(c: Campaign) -> Row:
    """A plain sqlite3 client holds the write lock for some seconds."""
    expected, broken = c.reference(*QUICK), []
    with c.provider(latency=0.2) as server:
        folder = c.folder("locked")
        command = folder.run(server.url, *QUICK)
        under_way(server, command)
        with closing(sqlite3.connect(folder.ledger, isolation_level=None, timeout=60)) as db:
            db.execute("BEGIN IMMEDIATE")
            before = server.requests()
            time.sleep(LOCKED)
            during = server.requests() - before
            broken += ["the run was over before the lock was"] if command.poll() else []
            db.execute("ROLLBACK")
        ended, bill, books = command.wait(), server.bill(), folder.books()
    broken += [f"exit {ended.code}: {ended.err[-300:]}"] if ended.code else differences(books, expected)
    broken += broken_promises(books, bill, None, MAX_COST)
    happened = f"locked for {LOCKED:g} s, {during} requests in them, exit {ended.code}"
    return Row("locked by another process", 1, "waits and goes on, the same result", happened, tuple(broken))


def second_run(c: Campaign) -> Row:
    """A second run, and a resume, on a ledger that is in use: the first is held still, so that it cannot end before."""
    broken = []
    with c.provider(latency=0.1) as server:
        folder = c.folder("two")
        first = folder.run(server.url, *QUICK, real=False)
        under_way(server, first)
        first.send(signal.SIGSTOP)
        for second in (folder.run(server.url, *QUICK), folder.resume()):
            ended = second.wait()
            if ended.code not in (1, 2) or str(first.pid) not in ended.err or len(ended.errors) != 1:
                broken.append(f"exit {ended.code}: {ended.err[-300:]!r}")
        first.send(signal.SIGCONT)
        ended = first.wait()
        broken += [f"the first: exit {ended.code}"] if ended.code else differences(folder.books(), c.reference(*QUICK))
        broken += broken_promises(folder.books(), server.bill(), None, MAX_COST)
    happened = "run and resume refused, the first came to its end"
    return Row("two runs on one ledger", 2, "refused with the owner's name", happened, tuple(broken))


def overwritten(c: Campaign) -> Row:
    """4 KB of noise at random places of a ledger: what is shown is true or refused, and nothing is written."""
    rng, broken, refused, commands = c.rng("overwritten"), [], 0, 0
    copies = c.times(COPIES, 3)
    with c.provider(latency=0.02) as server:
        folder = c.folder("overwritten")
        folder.run(server.url, *TINY).wait()
        server.reset({"kind": "status", "status": 401, "after": UNDER_WAY})
        folder.run(server.url, *QUICK, "--seed", "1").wait()  # ends by itself, and can be resumed
        done = next(iter(folder.books().results))
        looks = [("history", done, "--json"), ("show", done, "--json"), ("runs", "--json")]
        true = {look: folder.start(*look, "--db", folder.db).wait().out for look in looks}
        whole, requests = folder.ledger.read_bytes(), server.requests()
        run = ("run", "rows.csv", "--target", "label", "--prompt", "p.txt", "-m", f"openai-compatible/x@{server.url}")
        writes = [("resume",), (*run, "--max-calls", "100")]
        for number in range(copies):
            place = rng.randrange(len(whole) - BLOCK)
            damaged = whole[:place] + rng.randbytes(BLOCK) + whole[place + BLOCK :]
            folder.ledger.write_bytes(damaged)
            for look in (rng.choice(looks), writes[number % 2]):
                commands += 1
                ended = folder.start(*look, "--db", folder.db).wait()
                refused += ended.code in (1, 2) and len(ended.errors) == 1
                if ended.code == 0 and ended.out != true.get(look):
                    broken.append(f"offset {place}: {look[0]} gave a wrong answer")
                told = len(ended.errors) == 1 and any(words in ended.err for words in ("restore a copy", "--db"))
                if ended.code and (ended.code not in (1, 2) or not told or ended.out):
                    broken.append(f"offset {place}: {look[0]}: exit {ended.code}: {ended.err[-300:]!r}")
            if folder.ledger.read_bytes() != damaged:
                broken.append(f"offset {place}: the damaged file was written to")
        if (more := server.requests() - requests) > 0:
            broken.append(f"{more} requests were made with a damaged ledger")
    happened = f"{refused} of {commands} commands refused, the file untouched"
    promised = "refuses to write, says what to do, changes nothing"
    return Row("4 KB overwritten", copies, promised, happened, tuple(broken))


def log_overwritten(c: Campaign) -> Row:
    """4 KB of noise at random places of the write-ahead log that a killed run left: nothing vanishes unnoticed but the
    last commit, which nobody can tell from one that a power cut left half written.
    """
    rng, broken, refused = c.rng("log"), [], 0
    copies, torn = c.times(COPIES // 2, 3), 0
    with c.provider(latency=0.02) as server:
        server.control({"kind": "hang", "after": 300})  # so that it cannot end before the kill
        folder = c.folder("log")
        command = folder.run(server.url, *QUICK)
        under_way(server, command, 300 + HUNG)
        command.kill()
    look = ("history", folder.books().run_id, "--json", "--db", folder.db)
    log = folder.ledger.with_name(folder.ledger.name + "-wal")
    whole, last = log.read_bytes(), _last_commit(log)

    def shown(content: bytes) -> Ended:
        log.write_bytes(content)
        folder.ledger.with_name(folder.ledger.name + "-shm").unlink(missing_ok=True)
        return folder.start(*look).wait()

    true, before = shown(whole).out, shown(whole[:last]).out
    for number in range(copies):
        start = 0 if number else last  # the last commit, too
        place = rng.randrange(start, len(whole) - BLOCK)
        ended = shown(whole[:place] + rng.randbytes(BLOCK) + whole[place + BLOCK :])
        refused += ended.code in (1, 2)
        torn += (is_torn := ended.code == 0 and place >= last and ended.out == before)
        if ended.code == 0 and ended.out != true and not is_torn:
            broken.append(f"offset {place} of {len(whole)}: what came after it is gone, and nothing is said")
        if ended.code and (ended.code not in (1, 2) or len(ended.errors) != 1 or ended.out):
            broken.append(f"offset {place}: exit {ended.code}: {ended.err[-300:]!r}")
    happened = f"{refused} refused, {torn} in the last commit and as before it, {len(broken)} gone unnoticed"
    promised = "never a wrong answer; damage in the last commit undoes it"
    return Row("4 KB of a killed run's log overwritten", copies, promised, happened, tuple(broken))


def _last_commit(log: Path) -> int:
    """Where the last commit of a write-ahead log begins: behind the frame of the last but one."""
    content = log.read_bytes()
    starts = range(WAL_HEADER, len(content) - FRAME + 1, FRAME)
    ours = [start for start in starts if content[start + 8 : start + 16] == content[16:24]]  # the rest is older
    ends = [start + FRAME for start in ours if any(content[start + 4 : start + 8])]
    return ends[-2]


def schemas(c: Campaign) -> Row:
    """A ledger of another version, and what is no ledger, is refused and left alone."""
    broken = []
    with c.provider() as server:
        folder = c.folder("schemas")
        ended = folder.run(server.url, *TINY).wait()
        broken += [f"no run: {ended.err[-300:]!r}"] if ended.code else []
        with closing(sqlite3.connect(folder.ledger)) as db:
            db.execute(f"PRAGMA user_version = {VERSION + 7}")
        kinds = {
            "another version": folder.ledger.read_bytes(),
            "no database": b"some text\n" * 500,
            "another": _another(folder.path),
        }
        for kind, content in kinds.items():
            for words in (("runs",), ("resume",), ("run", "rows.csv", "--target", "label", "--prompt", "p.txt")):
                folder.fresh()
                folder.ledger.write_bytes(content)
                model = ("-m", f"openai-compatible/x@{server.url}", "--max-calls", "100") if words[0] == "run" else ()
                ended = folder.start(*words, *model, "--db", folder.db).wait()
                if ended.code not in (1, 2) or len(ended.errors) != 1 or folder.ledger.read_bytes() != content:
                    broken.append(f"{kind}: {words[0]}: exit {ended.code}: {ended.err[-300:]!r}")
    happened = "another version, text and another database: refused, untouched"
    return Row("another schema", 9, "refused", happened, tuple(broken))


def _another(folder: Path) -> bytes:
    """A SQLite database that is no ledger."""
    path = folder / "another.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE runs (id TEXT)")
        db.commit()
    return path.read_bytes()
