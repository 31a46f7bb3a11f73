"""Reads a reply into typed fields: lenient about dress, never guessing about content.

Knows the declared outputs and nothing of models, formats' templates or metrics. What does not parse ends in
`Prediction.error`, one sentence that a proposer can learn from. Every reader below works in linear time on any string.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, NoReturn

from agent.prompt.limits import broken_limit
from agent.shipped import Field, Prediction

MAX_NUMBER = 1e15
MAX_DEPTH = 64
QUOTE = 80

_LABELS = ("answer", "final answer", "label", "output", "category", "class")
_DRESS = " \t\n\r\f\v\0\"'`*_#>~“”‘’«»()[]{}"  # quotes, markdown and brackets around a value
_STOPS = ".,;:!?。"
ONE_LETTER_WORDS = "aeiouyàéèóòì"  # of English and its neighbours: "I think", "a parcel", "y", "è"
_GAP = re.compile(r"(?<=[^\W_])(?!\s+[-–][0-9])[\s_\-‐‑–—]+(?=[^\W_])")
_CURRENCY = r"(?:[$€£¥₹]|USD|EUR|GBP|CHF|JPY|INR|CNY)"
_NUMBER = re.compile(
    rf"(?<!\w)(?P<sign>[-+−]?)(?:{_CURRENCY}[ \t]?)?(?P<sign2>[-+−]?)"
    r"(?<![A-Za-z_0-9.])(?P<top>(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
    r"(?P<exp>[eE][-+]?[0-9]+)?(?:[ \t]?/[ \t]?(?P<bottom>[0-9]+))?"
    rf"|(?:{_CURRENCY})(?P<glued>[0-9]+(?:\.[0-9]+)?)"
)
_JOIN = re.compile(  # what makes two neighbouring numbers one expression: a range, a sum, a list, a date
    r"\.|[ \t]*(?:(?:[^\W\d_]{1,15}[ \t]+)?(?:[-–—−+*/x×÷^:,=]|to|or|and)[ \t]*)?"
)
_TAIL = re.compile(r"[.,][0-9]|[a-z]+[0-9]", re.IGNORECASE)
_JSON_OPEN = re.compile(r"[\[{]")
_JSON_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)


class _Unreadable(Exception):
    """Why a value did not parse, as a sentence."""


def parse_reply(reply: str, outputs: tuple[Field, ...], *, reasoning: bool = False) -> Prediction:
    """Parse `reply` into one value per output field; never raises, whatever the string.

    choice -> the declared spelling; number -> int or finite float up to 1e15; json -> dict or list (strict JSON, up to
    64 levels; a schema is not checked here); text -> str. With `reasoning` the answer is what follows the last
    line-start `Answer:` or `<field>:`, else the last non-empty line. Several outputs are read from `name: value` lines
    (a value runs to the next name) or from one JSON object. DSPy's `[[ ## name ## ]]` and `<name>` sections count as
    `name:` lines. `fields` holds what parsed, `error` why the rest did not, or which limit of a field is broken.
    """
    text, sectioned = _unsection(reply.replace("\r\n", "\n").replace("\r", "\n"), outputs)
    if len(outputs) != 1:
        return _parse_several(reply, text, outputs, reasoning)
    field = outputs[0]
    inner = _unwrap(text, field)
    whole = _section(reply, field) if field.type == "text" else ""
    try:
        if field.type == "text" and (whole or inner is not text):  # the text itself, whatever its lines look like
            value = _read(whole or inner, field, False)
        else:
            value = _read(inner, field, reasoning or sectioned)
    except _Unreadable as problem:
        return Prediction({}, reply, str(problem))
    return Prediction({field.name: value}, reply, broken_limit(field, value))


def _parse_several(reply: str, text: str, outputs: tuple[Field, ...], reasoning: bool) -> Prediction:
    found: Mapping[str, Any] = _by_lines(text, outputs, last=reasoning)
    if len(found) < len(outputs):
        found = max(found, _by_object(text, outputs), key=len)
    fields: dict[str, Any] = {}
    errors: list[str] = []
    missing = [field.name for field in outputs if field.name not in found]
    if missing:
        errors.append(
            f"The reply {_quote(text)} lacks {', '.join(missing)}: write one line `name: value` for each output."
        )
    for field in outputs:
        if field.name in found:
            try:
                fields[field.name] = _read_value(found[field.name], field)
            except _Unreadable as problem:
                errors.append(f"{field.name}: {problem}")
            else:
                errors += [why] if (why := broken_limit(field, fields[field.name])) else []
    return Prediction(fields, reply, " ".join(errors))


def _read(text: str, field: Field, reasoning: bool) -> Any:
    if not text.strip(" \t\n\r\f\v\0"):
        raise _Unreadable(f"The reply is empty: give the {field.name}.")
    if field.type == "number":
        return _number(text, field, reasoning)
    marked = _after_marker(text, field) if reasoning else None
    if marked is not None and not marked.strip():
        raise _Unreadable(f"The reply stops after its answer marker ({_quote(text[-QUOTE:])}): give the {field.name}.")
    if field.type == "json":
        return _json(text if marked is None else marked, last=reasoning and marked is None)
    answer = marked if marked is not None else _last_line(text) if reasoning else text
    return _choice(answer, field) if field.type == "choice" else answer.strip()


def _read_value(value: Any, field: Field) -> Any:
    """One value of several: text from a line, or already typed from a JSON object."""
    if isinstance(value, str):
        return _read(value, field, reasoning=False)
    if field.type == "number" and isinstance(value, int | float) and not isinstance(value, bool):
        return _integral(float(value) if abs(value) <= MAX_NUMBER else math.inf, str(value)[:QUOTE])
    if field.type == "json" and isinstance(value, dict | list):
        return value
    return _read(json.dumps(value, ensure_ascii=False), field, reasoning=False)


# ---- where the answer stands


def _name_pattern(name: str) -> str:
    return r"[ _\-]".join(re.escape(part) for part in re.split(r"[ _\-]", name))


def _marker(names: tuple[str, ...]) -> re.Pattern[str]:
    """A line that starts with one of `names` and a colon; quote marks, bullets and bold are tolerated.

    The name that was found is group `n` with its place in `names`.
    """
    order = sorted(range(len(names)), key=lambda at: -len(names[at]))
    joined = "|".join(f"(?P<n{at}>{_name_pattern(names[at])})" for at in order)
    return re.compile(rf"^[ \t>*_#\-]*(?:{joined})[ \t*_]*[:：][*_]*", re.IGNORECASE | re.MULTILINE)


def _after_marker(text: str, field: Field) -> str | None:
    end = None
    for match in _marker((*_LABELS[:2], field.name)).finditer(text):
        end = match.end()
    return None if end is None else text[end:]


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.split("\n")) if line.strip()), "")


def _unsection(text: str, outputs: tuple[Field, ...]) -> tuple[str, bool]:
    """DSPy's section headers and tags rewritten as `name:` lines; whether there were any."""
    if not outputs or ("[[ ##" not in text and "</" not in text):
        return text, False
    names = "|".join(re.escape(field.name) for field in outputs)
    text, headers = re.subn(rf"(?m)^\[\[ ## ({names}) ## \]\][ \t]*$", r"\1:", text)
    text, tags = re.subn(rf"(?m)^[ \t]*<({names})>", r"\1:", text)
    if headers:
        text = re.sub(r"(?m)^\[\[ ## \w{1,60} ## \]\]", "", text)
    if tags:
        text = re.sub(rf"</(?:{names})>", "", text)
    return text, bool(headers or tags)


