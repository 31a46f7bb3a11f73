"""`optimize export`: a released prompt in the formats of production, each verified before it is written."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from agent.errors import AgentError, InputError
from agent.jobs.customize.release_arm import tuned_file
from agent.jobs.locations import open_history
from agent.jobs.registry import Printed, about, job
from agent.jobs.tasks import changed_parts, task_of
from agent.ledger.query import History, Row, released_file, started_with
from agent.options.kinds import File, Texts
from agent.options.option import JobOptions, option
from agent.options.shared import JsonOption, LedgerOption
from agent.programs import ARMS, TUNED_ARMS, ArmName
from agent.programs.classic import exported
from agent.release.file_release import MANIFEST
from agent.release.formats.export_format import FORMATS, Material
from agent.release.formats.proof import (
    DevRun,
    RescoredDev,
    VerifiedExport,
    dev_run,
    verify_exports,
    write_exports,
    write_file,
)
from agent.release.prompt_file import MESSAGES_FILE, PROMPT_FILE, holds_prompt
from agent.release.runtime import PromptRelease, load_prompt
from agent.report.wording import without_result
from agent.results.base import Result, absent
from agent.results.run_parts import Yardstick
from agent.safe_file import disk_errors
from agent.stats.figures import points
from agent.types import Task

NO_DEV = "a comparison asks its arms the sealed rows alone"


class ProvedFormat(Result):
    """How an export was verified.

    `library` loaded it ("": none was needed), `unfit` rows cannot be expressed, by reason, and the files lack the
    settings and parameters of `not_set`.
    """

    format: str
    library: str
    verified: bool
    hostile_rows: int
    unfit: Mapping[str, int]
    not_set: Mapping[str, Any]
    dev: RescoredDev | None


class ExportResult(Result):
    """The exported `files`, and how each format was verified, or the exported `yardstick` without a language model.

    `not_scored_again` says why the dev rows were not scored again.
    """

    run_id: str
    version: str
    yardstick: Yardstick | None = absent()
    files: tuple[str, ...]
    formats: tuple[ProvedFormat, ...] | None = absent()
    not_scored_again: str | None = absent()


def formats() -> Iterator[tuple[str, str]]:
    """Return each format's help line, and its form for prompts without a template."""
    for one in FORMATS.all():
        said, code = about(one), one.thing.as_code if one.thing else None
        yield one.name, f"{said}; {code.about} where the prompt looks something up" if code else said


class ExportOptions(JobOptions):
    """What is exported, in which forms and where to."""

    format: Texts = option(("md",), "The format; repeat it for several. Default: md.")
    arm: ArmName | None = option(None)
    """classic: instead of the prompt the best method without a language model, in Python with scikit-learn; needs -o
    DIR. lora, lora+prompt, full: that arm of a run of `optimize customize`."""
    output: File = option(None, "File or folder to write to. Default: print it.", short="-o")
    write: bool = option(False, "Apply the change that --format skills shows to your own files.")
    strict: bool = option(False, "Refuse formats that cannot be verified here or cannot carry every value.")


@job("export", registries={"format": FORMATS}, listed=("Formats", formats))
def export(
    run: str = "", *, options: ExportOptions, ledger: LedgerOption, form: JsonOption
) -> Printed[ExportResult | None]:
    """Export the released prompt of RUN (default: the latest), verified to be what was scored.

    Each format is loaded with the target's library, rendered with 200 and more hostile rows and compared byte for byte,
    and its model and parameters are read back. Then the dev rows of the run are rendered and their recorded replies
    scored again: same calls, same score. No model is asked. If anything differs, nothing is written. Without the
    library a format is written as unverified. --format can be repeated; several formats, or formats of several files,
    need -o DIR.

    --format skills shows the new descriptions as a diff of your SKILL.md files, or of your JSON file of tools;
    with --write it changes them.

    The export of your program is its released file: program.json for `dspy.Module.load`, chain.json for `load_chain`,
    texts.json for `load_texts`; --format is not used.
    """
    arm, output, db = options.arm, options.output, ledger.db
    with closing(open_history(db)) as history:
        if arm in TUNED_ARMS:
            row, released = tuned_file(history, run, arm, db)
            _require_output(form, output)
            return _prompt(history, row, released, options, NO_DEV)
        row = history.run(run)
        found = released_file(row, db)
        if found is None:
            raise InputError(f"{row['id']}: {without_result(row)}, so it names no release")
        if arm in ARMS:
            return _yardstick(history, row, output)
        if not holds_prompt(found):
            if form.as_json:
                raise InputError("--json tells how prompts were proved; the state of your program is not")
            return _state(found, output)
        if not options.write:
            _require_output(form, output)
        return _prompt(history, row, found, options)


