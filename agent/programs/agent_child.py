"""The child process that runs an agent written in Python: loads its file once, then answers a row a line.

It writes lines of JSON, `[kind, text]`: `ready` or `broken` first, then an `answer` or a `fault` for each row.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import sys
from pathlib import Path
from typing import Any

from agent.programs.agent_call import AgentFault, AgentModel, raised, written
from agent.programs.own_file import module_of, why_broken


def main() -> None:
    pipe_in, pipe_out = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)

    def tell(kind: str, text: str) -> None:
        pipe_out.write(json.dumps([kind, text]) + "\n")
        pipe_out.flush()

    path, name = json.loads(pipe_in.readline())
    sys.path.insert(0, str(Path(path).parent))
    try:
        function = getattr(module_of(Path(path)), name)
    except Exception as problem:
        tell("broken", why_broken(Path(path), problem))
        return
    tell("ready", "")
    with asyncio.Runner() as runner:
        for line in pipe_in:
            texts, row, model = json.loads(line)
            os.environ.update(AgentModel(*model).environment)
            try:
                value = function(texts, row, AgentModel(*model))  # outside of the loop, as it may run one
                tell("answer", written(runner.run(_awaited(value)) if inspect.isawaitable(value) else value))
            except AgentFault as fault:
                tell("fault", str(fault))
            except (Exception, asyncio.CancelledError) as problem:  # SystemExit ends the process
                tell("fault", raised(problem, path))


async def _awaited(value: Any) -> Any:
    return await value
