"""Rules between the keys of task.toml: signature, fields, metrics, parts and limits.

Reads no files and no rows.
"""

from __future__ import annotations

import ast
import math
import re
import warnings
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent.extras import command, is_here
from agent.metrics.metric_registry import METRICS
from agent.retrieval.passages import CONTEXT
from agent.safe_data import KeyPath, walk
from agent.safe_text import listed, near, quoted, refused
from agent.shipped import fold
from agent.types import Field, FieldType, FormatName, MetricSpec, TechniqueName

if TYPE_CHECKING:
    from agent.task.schema import FieldTable, TaskFile
    from agent.task.task_file import Parsed


@dataclass(frozen=True, slots=True)
class Fault:
    """A problem at a key of task.toml; `holding` is a text that locates its line."""

    path: KeyPath
    what: str
    holding: str = ""


DEFAULTS: dict[FieldType, tuple[tuple[str, float], ...]] = {
    "choice": (("choice", 1.0),),
    "number": (("numeric", 1.0),),
    "json": (("json_schema", 0.3), ("json_fields", 0.7)),
    "text": (("exact_match", 1.0),),
}
TOOL_FORMATS: tuple[FormatName, ...] = ("turns", "labelled-turns")
"""Layouts for prompts with tools: the calls of an example are a separate turn."""
CONVERSATION_FORMATS: tuple[FormatName, ...] = ("turns", "inline")
"""Layouts that send a conversation as messages; examples come before it or in the system message."""
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
PLACEHOLDER = re.compile(r"\{\{\s*+((?:[^\s{}]++(?:\s++(?=[^\s{}]))?)*+)\s*+\}\}")


