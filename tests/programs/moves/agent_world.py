"""A planted defect in one text of an agent of three: a planner, the description of its tool, and a writer.

Target and proposer are scripted. The agent plans (and may search), then writes: two calls a row, or one for a greeting.
The target heeds some phrases of the texts. The proposer says what the text in front of it lacks; a share of its replies
is worth nothing or does harm.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agent.jobs.optimize import RunState
from agent.ledger.store import Ledger
from agent.models.tool_calling import calls_text, turn_of
from agent.programs.agent import AgentProgram
from agent.programs.agent_call import Rollout, register_agent
from agent.programs.rollout import RolloutCalls
from agent.release.result import RunResult
from agent.search.context import SearchContext
from agent.search.registered import BANDIT
from agent.types import (
    Example,
    Field,
    Message,
    MetricSpec,
    Request,
    Rollouts,
    Signature,
    Task,
    Tool,
)
from tests.cli.world import FILLER
from tests.search.worlds import share
from tests.toys import FakeModel, executed, launch_of, make_task

GOOD = {
    "planner": "You plan how questions about fees are answered. Answer greetings yourself. Look up the city asked for.",
    "tool:search": "Search the table of fees. The place is written in small letters.",
    "writer": "You write the answer from what was found. Be brief. Give the fee in euros.",
}
LACKING = {name: text.rpartition(". ")[0] + "." for name, text in GOOD.items()}
NEEDED = {"planner": "city", "tool:search": "small letters", "writer": "euros"}
KEPT = {"planner": "greetings yourself", "tool:search": "table of fees", "writer": "brief"}
"""What the target goes by in each text; without the second the agent is worse than with the user's text."""

PLACES = {
    "Lisbon": "Portugal", "Porto": "Portugal", "Madrid": "Spain", "Seville": "Spain", "Lyon": "France",
    "Turin": "Italy", "Milan": "Italy", "Ghent": "Belgium", "monaco": "monaco", "singapore": "singapore",
}  # fmt: skip
CENTS = {city.lower(): 350 + 125 * at for at, city in enumerate(PLACES)}


def agent_task(seed: int, rows: int = 60) -> Task:
    def row(split: str, number: int) -> Example:
        rng = random.Random(f"{seed}/{split}/{number}")
        around = rng.sample(FILLER, 16)  # so that no two rows are near-duplicates
        before, after = " ".join(around[:8]), " ".join(around[8:])
        name = f"{split}-{number}"
        if rng.random() < 0.15:
            return Example(name, {"question": f"{before} good morning {after}"}, {"answer": "hello"})
        city = rng.choice(list(PLACES))
        asked = f"{before}: what is the fee of {city} in {PLACES[city]}? {after}"
        return Example(name, {"question": asked}, {"answer": f"{CENTS[city.lower()] / 100:.2f}"})

    splits = {split: tuple(row(split, number) for number in range(rows)) for split in ("train", "dev", "test")}
    signature = Signature((Field("question"),), (Field("answer"),))
    description = "Answer guests' questions about fees."
    return make_task(
        description=description,
        signature=signature,
        instruction="",
        metrics=(MetricSpec("exact_match", "answer"),),
        **splits,
    )


def target(request: Request) -> str:
    system, asked = request.messages[0].content, request.messages[-1].content
    if "plan" not in system or not request.tools:
        return _written(system, asked)
    about = request.tools[0].description
    if share(asked, "slip") < 0.08:
        return "I would rather not."
    found = re.search(r"fee of (\w+) in (\w+)", asked)
    if found is None:
        return "hello" if KEPT["planner"] in system else calls_text([("search", {"place": "morning"})])
    if KEPT["tool:search"] not in about:
        return "I do not know."
    place = found[1] if NEEDED["planner"] in system else found[2]
    return calls_text([("search", {"place": place.lower() if NEEDED["tool:search"] in about else place})])


def _written(system: str, asked: str) -> str:
    found = re.search(r'"cents": (\d+)', asked)
    if found is None:
        return "unknown"
    fee = f"{int(found[1]) / 100:.2f}" if NEEDED["writer"] in system else found[1]
    return fee if KEPT["writer"] in system else f"The fee that you asked for is {fee}."


def noisy(request: Request) -> str:
    """The target, a tenth of whose replies goes wrong by chance: on other rows for each text."""
    return target(request) if share(*(each.content for each in request.messages), "luck") >= 0.1 else "I am not sure."


def look_up(place: str) -> str:
    return json.dumps({"cents": CENTS[place]} if place in CENTS else {"error": f"no such place: {place}"})


async def act(texts: Mapping[str, str], question: str, ask: Any) -> str:
    """The agent. `ask(messages, tools)` gives the model's reply."""
    tools = (Tool("search", texts["tool:search"], '{"type": "object", "properties": {"place": {"type": "string"}}}'),)
    messages = (Message("system", texts["planner"]), Message("user", question))
    reply = await ask(messages, tools)
    calls, said = turn_of(reply)
    if not calls:
        return said
    found = look_up(str(calls[0][1].get("place")))
    called = (Message("assistant", reply), Message("tool", found))
    told = Message("user", f"{question}\nFound: {found}")
    return await ask((Message("system", texts["writer"]), *called, told), tools)


PROPOSALS = {
    "planner": ("If a fee is asked for, look up the city", "Always look up the city of the question"),
    "tool:search": ("Call it with the place in small letters", "Call it with small letters"),
    "writer": ("If a fee was found, give it in euros", "Always give the fee in euros"),
}


