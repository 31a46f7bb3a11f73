"""A hook for commands to be killed: it records the points that a process passes, and kills the process at one of them.

A point is right before or after a commit, a breaking or setting of the seal, a step of a training, a checkpoint, or a
request about a training job.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

MARKS = "marks.txt"
"""A line for each point that was passed, and for each epoch that began or was kept."""
Point = tuple[str, int]
"""A kind of point, and how often it was passed before."""
NEVER: Point = ("", -1)


def mark_and_die(place: Path, at: Point = NEVER) -> None:
    """Record points and epochs in `place`, and kill this process at the point `at`."""
    from agent.jobs.customize import hosted
    from agent.ledger import ledger_file, writer
    from agent.models.provider_jobs import FineTuning
    from agent.training import loop

    hosted.FIRST_WAIT, writer.LOG_BYTES = 0.02, 200_000  # look often, copy the log often
    file, passed = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_APPEND), Counter[str]()

    def mark(line: str) -> None:
        os.write(file, f"{line}\n".encode())

    def pass_by(kind: str) -> None:
        mark(f"passes {kind}")
        if (kind, passed[kind]) == at:
            os.kill(os.getpid(), signal.SIGKILL)
        passed[kind] += 1

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
        async def asked(*given: Any, **how: Any) -> Any:
            pass_by("request")
            made = await plain(*given, **how)
            pass_by("request")
            return made

        return asked

    def epoch_begins(plain: Any) -> Any:
        def epoch(self: Any, progress: Any, on_step: Any) -> Any:
            mark(f"begins {self.name}/{progress.epoch + 1}")
            return plain(self, progress, on_step)

        return epoch

    around(writer.Writer, "_commit")
    for owner in (writer, ledger_file):  # each imports them by name
        around(owner, "break_seal")
        around(owner, "set_seal")
    around(loop.Adam, "update")
    around(loop, "save_checkpoint", lambda folder, name, progress: f"kept {name}/{progress.epoch}")
    loop.Training.epoch = epoch_begins(loop.Training.epoch)  # type: ignore[method-assign]
    FineTuning._asked = around_request(FineTuning._asked)  # type: ignore[method-assign]


def points(place: Path) -> Counter[str]:
    """Return how many points of each kind were passed."""
    passed = (line.partition(" ") for line in place.read_text().splitlines())
    return Counter(kind for what, _, kind in passed if what == "passes")


def spread(passed: Counter[str], step: int) -> list[Point]:
    """Return every point, or one in `step` of each kind."""
    return [(kind, number) for kind in sorted(passed) for number in range(0, passed[kind], step)]


def epochs_again(place: Path) -> list[str]:
    """Return the epochs that were trained again after they were kept."""
    kept, again = set[str](), list[str]()
    for line in place.read_text().splitlines():
        what, _, epoch = line.partition(" ")
        if what == "kept":
            kept.add(epoch)
        elif what == "begins" and epoch in kept:
            again.append(f"epoch {epoch} was trained again")
    return again
