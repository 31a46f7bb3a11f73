"""A prompt candidate as messages; the only importer of dspy's adapters.

A candidate becomes a template once: messages with `{{field}}` marks for the inputs of the row. What is scored and what
is released are both `fill_messages(template, inputs)`, so they cannot differ.

Layouts: `turns` (the bare value as the user's turn), `labelled-turns` ("Message: ...\\nTeam:"), `inline` (examples as
text in one user turn), and `dspy-chat`, `dspy-json`, `dspy-xml` (the adapters of DSPy 3 on its own Signature).

An instruction that places its inputs is sent once, however many examples a prompt has (`OwnLayout`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

from agent.conversation import AS_TURNS, worked_turns
from agent.extras import require
from agent.prompt.parts.kinds import held
from agent.prompt.prompt_candidate import PromptCandidate
from agent.prompt.techniques import TECHNIQUES, reasoning_suffix
from agent.prompt.template import (
    DEMO_ROLES,
    Parts,
    answer_text,
    escape,
    fill_messages,
    join,
    marks,
    placeholder,
    row_layout,
    split,
    worked_text,
)
from agent.retrieval.passages import CONTEXT
from agent.types import Demo, Field, Message, Signature

OMITTED = "(the passages of this example are left out)"
"""What a demo shows instead of passages."""
MOST_REPEATED = 300
"""Letters of fixed text that each example repeats, at most."""
MOST_LABEL = 80  # letters before a placeholder that belong to it, such as "Product: "
_SENTENCE_END = re.compile(r"(?<=[.!?])[ \t]+|(?<=[。！？])")


@dataclass(frozen=True, slots=True)
class OwnLayout:
    """An instruction that places its inputs, as a prompt with examples sends it.

    `head`: what precedes the inputs, sent once. `example`: the user's turn of an example. `last`: that of the row.
    """

    head: str
    example: Parts
    last: Parts

    @staticmethod
    def of(whole: Parts, row: Parts) -> OwnLayout:
        """Divide an instruction before its first input.

        If much text follows that input, the last turn is the whole instruction, and examples have the layout `row`.
        """
        head, rest = _divided(whole)
        repeated = sum(len(part) for part in rest if isinstance(part, str))
        return OwnLayout(head, rest, rest) if repeated <= MOST_REPEATED else OwnLayout("", row, whole)


def _divided(whole: Parts) -> tuple[str, Parts]:
    first = next(at for at, part in enumerate(whole) if isinstance(part, tuple))
    before = "".join(part for part in whole[:first] if isinstance(part, str))
    start = before.rfind("\n") + 1
    if len(before) - start > MOST_LABEL:
        start = max((end.end() for end in _SENTENCE_END.finditer(before, start)), default=start)
    if len(before) - start > MOST_LABEL:
        start = len(before)
    if not before[:start].strip():
        return "", whole
    label = before[start:]
    return before[:start].rstrip(), [*([label] if label else []), *whole[first:]]


def render(candidate: PromptCandidate, signature: Signature, inputs: Mapping[str, str]) -> tuple[Message, ...]:
    """Return the messages for one row."""
    return fill_messages(template(candidate, signature), inputs)


def template(candidate: PromptCandidate, signature: Signature) -> tuple[Message, ...]:
    """Return the messages with `{{field}}` for inputs, and marks for picked examples and passages."""
    if candidate.format.startswith("dspy-"):
        return _dspy_template(candidate, signature)
    names, inputs = _names(candidate, signature), [field.name for field in signature.inputs]
    turns = f"{signature.conversation}{AS_TURNS}" if signature.conversation else ""
    role, suffix = candidate.role.strip(), added_words(candidate, signature)
    system: Parts = [f"{role}\n\n" if role else ""]
    system += [*split(candidate.instruction.strip(), candidate.marks("context")), suffix]
    last: Parts = [(turns,)] if turns else _layout(candidate, signature)
    if not turns and marks(candidate.instruction, inputs):  # the instruction is the user's turn
        is_repeated = candidate.n_examples and candidate.format != "inline"
        own = _own_layout(candidate, signature)
        system = ["\n\n".join(filter(None, [role, own.head])) if is_repeated else role]
        last = own.last if is_repeated else _placed(candidate, signature)
    for name in candidate.marks("context"):
        if marks(candidate.instruction, [name]):
            continue
        if turns:
            system += ["\n\n", (name,)]
        else:
            last = [(name,), "\n\n", *last]
    shown = shown_demos(candidate, candidate.demos, signature)
    picked = candidate.marks("examples")
    if candidate.format == "inline" and candidate.n_examples:
        worked: Parts = ["Examples:\n\n", *(text for texts in shown for text in texts), *((name,) for name in picked)]
        if turns:
            system += ["\n\n", *worked]
        else:
            last = [*worked, *last]
        shown, picked = [], []
    messages = [Message("system", text)] if (text := join(system, names)) else []
    messages += [Message(by, escape(text, names)) for texts in shown for by, text in zip(cycle(DEMO_ROLES), texts)]
    messages += [Message("user", placeholder(name)) for name in picked]
    return (*messages, Message("user", join(last, names)))


def added_words(candidate: PromptCandidate, signature: Signature) -> str:
    """Return what its parts and its technique say after the instruction."""
    said = [kind.said(settings, signature.outputs) for kind, settings in held(candidate)]
    said += [reasoning_suffix(_seen(candidate, signature)[0])] * TECHNIQUES[candidate.technique].reasoning
    return "".join(f"\n\n{words}" for words in said if words)


def _seen(
    candidate: PromptCandidate, signature: Signature, demos: Sequence[Demo] = ()
) -> tuple[Signature, Sequence[Demo]]:
    for kind, settings in held(candidate):
        signature, demos = kind.answers(settings, signature, demos)
    return signature, demos


def shown_demos(candidate: PromptCandidate, demos: Iterable[Demo], signature: Signature) -> list[tuple[str, ...]]:
    """Return the texts of each demo in the candidate's layout, as `fill_messages` takes them."""
    if candidate.format.startswith("dspy-"):
        return [_dspy_demo(candidate, demo, signature) for demo in demos]
    reasoning, (seen, demos) = TECHNIQUES[candidate.technique].reasoning, _seen(candidate, signature, [*demos])
    if candidate.format == "inline":
        return [(f"{_worked(demo, seen, reasoning)}\n\n",) for demo in demos]
    if name := signature.conversation:
        return [(*worked_turns(demo.inputs[name]), answer_of(demo, seen, reasoning)) for demo in demos]
    names = [field.name for field in signature.inputs]
    is_placed = marks(candidate.instruction, names)
    turn = _own_layout(candidate, signature).example if is_placed else _layout(candidate, signature)
    return [(_filled(turn, demo), answer_of(demo, seen, reasoning)) for demo in demos]


