"""What a comparison that is to be killed does to itself: it writes down what passes, and ends at a point of its own.

A point is before or after a step of a training, a checkpoint, a request about a job or a commit of the ledger.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

MARKS = "marks.txt"
"""A line for each point that was passed, epoch that began and epoch that was kept."""
Point = tuple[str, int]
"""A line of it about a point, and how often it has been there before."""
NEVER: Point = ("", -1)


def mark_and_die(place: Path, at: Point) -> None:
    """Writes down epochs and points as they pass, and makes this process kill itself at its point `at`."""
    from agent.jobs.customize import hosted as hosted_job
    from agent.ledger import writer
    from agent.models.provider_jobs import FineTuning
    from agent.training import loop as training
    from agent.training.loop import Adam

    hosted_job.FIRST_WAIT = 0.02
    file, passed = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_APPEND), Counter[str]()

    def mark(line: str) -> None:
        os.write(file, f"{line}\n".encode())

    def pass_by(kind: str) -> None:
        point = f"passes {kind}"
        mark(point)
        if (point, passed[point]) == at:
            os.kill(os.getpid(), signal.SIGKILL)
        passed[point] += 1

    def around(owner: Any, name: str, then: Callable[..., str] | None = None) -> None:
        plain = getattr(owner, name)

        def wrapped(*given: Any) -> Any:
            pass_by(name)
            made = plain(*given)
            if then is not None:
                mark(then(*given))
            pass_by(name)
            return made

        setattr(owner, name, wrapped)

    def around_request(plain: Any) -> Any:
        async def asked(*given: Any) -> Any:
            pass_by("request")
            made = await plain(*given)
            pass_by("request")
            return made

        return asked

    def epoch_begins(plain: Any) -> Any:
        def epoch(self: Any, progress: Any, on_step: Any) -> Any:
            mark(f"begins {self.name}/{progress.epoch + 1}")
            return plain(self, progress, on_step)

        return epoch

    around(writer.Writer, "_commit")
    around(Adam, "update")
    around(training, "save_checkpoint", lambda folder, name, progress: f"kept {name}/{progress.epoch}")
    training.Training.epoch = epoch_begins(training.Training.epoch)  # type: ignore[method-assign]
    FineTuning._asked = around_request(FineTuning._asked)  # type: ignore[method-assign]


def points(place: Path) -> Counter[str]:
    """How many points of each kind were passed."""
    return Counter(line for line in place.read_text().splitlines() if line.startswith("passes "))


def epochs_again(place: Path) -> list[str]:
    """The epochs that began once more after they were kept."""
    kept, again = set[str](), list[str]()
    for line in place.read_text().splitlines():
        what, _, epoch = line.partition(" ")
        if what == "kept":
            kept.add(epoch)
        elif what == "begins" and epoch in kept:
            again.append(f"epoch {epoch} was trained again")
    return again
