"""The log of labels: a line of labels.jsonl per label or undo, chained by hashes."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agent.errors import InputError
from agent.safe_data import parse_data
from agent.safe_file import OutsideFile, decode
from agent.safe_text import quoted, shown

LONGEST_NAME = 100
SPREAD, DISAGREEMENT, CONFIRMED = "spread", "disagreement", "confirmed"
"""Why a row was chosen: far from labelled rows, prompts disagree, or feedback confirmed its answer."""


@dataclass(frozen=True, slots=True)
class LabelEvent:
    """A line of the log; `label` is None for an undo."""

    row: str
    label: str | None
    labeller: str
    time: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="microseconds"))
    chosen: str = ""
    split: str = ""

    def line(self, before: str) -> bytes:
        given = {"undo": True} if self.label is None else {"label": self.label}
        more = {name: text for name, text in (("chosen", self.chosen), ("split", self.split)) if text}
        row = {"row": self.row, **given, "labeller": self.labeller, "time": self.time, **more, "prev": before}
        return json.dumps(row, ensure_ascii=False).encode("utf-8") + b"\n"


Place = Callable[[Sequence[LabelEvent], Sequence[LabelEvent]], Sequence[LabelEvent]]
"""From the events so far and new labels to the new labels with their splits."""


def current_labels(events: Iterable[LabelEvent]) -> dict[str, dict[str, LabelEvent]]:
    """Return the labels after all undos, by row and labeller (latest last)."""
    found: dict[str, dict[str, LabelEvent]] = {}
    stacks = _not_taken_back(events).values()
    for _, event in sorted((each for stack in stacks for each in stack), key=lambda each: each[0]):
        of_row = found.setdefault(event.row, {})
        of_row.pop(event.labeller, None)
        of_row[event.labeller] = event
    return found


def _not_taken_back(events: Iterable[LabelEvent]) -> dict[str, list[tuple[int, LabelEvent]]]:
    stacks: dict[str, list[tuple[int, LabelEvent]]] = {}
    for number, event in enumerate(events):
        stack = stacks.setdefault(event.labeller, [])
        if event.label is not None:
            stack.append((number, event))
        elif stack:
            stack.pop()
    return stacks


def first_labels(events: Iterable[LabelEvent]) -> dict[str, LabelEvent]:
    """Return the first label of each row in order, even if undone."""
    found: dict[str, LabelEvent] = {}
    for event in events:
        if event.label is not None:
            found.setdefault(event.row, event)
    return found


def agreed(of_row: Mapping[str, LabelEvent]) -> str | None:
    """Return the majority label of a row, None for a tie."""
    counts = Counter(event.label for event in of_row.values()).most_common(2)
    return None if not counts or (len(counts) > 1 and counts[0][1] == counts[1][1]) else counts[0][0]


class LabelLog:
    """The log file; `place` sets splits and `then` gets all events, under its lock."""

    def __init__(
        self,
        path: Path,
        then: Callable[[Sequence[LabelEvent]], None] = lambda events: None,
        place: Place = lambda events, added: added,
    ) -> None:
        self.path, self._then, self._place = path, then, place

    def events(self) -> list[LabelEvent]:
        """Read all events but an unfinished last line. Raises ProblemsError for a changed line."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._unwritable(error) from error
        return self._parsed(data[: data.rfind(b"\n") + 1])

    def add(self, row: str, label: str, labeller: str, chosen: str) -> LabelEvent:
        return self.add_all([(row, label)], labeller, chosen)[0]

    def add_all(self, labels: Sequence[tuple[str, str]], labeller: str, chosen: str) -> list[LabelEvent]:
        """Append labels, synced to disk. Raises InputError for an unusable name."""
        name = labeller_name(labeller)
        added = [LabelEvent(row, label, name, chosen=chosen) for row, label in labels]
        return self._append(lambda events: self._place(events, added))

    def undo(self, labeller: str) -> LabelEvent | None:
        name, taken = labeller_name(labeller), list[LabelEvent]()

        def made(events: Sequence[LabelEvent]) -> list[LabelEvent]:
            taken.extend(event for _, event in _not_taken_back(events).get(name, [])[-1:])
            return [LabelEvent(each.row, None, name) for each in taken]

        self._append(made)
        return taken[0] if taken else None

    def _append(self, make: Callable[[Sequence[LabelEvent]], Sequence[LabelEvent]]) -> list[LabelEvent]:
        try:
            with os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "a+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                file.seek(0)
                data = file.read()
                whole = data[: data.rfind(b"\n") + 1]
                events = self._parsed(whole)
                if not (added := list(make(events))):
                    return []
                if len(whole) < len(data):  # a process was killed while it wrote this line
                    file.truncate(len(whole))
                before = _hash(whole.splitlines()[-1]) if whole else ""
                for event in added:
                    file.write(line := event.line(before))
                    before = _hash(line[:-1])
                file.flush()
                os.fsync(file.fileno())
                self._then([*events, *added])
                return added
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> InputError:
        return InputError(f"{shown(self.path)}: cannot be read and written ({error.strerror}); fix its permissions")

    def _parsed(self, data: bytes) -> list[LabelEvent]:
        source, events, before = OutsideFile(self.path, data), list[LabelEvent](), ""
        lines, source.problems = decode(data, source.where)
        source.refuse_all()
        for number, (line, raw) in enumerate(zip(lines[:-1], data.split(b"\n"), strict=False), start=1):
            try:
                event, prev = _event(parse_data(line or ""))
            except ValueError as error:
                raise source.refusal(number, f"not an unchanged line of the log: {error}") from None
            if prev != before:
                raise source.refusal(number, "the line before it was changed; restore labels.jsonl from a copy")
            events.append(event)
            before = _hash(raw)
        return events


def labeller_name(name: str) -> str:
    """Return a labeller's name, stripped. Raises InputError."""
    name = name.strip()
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise InputError(f"--labeller {quoted(name)}: give a name or initials of 1 to {LONGEST_NAME} printable letters")
    return name


def _event(value: Any) -> tuple[LabelEvent, str]:
    if not isinstance(value, dict):
        raise ValueError(f"{quoted(value)} is no object")
    is_undo = value.get("undo") is True
    for name in ("row", "labeller", "time", "prev") if is_undo else ("row", "labeller", "time", "prev", "label"):
        if not isinstance(value.get(name), str):
            raise ValueError(f"no text under {quoted(name)}")
    more = [str(value.get(name, "")) for name in ("chosen", "split")]
    label = None if is_undo else value["label"]
    return LabelEvent(value["row"], label, value["labeller"], value["time"], *more), value["prev"]


def _hash(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()
