"""A real PostgreSQL of the test's own, and a proxy that cuts connections to it."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PASSWORD = "pw-S3cret-9d1f"
USER = "team"


def binaries() -> Path | None:
    """Where a PostgreSQL server is installed; None where none is."""
    found = [*sorted(Path("/usr/lib/postgresql").glob("*/bin")), Path(shutil.which("initdb") or "/none/initdb").parent]
    return next((path for path in reversed(found) if (path / "initdb").exists()), None)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def server() -> Iterator[int]:
    """The port of a server on this machine alone, with one user whose password is PASSWORD. It does not run as root."""
    home = binaries()
    assert home is not None
    user = next((name for name in ("postgres", "nobody") if os.geteuid() == 0 and _is_user(name)), None)
    with tempfile.TemporaryDirectory(prefix="pg-") as name:
        folder, port = Path(name), _free_port()
        (folder / "password").write_text(PASSWORD, "utf-8")
        if user:
            for path in (folder, folder / "password"):
                shutil.chown(path, user)
        how = {"user": user, "env": {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8"}, "check": True}
        data = folder / "data"
        make = [
            "-D",
            data,
            "-U",
            USER,
            "--pwfile",
            folder / "password",
            "-A",
            "scram-sha-256",
            "-E",
            "UTF8",
            "--no-sync",
        ]
        subprocess.run([home / "initdb", *make], stdout=subprocess.DEVNULL, **how)
        options = f"-c listen_addresses=127.0.0.1 -p {port} -k {folder} -c fsync=off -c shared_buffers=16MB"
        control = [home / "pg_ctl", "-D", data, "-w", "-t", "120", "-l", folder / "log"]
        subprocess.run([*control, "-o", options, "start"], stdout=subprocess.DEVNULL, **how)
        try:
            yield port
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], stdout=subprocess.DEVNULL, **how)


def _is_user(name: str) -> bool:
    with suppress(KeyError):
        return bool(pwd.getpwnam(name))
    return False


class CuttingProxy:
    """Passes bytes between a client and a server, and cuts the connection after `limit` bytes to the server."""

    def __init__(self, port: int) -> None:
        self._to, self.limit, self.passed = port, -1, 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._socket.close()

    def cut_after(self, limit: int) -> None:
        """The next connection ends after this number of bytes; -1: never."""
        self.limit, self.passed = limit, 0

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._socket.accept()
                server = socket.create_connection(("127.0.0.1", self._to))
                for one, other, counted in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._pass, args=(one, other, counted), daemon=True).start()

    def _pass(self, one: socket.socket, other: socket.socket, counted: bool) -> None:
        with suppress(OSError):
            while data := one.recv(4096):
                if counted:
                    left = self.limit - self.passed if self.limit >= 0 else len(data)
                    self.passed += len(data)
                    if left < len(data):
                        other.sendall(data[: max(left, 0)])
                        break
                other.sendall(data)
        for end in (one, other):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
