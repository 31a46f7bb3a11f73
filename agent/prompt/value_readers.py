"""Read a value from the text of an answer: a choice, a number, or JSON. Pure.

Lenient about formatting, never guessing about content. Every reader works in linear time on any string, and raises
Unreadable.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

from agent.shipped import MAX_NUMBER, Field, composed, fold

MAX_DEPTH = 64
QUOTE = 80

LABELS = ("answer", "final answer", "label", "output", "category", "class")
_FORMATTING = " \t\n\r\f\v\0\"'`*_#>~“”‘’«»()[]{}"  # quotes, markdown and brackets around a value
_STOPS = ".,;:!?。"
ONE_LETTER_WORDS = "aeiouyàéèóòì"  # of English and its neighbours: "I think", "a parcel", "y", "è"
_GAP = re.compile(r"(?<=[^\W_])(?!\s+[-–][0-9])[\s_\-‐‑–—]+(?=[^\W_])")
_CURRENCY = r"(?:[$€£¥₹]|USD|EUR|GBP|CHF|JPY|INR|CNY)"
_BLANKS = " \t\u00a0\u202f\u2009"
_MARKS = ",'’_\u00a0\u202f\u2009"  # between groups of three digits, of one kind throughout a number
_GROUPS = "|".join(f"(?:{mark}[0-9]{{3}})+" for mark in _MARKS)
_DIGITS = rf"(?:[0-9]{{1,3}}(?:{_GROUPS})(?![0-9])|[0-9]+)(?:\.[0-9]+)?"
_NUMBER = re.compile(
    rf"(?<!\w)(?P<sign>[-+−]?)(?:{_CURRENCY}[{_BLANKS}]?)?(?P<sign2>[-+−]?)"
    rf"(?<![A-Za-z_0-9.])(?P<top>{_DIGITS}|\.[0-9]+)"
    rf"(?P<exp>[eE][-+]?[0-9]+)?(?:[{_BLANKS}]?/[{_BLANKS}]?(?P<bottom>[0-9]+))?"
    rf"|(?:{_CURRENCY})(?P<glued>{_DIGITS})"
)
_JOIN = re.compile(  # between the numbers of one expression: a mark, a range, a sum, a list, a date
    rf"[.'’]|[{_BLANKS}]*(?:(?:[^\W\d_]{{1,15}}[{_BLANKS}]+)?(?:[-–—−+*/x×÷^:,=]|to|or|and)[{_BLANKS}]*)?"
)
_TAIL = re.compile(r"[.,][0-9]|[a-z]+[0-9]", re.IGNORECASE)
_VARIABLE = re.compile(r"(?<![^\W_])[^\W\d_][ \t]*\Z")  # before "=" in "let n = 3"
_NOT = re.compile(  # negates the word after it: "not a billing issue", "isn't really spam"
    r"(?:\b(?:not|cannot|never|non|no|neither|nor|without|rather than|instead of|other than)|n['’]t)"
    r"[^\w\n.,;:!?]+(?:(?:an?|the|any|about|related to|of|in|to|really|actually|truly|strictly|clearly|necessarily)"
    r"[^\w\n.,;:!?]+){0,3}\Z"
)
_NO_THING = re.compile(r" (?!(?:because|since|as|and|or|but|so|for|given|in|it|the|this|that|with)\b)\w")  # "no idea"
_NOT_REACH = 60  # characters before a word in which a negation counts
_JSON_OPEN = re.compile(r"[\[{]")
_JSON_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)


class Unreadable(Exception):
    """A value does not parse, for the reason in its message."""


# ---- choice


def name_pattern(name: str) -> str:
    """Return a regular expression for `name` with a space, `_` or `-` between its words."""
    return r"[ _\-]".join(re.escape(part) for part in re.split(r"[ _\-]", name))


def joined(text: str) -> str:
    """Do `fold`, with `_` and `-` between words as spaces; a leading minus stays."""
    return fold(_GAP.sub(" ", composed(text)))


def _strip_formatting(text: str, field: Field) -> str:
    text = re.sub(r"^[-+•][ \t]+", "", text.strip(_FORMATTING)).strip(_FORMATTING)
    names = "|".join(name_pattern(name) for name in (*LABELS, field.name))
    text = re.sub(rf"^(?:{names})[ \t*_\"'`]*[:：=]", "", text, count=1, flags=re.IGNORECASE)
    return text.strip(_FORMATTING).rstrip(_STOPS + _FORMATTING)


def first_line(text: str) -> str:
    """Return the first line that is not blank, or ""."""
    return next((line for line in text.split("\n") if line.strip()), "")


def choice_in(text: str, field: Field) -> str:
    """Return the only choice of `field` that `text` is or names, in its declared spelling.

    >>> choice_in("**Card arrival.**", Field("topic", "choice", choices=("card_arrival", "billing")))
    'card_arrival'
    """
    text = composed(text)
    stripped = text.strip()
    for source in (stripped, first_line(stripped)):
        for form in (source, _strip_formatting(source, field)):
            same = joined(form)
            exact = [form] if form in field.choices else [c for c in field.choices if joined(c) == same]
            if len(exact) == 1:
                return exact[0] if form == source else _with_own_marks(source, exact[0], field.choices)
    named = _named(text, field.choices)
    if len(named) == 1:
        return named[0]
    what = f"names {len(named)} choices ({_listed(named)})" if named else "names none of the choices"
    raise Unreadable(f"The reply {quote(text)} {what}: answer with exactly one of {_listed(field.choices)}.")


def _with_own_marks(text: str, bare: str, choices: tuple[str, ...]) -> str:
    # marks of a choice (`C#`, `[URGENT]`) count; marks on both sides are formatting, also if `A*` is a choice
    for choice in sorted(choices, key=len, reverse=True):
        at = text.casefold().find(choice.casefold()) if _bare(choice) == _bare(bare) and choice != bare else -1
        if at >= 0 and len(choice) > len(bare) and (choice[0] in _FORMATTING or text[at - 1 : at] != choice[-1]):
            return choice
    return bare


def _bare(choice: str) -> str:
    return joined(choice.strip(_FORMATTING + _STOPS))


def _named(text: str, choices: tuple[str, ...]) -> list[str]:
    """Find the choices that occur as whole words, the longest at each place.

    A negated word ("not billing") names nothing, nor does "no" before another word ("I have no idea"). A single letter
    must be written as declared, and not begin a sentence: "A parcel" and "I think" name nothing.
    """
    folded, named = joined(text), list[str]()
    for choice in sorted(choices, key=lambda choice: len(joined(choice)), reverse=True):
        if len(choice) == 1 and choice.isalpha():
            named += [choice] if _lettered(text, choice) else []
            continue
        word = joined(choice)
        before = r"(?<![^\W_])" + (r"(?<![0-9][.,/])(?<![-−+])" if word[:1].isdigit() else "")
        after = r"(?![^\W_])" + (r"(?![.,/][0-9])" if word[-1:].isdigit() else "")
        if not word or word not in folded:  # spares the pattern a long reply
            continue
        hits = list(re.finditer(before + re.escape(word) + after, folded))
        if any(not _negated(folded, hit) for hit in hits):
            named.append(choice)
        if hits:
            folded = re.sub(before + re.escape(word) + after, "\0", folded)
            text = re.sub(name_pattern(choice), "\0", text, flags=re.IGNORECASE)
    return named


def _negated(folded: str, hit: re.Match[str]) -> bool:
    before = folded[max(0, hit.start() - _NOT_REACH) : hit.start()]
    if hit[0] == "no":
        return re.search(r"\w \Z", before) is not None and _NO_THING.match(folded, hit.end()) is not None
    return _NOT.search(before) is not None


def _lettered(text: str, letter: str) -> bool:
    """Return whether a one-letter choice is named.

    Examples: `(B)`, `b)`, `B.`, `option A`, `the answer is A because`.
    """
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


def is_number(text: str) -> bool:
    """Return whether the text is a number and nothing else but formatting."""
    return _NUMBER.fullmatch(text.strip(_FORMATTING).rstrip(_STOPS + _FORMATTING)) is not None


def number_in(scope: str, field: Field, *, marked: bool, last: bool) -> int | float:
    """Return the number in `scope`: after a marker, alone, after `=`, or the `last`.

    Args:
        marked: Whether `scope` follows an answer marker.
        last: Whether the last of several counts.

    >>> number_in("6 * 7 = 42", Field("n", "number"), marked=False, last=False)
    42
    """
    matches = list(_NUMBER.finditer(scope))
    if not matches:
        raise Unreadable(f"The reply {quote(scope)} holds no number: give the {field.name} as one number.")
    values = [_value(match) for match in matches]
    starts = not scope[: matches[0].start()].strip(_FORMATTING)
    equals = scope.rfind("=")
    after_equals = next((i for i, match in enumerate(matches) if equals >= 0 and match.start() > equals), None)
    if after_equals is not None and after_equals < len(matches) - 1 and _VARIABLE.search(scope[:equals]):
        after_equals = None
    pick: int | None
    if len(set(values)) == 1:
        pick = len(values) - 1
    elif marked and starts and not _joined(scope, matches, 0):
        pick = 0
    elif after_equals is not None:
        pick = after_equals
    elif marked:
        pick = 0
    elif last:
        pick = len(matches) - 1
    else:
        pick = 0 if starts else None
    if pick is None or _joined(scope, matches, pick):
        raise Unreadable(
            f"The reply {quote(scope)} does not say which one number is the {field.name}: give only that number."
        )
    return integral(values[pick], matches[pick].group())


def _joined(scope: str, matches: list[re.Match[str]], at: int) -> bool:
    """Return whether a number is part of a larger expression. Examples: 10-20, 6 * 7, 1.234,5, 1.2.3 or 2024-01-05."""
    if _TAIL.match(scope, matches[at].end()):
        return True
    left = at > 0 and _joint(scope, matches[at - 1].end(), matches[at].start(), left=True)
    return left or (at + 1 < len(matches) and _joint(scope, matches[at].end(), matches[at + 1].start(), left=False))


def _joint(scope: str, start: int, end: int, *, left: bool) -> bool:
    gap = scope[start:end] if end - start <= 40 else "far apart"
    return _JOIN.fullmatch(gap) is not None and not (left and gap.strip() == "=")


def _value(match: re.Match[str]) -> float:
    text = (match["top"] or match["glued"]).translate(dict.fromkeys(map(ord, _MARKS))) + (match["exp"] or "")
    bottom = match["bottom"]
    if len(text) > 400 or (bottom is not None and len(bottom) > 300):
        return math.inf
    value = float(text)
    if bottom is not None:
        value = value / float(bottom) if float(bottom) else math.inf
    return -value if (match["sign"] or match["sign2"] or "+") in "-−" else value


def integral(value: float, source: str) -> int | float:
    """Return `value`, as an int if it is whole. Raises Unreadable, with its text `source`, beyond 1e15."""
    if not math.isfinite(value) or abs(value) > MAX_NUMBER:
        raise Unreadable(f"{quote(source)} is not a number between -1e15 and 1e15.")
    return int(value) if value.is_integer() else value


# ---- json


def json_in(text: str, *, last: bool, kind: type[dict[str, Any]] | type[list[Any]] | None = None) -> Any:
    """Return the first (or last) balanced object or array of strict JSON. One of this `kind` is preferred.

    Broken ones are skipped whole.

    >>> json_in('Here: {"a": [1]} or {broken}', last=False)
    {'a': [1]}
    """
    values: list[Any] = []
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
            values.clear()  # the value that counts may be the one that was cut off
            break
        try:
            if deepest > MAX_DEPTH:
                raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
            values.append(_STRICT.decode(text[opening.start() : position]))
        except (ValueError, RecursionError) as problem:
            why = f"holds broken JSON ({_plain(str(problem))[:QUOTE]})"
        if values and not last and (kind is None or isinstance(values[-1], kind)):
            break
    if not values:
        raise Unreadable(f"The reply {quote(text)} {why}: answer with one JSON value.")
    fitting = [value for value in values if kind is None or isinstance(value, kind)] or values
    return fitting[-1] if last else fitting[0]


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse(text[:20])


_STRICT = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite)


# ---- quoting in errors


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


def quote(text: str) -> str:
    """Quote the beginning of `text` as one printable line of at most 80 characters."""
    line = _plain(text[: 4 * QUOTE])
    return f'"{line}"' if len(line) <= QUOTE and len(text) <= 4 * QUOTE else f'"{line[:QUOTE]}…"'


def _listed(choices: list[str] | tuple[str, ...]) -> str:
    return ", ".join(choices[:20]) + (f" … ({len(choices)} in all)" if len(choices) > 20 else "")
