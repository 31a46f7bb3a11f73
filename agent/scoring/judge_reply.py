"""A judge's verdict: its JSON schema, the parsing of a reply, and its value in [0, 1]. Pure, bounded time on any text.

The reason comes first, so that the rating follows from it. The last verdict in a reply counts, as models correct
themselves, but not a quoted one. If an object and the lines after it contradict each other, there is no verdict. An
unreadable verdict is None, never 0.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from agent.types import Completion, Rubric

CORRECT = {"wrong": 0.0, "partly": 0.5, "correct": 1.0}
PAIR = {"A": 1.0, "B": 0.0, "tie": 0.5}
"""The value of the first answer by verdict."""
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
VERDICT_TOKENS = REASON_CHARACTERS // 2 + 40  # a reason in any script, and the JSON around it
CRITERION_TOKENS = 12
CLAIMS_TOKENS = 40 + MOST_CLAIMS * (CLAIM_CHARACTERS // 2 + 20)

Tokens = Sequence[Sequence[tuple[str, float]]]
"""The most likely (token, log-probability) pairs of each token of a reply."""


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
class ReplyForm:
    """The JSON of a verdict: an example for the prompt, its properties, room in tokens, and reader."""

    example: Mapping[str, Any]
    properties: Mapping[str, Any]
    room: int
    read: Callable[[str, Tokens], Judgement]

    @property
    def schema(self) -> str:
        return json.dumps(object_schema(self.properties))

    def read_reply(self, reply: Completion) -> Judgement:
        return self.read(reply.text, reply.logprobs)


_REASON = {"type": "string", "maxLength": REASON_CHARACTERS}


def ratings_form(rubric: Rubric) -> ReplyForm:
    """Ask for the reason, then an integer for each criterion."""
    names = [criterion.name for criterion in rubric.criteria]
    scale = {"type": "integer", "enum": list(range(rubric.low, rubric.high + 1))}
    return ReplyForm(
        {"reason": "...", **dict.fromkeys(names, f"{rubric.low}-{rubric.high}")},
        {"reason": _REASON, **dict.fromkeys(names, scale)},
        VERDICT_TOKENS + CRITERION_TOKENS * len(names),
        lambda reply, tokens: read_ratings(reply, rubric, tokens),
    )


def choice_form(values: Mapping[str, float]) -> ReplyForm:
    """Ask for the reason, then one of the words of `values`."""
    return ReplyForm(
        {"reason": "...", "verdict": "|".join(values)},
        {"reason": _REASON, "verdict": {"type": "string", "enum": list(values)}},
        VERDICT_TOKENS + CRITERION_TOKENS,
        lambda reply, tokens: read_choice(reply, values),
    )


def claims_form() -> ReplyForm:
    """Ask for the claims of an answer, each with its evidence."""
    text = {"type": "string", "maxLength": CLAIM_CHARACTERS}
    claim = object_schema({"claim": text, "evidence": text, "supported": {"type": "string", "enum": ["yes", "no"]}})
    shape = {"claim": "...", "evidence": "[1] the words of the passage, or none", "supported": "yes|no"}
    return ReplyForm(
        {"claims": [shape]},
        {"claims": {"type": "array", "maxItems": MOST_CLAIMS, "items": claim}},
        CLAIMS_TOKENS,
        lambda reply, tokens: read_claims(reply),
    )


def object_schema(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON schema of an object with these fields. Models write them in this order."""
    return {"type": "object", "properties": dict(fields), "required": list(fields), "additionalProperties": False}


def read_ratings(reply: str, rubric: Rubric, tokens: Tokens = ()) -> Judgement:
    """Read the last verdict in a reply; no value if incomplete or off the scale.

    With `tokens` that agree with the text, a rating is its expectation over the scale (G-Eval: Liu et al. 2023).
    """
    names = [criterion.name for criterion in rubric.criteria]
    verdict = _last_verdict(reply, names)
    read = {name: _rating(verdict[name], rubric) for name in verdict if name in names}
    whole = {name: float(value) for name, value in read.items() if value is not None}
    if len(whole) < len(names):
        return _unreadable(reply)
    values = expected(whole, tokens, rubric)  # in the order of the reply, which is that of the tokens
    ratings = {name: values[name] for name in names}
    marks = ", ".join(f"{name} {rating:.3g}/{rubric.high}" for name, rating in ratings.items())
    return Judgement(rubric_value(ratings, rubric), f"{marks}: {_reason(verdict, reply)}", ratings)


def read_choice(reply: str, values: Mapping[str, float]) -> Judgement:
    """Read the last verdict in a reply; no value if it is no choice.

    >>> read_choice('{"reason": "Shorter.", "verdict": "A"}', PAIR).reason
    'A: Shorter.'
    """
    verdict = _last_verdict(reply, ["verdict"])
    word = str(verdict.get("verdict", "")).strip().strip("\"'`*.").casefold()
    choice = next((choice for choice in values if choice.casefold() == word), None)
    if choice is None:
        return _unreadable(reply)
    return Judgement(values[choice], f"{choice}: {_reason(verdict, reply)}")


def read_claims(reply: str) -> Judgement:
    """Read the supported share of the last claims; no value without clear verdicts.

    A repeated claim counts once, with its last verdict. An answer without claims scores 0.

    >>> read_claims('{"claims": [{"claim": "It is free.", "evidence": "none", "supported": "no"}]}').reason
    '0 of 1 claims are supported; not supported: It is free.'
    """
    claims = _last_verdict(reply, ["claims"]).get("claims")
    if not isinstance(claims, list):
        return _unreadable(reply)
    words: dict[str, str] = {}
    for each in claims:
        claim, word = (each.get("claim"), each.get("supported")) if isinstance(each, dict) else (None, None)
        word = {True: "yes", False: "no"}[word] if isinstance(word, bool) else str(word).strip(" .").casefold()
        if not isinstance(claim, str) or word not in ("yes", "no"):
            return _unreadable(reply)
        words[" ".join(claim.split())[:CLAIM_CHARACTERS]] = word
    if not words:
        return Judgement(0.0, "it claims nothing")
    lacking = [claim for claim, word in words.items() if word == "no"]
    supported = len(words) - len(lacking)
    more = f"; not supported: {'; '.join(lacking)}" if lacking else ""
    return Judgement(supported / len(words), f"{supported} of {len(words)} claims are supported{more}")


def _unreadable(text: str) -> Judgement:
    return Judgement(None, f"the judge's answer has no readable verdict: {' '.join(text[-120:].split())}")


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
