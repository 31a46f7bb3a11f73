"""The kind `classic`: answers without a language model, trained on the train rows, as a yardstick for prompts.

The best constant answer, a classifier if the answers have few values, and the nearest rows. It makes no call and costs
nothing; a task whose score depends on a judge has none, as each score would be a call.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from agent.errors import InputError, ReleaseError
from agent.evaluate.breakdown import difference, summary
from agent.evaluate.evaluator import Evaluator
from agent.ledger.query import History, Row
from agent.observer import Observer
from agent.programs.constants import Constant, Scorer, answers, best_constant, predicted, reads_labels, separator_of
from agent.release.aliases import Reference, releases_root, resolve
from agent.release.file_release import FileRelease, read_files
from agent.release.result import RunResult, search_result
from agent.results.breakdown import Gain
from agent.results.run_parts import Yardstick
from agent.retrieval import classifiers
from agent.retrieval import classifiers as learnt
from agent.retrieval.classifiers import NEIGHBOURS, fit, text_of, trained
from agent.types import NO_MODEL, Call, Candidate, Example, Message, Outcome, Prediction, Proposal, Summary, Task

CONSTANT = "the constant answer that scores best on train and dev"
FEATURES = "TF-IDF of words (1-2) and characters (2-5)"
VOTE = f"the {NEIGHBOURS} nearest train rows by TF-IDF, weighted by similarity"
ABOUT = {
    ("choice", "classifier"): f"{FEATURES}, logistic regression",
    ("choice", "nearest"): VOTE,
    ("number", "ridge"): f"{FEATURES}, ridge regression",
    ("number", "nearest"): VOTE,
    ("set", "classifier"): f"{FEATURES}, a ridge regression for each label",
    ("list", "classifier"): f"{FEATURES}, a ridge regression for each item",
    ("record", "classifier"): f"{FEATURES}, a ridge regression for each field of few values",
}
COPIED = "the answer of the nearest train row by TF-IDF"


@dataclass(frozen=True, slots=True)
class ClassicCandidate(Candidate):
    """A method by its name. `rows` is the hash of its training rows, "" for all of train."""

    kind: ClassVar[str] = "classic"

    method: str
    rows: str = ""

    def parts(self) -> dict[str, Any]:
        return {"method": self.method, **({"rows": self.rows} if self.rows else {})}


class ClassicProgram:
    """The methods that suit a task, trained on its train rows. `rows` is their hash if they are a subset."""

    kind = ClassicCandidate.kind

    def __init__(self, task: Task, rows: str = "") -> None:
        self._task = task
        self._rows = rows
        self._outputs = [field.name for field in task.signature.outputs]
        self._known = answers(task, task.train)
        self._kind = _kind(task, [answer for _, answer in self._known])
        self._constant: Constant
        self._answers: Mapping[str, Mapping[str, Any]] = {}
        """By method and row text."""

    @staticmethod
    def suits(task: Task) -> bool:
        """Tell whether train has answers, and scoring makes no call and compares with the row."""
        return not task.is_judged and task.user is None and reads_labels(task) and bool(answers(task, task.train))

    def rows(self, candidate: ClassicCandidate) -> int:
        return len(self._task.train) + len(self._task.dev) * self._is_constant(candidate)

    def _is_constant(self, candidate: ClassicCandidate) -> bool:
        return candidate.method == self._constant.name

    def candidates(self) -> list[ClassicCandidate]:
        return [ClassicCandidate(method, self._rows) for method in (self._constant.name, *self._answers)]

    async def fit(self, rows: Sequence[Example], score: Scorer) -> None:
        """Train every method and answer all `rows`, in a thread; `score` chooses the constant."""
        texts = [self._text(row) for row in rows]
        self._constant = await best_constant(self._task, score)

        def answered() -> dict[str, dict[str, Any]]:
            known = [self._text(row) for row, _ in self._known]
            fitted = fit(self._kind, known, [self._plain(answer) for _, answer in self._known], self._separator())
            return {name: dict(zip(texts, method(texts), strict=True)) for name, method in fitted.items()}

        different = {predicted(answer).raw for _, answer in self._known}
        is_learnable = len(different) > 1 and any(self._text(row).strip() for row, _ in self._known)
        self._answers = await asyncio.to_thread(answered) if is_learnable else {}

    def _separator(self) -> str:
        return separator_of(self._task, self._task.signature.outputs[0]) if self._kind == "set" else ""

    def _plain(self, fields: Mapping[str, Any]) -> Any:
        return fields[self._outputs[0]] if len(self._outputs) == 1 else dict(fields)

    def fields(self, plain: Any) -> dict[str, Any]:
        """Return the outputs of an exported answer."""
        return {self._outputs[0]: plain} if len(self._outputs) == 1 else dict(plain)

    async def run(self, candidate: Candidate, example: Example, call: Call, repeat: int = 0) -> Prediction:
        assert isinstance(candidate, ClassicCandidate)
        if self._is_constant(candidate):
            return self._constant.prediction
        return predicted(self.fields(self._answers[candidate.method][self._text(example)]))

    def shown(self, candidate: Candidate) -> Summary:
        assert isinstance(candidate, ClassicCandidate)
        learnt_by = ABOUT.get((self._kind, candidate.method), COPIED)
        about = CONSTANT if self._is_constant(candidate) else learnt_by
        return Summary(candidate.id, self.kind, NO_MODEL, f"{candidate.method}: {about}")

    def template(self, candidate: Candidate) -> tuple[Message, ...]:
        return ()

    def _text(self, row: Example) -> str:
        return text_of([row.inputs[field.name] for field in self._task.signature.inputs])

    def exported(self, method: str) -> dict[str, str]:
        """Return the files of an export by name: code, rows, and the model's description."""
        names = [field.name for field in self._task.signature.inputs]
        model = {"method": method, "field": ", ".join(self._outputs), "type": self._kind, "inputs": names}
        if separator := self._separator():
            model["separator"] = separator
        rows = [
            {"inputs": {name: row.inputs[name] for name in names}, "answer": self._plain(answer)}
            for row, answer in self._known
        ]
        return {
            "classifier.py": Path(learnt.__file__).read_text("utf-8"),
            "model.json": json.dumps(model, indent=2, ensure_ascii=True) + "\n",
            "rows.jsonl": "".join(f"{json.dumps(row, ensure_ascii=True)}\n" for row in rows),
        }


