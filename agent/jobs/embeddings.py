"""Vectors for a run that may pick examples by them: what is looked at before anything is called, and what is asked."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from agent.errors import InputError
from agent.extras import require
from agent.gateway.embedding import Embedder
from agent.gateway.gateway import ModelClient
from agent.jobs.locations import asked_before
from agent.models.langchain import EmbeddingModel
from agent.models.model_registry import leads_elsewhere
from agent.observer import Observer
from agent.programs.kinds import Kind
from agent.programs.moves.part_moves import pick_sizes
from agent.programs.prompt import PromptProgram
from agent.prompt.prompt_candidate import PromptCandidate
from agent.release.runtime import Prompt
from agent.retrieval.pool import text_of
from agent.retrieval.vectors import DENSE, WORDLLAMA
from agent.safe_text import printable
from agent.types import LM, Example, Task


def embedding_model(program: Kind, observer: Observer) -> LM | None:
    """Return the provider's model that embeds the rows of a run; None where wordllama does, or nothing is picked.

    The vectors of wordllama are made here, so that what is wrong with them is known. Raises InputError.
    """
    name = program.task.space.embeddings
    if not name:
        return None
    model = None if name == WORDLLAMA else EmbeddingModel(name)
    if model is None:
        require("embedding", f"embeddings {name}")
    if not isinstance(program, PromptProgram) or not pick_sizes(program.task):
        observer.on_message(f"embeddings {name} are not used: no examples are picked in this run")
        return None
    if model is None:
        made = program.pool.vectors
        observer.on_message(f"embeddings {name}: {len(made.rows):,} train rows, vectors of {made.dimensions:,} numbers")
    else:
        observer.on_message(f"embeddings {name}: the inputs of all rows are sent there, each once")
    return model


def model_of_candidates(task: Task, candidates: Iterable[PromptCandidate]) -> LM | None:
    """The provider's model by whose vectors some of a run's candidates pick; None where none does."""
    is_needed = any(each.needs_vectors for each in candidates)
    return EmbeddingModel(task.space.embeddings) if is_needed and task.space.embeddings != WORDLLAMA else None


def calls_to_embed(program: PromptProgram, rows: Iterable[Example]) -> tuple[int, list[str]]:
    """How many calls embed the pool and rows, and the texts."""
    train = program.pool.texts(program.task.train)
    others = [text for text in program.pool.texts(rows) if text not in set(train)]
    return Embedder.calls(len(train)) + Embedder.calls(len(others)), [*train, *others]


async def embed_rows(program: Kind, client: ModelClient, lm: LM | None, rows: Iterable[Example]) -> None:
    """Ask for the vectors of the pool and of the rows that are to be asked; `lm` None: for nothing.

    Raises what a call does, and InputError where the vectors are too many for a release.
    """
    if lm is None or not isinstance(program, PromptProgram):
        return
    embedder, pool = Embedder(client, lm), program.pool
    pool.know(await embedder.vectors(pool.texts(program.task.train)))  # apart: the same calls whatever the rows
    pool.id_of(DENSE)  # makes its vectors, and raises where a release cannot hold them
    pool.know(await embedder.vectors(pool.texts(rows)))


def model_of_prompt(prompt: Prompt, file: Path, db: Path) -> LM | None:
    """Return the provider's model by whose vectors a released prompt picks; None for one that needs none.

    `file`, where the prompt was read, may be somebody else's. Raises InputError for an address that only it names.
    """
    if not prompt.embeddings:
        return None
    model = EmbeddingModel(prompt.embeddings)
    if leads_elsewhere(model.name) and not asked_before(model.name, db):
        named = printable(prompt.embeddings)
        raise InputError(
            f"{file}: picks its examples by vectors of {named}, and {db} has never asked that address; if you "
            f"trust it, name it yourself in a run: optimize run TASK --embeddings {named}"
        )
    return model


async def embedder_of(prompt: Prompt, client: ModelClient, lm: LM | None, rows: Iterable[Example]) -> Embedder | None:
    """Return what makes the vectors of rows for a released prompt, with those of `rows`; None where `lm` is None."""
    if lm is None:
        return None
    embedder = Embedder(client, lm)
    await embedder.vectors(text_of(row.inputs, prompt.release.compared) for row in rows)
    return embedder
