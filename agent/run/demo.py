"""`optimize demo`: the real search, statistics and ledger on a small task, over recorded replies of a model."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from agent.errors import InputError
from agent.observer import NO_OBSERVER, Observer
from agent.options.jobs import RecordedOptions
from agent.run.launch import Launch, prepare
from agent.run.locations import open_history
from agent.run.tasks import SAMPLES, copy_task

MODEL = "recorded/qwen2.5-coder-0.5b"
FOLDER = Path("tasks/demo")
ROWS = SAMPLES / "home_assistant"
OWN = Path(__file__).parents[1] / "demo" / "task"
"""The files of the task that are not the sample's."""
DEMO = RecordedOptions(task=FOLDER.name, max_concurrency=16)


def prepare_demo(db: Path, observer: Observer = NO_OBSERVER) -> Launch:
    """Write the task to tasks/demo, and prepare a run of it.

    Raises InputError where the ledger holds runs of other models, or tasks/demo is another task.
    """
    from agent.ledger.connect import is_there

    if is_there(db):
        with closing(open_history(db)) as history:
            others = [run["id"] for run in history.runs() if run["model"] != MODEL]
        if others:
            raise InputError(
                f"{db}: holds other runs; keep the demo apart: optimize demo --db demo/ledger.db, or an empty folder"
            )
    if not FOLDER.exists():
        copy_task(FOLDER, ROWS, OWN)
    elif changed := _changed():
        raise InputError(f"{changed}: not as the demo was recorded; remove {FOLDER}, or run the demo in another folder")
    return prepare(DEMO, db, observer)


def _changed() -> Path | None:
    """The first file of the task that is missing here or differs from the package's."""
    originals = {path.name: path for source in (ROWS, OWN) for path in source.iterdir()}
    for name, original in sorted(originals.items()):
        copy = FOLDER / name
        if not copy.is_file() or copy.read_bytes() != original.read_bytes():
            return copy
    return None
