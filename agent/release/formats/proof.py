"""The proof of an export: staged, loaded by the target's library, rendered, compared byte for byte.

Knows no format by name. Nothing is written before every format of the command has passed.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.errors import InputError, ReleaseError, one_line
from agent.ledger.query import History, Row
from agent.ledger.trail import request_of
from agent.prompt.reply_parser import parse_reply
from agent.release.completion import DEFAULT_PARAMETERS
from agent.release.export import probe_rows, require_same, tried_rows, wanted
from agent.release.formats.export_format import (
    Content,
    Format,
    Material,
    Parse,
    Render,
    Sent,
    Settings,
    Values,
    schema_text,
    settings_of,
)
from agent.release.prompt_file import PromptRelease
from agent.results.base import Result
from agent.safe_file import disk_errors, new_file, new_files
from agent.scoring.task_metrics import build_metrics, combine, require_all
from agent.stats.figures import points
from agent.task.examples import PLAYED
from agent.types import Example, MetricSpec, Prediction, Score, Task, canonical, key_of

SCORED_BY = ("dev", "task.toml", "metric.py", "metric", "rubric.md")
"""The hashes of a task that a dev score depends on."""


@dataclass(frozen=True, slots=True)
class RecordedRow:
    """A dev row of a run: its call key, request, prediction and score."""

    row: Example
    key: str
    request: Mapping[str, Any]
    prediction: Prediction
    scores: tuple[Score, ...]
    value: float | None


@dataclass(frozen=True, slots=True)
class DevRun:
    """One prompt's dev results in a run: every answered row, and the trial's mean score in [0, 1]."""

    task: Task
    model: str
    rows: tuple[RecordedRow, ...]
    score: float


class RescoredDev(Result):
    """The dev rows of the run scored again through an export; `unfit` more cannot be expressed in its target."""

    rows: int
    score: float | None
    unfit: int


@dataclass(frozen=True, slots=True)
class VerifiedExport:
    """One format's files. `rows` were compared; `unfit` counts those that the target cannot hold, by reason."""

    format: Format
    texts: Mapping[str, Content]
    rows: int = 0
    unfit: Mapping[str, int] = field(default_factory=dict)
    library: str = ""
    """Name and version of what loaded it, "" when nothing had to be installed."""
    missing: bool = False
    """The library is not installed, so nothing was compared."""
    settings: Settings = field(default_factory=dict)
    """Model and parameters that the files hold, equal to those of the release."""
    unset: Settings = field(default_factory=dict)
    """Model and parameters of the release that the files do not hold."""
    dev: RescoredDev | None = None
    """The dev rows of the run through this export, where the ledger has them."""
    embeddings: str = ""
    """The provider's model without whose vectors no dev row can be rendered, so that none was scored again."""

    def notes(self) -> Iterator[str]:
        """Yield what the user must know, a line each."""
        if self.missing:
            yield f"{self.format.name}: not verified with {self.format.library}: {self.format.install}"
            return
        if self.format.proof:
            yield f"{self.format.name}: {self.format.proof}"
            return
        with_ = f" by {self.library}" if self.library else ""
        yield f"{self.format.name}: {self.rows} hostile rows rendered{with_}, byte-equal to what was scored"
        if self.dev and self.dev.score is not None:
            more = f"; it cannot hold {self.dev.unfit} more" if self.dev.unfit else ""
            same = f"the same {self._same()}, score {points(self.dev.score)} as in the run{more}"
            yield f"{self.format.name}: {self.dev.rows} dev rows rendered{with_}, {same}"
        if self.embeddings:
            yield f"{self.format.name}: no dev rows rendered, as their vectors come from {self.embeddings}"
        if self.format.settings_note:
            yield f"{self.format.name}: {self.format.settings_note}"
        elif self.unset:
            lacks = ", ".join(f"{key} = {value}" for key, value in self.unset.items())
            yield f"{self.format.name}: does not set {lacks}; set it where you use the file"
        for reason, count in self.unfit.items():
            share = f"{count} of {self.rows + sum(self.unfit.values())} hostile rows"
            yield f"{self.format.name}: cannot hold {reason} ({share}); remove it from values first"

    def _same(self) -> str:
        if self.format.settings_note:
            return "messages"
        *first, last = ["messages", *self.settings]
        return "requests" if not self.unset else f"{', '.join(first)} and {last}" if first else last


