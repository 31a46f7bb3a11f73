"""Labels that people give to rows: labels.jsonl in a task folder, which only grows.

    {"row": "row_1f...", "label": "bug", "labeller": "ann", "time": "...", "chosen": "spread", "split": "train",
     "prev": "..."}
    {"row": "row_1f...", "undo": true, "labeller": "ann", "time": "...", "prev": "..."}

Each line holds the SHA-256 of the line before, so that a line that was changed or taken out later is seen. An undo
takes back the labeller's last label that stands. The first label of a row says the split that the row has from then
on. Several processes may write: each appends under a lock.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agent.errors import InputError, ProblemsError
from agent.task.input_files import decode, parse_json
from agent.task.words import problem, quoted, shown

LABELS_FILE = "labels.jsonl"
LONGEST_NAME = 100
SPREAD, DISAGREEMENT, CONFIRMED = "spread", "disagreement", "confirmed"
"""How a row was chosen: far from those that have a label, because prompts answered it differently, or by feedback that
confirmed its answer."""
LEFT_OUT = "none"
"""The split of a row that is left out, as a near-duplicate."""


@dataclass(frozen=True, slots=True)
class LabelEvent:
    """One line: a label, or with None an undo. `time`: UTC, ISO 8601; `chosen` as above; `split`: that of the row, at
    its first label: train, dev, test or LEFT_OUT."""

    row: str
    label: str | None
    labeller: str
    time: str
    chosen: str = ""
    split: str = ""


Place = Callable[[Sequence[LabelEvent], Sequence[LabelEvent]], Sequence[LabelEvent]]
"""Takes the events so far and labels to add; returns these labels with their splits."""


def standing(events: Iterable[LabelEvent]) -> dict[str, dict[str, LabelEvent]]:
    """Return the labels that stand after these events; of a row the labellers in the order of their last label."""
    found: dict[str, dict[str, LabelEvent]] = {}
    stacks = _not_taken_back(events).values()
    for _, event in sorted((each for stack in stacks for each in stack), key=lambda each: each[0]):
        of_row = found.setdefault(event.row, {})
        of_row.pop(event.labeller, None)
        of_row[event.labeller] = event
    return found


def _not_taken_back(events: Iterable[LabelEvent]) -> dict[str, list[tuple[int, LabelEvent]]]:
    """By labeller the labels that no undo took back, each with its number, in their order."""
    stacks: dict[str, list[tuple[int, LabelEvent]]] = {}
    for number, event in enumerate(events):
        stack = stacks.setdefault(event.labeller, [])
        if event.label is not None:
            stack.append((number, event))
        elif stack:
            stack.pop()
    return stacks


def first_labels(events: Iterable[LabelEvent]) -> dict[str, LabelEvent]:
    """Return by row its first label, taken back or not, in their order."""
    found: dict[str, LabelEvent] = {}
    for event in events:
        if event.label is not None:
            found.setdefault(event.row, event)
    return found


def agreed(of_row: Mapping[str, LabelEvent]) -> str | None:
    """Return the label that more labellers gave than any other; None where two labels have as many."""
    counts = Counter(event.label for event in of_row.values()).most_common(2)
    return None if not counts or (len(counts) > 1 and counts[0][1] == counts[1][1]) else counts[0][0]


class LabelLog:
    """The file. While no other process can write, `place` gives labels that are added their splits, and `then` gets all
    events after them."""

    def __init__(
        self,
        path: Path,
        then: Callable[[Sequence[LabelEvent]], None] = lambda events: None,
        place: Place = lambda events, added: added,
    ) -> None:
        self.path, self._then, self._place = path, then, place

    def events(self) -> list[LabelEvent]:
        """Read all events. Raises ProblemsError for a line that is not as it was written; a last line without its end
        was cut off while it was written, and is left out."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._unwritable(error) from error
        return self._parsed(data[: data.rfind(b"\n") + 1])

    def add(self, row: str, label: str, labeller: str, chosen: str) -> LabelEvent:
        """Append a label; it is on the disk when this returns. Raises InputError for an unusable name."""
        return self.add_all([(row, label)], labeller, chosen)[0]

    def add_all(self, labels: Sequence[tuple[str, str]], labeller: str, chosen: str) -> list[LabelEvent]:
        """Append labels of several rows in one write."""
        name, time = labeller_name(labeller), _now()
        added = [LabelEvent(row, label, name, time, chosen) for row, label in labels]
        return self._append(lambda events: self._place(events, added))

    def undo(self, labeller: str) -> LabelEvent | None:
        """Take back the last label of this labeller that stands; None where there is none."""
        name, taken = labeller_name(labeller), list[LabelEvent]()

        def made(events: Sequence[LabelEvent]) -> list[LabelEvent]:
            taken.extend(event for _, event in _not_taken_back(events).get(name, [])[-1:])
            return [LabelEvent(each.row, None, name, _now()) for each in taken]

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
                if len(whole) < len(data):  # of a process that was killed in the line
                    file.truncate(len(whole))
                before = _hash(whole.splitlines()[-1]) if whole else ""
                for event in added:
                    file.write(line := _line(event, before))
                    before = _hash(line[:-1])
                file.flush()
                os.fsync(file.fileno())
                self._then([*events, *added])
                return added
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> InputError:
        return InputError(f"{shown(self.path)}: cannot be read and written ({error.strerror}); mend its permissions")

    def _parsed(self, data: bytes) -> list[LabelEvent]:
        where = shown(self.path)
        lines, problems = decode(data, where)
        raw, events, before = data.split(b"\n"), list[LabelEvent](), ""
        for number, line in enumerate(lines[:-1] if not problems else [], start=1):
            try:
                event, prev = _event(parse_json(line or ""))
            except ValueError as error:
                problems.append(problem(where, number, f"is no label as it was written: {error}"))
                break
            if prev != before:
                what = "the line before is not the one that was there when this one was written"
                problems.append(problem(where, number, f"{what}; put labels.jsonl back as it was"))
                break
            events.append(event)
            before = _hash(raw[number - 1])
        if problems:
            raise ProblemsError(tuple(problems))
        return events


def labeller_name(name: str) -> str:
    """Return a labeller's name as it is kept. Raises InputError for one that is empty, too long or not printable."""
    name = name.strip()
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise InputError(f"--labeller {quoted(name)}: give a name or initials of 1 to {LONGEST_NAME} printable letters")
    return name


def _event(value: Any) -> tuple[LabelEvent, str]:
    if not isinstance(value, dict):
        raise ValueError(f"{quoted(value)} is no object")
    texts = {name: value.get(name) for name in ("row", "labeller", "time", "prev")}
    if wrong := [name for name, text in texts.items() if not isinstance(text, str)]:
        raise ValueError(f"no text under {quoted(wrong[0])}")
    label = None if value.get("undo") is True else value.get("label")
    if value.get("undo") is not True and not isinstance(label, str):
        raise ValueError("neither a label nor an undo")
    more = [str(value.get(name, "")) for name in ("chosen", "split")]
    return LabelEvent(value["row"], label, value["labeller"], value["time"], *more), value["prev"]


def _line(event: LabelEvent, before: str) -> bytes:
    given = {"undo": True} if event.label is None else {"label": event.label}
    more = {name: text for name, text in (("chosen", event.chosen), ("split", event.split)) if text}
    row = {"row": event.row, **given, "labeller": event.labeller, "time": event.time, **more, "prev": before}
    return json.dumps(row, ensure_ascii=False).encode("utf-8") + b"\n"


def _hash(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
