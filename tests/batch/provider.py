"""The batch APIs of OpenAI and Anthropic for the wire server, with a scripted course and rows that fail."""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

from tests.wire import ANTHROPIC_PATH, OPENAI_PATH, Fault, Reply, Seen, in_dialect

COURSE = ("validating", "in_progress", "completed")
BATCHES = "/v1/batches"
MESSAGES = "/v1/messages/batches"
EXPIRED = None
"""The status of a row that was not asked."""
HTML = "<html><body>502 Bad Gateway</body></html>"
DAMAGE: dict[str, Callable[[str], str]] = {
    "html": lambda text: HTML + text[text.index("\n") :],
    "list": lambda text: "[1]" + text[text.index("\n") :],
    "cut": lambda text: text[:-50],
    "deep": lambda text: "[" * 100_000 + text[text.index("\n") :],
    "bytes": lambda text: text.replace(":", "\0", 1),
}
"""What makes one line of results unreadable."""


@dataclass
class Job:
    """A batch: its rows by custom_id, and how often it was looked at."""

    id: str
    rows: Mapping[str, Mapping[str, Any]]
    metadata: Mapping[str, str] = field(default_factory=dict)
    looks: int = 0
    created: float = field(default_factory=lambda: datetime.now(UTC).timestamp())
    is_cancelled: bool = False


