"""Descriptions of skills: our search against skill-creator's loop, with the same queries, model and calls.

    python -m tests.bench.skills --model local//PATH/MODEL.gguf [--calls 280] [--seed 0] [-o runs/skills]

First `optimize run skill_choice` with all calls, sealed test included. Then the loop of skill-creator
(`scripts/run_loop.py` of github.com/anthropics/skills), written here from its description, with the calls that our
search had beyond the sealed test. The loop improves one skill at a time: it splits the skill's queries 60/40 by
should_trigger, evaluates the description on both parts, has the model improve it by the failures of the first part,
five times at most, and keeps the iteration with the best score on the second part, which it reports. Skills take
turns in the order of our baseline's failures, and see the descriptions that were improved before. A query is asked
once, at temperature 0; a repeated call is free. Both are scored on the same sealed rows, which neither saw. Nothing
is asserted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agent.api import optimize
from agent.jobs.locations import open_history
from agent.metrics.calls import names_in
from agent.models.model_registry import create_model
from agent.programs.prompt import PromptProgram
from agent.prompt.parts.tools import ToolTexts
from agent.prompt.prompt_candidate import as_prompt
from agent.task.load import load_task
from agent.task.skills import MOST_DESCRIPTION
from agent.types import LM, Example, Message, Request, Task
from tests.bench.rival import Counted, OutOfCalls, against, interval, sealed

TASK = Path(__file__).resolve().parents[2] / "tasks" / "skill_choice"
HOLDOUT, ITERATIONS = 0.4, 5
IMPROVE = """\
You write the description of a skill called "{name}". An assistant sees the names and descriptions of all its skills and
decides by them alone which one a request needs. Write a description with which this skill is used for the requests that
need it, and not for others.

The description now:
<current_description>
{description}
</current_description>

{failures}
{attempts}
The skill itself:
<skill_content>
{content}
</skill_content>