def _names(candidate: PromptCandidate, signature: Signature) -> list[str]:
    turns = [f"{signature.conversation}{AS_TURNS}"] if signature.conversation else []
    inputs = (field.name for field in signature.inputs)
    return [*inputs, *candidate.marks("examples"), *candidate.marks("context"), *turns]


def _placed(candidate: PromptCandidate, signature: Signature) -> Parts:
    names = [field.name for field in signature.inputs]
    return [*split(candidate.instruction, [*names, *candidate.marks("context")]), added_words(candidate, signature)]


def _own_layout(candidate: PromptCandidate, signature: Signature) -> OwnLayout:
    return OwnLayout.of(_placed(candidate, signature), _layout(candidate, signature))


def _filled(turn: Parts, demo: Demo) -> str:
    values = {CONTEXT: OMITTED, **demo.inputs}
    return "".join(part if isinstance(part, str) else values[part[0]] for part in turn)


def _layout(candidate: PromptCandidate, signature: Signature) -> Parts:
    seen, reasoning = _seen(candidate, signature)[0], TECHNIQUES[candidate.technique].reasoning
    inputs, outputs = ([field.name for field in fields] for fields in (seen.inputs, seen.outputs))
    return row_layout(candidate.format, inputs, outputs, reasoning=reasoning)


