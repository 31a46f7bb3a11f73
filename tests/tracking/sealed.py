"""`python -m tests.tracking.sealed LOG COMMAND...` runs a command of ours that may reach this machine alone.

What this process tries to reach elsewhere is refused and written to LOG. Helpers in other languages, such as
wandb-core, go through the proxy that the environment names, which the test watches.
"""

from __future__ import annotations

import os
import sys
from typing import Any

LOCAL = ("127.0.0.1", "::1", "localhost", "", None)


def watch(log: str) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event == "socket.getaddrinfo":
            host = args[0]
        elif event in ("socket.connect", "socket.sendto") and isinstance(args[1], tuple):
            host = args[1][0]
        else:
            return
        if host not in LOCAL:
            os.write(file, f"{event} {host}\n".encode())
            raise OSError(f"{event} {host} is not on this machine")

    sys.addaudithook(hook)


if __name__ == "__main__":
    watch(sys.argv[1])
    from promptassay.__main__ import main

    sys.argv = ["optimize", *sys.argv[2:]]
    main()
