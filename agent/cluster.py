"""The only importer of Ray: join a cluster, or start one on this machine, once per process."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

from agent.errors import InputError, one_line
from agent.extras import require

LOCAL = "local"  # the address of a cluster of this machine alone, which ends with its last user
ADDRESS = "RAY_ADDRESS"  # Ray's environment variable for the address of a cluster
RETRIES = 2  # retries of work whose process or node was killed

_USERS: list[bool] = []  # one entry per user of the cluster; the first tells whether it connected this process
_CHANGING = threading.Lock()


def join_cluster(address: str, option: str) -> Any:
    """Connect to a Ray cluster ("auto", HOST:PORT or "local") and return the module `ray`. Raises InputError."""
    require("ray", option)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # before the import, as Ray reports to its makers otherwise
    if address == LOCAL:
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # on every system: its one node is at 127.0.0.1
        os.environ.setdefault("RAY_worker_niceness", "0")  # 15 where nothing is said: any other work goes first
    import ray

    with _CHANGING:
        is_ours = not ray.is_initialized()
        if is_ours:
            _connect(ray, address, option)
        _USERS.append(is_ours)
    return ray


def leave_cluster(ray: Any) -> None:
    """Release the cluster; the last user disconnects, and ends a cluster of this machine."""
    with _CHANGING:
        last = _USERS.pop()
        if last and not _USERS:
            ray.shutdown()


def _connect(ray: Any, address: str, option: str) -> None:
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    where = {"include_dashboard": False} if address == LOCAL else {}
    before = signal.getsignal(signal.SIGTERM)  # a run lets its calls land at a SIGTERM, Ray would leave at once
    try:
        ray.init(address=address, **where, **quiet)
    except Exception as error:  # Ray raises a bare one where a node does not come up in time
        why = one_line(error)
        what = "the cluster did not start" if address == LOCAL else "no Ray cluster answers there"
        raise InputError(
            f"{option} {address}: {what} ({why}); start one with `ray start --head`, or type the command again"
        ) from error
    else:
        ray._private.worker._worker_logs_enabled = False  # else stdout, ours, also gets the deaths of workers
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