def _require_output(form: JsonOption, output: Path | None) -> None:
    if form.as_json and output is None:
        raise InputError("--json needs -o: without it the export itself is what is printed")


def _prompt(
    history: History, row: Row, released: Path, options: ExportOptions, no_dev: str = ""
) -> Printed[ExportResult]:
    chosen, output, write = [FORMATS.get(name) for name in dict.fromkeys(options.format)], options.output, options.write
    if write and (output is not None or any(one.write is None for one in chosen)):
        raise InputError("--write changes files in place; use --format skills alone, and no -o")
    task = task_of_run(row) if any(one.needs_task for one in chosen) else None
    materials: dict[str, Material] = {}
    for one in chosen:  # md from prompt.md, the others from messages.json: so that the bytes are the same
        source = released.with_name(PROMPT_FILE if one.name == "md" else MESSAGES_FILE)
        materials[one.name] = Material(load_prompt(source).release, task)
    release = materials[chosen[0].name].release
    dev, why = (None, no_dev) if no_dev else _dev_run(history, row, release)
    exports = verify_exports(chosen, materials, dev=dev, strict=options.strict)
    alone = len(exports) == 1 and len(exports[0].texts) == 1
    if not alone and (output is None or os.path.isfile(output)):
        many = "several formats" if len(exports) > 1 else f"{exports[0].format.name} has several files"
        raise InputError(f"{many}: name a folder with -o DIR")
    text = next(text for text in exports[0].texts.values() if isinstance(text, str))
    paths: list[Path] = []
    if write:
        paths = [path for one in chosen if one.write for path in one.write(materials[one.name])]
    elif output is not None and alone and not os.path.isdir(output):
        write_file(text, output)
        paths = [output]
    elif output is not None:
        paths = write_exports(exports, output)
    lines = [f"wrote {path}" for path in paths]
    if paths or exports[0].missing or exports[0].unfit:
        lines += [line for one in exports for line in one.notes()]
    lines += [f"dev: not scored again: {why}"] if why else []
    result = ExportResult(
        run_id=row["id"],
        version=release.version,
        files=tuple(map(str, paths)),
        formats=tuple(map(_proved, exports)),
        not_scored_again=why,
    )
    return Printed(result, exact=text if output is None and not write else "", notes=lines)


def _proved(one: VerifiedExport) -> ProvedFormat:
    return ProvedFormat(
        format=one.format.name,
        library=one.library,
        verified=not one.missing,
        hostile_rows=one.rows,
        unfit=one.unfit,
        not_set=one.unset,
        dev=one.dev,
    )


def _dev_run(history: History, row: Row, release: PromptRelease) -> tuple[DevRun | None, str]:
    if release.reads_tokens:
        return None, "its calibration reads each dev row by log-probabilities, which an export does not have"
    try:
        task = task_of(started_with(row))
        return dev_run(history, row, task, str(release.provenance.get("candidate_id", ""))), ""
    except AgentError as error:
        return None, str(error)


def task_of_run(row: Row) -> Task:
    """Return the task of the run. Raises InputError if it changed since, as its rows would differ."""
    task = task_of(started_with(row))
    if changed := changed_parts(row, task, row["hashes"]):
        raise InputError(
            f"{row['id']}: the task changed since the run ({', '.join(sorted(changed))}); put it back to export rows"
        )
    return task


def _yardstick(history: History, row: Row, output: Path | None) -> Printed[ExportResult]:
    if output is None or os.path.isfile(output):
        raise InputError("--arm has several files: name a folder with -o DIR")
    best, release = exported(row, task_of_run(row), history)
    release.write(output)
    paths = [output / name for name in (*release.files, MANIFEST)]
    lines = [f"wrote {path}" for path in paths]
    lines.append(f"{best.name}, {points(best.test)} on the sealed test; the same answers on dev")
    lines.append(f"{release.loader}({os.fspath(output)!r}) loads version {release.version}")
    files = tuple(map(str, paths))
    result = ExportResult(run_id=row["id"], version=release.version, yardstick=best, files=files)
    return Printed(result, exact="", notes=lines)


def _state(released: Path, output: Path | None) -> Printed[None]:
    with disk_errors(f"{released}: cannot be read", "run it again, its calls are known", InputError):
        state = released.read_bytes().decode("utf-8")
    if output is None:
        return Printed(None, exact=state)
    if os.path.isdir(output):
        output = output / released.name
    write_file(state, output)
    return Printed(None, exact="", notes=[f"wrote {output}"])