def _kind(task: Task, known: Sequence[Mapping[str, Any]]) -> str:
    if len(task.signature.outputs) > 1:
        return "record"
    (field,) = task.signature.outputs
    if field.type in ("choice", "number"):
        return field.type
    if separator_of(task, field):
        return "set"
    values = [answer[field.name] for answer in known]
    if all(isinstance(value, list) for value in values):
        return "list"
    return "record" if all(isinstance(value, Mapping) for value in values) else "other"


LOADER = "load_classifier"
"""The public name of the function below."""


def load_classifier(path: str | os.PathLike[str], *, root: str | os.PathLike[str] | None = None) -> Callable[..., Any]:
    """Load a classifier from `optimize promote --arm classic` or `export --arm classic`; trains it on its rows.

    Every byte of the folder is checked against the version; no code in it is run. Training takes a second or two, so
    load it once.

    Args:
        path: "NAME@ALIAS", "NAME@VERSION", or a folder.
        root: The folder of the releases; default: PROMPTASSAY_RELEASES, else runs/releases.

    Returns:
        A function of the task's inputs by name, as text. It returns a text, a number or a JSON value; of several
        outputs a dict.

    Raises:
        ReleaseError: One line with the file: it cannot be read, was edited, or is no classifier.

    Example:
        >>> pa.load_classifier("support_triage@production")(message="My card was stolen")  # doctest: +SKIP
    """
    reference = Reference.of(path) if isinstance(path, str) else None
    release, folder = (read_files(path), Path(path)) if reference is None else _aliased(reference, releases_root(root))
    if release.loader != LOADER:
        raise ReleaseError(f"{folder}: is {release.what}; {release.loader} loads it")
    if release.files.get("classifier.py") != Path(classifiers.__file__).read_bytes():
        logging.getLogger("agent.release").warning(
            "%s was scored with another version of Promptassay, so answers may differ; promote a run of this version",
            folder,
        )
    try:
        return classifiers.trained(*(release.files[name].decode("utf-8") for name in ("model.json", "rows.jsonl")))
    except (LookupError, TypeError, ValueError) as error:
        raise ReleaseError(
            f"{folder}: cannot be trained ({type(error).__name__}: {error}); promote the run again"
        ) from error


