"""The provenance of a run: user, machine, command, package versions, commit. Knows no task and no SQL."""

from __future__ import annotations

import getpass
import platform
import secrets
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agent.extras import version_of
from agent.redact import redact, without_password

PACKAGES = ("openai", "anthropic", "langchain", "dspy", "optuna", "xllamacpp", "genai-prices", "numpy", "scipy")


def utc_now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def new_run_id() -> str:
    """Return UTC second and six random hex digits: sorts by time, never collides."""
    return utc_now()[:19].replace("-", "").replace(":", "") + "-" + secrets.token_hex(3)


def tool_version() -> str:
    return version_of("promptassay") or "0+source"


def boot_id() -> str:
    """Return the id of this machine's current boot ("" if unknown)."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def provenance(folder: Path, argv: Sequence[str]) -> dict[str, Any]:
    """Collect user, host, argv, relevant packages, and the commit of the folder ("" if none)."""
    return {
        "user": user(),
        "host": socket.gethostname(),
        "argv": list(argv),
        "platform": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "versions": {name: found for name in PACKAGES if (found := version_of(name))},
        "git": _git(folder),
    }


def user() -> str:
    """Return the user's name ("" if unknown, as in a container)."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


def _git(folder: Path) -> str:
    def ask(*words: str) -> str:
        command = ["git", "-C", str(folder if folder.is_dir() else folder.parent), *words]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=10, check=True)
        return done.stdout.strip()

    try:
        return f"{ask('rev-parse', 'HEAD')}{' dirty' if ask('status', '--porcelain', '.') else ''}"
    except (OSError, subprocess.SubprocessError):
        return ""


def command_line() -> list[str]:
    """Return the process's command line without keys."""
    return [Path(sys.argv[0]).name, *(redact(without_password(word)) for word in sys.argv[1:])]
