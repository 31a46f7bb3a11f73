"""The kind `classic`: answers without a language model, trained on the train rows, as a yardstick for prompts.

It makes no call; a task whose score depends on a judge has none, as each score would be a call.
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
from agent.programs.constants import (
    Fields,
    Scorer,
    answers,
    best_constant,
    predicted,
    reads_labels,
    separator_of,
    shape,
)
from agent.release.aliases import Reference, releases_root, resolve
from agent.release.file_release import FileRelease, read_files
from agent.release.result import RunResult, search_result
from agent.release.versions import how_to_load, noun_of
from agent.results.breakdown import Gain
from agent.results.run_parts import Yardstick
from agent.retrieval import classifiers
from agent.retrieval.classifiers import NEIGHBOURS, fit, text_of, trained
from agent.search.program import Describes
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


class ClassicProgram(Describes):
    """The methods that suit a task. `rows`: the hash of the train rows if they are a subset."""

    kind = ClassicCandidate.kind

    def __init__(self, task: Task, rows: str = "") -> None:
        self._task, self._rows = task, rows
        self._outputs = [field.name for field in task.signature.outputs]
        self._known = answers(task, task.train)
        (field, *others), values = task.signature.outputs, [self._plain(answer) for _, answer in self._known]
        self._kind = "record" if others else shape(task, field, values)
        self._constant: str
        self._constant_fields: Fields
        self._answers: Mapping[str, Mapping[str, Any]] = {}  # by method and row text

    @staticmethod
    def suits(task: Task) -> bool:
        """Tell whether train has answers, and scoring makes no call and compares with the row."""
        return not task.is_judged and task.user is None and reads_labels(task) and bool(answers(task, task.train))

    def rows(self, candidate: ClassicCandidate) -> int:
        return len(self._task.train) + len(self._task.dev) * self._is_constant(candidate)

    def _is_constant(self, candidate: ClassicCandidate) -> bool:
        return candidate.method == self._constant

    def candidates(self) -> list[ClassicCandidate]:
        return [ClassicCandidate(method, self._rows) for method in (self._constant, *self._answers)]

    async def fit(self, rows: Sequence[Example], score: Scorer) -> None:
        """Train every method and answer all `rows`; `score` chooses the constant."""
        texts = [self._text(row) for row in rows]
        self._constant, self._constant_fields = await best_constant(self._task, score)

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
        return {self._outputs[0]: plain} if len(self._outputs) == 1 else dict(plain)

    async def run(self, candidate: Candidate, example: Example, call: Call, repeat: int = 0) -> Prediction:
        assert isinstance(candidate, ClassicCandidate)
        if self._is_constant(candidate):
            return predicted(self._constant_fields)
        return predicted(self.fields(self._answers[candidate.method][self._text(example)]))

    def shown(self, candidate: Candidate) -> Summary:
        assert isinstance(candidate, ClassicCandidate)
        about = CONSTANT if self._is_constant(candidate) else ABOUT.get((self._kind, candidate.method), COPIED)
        return Summary(candidate.id, self.kind, NO_MODEL, f"{candidate.method}: {about}")

    def template(self, candidate: Candidate) -> tuple[Message, ...]:
        return ()

    def _text(self, row: Example) -> str:
        return text_of([row.inputs[field.name] for field in self._task.signature.inputs])

    def exported(self, method: str) -> dict[str, str]:
        """Return the files of an export by name: code, rows, and the model's description."""
        names = [field.name for field in self._task.signature.inputs]
        model = {"method": method, "field": ", ".join(self._outputs), "type": self._kind, "inputs": names}
        model |= {"separator": separator} if (separator := self._separator()) else {}
        known = [({name: row.inputs[name] for name in names}, self._plain(answer)) for row, answer in self._known]
        rows = [{"inputs": inputs, "answer": answer} for inputs, answer in known]
        return {
            "classifier.py": Path(classifiers.__file__).read_text("utf-8"),
            "model.json": json.dumps(model, indent=2, ensure_ascii=True) + "\n",
            "rows.jsonl": "".join(f"{json.dumps(row, ensure_ascii=True)}\n" for row in rows),
        }


LOADER = "load_classifier"  # the public name of the function below


def load_classifier(path: str | os.PathLike[str], *, root: str | os.PathLike[str] | None = None) -> Callable[..., Any]:
    """Load and train a classifier from `promote --arm classic` or `export --arm classic`.

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
        differs = (
            "%s was scored with another version of Promptassay, so answers may differ; promote a run of this version"
        )
        logging.getLogger("agent.release").warning(differs, folder)
    try:
        return classifiers.trained(*(release.files[name].decode("utf-8") for name in ("model.json", "rows.jsonl")))
    except (LookupError, TypeError, ValueError) as error:
        why = f"cannot be trained ({type(error).__name__}: {error})"
        raise ReleaseError(f"{folder}: {why}; promote the run again") from error


def _aliased(reference: Reference, root: Path) -> tuple[FileRelease, Path]:
    version = resolve(root, reference).version
    folder = root / reference.name / version
    if not version.startswith("f"):
        raise ReleaseError(how_to_load(folder, str(reference), "f"))
    release = read_files(folder)
    if (release.name, release.version) != (reference.name, version):
        holds = f"holds {release.name} {release.version}, not {reference.name} {version}"
        raise ReleaseError(f"{folder}: {holds}; restore the folder from a copy, or promote the run again")
    return release, folder


async def measured(
    program: ClassicProgram,
    evaluator: Evaluator,
    observer: Observer,
    dev: Sequence[Example],
    won: tuple[Sequence[Example], Sequence[Outcome]],
    seed: int,
) -> list[Yardstick]:
    """Score each method, the constant first. `diff` is the gain of the winner, which `won` has rows and outcomes of."""
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
    """The best yardstick as a release; `ahead`: the lead of the run's prompts on the sealed test (`gate`)."""

    best: Yardstick
    release: FileRelease
    ahead: Mapping[str, Gain]


def exported(found: Row, task: Task, history: History) -> tuple[Yardstick, FileRelease]:
    """Return the best yardstick but the constant, by dev score, as release files. They must answer dev as scored."""
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
    result, _ = _best(found)
    best, release = exported(found, task, history)
    own_id = history.trials(result.run_id, [0])[0]["candidate_id"]
    values = [
        {row["example_id"]: row["value"] for row in history.outcomes(result.run_id, candidate_id, "test")}
        for candidate_id in (own_id, best.candidate_id)
    ]
    rows = sorted(values[0].keys() & values[1].keys())
    own, arm = ([each[row] for row in rows] for each in values)
    ahead = {f"your own {noun_of(result.release.path)}": difference(own, arm, result.seed)}
    if result.winner.candidate_id != own_id:
        ahead["the best prompt"] = Gain(diff=best.diff, diff_ci95=best.diff_ci95, p_value=best.p_value)
    return YardstickArm(best, release, ahead)


def _best(found: Row) -> tuple[RunResult, Yardstick]:
    result = search_result(found["result"])
    if result is None or len(result.yardsticks) < 2:
        raise InputError(f"{found['id']}: this run scored no method without a language model that reads the rows")
    return result, max(result.yardsticks[1:], key=lambda each: each.dev or 0.0)
