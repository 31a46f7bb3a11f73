"""Moves of parts without a model: picked examples, passages, texts of tools.

Each has a maker, used if the task has such a part (`is_used`): its coordinates in the space of designs (`space`), the
place of designs without it, the places of the first designs with it, and its change in a good candidate (`child`, by
one of `operators`; None if impossible). The same choices make the same parts.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

from agent.evaluate.answer_counts import tool_cells
from agent.metrics.calls import NO_CALL, ToolCall, calls_in, one_answer
from agent.programs.moves.demos import DemoMaker, DemoSet, demo_kinds, demo_sizes, most_examples
from agent.prompt.fence import defused
from agent.prompt.parts.passages import CHUNKS, USUAL, PassageLibrary, size_name
from agent.prompt.parts.picks import PickedRows
from agent.prompt.parts.tools import ToolTexts, argument_texts, optional_arguments, with_texts
from agent.prompt.prompt_candidate import PromptCandidate
from agent.prompt.template import marks
from agent.retrieval.passages import CONTEXT, Passages
from agent.retrieval.pick import ORDERS, RETRIEVERS, Picks
from agent.retrieval.vectors import DENSE, DENSE_RETRIEVERS
from agent.search.program import Choices
from agent.search.study import Place
from agent.types import Demo, Example, Outcome, Task, Tool

Made = tuple[PromptCandidate, str]
"""A changed candidate, and the change."""
NONE = "none"
"""The retriever of a design without picked examples, or without passages."""


# -- picked examples ---------------------------------------------------------------------------------------------------

FEWEST_ROWS = 24
"""The fewest train rows; with fewer, nearest rows are seldom near."""
MOST_POOL_LETTERS = 1_000_000
"""Of the train rows together: a release holds them all, twice."""
SIZES = (4, 6, 8, 12)
HEADS = (2, 4, 8)
FIRST = (("hybrid", 6), ("bm25", 8))
"""The first designs with picks: retriever and k."""
FIRST_DENSE = (DENSE, 6)
"""One more where the task names embeddings."""


def pick_sizes(task: Task) -> list[int]:
    """Return the numbers of picked examples in the designs of this task, ascending."""
    letters = sum(len(text) for row in task.train for text in row.inputs.values())
    usable = task.space.retrieval and "few-shot" in task.space.techniques
    if not usable or len(task.train) < FEWEST_ROWS or letters > MOST_POOL_LETTERS:
        return []
    return [k for k in SIZES if k <= most_examples(task)]


class PickMaker:
    def __init__(self, task: Task, choices: Choices, pool: PickedRows, demos: Callable[[], DemoMaker]) -> None:
        self._task, self._choices, self._pool, self._demos = task, choices, pool, demos
        self.sizes = pick_sizes(task)
        self.is_used = bool(self.sizes)
        self._retrievers = (*RETRIEVERS, *(DENSE_RETRIEVERS if task.space.embeddings else ()))

    def space(self) -> dict[str, tuple[str, ...]]:
        sizes = tuple(str(k) for k in self.sizes)
        return {"retriever": (NONE, *self._retrievers), "picked": sizes, "pick_order": ORDERS}

    def place(self, retriever: str = NONE, k: int | None = None) -> dict[str, str]:
        return {"retriever": retriever, "picked": str(k or self.sizes[0]), "pick_order": ORDERS[0]}

    def first(self) -> list[dict[str, str]]:
        first = (*FIRST, *([FIRST_DENSE] if self._task.space.embeddings else []))
        return [
            self.place(retriever, min(self.sizes, key=lambda size: (abs(size - k), size))) for retriever, k in first
        ]

    def at(self, place: Place) -> Picks | None:
        retriever = place.get("retriever", NONE)
        if retriever == NONE:
            return None
        return Picks(retriever, int(place["picked"]), place["pick_order"], pool=self._pool.id_of(retriever))

    def operators(self, prompt: PromptCandidate) -> list[str]:
        if prompt.technique != "few-shot":
            return []
        return ["pick"] if prompt.picks is None else ["repick", "head", "fix"]

    def child(self, operator: str, old: PromptCandidate, outcomes: Sequence[Outcome]) -> Made | None:
        if operator == "pick":
            return self._picked(old)
        if old.picks is None:
            return None
        if operator == "repick":
            return self._repicked(old, old.picks)
        if operator == "head":
            return self._headed(old, old.picks)
        demos = self._drawn(self._choices.one("size", demo_sizes(self._task) or [old.picks.k]))
        return replace(old, demos=demos, picks=None), f"{len(demos)} fixed rows in place of picked ones"

    def _drawn(self, k: int) -> tuple[Demo, ...]:
        demos: DemoSet = getattr(self._demos(), demo_kinds(self._task)[0])(k)
        return demos.demos

    def _picked(self, old: PromptCandidate) -> Made:
        k = self._choices.one("k", self.sizes)
        kept = self._choices.one("head", [0, *(size for size in HEADS if size + k <= most_examples(self._task))])
        retriever = self._choices.one("retriever", self._retrievers)
        picks = Picks(retriever, k, pool=self._pool.id_of(retriever))
        head = old.demos[:kept]
        after = f" after the first {len(head)} of its rows" if head else ""
        return replace(old, demos=head, picks=picks), f"{k} rows picked for each input{after}"

    def _repicked(self, old: PromptCandidate, picks: Picks) -> Made | None:
        room = most_examples(self._task) - len(old.demos)
        alike = "near-duplicates " + ("may" if picks.diverse else "not") + " picked together"
        changes = [(replace(picks, retriever=r, pool=self._pool.id_of(r)), f"picked by {r}") for r in self._retrievers]
        changes += [(replace(picks, k=k), f"{k} picked rows") for k in self.sizes if k <= room]
        changes += [(replace(picks, order=order), f"the picked rows {order}") for order in ORDERS]
        changes.append((replace(picks, diverse=not picks.diverse), alike))
        if demo_kinds(self._task)[0] == "balanced":
            words = "any of the labels" if picks.balanced else "at most half of one label"
            changes.append((replace(picks, balanced=not picks.balanced), f"of the picked rows {words}"))
        changed = [(made, reason) for made, reason in changes if made != picks]
        if not changed:
            return None
        made, reason = self._choices.one("change", changed, lambda change: change[1])
        return replace(old, picks=made), reason

    def _headed(self, old: PromptCandidate, picks: Picks) -> Made | None:
        if old.demos:
            return replace(old, demos=()), "without the fixed rows before the picked ones"
        sizes = [size for size in HEADS if size + picks.k <= most_examples(self._task)]
        if not sizes:
            return None
        demos = self._drawn(self._choices.one("head", sizes))
        return replace(old, demos=demos), f"{len(demos)} fixed rows before the picked ones"


# -- passages ----------------------------------------------------------------------------------------------------------

PASSAGE_COUNTS = (2, 4, 8)
FIRST_PASSAGES = (("hybrid", 4, (800, 0)), ("bm25", 8, (800, 0)), ("hybrid", 8, (400, 0)))
"""The first designs after the usual one: retriever, k and size of the passages."""
LookUp = tuple[str, int, tuple[int, int]]


class PassageMaker:
    def __init__(self, task: Task, choices: Choices, library: PassageLibrary) -> None:
        self._choices, self._library = choices, library
        self.is_used = task.knowledge is not None

    def space(self) -> dict[str, tuple[str, ...]]:
        counts, sizes = tuple(map(str, PASSAGE_COUNTS)), tuple(map(size_name, CHUNKS))
        return {"passages": (NONE, *RETRIEVERS), "passage_count": counts, "passage_size": sizes}

    def place(self, look_up: LookUp = USUAL) -> dict[str, str]:
        retriever, k, size = look_up
        return {"passages": retriever, "passage_count": str(k), "passage_size": size_name(size)}

    def place_of(self, prompt: PromptCandidate) -> dict[str, str]:
        how = prompt.passages
        return self.place((how.retriever, how.k, (how.chunk, how.overlap)) if how else (NONE, *USUAL[1:]))

    def first(self) -> list[dict[str, str]]:
        return [self.place(each) for each in FIRST_PASSAGES]

    def at(self, place: Place, instruction: str) -> Passages | None:
        """Return the passages of a design; None without.

        An instruction with a place for them has some.
        """
        if not self.is_used:
            return None
        retriever = place["passages"]
        if retriever == NONE:
            if not marks(instruction, [CONTEXT]):
                return None
            retriever = USUAL[0]
        size = next(size for size in CHUNKS if size_name(size) == place["passage_size"])
        return self._library.settings(retriever, int(place["passage_count"]), *size)

    def operators(self, prompt: PromptCandidate) -> list[str]:
        return ["passages"]

    def child(self, operator: str, old: PromptCandidate, outcomes: Sequence[Outcome]) -> Made:
        how = old.passages
        if how is None:
            (retriever, k, size), reason = self._choices.one(
                "first",
                [
                    (each, f"{each[1]} passages looked up for each input by {each[0]}")
                    for each in (USUAL, *FIRST_PASSAGES)
                ],
                lambda usual: f"{usual[0][0]} {usual[0][1]} {size_name(usual[0][2])}",
            )
        else:
            present: LookUp = (how.retriever, how.k, (how.chunk, how.overlap))
            changes = [((name, *present[1:]), f"passages by {name}") for name in RETRIEVERS]
            changes += [((how.retriever, k, present[2]), f"{k} passages") for k in PASSAGE_COUNTS]
            changes += [((how.retriever, how.k, size), f"passages of {size_name(size)} letters") for size in CHUNKS]
            others = [each for each in changes if each[0] != present]
            (retriever, k, size), reason = self._choices.one("change", others, lambda change: change[1])
        return replace(old, passages=self._library.settings(retriever, k, *size)), reason


# -- texts of tools ----------------------------------------------------------------------------------------------------

OWN, EXAMPLES = "own", "examples"
"""The texts of the task, and these with an example call of each tool."""
MOST_LETTERS = 120
"""Of the request of an example."""
MOST_EXAMPLES = 2
"""Of a tool."""
APART, LONE = "two tools that are mixed up stand apart", "a tool that is mixed up with no call stands at an end"


class ToolMaker:
    """Variants of the texts of tools. `variants`: the current ones for new designs, by name."""

    def __init__(self, task: Task, choices: Choices, rng: random.Random) -> None:
        self._task, self._choices, self._rng = task, choices, rng
        self._dev = {example.id: example for example in task.dev}
        self.is_used = bool(task.tools)
        self.variants: dict[str, ToolTexts | None] = {}
        if task.tools:
            self.variants[OWN] = None
            shown = ToolTexts.between(task.tools, [self._with_example(tool) for tool in task.tools])
            self.variants |= {EXAMPLES: shown} if shown else {}

    def space(self) -> dict[str, tuple[str, ...]]:
        return {"tools": tuple(self.variants)}

    def place(self, name: str = OWN) -> dict[str, str]:
        return {"tools": name}

    def first(self) -> list[dict[str, str]]:
        return [self.place(name) for name in self.variants if name != OWN]

    def at(self, place: Place) -> ToolTexts | None:
        return self.variants[place["tools"]] if self.is_used else None

    def operators(self, prompt: PromptCandidate) -> list[str]:
        return ["tools"]

    def child(self, operator: str, old: PromptCandidate, outcomes: Sequence[Outcome]) -> Made | None:
        tools = with_texts(self._task.tools, old.tool_texts)
        mixed = tool_confusions(self._task, outcomes, self._dev)
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
        new = next((text for text in self._examples.get(tool.name, ()) if text not in tool.description), None)
        return replace(tool, description=" ".join(filter(None, [tool.description, new]))) if new else tool

    @cached_property
    def _examples(self) -> dict[str, list[str]]:
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
                if not texts:  # a small model gives all arguments that it reads of
                    required = ", ".join(name for name in argument_texts(tools[call.name]) if name not in optional)
                    about = f"Arguments: {required}. " if required else ""
                    about += f"Only if said: {', '.join(optional)}. " if optional else ""
                given_as = json.dumps(dict(call.arguments), ensure_ascii=False)
                texts.append(f'{"" if texts else about}For "{request}" call it with {given_as}.')
        return found


def _calls(row: Example, task: Task) -> list[ToolCall]:
    try:
        return calls_in(one_answer(row.labels, task.accepted).get(task.signature.outputs[0].name))
    except ValueError:
        return []


def tool_confusions(task: Task, outcomes: Sequence[Outcome], dev: Mapping[str, Example]) -> Counter[tuple[str, str]]:
    """Count how often the second tool was called for the first; either may be `NO_CALL`."""
    seen = [outcome for outcome in outcomes if outcome.example_id in dev]
    labels = (*(tool.name for tool in task.tools), NO_CALL)
    cells = tool_cells([dev[each.example_id] for each in seen], seen, task.signature.outputs[0].name, labels)
    return Counter({(right, said): n for (right, said), n in cells.items() if said is not None and said != right})


def times_mixed(mixed: Counter[tuple[str, str]]) -> Counter[str]:
    times = Counter[str]()
    for pair, count in mixed.items():
        times.update(dict.fromkeys(pair, count))
    return times
