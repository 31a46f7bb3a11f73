"""Records a matrix: what many candidates do on the same rows, so that policies can be replayed without a model.

    python -m tests.bench.arena.record SET [--rows 96] [--roots 4] [--generations 2]

Roots are designs of every kind and size, and small random sets as plain random search draws them. Then the best get
children by every operator, for a few generations. All see all rows. Written line by line beside the matrix, so a
recording that is cut off goes on; the whole becomes matrix/SET.json.gz.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import random
import sys
from pathlib import Path
from typing import Any

from agent.evaluate.evaluator import label_signal
from agent.models.model_registry import create_model
from agent.programs.moves.demos import KINDS
from agent.programs.moves.prompt_moves import CandidateGenerator
from agent.programs.prompt import ReplyCap
from agent.prompt.calibration import MOST_LOGPROBS
from agent.prompt.prompt_candidate import PromptCandidate
from agent.prompt.render import template
from agent.prompt.reply_parser import parse_reply
from agent.prompt.template import fill_messages
from agent.search.program import Parent
from agent.types import LM, Completion, Example, Message, Outcome, Prediction, Proposal, Request, Task
from tests.bench.arena.data import data_folder, load

FOLDER = Path(__file__).parent / "matrix"
RANDOM_SIZES = (4, 8, 12)
PARENTS = 6
Line = dict[str, Any]


class Recorder:
    """Runs candidates on rows and keeps a line of each."""

    def __init__(self, task: Task, model: LM, rows: list[Example], path: Path) -> None:
        self.task, self.model, self.rows, self.path = task, model, rows, path
        self.lines: list[Line] = [json.loads(text) for text in path.read_text().splitlines()] if path.exists() else []
        self.known = {line["id"]: line for line in self.lines}
        self.parents: dict[str, Parent] = {}
        self._cap = ReplyCap.of(task, model)

    async def see(self, proposal: Proposal) -> float:
        """The candidate's mean over all rows, from the file where it is there."""
        candidate = proposal.candidate
        line = self.known.get(candidate.id)
        if line is None:
            replies = await asyncio.gather(*[self._ask(candidate, row) for row in self.rows])
            line = self._line(proposal, replies)
            self.lines.append(line)
            self.known[candidate.id] = line
            with self.path.open("a") as file:
                file.write(json.dumps(line) + "\n")
        name = self.task.signature.outputs[0].name
        outcomes = tuple(
            Outcome(candidate.id, row.id, Prediction({name: said}, said), (), float(hit))
            for row, said, hit in zip(self.rows, line["said"], line["hits"], strict=True)
        )
        self.parents[candidate.id] = Parent(proposal, outcomes)
        mean = line["hits"].count("1") / len(self.rows)
        print(
            f"{len(self.parents):4} {proposal.operator:<16} {len(candidate.demos):3} demos  {mean:.3f}", file=sys.stderr
        )
        return mean

    async def _ask(self, candidate: PromptCandidate, row: Example) -> Completion:
        messages: tuple[Message, ...] = fill_messages(template(candidate, self.task.signature), row.inputs)
        return await self.model.complete(Request(messages, self._cap.tokens(candidate, 1), logprobs=MOST_LOGPROBS))

    def _line(self, proposal: Proposal, replies: list[Completion]) -> Line:
        candidate, fields = proposal.candidate, self.task.signature.outputs
        said = [str(next(iter(parse_reply(reply.text, fields).fields.values()), "")) for reply in replies]
        right = [str(next(iter(row.labels.values()))) for row in self.rows]
        signal = [
            label_signal(reply.logprobs, fields[0].choices, label) for reply, label in zip(replies, right, strict=True)
        ]
        return {
            "id": candidate.id,
            "operator": proposal.operator,
            "parent": proposal.parent_id,
            "place": dict(proposal.place),
            "demos": [demo.example_id for demo in candidate.demos],
            "instruction": candidate.instruction,
            "said": said,
            "hits": "".join("01"[a == b] for a, b in zip(said, right, strict=True)),
            "signal": [None if value is None else round(value, 3) for value in signal],
        }

    def best(self, count: int) -> list[Parent]:
        order = sorted(self.parents, key=lambda i: -self.known[i]["hits"].count("1"))
        return [self.parents[i] for i in order[:count]]


async def record(name: str, data: Path, rows: int, roots: int, generations: int) -> Path:
    task = load(name, data)
    chosen = [*task.dev, *task.test][:rows]
    recorder = Recorder(task, create_model("local/smollm2-135m"), chosen, FOLDER / f"{name}.jsonl")
    generator = CandidateGenerator(task, random.Random(11))
    own = generator.space()
    place = {"technique": "few-shot", "format": own["format"][0], "instruction": "own", "role": ""}
    for proposal in generator.designs():
        await recorder.see(proposal)
    for number in range(roots):
        for kind in KINDS[:2] if number % 2 else KINDS:
            for size in own["size"]:
                await _maybe(recorder, generator.fresh({**place, "kind": kind, "size": size}))
        for k in RANDOM_SIZES:
            proposal = generator.fresh({**place, "kind": "natural", "size": str(k)})
            if proposal is not None:
                await recorder.see(
                    Proposal(proposal.candidate, proposal.point, "random", None, "as random search draws them")
                )
    for _ in range(generations):
        parents = recorder.best(PARENTS)
        for parent in parents:
            halved = Parent(parent.proposal, parent.outcomes[: rows // 2])
            for operator in (name for name in generator.operators(parent) if name != "compress"):
                await _maybe(recorder, generator.child(operator, halved, parents))
    await recorder.model.close()
    return _write(name, recorder)


async def _maybe(recorder: Recorder, proposal: Proposal | None) -> None:
    if proposal is not None:
        await recorder.see(proposal)


def _write(name: str, recorder: Recorder) -> Path:
    lines = [recorder.known[i] for i in recorder.parents]
    body = {
        "set": name,
        "model": recorder.model.name,
        "rows": [row.id for row in recorder.rows],
        "labels": [str(next(iter(row.labels.values()))) for row in recorder.rows],
        "candidates": [{key: line[key] for key in ("id", "operator", "parent", "place", "demos")} for line in lines],
        "hits": [line["hits"] for line in lines],
        "signal": [line["signal"] for line in lines],
    }
    path = FOLDER / f"{name}.json.gz"
    path.write_bytes(gzip.compress(json.dumps(body).encode(), mtime=0))
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description="Records a matrix of outcomes.")
    parser.add_argument("set")
    parser.add_argument("--data")
    parser.add_argument("--rows", type=int, default=96)
    parser.add_argument("--roots", type=int, default=4)
    parser.add_argument("--generations", type=int, default=2)
    options = parser.parse_args()
    folder = data_folder(options.data)
    print(asyncio.run(record(options.set, folder, options.rows, options.roots, options.generations)))


if __name__ == "__main__":
    main()