def _section(reply: str, field: Field) -> str:
    """What stands in the last section of DSPy's that is called as the field; "" where there is none."""
    text = reply.replace("\r\n", "\n").replace("\r", "\n")
    headers = list(re.finditer(r"(?m)^\[\[ ## (\w{1,64}) ## \]\][ \t]*$", text))
    ends = [header.start() for header in headers] + [len(text)]
    found = ""
    for header, end in zip(headers, ends[1:], strict=True):
        if header[1] == field.name:
            found = text[header.end() : end].strip()
    return found


def _unwrap(text: str, field: Field) -> str:
    """The value inside a reply that is nothing but `{"<field>": value}`; other replies as they are.

    The value of a json field may look like that by itself, unless its schema says otherwise.
    """
    bare = text.strip()
    if not bare.startswith(("{", "```")) or (field.type == "json" and not _is_wrapper(bare, field)):
        return text
    try:
        value = _json(bare, last=False)
    except _Unreadable:
        return text
    if not isinstance(value, dict) or set(value) - {"reasoning"} != {field.name}:
        return text
    inner = value[field.name]
    return inner if isinstance(inner, str) else json.dumps(inner, ensure_ascii=False)


def _is_wrapper(bare: str, field: Field) -> bool:
    """Whether `{"<field>": value}` cannot be the value of the json field, and nothing stands beside it."""
    schema = json.loads(field.schema) if field.schema else None
    if not isinstance(schema, dict):
        return False
    kind, parts = schema.get("type", "object"), schema.get("properties")
    if kind == "object" and (not isinstance(parts, dict) or field.name in parts):
        return False
    fenced = re.fullmatch(r"```(?:json)?\s*(\{.*\})\s*```", bare, re.DOTALL)
    try:
        return isinstance(json.loads(fenced[1] if fenced else bare), dict)
    except (ValueError, RecursionError):
        return False


