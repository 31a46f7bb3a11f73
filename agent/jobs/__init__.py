"""Jobs, one function each: command, Python function, `--json` and docs page are made from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.registry import Registry

if TYPE_CHECKING:
    from agent.jobs.registry import JobSpec

_MODULES = {
    "apply": ("apply",),
    "batch": ("batch list", "batch cancel"),
    "compare": ("report", "compare"),
    "customize.job": ("customize",),
    "doctor": ("doctor",),
    "inventory": ("tasks", "metrics list", "models list"),
    "label": ("label",),
    "ledger": ("ledger merge", "ledger publish", "ledger verify"),
    "reproduce": ("reproduce",),
    "runs": ("runs", "show", "history"),
    "init": ("init",),
    "judge": ("judge calibrate",),
    "audit": tuple(f"audit {word}" for word in ("verify", "anchor", "export", "check", "show", "lineage")),
    "export": ("export",),
    "promote": ("promote",),
    "aliases": ("rollback", "load", "aliases"),
    "check": ("check", "bless"),
    "monitor": ("monitor", "ab report"),
    "learn": ("learn",),
    "search": ("run", "resume", "migrate", "demo"),
    "sweep.sweep": ("sweep",),
    "tools": ("tools",),
    "transfer": ("transfer",),
}
JOBS: Registry[JobSpec] = Registry(
    "job",
    "promptassay.jobs",
    {name: f"agent.jobs.{module}" for module, names in _MODULES.items() for name in names},
)
"""By the words of its command."""
