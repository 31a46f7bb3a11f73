"""Starts the failing provider in a process of its own and talks to its control addresses.

with ChaosServer(latency=0.01) as server:
    server.control({"kind": "status", "status": 429, "retry_after": {"seconds": 1}, "times": 3})
    ...  # a run against server.url
    assert server.bill()["answered"] == 300
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[2]
_TIMEOUT = 60.0


class ChaosServer:
    """The server while the `with` block lasts. Its stdin is a pipe of this process, so it never outlives it."""

    def __init__(self, answer: str | None = None, seed: int = 0, latency: float = 0.0, jitter: float = 0.0) -> None:
        self._options = ["--seed", str(seed), "--latency", str(latency), "--jitter", str(jitter)]
        self._options += [] if answer is None else [f"--answer={answer}"]
        self.root = ""
        self.process: subprocess.Popen[str]

    @property
    def url(self) -> str:
        """The base address as OpenAI's SDK wants it; Anthropic's wants `root`."""
        return f"{self.root}/v1"

    def __enter__(self) -> Self:
        """RuntimeError if the server does not start; what it says stands on stderr."""
        command = [sys.executable, "-m", "tests.chaos.server", "--port", "0", *self._options]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.__exit__()
            raise RuntimeError(f"{' '.join(command)}: ended before it was ready")
        self.root = json.loads(line)["url"]
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    def control(self, *faults: dict[str, Any], reset: bool = False) -> None:
        """Puts `faults` in the place of those in force (none: no faults); `reset` zeroes the bill as well."""
        self._ask("POST", "/control", {"faults": faults, "reset": reset})

    def bill(self, arrivals: bool = False) -> dict[str, Any]:
        """What came so far; see `tests.chaos.server.Bill`. `arrivals` adds the time of each request."""
        return self._ask("GET", "/bill?arrivals=1" if arrivals else "/bill", None)

    def _ask(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        connection = http.client.HTTPConnection(self.root.removeprefix("http://"), timeout=_TIMEOUT)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            response = connection.getresponse()
            found = json.loads(response.read())
        finally:
            connection.close()
        if response.status != 200:
            raise ValueError(found["error"]["message"])
        assert isinstance(found, dict)
        return found