Write a better description. Do not list single requests: say for which kinds of requests the skill is used. Write it as
an order ("Use this skill for ..."), in 100 words at most, so that it stands out from other skills. Answer with the new
description in <new_description> tags and nothing else."""


@dataclass(frozen=True)
class Query:
    """A row as skill-creator has it."""

    row: Example
    should_trigger: bool


@dataclass(frozen=True)
class Iteration:
    """One evaluated description: which queries of each part passed."""

    description: str
    train: Sequence[bool]
    test: Sequence[bool]


def right_skill(row: Example) -> str:
    return next(iter(names_in(row.labels["calls"])), "")


class Loop:
    """The published loop over one skill after the other. `texts` are the current descriptions by name."""

    def __init__(self, task: Task, ask: Counted, seed: int) -> None:
        self.task, self.ask, self.rng = task, ask, random.Random(seed)
        self.texts = {tool.name: tool.description for tool in task.tools}
        self.program = PromptProgram(task, ask.lm)
        self.kept: dict[str, tuple[Iteration, Iteration]] = {}
        """By skill the first and the kept iteration."""

    async def called(self, row: Example, texts: Mapping[str, str]) -> list[str] | None:
        """The skills that the model calls; None for an unreadable reply."""
        tools = [replace(tool, description=texts[tool.name]) for tool in self.task.tools]
        made = as_prompt(self.program.baseline()).having(tool_texts=ToolTexts.between(self.task.tools, tools))
        said = await self.program.run(made, row, self.ask)
        return None if said.error else names_in(said.fields["calls"])

    def queries(self, name: str, rows: Sequence[Example]) -> list[Query]:
        """All queries of the skill, and as many of others."""
        own = [Query(row, True) for row in rows if right_skill(row) == name]
        others = [Query(row, False) for row in rows if right_skill(row) != name]
        return [*own, *self.rng.sample(others, min(len(own), len(others)))]

    def split(self, queries: Sequence[Query]) -> tuple[list[Query], list[Query]]:
        parts: tuple[list[Query], list[Query]] = [], []
        for told in (True, False):
            group = [query for query in queries if query.should_trigger is told]
            self.rng.shuffle(group)
            held = max(1, int(len(group) * HOLDOUT))
            parts[0].extend(group[held:])
            parts[1].extend(group[:held])
        return parts

    async def passed(self, name: str, queries: Sequence[Query], texts: Mapping[str, str]) -> list[bool]:
        found = [await self.called(query.row, texts) for query in queries]
        return [(name in (said or [])) is query.should_trigger for query, said in zip(queries, found, strict=True)]

    async def improve(self, name: str, rows: Sequence[Example]) -> None:
        """Run the loop for one skill, and keep its best description. Raises OutOfCalls."""
        train, test = self.split(self.queries(name, rows))
        history: list[Iteration] = []
        description = self.texts[name]
        try:
            for number in range(ITERATIONS):
                texts = {**self.texts, name: description}
                now = [await self.passed(name, part, texts) for part in (train, test)]
                history.append(Iteration(description, *now))
                if all(now[0]) or number + 1 == ITERATIONS:
                    break
                description = await self.proposed(name, train, history)
        finally:
            if history:
                best = max(history, key=lambda each: sum(each.test))
                self.kept[name], self.texts[name] = (history[0], best), best.description

    async def proposed(self, name: str, train: Sequence[Query], history: Sequence[Iteration]) -> str:
        now, parts = history[-1], list[str]()
        for told, about in ((True, "Not used for these requests that need it"), (False, "Used for these, wrongly")):
            wrong = [q.row for q, ok in zip(train, now.train, strict=True) if not ok and q.should_trigger is told]
            if wrong:
                parts.append("\n".join([f"{about}:", *(f'- "{row.inputs["query"]}"' for row in wrong)]))
        before = [f'- {sum(each.train)} of {len(train)} right: "{each.description}"' for each in history]
        content = (TASK / "skills" / name / "SKILL.md").read_text("utf-8").split("---\n", 2)[2].strip()
        text = IMPROVE.format(
            name=name,
            description=now.description,
            failures="\n\n".join(parts),
            attempts="\n".join(["\nAttempts so far; write something else:", *before, ""]),
            content=content,
        )
        request = Request((Message("user", text),), 400, temperature=0.7, seed=self.rng.randrange(2**31))
        reply = (await self.ask(request)).text
        found = re.search(r"<new_description>(.*?)(?:</new_description>|\Z)", reply, re.DOTALL)
        return " ".join((found[1] if found else reply).strip().strip('"').split())[:MOST_DESCRIPTION]


def ours(folder: Path, model: str, calls: int, seed: int, more: Mapping[str, Any]) -> dict[str, Any]:
    """Run our search; return what the loop is compared with."""
    db = folder / "ledger.db"
    result = optimize(TASK, model=model, proposer=model, max_calls=calls, seed=seed, db=db, **more)
    with closing(open_history(db)) as history:
        sides = (history.trials(result.run_id)[0]["candidate_id"], result.winner.candidate_id)
        dev = history.outcomes(result.run_id, sides[0], "dev")
    before, after = ({row: value or 0.0 for row, value in sealed(db, result.run_id, side).items()} for side in sides)
    texts, after = as_texts(result.release.path), after or before
    made = sum(result.calls.values())  # of a repeated bench the ledger answers some
    print(
        f"ours ({result.decision}, {made} calls): {against([*before.values()], [after[i] for i in before])}", flush=True
    )
    missed = [each["example_id"] for each in dev if not each["value"]]
    found = {"before": before, "after": after, "missed": missed, "calls": made, "texts": texts, "run": result.run_id}
    return {**found, "sealed": len(before) * len({*sides})}


def as_texts(release: Path) -> dict[str, str]:
    found = json.loads(release.with_name("messages.json").read_text("utf-8"))
    return {tool["name"]: tool["description"] for tool in found["tools"]}


async def scored(loop: Loop, texts: Mapping[str, str], known: Mapping[str, float]) -> list[float]:
    """The score of each sealed row with these descriptions; rows that the run did not open are asked now."""
    found = []
    for row in loop.task.test:
        if row.id not in known:
            said = await loop.called(row, texts)
            found.append(float(said is not None and {*said} == {right_skill(row)} - {""}))
        else:
            found.append(known[row.id])
    return found


async def theirs(task: Task, lm: LM, own: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Run the loop with the calls of our search; score all descriptions on all sealed rows."""
    searched = own["calls"] - own["sealed"]
    ask, rows = Counted(lm, most=searched), [*task.train, *task.dev]
    loop, missed = Loop(task, ask, seed), Counter(right_skill(row) for row in task.dev if row.id in own["missed"])
    initial = dict(loop.texts)
    try:
        for name in sorted(loop.texts, key=lambda name: (-missed[name], name)):
            await loop.improve(name, rows)
            first, best = loop.kept[name]
            print(f"  {name}: {sum(first.test)} -> {sum(best.test)} of {len(best.test)} held out", flush=True)
    except OutOfCalls:
        pass
    used, ask.most = ask.calls, math.inf
    before, mine = await scored(loop, initial, own["before"]), await scored(loop, own["texts"], own["after"])
    after, kept = await scored(loop, loop.texts, {}), loop.kept.values()
    claimed = [float(ok) for _, best in kept for ok in best.test]
    at_first = [float(ok) for first, _ in kept for ok in first.test]
    real = [
        float(ok) for name in loop.kept for ok in await loop.passed(name, loop.queries(name, task.test), loop.texts)
    ]
    print(f"ours, all sealed rows: {against(before, mine)}")
    print(
        f"skill-creator's loop ({used} calls, {len(loop.kept)} of {len(loop.texts)} skills): {against(before, after)}"
    )
    print(
        f"  it reports {interval(at_first)} -> {interval(claimed)} on {len(claimed)} held-out queries of these skills;"
    )
    print(f"  the same measure on sealed queries of these skills: {interval(real)} on {len(real)}", flush=True)
    figures = {"before": before, "ours": mine, "after": after, "claimed": claimed, "at_first": at_first, "real": real}
    return {**figures, "calls": used, "texts": loop.texts}


async def compared(model: str, own: Mapping[str, Any], seed: int) -> dict[str, Any]:
    lm = create_model(model)
    try:
        return await theirs(load_task(TASK), lm, own, seed)
    finally:
        await lm.close()


def main(words: Sequence[str] | None = None) -> None:
    """Print a line for each, and keep all figures and descriptions in a file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--calls", type=int, default=280, help="of our run, sealed test included")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--price", type=float, nargs=2, help="dollars per million tokens in and out")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/skills"))
    given = parser.parse_args(words)
    given.output.mkdir(parents=True, exist_ok=True)
    more = {"price": tuple(given.price)} if given.price else {}
    own = ours(given.output, given.model, given.calls, given.seed, more)
    found = asyncio.run(compared(given.model, own, given.seed))
    path = given.output / f"skills-{given.seed}.json"
    path.write_text(json.dumps({"model": given.model, "ours": own, "loop": found}, indent=2), "utf-8")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