def _by_lines(text: str, outputs: tuple[Field, ...], *, last: bool) -> dict[str, str]:
    if not outputs:
        return {}
    matches = list(_marker(tuple(field.name for field in outputs)).finditer(text))
    ends = [match.start() for match in matches] + [len(text)]
    found: dict[str, str] = {}
    for match, end in zip(matches, ends[1:], strict=True):
        name = outputs[int((match.lastgroup or "n0")[1:])].name
        value = text[match.end() : end].strip()
        if value and (last or name not in found):
            found[name] = value
    return found


def _by_object(text: str, outputs: tuple[Field, ...]) -> dict[str, Any]:
    try:
        value = _json(text, last=False)
    except _Unreadable:
        return {}
    if not isinstance(value, dict):
        return {}
    keys = {_fold(key): item for key, item in value.items() if item is not None}
    return {field.name: keys[_fold(field.name)] for field in outputs if _fold(field.name) in keys}


# ---- choice


def _fold(text: str) -> str:
    """Case, runs of space and the kind of word joint do not matter; a leading minus does."""
    return _GAP.sub(" ", " ".join(text.split())).casefold()


def _undress(text: str, field: Field) -> str:
    text = re.sub(r"^[-+•][ \t]+", "", text.strip(_DRESS)).strip(_DRESS)
    names = "|".join(_name_pattern(name) for name in (*_LABELS, field.name))
    text = re.sub(rf"^(?:{names})[ \t*_\"'`]*[:：=]", "", text, count=1, flags=re.IGNORECASE)
    return text.strip(_DRESS).rstrip(_STOPS + _DRESS)


def _choice(text: str, field: Field) -> str:
    stripped = text.strip()
    first = next((line for line in stripped.split("\n") if line.strip()), "")
    for source in (stripped, first):
        for form in (source, _undress(source, field)):
            exact = [form] if form in field.choices else [c for c in field.choices if _fold(c) == _fold(form)]
            if len(exact) == 1:
                return exact[0] if form == source else _worn(source, exact[0], field.choices)
    named = _named(text, field.choices)
    if len(named) == 1:
        return named[0]
    what = f"names {len(named)} choices ({_listed(named)})" if named else "names none of the choices"
    raise _Unreadable(f"The reply {_quote(text)} {what}: answer with exactly one of {_listed(field.choices)}.")


