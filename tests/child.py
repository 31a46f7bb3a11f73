"""A test server in its own process, started and ended with a `with` block."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Self

ROOT = Path(__file__).resolve().parents[1]


class ChildServer:
    """Runs a module that prints one line, `{"url": ...}`, when it is ready, and ends when its stdin is closed.

    Its stdin is a pipe of this process, so it never outlives it. `root` is the address that it printed.
    """

    def __init__(self, module: str, *options: str) -> None:
        self._command = [sys.executable, "-m", module, *options]
        self.root = ""
        self.process: subprocess.Popen[str]

    def __enter__(self) -> Self:
        """RuntimeError if the server does not start; what it says stands on stderr."""
        self.process = subprocess.Popen(
            self._command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.__exit__()
            raise RuntimeError(f"{' '.join(self._command)}: ended before it was ready")
        self.root = json.loads(line)["url"]
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
