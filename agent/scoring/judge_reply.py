"""A judge's verdict: its JSON schema, the parsing of a reply, and its value in [0, 1]. Pure, bounded time on any text.

The reason comes first, so that the rating follows from it. The last verdict in a reply counts, as models correct
themselves, but not a quoted one. If an object and the lines after it contradict each other, there is no verdict. An
unreadable verdict is None, never 0.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from agent.types import Rubric

CORRECT = ("wrong", "partly", "correct")
PAIR = ("A", "B", "tie")
REASON_CHARACTERS = 300
MOST_READ = 20_000  # characters of a reply, from its end
MOST_OBJECTS = 200
_DRESS = re.compile(r"[ \t`*>_#\[-]{0,9}(?:json[ \t]{0,9}|<\w{1,20}>[ \t]{0,9})?", re.IGNORECASE)
"""Allowed before an object that begins a line."""
_END = re.compile(r"[ \t`*_.\]\"']{0,9}(?:</\w{1,20}>)?[ \t]{0,9}(?=\n|\Z)")
"""Allowed after an object that ends a line."""
MIN_RATING_MASS = 0.5  # probability on ratings from which a token counts as a rating

MOST_CLAIMS = 12
CLAIM_CHARACTERS = 160  # of a claim and of its evidence

Tokens = Sequence[Sequence[tuple[str, float]]]
"""The most likely (token, log-probability) pairs of each token of a reply."""


@dataclass(frozen=True, slots=True)
class RatingVerdict:
    """A rating per criterion on the rubric's scale, fractional with token probabilities."""

    reason: str
    ratings: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class ChoiceVerdict:
    """A verdict from a short list."""

    reason: str
    choice: str


@dataclass(frozen=True, slots=True)
class ClaimsVerdict:
    """The supported and unsupported claims of an answer."""

    supported: tuple[str, ...]
    unsupported: tuple[str, ...]

    @property
    def value(self) -> float:
        """The supported share; 0 for an answer without claims."""
        return len(self.supported) / max(1, len(self.supported) + len(self.unsupported))


def rating_schema(rubric: Rubric) -> str:
    """Return the JSON schema of a verdict: reason first, then an integer per criterion."""
    scale = {"type": "integer", "enum": list(range(rubric.low, rubric.high + 1))}
    return _schema({criterion.name: scale for criterion in rubric.criteria})


def choice_schema(choices: Sequence[str]) -> str:
    return _schema({"verdict": {"type": "string", "enum": list(choices)}})


def claims_schema() -> str:
    text = {"type": "string", "maxLength": CLAIM_CHARACTERS}
    claim = _object({"claim": text, "evidence": text, "supported": {"type": "string", "enum": ["yes", "no"]}})
    return json.dumps(_object({"claims": {"type": "array", "maxItems": MOST_CLAIMS, "items": claim}}))


def _schema(verdict: Mapping[str, Any]) -> str:
    return json.dumps(_object({"reason": {"type": "string", "maxLength": REASON_CHARACTERS}, **verdict}))


def _object(fields: Mapping[str, Any]) -> dict[str, Any]:
    # unsorted: models write the fields in this order
    return {"type": "object", "properties": dict(fields), "required": list(fields), "additionalProperties": False}


def read_ratings(reply: str, rubric: Rubric, tokens: Tokens = ()) -> RatingVerdict | None:
    """Read the last verdict in a reply; None if incomplete or off the scale.

    With `tokens` that agree with the text, a rating is its expectation over the scale (G-Eval: Liu et al. 2023).
    """
    names = [criterion.name for criterion in rubric.criteria]
    verdict = _last_verdict(reply, names)
    ratings = {name: _rating(verdict[name], rubric) for name in verdict if name in names}
    whole = {name: float(value) for name, value in ratings.items() if value is not None}
    if len(whole) < len(names):
        return None
    values = expected(whole, tokens, rubric)  # in the order of the reply, which is that of the tokens
    return RatingVerdict(_reason(verdict, reply), {name: values[name] for name in names})


def read_choice(reply: str, choices: Sequence[str]) -> ChoiceVerdict | None:
    """Read the last verdict in a reply; None if it is not one of `choices`.

    >>> read_choice('{"reason": "Shorter.", "verdict": "A"}', ["A", "B", "tie"])
    ChoiceVerdict(reason='Shorter.', choice='A')
    """
    verdict = _last_verdict(reply, ["verdict"])
    word = str(verdict.get("verdict", "")).strip().strip("\"'`*.").casefold()
    choice = next((choice for choice in choices if choice.casefold() == word), None)
    return ChoiceVerdict(_reason(verdict, reply), choice) if choice is not None else None