def _aliased(reference: Reference, root: Path) -> tuple[FileRelease, Path]:
    version = resolve(root, reference).version
    folder = root / reference.name / version
    if version.startswith("p_"):
        raise ReleaseError(f"{reference}: {version} is a prompt; load_prompt loads it")
    release = read_files(folder)
    if (release.name, release.version) != (reference.name, version):
        raise ReleaseError(
            f"{folder}: holds {release.name} {release.version}, not {reference.name} {version}; restore the folder "
            "from a copy, or promote the run again"
        )
    return release, folder


async def measured(
    program: ClassicProgram,
    evaluator: Evaluator,
    observer: Observer,
    dev: Sequence[Example],
    won: tuple[Sequence[Example], Sequence[Outcome]],
    seed: int,
) -> list[Yardstick]:
    """Score each method of the task, the constant answer first; `diff` is the winner's gain.

    `won`: the rows of the sealed test, and the winner's outcomes on them.
    """
    await program.fit([*dev, *won[0]], evaluator.value)
    results = []
    for candidate in program.candidates():
        proposal = Proposal(candidate, {}, "yardstick", None, "answers without a language model")
        observer.on_candidate_accepted(0, proposal)
        on_dev = [outcome.value for outcome in await evaluator.outcomes(candidate, dev, "dev")]
        tested = [outcome.value for outcome in await evaluator.outcomes(candidate, won[0], "test")]
        scored = summary(tested)
        results.append(
            Yardstick(
                name=candidate.method,
                candidate_id=candidate.id,
                trained_on=program.rows(candidate),
                dev=summary(on_dev).mean,
                test=scored.mean,
                ci95=scored.ci95,
                **dict(difference([outcome.value for outcome in won[1]], tested, seed)),
            )
        )
    return results


@dataclass(frozen=True, slots=True)
class YardstickArm:
    """The best yardstick of a run, and its `release` for an alias.

    `ahead`: the lead of the run's prompts on the sealed test (`gate.no_prompt_ahead`).
    """

    best: Yardstick
    release: FileRelease
    ahead: Mapping[str, Gain]


def exported(found: Row, task: Task, history: History) -> tuple[Yardstick, FileRelease]:
    """Return the best yardstick by dev score, except the constant, as release files.

    Its version depends only on rows and method. Raises InputError if the run has no yardsticks, and ReleaseError if the
    files answer a dev row differently.
    """
    _, best = _best(found)
    program = ClassicProgram(task)
    texts = program.exported(best.name)
    scored = {row["example_id"]: row["fields"] for row in history.outcomes(found["id"], best.candidate_id, "dev")}
    answer = trained(texts["model.json"], texts["rows.jsonl"])
    for row in task.dev:
        said = answer(**row.inputs)
        if row.id in scored and (scored[row.id] or {}) != program.fields(said):
            raise ReleaseError(f"{found['id']}: on dev row {row.id} the export says {said!r:.60}, not what was scored")
    ci95 = list(best.ci95) if best.ci95 else None
    origin = {"run_id": found["id"], "candidate_id": best.candidate_id, "test": best.test, "ci95": ci95}
    what, files = f"a method without a language model ({best.name})", {n: text.encode() for n, text in texts.items()}
    return best, FileRelease(name=task.name, what=what, loader=LOADER, files=files, provenance=origin)


def released(found: Row, task: Task, history: History) -> YardstickArm:
    """Return `exported` with the gate for its alias."""
    result, _ = _best(found)
    best, release = exported(found, task, history)
    own_id = history.trials(result.run_id, [0])[0]["candidate_id"]
    values = [
        {row["example_id"]: row["value"] for row in history.outcomes(result.run_id, candidate_id, "test")}
        for candidate_id in (own_id, best.candidate_id)
    ]
    rows = sorted(values[0].keys() & values[1].keys())
    own, arm = ([each[row] for row in rows] for each in values)
    ahead = {"your own prompt": difference(own, arm, result.seed)}
    if result.winner.candidate_id != own_id:
        ahead["the best prompt"] = Gain(diff=best.diff, diff_ci95=best.diff_ci95, p_value=best.p_value)
    return YardstickArm(best, release, ahead)


def _best(found: Row) -> tuple[RunResult, Yardstick]:
    result = search_result(found["result"])
    if result is None or len(result.yardsticks) < 2:
        raise InputError(f"{found['id']}: this run scored no method without a language model that reads the rows")
    return result, max(result.yardsticks[1:], key=lambda each: each.dev or 0.0)
