"""What a run needs before it may pick examples by their vectors, looked at before anything is called."""

from __future__ import annotations

from agent.errors import InputError
from agent.extras import require
from agent.observer import Observer
from agent.programs.kinds import Kind
from agent.programs.moves.picking import pick_sizes
from agent.programs.prompt import PromptProgram
from agent.retrieval.static_vectors import WORDLLAMA


def require_embeddings(program: Kind, observer: Observer) -> None:
    """Makes the vectors of the pool where the task names embeddings, and says so, or why they are not used.

    Args:
        program: what is optimized, with its task.
        observer: gets the message.

    Raises:
        InputError: the name is of no embeddings, its package is missing, or the vectors are too many for a release.
    """
    name = program.task.space.embeddings
    if not name:
        return
    if name != WORDLLAMA:
        raise InputError(f"embeddings {name!r} is none that is known; write {WORDLLAMA}")
    require("embedding", f"embeddings {name}")
    if isinstance(program, PromptProgram) and pick_sizes(program.task):
        made = program.pool.vectors
        observer.on_message(f"embeddings {name}: {len(made.rows):,} train rows, vectors of {made.dimensions:,} numbers")
    else:
        observer.on_message(f"embeddings {name} are not used: no examples are picked in this run")