def read_claims(reply: str) -> ClaimsVerdict | None:
    """Read the last list of claims; None if a claim has no clear verdict.

    A repeated claim counts once, with its last verdict.

    >>> read_claims('{"claims": [{"claim": "It is free.", "evidence": "none", "supported": "no"}]}')
    ClaimsVerdict(supported=(), unsupported=('It is free.',))
    """
    claims = _last_verdict(reply, ["claims"]).get("claims")
    if not isinstance(claims, list):
        return None
    words: dict[str, str] = {}
    for each in claims:
        claim, word = (each.get("claim"), each.get("supported")) if isinstance(each, dict) else (None, None)
        word = {True: "yes", False: "no"}[word] if isinstance(word, bool) else str(word).strip(" .").casefold()
        if not isinstance(claim, str) or word not in ("yes", "no"):
            return None
        words[" ".join(claim.split())[:CLAIM_CHARACTERS]] = word
    supported, unsupported = (tuple(claim for claim in words if words[claim] == word) for word in ("yes", "no"))
    return ClaimsVerdict(supported, unsupported)


def _last_verdict(reply: str, names: Sequence[str]) -> Mapping[str, Any]:
    # the last object with any of the names, then `name: word` lines after it; {} if these contradict each other, or a
    # later object breaks off
    text = reply[-MOST_READ:]
    values, end = _last_object(text, names)
    rest = text[end:]
    keys = "|".join(re.escape(name) for name in names)
    if re.search(rf"[{{,][ \t\r\n]{{0,9}}\"(?:{keys})\"[ \t]{{0,9}}:", rest):
        return {}
    lines = _last_lines(rest, names)
    if any(not _alike(values[name], lines[name]) for name in values if name in lines):
        return {}
    return {**values, **lines}


def _alike(one: Any, other: Any) -> bool:
    # 4, 4.0, "4/5" and "4, because" agree, and A and a
    first, second = (str(each).strip(" \t\"'`*_.,").casefold() for each in (one, other))
    numbers = [re.match(r"[0-9]{1,3}(?:\.[0-9]{1,3})?(?![0-9])", each) for each in (first, second)]
    if numbers[0] and numbers[1]:
        return float(numbers[0][0]) == float(numbers[1][0])
    return first == second


def _last_object(text: str, names: Sequence[str]) -> tuple[Mapping[str, Any], int]:
    # must begin or end a line: an object inside a sentence or inside broken JSON may be quoted from the answer
    decoder, found, end = json.JSONDecoder(), dict[str, Any](), 0
    done, broken = 0, False
    for match in list(re.finditer(r"\{", text))[-MOST_OBJECTS:]:
        if match.start() < done:
            continue
        starts = _DRESS.fullmatch(text[max(text.rfind("\n", 0, match.start()) + 1, done) : match.start()]) is not None
        try:
            value, done = decoder.raw_decode(text, match.start())
        except (ValueError, RecursionError):
            broken = broken or starts
            continue
        own = starts or (not broken and _END.match(text, done) is not None)
        if own and isinstance(value, dict) and any(name in value for name in names):
            found, end, broken = value, done, False
    return found, end


def _last_lines(text: str, names: Sequence[str]) -> Mapping[str, Any]:
    found: dict[str, Any] = {}
    wanted = "|".join(re.escape(name) for name in names)
    pattern = rf"^[ \t>*_#\-\"']{{0,9}}({wanted})[*_\"' \t]{{0,9}}[:=][*_ \t]{{0,9}}([^\n]+)$"
    for match in re.finditer(pattern, text, re.IGNORECASE | re.MULTILINE):
        found[match[1].casefold()] = match[2].strip().rstrip(",")
    return {name: found[name.casefold()] for name in names if name.casefold() in found}


def _rating(value: Any, rubric: Rubric) -> int | None:
    if isinstance(value, str):
        match = re.match(
            rf"[*_]{{0,3}}([0-9]{{1,3}})(?:\.0)?(?:\s?/\s?{rubric.high})?[*_.]{{0,3}}(?=$|[,;:(]|\s[(-]|-\s)",
            value.strip(),
        )
        value = int(match[1]) if match else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not rubric.low <= value <= rubric.high:
        return None
    return int(value) if value == int(value) else None


def _reason(verdict: Mapping[str, Any], reply: str) -> str:
    text = verdict.get("reason")
    words = text if isinstance(text, str) else reply[:MOST_READ].partition("{")[0]
    flat = " ".join(words.split())
    return flat if len(flat) <= REASON_CHARACTERS else flat[: REASON_CHARACTERS - 1] + "…"