def verify_exports(
    formats: Sequence[Format], materials: Mapping[str, Material], *, dev: DevRun | None = None, strict: bool = False
) -> list[VerifiedExport]:
    """Prove the files of each format before any is written; `materials`: by the format's name.

    `dev`: rows that each export scores again without a call. `strict`: also refuse unproved formats and targets that
    cannot hold every value. Raises ReleaseError if an export drifts, does not load or is unproved.
    """
    exports = []
    for one in formats:
        with tempfile.TemporaryDirectory(prefix="export-") as folder:
            export = _verify(one, materials[one.name], Path(folder), dev)
        if strict and (export.missing or export.unfit):
            raise ReleaseError(f"{list(export.notes())[-1]} (--strict)")
        exports.append(export)
    return exports


def write_exports(exports: Sequence[VerifiedExport], folder: Path) -> list[Path]:
    """Write the files of all exports into `folder`, all or none. Raises ReleaseError."""
    texts = {name: text for export in exports for name, text in export.texts.items()}
    with disk_errors(f"{folder}: cannot write the export"), new_files(folder) as staged:
        _write(texts, staged)
    return [folder / name for name in texts]


def write_file(text: Content, path: Path) -> None:
    """Write one file to `path`, whole or not at all. Raises ReleaseError."""
    data = _encoded(path.name, text)
    with disk_errors(f"{path}: cannot write the export"), new_file(path) as file:
        file.write(data)


def _verify(form: Format, material: Material, folder: Path, dev: DevRun | None) -> VerifiedExport:
    release = material.release
    form = form.fitting(release)
    for why in form.lacking(release):
        raise ReleaseError(f"{form.name}: {why}")
    texts = form.files(material)
    _write(texts, folder)
    library = ""
    if form.library:
        library = form.find_library(form.library)
        if not library:
            return VerifiedExport(form, texts, missing=True)
    unfit: Counter[str] = Counter()
    rows = 0
    rescored = None
    values: Values = {}
    try:
        opened = form.load(folder, release)
        render, settings = opened.render, opened.settings
        _require_same_settings(form.name, release, settings)
        if render:
            for values in tried_rows(release, probe_rows(release.inputs)):
                if reason := form.unfit(release, values):
                    unfit[reason] += 1
                    continue
                require_same(form.name, wanted(release, values), render(values), values)
                rows += 1
            if dev and not release.embeddings:
                parse = opened.parse or (
                    lambda _, reply: parse_reply(reply, release.outputs, reasoning=release.reasoning)
                )
                rescored = rescore(form.name, release, dev, render, parse, form.unfit)
    except ReleaseError:
        raise
    except Exception as error:
        by = f" ({library})" if library else ""
        raise ReleaseError(
            f"{form.name}{by}: does not load or render with {dict(values)!a:.60}: {one_line(error, 200)}"
        ) from error
    unset = {key: value for key, value in settings_of(release).items() if key not in settings and value not in ("", [])}
    return VerifiedExport(
        form,
        texts,
        rows,
        dict(unfit),
        library,
        settings=settings,
        unset=unset,
        dev=rescored,
        embeddings=release.embeddings,
    )


def _require_same_settings(name: str, release: PromptRelease, settings: Settings) -> None:
    want = {**DEFAULT_PARAMETERS, **settings_of(release)}
    for key, value in settings.items():
        if _as_list(value) != _as_list(want.get(key)):
            raise ReleaseError(f"{name}: the files say {key} = {value!a:.60}, the release says {want.get(key)!a:.60}")


def _as_list(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else [value] if isinstance(value, str) else value


def _write(texts: Mapping[str, Content], folder: Path) -> None:
    for name, text in texts.items():
        data, place = _encoded(name, text), folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)


def _encoded(name: str, text: Content) -> bytes:
    if isinstance(text, bytes):
        return text
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ReleaseError(
            f"{name} cannot hold the lone surrogate {text[error.start]!a} "
            f"(after {text[max(0, error.start - 30) : error.start]!a}); remove it from the prompt"
        ) from None


# -- an export scored again on the dev rows, from what the ledger holds of the run: no model is asked ------------------
#
# The messages that the export renders must make the call that the run made (the key of a call is a hash of all that is
# sent), and the reply to that call, read and scored again, must give the score that the row has. A judge is not asked
# again: where the reply reads as it did, its verdict stands.


