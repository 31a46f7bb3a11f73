"""Jobs, one function each: command, Python function, `--json` and docs page are made from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.registry import Registry

if TYPE_CHECKING:
    from agent.jobs.registry import JobSpec

_MODULES = {
    "apply": ("apply",),
    "batch": ("batch list", "batch cancel"),
    "customize.job": ("customize",),
    "doctor": ("doctor",),
    "inventory": ("tasks", "metrics list", "models list", "models fetch", "tools"),
    "label": ("label",),
    "ledger": ("ledger merge", "ledger publish", "ledger verify"),
    "reproduce": ("reproduce",),
    "runs": ("runs", "history", "compare"),
    "show": ("show", "report"),
    "init": ("init",),
    "judge": ("judge calibrate", "judge rate"),
    "tune": ("judge tune",),
    "audit": tuple(f"audit {word}" for word in ("verify", "anchor", "export", "check", "show", "lineage", "erase")),
    "export": ("export",),
    "aliases": ("rollback", "load", "aliases"),
    "promote": ("promote",),
    "check": ("check", "bless"),
    "monitor": ("monitor", "ab report"),
    "learn": ("learn",),
    "search": ("run", "resume", "migrate", "text"),
    "demo": ("demo",),
    "sweep.sweep": ("sweep",),
    "transfer": ("transfer",),
}
JOBS: Registry[JobSpec] = Registry(
    "job", "promptassay.jobs", {name: f"agent.jobs.{module}" for module, names in _MODULES.items() for name in names}
)
"""By the words of its command."""
