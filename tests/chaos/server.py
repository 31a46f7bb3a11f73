"""The provider of the campaign, in its own process: live calls, batches or fine-tuning, with a bill of what came.

    python -m tests.chaos.server [batches | tuning | agents]

It prints {"url": ...} when it is ready and ends when its stdin closes. POST /control sets a `Behaviour` and zeroes the
bill; GET /bill returns the bill, GET /requests the number of model requests.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import sys
import threading
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import Any

from tests.batch.provider import BatchProvider
from tests.child import ChildServer
from tests.cli.tuning_provider import Provider as TuningProvider
from tests.cli.tuning_provider import answers
from tests.cli.world import learner
from tests.wire import Fault, Seen, WireServer

HANGS = 1000.0
"""Seconds: longer than any client waits."""
BATCH_LOOKS = ("validating", "in_progress", "in_progress", "completed")
TUNING_LOOKS = ("validating_files", "queued", "running", "running", "succeeded")
"""Several looks at each job, so that a kill finds it under way."""
JOB_TOKENS = 4321
"""Billed by a training."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How live calls are answered: after `latency` to `latency + jitter` seconds; a share `fails` of them with a 500;
    after `hangs_after` requests not at all. Every reply says `answer`, if there is one.
    """

    latency: float = 0.0
    jitter: float = 0.0
    fails: float = 0.0
    hangs_after: int = 10**9
    answer: str = ""


@dataclass(slots=True)
class Bill:
    """What came to the model addresses since the last reset. A 500 is not billed."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    by_key: Counter[str] = field(default_factory=Counter)


def body_key(body: Any) -> str:
    """Return a name of a request body that is equal for equal JSON."""
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class ChaosServer(ChildServer):
    """The server while the `with` block lasts."""

    def __init__(self, kind: str = "", **behaviour: float | str) -> None:
        super().__init__("tests.chaos.server", *([kind] if kind else []))
        self._behaviour = behaviour

    def __enter__(self) -> ChaosServer:
        super().__enter__()
        self.reset()
        return self

    @property
    def url(self) -> str:
        return f"{self.root}/v1"

    def reset(self, **changes: float | str) -> None:
        """Zero the bill; `changes` of the behaviour apply until the next reset."""
        self._ask("POST", "/control", json.dumps(self._behaviour | changes))

    def bill(self) -> dict[str, Any]:
        return self._ask("GET", "/bill")

    def requests(self) -> int:
        return int(self._ask("GET", "/requests")["requests"])

    def _ask(self, method: str, path: str, body: str | None = None) -> dict[str, Any]:
        connection = http.client.HTTPConnection(self.root.removeprefix("http://"), timeout=60)
        try:
            connection.request(method, path, body, {"content-type": "application/json"})
            found: dict[str, Any] = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        return found


def agents(messages: list[dict[str, Any]], body: dict[str, Any]) -> str | Fault:
    """Answer an agent of `tests.chaos.agents` as the learner does, and the proposer with a sentence to add."""
    if messages[0]["content"].startswith(("Say in one word", "Answer with one of")):
        return learner(messages, body)
    last = messages[-1]["content"]
    sentence = f"Decide by the topic (edition {hashlib.sha256(last.encode()).hexdigest()[:6]})."
    return f"ADD: {sentence}" if "ADD" in last else sentence


class Provider:
    """What the server answers, and its bill."""

    server: WireServer

    def __init__(self, kind: str) -> None:
        self._lock, self._rng = threading.Lock(), Random(0)
        self._behaviour, self._bill = Behaviour(latency=0.05) if kind == "tuning" else Behaviour(), Bill()
        self._answer = {"tuning": answers, "agents": agents}.get(kind, learner)
        self.batches = BatchProvider(
            learner, BATCH_LOOKS, row=lambda number: None if number % 7 == 6 else 200, partial=5
        )
        self.trainings = TuningProvider(TUNING_LOOKS, tokens=JOB_TOKENS)
        self._others = {"batches": self.batches, "tuning": self.trainings}.get(kind)

    def reply(self, messages: list[dict[str, Any]], body: dict[str, Any]) -> str | Fault:
        how, bill = self._behaviour, self._bill
        text = how.answer or self._answer(messages, body)
        assert isinstance(text, str)
        with self._lock:
            bill.requests += 1
            bill.by_key[body_key(body)] += 1
            if self._rng.random() < how.fails:
                return Fault(500)
            bill.prompt_tokens += sum(len(message["content"].split()) for message in messages)
            bill.completion_tokens += len(text.split())
            hangs = bill.requests > how.hangs_after
            return Fault(text=text, delay=HANGS if hangs else how.latency + self._rng.uniform(0, how.jitter))

    def other(self, seen: Seen) -> Fault | None:
        if seen.path == "/control":
            self._behaviour, self._bill = Behaviour(**seen.body), Bill()
            return Fault(body={})
        if seen.path == "/requests":
            return Fault(body={"requests": self._bill.requests})
        if seen.path == "/bill":
            return Fault(body=self.told())
        return self._others(seen) if self._others else None

    def told(self) -> dict[str, Any]:
        asked, own = self.batches.asked, self._bill
        elsewhere = {seen.path for seen in self.server.others} - {"/control", "/bill", "/requests"}
        return {
            **{name: getattr(own, name) for name in own.__slots__},
            "hosts": sorted({seen.headers.get("host", "") for seen in self.server.requests}),
            "other": [] if self._others else sorted(elsewhere),
            "batches": len(self.batches.jobs),
            "rows": sum(asked.values()),
            "jobs": len(self.trainings.jobs),
        }


def main() -> None:
    provider = Provider(sys.argv[1] if sys.argv[1:] else "")
    with WireServer(provider.reply, other=provider.other) as provider.server:
        print(json.dumps({"url": provider.server.root}), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
