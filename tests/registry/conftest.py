"""Every test of this folder has an empty current folder, and leaves the registries as they were."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.jobs import JOBS
from agent.metrics.metric_registry import METRICS
from agent.models.model_registry import MODELS
from agent.programs.kinds import PROGRAMS
from agent.prompt.parts.kinds import PARTS
from agent.registry import Registry
from agent.release.formats.export_format import FORMATS
from agent.search.registered import STRATEGIES
from tests.registry.packages import install_plugin

ALL: tuple[Registry[object], ...] = (METRICS, MODELS, PROGRAMS, FORMATS, STRATEGIES, JOBS, PARTS)  # type: ignore[assignment]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    before, modules = [dict(registry._known) for registry in ALL], set(sys.modules)
    yield folder
    for registry, known in zip(ALL, before, strict=True):
        registry._known = known | {name: found for name, found in registry._known.items() if name in registry._homes}
    for name in set(sys.modules) - modules:
        if not name.startswith("agent"):
            file = getattr(sys.modules[name], "__file__", None) or ""
            if file.startswith(str(tmp_path)):
                del sys.modules[name]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with the package of tests/assets/plugin; it is on nobody's path."""
    return install_plugin(tmp_path / "site")


@pytest.fixture
def plugin(site: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, on the path of this process."""
    monkeypatch.syspath_prepend(site)
    return site
