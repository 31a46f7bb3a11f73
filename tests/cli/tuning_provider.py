"""A provider's fine-tuning API for the wire server: files, jobs with a scripted course, and the tuned model."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import parse_qs

from tests.cli.world import knowing, learner
from tests.wire import Fault, Seen

TUNED = "ft:x:me::1"
COURSE = ("validating_files", "running", "succeeded")


class Provider:
    """What `other` of a WireServer may be.

    Args:
        course: the statuses of a job, one at each look, the last for good; the first is that of its start.
        disturb: answers a request in the place of the provider; None where it does not.
        tokens: that are billed.
    """

    def __init__(
        self,
        course: Sequence[str] = COURSE,
        disturb: Callable[[Seen], Fault | None] = lambda seen: None,
        tokens: int | None = 4321,
        error: dict[str, Any] | None = None,
    ) -> None:
        self.course, self.disturb, self.tokens, self.error = course, disturb, tokens, error
        self.files: dict[str, bytes] = {}
        self.jobs: dict[str, dict[str, Any]] = {}
        self.looks: dict[str, int] = {}
        self.seen: list[tuple[str, str]] = []

    @property
    def started(self) -> int:
        """POSTs of a job that arrived."""
        return self.seen.count(("POST", "/v1/fine_tuning/jobs"))

    def __call__(self, seen: Seen) -> Fault | None:
        self.seen.append((seen.method, seen.path))
        if (fault := self.disturb(seen)) is not None:
            return fault
        match seen.method, seen.path.split("/")[2:]:
            case "POST", ["files"]:
                return Fault(body=self._file(seen))
            case "POST", ["fine_tuning", "jobs"]:
                return Fault(body=self.start(dict(seen.body)))
            case "GET", ["fine_tuning", "jobs"]:
                return Fault(body=self._page(seen.query))
            case "GET", ["fine_tuning", "jobs", job] if job in self.jobs:
                self.looks[job] += 1
                return Fault(body=self.job(job))
            case "POST", ["fine_tuning", "jobs", job, "cancel"] if job in self.jobs:
                self.course = ("cancelled",)
                return Fault(body=self.job(job))
        return None

    def start(self, body: dict[str, Any]) -> dict[str, Any]:
        """Starts a job, as a POST does."""
        job = f"ftjob-{len(self.jobs) + 1}"
        self.jobs[job], self.looks[job] = body, 0
        return self.job(job)

    def job(self, job: str) -> dict[str, Any]:
        """The job as the API shows it."""
        status = self.course[min(self.looks[job], len(self.course) - 1)]
        is_done = status == "succeeded"
        return {
            "object": "fine_tuning.job",
            "id": job,
            "status": status,
            "model": self.jobs[job]["model"],
            "training_file": self.jobs[job]["training_file"],
            "created_at": 1_000,
            "finished_at": 1_060 if is_done else None,
            "fine_tuned_model": TUNED if is_done else None,
            "trained_tokens": self.tokens if is_done else None,
            "error": self.error if status == "failed" else None,
        }

    def _file(self, seen: Seen) -> dict[str, Any]:
        assert b'name="purpose"\r\n\r\nfine-tune\r\n' in seen.data
        boundary = b"--" + seen.headers["content-type"].partition("boundary=")[2].strip('"').encode()
        (part,) = (each for each in seen.data.split(boundary) if b"filename=" in each)
        file = f"file-{len(self.files) + 1}"
        self.files[file] = part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")
        return {"object": "file", "id": file, "purpose": "fine-tune", "bytes": len(self.files[file])}

    def _page(self, query: str) -> dict[str, Any]:
        """Jobs, newest first, two a page whatever the limit."""
        after = parse_qs(query).get("after", [""])[0]
        ids = list(reversed(self.jobs))
        rest = ids[ids.index(after) + 1 :] if after else ids
        return {"object": "list", "data": [self.job(each) for each in rest[:2]], "has_more": len(rest) > 2}

    def chats(self, file: str) -> list[dict[str, Any]]:
        """The rows of an uploaded file."""
        return [json.loads(line) for line in self.files[file].splitlines()]


def answers(messages: list[dict[str, Any]], body: dict[str, Any]) -> str | Fault:
    """The tuned model is always right, its base as `learner`."""
    return knowing(messages, body) if body["model"] == TUNED else learner(messages, body)
