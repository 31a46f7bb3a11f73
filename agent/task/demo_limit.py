"""The user's own limit on demos in a prompt (`--max-demos`), beside the task's. Pure."""

from __future__ import annotations

from dataclasses import replace

from agent.errors import InputError
from agent.types import Task


def with_demo_limit(task: Task, most: int) -> Task:
    """The task with prompts of at most so many demos; the smaller one of this limit and its own counts.

    Args:
        task: as it was loaded.
        most: at least 0; fixed and picked demos count alike. 0: prompts are instructions only, and no rows vote.

    Returns:
        The task; the sizes of its demo sets are cut to the limit as well, so that estimates of a call's tokens hold.

    Raises:
        InputError: the limit is negative, or it leaves no technique of the task.
    """
    if most < 0:
        raise InputError(f"--max-demos {most}: write a whole number of at least 0; 0 tries instructions only")
    own = task.constraints.max_demos
    limit = most if own is None else min(most, own)
    if not limit and not task.program and all("few-shot" in name for name in task.space.techniques):
        names = ", ".join(task.space.techniques)
        raise InputError(
            f"--max-demos {most}: every technique of {task.name} shows demos ({names}); add zero-shot to techniques in "
            "task.toml, or allow some demos"
        )
    counts = tuple(dict.fromkeys(min(count, limit) for count in task.space.demo_counts))
    return replace(
        task,
        constraints=replace(task.constraints, max_demos=limit),
        space=replace(task.space, demo_counts=counts),
    )