def dev_run(history: History, run: Row, task: Task, candidate_id: str) -> DevRun:
    """Read the dev results of a candidate from the ledger. Raises InputError if they cannot be scored again."""
    for name in SCORED_BY:
        if run["hashes"].get(name) != task.hashes.get(name):
            what = "the dev rows" if name == "dev" else name
            raise InputError(f"{what} of the task changed since the run")
    if task.user is not None:
        raise InputError(PLAYED)
    require_all(task)
    trial = next((each for each in history.trials(run["id"]) if each["candidate_id"] == candidate_id), None)
    if trial is None or trial["mean"] is None:
        raise InputError(f"the ledger has no score of {candidate_id or 'this prompt'} on dev")
    if trial["n"] < run["plan"]["dev_rows"] and trial["number"]:  # the user's own prompt may do with a part of dev
        raise InputError(f"its trial ended after {trial['n']} of {run['plan']['dev_rows']} dev rows")
    rows = {row.id: row for row in task.dev}
    outcomes = history.outcomes(run["id"], candidate_id, "dev")
    found = [_recorded_row(history, rows[each["example_id"]], each) for each in outcomes if each["example_id"] in rows]
    kept = tuple(each for each in found if each is not None)
    if not kept or len(found) < len(outcomes):
        raise InputError("replies or rows of it were erased from the ledger" if kept else "the ledger has no replies")
    return DevRun(task, run["model"], kept, trial["mean"])


def _recorded_row(history: History, row: Example, outcome: Row) -> RecordedRow | None:
    if not outcome["call_key"] or (outcome["value"] is None and not outcome["fields"]):
        return None
    request = request_of(history, outcome["call_key"])
    if request is None or outcome["error"] == "(erased)":
        raise InputError("replies of it were erased from the ledger")
    prediction = Prediction(outcome["fields"], outcome["reply"], outcome["error"])
    scores = tuple(Score(*each) for each in outcome["scores"])
    return RecordedRow(row, outcome["call_key"], request, prediction, scores, outcome["value"])


def rescore(
    name: str,
    release: PromptRelease,
    dev: DevRun,
    render: Render,
    parse: Parse,
    unfit: Callable[[PromptRelease, Values], str],
) -> RescoredDev:
    """Render, read and score every row through an export. Raises ReleaseError on any difference."""
    fit = [each for each in dev.rows if not unfit(release, each.row.inputs)]
    for each in fit:
        _require_same_call(name, release, dev.model, each, render(each.row.inputs))
    predictions = [parse(each.row.inputs, each.prediction.raw) for each in fit]
    now = asyncio.run(_scores(dev.task, fit, predictions))
    for each, prediction, (value, why) in zip(fit, predictions, now, strict=True):
        if (got := _reading(prediction)) != (was := _reading(each.prediction)):
            raise ReleaseError(
                f"{name}: the reply to dev row {each.row.id} reads as {got!a:.80}, in the run {was!a:.80}"
            )
        if value is None and each.value is not None:
            raise ReleaseError(f"{name}: dev row {each.row.id} cannot be scored again: {why}")
        if value != each.value:
            raise ReleaseError(f"{name}: dev row {each.row.id} scores {value}, in the run {each.value}")
    values = [value for value, _ in now if value is not None]
    score = sum(values) / len(values) if values else None
    if score is not None and len(fit) == len(dev.rows) and abs(score - dev.score) > 1e-9:
        raise ReleaseError(f"{name}: the dev rows score {points(score)}, the trial has {points(dev.score)}")
    return RescoredDev(rows=len(fit), score=score, unfit=len(dev.rows) - len(fit))


def _reading(prediction: Prediction) -> str:
    return "unreadable" if prediction.error else canonical(dict(prediction.fields))


def _require_same_call(name: str, release: PromptRelease, model: str, was: RecordedRow, sent: Sent) -> None:
    parameters = {key: release.parameters[key] for key in ("max_tokens", "temperature") if key in release.parameters}
    parameters |= {"json_schema": text} if (text := schema_text(release)) else {}
    if key_of(model, {**was.request, **parameters, "messages": sent}) == was.key:
        return
    require_same(f"{name}, dev row {was.row.id}", was.request["messages"], sent, was.row.inputs)
    was_sent = {key: was.request[key] for key in parameters}
    raise ReleaseError(
        f"{name}: dev row {was.row.id} is sent with {parameters} to {model}, not with {was_sent} as in the run"
    )


async def _scores(
    task: Task, rows: Sequence[RecordedRow], predictions: Sequence[Prediction]
) -> list[tuple[float | None, str]]:
    metrics = build_metrics(task, {"judge": _RecordedJudge})
    found = []
    for each, prediction in zip(rows, predictions, strict=True):
        scores = tuple(
            [
                was if isinstance(metric, _RecordedJudge) else await metric.score(each.row, prediction)
                for metric, was in zip(metrics, each.scores, strict=True)
            ]
        )
        why = next((" ".join(score.reason.split()) for score in scores if score.value is None), "")
        found.append((combine(scores, task.metrics), why))
    return found


@dataclass(frozen=True, slots=True)
class _RecordedJudge:
    """A judge that repeats its recorded scores."""

    spec: MetricSpec

    @property
    def name(self) -> str:
        return self.spec.name

    async def score(self, example: Example, prediction: Prediction) -> Score:
        return Score(self.name, None, "a judge is not asked again")
