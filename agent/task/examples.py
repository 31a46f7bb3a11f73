"""Rows checked against a signature: each becomes an `Example`, or a problem with its value and line."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

from agent.conversation import as_text, read_turns, waiting_text
from agent.documents import Knowledge
from agent.errors import Problem
from agent.safe_data import parse_cell
from agent.safe_text import listed, near, problem, quoted
from agent.shipped import MAX_NUMBER, fold, label_text
from agent.task.answers import parse_number
from agent.task.tables import Rows
from agent.types import Example, Field, Signature, canonical, content_id

PLAYED = "its rows are conversations that continue with the model's own replies"
"""Why a task with [conversation] is refused, for a message."""


def messages_in(value: Any) -> Any:
    """Return a cell, parsed if it is a JSON list. Raises ValueError."""
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return value
    return parse_cell(value, "write the list of messages")


def conversation_text(value: Any) -> str:
    return waiting_text(messages_in(value))


def reader_of(values: Sequence[Any], cells: bool) -> Callable[[Any], str]:
    """Return the reader of a conversation column, by the form of most cells."""
    return _listed_text if cells and _are_conversations([value for value in values if value]) else waiting_text


def script_text(value: Any) -> str:
    """Return a list of user messages as text. Raises ValueError."""
    found = messages_in(value)
    if isinstance(found, list):
        found = [{"role": "user", "content": each} if isinstance(each, str) else each for each in found]
    turns = read_turns(found)
    if others := [f"message {n} is the {role}'s" for n, (role, _) in enumerate(turns, 1) if role == "assistant"]:
        raise ValueError(f"{'; '.join(others)}; the model replies by itself, so write the user's messages alone")
    if any(role == "system" for role, _ in turns[1:]) or turns[-1][0] == "system":
        raise ValueError("a system message must come first, before those of the user")
    return as_text(turns)


def goal_text(value: Any) -> str:
    """Return the goal of a simulated user. Raises ValueError."""
    if not isinstance(value, str):
        raise ValueError(f"{quoted(value)} is not a text; put it in quotes")
    return value


Faults = dict[tuple[str, str], list[int]]
"""Lines by column and problem."""


def conversations_in(rows: Rows, names: Iterable[str]) -> tuple[Rows, frozenset[str], Faults]:
    """Convert columns of message lists to text; also return their names and problems."""
    found = frozenset(
        name for name in names if _are_conversations([row[name] for _, row in rows if _is_filled(row, name)])
    )
    made: Rows = []
    wrong: Faults = {}
    for line, row in rows:
        texts = {}
        for name in found:
            if _is_filled(row, name):
                try:
                    texts[name] = _listed_text(row[name])
                except ValueError as error:
                    wrong.setdefault((name, f"{name}: {error}"), []).append(line)
        made.append((line, {**row, **texts}))
    return made, found, wrong


def _is_filled(row: Mapping[str, Any], name: str) -> bool:
    value = row.get(name)
    return bool(value.strip() if isinstance(value, str) else value)


def _are_conversations(values: Sequence[Any]) -> bool:
    count = 0
    for value in values:
        with suppress(ValueError):
            messages = messages_in(value)
            is_list = isinstance(messages, list) and bool(messages)
            count += is_list and all(isinstance(each, dict) and "role" in each for each in messages)
    return bool(values) and 2 * count >= len(values)


def _listed_text(value: Any) -> str:
    found = messages_in(value)
    if isinstance(found, str):
        raise ValueError(f"{quoted(found, 60)} is no list of messages, as in other rows; write [{{...}}, ...]")
    return waiting_text(found)


# -- rows against a signature ------------------------------------------------------------------------------------------


SOURCES_JOINT = ";"
"""Separator of the documents of a row."""
MOST_LISTED = 20  # wrong values of a column and file that are listed one by one


@dataclass(frozen=True, slots=True)
class PlacedExample:
    """An example with the file and line of its row."""

    where: str
    line: int
    example: Example


def json_checker(schema: str) -> Callable[[Any], str]:
    """Return a function from a value to its problem under a JSON schema, or ""."""
    from jsonschema.exceptions import best_match

    from agent.metrics.json_values import schema_validator

    validator = schema_validator(json.loads(schema))

    def check(value: Any) -> str:
        try:
            error = best_match(validator.iter_errors(value))
        except Exception as failure:
            return f"cannot be checked ({type(failure).__name__}: {str(failure)[:200]}); correct the schema"
        if error is None:
            return ""
        return f"does not fit the schema at {error.json_path}: {error.message[:200]}; correct the label or the schema"

    return check


class RowReader:
    """Reader of rows as examples; `unsure` fields are not checked, `checkers` replace schemas."""

    def __init__(
        self,
        signature: Signature,
        slices: Sequence[str] = (),
        knowledge: Knowledge | None = None,
        unsure: frozenset[str] = frozenset(),
        read_conversation: Callable[[Any], str] = conversation_text,
        checkers: Mapping[str, Callable[[Any], str]] | None = None,
    ) -> None:
        self._signature = signature
        self._slices = [name for name in slices if name != "id"]
        self._sources = knowledge.source if knowledge else ""
        self._documents = tuple(document.name for document in knowledge.documents) if knowledge else ()
        self._read_conversation = read_conversation
        self._fields = {field.name: field for field in signature.inputs + signature.outputs}
        self._unsure = unsure
        self._near = cache(near)  # one mistake may be in thousands of rows
        self._checkers = {
            name: json_checker(field.schema)
            for name, field in self._fields.items()
            if field.schema is not None and name not in unsure
        } | dict(checkers or {})

    def examples(self, rows: Rows, where: str, cells: bool) -> tuple[list[PlacedExample], list[Problem]]:
        """Return the valid rows as examples, and each problem of the others once."""
        if cells and rows and (header := list(self._columns(self._header(rows[0][1])))):
            return [], [problem(where, 1, f"{what} (header)") for what in header]
        placed = []
        lines_by_fault: dict[tuple[str, str], list[int]] = {}
        for line, given_row in rows:
            row = self._with_answer(given_row)
            wrong = [("", what) for what in self._columns(row)]
            values = {}
            for name in filter(row.__contains__, self._fields):
                try:
                    values[name] = self._value(self._fields[name], row[name], cells or name not in given_row)
                except ValueError as error:
                    wrong.append((name, f"{name}: {error}"))
            try:
                given = _row_id(row.get("id", ""), "id" in row and not cells)
            except ValueError as error:
                wrong.append(("id", str(error)))
            named = label_text(row.get(self._sources, "")).split(SOURCES_JOINT) if self._sources else []
            sources = tuple(name.strip() for name in named if name.strip())
            for name in (name for name in sources if self._documents and name not in self._documents):
                what = f"{self._sources}: {quoted(name)} is not a document{self._near(name, self._documents)}"
                wrong.append((self._sources, what))
            if wrong:
                for mistake in wrong:
                    lines_by_fault.setdefault(mistake, []).append(line)
            else:
                inputs = {field.name: label_text(values[field.name]) for field in self._signature.inputs}
                labels = {field.name: values[field.name] for field in self._signature.outputs}
                groups = {name: label_text(row[name]) for name in self._slices}
                example = Example(given or content_id("row", inputs), inputs, labels, groups, sources)
                placed.append(PlacedExample(where, line, example))
        return placed, list(listed_problems(lines_by_fault, where))

    def _header(self, row: dict[str, Any]) -> dict[str, Any]:
        outputs = [field.name for field in self._signature.outputs]
        is_answered = self._signature.conversation in row and len(outputs) == 1  # by the last message
        return row | dict.fromkeys(outputs if is_answered else ())

    def _with_answer(self, row: dict[str, Any]) -> dict[str, Any]:
        name, outputs = self._signature.conversation, self._signature.outputs
        is_read = self._read_conversation is conversation_text
        if is_read and name in row and len(outputs) == 1 and outputs[0].name not in row:
            with suppress(ValueError):  # said where its value is read
                *turns, (last, answer) = read_turns(messages_in(row[name]))
                if last == "assistant":
                    messages = [{"role": role, "content": content} for role, content in turns]
                    return {**row, name: messages, outputs[0].name: answer}
        return row

    def _columns(self, row: Mapping[str, Any]) -> Iterator[str]:
        known = dict.fromkeys([*self._fields, *self._slices, *([self._sources] if self._sources else [])])
        unknown = [name for name in row if name not in known and name != "id"]
        missing = [name for name in known if name not in row]
        for name in unknown:
            yield f"unknown column {quoted(name)}{self._near(name, (*known, 'id'))}"
        if missing:
            yield f"the column {listed(map(quoted, missing))} is missing; write it"

    def _value(self, field: Field, value: Any, cells: bool) -> Any:
        is_input = field in self._signature.inputs
        if is_input and (value is None or (isinstance(value, str) and not value.strip())):
            if field.optional:
                return ""
            raise ValueError("is empty; write the text or remove the row")
        if field.name in self._unsure:
            return value
        if field.type == "conversation":
            return self._read_conversation(value)
        if field.type == "number":
            number = parse_number(value) if cells and isinstance(value, str) else value
            if isinstance(number, bool) or not isinstance(number, int | float):
                raise ValueError(f"{quoted(value)} is not a number; write digits without quotes")
            if not is_input and abs(number) > MAX_NUMBER:
                fix = f'set type = "text" under [fields.{field.name}]{" and put it in quotes" * (not cells)}'
                raise ValueError(f"{quoted(value)} is beyond 1e15, and no reply is read as such a number; {fix}")
            return number
        if field.type == "json":
            value = parse_cell(value, "write JSON in the cell") if cells else value
            if (checker := self._checkers.get(field.name)) and (wrong := checker(value)):
                raise ValueError(f"{quoted(value)} {wrong}")
            return value
        if not isinstance(value, str):
            raise ValueError(f"{quoted(value)} is not a text; put it in quotes")
        if field.type == "choice" and value not in field.choices:
            raise ValueError(f"{quoted(value)} is not one of the choices{self._near(value, field.choices)}")
        return value


def listed_problems(lines_by_fault: Mapping[tuple[str, str], Sequence[int]], where: str) -> Iterator[Problem]:
    """List each problem once, at its first line, and at most MOST_LISTED of a column."""
    listed_of: Counter[str] = Counter()
    found: list[tuple[int, str]] = []
    more: dict[str, list[int]] = {}
    for (column, what), lines in lines_by_fault.items():
        listed_of[column] += 1
        if column and listed_of[column] > MOST_LISTED:
            more.setdefault(column, []).extend(lines)
        else:
            so_in = f" (so in {len(lines)} rows, this is the first)" if len(lines) > 1 else ""
            found.append((lines[0], what + so_in))
    for column, lines in more.items():
        rows = "1 more row" if len(lines) == 1 else f"{len(lines)} more rows"
        found.append((min(lines), f"{column}: wrong in {rows} from here on; correct those above first"))
    yield from (problem(where, line, what) for line, what in sorted(found, key=lambda each: each[0]))


def _row_id(value: Any, required: bool) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or (required and not value.strip()) or not value.isprintable():
        raise ValueError(f"id {quoted(value)} is not a text on one line; write one or leave id out")
    return value.strip()


def folded(inputs: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(fold(text) for text in inputs.values())


def find_clashes(splits: Iterable[Iterable[PlacedExample]]) -> list[Problem]:
    """Find repeated ids, and the same inputs in two splits or with two labels."""
    problems = []
    ids: dict[str, PlacedExample] = {}
    seen: dict[tuple[str, ...], PlacedExample] = {}
    for rows in splits:
        for row in rows:
            inputs = folded(row.example.inputs)
            twin, namesake = seen.setdefault(inputs, row), ids.setdefault(row.example.id, row)
            if twin.where != row.where:
                what = f"has the same inputs as {twin.where}:{twin.line}; keep the row in one split only"
            elif canonical(dict(twin.example.labels)) != canonical(dict(row.example.labels)):
                what = f"has the inputs of {twin.where}:{twin.line} with another label; correct one or remove both"
            elif namesake is not row:
                what = f"the id {quoted(row.example.id)} is that of {namesake.where}:{namesake.line}; write another"
            else:
                continue
            problems.append(problem(row.where, row.line, what))
    return problems
