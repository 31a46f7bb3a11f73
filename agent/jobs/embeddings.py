"""Vectors for runs that may pick examples by them: checks before the first call, and the calls."""

from __future__ import annotations

from collections.abc import Iterable

from agent.extras import require
from agent.gateway.embedding import Embedder
from agent.gateway.gateway import ModelClient
from agent.models.langchain import EmbeddingModel
from agent.observer import Observer
from agent.programs.kinds import Kind
from agent.programs.moves.part_moves import pick_sizes
from agent.programs.prompt import PromptProgram
from agent.prompt.prompt_candidate import PromptCandidate
from agent.retrieval.vectors import DENSE, WORDLLAMA
from agent.types import LM, Example, Task


def embedding_model(program: Kind, observer: Observer) -> LM | None:
    """Return the provider's model that embeds a run's rows; None with wordllama or without picking.

    Vectors of wordllama are made here, so that its problems surface early. Raises InputError.
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
    """Return the provider's model by whose vectors a run's candidates pick examples, or None."""
    is_needed = any(each.needs_vectors for each in candidates)
    return EmbeddingModel(task.space.embeddings) if is_needed and task.space.embeddings != WORDLLAMA else None


def calls_to_embed(program: PromptProgram, rows: Iterable[Example]) -> tuple[int, list[str]]:
    """Count the calls that embed the pool and rows, and their texts."""
    train = program.pool.texts(program.task.train)
    others = [text for text in program.pool.texts(rows) if text not in set(train)]
    return Embedder.calls(len(train)) + Embedder.calls(len(others)), [*train, *others]


async def embed_rows(program: Kind, client: ModelClient, lm: LM | None, rows: Iterable[Example]) -> None:
    """Request the vectors of the pool and of the rows to be asked. Does nothing if `lm` is None.

    Raises what a call raises, and InputError for more vectors than a release may hold.
    """
    if lm is None or not isinstance(program, PromptProgram):
        return
    embedder, pool = Embedder(client, lm), program.pool
    pool.know(await embedder.vectors(pool.texts(program.task.train)))  # apart: the same calls whatever the rows
    pool.id_of(DENSE)  # makes its vectors, and raises where a release cannot hold them
    pool.know(await embedder.vectors(pool.texts(rows)))