def _worn(text: str, found: str, choices: tuple[str, ...]) -> str:
    """`found`, or the choice that is `found` with marks of its own (`C#`, `[URGENT]`) where that is what stands there.

    Marks that stand on both sides are dress: `*A*` is A, also where `A*` is a choice.
    """
    for choice in sorted(choices, key=len, reverse=True):
        at = text.casefold().find(choice.casefold()) if _bare(choice) == _bare(found) and choice != found else -1
        if at >= 0 and len(choice) > len(found) and (choice[0] in _DRESS or text[at - 1 : at] != choice[-1]):
            return choice
    return found


def _bare(choice: str) -> str:
    return _fold(choice.strip(_DRESS + _STOPS))


def _named(text: str, choices: tuple[str, ...]) -> list[str]:
    """The choices that occur as whole words; a longer one takes its words away from the shorter ones.

    A single letter must be written as it is declared, and not begin a sentence: "A parcel" and "I think" name nothing.
    """
    folded, named = _fold(text), list[str]()
    for choice in sorted(choices, key=lambda choice: len(_fold(choice)), reverse=True):
        if len(choice) == 1 and choice.isalpha():
            named += [choice] if _lettered(text, choice) else []
            continue
        word = _fold(choice)
        before = r"(?<![^\W_])" + (r"(?<![0-9][.,/])(?<![-−+])" if word[:1].isdigit() else "")
        after = r"(?![^\W_])" + (r"(?![.,/][0-9])" if word[-1:].isdigit() else "")
        folded, count = re.subn(before + re.escape(word) + after, "\0", folded) if word else (folded, 0)
        if count:
            named.append(choice)
            text = re.sub(_name_pattern(choice), "\0", text, flags=re.IGNORECASE)
    return named


def _lettered(text: str, letter: str) -> bool:
    """Whether a choice of one letter is named: `(B)`, `b)`, `B.`, `option A`, `the answer is A because`."""
    own, alone = re.escape(letter), r"(?<![^\W_])(?<!['’])"
    if letter.casefold() not in ONE_LETTER_WORDS:
        return re.search(rf"{alone}{own}(?![^\W_])(?!['’])", text, re.IGNORECASE) is not None
    stop = "[:.]" if letter.casefold() == "i" else "[:.,]"  # "I, however"
    no_word = r"(?![ \t]+(?!(?:or|and)\b)[^\W\d_])" + (r"(?!,)" if stop == "[:.]" else "")
    word = r"\b(?:option|choice|answer|label|grade|class|category)(?:[ \t]+is)?[ \t:]+[\"'*(\[]*"
    return (
        re.search(rf"\({own}\)|{alone}{own}\)|\A\W*{own}[ \t]*{stop}", text, re.IGNORECASE) is not None
        or re.search(rf"{alone}{own}(?![^\W_])(?!['’]){no_word}", text) is not None
        or (letter.isupper() and re.search(rf"(?i:{word}){own}(?![^\W_])(?!['’])", text) is not None)
    )


# ---- number


def _number(text: str, field: Field, reasoning: bool) -> int | float:
    marked = _after_marker(text, field)
    scope = marked if marked is not None else _last_line(text) if reasoning else text.strip()
    matches = list(_NUMBER.finditer(scope))
    if not matches:
        raise _Unreadable(f"The reply {_quote(scope or text)} holds no number: give the {field.name} as one number.")
    values = [_value(match) for match in matches]
    starts = not scope[: matches[0].start()].strip(_DRESS)
    equals = scope.rfind("=")
    after_equals = next((i for i, match in enumerate(matches) if equals >= 0 and match.start() > equals), None)
    pick: int | None
    if len(set(values)) == 1:
        pick = len(values) - 1
    elif marked is not None and starts and not _joined(scope, matches, 0):
        pick = 0
    elif after_equals is not None:
        pick = after_equals
    elif marked is not None:
        pick = 0
    elif reasoning:
        pick = len(matches) - 1
    else:
        pick = 0 if starts else None
    if pick is None or _joined(scope, matches, pick):
        raise _Unreadable(
            f"The reply {_quote(scope)} does not say which one number is the {field.name}: give only that number."
        )
    return _integral(values[pick], matches[pick].group())


