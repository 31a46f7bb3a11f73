"""What happens to the process: signals, a standstill, and where it connects to."""

from __future__ import annotations

import re
import shutil
import signal
import time
from collections.abc import Callable

from tests.chaos.books import broken_promises, differences
from tests.chaos.command import PATIENCE, Command
from tests.chaos.harness import MAX_COST, QUICK, TINY, WIDTH, Campaign, Provider, Row

UNDER_WAY = 150  # requests before anything happens
HUNG = 4  # requests that hang, at least, when Ctrl-C comes
AT_ONCE = 10.0  # seconds, also on a busy machine; a call that hangs is given up after 120
STANDS = 3.0  # seconds


def interrupted(c: Campaign, number: signal.Signals) -> Row:
    """One signal: what is in flight lands and is written down, and the last line goes on from there."""
    expected, broken = c.reference(*QUICK), []
    with c.provider(latency=0.2) as server:
        folder = c.folder("signal")
        command = folder.run(server.url, *QUICK)
        under_way(server, command)
        command.send(number)
        sent = time.monotonic()
        ended = command.wait()
        seconds = time.monotonic() - sent
        before, bill = folder.books(), server.bill()
        broken += ended.told(130)
        open_ = len(before.in_state("reserved", "sent"))
        settled = len(before.in_state("ok"))
        broken += [f"{open_} calls were left open"] if open_ else []
        broken += [f"{bill['answered']} answered, {settled} settled"] if bill["answered"] != settled else []
        broken += broken_promises(before, bill, None, MAX_COST)
        again = folder.line(ended.last_line).wait()
        broken += [f"resumed: {again.err[-300:]}"] if again.code else differences(folder.books(), expected)
        broken += broken_promises(folder.books(), server.bill(), before, MAX_COST)
    happened = f"exit {ended.code} after {seconds:.2f} s, {settled} of {bill['answered']} answers kept"
    happened += f"; resumed: exit {again.code}"
    return Row(f"{number.name} once", 1, "lands, commits, exit 130, the last line resumes", happened, tuple(broken))


def twice(c: Campaign) -> Row:
    """A provider that hangs, and Ctrl-C twice. The second is sent when the first was heard: two that wait are one."""
    expected, broken = c.reference(*QUICK), []
    with c.provider(latency=0.02) as server:
        server.control({"kind": "hang", "after": UNDER_WAY})
        folder = c.folder("twice")
        command = folder.run(server.url, *QUICK)
        under_way(server, command, UNDER_WAY + HUNG)
        command.send(signal.SIGINT)
        heard(command, "press Ctrl-C again")
        time.sleep(0.5)
        broken += ["the first Ctrl-C did not wait for what was in flight"] if command.poll() else []
        command.send(signal.SIGINT)
        sent = time.monotonic()
        ended = command.wait()
        seconds = time.monotonic() - sent
        broken += ended.told(130)
        broken += [f"the second took {seconds:.1f} s"] if seconds > AT_ONCE else []
        before = folder.books()
        unknown = len(before.in_state("reserved", "sent"))
        broken += [f"{unknown} unknown outcomes"] if unknown > WIDTH else []
        server.control()
        again = folder.line(ended.last_line).wait()
        broken += [f"resumed: {again.err[-300:]}"] if again.code else differences(folder.books(), expected)
        broken += broken_promises(folder.books(), server.bill(), before, MAX_COST)
    happened = f"exit {ended.code} {seconds:.2f} s after the second, {unknown} unknown; resumed: exit {again.code}"
    return Row(
        "SIGINT twice", 1, f"exit 130 at once (<= {AT_ONCE:g} s), the last line resumes", happened, tuple(broken)
    )


def standstill(c: Campaign) -> Row:
    """SIGSTOP in mid-run, some seconds of nothing, SIGCONT."""
    expected, broken = c.reference(*QUICK), []
    with c.provider(latency=0.1) as server:
        folder = c.folder("stop")
        command = folder.run(server.url, *QUICK)
        under_way(server, command)
        command.send(signal.SIGSTOP)
        time.sleep(STANDS)
        command.send(signal.SIGCONT)
        ended, bill, books = command.wait(), server.bill(), folder.books()
    broken += [f"exit {ended.code}: {ended.err[-300:]}"] if ended.code else differences(books, expected)
    broken += [f"{books.unscored()} rows without a score"] if books.unscored() else []
    broken += broken_promises(books, bill, None, MAX_COST)
    calls = len(books.in_state("ok"))
    happened = f"{STANDS:g} s of standstill, {bill['requests']} requests for {calls} calls, exit {ended.code}"
    return Row("SIGSTOP, SIGCONT", 1, "goes on, the same result", happened, tuple(broken))


def connections(c: Campaign) -> Row:
    """Each address that a run connects to, as the kernel saw it."""
    name, promised = "connect", "only to 127.0.0.1 and the provider's port"
    if shutil.which("strace") is None:
        return Row(name, 0, promised, "", skipped="strace is not installed")
    broken, expected = [], c.reference(*TINY)
    with c.provider() as server:
        folder = c.folder("connect")
        trace = folder.path / "trace.txt"
        calls = "trace=connect,sendto,sendmsg"
        prefix = ("strace", "-f", "-qq", "--seccomp-bpf", "--signal=none", "-e", calls, "-o", str(trace))
        ended = folder.run(server.url, *TINY, prefix=prefix).wait(120)
        broken += [f"exit {ended.code}: {ended.err[-300:]}"] if ended.code else differences(folder.books(), expected)
        port = server.root.rpartition(":")[2]
    lines = [line for line in trace.read_text("utf-8", "replace").splitlines() if "AF_INET" in line]
    own = re.compile(rf"sin_port=htons\({port}\), sin_addr=inet_addr\(\"127\.0\.0\.1\"\)")
    foreign = [line for line in lines if not own.search(line)]
    broken += [f"{len(foreign)} elsewhere, such as {foreign[0][:160]}"] if foreign else []
    broken += [] if lines else ["no connection was seen at all"]
    return Row(name, 1, promised, f"{len(lines)} connections, {len(foreign)} elsewhere", tuple(broken))


def under_way(server: Provider, command: Command, requests: int = UNDER_WAY) -> None:
    """Waits until the provider, new or reset, saw so many requests."""
    _until(lambda: server.requests() >= requests, command)


def heard(command: Command, words: str) -> None:
    """Waits until the command has said so on stderr."""
    _until(lambda: words in command.err(), command)


def _until(is_so: Callable[[], bool], command: Command) -> None:
    """RuntimeError if the command ends before."""
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        if (ended := command.poll()) is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the run ended too early: {ended and ended.err[-500:]}")
        time.sleep(0.01)
