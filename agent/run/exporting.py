"""From a run to its released prompt in the forms that production wants, each proved before it is written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.errors import AgentError, InputError
from agent.ledger.query import History, Row, released_file, started_with
from agent.programs import ARMS, TUNED_ARMS
from agent.programs.classic import exported
from agent.release.file_release import MANIFEST
from agent.release.formats.export_format import FORMATS, Material
from agent.release.formats.proof import VerifiedExport, verify_exports, write_exports, write_file
from agent.release.prompt_file import MESSAGES_FILE, PROMPT_FILE, holds_prompt
from agent.release.rescore import DevRun, dev_run
from agent.release.runtime import PromptRelease, load_prompt
from agent.report.facts import points, without_result
from agent.run.customize.release_arm import tuned_file
from agent.run.locations import open_history
from agent.run.tasks import source_of, task_of
from agent.types import Task

NEEDS_OUTPUT = "--json needs -o: without it the export itself is what is printed"
NO_DEV = "a comparison asks its arms the sealed rows alone"


@dataclass(frozen=True, slots=True)
class Export:
    """What was exported: `text`, where it was written to no file; `lines`, what is to be said of it; `details`, the
    object of `optimize export --json`."""

    lines: tuple[str, ...]
    text: str | None = None
    details: dict[str, Any] | None = None


def export(
    run: str,
    formats: Sequence[str],
    db: Path,
    *,
    output: Path | None = None,
    arm: str = "",
    strict: bool = False,
    details: bool = False,
) -> Export:
    """Exports what a run released.

    Args:
        run: its id, or the unique start of it. "": the latest.
        formats: names of formats; of a program of the user's own they are not asked.
        db: the ledger; it is not written.
        output: the file or folder to write. None: the text comes back.
        arm: instead of the winner the best that needs no language model ("classic"), or an arm that a comparison tuned.
        strict: refuses a format that cannot be proved here or cannot carry every value.
        details: refuses what has no `details`, before anything is written.

    Raises:
        InputError: the run has no release, or `output` does not fit what is to be written.
        ReleaseError: what would be written is not what was scored; nothing was written.
    """
    with closing(open_history(db)) as history:
        if arm in TUNED_ARMS:
            row, written = tuned_file(history, run, arm, db)
            if details and output is None:
                raise InputError(NEEDS_OUTPUT)
            return _prompt(history, row, written, formats, output, strict, NO_DEV)
        row = history.run(run)
        released = released_file(row, db)
        if released is None:
            raise InputError(f"{row['id']}: {without_result(row)}, so it names no release")
        if arm in ARMS:
            return _yardstick(history, row, output)
        if not holds_prompt(released):
            if details:
                raise InputError("--json tells how prompts were proved; the state of a program of your own is not")
            return _state(released, output)
        if details and output is None:
            raise InputError(NEEDS_OUTPUT)
        return _prompt(history, row, released, formats, output, strict)


def _prompt(
    history: History,
    row: Row,
    released: Path,
    formats: Sequence[str],
    output: Path | None,
    strict: bool,
    no_dev: str = "",
) -> Export:
    """Exports a prompt; `no_dev` says why there are no replies to dev rows to score again."""
    chosen = [FORMATS.get(name) for name in dict.fromkeys(formats)]
    task = task_of_run(row) if any(one.needs_task for one in chosen) else None
    materials: dict[str, Material] = {}
    for one in chosen:  # md from prompt.md, the others from messages.json: so that the bytes are the same
        source = released.with_name(PROMPT_FILE if one.name == "md" else MESSAGES_FILE)
        materials[one.name] = Material(load_prompt(source).release, task)
    release = materials[chosen[0].name].release
    dev, why = (None, no_dev) if no_dev else _dev_run(history, row, release)
    exports = verify_exports(chosen, materials, dev=dev, strict=strict)
    alone = len(exports) == 1 and len(exports[0].texts) == 1
    if not alone and (output is None or os.path.isfile(output)):
        many = "several formats" if len(exports) > 1 else f"{exports[0].format.name} has several files"
        raise InputError(f"{many}: name a folder with -o DIR")
    text = next(text for text in exports[0].texts.values() if isinstance(text, str))
    paths: list[Path] = []
    if output is not None and alone and not os.path.isdir(output):
        write_file(text, output)
        paths = [output]
    elif output is not None:
        paths = write_exports(exports, output)
    lines = [f"wrote {path}" for path in paths]
    lines += (
        [line for one in exports for line in one.notes()] if paths or exports[0].missing or exports[0].unfit else []
    )
    lines += [f"dev: not scored again: {why}"] if why else []
    return Export(
        tuple(lines), text if output is None else None, _details(row["id"], release.version, paths, exports, why)
    )


def _details(
    run_id: str, version: str, paths: Sequence[Path], exports: Sequence[VerifiedExport], why: str
) -> dict[str, Any]:
    formats = [
        {
            "format": one.format.name,
            "library": one.library,
            "verified": not one.missing,
            "hostile_rows": one.rows,
            "unfit": dict(one.unfit),
            "not_set": one.unset,
            "dev": one.dev and {"rows": one.dev.rows, "score": one.dev.score, "unfit": one.dev.unfit},
        }
        for one in exports
    ]
    files = [str(path) for path in paths]
    return {"run_id": run_id, "version": version, "files": files, "formats": formats, "not_scored_again": why}


def _dev_run(history: History, row: Row, release: PromptRelease) -> tuple[DevRun | None, str]:
    """What the run has of the prompt on dev, or why that cannot be had."""
    if release.calibration:
        return None, "its calibration reads each dev row by log-probabilities, which an export does not have"
    try:
        task = task_of(started_with(row))
        return dev_run(history, row, task, str(release.provenance.get("candidate_id", ""))), ""
    except AgentError as error:
        return None, str(error)


def task_of_run(row: Row) -> Task:
    """The task as the run had it. Refuses one that changed since: its rows would not be those of the run."""
    options = started_with(row)
    task = task_of(options)
    changed = {source_of(name, options) for name, digest in row["hashes"].items() if task.hashes.get(name) != digest}
    if changed:
        raise InputError(
            f"{row['id']}: the task changed since the run ({', '.join(sorted(changed))}); put it back to export rows"
        )
    return task


def _yardstick(history: History, row: Row, output: Path | None) -> Export:
    """The best of the run's yardsticks on dev, learnt anew and held against the answers that were scored."""
    if output is None or os.path.isfile(output):
        raise InputError("--arm has several files: name a folder with -o DIR")
    best, release = exported(row, task_of_run(row), history)
    release.write(output)
    paths = [output / name for name in (*release.files, MANIFEST)]
    lines = [f"wrote {path}" for path in paths]
    lines.append(f"{best.name}, {points(best.test)} on the sealed test; the same answers on dev")
    lines.append(f"{release.loader}({os.fspath(output)!r}) loads version {release.version}")
    files = [str(path) for path in paths]
    details = {"run_id": row["id"], "version": release.version, "yardstick": best.to_json(), "files": files}
    return Export(tuple(lines), details=details)


def _state(released: Path, output: Path | None) -> Export:
    """The file of a program of the user's own, as it was released."""
    try:
        state = released.read_bytes().decode("utf-8")
    except OSError as error:
        raise InputError(f"{released}: cannot be read ({error.strerror}); run it again, its calls are known") from error
    if output is None:
        return Export((), state)
    if os.path.isdir(output):
        output = output / released.name
    write_file(state, output)
    return Export((f"wrote {output}",))