def parse_signature(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of inputs and outputs. Raises ValueError.

    >>> parse_signature("a, b -> c")
    (('a', 'b'), ('c',))
    """
    sides = text.split("->")
    if len(sides) != 2:
        raise ValueError(f'signature = {quoted(text)} needs one arrow; write "input, input -> output"')
    inputs, outputs = (tuple(name.strip() for name in side.split(",")) for side in sides)
    names = inputs + outputs
    for name in names:
        if not _NAME.fullmatch(name):
            raise ValueError(f"signature: {quoted(name)} is no field name; write letters, digits and _ (64 at most)")
        if name == "id":
            raise ValueError("signature: 'id' is the row's own name and cannot be a field; rename the field")
        if names.count(name) > 1:
            raise ValueError(f"signature: the field {quoted(name)} is named twice; write each field once")
    return inputs, outputs


def check_keys(parsed: Parsed, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> Iterator[Fault]:
    """Check keys but [[metrics]] against each other; `inputs` is () for a wrong signature."""
    yield from _check_fields(parsed, inputs, outputs)
    if inputs:
        yield from _check_parts(parsed, inputs, outputs)
        if not parsed.doubts("slices"):
            yield from _check_slices(parsed.file, inputs + outputs)
        if not parsed.doubts("instruction"):
            yield from _check_instruction(parsed.file, inputs, outputs)
    if not parsed.doubts("search") and not parsed.doubts("constraints"):
        yield from _check_limits(parsed.file)


def _check_fields(parsed: Parsed, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> Iterator[Fault]:
    names = inputs + outputs
    for name, table in parsed.file.fields.items():
        if names and name not in names:
            yield Fault(("fields", name), f"the field {quoted(name)} is not in the signature{near(name, names)}")
        if not parsed.doubts("fields", name):
            faults = _field_faults(table, f"the field {quoted(name)}", name in inputs)
            yield from (Fault(("fields", name, key), what) for key, what in faults)
            if table.optional and (name in outputs or table.type != "text" or len(inputs) == 1):
                what = f"the field {quoted(name)} cannot be empty; optional is for texts among several inputs"
                yield Fault(("fields", name, "optional"), what)


def _field_faults(table: FieldTable, this: str, is_input: bool) -> _Faults:
    typed = f"{this} has type {table.type}"
    if table.type != "choice" and table.choices:
        yield "choices", f'{typed} and choices; set type = "choice" or remove them'
    elif table.type == "choice" and len(table.choices) < 2:
        yield "choices", f"{typed} and the choices {table.choices}; list two or more"
    seen: dict[str, str] = {}
    for choice in table.choices if table.type == "choice" else ():
        if choice != choice.strip():
            yield "choices", f"the choice {quoted(choice)} has spaces around it; remove them"
        if first := seen.get(fold(choice)):
            yield "choices", f"the choice {quoted(choice)} is the same as {quoted(first)} before; keep one"
        seen.setdefault(fold(choice), choice)
    if table.schema_ is not None and table.type != "json":
        yield "schema", f'{typed} and a schema; set type = "json" or remove the schema'
    for key in ("min_words", "max_words", "forbidden", "required"):
        if getattr(table, key) and is_input:
            yield key, f"{this} is an input; {key} is for outputs"
        elif getattr(table, key) and table.type != "text":
            yield key, f"{typed}; {key} is for text, so remove it"
    if (table.min_words or 0) > (table.max_words or math.inf):
        yield "min_words", f"min_words = {table.min_words} is above max_words = {table.max_words}; swap them"
    for wanted in table.required:
        if banned := next((text for text in table.forbidden if text.casefold() in wanted.casefold()), None):
            yield "required", f"{quoted(wanted)} is required, and {quoted(banned)} forbidden; remove one of them"


def _check_instruction(file: TaskFile, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> Iterator[Fault]:
    marks = (*inputs, CONTEXT) if file.knowledge.path is not None else inputs
    for found in PLACEHOLDER.finditer(file.instruction):
        if found[1] not in marks:
            what = "an output" if found[1] in outputs else "for passages of [knowledge]" if found[1] == CONTEXT else ""
            what = f"{what}; fill in inputs: {listed(inputs)}" if what else f"not a field{near(found[1], inputs)}"
            said = f"the instruction holds {quoted(found[0])}, which is {what}"
            yield Fault(("instruction",), said, holding=found[0])


DEMO_TECHNIQUES = frozenset[TechniqueName](("few-shot", "few-shot-cot"))
"""Techniques that a played conversation cannot use: its rows hold no replies."""


def _check_parts(parsed: Parsed, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> Iterator[Fault]:
    file = parsed.file
    found = [*_conversation_faults(file, inputs, outputs)]
    if "knowledge" in file.model_fields_set:
        found += _knowledge_faults(file, inputs, inputs + outputs)
    if file.tools is not None:
        found += _tool_faults(file, outputs)
    if "conversation" in file.model_fields_set and not parsed.doubts("conversation"):
        found += _user_faults(file, inputs)
        for index, options in enumerate(parsed.options):
            if getattr(options, "mode", "") == "pairwise":
                yield Fault(("metrics", index, "mode"), "mode = 'pairwise' needs the same messages; take another mode")
    yield from (Fault(tuple(place.split(".")), what) for place, what in found)


_Faults = Iterator[tuple[str, str]]
"""Dotted key and problem."""


def _knowledge_faults(file: TaskFile, inputs: tuple[str, ...], names: tuple[str, ...]) -> _Faults:
    table = file.knowledge
    if table.path is None:
        yield "knowledge", "the key 'path' is missing; write the folder of the documents"
    if CONTEXT in names:
        yield "signature", f"the field {quoted(CONTEXT)} is called as the place of passages; rename it"
    if table.source in inputs:
        yield "knowledge.source", f"source = {quoted(table.source)} is an input, which the model sees"
    if table.source == "id" or (table.source and table.source not in names and not _NAME.fullmatch(table.source)):
        yield "knowledge.source", f"source = {quoted(table.source)} cannot be a column; write letters, digits and _"
    if file.program:
        yield "knowledge", "[knowledge] works with a prompt, not with program; take one of them out"


def _tool_faults(file: TaskFile, outputs: tuple[str, ...]) -> _Faults:
    table = file.fields.get(outputs[0]) if len(outputs) == 1 else None
    if table is None or table.type != "json":
        yield "tools", 'the answer of a task with tools is a list of calls: one output, of type = "json"'
    if file.program:
        yield "tools", "tools work with a prompt, not with program; take one of them out"
    if _lacks_layout(file, TOOL_FORMATS):
        yield "search.formats", f"a prompt with tools has one of the layouts {listed(TOOL_FORMATS)}"


def _lacks_layout(file: TaskFile, usable: Sequence[FormatName]) -> bool:
    return "formats" in file.search.model_fields_set and not set(file.search.formats) & set(usable)


def _has_mark(file: TaskFile, name: str) -> bool:
    return any(found[1] == name for found in PLACEHOLDER.finditer(file.instruction))


def _conversation_faults(file: TaskFile, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> _Faults:
    for name in (name for name, table in file.fields.items() if table.type == "conversation"):
        if name in outputs:
            yield f"fields.{name}.type", "a conversation is an input; the answer to it is a text or a label"
        if name in inputs and len(inputs) > 1:
            yield "signature", "a conversation must be the only input; put the rest into a system message"
        if _has_mark(file, name):
            yield "instruction", f"the messages come after the instruction; take {{{{{name}}}}} out"
        if file.program:
            yield "program", "a program of your own takes texts; write the conversation as a field of type text"
        if _lacks_layout(file, CONVERSATION_FORMATS):
            yield "search.formats", f"a conversation is sent in one of the layouts {listed(CONVERSATION_FORMATS)}"


def _user_faults(file: TaskFile, inputs: tuple[str, ...]) -> _Faults:
    table, name = file.conversation, inputs[0]
    kind = file.fields[name].type if name in file.fields else "text"
    if len(inputs) > 1:
        yield "signature", "[conversation] takes one input: the goal of the user, or the list of its messages"
    if table.user and kind != "text":
        yield f"fields.{name}.type", f"the goal of the user is a text; remove type from [fields.{name}]"
    if not table.user and kind != "conversation":
        yield "conversation", f'the messages of the user need type = "conversation" below [fields.{name}]'
    if table.user and _has_mark(file, name):
        yield "instruction", f"the instruction holds {{{{{name}}}}}, the goal that only the user knows; take it out"
    if table.user and not table.prompt:
        yield "conversation", "the key 'prompt' is missing; describe the user that the model plays"
    if not table.user and (given := table.model_fields_set & {"prompt", "max_turns", "stop"}):
        yield f"conversation.{min(given)}", f"{min(given)} is for a model that plays the user; name it: user = ..."
    if "techniques" in file.search.model_fields_set and not set(file.search.techniques) - DEMO_TECHNIQUES:
        yield "search.techniques", "a task with [conversation] has no examples; add another technique"
    for what, is_there in (("tools", file.tools is not None), ("knowledge", file.knowledge.path is not None)):
        if is_there:
            yield what, f"[conversation] does not work with {what} yet; take one of them out"
    if file.program:
        yield "program", "a program of your own makes its calls itself; take [conversation] out"


def check_metrics(parsed: Parsed, outputs: Sequence[Field], unsure: Collection[str]) -> Iterator[Fault]:
    """Check [[metrics]] against the outputs; `unsure` are outputs with a wrong definition."""
    fields = {field.name: field for field in outputs}
    for index, (metric, options) in enumerate(zip(parsed.file.metrics, parsed.options, strict=True)):
        path = ("metrics", index)
        if (*path, "name") in parsed.broken or path in parsed.broken:
            continue  # a stand-in
        rule = METRICS.get(metric.name)
        field = None
        if metric.field is None and len(fields) > 1:
            yield Fault(path, f"the metric {metric.name} has no field; write field = one of {listed(fields)}")
        elif metric.field is not None and metric.field not in fields:
            yield Fault((*path, "field"), f"{quoted(metric.field)} is not an output{near(metric.field, fields)}")
        else:
            name = metric.field or next(iter(fields))
            field = None if name in unsure else fields[name]
            if field is not None and field.type not in rule.types:
                fits = listed(name for name, rule in METRICS.usable().items() if field.type in rule.types)
                what = f"the metric {metric.name} does not fit the type {field.type} of {quoted(name)}; take {fits}"
                yield Fault((*path, "name"), what)
        if rule.needs and not any(n in metric.given or (*path, n) in parsed.broken for n in rule.needs):
            yield Fault(path, f"the metric {metric.name} needs {' or '.join(rule.needs)}; write it below the name")
        for key, what in rule.faults(options, field):
            yield Fault((*path, key) if key else path, what)
        if getattr(options, "mode", "") == "faithfulness" and parsed.file.knowledge.path is None:
            yield Fault((*path, "mode"), "mode = 'faithfulness' needs [knowledge]; write it, or take another mode")


def _check_slices(file: TaskFile, fields: tuple[str, ...]) -> Iterator[Fault]:
    for name in file.slices:
        if file.slices.count(name) > 1:
            yield Fault(("slices",), f"slices holds {quoted(name)} twice; keep one")
            return
        if name == "id" or (name not in fields and not _NAME.fullmatch(name)):
            yield Fault(("slices",), f"slices: {quoted(name)} cannot be a column; write letters, digits and _")


def _check_limits(file: TaskFile) -> Iterator[Fault]:
    fewest, cap = min(file.search.demo_counts), file.constraints.max_examples
    if cap is not None and cap < fewest and any("few-shot" in technique for technique in file.search.techniques):
        what = f"max_examples = {cap} is below all demo_counts (from {fewest}); raise it"
        yield Fault(("constraints", "max_examples"), what)
    if file.search.descriptions_only and (file.tools is None or set(file.search.techniques) != {"zero-shot"}):
        what = 'descriptions_only needs tools, and techniques = ["zero-shot"]; write them, or take it out'
        yield Fault(("search", "descriptions_only"), what)
    if "few-shot-cot" in file.search.techniques and "chain-of-thought" not in file.search.techniques:
        yield Fault(("search", "techniques"), "few-shot-cot needs the solutions of chain-of-thought; add it, too")
    for key in ("techniques", "formats", "demo_counts", "roles"):
        words: list[Any] = getattr(file.search, key)
        twice = next((word for word in words if words.count(word) > 1), None)
        if twice is not None:
            yield Fault(("search", key), f"{key} holds {quoted(twice)} twice; keep one")
    if "formats" in file.search.model_fields_set and (names := without_dspy(file.search.formats)):
        yield Fault(("search", "formats"), f"{quoted(names[0])} needs dspy: {command('dspy')}, or take it out")


def without_dspy(formats: Sequence[FormatName]) -> tuple[FormatName, ...]:
    """Return the formats that need DSPy when it is not installed."""
    return () if is_here("dspy") else tuple(name for name in formats if name.startswith("dspy-"))


def metric_specs(parsed: Parsed, outputs: Sequence[Field]) -> tuple[MetricSpec, ...]:
    """Return the metrics of a checked file or the defaults, with normalised weights."""
    specs = []
    for metric, options in zip(parsed.file.metrics, parsed.options, strict=True):
        given = {key: getattr(options, key) for key in sorted(metric.given)}
        specs.append(MetricSpec(metric.name, metric.field or outputs[0].name, metric.weight, given))
    if not specs and parsed.file.tools is not None:
        specs = [MetricSpec("tool_calls", outputs[0].name, 1.0)]
    if not specs:
        specs = [
            MetricSpec(name, field.name, weight)
            for field in outputs
            for name, weight in DEFAULTS[field.type]
            if name != "json_schema" or field.has_schema
        ]
    total = sum(spec.weight for spec in specs)
    return tuple(MetricSpec(spec.name, spec.field, spec.weight / total, spec.options) for spec in specs)


def find_nul(raw: dict[str, Any]) -> Iterator[Fault]:
    for key, value in raw.items():
        for part, _ in walk({key: value}):
            if isinstance(part, str) and "\x00" in part:
                yield Fault((key,), f"{quoted(part)} holds a NUL character; remove it", holding="\\u0000")


def statements_of(source: str | bytes, where: str) -> list[ast.stmt]:
    """Parse a Python file without running it. Raises ProblemsError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(source).body
    except SyntaxError as error:
        raise refused(where, error.lineno or 1, f"not valid Python: {error.msg}; correct this line") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise refused(where, 1, f"not usable Python ({type(error).__name__}); make it simpler") from None


def function_in(
    source: str, name: str, where: str, fix: str, arguments: int | None = None, may_wait: bool = False
) -> None:
    """Require a function or class in a Python file, unrun; `fix`: what to write. Raises ProblemsError."""
    for node in reversed(statements_of(source, where)):
        if isinstance(node, ast.AsyncFunctionDef) and not may_wait:
            continue
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name == name:
            given = None if isinstance(node, ast.ClassDef) else len(node.args.posonlyargs + node.args.args)
            if arguments not in (None, given):
                raise refused(where, node.lineno, f"{name} must take {arguments} arguments; {fix}")
            return
    raise refused(where, 1, f"no function {name}; {fix}")
