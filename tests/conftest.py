"""What all rooms share: the order of the suite, clean surroundings, and what many tests read and one makes."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import json
import os
import shutil
import signal
from collections.abc import Callable, Generator, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from agent.extras import is_here
from agent.ledger.store import Ledger
from agent.scoring import task_metrics
from tests.cli.world import compatible, files, good_json, learner
from tests.report.chromium import CHROMIUM
from tests.scripted import Toys, toy_makers
from tests.toys import open_ledger
from tests.wire import WireServer

if TYPE_CHECKING:
    from playwright.sync_api import Browser

TESTS = Path(__file__).resolve().parent
IN_A_FOLDER = ("api", "cli", "customize", "docs", "registry", "report", "task")
"""Rooms whose tests write into the current folder."""
PROMPTFOO = TESTS.parent / "build" / "promptfoo" / "node_modules" / ".bin"
"""Where `make test-extras` installs it."""
OPENAI_NODE = TESTS.parent / "build" / "openai-node" / "node_modules"
_OF_THE_USER = ("ANTHROPIC_", "LANGCHAIN_", "LANGSMITH_", "OPENAI_", "OPTIMIZE_")

Made = tuple[dict[str, Any], dict[str, Any]]

# A busy machine is not a failure, and the suite draws the same cases each time; `make long` draws others.
settings.register_profile("suite", deadline=None, max_examples=40, derandomize=True)
settings.register_profile("random", deadline=None, max_examples=300, print_blob=True)
settings.load_profile("suite")


with contextlib.suppress(ValueError):  # not the main thread
    signal.signal(
        signal.SIGHUP, signal.SIG_DFL
    )  # a nohup around the suite is not meant for the commands that it starts


MEMORY = Path("/dev/shm")
if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > 4 * 1024**3:
    # Each commit of a ledger waits for the disk. What is killed here is a process, never the machine.
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: a sixth of the time tests wait for processes, servers and timers."""
    return len(os.sched_getaffinity(0)) + 1 if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1) + 1


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-snapshots", action="store_true", help="write tests/snapshots anew instead of comparing")
    parser.addoption(
        "--extras", metavar="NAMES", help="run only the tests of these extras (comma-separated); a skipped one fails"
    )


def needed_extras(item: pytest.Item) -> set[str]:
    return {name for mark in item.iter_markers("extra") for name in mark.args}


def has_extra(name: str) -> bool:
    others = {"promptfoo": PROMPTFOO / "promptfoo", "openai-node": OPENAI_NODE / "openai"}
    if name in others:
        return others[name].exists()
    return find_spec("smolagents") is not None if name == "frameworks" else is_here(name)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("engine") is not None)
    if (named := config.getoption("--extras")) is None:
        for item in items:
            if missing := [name for name in sorted(needed_extras(item)) if not has_extra(name)]:
                item.add_marker(pytest.mark.skip(reason=f"not installed: {', '.join(missing)}; see make test-extras"))
        return
    wanted = set(named.split(","))
    chosen = [item for item in items if (needed := needed_extras(item)) and needed <= wanted]
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = chosen


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if item.config.getoption("--extras") and report.skipped:
        report.outcome, report.longrepr = "failed", f"{item.nodeid} was skipped: {report.longrepr}"
    return report


def pytest_collection_finish() -> None:
    """What the imports made stays and cycles are looked for less often: both took a tenth of the suite's time each."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)


def clean(monkeypatch: pytest.MonkeyPatch, folder: Path | None = None) -> None:
    """No keys, settings, proxies and tracing of the user, and `folder` as the current one."""
    for name in list(os.environ):
        if name.startswith(_OF_THE_USER) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    if folder is not None:
        monkeypatch.chdir(folder)


@pytest.fixture(autouse=True)
def _surroundings(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the user reaches a test, but the folder of the embedded models where they run."""
    room = request.path.relative_to(TESTS).parts[0]
    if room != "engine":
        clean(monkeypatch)
    if room in IN_A_FOLDER:
        request.getfixturevalue("here")
    if room in ("engine", "release"):
        monkeypatch.setenv("PATH", f"{os.environ.get('PATH', '')}{os.pathsep}{PROMPTFOO}")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, the current one; no function of another test is registered as a metric."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(task_metrics, "_REGISTERED", {})
    return tmp_path


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """A separate ledger with one open run."""
    with contextlib.closing(open_ledger(tmp_path / "ledger.db")) as found:
        yield found


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[], Any]) -> Path:
    """A folder in which `make` has run, for all processes of this session: the first one that wants it makes it.

    Args:
        factory: knows where they may write.
        name: of the folder.
        make: writes files into the current folder; what it returns is kept in made.json there.

    Returns:
        The folder. Tests copy it (`copied`), as others read it, too.
    """
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with folder.with_name(f"{name}.lock").open("w") as lock, pytest.MonkeyPatch.context() as monkeypatch:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "made.json").exists():
            shutil.rmtree(folder, ignore_errors=True)  # of an attempt that failed
            folder.mkdir()
            clean(monkeypatch, folder)
            (folder / "made.json").write_text(json.dumps(make()), "utf-8")
    return folder


def copied(folder: Path, here: Path) -> Any:
    """Copies a folder of `made_once` into `here`; returns what its `make` returned."""
    shutil.copytree(folder, here, dirs_exist_ok=True)
    return json.loads((here / "made.json").read_text("utf-8"))


def _two_runs() -> list[dict[str, Any]]:
    command = files(200)
    with WireServer(learner) as server:
        command += ["-m", compatible(server), "--price", "1,2", "-q", "--no-retrieval"]
        return [
            good_json(*command, "--max-calls", "800", "--max-cost", "9"),
            good_json(*command, "--max-calls", "200", "--seed", "1", "--proposer", "none"),
        ]


@pytest.fixture
def toys() -> Iterator[Toys]:
    """Makes models of this process that commands can name."""
    with toy_makers() as made:
        yield made


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a task and two finished runs of it in runs/ledger.db. Its model is gone."""
    return made_once(tmp_path_factory, "made", _two_runs)


@pytest.fixture
def two_runs(made: Path, here: Path) -> Made:
    """A copy of `made` in the current folder; the results of its runs, in their order."""
    first, second = copied(made, here)
    return first, second


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recorded world of the snapshots, unpacked once. Tests copy it."""
    from tests.snapshots.world import unpack

    folder = tmp_path_factory.mktemp("recorded") / "world"
    unpack(folder)
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()
