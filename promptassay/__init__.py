"""Promptassay: searches for the best prompt a budget can buy, and proves how much better it is.

    import promptassay as pa
    result = pa.optimize("tasks/support_triage", model="openai/NAME", max_cost=2)
    print(result.decision, result.lift.diff, result.release.path)

The code is in the package `agent` next to this one. It is loaded by its path, not through the search path, so a file
agent.py in the working folder does not shadow it.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from agent.api import aoptimize as aoptimize
    from agent.api import check as check
    from agent.api import customize as customize
    from agent.api import evaluate as evaluate
    from agent.api import metric as metric
    from agent.api import migrate as migrate
    from agent.api import optimize as optimize
    from agent.api import resume as resume
    from agent.errors import AgentError as AgentError
    from agent.errors import InputError as InputError
    from agent.errors import Interrupted as Interrupted
    from agent.jobs.promote import promote as promote
    from agent.jobs.sweep.sweep import SweepResult as SweepResult
    from agent.jobs.tool_sources import write_tools as write_tools
    from agent.ledger.container import merge_ledgers as merge_ledgers
    from agent.programs.agent_call import Rollout as Rollout
    from agent.programs.chain_file import load_chain as load_chain
    from agent.programs.classic import load_classifier as load_classifier
    from agent.release.result import RunResult as RunResult
    from agent.release.runtime import load_prompt as load_prompt
    from agent.release.texts import load_texts as load_texts
    from agent.report.notebook import load_run as load_run
    from agent.results.checks import CheckResult as CheckResult
    from agent.results.customize import CustomizeResult as CustomizeResult
    from agent.task.html_text import strip_html as strip_html
    from agent.task.load import load_task as load_task

    __version__: str

    def sweep(
        file: str | Path,
        *,
        ray: str | None = None,
        jobs: int | None = None,
        folder: str | Path | None = None,
        dry_run: bool = False,
    ) -> SweepResult: ...


_HOMES = {
    "AgentError": "agent.errors",
    "CheckResult": "agent.results.checks",
    "CustomizeResult": "agent.results.customize",
    "InputError": "agent.errors",
    "Interrupted": "agent.errors",
    "Rollout": "agent.programs.agent_call",
    "RunResult": "agent.release.result",
    "SweepResult": "agent.jobs.sweep.sweep",
    "aoptimize": "agent.api",
    "check": "agent.api",
    "customize": "agent.api",
    "evaluate": "agent.api",
    "load_prompt": "agent.release.runtime",
    "load_chain": "agent.programs.chain_file",
    "load_classifier": "agent.programs.classic",
    "load_run": "agent.report.notebook",
    "load_task": "agent.task.load",
    "load_texts": "agent.release.texts",
    "merge_ledgers": "agent.ledger.container",
    "metric": "agent.api",
    "migrate": "agent.api",
    "optimize": "agent.api",
    "resume": "agent.api",
    "strip_html": "agent.task.html_text",
    "write_tools": "agent.jobs.tool_sources",
}
__all__ = [
    "AgentError",
    "CheckResult",
    "CustomizeResult",
    "InputError",
    "Interrupted",
    "Rollout",
    "RunResult",
    "SweepResult",
    "aoptimize",
    "check",
    "customize",
    "evaluate",
    "load_chain",
    "load_classifier",
    "load_prompt",
    "load_run",
    "load_task",
    "load_texts",
    "merge_ledgers",
    "metric",
    "migrate",
    "optimize",
    "promote",
    "resume",
    "strip_html",
    "sweep",
    "write_tools",
]


def _bind() -> None:
    """Import the package next to this one as `agent`. Raises ImportError if another module has that name."""
    home = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "agent")
    there = sys.modules.get("agent")
    if there is not None:
        path = getattr(there, "__file__", None) or "a module without a file"
        if os.path.realpath(os.path.dirname(path)) != os.path.realpath(home):
            raise ImportError(
                f"promptassay needs the module name agent, and {path} has it in this process; rename that module, or "
                "run promptassay in a separate process"
            )
        return
    spec = spec_from_file_location("agent", os.path.join(home, "__init__.py"), submodule_search_locations=[home])
    assert spec is not None
    assert spec.loader is not None
    sys.modules["agent"] = module = module_from_spec(spec)
    spec.loader.exec_module(module)


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used (PEP 562)."""
    if name == "__version__":
        from importlib.metadata import version

        return version("promptassay")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if not name.startswith("_"):
        from agent.jobs import JOBS

        if (words := name.replace("_", " ")) in JOBS:  # a job of ours or of another package
            from agent.jobs.in_python import in_python

            return in_python(JOBS.get(words))
    raise AttributeError(f"module 'promptassay' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


_bind()
