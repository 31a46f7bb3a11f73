"""Records the replies that `optimize demo` replays: runs the demo's own search with the real model behind it.

    python -m tests.bench.record_demo FILE.gguf            # computes what is not recorded yet
    python -m tests.bench.record_demo FILE.gguf --prune    # and drops replies that the demo no longer asks for

Run it after a change of the search: only requests without a recorded reply take time. What was computed is kept when it
is stopped.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from agent.jobs.demo import MODEL, prepare_demo
from agent.jobs.launch import search_of
from agent.jobs.observers import Watcher
from agent.jobs.session import run_work
from agent.models.local import LocalModel
from agent.models.recorded import (
    PREFIX,
    RECORDINGS,
    SUFFIX,
    RecordedModel,
    RecordedWeights,
    Recording,
    read_recording,
    request_key,
)
from agent.programs.kinds import program_for
from agent.safe_file import sha256_of
from agent.types import LM, Completion, Request
from tests.recordings import write_recording

FILE = RECORDINGS / f"{MODEL.removeprefix(PREFIX)}{SUFFIX}"
TITLE, LICENCE = "Qwen2.5-Coder-0.5B-Instruct, Q4_K_M GGUF", "Apache-2.0"
SAVE_EVERY = 10


class Recorder(RecordedModel):
    """A recorded model that asks the real one for what was not recorded, and keeps the reply."""

    def __init__(self, recording: Recording, real: LM) -> None:
        super().__init__(MODEL, recording)
        self._weights, self._real = recording.weights, real
        self.replies, self.asked, self.computed = dict(recording.replies), set[str](), 0

    async def complete(self, request: Request) -> Completion:
        key = request_key(request)
        self.asked.add(key)
        if key not in self.replies:
            self.replies[key] = replace(await self._real.complete(request), model=MODEL)
            self.computed += 1
            if self.computed % SAVE_EVERY == 0:
                self.save()
                print(f"{self.computed} replies computed", flush=True)
        return self.replies[key]

    def save(self) -> None:
        write_recording(FILE, Recording(self._weights, self.replies))

    def prune(self) -> None:
        """Drop the replies that were not asked for."""
        self.replies = {key: reply for key, reply in self.replies.items() if key in self.asked}

    async def close(self) -> None:
        await self._real.close()


def recording_of(gguf: Path) -> Recording:
    """What is recorded so far of the model in `gguf`; an empty recording is written where none is."""
    weights = RecordedWeights(TITLE, sha256_of(gguf), LICENCE)
    if not FILE.is_file():
        write_recording(FILE, Recording(weights, {}))
    there = read_recording(FILE, MODEL)
    if there.weights != weights:
        raise SystemExit(f"{FILE}: recorded with other weights ({there.weights.title}); remove it first")
    return there


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gguf", type=Path)
    parser.add_argument("--prune", action="store_true", help="drop replies that the demo no longer asks for")
    words = parser.parse_args()
    recorder = Recorder(recording_of(words.gguf), LocalModel(f"local/{words.gguf}", words.gguf.resolve(), 1))
    db, began = Path("runs/ledger.db"), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        launch = prepare_demo(db)
        program = program_for(launch.task, recorder)
        try:
            result = run_work(search_of(replace(launch, model=recorder, program=program)), db, Watcher())
        finally:
            recorder.save()
    if words.prune:
        recorder.prune()
        recorder.save()
    print(f"{result.decision}: {100 * result.lift.diff:+.1f} points on {result.lift.n} sealed rows")
    print(
        f"{len(recorder.asked)} requests, {recorder.computed} computed in {time.monotonic() - began:.0f} s; "
        f"{FILE.name}: {len(recorder.replies)} replies, {FILE.stat().st_size:,} bytes"
    )


if __name__ == "__main__":
    main()
