"""Tools of the campaign: a folder per scenario, the provider, the row of a scenario, and checks that apply to all."""

from __future__ import annotations

import contextlib
import os
import random
import shlex
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.books import DOLLARS_IN, DOLLARS_OUT, Books, broken_promises, has_run, read_books
from tests.chaos.command import PATIENCE, Command, Hook, fork, held, spawn
from tests.chaos.server import ChaosServer
from tests.child import ROOT
from tests.cli.world import INSTRUCTION, write_csv

KEY = "sk-planted-0f1e2d3c4b5a69788796a5b4c3d2e1f0"
MAX_COST = 25.0
WIDTH = 32
"""Calls in flight."""
EVERY = 10
"""One command in this many is started without fork."""
TINY = ("--effort", "quick", "--trials", "7", "--limit", "36-10-14", "--proposer", "none")
"""A run of about a hundred calls that no cap ends, whatever number of them has an unknown outcome."""
QUICK = ("--effort", "quick")
"""A run of about 400 calls with a proposer."""


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table: `happened` in numbers, `broken` promises, why it was `skipped`."""

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
    """The folder of one scenario: rows, prompt and one ledger."""

    def __init__(self, campaign: Campaign, path: Path, count: int) -> None:
        self.path, self.db, self.ledger = path, "l.db", path / "l.db"
        self._campaign = campaign
        path.mkdir(parents=True)
        write_csv(path / "rows.csv", count)
        (path / "p.txt").write_text(INSTRUCTION, "utf-8")

    def run(self, url: str, *options: str, **how: Any) -> Command:
        """Start `optimize run` against the provider at `url`."""
        words = ["run", "rows.csv", "--target", "label", "--prompt", "p.txt", "-m", f"openai-compatible/x@{url}"]
        capped = ["--price", f"{DOLLARS_IN},{DOLLARS_OUT}", "--max-cost", str(MAX_COST)]
        return self.start(*words, "-j", str(WIDTH), "--db", self.db, *capped, *options, **how)

    def again(self, *options: str, url: str, **how: Any) -> Command:
        """Resume the run, or start it if it was killed before it was recorded."""
        return self.start("resume", "--db", self.db, **how) if self.has_run() else self.run(url, *options, **how)

    def line(self, text: str, **how: Any) -> Command:
        """Start a command as it was printed."""
        return self.start(*shlex.split(text)[1:], **how)

    def start(self, *words: str, **how: Any) -> Command:
        return self._campaign.start(self.path, *words, **how)

    def books(self) -> Books:
        return read_books(self.ledger)

    def has_run(self) -> bool:
        return has_run(self.ledger)


@dataclass
class Campaign:
    """What scenarios share. `troubles` are broken promises that apply to all of them."""

    path: Path
    scale: float = 1.0
    troubles: list[str] = field(default_factory=list)
    seen: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("commands", "files", "bytes", "requests"), 0))
    _folders: int = 0
    _references: dict[tuple[str, ...], Books] = field(default_factory=dict)
    _running: list[Command] = field(default_factory=list)

    def times(self, number: int, least: int = 1) -> int:
        return max(least, round(number * self.scale))

    def rng(self, name: str) -> random.Random:
        return random.Random(f"0/{name}")

    def folder(self, name: str, count: int = 120) -> Folder:
        self._folders += 1
        return Folder(self, self.path / f"{self._folders}-{name}", count)

    def reference(self, *options: str) -> Books:
        """Return the books of an undisturbed run, started without fork."""
        if options not in self._references:
            folder = self.folder("reference")
            with self.provider() as server:
                ended = folder.run(server.url, *options, real=True).wait()
                bill = server.bill()
            books = folder.books()
            if ended.code or (wrong := broken_promises(books, bill)):
                raise RuntimeError(f"the undisturbed run failed: {ended.err[-500:] if ended.code else wrong}")
            self._references[options] = books
        return self._references[options]

    def provider(self, kind: str = "", **behaviour: float) -> Provider:
        return Provider(self, kind, **behaviour)

    # -- processes ----------------------------------------------------------------------------------------------------

    def start(
        self,
        folder: Path,
        *words: str,
        hook: Hook | None = None,
        real: bool | None = None,
        prefix: tuple[str, ...] = (),
    ) -> Command:
        """Start `optimize` with `words` in `folder`, forked or `real`.

        By default one in ten is real, with another hash seed, as no result may depend on the order of a set. `hook`
        runs in a fork before the command; `prefix` is a program around a real one.
        """
        self.seen["commands"] += 1
        number = self.seen["commands"]
        out = folder / f"command-{number}.out"
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        env = {**kept, "OPENAI_COMPATIBLE_API_KEY": KEY, "PYTHONPATH": str(ROOT)}
        from_nothing = bool(prefix) or (hook is None and (number % EVERY == 0 if real is None else real))
        with held():  # from its first moment on it is among those that a sweep ends
            if from_nothing:
                command = spawn(words, folder, env | {"PYTHONHASHSEED": str(number)}, out, prefix)
            else:
                command = fork(words, folder, env, out, hook)
            self._running.append(command)
        return command

    # -- what applies to all ------------------------------------------------------------------------------------------

    def sweep(self) -> list[str]:
        """End what still runs, search every file for keys and tracebacks, remove the files, and return all troubles."""
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
            self.troubles.append(f"{name} holds the planted key")
        if path.name.startswith("command-") and b"Traceback" in content:
            self.troubles.append(f"a traceback: {content[-600:]!r}")


class Provider(ChaosServer):
    """The provider of a scenario; foreign hosts and addresses on its bill are troubles."""

    def __init__(self, campaign: Campaign, kind: str, **behaviour: float) -> None:
        super().__init__(kind, **behaviour)
        self._campaign = campaign

    def bill(self) -> dict[str, Any]:
        found = super().bill()
        foreign = [host for host in found["hosts"] if host != self.root.removeprefix("http://")]
        self._campaign.troubles += [f"a request for {what}" for what in (*foreign, *found["other"])]
        return found

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(OSError):
            self._campaign.seen["requests"] += self.requests()
        super().__exit__(*error)

    def further(self, command: Command, requests: int) -> None:
        """Wait until the provider saw `requests` in all, or the command has ended."""
        deadline = time.monotonic() + PATIENCE
        while self.requests() < requests and command.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
