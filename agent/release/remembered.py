"""Confirmed examples of one user or tenant, kept next to a released prompt and never in it.

A file for each user, named by a hash of the prompt's name and the user's, in the folder `remembered`: a row a line, as
JSON. It is written whole or not at all, by one writer at a time, and readable by its owner only. Imports the standard
library alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agent.conversation import worked_turns
from agent.errors import ReleaseError
from agent.prompt.parts.part import Row
from agent.prompt.reply_parser import broken_limit
from agent.prompt.template import PICKED, answer_text, fill, label_text, row_layout, worked_text
from agent.redact import rare_secrets_in, redact
from agent.release.prompt_file import PromptRelease
from agent.retrieval.pick import PoolRow, same_words, text_of
from agent.safe_data import parse_json, read_as
from agent.safe_file import disk_errors, new_file, read_file, sync_folder
from agent.shipped import MAX_NUMBER, Field, canonical, content_id

MOST_ROWS = 200
"""Rows of one user; the oldest are dropped."""
MOST_IN_ROW = 10_000
"""Characters of the inputs and answers of one row."""
MOST_IN_ALL = 1_000_000
"""Characters of all rows of one user; the oldest are dropped."""
MOST_IN_NAME = 1_000
_MAX_FILE = 16_000_000
_PATIENCE = 10.0  # seconds for another writer, which takes milliseconds


@dataclass(frozen=True, slots=True)
class RememberedRow:
    """A confirmed example: a text for each input, a value for each output, and when it was confirmed (UTC)."""

    inputs: Mapping[str, str]
    answers: Mapping[str, Any]
    time: str

    def size(self) -> int:
        """Count the characters of its inputs and answers."""
        return sum(map(len, self.inputs.values())) + sum(len(label_text(value)) for value in self.answers.values())


class RememberedRows:
    """The rows of one user (1 to 1,000 characters) of a released prompt, in a file of `folder`."""

    def __init__(self, release: PromptRelease, folder: Path, who: str) -> None:
        if not isinstance(who, str) or not 1 <= len(who) <= MOST_IN_NAME:
            raise ReleaseError(f"who is {who!r:.60}; give the id of the user as text of 1 to {MOST_IN_NAME} characters")
        self._release = release
        self._folder = folder
        named = canonical([release.name, who]).encode("utf-8", "surrogatepass")
        self.file = folder / f"{hashlib.sha256(named).hexdigest()}.jsonl"

    def read(self) -> list[RememberedRow]:
        """Read the rows, oldest first. Raises ReleaseError, with the line, for an edited file."""
        where, rows = f"{self.file}: cannot be read", []
        try:
            for number, line in enumerate(read_file(self.file, _MAX_FILE).splitlines(), start=1):
                where = f"{self.file}:{number}: is not a remembered row"
                rows.append(read_as(RememberedRow, parse_json(line), "the row"))
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise ReleaseError(f"{where} ({error}); restore it, or erase it with forget(who)") from None
        return rows

    def add(self, inputs: Mapping[str, str], answers: Mapping[str, Any]) -> None:
        """Store an example; it replaces one with the same inputs. Raises ReleaseError for one with a secret key."""
        row = RememberedRow(dict(inputs), dict(answers), datetime.now(UTC).isoformat(timespec="seconds"))
        if row.size() > MOST_IN_ROW:
            raise ReleaseError(
                f"cannot remember an example of {row.size():,} characters; at most {MOST_IN_ROW:,} are kept of one"
            )
        secrets = rare_secrets_in(os.environ)
        if any(redact(text, secrets) != text for text in (*inputs.values(), *map(label_text, answers.values()))):
            raise ReleaseError("cannot remember an example that seems to hold a secret key; remove the key")
        with self._alone():
            rows = [*(other for other in self.read() if other.inputs != row.inputs), row][-MOST_ROWS:]
            while sum(each.size() for each in rows) > MOST_IN_ALL:
                del rows[0]
            self._write(rows)

    def forget(self, inputs: Mapping[str, str] | None = None) -> int:
        """Erase all rows, or those with these inputs; return their number."""
        if not self._folder.is_dir():
            return 0
        with self._alone():
            for left in self._folder.glob(".new-*"):  # of a writer that was killed
                shutil.rmtree(left)
            if not self.file.exists():
                return 0
            if inputs is None:
                count, kept = self.file.read_bytes().count(b"\n"), []
            else:
                rows = self.read()
                kept = [row for row in rows if row.inputs != inputs]
                count = len(rows) - len(kept)
            if kept:
                self._write(kept)
            else:
                self.file.unlink()
                sync_folder(self._folder)  # after a power cut an erased file must not be there again
            return count

    def row(self, values: Mapping[str, str], vector: Sequence[float] | None = None) -> Row:
        """Return an input with the user's rows that fit the prompt. They are shown before others."""
        release, inputs, outputs = self._release, set(self._release.inputs), self._release.outputs
        rows = [row for row in self.read() if set(row.inputs) == inputs and not wrong_answers(outputs, row.answers)]
        answers = [{field: label_text(value) for field, value in row.answers.items()} for row in rows]
        shown = [demo_texts(release, row.inputs, texts) for row, texts in zip(rows, answers, strict=True)]
        return release.row(values, vector=vector, own=self._pool(rows), shown=shown)

    def _pool(self, rows: Sequence[RememberedRow]) -> list[PoolRow]:
        outputs = self._release.outputs
        label = outputs[0].name if len(outputs) == 1 and outputs[0].choices else ""
        made = []
        for row in rows:
            text = text_of(row.inputs, self._release.compared)
            name = content_id("remembered", dict(row.inputs))
            made.append(PoolRow(name, text, str(row.answers[label]) if label else "", f"own {same_words(text)}"))
        return made

    def _write(self, rows: Sequence[RememberedRow]) -> None:
        with new_file(self.file, private=True) as file:
            file.writelines(json.dumps(asdict(row)).encode("ascii") + b"\n" for row in rows)
        sync_folder(self._folder)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        try:
            import fcntl
        except ImportError:  # Windows
            raise ReleaseError("remembered rows need file locks, which this system lacks") from None
        fix = "make it writable, or name another folder with load_prompt(..., remembered=FOLDER)"
        with disk_errors(f"{self._folder}: cannot be written", fix):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(self._folder / ".lock", "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as lock:
                end = time.monotonic() + _PATIENCE
                while True:
                    try:
                        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        break
                    except BlockingIOError:
                        if time.monotonic() > end:
                            why = f"another program has held it for {_PATIENCE:g} seconds"
                            raise ReleaseError(f"{lock.name}: {why}; try again later") from None
                        time.sleep(0.005)
                yield


# -- a confirmed answer against the outputs of the prompt --------------------------------------------------------------

MOST_NAMED = 20


def answers_of(outputs: Sequence[Field], answer: Any) -> Mapping[str, Any]:
    """Return answers by output name; a single value belongs to the only output.

    A mapping is itself the value if the only output is JSON and its name is not the mapping's only key.

    >>> answers_of([Field("team")], "billing")
    {'team': 'billing'}
    """
    if len(outputs) != 1:
        return answer if isinstance(answer, Mapping) else {"": answer}
    (only,) = outputs
    if isinstance(answer, Mapping) and (only.type != "json" or set(answer) == {only.name}):
        return answer
    return {only.name: answer}


def wrong_answers(outputs: Sequence[Field], answers: Mapping[str, Any]) -> list[str]:
    """Return a phrase for each invalid value of the outputs."""
    names = [output.name for output in outputs]
    wrong = [f"{name} is missing" for name in names if name not in answers]
    wrong += [f"{name!r:.60} is unknown" for name in answers if name not in names]
    found = (_wrong(output, answers[output.name]) for output in outputs if output.name in answers)
    return [*wrong, *filter(None, found)]


def _wrong(field: Field, value: Any) -> str:
    if field.type == "number":
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MAX_NUMBER
        return "" if is_number else f"{field.name} is {value!r:.60}, not a number from -1e15 to 1e15"
    if field.type == "json":
        try:
            parse_json(json.dumps(value, allow_nan=False))  # also no two keys that are one as text
        except (TypeError, ValueError, RecursionError):
            return f"{field.name} is a {type(value).__name__} that is not JSON"
        return ""
    if not isinstance(value, str) or not value.strip():
        return f"{field.name} is {value!r:.60}, not a text"
    if field.type == "choice" and value not in field.choices:
        more = f" and {len(field.choices) - MOST_NAMED} more" if len(field.choices) > MOST_NAMED else ""
        return f"{field.name} is {value!r:.60}, not one of {', '.join(field.choices[:MOST_NAMED])}{more}"
    return broken_limit(field, value).rstrip(".")


# -- the texts of an example in the layout of the prompt, without the task and without DSPy ----------------------------

_VALUE = "\ue0f7"  # stands for every value while layouts are compared


def demo_texts(release: PromptRelease, inputs: Mapping[str, str], answers: Mapping[str, str]) -> tuple[str, ...]:
    """Lay out an example as the rows of the release's pool are."""
    inputs = {name: inputs[name] for name in release.inputs}
    names = [output.name for output in release.outputs]
    if release.format == "inline":
        return (f"{worked_text(inputs, names, answers)}\n\n",)
    if release.conversation:
        return *worked_turns(inputs[release.conversation]), answer_text(names, answers)
    if not release.format.startswith("dspy-"):
        return _user_turn(release, inputs, names), answer_text(names, answers)
    outputs = {name: answers[name] for name in names}
    if release.format == "dspy-xml":
        escaped = {name: text.replace("&", "&amp;").replace("<", "&lt;") for name, text in outputs.items()}
        return _tagged(inputs), _tagged(escaped)
    if release.format == "dspy-json":
        return _headed(inputs), json.dumps(outputs, indent=2, ensure_ascii=False)
    return _headed(inputs), f"{_headed(outputs)}\n\n[[ ## completed ## ]]\n"


def require_layout(release: PromptRelease) -> None:
    """Raise ReleaseError if `demo_texts` differs from the layout of the release's rows."""
    values = dict.fromkeys((*release.inputs, *(output.name for output in release.outputs)), _VALUE)
    made = demo_texts(release, values, values)
    if not all(map(_has_form, next(filter(None, (part.example() for part in release.parts))), made)):
        raise ReleaseError(
            f"{release.name!r} {release.version}: cannot remember: this version of Promptassay "
            f"does not write its layout ({release.format}); update, or run its task again"
        )


def _user_turn(release: PromptRelease, inputs: Mapping[str, str], outputs: Sequence[str]) -> str:
    last = release.messages[-1].content
    example = next((texts[0] for part in release.parts if (texts := part.example())), "")
    if not example or _has_form(example, fill(last, {**dict.fromkeys(inputs, _VALUE), PICKED: ""})):
        return fill(last, {**inputs, PICKED: ""})
    row = row_layout(release.format, list(inputs), outputs, reasoning=release.reasoning)
    return "".join(piece if isinstance(piece, str) else inputs[piece[0]] for piece in row)


def _headed(values: Mapping[str, str]) -> str:
    return "\n\n".join(f"[[ ## {name} ## ]]\n{value}" for name, value in values.items()).strip()


def _tagged(values: Mapping[str, str]) -> str:
    return "\n\n".join(f"<{name}>\n{value}\n</{name}>" for name, value in values.items())


def _has_form(text: str, form: str) -> bool:
    first, *others = map(re.escape, form.split(_VALUE))
    pattern = (
        first + "".join(f"(?>.*?{piece})" for piece in others[:-1]) + "".join(f".*{piece}" for piece in others[-1:])
    )
    return re.fullmatch(pattern, text, re.DOTALL) is not None
