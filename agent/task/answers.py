"""Answer types of a target column: type inference, labels of cells, odd spellings, known scales."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from agent.metrics.comparison import quantity_of
from agent.safe_data import parse_data
from agent.safe_text import quoted
from agent.shipped import MAX_NUMBER, fold, label_text
from agent.types import FieldType

_NUMBER = re.compile(r"[+-]?(\d+|\d*\.\d+|\d+\.)([eE][+-]?\d+)?")
MAX_CHOICES = 200
MAX_NUMBERS = 50  # of labels written as numbers, with or without a unit; more of them are amounts
MAX_CHOICE_LENGTH = 60
_THOUSANDS = re.compile(r"[+-]?[1-9][0-9]{0,2}\.[0-9]{3}")
_MARKED = re.compile(
    r"[+-]?(?:[1-9][0-9]{0,2}(?:[.,'’ \u00a0\u202f\u2009][0-9]{3})+(?:[.,][0-9]+)?|[0-9]+,[0-9]+)"
)  # a number in other notations: 1.234,50 or 1'234.50 or 0,5
_LEADING_ZERO = re.compile(r"-?0[0-9]")


def parse_number(text: str) -> int | float:
    """Parse a finite number written in ASCII digits. Raises ValueError.

    >>> parse_number("12"), parse_number(" -0.5 "), parse_number("1e3")
    (12, -0.5, 1000.0)
    """
    text = text.strip()
    if not _NUMBER.fullmatch(text) or len(text) > 308 or not math.isfinite(float(text)):
        raise ValueError(f"{quoted(text)} is not a finite number; write digits only, such as 12 or 0.5")
    return int(text) if text.lstrip("+-").isdigit() else float(text)


def text_of(value: Any) -> str:
    """Return a cell as prompt text: text unchanged, other values as JSON, None as ""."""
    return "" if value is None else label_text(value)


def target_type(values: Sequence[Any]) -> FieldType:
    """Infer the type of a target column from its non-empty values."""
    texts = [text_of(value).strip() for value in values]
    if all(can(parse_object, value) for value in values):
        return "json"
    distinct = {fold(text) for text in texts}
    if _could_be_labels(texts) and 2 <= len(distinct) <= min(most_choices(texts), len(texts) / 2):
        return "choice"
    return "text" if any(map(lost_as_number, texts)) else "number"


def _could_be_labels(texts: Sequence[str]) -> bool:
    return all(len(text) <= MAX_CHOICE_LENGTH and text.isprintable() for text in texts)


def most_choices(texts: Sequence[str]) -> int:
    """Return the largest number of distinct values that still count as labels."""
    return MAX_NUMBERS if all(_like_a_number(text) or quantity_of(text) for text in texts) else MAX_CHOICES


def _like_a_number(text: str) -> bool:
    return _MARKED.fullmatch(text) is not None or can(parse_number, text)


def lost_as_number(text: str) -> str:
    """Say why a text must not become a number, else ""."""
    if not can(parse_number, text):
        return "is no number"
    if text.startswith("+"):
        return "has a plus sign, which a number would lose"
    if _LEADING_ZERO.match(text):
        return "begins with a zero, which a number would lose"
    return "is beyond 1e15, and no reply is read as such a number" if abs(parse_number(text)) > MAX_NUMBER else ""


def why_text(values: Sequence[Any]) -> str:
    """Say why a target of numbers or repeated values is read as text, else ""."""
    texts = [text_of(value).strip() for value in values]
    odd = next((text for text in texts if not can(parse_number, text)), "")
    if odd and all(map(_like_a_number, texts)):
        return f"{quoted(odd, 40)} is not read as a number; write it with digits and a decimal point only: 1234.5"
    if not odd and (code := next(filter(lost_as_number, texts), "")):
        return f"{quoted(code, 40)} {lost_as_number(code)}"
    distinct = len({fold(text) for text in texts})
    if not 2 <= distinct <= len(texts) / 2:
        return ""
    if distinct > MAX_CHOICES:
        many = f"{distinct} different values, more than {MAX_CHOICES}"
        fix = "if they are labels, list them in the task.toml that `optimize init` writes"
        return f"{many}; {fix}" if _could_be_labels(texts) else ""
    odd = next((text for text in texts if not text.isprintable()), "")
    why = "holds a line break or another control character" if odd else f"is longer than {MAX_CHOICE_LENGTH} characters"
    return f"a label {why}: {quoted(odd or max(texts, key=len), 40)}"


def thousands_warning(values: Sequence[Any]) -> str:
    """Warn when every dot in a number target may be a thousands separator, else ""."""
    dotted = [text for value in values if isinstance(value, str) and "." in (text := value.strip())]
    if not dotted or not all(map(_THOUSANDS.fullmatch, dotted)):
        return ""
    first = dotted[0]
    return f"{quoted(first)} is read as {parse_number(first)}; write {first.replace('.', '')} if thousands are meant"


def can(parse: Any, value: Any) -> bool:
    """Return whether a value can be parsed."""
    try:
        parse(value)
    except ValueError:
        return False
    return True


def parse_object(value: Any) -> dict[str, Any]:
    """Return a JSON object, parsed if it is text. Raises ValueError."""
    made = parse_data(value) if isinstance(value, str) else value
    if not isinstance(made, dict):
        raise ValueError(f"{quoted(value)} is not a JSON object")
    return made


def label_reader(kind: FieldType, values: Sequence[Any]) -> Any:
    """Return a function from a cell to its label; it raises ValueError."""
    if kind == "json":
        return parse_object
    if kind == "number":
        return lambda value: parse_number(text_of(value))
    if kind == "text":
        return text_of
    spelled: dict[str, Counter[str]] = {}
    for value in values:
        text = text_of(value).strip()
        spelled.setdefault(fold(text), Counter())[text] += 1
    best = {folded: min(counts, key=lambda text: (-counts[text], text)) for folded, counts in spelled.items()}

    def chosen(value: Any) -> str:
        if (folded := fold(text_of(value))) not in best:
            raise ValueError(f"{quoted(value)} is no label")
        return best[folded]

    return chosen


def other_spellings(values: Sequence[Any], choices: Sequence[str]) -> dict[str, list[str]]:
    """Return the other spellings of each choice among the cells, sorted."""
    chosen = {fold(choice): choice for choice in choices}
    found: dict[str, list[str]] = {}
    for text in sorted({text_of(value).strip() for value in values}):
        choice = chosen.get(fold(text), text)
        if choice != text:
            found.setdefault(choice, []).append(text)
    return found


def misspelled(labels: Sequence[str]) -> list[tuple[str, int, str, int]]:
    """Find likely typos among labels, as (rare, its rows, frequent, its rows)."""
    from rapidfuzz.distance import OSA

    counts = Counter(labels)
    found = []
    for rare, rows in sorted(counts.items()):
        if len(rare) < 4:
            continue
        for other, many in counts.most_common():
            if rows > many / 20 or re.findall(r"\d", rare) != re.findall(r"\d", other):
                continue
            most = 2 if min(len(rare), len(other)) >= 8 else 1
            if OSA.distance(fold(rare), fold(other), score_cutoff=most) <= most:
                found.append((rare, rows, other, many))
                break
    return found


# -- scales of words ---------------------------------------------------------------------------------------------------

_SCALES = (  # of surveys, helpdesks and reviews, in English and German
    # agreement
    "strongly disagree, fully disagree, completely disagree, totally disagree < disagree, mostly disagree "
    "< somewhat disagree, slightly disagree, rather disagree "
    "< neutral, neither agree nor disagree, neither, undecided, not sure, unsure "
    "< somewhat agree, slightly agree, rather agree < agree, mostly agree "
    "< strongly agree, fully agree, completely agree, totally agree",
    "stimme gar nicht zu, stimme überhaupt nicht zu, trifft gar nicht zu, trifft überhaupt nicht zu "
    "< stimme nicht zu, lehne ab, trifft nicht zu < stimme eher nicht zu, trifft eher nicht zu "
    "< teils teils, teils/teils, teils, neutral, weder noch, unentschieden, weiß nicht "
    "< stimme eher zu, trifft eher zu < stimme zu, trifft zu "
    "< stimme voll zu, stimme voll und ganz zu, stimme völlig zu, trifft voll zu, trifft voll und ganz zu",
    # satisfaction
    "extremely dissatisfied < very dissatisfied, very unsatisfied, very unhappy "
    "< dissatisfied, unsatisfied, unhappy, not satisfied "
    "< somewhat dissatisfied, rather dissatisfied "
    "< neutral, neither satisfied nor dissatisfied, neither < somewhat satisfied, rather satisfied "
    "< satisfied, happy < very satisfied, very happy < extremely satisfied",
    "sehr unzufrieden < unzufrieden < eher unzufrieden < neutral, teils teils, teils/teils, weder noch "
    "< eher zufrieden < zufrieden < sehr zufrieden",
    # frequency
    "never < hardly ever, almost never < rarely, seldom < occasionally < sometimes < often, frequently, regularly "
    "< usually, mostly, very often < almost always, nearly always < always",
    "nie, niemals < fast nie < selten < gelegentlich < manchmal < oft, häufig, regelmäßig < meistens, meist, sehr oft "
    "< fast immer < immer",
    # priority and severity
    "none, no < trivial < lowest, very low < low, minor < medium, moderate, normal, middle "
    "< high, major, severe < very high, highest < urgent < critical, blocker",
    "keine < sehr niedrig, sehr gering < niedrig, gering, leicht < mittel, normal, mäßig < hoch, schwer < sehr hoch "
    "< dringend < kritisch",
    # quality
    "terrible, awful < very poor, very bad < poor, bad < fair, average, mediocre, okay, ok, acceptable < good "
    "< very good < excellent, outstanding",
    "sehr schlecht, ungenügend < schlecht, mangelhaft < ausreichend, mäßig < befriedigend, mittel, durchschnittlich "
    "< gut < sehr gut < ausgezeichnet, hervorragend",
    # likelihood
    "very unlikely, extremely unlikely < unlikely < somewhat unlikely < neutral, neither likely nor unlikely "
    "< somewhat likely < likely < very likely, extremely likely",
    "sehr unwahrscheinlich < unwahrscheinlich < eher unwahrscheinlich < neutral < eher wahrscheinlich "
    "< wahrscheinlich < sehr wahrscheinlich",
)
_PLACES = tuple(
    {fold(word.strip()): place for place, words in enumerate(scale.split("<")) for word in words.split(",")}
    for scale in _SCALES
)


def known_scale(labels: Iterable[str]) -> list[str]:
    """Return three or more labels in the order of a known scale, else [].

    >>> known_scale(["High", "low", "Medium"])
    ['low', 'Medium', 'High']
    """
    found = list(labels)
    for places in _PLACES:
        steps = {places.get(fold(label)): label for label in found}
        if None not in steps and len(steps) == len(found) >= 3:
            return [label for _, label in sorted(steps.items(), key=lambda step: step[0] or 0)]
    return []
