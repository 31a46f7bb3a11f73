"""Moves of parts without a model: picked examples, passages, texts of tools, and parts of other packages."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, TypeVar

from agent.evaluate.answer_counts import tool_cells
from agent.metrics.calls import NO_CALL, ToolCall, calls_in, one_answer
from agent.programs.moves.demos import DemoMaker, DemoSet, demo_kinds, demo_sizes, most_examples
from agent.prompt.fence import defused
from agent.prompt.parts.kinds import others
from agent.prompt.parts.passages import CHUNKS, USUAL, PassageLibrary, size_name
from agent.prompt.parts.picks import PickedRows
from agent.prompt.parts.tools import ToolTexts, argument_texts, optional_arguments, with_texts
from agent.prompt.prompt_candidate import PromptCandidate
from agent.prompt.template import marks
from agent.retrieval.passages import CONTEXT
from agent.retrieval.pick import ORDERS, RETRIEVERS, Picks
from agent.retrieval.vectors import DENSE, DENSE_RETRIEVERS
from agent.search.program import Choices
from agent.search.study import Place
from agent.types import Demo, Example, Outcome, Task, Tool

T = TypeVar("T")
Made = tuple[PromptCandidate, str]  # a changed candidate, and the change
NONE = "none"  # the retriever of a design without picked examples, or without passages


class PartMaker:
    """Designs and changes of one part of a prompt, if the task has it.

    `part`: the candidate's field. `coordinates`: its choices in the space of designs; none if it is not used.
    """

    part: str

    def __init__(self, choices: Choices, coordinates: Mapping[str, tuple[str, ...]]) -> None:
        self.coordinates, self._choices = dict(coordinates), choices

    @property
    def usual(self) -> dict[str, str]:
        """The place of a design without the part: the first choices."""
        return {name: words[0] for name, words in self.coordinates.items()}

    def place_of(self, prompt: PromptCandidate) -> Place:
        """Return the coordinates that a changed candidate moves."""
        return {}

    def first(self) -> list[dict[str, str]]:
        return []

    def at(self, place: Place) -> Any:
        """Return the settings of a design."""
        raise NotImplementedError

    def designed(self, prompt: PromptCandidate, place: Place) -> PromptCandidate:
        """Return the prompt with the settings of a design."""
        return prompt.having(**{self.part: self.at(place)})

    def named(self, place: Place) -> str:
        """Name the settings of a design in that of its operator."""
        return ""

    def operators(self, prompt: PromptCandidate) -> list[str]:
        return list(self.coordinates)

    def child(self, operator: str, old: PromptCandidate, outcomes: Sequence[Outcome]) -> Made | None:
        raise NotImplementedError

    def _other(self, now: T, changes: Sequence[tuple[T, str]]) -> tuple[T, str]:
        """Choose settings other than `now`, with the reason. Return `now` and "" if it is the only choice."""
        others = [change for change in changes if change[0] != now]
        return self._choices.one("change", others, lambda change: change[1]) if others else (now, "")


# -- picked examples ---------------------------------------------------------------------------------------------------

FEWEST_ROWS = 24  # the fewest train rows; with fewer, nearest rows are seldom near
MOST_POOL_LETTERS = 1_000_000  # of the train rows together: a release holds them all, twice
SIZES = (4, 6, 8, 12)
HEADS = (2, 4, 8)
FIRST = (("hybrid", 6), ("bm25", 8))  # the first designs with picks: retriever and k
FIRST_DENSE = (DENSE, 6)  # one more where the task names embeddings


def pick_sizes(task: Task) -> list[int]:
    """Return the numbers of picked examples in the designs of this task, ascending."""
    letters = sum(len(text) for row in task.train for text in row.inputs.values())
    usable = task.space.retrieval and "few-shot" in task.space.techniques
    if not usable or len(task.train) < FEWEST_ROWS or letters > MOST_POOL_LETTERS:
        return []
    return [k for k in SIZES if k <= most_examples(task)]


class PickMaker(PartMaker):
    part = "picks"

    def __init__(self, task: Task, choices: Choices, pool: PickedRows, demos: Callable[[], DemoMaker]) -> None:
        self._task, self._pool, self._demos, self._sizes = task, pool, demos, pick_sizes(task)
        self._retrievers = (*RETRIEVERS, *(DENSE_RETRIEVERS if task.space.embeddings else ()))
        space = {"retriever": (NONE, *self._retrievers), "picked": tuple(map(str, self._sizes)), "pick_order": ORDERS}
        super().__init__(choices, space if self._sizes else {})

    def first(self) -> list[dict[str, str]]:
        first = (*FIRST, *([FIRST_DENSE] if self._task.space.embeddings else []))
        nearest = {k: min(self._sizes, key=lambda size: (abs(size - k), size)) for _, k in first}
        return [{**self.usual, "retriever": retriever, "picked": str(nearest[k])} for retriever, k in first]

    def at(self, place: Place) -> Picks | None:
        retriever = place.get("retriever", NONE)
        if retriever == NONE:
            return None
        return Picks(retriever, int(place["picked"]), place["pick_order"], pool=self._pool.id_of(retriever))

    def operators(self, prompt: PromptCandidate) -> list[str]:
        if prompt.technique != "few-shot":
            return []
        return ["pick"] if prompt.part(self.part) is None else ["repick", "head", "fix"]

    def child(self, operator: str, old: PromptCandidate, outcomes: Sequence[Outcome]) -> Made | None:
        picks = old.part(self.part)
        if picks is None:
            return self._picked(old)
        if operator == "repick":
            made, reason = self._other(picks, self._repicks(picks, most_examples(self._task) - len(old.demos)))
            return old.having(picks=made), reason
        if operator == "head":
            return self._headed(old, picks)
        demos = self._drawn(self._choices.one("size", demo_sizes(self._task) or [picks.k]))
        return replace(old, demos=demos).having(picks=None), f"{len(demos)} fixed rows in place of picked ones"

    def _drawn(self, k: int) -> tuple[Demo, ...]:
        demos: DemoSet = getattr(self._demos(), demo_kinds(self._task)[0])(k)
        return demos.demos

    def _picked(self, old: PromptCandidate) -> Made:
        k = self._choices.one("k", self._sizes)
        kept = self._choices.one("head", [0, *(size for size in HEADS if size + k <= most_examples(self._task))])
        retriever = self._choices.one("retriever", self._retrievers)
        head = old.demos[:kept]
        after = f" after the first {len(head)} of its rows" if head else ""
        picks = Picks(retriever, k, pool=self._pool.id_of(retriever))
        return replace(old, demos=head).having(picks=picks), f"{k} rows picked for each input{after}"

    def _repicks(self, picks: Picks, room: int) -> list[tuple[Picks, str]]:
        alike = "near-duplicates " + ("may" if picks.diverse else "not") + " picked together"
        changes = [(replace(picks, retriever=r, pool=self._pool.id_of(r)), f"picked by {r}") for r in self._retrievers]
        changes += [(replace(picks, k=k), f"{k} picked rows") for k in self._sizes if k <= room]
        changes += [(replace(picks, order=order), f"the picked rows {order}") for order in ORDERS]
        changes.append((replace(picks, diverse=not picks.diverse), alike))
        if demo_kinds(self._task)[0] == "balanced":
            words = "any of the labels" if picks.balanced else "at most half of one label"
            changes.append((replace(picks, balanced=not picks.balanced), f"of the picked rows {words}"))
        return changes

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


class PassageMaker(PartMaker):
    part = "passages"

    def __init__(self, task: Task, choices: Choices, library: PassageLibrary) -> None:
        self._library = library
        counts, sizes = tuple(map(str, PASSAGE_COUNTS)), tuple(map(size_name, CHUNKS))
        space = {"passages": (NONE, *RETRIEVERS), "passage_count": counts, "passage_size": sizes}
        super().__init__(choices, space if task.knowledge is not None else {})

    @property
    def usual(self) -> dict[str, str]:
        return self._place(USUAL)

    def _place(self, look_up: LookUp) -> dict[str, str]:
        retriever, k, size = look_up
        return {"passages": retriever, "passage_count": str(k), "passage_size": size_name(size)}

    def place_of(self, prompt: PromptCandidate) -> Place:
        how = prompt.part(self.part)
        return self._place((how.retriever, how.k, (how.chunk, how.overlap)) if how else (NONE, *USUAL[1:]))

    def first(self) -> list[dict[str, str]]:
        return list(map(self._place, FIRST_PASSAGES))

    def designed(self, prompt: PromptCandidate, place: Place) -> PromptCandidate:
        """Add the passages of a design. An instruction with a place for them always has some."""
        retriever = place.get("passages", NONE)
        if not self.coordinates or (retriever == NONE and not marks(prompt.instruction, [CONTEXT])):
            return prompt
        size = next(size for size in CHUNKS if size_name(size) == place["passage_size"])
        retriever, k = USUAL[0] if retriever == NONE else retriever, int(place["passage_count"])
        return prompt.having(passages=self._library.settings(retriever, k, *size))

    def operators(self, prompt: PromptCandidate) -> list[str]:
        return ["passages"]

    def child(self, operator: str, old: PromptCandidate, outcomes: Sequence[Outcome]) -> Made:
        how = old.part(self.part)
        if how is None:
            first = (USUAL, *FIRST_PASSAGES)
            retriever, k, size = self._choices.one(
                "first", first, lambda each: f"{each[0]} {each[1]} {size_name(each[2])}"
            )
            reason = f"{k} passages looked up for each input by {retriever}"
        else:
            now: LookUp = (how.retriever, how.k, (how.chunk, how.overlap))
            changes: list[tuple[LookUp, str]] = [((name, *now[1:]), f"passages by {name}") for name in RETRIEVERS]
            changes += [((how.retriever, k, now[2]), f"{k} passages") for k in PASSAGE_COUNTS]
            changes += [((how.retriever, how.k, size), f"passages of {size_name(size)} letters") for size in CHUNKS]
            (retriever, k, size), reason = self._other(now, changes)
        return old.having(passages=self._library.settings(retriever, k, *size)), reason


# -- parts of other packages -------------------------------------------------------------------------------------------


class OtherPartMaker(PartMaker):
    def __init__(self, task: Task, choices: Choices) -> None:
        self._offers = {name: offer for name, kind in others().items() if (offer := kind.made.choices(task))}
        super().__init__(choices, {name: (NONE, *offer) for name, offer in self._offers.items()})

    def place_of(self, prompt: PromptCandidate) -> Place:
        words = {name: {part: word for word, part in offer.items()} for name, offer in self._offers.items()}
        return {**self.usual, **{name: words[name][own] for name, own in prompt.settings.items() if name in words}}

    def first(self) -> list[dict[str, str]]:
        return [{**self.usual, name: next(iter(offer))} for name, offer in self._offers.items()]

    def designed(self, prompt: PromptCandidate, place: Place) -> PromptCandidate:
        return prompt.having(**{name: offer.get(place.get(name, NONE)) for name, offer in self._offers.items()})

    def named(self, place: Place) -> str:
        return "".join(f"+{name}" for name in self._offers if place.get(name, NONE) != NONE)

    def child(self, operator: str, old: PromptCandidate, outcomes: Sequence[Outcome]) -> Made:
        offer, now = self._offers[operator], old.part(operator)
        word = self._choices.one(operator, [word for word in (NONE, *offer) if offer.get(word) != now])
        return old.having(**{operator: offer.get(word)}), f"{operator}: {word}"


# -- parts with texts --------------------------------------------------------------------------------------------------

OWN, EXAMPLES = "own", "examples"  # the texts of the task, and these with an example call of each tool
MOST_LETTERS = 120  # of the request of an example
MOST_EXAMPLES = 2  # of a tool
APART, LONE = "two tools that are mixed up stand apart", "a tool that is mixed up with no call stands at an end"


class VariantMaker(PartMaker):
    """Variants of a part with texts, by name for new designs; the first is that of the task."""

    coordinate: str

    def __init__(self, choices: Choices, variants: Mapping[str, Any]) -> None:
        self._variants = dict(variants)
        super().__init__(choices, {self.coordinate: tuple(variants)} if variants else {})

    def add(self, name: str, made: Any) -> None:
        self._variants[name] = made
        self.coordinates[self.coordinate] = tuple(self._variants)

    def first(self) -> list[dict[str, str]]:
        return [{self.coordinate: name} for name in self._variants if name != OWN]

    def at(self, place: Place) -> Any:
        return self._variants.get(place.get(self.coordinate, OWN))

    def named(self, place: Place) -> str:
        return f"+{place[self.coordinate]}"


class ToolMaker(VariantMaker):
    part, coordinate = "tool_texts", "tools"

    def __init__(self, task: Task, choices: Choices, rng: random.Random) -> None:
        self._task, self._rng = task, rng
        self._dev = {example.id: example for example in task.dev}
        shown = ToolTexts.between(task.tools, [self._with_example(tool) for tool in task.tools]) if task.tools else None
        super().__init__(choices, {OWN: None, **({EXAMPLES: shown} if shown else {})} if task.tools else {})

    def named(self, place: Place) -> str:
        return "+tools"

    def child(self, operator: str, old: PromptCandidate, outcomes: Sequence[Outcome]) -> Made | None:
        tools = with_texts(self._task.tools, old.part(self.part))
        mixed = tool_confusions(self._task, outcomes, self._dev)
        orders = self._orders(tools, mixed) if self._task.space.descriptions_only is None else []
        changes = [*orders, *self._texts(tools, mixed)]
        if not changes:
            return None
        new, reason = self._choices.one("change", changes, lambda change: change[1].split(" of ")[0])
        texts = ToolTexts.between(self._task.tools, new)
        return None if texts == old.part(self.part) else (old.having(tool_texts=texts), reason)

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
                if task.space.descriptions_only is not None:
                    texts.append(f'Such as "{request}".')
                    continue
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
