"""The operators of the proposer on the texts of tools."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace

from agent.evaluate.answer_counts import called
from agent.metrics.calls import NO_CALL, calls_in
from agent.metrics.tool_calls import CallOptions, argument_faults
from agent.programs.moves import asking
from agent.programs.moves.asking import (
    Ask,
    Data,
    Draft,
    Question,
    continued,
    messages_about,
    one_sentence,
    replies_to,
    retold,
    value_question,
)
from agent.programs.moves.evidence import Evidence, listed, nouns
from agent.programs.moves.part_moves import tool_confusions
from agent.prompt.parts.tools import ToolTexts, argument_texts, with_argument, with_texts
from agent.prompt.prompt_candidate import as_prompt
from agent.types import Completion, Example, Tool

ROWS = 8


def _tools(evidence: Evidence) -> dict[str, Tool]:
    prompt = as_prompt(evidence.best.proposal.candidate)
    return {tool.name: tool for tool in with_texts(evidence.task.tools, prompt.part("tool_texts"))}


def _having(evidence: Evidence, *changed: Tool) -> ToolTexts | None:
    named = _tools(evidence) | {tool.name: tool for tool in changed}
    return ToolTexts.between(evidence.task.tools, tuple(named.values()))


def _described(tool: Tool, *sentences: str) -> Tool:
    parts = [part.strip() for part in sentences if part.strip()]
    return replace(tool, description=" ".join(part if part[-1] in ".!?" else f"{part}." for part in parts))


def _verb(evidence: Evidence) -> str:
    return "Call" if evidence.task.space.descriptions_only is None else "Use"


def mixed_tools(evidence: Evidence) -> list[tuple[str, str]]:
    """Return pairs of right and called tool, the worst first; either may be `NO_CALL`."""
    if not evidence.task.tools:
        return []
    pairs = tool_confusions(evidence.task, evidence.best.outcomes, evidence.dev)
    return [pair for pair, _ in sorted(pairs.items(), key=lambda item: (-item[1], item[0]))]


def _names(row: Example, evidence: Evidence) -> list[str] | None:
    return called(row.labels.get(evidence.task.signature.outputs[0].name))


def _all_rows(evidence: Evidence, name: str) -> list[Example]:
    """Prefers rows that call the tool alone; `NO_CALL`: rows without a call."""
    known = [(_names(row, evidence), row) for row in evidence.task.train]
    alone = [row for names, row in known if names == [name] or (names == [] and name == NO_CALL)]
    return alone or [row for names, row in known if names is not None and name in names]


def _rows_mixed(evidence: Evidence, *tools: str) -> tuple[str, ...]:
    rows = [wrong.row for wrong in evidence.wrong()]
    return tuple(row.id for row in rows if not set(_names(row, evidence) or [NO_CALL]).isdisjoint(tools))[:ROWS]


def _use_question(
    evidence: Evidence, groups: dict[str, str], asked: str, begins: str, whole: Callable[[str], str]
) -> Question:
    lines: list[str] = []
    for about, name in groups.items():
        rows = evidence.drawn(_all_rows(evidence, name), ROWS)
        lines += [f"{nouns(evidence.task).capitalize()} that {about}:", Data(listed(rows))]
    lines.append(f"In one short sentence, say {asked}.")
    return one_sentence("You describe when a tool is called.", lines, begins, evidence.task, whole)


# -- tool_use: what a tool that is mixed up is called for --------------------------------------------------------------

AT_ONCE = 4  # tools of one proposal, at most


def mixed_up(evidence: Evidence) -> list[str]:
    """Return the confused tools, worst first, preferring those not asked for yet."""
    names = [name for pair in mixed_tools(evidence) for name in pair if name != NO_CALL]
    known = [name for name in dict.fromkeys(names) if name in _tools(evidence) and _all_rows(evidence, name)]
    return ([name for name in known if name not in evidence.history.tools] or known[:1])[:AT_ONCE]


async def tool_use(evidence: Evidence, wanted: list[str], ask: Ask) -> list[Draft]:
    tools, begins = _tools(evidence), f"{_verb(evidence)} it to"
    asked = f"what the tool is called for by such {nouns(evidence.task)}"
    questions = [
        _use_question(evidence, {"one tool is called for": name}, asked, begins, lambda rest: f"{begins} {rest}")
        for name in wanted
    ]
    replies = zip(wanted, await ask(questions), strict=False)
    new: dict[str, str] = {name: text for name, texts in replies for text in texts}
    evidence.history.tools.update(new)
    rows, named, claim = _rows_mixed(evidence, *new), ", ".join(new), " | ".join(new.values())
    replaced = [_described(tools[name], text) for name, text in new.items()]
    extended = [_described(tools[n], tools[n].description, text) for n, text in new.items() if tools[n].description]
    return [
        Draft(texts, f"what {named} is for {about}", rows, parent=evidence.best, claim=claim)
        for about, made in (("misleads: rewritten", replaced), ("is not enough: a sentence more", extended))
        if new and (texts := _having(evidence, *made))
    ]


# -- tool_contrast: when one tool is called and not another that is called in its place --------------------------------


def mixed_pair(evidence: Evidence) -> tuple[str, str] | None:
    """Return the most confused open pair; its first tool gets the description."""
    pairs = [(said, right) if right == NO_CALL else (right, said) for right, said in mixed_tools(evidence)]
    open_pairs = [pair for pair in pairs if ("tool_contrast", *pair) not in evidence.history.asked]
    return next((pair for pair in open_pairs if all(_all_rows(evidence, name) for name in pair)), None)


async def tool_contrast(evidence: Evidence, pair: tuple[str, str], ask: Ask) -> list[Draft]:
    evidence.history.asked.add(("tool_contrast", *pair))
    name, other = pair
    call, rather = _verb(evidence), "only when" if other == NO_CALL else f"rather than {other} when"
    groups = {"the tool is called for": name, "it is not called for": other}
    asked = f"when the tool is called, so that the other {nouns(evidence.task)} are left out"
    question = _use_question(evidence, groups, asked, f"{call} it when", lambda rest: f"{call} it {rather} {rest}")
    rows, tool = _rows_mixed(evidence, *pair), _tools(evidence)[name]
    about = f"{name} and {other} are mixed up ({len(rows)} rows): the description says which is called when"

    def made(text: str) -> ToolTexts | None:
        return _having(evidence, _described(tool, tool.description, text))

    return await retold(evidence, ask, question, made, about, *rows)


# -- tool_argument: how the value of an argument is written that comes out wrong ---------------------------------------

FEWEST_ROWS, MOST_ROWS = 2, 5


WrongArgument = tuple[Example, str]
"""A dev row with a wrong argument of the right tool, and the reason: wanted and given value."""


def wrong_arguments(evidence: Evidence) -> dict[tuple[str, str], list[WrongArgument]]:
    task, found = evidence.task, defaultdict[tuple[str, str], list[WrongArgument]](list)
    field = task.signature.outputs[0].name
    spec = next((spec for spec in task.metrics if spec.name == "tool_calls"), None)
    options = CallOptions.model_validate(dict(spec.options) if spec else {})
    for wrong in evidence.wrong() if task.tools else ():
        try:
            wanted = calls_in(wrong.row.labels.get(field))
            said = {call.name: call for call in calls_in(wrong.outcome.prediction.fields.get(field))}
        except ValueError:
            continue
        for call in wanted:
            if call.name in said and [other.name for other in wanted].count(call.name) == 1:
                for name, reason in argument_faults(said[call.name], call, options).items():
                    found[call.name, name].append((wrong.row, reason))
    return dict(sorted(found.items(), key=lambda item: (-len(item[1]), item[0])))


def wrong_argument(evidence: Evidence) -> tuple[str, str, list[WrongArgument]] | None:
    """Return the argument that is wrong most often and was not asked for yet."""
    known = {name: argument_texts(tool) for name, tool in _tools(evidence).items()}
    for (tool, argument), rows in wrong_arguments(evidence).items():
        is_open = ("tool_argument", tool, argument) not in evidence.history.asked
        if is_open and len(rows) >= FEWEST_ROWS and argument in known.get(tool, {}):
            return tool, argument, rows[:MOST_ROWS]
    return None


async def tool_argument(evidence: Evidence, found: tuple[str, str, list[WrongArgument]], ask: Ask) -> list[Draft]:
    name, argument, rows = found
    evidence.history.asked.add(("tool_argument", name, argument))
    tool = _tools(evidence)[name]
    own = argument_texts(tool)[argument]
    question = value_question("argument", "a tool", argument, rows, evidence.task)

    def made(text: str) -> ToolTexts | None:
        return _having(evidence, with_argument(tool, argument, continued(own, text)))

    about = f"{argument} of {name} comes out wrong ({len(rows)} rows): its description says how it is written"
    return await retold(evidence, ask, question, made, about, *(row.id for row, _ in rows))


# -- tool_shorter: the longest description of a tool, said in fewer words ----------------------------------------------

FEWEST_WORDS = 20  # of a description that is worth it
SHARE = 0.7  # of its letters, at most


def longest(evidence: Evidence) -> Tool | None:
    asked = evidence.history.asked
    tools = [tool for tool in _tools(evidence).values() if len(tool.description.split()) >= FEWEST_WORDS]
    tools = [tool for tool in tools if ("tool_shorter", tool.name, tool.description) not in asked]
    return max(tools, key=lambda tool: len(tool.description), default=None)


async def tool_shorter(evidence: Evidence, tool: Tool, ask: Ask) -> list[Draft]:
    evidence.history.asked.add(("tool_shorter", tool.name, tool.description))
    names = [*(other.name for other in evidence.task.tools), *argument_texts(tool)]

    def held(text: str) -> Sequence[str]:
        return [name for name in dict.fromkeys(names) if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text)]

    keep = held(tool.description)
    messages = messages_about(
        "You shorten the description of a tool. You answer with the description only, in one line.",
        [
            "The description of a tool:",
            Data(tool.description),
            "Say the same in half the words.",
            *([("Keep these names: ", Data(", ".join(keep)))] if keep else []),
        ],
        data=[tool.description, *keep],
    )

    def read(reply: Completion) -> tuple[str, str]:
        text = next((line.strip() for line in reply.text.splitlines() if line.strip()), "")
        lost = [name for name in keep if name not in held(text)]
        refused = asking.why_part_refused(text, evidence.task, messages)
        return text, refused or (f"lost {', '.join(lost)}" if lost else "")

    question = asking.fewer_words(messages, tool.description, SHARE, read, asking.SENTENCE_TOKENS)
    return [
        Draft(made, f"fewer words do as well for {tool.name}: {len(text)} characters, not {len(tool.description)}")
        for text in await replies_to(ask, question)
        if (made := _having(evidence, _described(tool, text)))
    ]
