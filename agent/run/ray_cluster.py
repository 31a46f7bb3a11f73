"""Joins a Ray cluster, or starts one of this machine: what all that runs on Ray begins with."""

from __future__ import annotations

import os
from typing import Any

from agent.errors import InputError
from agent.extras import require

LOCAL = "local"
"""The address that means a cluster of this machine alone, which ends with the command."""


def connect(address: str) -> tuple[Any, bool]:
    """Connects this process with a cluster, once: what is connected already stays so.

    Args:
        address: of a cluster, such as "auto" or "ray-head:6379", or "local".

    Returns:
        The package ray, and whether this call connected it, so that its caller shuts it down.

    Raises:
        InputError: Ray is not installed, or there is no such cluster.
    """
    require("ray", "--ray")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # before the import, as Ray reports to its makers otherwise
    if address == LOCAL:
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # on every system: its one node is at 127.0.0.1
    import ray

    if ray.is_initialized():
        return ray, False
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    where = {"include_dashboard": False} if address == LOCAL else {}
    try:
        ray.init(address=address, **where, **quiet)
    except Exception as error:  # Ray raises a bare one where a node does not come up in time
        why = f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"
        what = "the cluster did not start" if address == LOCAL else "no Ray cluster answers there"
        raise InputError(
            f"--ray {address}: {what} ({why}); start one with `ray start --head`, or type the command again"
        ) from error
    return ray, True
