"""Changes of the texts of tools that ask no model: their order, and an example call in a description."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property

from agent.evaluate.answer_counts import tool_cells
from agent.metrics.calls import NO_CALL, ToolCall, calls_in, one_answer
from agent.prompt.fence import defused
from agent.prompt.prompt_candidate import PromptCandidate
from agent.prompt.tool_texts import ToolTexts, argument_texts, optional_arguments, with_texts
from agent.search.program import Choices
from agent.types import Example, Outcome, Task, Tool

OWN, EXAMPLES = "own", "examples"
"""The texts of the task, and these with an example call of each tool."""
MOST_LETTERS = 120
"""Of the request of an example."""
MOST_EXAMPLES = 2
"""Of a tool."""
APART, LONE = "two tools that are mixed up stand apart", "a tool that is mixed up with no call stands at an end"


class ToolMaker:
    """Makes the tool texts of one run's candidates; the same choices and seed make the same ones.

    `variants` are the texts so far that a new design may have, by name; none where the task has no tools.
    """

    def __init__(self, task: Task, choices: Choices, rng: random.Random) -> None:
        self._task, self._choices, self._rng = task, choices, rng
        self.variants: dict[str, ToolTexts | None] = {}
        if task.tools:
            self.variants[OWN] = None
            shown = ToolTexts.between(task.tools, [self._with_example(tool) for tool in task.tools])
            self.variants |= {EXAMPLES: shown} if shown else {}

    def space(self) -> dict[str, tuple[str, ...]]:
        return {"tools": tuple(self.variants)} if self.variants else {}

    def place(self, name: str = OWN) -> dict[str, str]:
        return {"tools": name} if self.variants else {}

    def first(self) -> list[dict[str, str]]:
        """Where the first designs with other than the task's own texts are."""
        return [self.place(name) for name in self.variants if name != OWN]

    def at(self, place: Mapping[str, str]) -> ToolTexts | None:
        return self.variants[place["tools"]] if self.variants else None

    def operators(self) -> list[str]:
        return ["tools"] if self.variants else []

    def child(
        self, old: PromptCandidate, outcomes: Sequence[Outcome], dev: Mapping[str, Example]
    ) -> tuple[PromptCandidate, str] | None:
        """A changed candidate and the reason; None where nothing changes. `dev`: the rows of its outcomes, by id."""
        tools = with_texts(self._task.tools, old.tool_texts)
        mixed = tool_confusions(self._task, outcomes, dev)
        changes = [*self._orders(tools, mixed), *self._texts(tools, mixed)]
        new, reason = self._choices.one("change", changes, lambda change: change[1].split(" of ")[0])
        texts = ToolTexts.between(self._task.tools, new)
        return None if texts == old.tool_texts else (replace(old, tool_texts=texts), reason)

    def _orders(self, tools: Sequence[Tool], mixed: Counter[tuple[str, str]]) -> list[tuple[Sequence[Tool], str]]:
        shuffled = self._rng.sample(tools, len(tools))
        found: list[tuple[Sequence[Tool], str]] = [(shuffled, "another order of the tools")]
        if mixed:
            times = times_mixed(mixed)
            found.append((sorted(tools, key=lambda t: -times[t.name]), "the tools that are mixed up most come first"))
            one, two = pair = mixed.most_common(1)[0][0]
            ends = {one: 0, two: 2}
            apart = sorted(tools, key=lambda t: ends.get(t.name, 1))
            found.append((apart, LONE if NO_CALL in pair else APART))
        return found

    def _texts(self, tools: Sequence[Tool], mixed: Counter[tuple[str, str]]) -> list[tuple[Sequence[Tool], str]]:
        times, found = times_mixed(mixed), list[tuple[Sequence[Tool], str]]()
        own = {tool.name: tool for tool in self._task.tools}

        def put(new: Tool, reason: str) -> None:
            found.append(([new if tool.name == new.name else tool for tool in tools], reason))

        order = sorted(self._rng.sample(tools, len(tools)), key=lambda tool: -times[tool.name])
        lacks = [tool for tool in order if self._with_example(tool) != tool]
        if lacks:
            put(self._with_example(lacks[0]), f"an example of {lacks[0].name}")
        changed = [tool for tool in order if tool != own[tool.name]]
        if changed:
            put(own[changed[-1].name], f"the task's own texts of {changed[-1].name}")
        return found

    def _with_example(self, tool: Tool) -> Tool:
        """The tool with one more example call in its description; the tool itself where there is no other example."""
        new = next((text for text in self._examples.get(tool.name, ()) if text not in tool.description), None)
        return replace(tool, description=" ".join(filter(None, [tool.description, new]))) if new else tool

    @cached_property
    def _examples(self) -> dict[str, list[str]]:
        """By tool, calls of the shortest train rows that call it alone, each with other arguments where some may be
        left out; before the first one which arguments there are."""
        task, found = self._task, dict[str, list[str]]()
        tools, shown = {tool.name: tool for tool in task.tools}, set[tuple[str, ...]]()
        for row in sorted(task.train, key=lambda row: (sum(map(len, row.inputs.values())), row.id)):
            request = " ".join(defused(" | ".join(row.inputs.values())).split())
            calls = _calls(row, task)
            if len(calls) != 1 or len(request) > MOST_LETTERS or calls[0].name not in tools:
                continue
            (call,) = calls
            texts = found.setdefault(call.name, [])
            optional = optional_arguments(tools[call.name])
            given = (call.name, *sorted(call.arguments)) if optional else (call.name, row.id)
            if given not in shown and len(texts) < MOST_EXAMPLES:
                shown.add(given)
                about = "" if texts else _about(tools[call.name], optional)
                texts.append(
                    f'{about}For "{request}" call it with {json.dumps(dict(call.arguments), ensure_ascii=False)}.'
                )
        return found


def _about(tool: Tool, optional: Sequence[str]) -> str:
    """Which arguments a tool takes, and which of them may be left out: a small model gives all that it reads of."""
    required = ", ".join(name for name in argument_texts(tool) if name not in optional)
    parts = [f"Arguments: {required}." if required else "", f"Only if said: {', '.join(optional)}." if optional else ""]
    return "".join(f"{part} " for part in parts if part)


def _calls(row: Example, task: Task) -> list[ToolCall]:
    try:
        return calls_in(one_answer(row.labels, task.accepted).get(task.signature.outputs[0].name))
    except ValueError:
        return []


def tool_confusions(task: Task, outcomes: Sequence[Outcome], dev: Mapping[str, Example]) -> Counter[tuple[str, str]]:
    """How often the second tool was called where the first one was right; `NO_CALL` may be either."""
    seen = [outcome for outcome in outcomes if outcome.example_id in dev]
    labels = (*(tool.name for tool in task.tools), NO_CALL)
    cells = tool_cells([dev[each.example_id] for each in seen], seen, task.signature.outputs[0].name, labels)
    return Counter({(right, said): n for (right, said), n in cells.items() if said is not None and said != right})


def times_mixed(mixed: Counter[tuple[str, str]]) -> Counter[str]:
    times = Counter[str]()
    for pair, count in mixed.items():
        times.update(dict.fromkeys(pair, count))
    return times