def expected(ratings: Mapping[str, float], tokens: Tokens, rubric: Rubric) -> dict[str, float]:
    """Return ratings as expectations over the scale, or unchanged if the tokens disagree.

    The last tokens with most of their probability on ratings belong to the verdict.
    """
    scale = {str(rating): rating for rating in range(rubric.low, rubric.high + 1)}
    places = []
    for place in tokens:
        weights: dict[int, float] = {}
        for token, logprob in place:
            if (rating := scale.get(token.strip())) is not None:
                weights[rating] = weights.get(rating, 0.0) + math.exp(min(0.0, logprob))
        if sum(weights.values()) >= MIN_RATING_MASS:
            places.append(weights)
    last = places[-len(ratings) :]
    if len(last) < len(ratings):
        return dict(ratings)
    means = {}
    for (name, read), weights in zip(ratings.items(), last, strict=True):
        if max(weights, key=lambda each: weights[each]) != read:
            return dict(ratings)
        means[name] = sum(value * weight for value, weight in weights.items()) / sum(weights.values())
    return means


def rubric_value(ratings: Mapping[str, float], rubric: Rubric) -> float:
    """Return the weighted mean of ratings, with the scale mapped to [0, 1]."""
    total = math.fsum(criterion.weight for criterion in rubric.criteria)
    mean = math.fsum(c.weight * ratings[c.name] for c in rubric.criteria) / total
    return min(1.0, max(0.0, (mean - rubric.low) / (rubric.high - rubric.low)))


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict on one answer.

    `value` is in [0, 1], None without a verdict. `ratings` are those of the panel's median member, by criterion on the
    rubric's scale; empty in other modes.
    """

    value: float | None
    reason: str
    ratings: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Verdicts on the first answer in both orders: 1 better, 0.5 tie, 0 worse, or None."""

    orders: tuple[float | None, float | None]
    reason: str

    @property
    def value(self) -> float | None:
        """The common verdict; one that changes with the order is a tie."""
        one, two = self.orders
        if one is None or two is None:
            return None
        return one if one == two else 0.5


def panel_median(judgements: Sequence[Judgement]) -> Judgement:
    """Return the median of a panel; at least half of it must be readable."""
    known = [each for each in judgements if each.value is not None]
    if not known or 2 * len(known) < len(judgements):
        return Judgement(None, next(each.reason for each in judgements if each.value is None))
    middle = median(each.value for each in known if each.value is not None)
    nearest = min(known, key=lambda each: abs((each.value or 0.0) - middle))
    return Judgement(middle, nearest.reason, nearest.ratings)


def by_rubric(text: str, tokens: Tokens, rubric: Rubric) -> Judgement:
    verdict = read_ratings(text, rubric, tokens)
    if verdict is None:
        return _unreadable(text)
    marks = ", ".join(f"{name} {rating:.3g}/{rubric.high}" for name, rating in verdict.ratings.items())
    return Judgement(rubric_value(verdict.ratings, rubric), f"{marks}: {verdict.reason}", verdict.ratings)


def by_reference(text: str, tokens: Tokens) -> Judgement:
    return _read_choice(text, CORRECT, {"wrong": 0.0, "partly": 0.5, "correct": 1.0})


def by_passages(text: str, tokens: Tokens) -> Judgement:
    verdict = read_claims(text)
    if verdict is None:
        return _unreadable(text)
    whole = len(verdict.supported) + len(verdict.unsupported)
    lacking = f"; not supported: {'; '.join(verdict.unsupported)}" if verdict.unsupported else ""
    counted = f"{len(verdict.supported)} of {whole} claims are supported{lacking}" if whole else "it claims nothing"
    return Judgement(verdict.value, counted)


def _unreadable(text: str) -> Judgement:
    return Judgement(None, f"the judge's answer has no readable verdict: {' '.join(text[-120:].split())}")


def by_pair(text: str, tokens: Tokens) -> Judgement:
    """Read a pairwise verdict: 1 if the first answer is better."""
    return _read_choice(text, PAIR, {"A": 1.0, "B": 0.0, "tie": 0.5})


def _read_choice(text: str, choices: Sequence[str], values: Mapping[str, float]) -> Judgement:
    verdict = read_choice(text, choices)
    if verdict is None:
        return _unreadable(text)
    return Judgement(values[verdict.choice], f"{verdict.choice}: {verdict.reason}")