def answer_of(demo: Demo, signature: Signature, reasoning: bool) -> str:
    """Return the assistant's turn of a demo in our own layouts."""
    outputs = [field.name for field in signature.outputs]
    return answer_text(outputs, demo.outputs, demo.rationale, reasoning=reasoning)


def _worked(demo: Demo, signature: Signature, reasoning: bool) -> str:
    inputs = {field.name: demo.inputs[field.name] for field in signature.inputs}
    outputs = [field.name for field in signature.outputs]
    return worked_text(inputs, outputs, demo.outputs, demo.rationale, reasoning=reasoning)


# -- DSPy's adapters ---------------------------------------------------------------------------------------------------


def _sentinel(name: str) -> str:
    # private-use characters that no row holds
    return f"\ue0f7{name}\ue0f8"


def _dspy_template(candidate: PromptCandidate, signature: Signature) -> tuple[Message, ...]:
    inputs, names = [field.name for field in signature.inputs], _names(candidate, signature)
    messages = []
    for message in dspy_messages(candidate, signature, {name: _sentinel(name) for name in inputs}):
        parts: Parts = [message.content]
        for name in inputs:
            parts = [piece for part in parts for piece in _cut(part, _sentinel(name), name)]
        messages.append(Message(message.role, join(parts, names)))
    for name in candidate.marks("examples"):
        messages.insert(-1, Message("user", placeholder(name)))
    for name in candidate.marks("context"):
        messages[-1] = Message(messages[-1].role, f"{placeholder(name)}\n\n{messages[-1].content}")
    return tuple(messages)


def _cut(part: str | tuple[str], sentinel: str, name: str) -> Parts:
    if isinstance(part, tuple):
        return [part]
    pieces: Parts = []
    for number, text in enumerate(part.split(sentinel)):
        pieces += [(name,), text] if number else [text]
    return pieces


def _dspy_demo(candidate: PromptCandidate, demo: Demo, signature: Signature) -> tuple[str, str]:
    alone = PromptCandidate(candidate.technique, candidate.format, candidate.instruction, candidate.role, demos=(demo,))
    *_, user, assistant, _ = dspy_messages(alone, signature, {field.name: "" for field in signature.inputs})
    return user.content, assistant.content


def dspy_messages(candidate: PromptCandidate, signature: Signature, inputs: Mapping[str, str]) -> tuple[Message, ...]:
    """Return the messages that DSPy itself sends for this candidate and row."""
    require("dspy", f"the layout {candidate.format}")
    from dspy.adapters import ChatAdapter, JSONAdapter, XMLAdapter

    adapter = {"dspy-chat": ChatAdapter, "dspy-json": JSONAdapter, "dspy-xml": XMLAdapter}[candidate.format]()
    reasoning = TECHNIQUES[candidate.technique].reasoning
    opening = f"{candidate.role.strip()}\n\n" if candidate.role.strip() else ""
    program = dspy_signature(signature, f"{opening}{candidate.instruction.strip()}", reasoning=reasoning)
    demos = [
        {**demo.inputs, **({"reasoning": demo.rationale} if reasoning else {}), **demo.outputs}
        for demo in candidate.demos
    ]
    sent = adapter.format(program, demos, dict(inputs))
    return tuple(Message(message["role"], message["content"]) for message in sent)


def dspy_signature(signature: Signature, instruction: str, *, reasoning: bool = False) -> Any:
    """Make the DSPy Signature of fields and an instruction. Every field is text to DSPy."""
    import dspy

    fields: dict[str, Any] = {
        field.name: (str, dspy.InputField(desc=field.description or field.name)) for field in signature.inputs
    }
    if reasoning:
        fields["reasoning"] = (str, dspy.OutputField(desc="your reasoning, step by step"))
    for field in signature.outputs:
        fields[field.name] = (str, dspy.OutputField(desc=_described(field)))
    return dspy.make_signature(fields, instruction)


def _described(field: Field) -> str:
    if field.choices:
        return f"one of: {'; '.join(field.choices)}"
    return field.description or {"number": "a number", "json": "a JSON object", "text": field.name}.get(
        field.type, field.name
    )
