"""Starts the failing provider in a process of its own and talks to its control addresses.

with ChaosServer(latency=0.01) as server:
    server.control({"kind": "status", "status": 429, "retry_after": {"seconds": 1}, "times": 3})
    ...  # a run against server.url
    assert server.bill()["answered"] == 300
"""

from __future__ import annotations

import http.client
import json
from typing import Any

from tests.child import ChildServer

_TIMEOUT = 60.0


class ChaosServer(ChildServer):
    """The server while the `with` block lasts."""

    def __init__(self, answer: str | None = None, seed: int = 0, latency: float = 0.0, jitter: float = 0.0) -> None:
        answers = [] if answer is None else [f"--answer={answer}"]
        waits = ["--latency", str(latency), "--jitter", str(jitter)]
        super().__init__("tests.chaos.server", "--port", "0", "--seed", str(seed), *waits, *answers)

    @property
    def url(self) -> str:
        """The base address as OpenAI's SDK wants it; Anthropic's wants `root`."""
        return f"{self.root}/v1"

    def control(self, *faults: dict[str, Any], reset: bool = False) -> None:
        """Puts `faults` in the place of those in force (none: no faults); `reset` zeroes the bill as well."""
        self._ask("POST", "/control", {"faults": faults, "reset": reset})

    def bill(self, arrivals: bool = False) -> dict[str, Any]:
        """What came so far; see `tests.chaos.server.Bill`. `arrivals` adds the timeline."""
        return self._ask("GET", "/bill?arrivals=1" if arrivals else "/bill", None)

    def requests(self) -> int:
        """How many model requests came so far."""
        return int(self._ask("GET", "/requests", None)["requests"])

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