class Proposer:
    """Says what a text lacks; only a `reliable` share of its replies is of use."""

    def __init__(self, reliable: float = 1.0) -> None:
        self.reliable = reliable
        self.asked: list[str] = []

    def __call__(self, request: Request) -> str:
        asked = request.messages[-1].content
        self.asked.append(asked)
        found = re.search(r"(?:One is the|^The) (?:instruction|description of the tool) (\w+)", asked, re.M)
        assert found is not None, asked
        name = next(name for name in GOOD if name.endswith(found[1]))
        draw = share(asked, str(request.seed))
        text = re.search(r"<(data-\w+)>\n(.*?)\n</\1>", asked, re.S)
        assert text is not None
        if draw >= self.reliable:
            return self._useless(asked, text[2], name, int(draw * 1e6) % 6)
        begins = re.search(r"Begin with: (.*)", asked)
        sentence = PROPOSALS[name][begins is not None and begins[1] == "Always"]
        sentence += ("", " please", ", in any case", " from now on", " each time")[int(draw * 1e6) % 5]
        if begins is not None:
            return sentence
        if "REPLACE:" in asked:
            return f"ADD: {sentence}."
        return f"<instruction>{text[2]} {sentence}.</instruction>"

    def _useless(self, asked: str, text: str, name: str, kind: int) -> str:
        begins = re.search(r"Begin with: (.*)", asked)
        harm = text.replace(KEPT[name], "things")
        if kind == 0:
            return ""
        if kind == 1:
            return asked[-300:]
        if begins is not None:
            return f"{begins[1]} the guest is in doubt, be polite and patient, number {len(asked) % 7}."
        if "REPLACE:" in asked:
            return f"DELETE: {KEPT[name]}" if kind < 4 else "Sure! I would change the text like this."
        return f"<instruction>{harm} Be polite and patient.</instruction>"


async def never(texts: Mapping[str, str], row: Mapping[str, str], model: object) -> str:
    raise AssertionError("the agent of the tests runs without an endpoint")


class PlantedProgram(AgentProgram):
    """The agent, run without a host and an endpoint."""

    def __init__(self, task: Task, lm: FakeModel) -> None:
        register_agent(never)
        super().__init__(replace(task, rollouts=Rollouts(function="never", kind="agent")), lm)

    async def _rolled_out(
        self, rollout: RolloutCalls, texts: Mapping[str, str], example: Example
    ) -> tuple[Rollout, str]:
        async def ask(messages: tuple[Message, ...], tools: tuple[Tool, ...]) -> str:
            return (await rollout.answer("m", Request(messages, 0, tools=tools, tool_choice="auto"))).text

        return Rollout(await act(texts, example.inputs["question"], ask)), ""


def planted_texts(name: str) -> dict[str, str]:
    return {each: LACKING[each] if each == name else text for each, text in GOOD.items()}


@dataclass(frozen=True)
class Ran:
    """A whole run, from the baseline to the release; `planted`: the text with the defect."""

    state: RunState
    result: RunResult
    planted: str

    @property
    def context(self) -> SearchContext:
        return self.state.context

    @property
    def texts(self) -> dict[str, str]:
        """The winner's."""
        return dict(self.context.trials.candidate(self.result.winner.candidate_id).parts()["texts"])

    @property
    def also_changed(self) -> list[str]:
        """The texts without a defect that the winner changed."""
        own = self.context.task.texts
        return [name for name, text in self.texts.items() if text != own[name] and name != self.planted]

    @property
    def is_mended(self) -> bool:
        """Whether the winner is as good on unseen rows as the texts without the defect."""
        task = self.context.task
        return score_of(self.texts, task) >= score_of(GOOD, task) - 0.001


def run(
    folder: Path,
    seed: int,
    reliable: float = 1.0,
    calls: int = 800,
    proposes: bool = True,
    sampler: str = BANDIT,
    answer: Callable[[Request], str] = target,
    rows: int = 60,
) -> Ran:
    """A whole run for the defect in one of the texts, with `calls` over all roles."""
    planted = list(GOOD)[seed % 3]
    texts = planted_texts(planted)
    task = replace(agent_task(seed, rows), texts=texts, instruction="\n\n".join(texts.values()))
    lm, author = FakeModel(answer), FakeModel(Proposer(reliable), "fake/author") if proposes else None
    program = PlantedProgram(task, lm)
    launch = launch_of(program, lm, author, max_calls=calls, seed=seed, sampler=sampler)
    folder.mkdir()
    ledger = Ledger(folder / "ledger.db")
    with contextlib.chdir(folder):
        state, result = asyncio.run(executed(launch, ledger))
    ledger.close()
    return Ran(state, result, planted)


def score_of(texts: Mapping[str, str], task: Task) -> float:
    """The share of unseen rows that the agent gets right with these texts."""

    async def right(row: Example) -> bool:
        async def ask(messages: tuple[Message, ...], tools: tuple[Tool, ...]) -> str:
            return target(Request(messages, 50, tools=tools))

        return await act(texts, row.inputs["question"], ask) == row.labels["answer"]

    async def all_rows() -> list[bool]:
        return [await right(row) for row in task.test]

    rows = asyncio.run(all_rows())
    return sum(rows) / len(rows)