def _joined(scope: str, matches: list[re.Match[str]], at: int) -> bool:
    """Whether a number is part of a larger expression such as 10-20, 6 * 7, 1.234,5, 1.2.3 or 2024-01-05."""
    if _TAIL.match(scope, matches[at].end()):
        return True
    left = at > 0 and _joint(scope, matches[at - 1].end(), matches[at].start(), left=True)
    return left or (at + 1 < len(matches) and _joint(scope, matches[at].end(), matches[at + 1].start(), left=False))


def _joint(scope: str, start: int, end: int, *, left: bool) -> bool:
    gap = scope[start:end] if end - start <= 40 else "far apart"
    return _JOIN.fullmatch(gap) is not None and not (left and gap.strip() == "=")


def _value(match: re.Match[str]) -> float:
    """The number of a match; infinite when it is too long or divides by zero."""
    text = (match["top"] or match["glued"]).replace(",", "") + (match["exp"] or "")
    bottom = match["bottom"]
    if len(text) > 400 or (bottom is not None and len(bottom) > 300):
        return math.inf
    value = float(text)
    if bottom is not None:
        value = value / float(bottom) if float(bottom) else math.inf
    return -value if (match["sign"] or match["sign2"] or "+") in "-−" else value


def _integral(value: float, source: str) -> int | float:
    if not math.isfinite(value) or abs(value) > MAX_NUMBER:
        raise _Unreadable(f"{_quote(source)} is not a number between -1e15 and 1e15.")
    return int(value) if value.is_integer() else value


# ---- json


def _json(text: str, *, last: bool) -> Any:
    """The first (or last) balanced object or array that is strict JSON; broken ones are skipped whole."""
    found: list[Any] = []
    why = "holds no JSON object or array"
    position = 0
    while opening := _JSON_OPEN.search(text, position):
        stack, deepest, position = [opening.group()], 1, opening.end()
        while stack and (token := _JSON_TOKEN.search(text, position)):
            position, mark = token.end(), token.group()
            if mark in "[{":
                stack.append(mark)
                deepest = max(deepest, len(stack))
            elif mark in "]}" and stack.pop() + mark not in ("[]", "{}"):
                break
        if stack and token is None:
            why = "holds JSON that is never closed"
            found.clear()  # the value that counts may be the one that was cut off
            break
        try:
            if deepest > MAX_DEPTH:
                raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
            found.append(json.loads(text[opening.start() : position], parse_constant=_refuse, parse_float=_finite))
        except (ValueError, RecursionError) as problem:
            why = f"holds broken JSON ({_plain(str(problem))[:QUOTE]})"
        if found and not last:
            break
    if not found:
        raise _Unreadable(f"The reply {_quote(text)} {why}: answer with one JSON value.")
    return found[-1]


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse(text[:20])


# ---- words for the error


def _plain(text: str) -> str:
    """One printable line that every encoder takes."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


def _quote(text: str) -> str:
    line = _plain(text[: 4 * QUOTE])
    return f'"{line}"' if len(line) <= QUOTE and len(text) <= 4 * QUOTE else f'"{line[:QUOTE]}…"'


def _listed(choices: list[str] | tuple[str, ...]) -> str:
    return ", ".join(choices[:20]) + (f" … ({len(choices)} in all)" if len(choices) > 20 else "")
