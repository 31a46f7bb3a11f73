"""The campaign's tools: a folder for each scenario, the provider, what a scenario returns, and what holds for all of
them. It knows no single fault.
"""

from __future__ import annotations

import contextlib
import os
import random
import shlex
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.books import DOLLARS_IN, DOLLARS_OUT, Books, broken_promises, has_run, read_books
from tests.chaos.client import ChaosServer
from tests.chaos.command import Command, Hook, fork, held, spawn
from tests.child import ROOT
from tests.cli.world import INSTRUCTION, write_csv

KEY = "sk-planted-0f1e2d3c4b5a69788796a5b4c3d2e1f0"
OTHER_KEY = "sk-planted-another-00112233445566778899aabb"
MAX_COST = 25.0
WIDTH = 32  # calls in flight
EVERY = 10  # one command in so many is started from nothing
TINY = ("--effort", "quick", "--trials", "7", "--limit", "36-10-14", "--proposer", "none")
"""A run of about a hundred calls that no cap ends, however many of them have an unknown outcome."""
QUICK = ("--effort", "quick")
"""A run of about 400 calls, proposer included."""


def impatient() -> None:
    """A hook for rows that prove what a failed call leaves behind, not how long it is waited for another try."""
    from agent.gateway import limiter

    limiter.LONGEST = 0.02


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table: `happened` in numbers, `broken`: what did not hold, `skipped`: why it was not tried,
    `seconds` that it took.
    """

    fault: str
    runs: int
    promised: str
    happened: str
    broken: tuple[str, ...] = ()
    skipped: str = ""
    seconds: float = 0.0

    @property
    def verdict(self) -> str:
        return "BROKEN" if self.broken else "skipped" if self.skipped else "ok"


class Folder:
    """A folder of its own for one scenario: the rows, the prompt, and one ledger, `db` from there."""

    def __init__(self, campaign: Campaign, path: Path, count: int, db: str) -> None:
        self.path, self.db, self.ledger = path, db, path / db
        self._campaign = campaign
        self.ledger.parent.mkdir(parents=True)
        write_csv(path / "rows.csv", count)
        (path / "p.txt").write_text(INSTRUCTION, "utf-8")

    def run(self, url: str, *options: str, price: bool = True, **how: Any) -> Command:
        """Starts `optimize run` against the provider at `url`."""
        words = ["run", "rows.csv", "--target", "label", "--prompt", "p.txt", "-m", f"openai-compatible/x@{url}"]
        capped = ["--price", f"{DOLLARS_IN},{DOLLARS_OUT}", "--max-cost", str(MAX_COST)] if price else []
        return self.start(*words, "-j", str(WIDTH), "--db", self.db, *capped, *options, **how)

    def resume(self, **how: Any) -> Command:
        return self.start("resume", "--db", self.db, **how)

    def line(self, text: str, **how: Any) -> Command:
        """Starts what a command printed as its last line."""
        return self.start(*shlex.split(text)[1:], **how)

    def start(self, *words: str, **how: Any) -> Command:
        return self._campaign.start(self.path, *words, **how)

    def books(self) -> Books:
        return read_books(self.ledger)

    def fresh(self) -> None:
        """Takes the ledger away, with all that lies beside it."""
        for path in self.ledger.parent.glob(f"{self.ledger.name}*"):
            path.unlink()

    def again(self, *options: str, url: str = "", **how: Any) -> Command:
        """Goes on with the run; one that was killed before it was noted is started anew."""
        return self.resume(**how) if self.has_run() else self.run(url, *options, **how)

    def has_run(self) -> bool:
        return has_run(self.ledger)


@dataclass
class Campaign:
    """Everything that scenarios share. `troubles` are broken promises that hold for all: no traceback, no key in any
    file, no foreign host, no mistake of the provider itself.
    """

    path: Path
    scale: float = 1.0
    seed: int = 0
    troubles: list[str] = field(default_factory=list)
    seen: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("commands", "files", "bytes", "requests"), 0))
    _folders: int = 0
    _references: dict[tuple[int, tuple[str, ...]], Books] = field(default_factory=dict)
    _running: list[Command] = field(default_factory=list)

    def times(self, number: int, least: int = 1) -> int:
        return max(least, round(number * self.scale))

    def rng(self, name: str) -> random.Random:
        return random.Random(f"{self.seed}/{name}")

    def folder(self, name: str, count: int = 120, db: str = "l.db") -> Folder:
        self._folders += 1
        return Folder(self, self.path / f"{self._folders}-{name}", count, db)

    def reference(self, *options: str, count: int = 120) -> Books:
        """The books of an undisturbed run, started from nothing."""
        if (count, options) not in self._references:
            folder = self.folder("reference", count)
            with self.provider() as server:
                ended = folder.run(server.url, *options, real=True).wait()
            books = folder.books()
            if ended.code or (wrong := broken_promises(books, server.last)):
                raise RuntimeError(f"the undisturbed run failed: {ended.err[-500:] if ended.code else wrong}")
            self._references[count, options] = books
        return self._references[count, options]

    def provider(self, **options: Any) -> Provider:
        return Provider(self, **options)

    # -- processes ----------------------------------------------------------------------------------------------------

    def start(
        self,
        folder: Path,
        *words: str,
        hook: Hook | None = None,
        real: bool | None = None,
        key: str = KEY,
        prefix: tuple[str, ...] = (),
    ) -> Command:
        """`optimize` with `words` in `folder`: forked, or `real`. Where nobody minds each tenth is real, under another
        hash seed: no result may hang on the order of a set. `hook` runs in a fork before; `prefix` goes around.
        """
        self.seen["commands"] += 1
        number = self.seen["commands"]
        out = folder / f"command-{number}.out"
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        env = {**kept, "OPENAI_COMPATIBLE_API_KEY": key, "PYTHONPATH": str(ROOT)}
        from_nothing = bool(prefix) or (hook is None and (number % EVERY == 0 if real is None else real))
        with held():  # from its first moment on it is among those that a sweep ends
            if from_nothing:
                command = spawn(words, folder, env | {"PYTHONHASHSEED": str(number)}, out, prefix)
            else:
                command = fork(words, folder, env, out, hook)
            self._running.append(command)
        return command

    # -- what holds for all -------------------------------------------------------------------------------------------

    def sweep(self) -> list[str]:
        """Ends what still runs, looks for keys and tracebacks in every file, and takes the files away.

        Returns all troubles since the last time.
        """
        for command in self._running:
            command.end()
        self._running.clear()
        for folder, _, names in os.walk(self.path):
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    self._search(Path(folder, name))
        for path in self.path.iterdir():
            shutil.rmtree(path, ignore_errors=True)
        found, self.troubles[:] = list(self.troubles), []
        return found

    def _search(self, path: Path) -> None:
        content, name = path.read_bytes(), path.relative_to(self.path)
        self.seen["files"] += 1
        self.seen["bytes"] += len(content)
        if b"sk-planted" in content:
            self.troubles.append(f"the planted key stands in {name}")
        if path.name.startswith("command-") and b"Traceback" in content:
            self.troubles.append(f"a traceback: {content[-600:]!r}")


class Provider(ChaosServer):
    """The failing provider, which is called to account when it is reset or closed: `last` is its final bill."""

    def __init__(self, campaign: Campaign, **options: Any) -> None:
        super().__init__(**options)
        self._campaign = campaign
        self.last: dict[str, Any] = {}

    def reset(self, *faults: dict[str, Any]) -> None:
        """A new bill, and `faults` in force."""
        self._account()
        self.control(*faults, reset=True)

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(OSError):
            self._account()
        super().__exit__(*error)

    def _account(self) -> None:
        self.last = bill = self.bill(arrivals=True)
        own = self.root.removeprefix("http://")
        self._campaign.seen["requests"] += bill["requests"]
        self._campaign.troubles += [f"the provider's own mistake: {error}" for error in bill["errors"]]
        self._campaign.troubles += [f"a request for the host {host}" for host in bill["hosts"] if host != own]
        self._campaign.troubles += [f"no model request: {what}" for what in bill["other"]]
