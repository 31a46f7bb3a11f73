"""The processes of a pool's actors on this machine (Linux)."""

from __future__ import annotations

import os
from pathlib import Path

ACTOR = b"ray::EngineActor"


def engine_pids() -> list[int]:
    """Those of clusters that this process started, in the order in which they began."""
    parents: dict[int, int] = {}
    actors: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, name = (folder / "stat").read_text("utf-8", "replace"), (folder / "cmdline").read_bytes()
        except OSError:  # it ended
            continue
        parents[int(folder.name)] = int(state.rpartition(")")[2].split()[1])
        if name.startswith(ACTOR):
            actors.append(int(folder.name))
    return sorted(pid for pid in actors if _is_below(pid, parents))


def _is_below(pid: int, parents: dict[int, int]) -> bool:
    while pid > 1:
        pid = parents.get(pid, 0)
        if pid == os.getpid():
            return True
    return False
