"""How often a planted defect is mended: `python -m tests.bench.planted_defect [SEEDS]`. Scripted models, no download.

The user's prompt swaps the meanings of two labels (`tests/programs/moves/proposals/planted.py`); a run of 500 calls has
mended it when its best prompt is right on 9 of 10 unseen rows of the two. And one of three texts of an agent lacks a
sentence (`tests/programs/moves/agent_world.py`): whole runs of 500 and 1,000 calls, with a proposer half or a third of
whose replies are of use, and a model without and with chance errors.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
from pathlib import Path

from tests.programs.moves import agent_world
from tests.programs.moves.proposals.planted import INSTRUCTION, is_mended, right_of_swapped, run
from tests.search.worlds import winner_of


def main() -> None:
    """Prints a line a seed and the count, with the proposer and without."""
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    for has_proposer in (True, False):
        mended = 0
        for seed in range(seeds):
            with tempfile.TemporaryDirectory() as folder:
                found = run(Path(folder) / "search", seed, has_proposer=has_proposer)
            task, best = found.context.task, str(winner_of(found.context).parts()["instruction"])
            before, after = right_of_swapped(INSTRUCTION, task), right_of_swapped(best, task)
            mended += is_mended(found)
            calls = f"{found.context.asked} calls of the proposer"
            print(f"seed {seed}: {before:.2f} -> {after:.2f} on the two labels, {calls}")
        print(f"mended in {mended} of {seeds} {'with' if has_proposer else 'without'} a proposer", flush=True)
    for calls, answer, reliable in itertools.product((500, 1000), (agent_world.target, agent_world.noisy), (0.5, 0.3)):
        mended = least = 0
        for seed in range(seeds):
            with tempfile.TemporaryDirectory() as folder:
                ran = agent_world.run(Path(folder) / "run", seed, reliable, calls, answer=answer)
            mended, least = mended + ran.is_mended, least + (ran.is_mended and not ran.also_changed)
            task, more = ran.context.task, "".join(f", {name} changed, too" for name in ran.also_changed)
            before, after = (agent_world.score_of(texts, task) for texts in (task.texts, ran.texts))
            print(f"seed {seed}: {before:.2f} -> {after:.2f} on unseen rows of the agent{more}")
        of = f"{seeds} with {calls} calls, {reliable:.0%} of the replies of use, a {answer.__name__} model"
        print(f"mended in {mended}, {least} of them without a change of another text, of {of}", flush=True)


if __name__ == "__main__":
    main()
