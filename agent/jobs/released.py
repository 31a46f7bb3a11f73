"""A released prompt that is asked again: its task, the models it may ask, and how it runs on rows."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agent.errors import InputError
from agent.evaluate.evaluator import Evaluator
from agent.gateway.embedding import Embedder
from agent.jobs.locations import open_history
from agent.jobs.session import Session
from agent.jobs.tasks import task_of
from agent.ledger.query import started_with
from agent.models.langchain import EmbeddingModel
from agent.models.model_registry import create_model, leads_elsewhere
from agent.options.run import RecordedOptions
from agent.programs.kinds import Kind, program_for
from agent.programs.variants import ReleasedProgram
from agent.prompt.parts.adapter import require_base
from agent.release.aliases import NAME
from agent.release.runtime import Prompt
from agent.release.suite import Suite
from agent.release.texts import Loaded
from agent.retrieval.pick import text_of
from agent.safe_text import printable
from agent.task.by_name import find_task
from agent.task.examples import PLAYED
from agent.task.load import load_task
from agent.types import (
    LM,
    Candidate,
    Constraints,
    Example,
    Field,
    Metric,
    MetricSpec,
    Prediction,
    Rubric,
    Score,
    SearchSpace,
    Signature,
    Task,
)

MOST_CALLS = 10_000
"""Of a row, that a release can claim."""


class Readable:
    """The metric of rows without right answers: 1 for a reply that can be read."""

    name = "readable"

    async def score(self, example: Example, prediction: Prediction) -> Score:
        return Score(self.name, 0.0 if prediction.error else 1.0, prediction.error)


def bare_task(name: str, about: str, signature: Signature, folder: Path, hashes: dict[str, str], **more: Any) -> Task:
    """Make a task for the ledger that is not searched; `more` are other fields."""
    nothing, space = Constraints(), SearchSpace((), (), ())
    task = Task(name, about, signature, "", (), space, nothing, (), (), (), str(folder), hashes=hashes)
    return replace(task, **more)


def task_of_suite(suite: Suite, prompt: Prompt, folder: Path, rubrics: Mapping[str, Rubric]) -> Task:
    """Make a task whose dev rows are those of a suite; `folder` may hold metric.py."""
    task = rows_task(prompt, folder, suite.description, suite.rows, "")
    own: dict[str, Any] = {"name": suite.name, "metrics": suite.metrics, "model": suite.model, "judges": suite.judges}
    return replace(task, **own, rubrics=rubrics, hashes={"suite": suite.id})


def rows_task(prompt: Prompt, folder: Path, about: str, rows: Sequence[Example], digest: str) -> Task:
    """Make a task whose dev rows are unlabelled rows. `digest` is the SHA-256 of their file."""
    signature = Signature(tuple(Field(name) for name in prompt.release.inputs), prompt.release.outputs)
    metrics = (MetricSpec(Readable.name, ""),)
    more = {"metrics": metrics, "dev": tuple(rows), "model": prompt.model, "max_tokens": 1}
    return bare_task(prompt.name, about, signature, folder, {"rows": digest}, **more)


def models_of(name: str, judges: tuple[str, ...], prompt: Loaded) -> tuple[LM, tuple[LM, ...]]:
    """Create the model and the judges, each once.

    Raises ReleaseError if the adapter of the prompt needs other weights than those here.
    """
    if isinstance(prompt, Prompt) and prompt.model in (name, *judges):
        require_base(prompt.release)
    known = {each: create_model(each) for each in dict.fromkeys((name, *judges))}
    return known[name], tuple(known[judge] for judge in judges)


def embedding_of(prompt: Prompt, file: Path, db: Path) -> LM | None:
    """Return the provider's model by whose vectors a prompt picks examples, or None.

    `file`, from which the prompt was read, may be foreign: raises InputError for an address that only it names.
    """
    model = EmbeddingModel(prompt.embeddings) if prompt.embeddings else None
    if model and leads_elsewhere(model.name) and not asked_before(model.name, db):
        named = printable(prompt.embeddings)
        raise InputError(
            f"{file}: picks its examples by vectors of {named}, and {db} has never asked that address; if you "
            f"trust it, name it yourself in a run: optimize run TASK --embeddings {named}"
        )
    return model


@dataclass(frozen=True, slots=True)
class AskedRelease:
    """A release, and the models that it asks.

    By the vectors of `embedding` a prompt picks examples; `program` is the user's, which gets released texts.
    """

    prompt: Loaded
    lm: LM
    judges: tuple[LM, ...] = ()
    embedding: LM | None = None
    program: Kind | None = None

    @staticmethod
    def of(
        prompt: Loaded, file: Path, db: Path, model: str, judges: tuple[str, ...] = (), task: Task | None = None
    ) -> AskedRelease:
        """Create the models, and the program of `task` for texts. Raises what `models_of` and `embedding_of` raise."""
        lm, judging = models_of(model, judges, prompt)
        if isinstance(prompt, Prompt):
            return AskedRelease(prompt, lm, judging, embedding_of(prompt, file, db))
        assert task is not None
        return AskedRelease(prompt, lm, judging, program=program_for(task, lm))

    @property
    def lms(self) -> list[LM]:
        """Every model."""
        return [self.lm, *self.judges, *([self.embedding] if self.embedding else [])]

    def embedding_calls(self, rows: int) -> int:
        """Return the calls that embed rows."""
        return Embedder.calls(rows) if self.embedding else 0

    def calls(self, rows: int, repeats: int) -> int:
        """Return the calls that rows need, without judges. A row of texts takes those of the run."""
        each = self.prompt.provenance.get("calls_a_row") if self.program else 1
        if not isinstance(each, int | float) or not 1 <= each <= MOST_CALLS:
            each = 1
        return math.ceil(rows * repeats * each) + self.embedding_calls(rows)

    async def evaluator(
        self, asking: Session[Any], rows: Sequence[Example], metrics: Sequence[Metric] = (Readable(),)
    ) -> tuple[Evaluator, Candidate, Embedder | None]:
        """Return an evaluator, the release as candidate, and the embedder of `rows`."""
        task, prompt, own, gateway = asking.task, self.prompt, self.program, asking.gateway
        if not isinstance(prompt, Prompt):
            assert own is not None
            candidate, client = own.released(prompt.release), own.client(gateway)
            return Evaluator(task, client, self.lm, metrics, [own], baseline_id=candidate.id), candidate, None
        embedder = Embedder(gateway, self.embedding) if self.embedding else None
        if embedder is not None:
            await embedder.vectors(text_of(row.inputs, prompt.release.compared) for row in rows)
        program = ReleasedProgram(prompt, task, self.lm, embedder)
        made = Evaluator(task, gateway, self.lm, metrics, [program], baseline_id=program.candidate.id)
        return made, program.candidate, embedder

    def head(self, asking: Session[Any]) -> dict[str, Any]:
        """Return the first fields of a result."""
        return {"run_id": asking.id, "name": self.prompt.name, "version": self.prompt.version, "model": asking.model}


def task_named(name: str) -> Path:
    """Return the folder under tasks/ of a name, which may be foreign: never a path."""
    folder = Path("tasks") / name
    if NAME.fullmatch(name) and (folder / "task.toml").is_file():
        return folder
    raise InputError(f"{printable(name)}: no task of this name under tasks/; name the task that you mean with --task")


def task_for(prompt: Loaded, name: str | None, db: Path) -> Task:
    """Return a prompt's task: the named one, its run's, or that of its name."""
    if name:
        task = load_task(find_task(name))
    elif options := run_options(prompt, db):
        task = task_of(options)
        task = replace(task, judges=tuple(options.judge or task.judges))
    else:
        task = load_task(task_named(prompt.name))
    wanted, has = set(prompt.release.inputs), {field.name for field in task.signature.inputs}
    if wanted != has:
        needs = ", ".join(sorted(wanted)) or "none"
        raise InputError(
            f"{task.name}: its inputs are {', '.join(sorted(has))}, the prompt needs {needs}; name the task"
        )
    if task.user is not None:
        raise InputError(f"{task.name}: {PLAYED}, which are not asked again one by one; run the task again")
    if not task.is_judged:
        return replace(task, judges=())
    return task if task.judges else replace(task, judges=(task.model or prompt.model,))


def run_options(prompt: Loaded, db: Path) -> RecordedOptions | None:
    """Return the options of the prompt's run; None if the ledger does not know it."""
    run_id = str(prompt.provenance.get("run_id", ""))
    if not run_id or not db.is_file():
        return None
    with suppress(InputError), closing(open_history(db)) as history:
        return started_with(history.run(run_id))
    return None


def has_goals(prompt: Prompt, db: Path) -> bool:
    """Return whether a model simulated the user in the prompt's run, as far as known."""
    options = run_options(prompt, db) if prompt.release.conversation else None
    try:
        user = task_of(options).user if options else None
    except InputError:  # the task is gone
        return False
    return user is not None and bool(user.model)


def require_named(file: Path, brought: Collection[str], asked: Mapping[str, Sequence[str]], db: Path) -> None:
    """Raise InputError for a model at an address or path that only `file` names.

    An address would receive rows and key. Models that this ledger has asked before are allowed. `brought` are the
    models that the file names; `asked`, by option, those that the user did not type.
    """

    for option, names in asked.items():
        for name in names:
            if name in brought and leads_elsewhere(name) and not asked_before(name, db):
                raise InputError(
                    f"{file}: names the model {printable(name)}, and neither you nor {db} has named it before; if you "
                    f"trust it, give it yourself: {option} {printable(name)}"
                )


def asked_before(model: str, db: Path) -> bool:
    """Return whether the ledger has a call of a model."""
    if not db.is_file():
        return False
    with closing(open_history(db)) as history:
        return bool(history.select("SELECT 1 FROM calls WHERE model = ? LIMIT 1", model))