class BatchProvider:
    """What `other` of a WireServer may be.

    Args:
        reply: answers the rows, as that of the server does live calls.
        course: the statuses of a batch, one at each look, the last for good; the first is that of its start.
        row: the HTTP status that a row gets, by its number; 200 by default, EXPIRED for one that is not asked.
        partial: whether OpenAI's results can be read while the batch is under way, and how many rows there are then.
        disturb: answers a request in the place of the provider; None where it does not.
        words: why a batch failed.
    """

    def __init__(
        self,
        reply: Reply,
        course: Sequence[str] = COURSE,
        row: Callable[[int], int | None] = lambda number: 200,
        partial: int = 0,
        disturb: Callable[[Seen], Fault | None] = lambda seen: None,
        words: str = "",
    ) -> None:
        self.reply, self.course, self.row, self.partial = reply, course, row, partial
        self.disturb, self.words = disturb, words
        self.refused: Callable[[Mapping[str, Any]], Any] = lambda body: None
        """The body of the error with which a request is refused (400); None where it is not."""
        self.damage: Callable[[str], str] = lambda text: text
        """What becomes of results on their way."""
        self.files: dict[str, list[dict[str, Any]]] = {}
        self.jobs: dict[str, Job] = {}
        self.seen: list[tuple[str, str]] = []
        self._lock = threading.Lock()

    @property
    def asked(self) -> Counter[str]:
        """How often each request body was submitted in a batch."""
        return Counter(json.dumps(body, sort_keys=True) for job in self.jobs.values() for body in job.rows.values())

    def __call__(self, seen: Seen) -> Fault | None:
        with self._lock:
            self.seen.append((seen.method, seen.path))
            if (fault := self.disturb(seen)) is not None:
                return fault
            return self.answer(seen)

    def answer(self, seen: Seen) -> Fault | None:
        """What the provider itself says; None: it has no such address."""
        match seen.method, seen.path.split("/")[2:]:
            case "POST", ["files"]:
                return Fault(body=self._file(seen))
            case "GET", ["files", file, "content"] if file.startswith("results-"):
                return Fault(body=self.damage(self._results(self.jobs[file.split("-", 2)[2]], file.split("-")[1])))
            case "POST", ["batches"]:
                return Fault(body=self._shown(self.submit(seen.body)))
            case "GET", ["batches"]:
                return Fault(body=self._page(seen.query, "after"))
            case "GET", ["batches", job] if job in self.jobs:
                self.jobs[job].looks += 1
                return Fault(body=self._shown(self.jobs[job]))
            case "POST", ["batches", job, "cancel"] if job in self.jobs:
                self.jobs[job].is_cancelled = True
                return Fault(body=self._shown(self.jobs[job]))
            case "POST", ["messages", "batches"]:
                return Fault(body=self._message_batch(self.submit(seen.body)))
            case "GET", ["messages", "batches"]:
                return Fault(body=self._page(seen.query, "after_id"))
            case "GET", ["messages", "batches", job] if job in self.jobs:
                self.jobs[job].looks += 1
                return Fault(body=self._message_batch(self.jobs[job]))
            case "POST", ["messages", "batches", job, "cancel"] if job in self.jobs:
                self.jobs[job].is_cancelled = True
                return Fault(body=self._message_batch(self.jobs[job]))
            case "GET", ["messages", "batches", job, "results"] if job in self.jobs:
                return Fault(body=self.damage(self._message_results(self.jobs[job])))
        return None

    def submit(self, body: Mapping[str, Any]) -> Job:
        """Takes a batch, as a POST does."""
        if "requests" in body:
            rows = {row["custom_id"]: row["params"] for row in body["requests"]}
        else:
            assert body["endpoint"] == OPENAI_PATH
            assert body["completion_window"] == "24h"
            rows = {row["custom_id"]: row["body"] for row in self.files[body["input_file_id"]]}
        assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", custom_id) for custom_id in rows)
        job = Job(f"batch_{len(self.jobs) + 1}", rows, body.get("metadata", {}))
        self.jobs[job.id] = job
        return job

    def status(self, job: Job) -> str:
        """The state of a batch in OpenAI's words."""
        return "cancelled" if job.is_cancelled else self.course[min(job.looks, len(self.course) - 1)]

    def _rows(self, job: Job, path: str) -> list[tuple[str, int | None, Any]]:
        """Of each row its name, status and body; of a batch that did not come to its end only the first."""
        done = {"completed": len(job.rows), "expired": len(job.rows) // 2, "cancelled": len(job.rows) // 3}
        reached = done.get(self.status(job), min(self.partial, len(job.rows)))
        rows = []
        for number, (custom_id, body) in enumerate(job.rows.items()):
            status = self.row(number) if number < reached else EXPIRED
            said = None if status is EXPIRED else in_dialect(path, self.reply, body, status)
            if status is not EXPIRED and (refusal := self.refused(body)) is not None:
                status, said = 400, refusal
            rows.append((custom_id, status, said))
        return rows[::-1]  # in any order

    # -- OpenAI -------------------------------------------------------------------------------------------------------

    def _file(self, seen: Seen) -> dict[str, Any]:
        assert b'name="purpose"\r\n\r\nbatch\r\n' in seen.data
        boundary = b"--" + seen.headers["content-type"].partition("boundary=")[2].strip('"').encode()
        (part,) = (each for each in seen.data.split(boundary) if b"filename=" in each)
        lines = part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n").splitlines()
        file = f"file-{len(self.files) + 1}"
        self.files[file] = [json.loads(line) for line in lines]
        assert all((row["method"], row["url"]) == ("POST", OPENAI_PATH) for row in self.files[file])
        return {"object": "file", "id": file, "purpose": "batch"}

    def _shown(self, job: Job) -> dict[str, Any]:
        status, rows = self.status(job), self._rows(job, OPENAI_PATH)
        good, bad = (sum(row[1] is not None and (row[1] < 400) == wanted for row in rows) for wanted in (True, False))
        is_final = status in ("completed", "expired", "cancelled")
        return {
            "object": "batch",
            "id": job.id,
            "status": status,
            "endpoint": OPENAI_PATH,
            "created_at": int(job.created),
            "metadata": dict(job.metadata),
            "request_counts": {"total": len(job.rows), "completed": good, "failed": bad},
            "output_file_id": f"results-ok-{job.id}" if good else None,
            "error_file_id": f"results-bad-{job.id}" if is_final and len(rows) > good else None,
            "errors": {"object": "list", "data": [{"code": "x", "message": self.words}]} if self.words else None,
        }

    def _results(self, job: Job, kind: str) -> str:
        lines = []
        for custom_id, status, body in self._rows(job, OPENAI_PATH):
            response = None if status is None else {"status_code": status, "request_id": "r", "body": body}
            error = {"code": "batch_expired", "message": "not run"} if status is None else None
            if (status is not None and status < 400) == (kind == "ok"):
                lines.append(json.dumps({"id": "r", "custom_id": custom_id, "response": response, "error": error}))
        return "\n".join(lines) + "\n"

    # -- Anthropic ----------------------------------------------------------------------------------------------------

    def _message_batch(self, job: Job) -> dict[str, Any]:
        is_ended = self.status(job) in ("completed", "expired", "cancelled")
        counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
        counts["succeeded" if is_ended else "processing"] = len(job.rows)
        return {
            "id": job.id,
            "type": "message_batch",
            "processing_status": "ended" if is_ended else "in_progress",
            "request_counts": counts,
            "created_at": datetime.fromtimestamp(job.created, UTC).isoformat().replace("+00:00", "Z"),
            "results_url": "https://elsewhere.example/results" if is_ended else None,
        }

    def _message_results(self, job: Job) -> str:
        lines = []
        for custom_id, status, body in self._rows(job, ANTHROPIC_PATH):
            result: dict[str, Any] = {"type": "succeeded", "message": body}
            if status is None:
                result = {"type": "canceled" if job.is_cancelled else "expired"}
            elif status >= 400:
                kind = "invalid_request_error" if status == 400 else "api_error"
                result = {"type": "errored", "error": {"type": "error", "error": {"type": kind, "message": "no"}}}
            lines.append(json.dumps({"custom_id": custom_id, "result": result}))
        return "\n".join(lines)

    def _page(self, query: str, word: str) -> dict[str, Any]:
        """Batches, newest first, two a page whatever the limit."""
        after = parse_qs(query).get(word, [""])[0]
        ids = list(reversed(self.jobs))
        rest = ids[ids.index(after) + 1 :] if after else ids
        shown = self._shown if word == "after" else self._message_batch
        return {"object": "list", "data": [shown(self.jobs[each]) for each in rest[:2]], "has_more": len(rest) > 2}
