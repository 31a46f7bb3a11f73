"""The use of each column of a data file (input, target, id, split or ignored), with the reason."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

from agent.errors import InputError
from agent.safe_data import COLUMNS
from agent.safe_text import counted, listed, near, quoted
from agent.shipped import fold
from agent.task.answers import most_choices, parse_object, text_of

if TYPE_CHECKING:
    from agent.options.shared import Asked

Use = Literal["input", "target", "id", "split", "ignored"]
Table = Sequence[Mapping[str, Any]]

COPIED = 0.9  # a column is a copy of the label from this share of equal rows
CODED = 0.98  # a column encodes the label from this share of rows that map one to one
DATED = 0.95  # a column holds dates from this share of its filled cells
INSIDE = 0.95  # the user is warned from this share of rows that contain the answer
_WORD = re.compile(r"[^\W_]+")
_DATE = re.compile(
    r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}([T ]\d{1,2}:\d{2}.*)?|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}( \d{1,2}:\d{2}.*)?"
)  # 2026-11-01, 2026-11-01T12:00:00Z, 1.11.2026, 11/01/26 10:30
SPLIT_OF = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("dev", "development", "val", "valid", "validation", "eval", "evaluation"), "dev"),
    **dict.fromkeys(("test", "testing", "holdout", "hold-out", "held-out"), "test"),
}
"""Splits by their usual names."""
_LATER_NAME = re.compile(
    r"(.*_)?(predict(ed|ion|ions)|split|fold|(closed|solved|resolved|completed)(_(at|on|by|date|time))?|resolution"
    r"|outcome|csat|nps|satisfaction|assignee|assigned(_to)?|handled_by|status|score|probability|confidence"
    r"|vorhersage|geschlossen(_am)?|erledigt(_am)?|gelost(_am)?|bearbeiter"
    r"|zugewiesen(_an)?|zufriedenheit)(_(id|name|score))?"
)  # as field names
_ID_NAME = re.compile(r"(.*_)?(id|ids|uuid|guid|index|idx|key|row|row_?number|unnamed_\d+)|")


@dataclass(frozen=True, slots=True)
class DataColumn:
    """A column of the file, its field ("" when ignored), its use and the reason."""

    name: str
    field: str
    use: Use
    reason: str
    is_conversation: bool = False
    is_optional: bool = False


def field_name(name: str, position: int, taken: Iterable[str]) -> str:
    """Make a field name, such as `customer_message`, that is not in `taken` and not `id`."""
    made = name
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,63}", name):
        plain = unicodedata.normalize("NFKD", name.casefold()).encode("ascii", "ignore").decode("ascii")
        made = re.sub(r"[^a-z0-9]+", "_", plain).strip("_")[:60]
        made = made if made[:1].isalpha() else f"column_{made or position}"
    made = "row_id" if made == "id" else made
    used = set(taken)
    return next(each for n in range(1, len(used) + 2) if (each := made if n == 1 else f"{made[:58]}_{n}") not in used)


def column_named(names: Sequence[str], word: str) -> str | None:
    """Find a column by its name in the file or its field name."""
    if word in names:
        return word
    numbered = enumerate(names, start=1)
    return next((name for position, name in numbered if field_name(name, position, ()) == word), None)


def find_targets(names: Sequence[str], targets: Sequence[str]) -> tuple[str, ...]:
    """Return the target columns. Raises InputError."""
    for target in targets:
        if column_named(names, target) is None:
            raise InputError(f"--target {quoted(target)} is not a column{near(target, names)}")
    found = tuple(column_named(names, target) or "" for target in targets)
    if twice := next((name for name in found if found.count(name) > 1), ""):
        raise InputError(f"--target {quoted(twice)} is named twice; name each column once")
    return found


def decide_columns(
    table: Table,
    targets: Sequence[str],
    prompt_fields: frozenset[str] = frozenset(),
    asked: Asked | None = None,
    siblings: frozenset[str] = frozenset(),
    dates: bool = False,
    spoken: frozenset[str] = frozenset(),
) -> tuple[DataColumn, ...]:
    """Decide the use of every column. Raises InputError."""
    names = list(dict.fromkeys(name for row in table for name in row))
    named, ignored = _named(names, targets, prompt_fields, asked)
    table = [row for row in table if any(text_of(value).strip() for value in row.values())]
    columns: list[DataColumn] = []
    taken = ["id"]
    for target in targets:
        taken.append(field_name(target, names.index(target) + 1, taken))
    predicted = dict(zip(targets, taken[1:], strict=True))
    known = {*names}
    labels = [[fold(text_of(row.get(target))) for row in table] for target in targets]
    for position, name in enumerate(names, start=1):
        texts = [text_of(row.get(name)) for row in table]
        filled = [text.strip() for text in texts if text.strip()]
        use, reason = _use(name, texts, labels)
        splits = _split_use(texts) if not any(c.use == "split" for c in columns) else None
        made = field_name(name, position, taken)
        if name in predicted:
            use, reason, made = "target", f"{'the' if len(targets) == 1 else 'a'} column to predict", predicted[name]
        elif name in ignored:
            use, reason = "ignored", "as --ignore says"
        elif {name, made} & prompt_fields:
            use, reason = "input", "named in the prompt"
        elif name in named:
            use, reason = "input", "as --input says"
        elif splits:
            use, reason = splits
        elif use == "input" and prompt_fields:
            use, reason = "ignored", "not named in the prompt"
        elif use == "input" and named:
            use, reason = "ignored", "not named by --input"
        elif use == "input" and name in siblings:
            use, reason = "ignored", "in the same object as the target; name it to keep it"
        elif use == "input" and not dates and sum(map(_is_date, filled)) >= DATED * len(filled):
            use, reason = "ignored", "dates; name it in the prompt or with --input to keep it"
        known.add(made)
        if use == "input" and spoken and name != next(one for one in names if one in spoken):
            use, reason = "ignored", "a conversation is the only input"
        is_spoken = use == "input" and name in spoken
        reason = "holds conversations" if is_spoken else reason
        if use == "input":
            taken.append(made)
        if use in ("input", "target") and made != name:
            reason = f"{reason}; called {made} from here on"
        own = {"id": "id", "split": "", "ignored": ""}.get(use, made)
        columns.append(DataColumn(name, own, use, reason, is_spoken))
    for mark in sorted(prompt_fields):
        if mark not in known:
            raise InputError(f"the prompt holds {{{{{mark}}}}}, not a column{near(mark, names)}")
        if mark in (*targets, *predicted.values()):
            raise InputError(f"the prompt holds {{{{{mark}}}}}, the column to predict; take it out of the prompt")
    if not any(column.use == "input" for column in columns):
        why = listed(f"{quoted(c.name)} ({c.reason})" for c in columns if c.use != "target")
        raise InputError(f"no column is left as an input; ignored: {why or 'none'}; add one with the text to answer")
    return tuple(columns)


def _named(
    names: Sequence[str], targets: Sequence[str], prompt_fields: frozenset[str], asked: Asked | None
) -> tuple[frozenset[str], frozenset[str]]:
    found: dict[str, list[str]] = {"--input": [], "--ignore": []}
    for option, given in (("--input", asked.input), ("--ignore", asked.ignore)) if asked else ():
        for word in given:
            name = column_named(names, word)
            if name is None:
                raise InputError(f"{option} {quoted(word)} is not a column{near(word, names)}")
            if name in targets:
                raise InputError(f"{option} {quoted(word)} is the column to predict; name another one")
            found[option].append(name)
    inputs, ignored = frozenset(found["--input"]), frozenset(found["--ignore"])
    marked = {column_named(names, mark) for mark in prompt_fields}
    if both := sorted(inputs & ignored):
        raise InputError(f"--input and --ignore both name {quoted(both[0])}; take it out of one")
    if both := sorted(ignored & marked):
        raise InputError(f"--ignore {quoted(both[0])} is named in the prompt; take it out of one")
    if prompt_fields and (unseen := sorted(inputs - marked)):
        raise InputError(f"--input {quoted(unseen[0])}: the prompt has no mark for it; write {{{{{unseen[0]}}}}} in it")
    return inputs, ignored


def _is_date(text: str) -> bool:
    return _DATE.fullmatch(text) is not None


def _use(name: str, texts: list[str], labels: Sequence[list[str]]) -> tuple[Use, str]:
    filled = [text for text in texts if text.strip()]
    distinct = set(filled)
    plain = field_name(name, 0, ())
    unique = len(distinct) == len(texts) and all(len(text) <= 64 and text.isprintable() for text in texts)
    if not filled:
        return "ignored", "empty"
    if name == "id" and unique and len({text.strip() for text in texts}) == len(texts):
        return "id", "named id, and different in every row"
    if len(distinct) == 1 and len(filled) == len(texts):
        return "ignored", f"constant: {quoted(filled[0], 40)} in every row"
    if len(filled) < len(texts) / 2:
        return "ignored", f"empty in {len(texts) - len(filled)} of {len(texts)} rows"
    named = _ID_NAME.fullmatch("" if not name.strip() else "id" if plain == "row_id" else plain.lower()) is not None
    if unique and not any(" " in text for text in texts) and (named or _counts_up(texts)):
        return "ignored", "id-like: a different short value in every row"
    for each in labels:
        pairs = Counter((fold(text), label) for text, label in zip(texts, each, strict=True) if label)
        if leak := _copies(pairs) or _codes(pairs):
            return "ignored", f"{leak}: it would give the answer away; name it in the prompt to keep it"
    return "input", "text"


def split_of(cell: Any) -> str:
    return SPLIT_OF.get(fold(text_of(cell)), "")


def _split_use(texts: Sequence[str]) -> tuple[Use, str] | None:
    filled = [split_of(text) for text in texts if text.strip()]
    if "" in filled or len(set(filled)) < 2:
        return None
    if "train" not in filled:
        return "ignored", "names splits, but no train rows; rows are split afresh"
    if empty := len(texts) - len(filled):
        return "ignored", f"names splits, but is empty in {counted(empty, 'row')}; fill it in to have it used"
    return "split", "says which rows are train, dev and test"


def filled_in_later(columns: Sequence[DataColumn]) -> list[str]:
    """Return the inputs whose names suggest values that are filled in later."""
    plain = {column.name: field_name(column.name, 1, ()).lower() for column in columns if column.use == "input"}
    return [name for name, field in plain.items() if _LATER_NAME.fullmatch(field)]


def _copies(pairs: Counter[tuple[str, str]]) -> str:
    rows, same = Counter[str](), Counter[str]()
    for (text, label), count in pairs.items():
        rows[label] += count
        same[label] += count * (text == label)
    most = max(rows, key=rows.__getitem__, default="")
    if same.total() < COPIED * rows.total() or same.total() - same[most] <= (rows.total() - rows[most]) / 2:
        return ""
    return f"is the answer itself in {same.total()} of {rows.total()} rows"


def _codes(pairs: Counter[tuple[str, str]]) -> str:
    best: dict[str, str] = {}
    for (text, label), _ in pairs.most_common():
        best.setdefault(label, text)
    rows, coded = pairs.total(), sum(pairs[text, label] for label, text in best.items())
    few = 1 < len(best) < rows / 2 and len(best) <= most_choices(list(best))
    if not few or len({*best.values()}) < len(best) or coded < CODED * rows:
        return ""
    return "tells the target one to one" + (f" in {coded} of {rows} rows" if coded < rows else "")


def answer_inside(columns: Sequence[DataColumn], rows: Table, target: str) -> dict[str, int]:
    """Count the rows that contain the answer, for inputs where nearly all do."""
    inputs = [column for column in columns if column.use == "input"]
    labels = [_words(text_of(row[target])) for row in rows]
    found = {}
    for column in inputs if len(inputs) > 1 else []:
        missing = 0
        for row, label in zip(rows, labels, strict=True):
            missing += not label.strip() or label not in _words(row[column.field])
            if missing > (1 - INSIDE) * len(rows):
                break
        else:
            found[column.name] = len(rows) - missing
    return found


def _words(text: str) -> str:
    return f" {' '.join(_WORD.findall(fold(text)))} "


def _counts_up(texts: list[str]) -> bool:
    with suppress(ValueError):
        return all(after - before == 1 for before, after in pairwise([int(text) for text in texts]))
    return False


# -- columns out of JSON objects ---------------------------------------------------------------------------------------


def expanded(table: Sequence[Mapping[str, Any]], wanted: Iterable[str]) -> tuple[list[dict[str, Any]], frozenset[str]]:
    """Replace object columns in dotted names by one column per key; also return these."""
    rows, made = [dict(row) for row in table], set[str]()
    for name in wanted:
        while "." in name and not any(name in row for row in rows):
            names = {column for row in rows for column in row if name.startswith(f"{column}.")}
            parent = max(names, key=len, default="")
            if not parent or not (opened := _opened(rows, parent)):
                break
            rows, new = opened
            made = (made - {parent}) | new
    return rows, frozenset(made)


def _opened(rows: list[dict[str, Any]], parent: str) -> tuple[list[dict[str, Any]], set[str]] | None:
    objects = [_object(row.get(parent)) for row in rows]
    keys = list(dict.fromkeys(key for value in objects for key in value or ()))
    if len(keys) > COLUMNS:
        raise InputError(f"the column {quoted(parent)} has more than {COLUMNS:,} keys; write those needed as columns")
    if not keys or any(f"{parent}.{key}" in row for key in keys for row in rows):
        return None
    opened: list[dict[str, Any]] = []
    for row, value in zip(rows, objects, strict=True):
        inside = {f"{parent}.{key}": (value or {}).get(key) for key in keys}
        cells: dict[str, Any] = {}
        for column, cell in row.items():
            cells |= inside if column == parent else {column: cell}
        opened.append(cells)
    return opened, {f"{parent}.{key}" for key in keys}


def _object(value: Any) -> dict[str, Any] | None:
    if isinstance(value, str) and not value.lstrip().startswith("{"):
        return None
    with suppress(ValueError):
        return parse_object(value)
    return None
