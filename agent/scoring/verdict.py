"""What a judge is asked to answer, and how its answer is read. Pure: knows texts and token probabilities, no model.

The reason comes first, so that the rating follows from it; the last verdict in a reply counts, as models correct
themselves; what cannot be read is None: neither a 0 nor a pass. Every reader works in bounded time on any text.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.types import Rubric

REASON_CHARACTERS = 300
MOST_READ = 20_000  # characters of a reply, from its end
MOST_OBJECTS = 200
SURE_ENOUGH = 0.5  # of a token's weight on ratings, for its position to count as a rating

Tokens = Sequence[Sequence[tuple[str, float]]]
"""Per token of a reply the most likely (token, log-probability) pairs."""


@dataclass(frozen=True, slots=True)
class Rated:
    """A verdict by a rubric: a rating per criterion, on the rubric's scale; fractions come from token probabilities."""

    reason: str
    ratings: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Chosen:
    """A verdict out of a short list."""

    reason: str
    choice: str


def rating_schema(rubric: Rubric) -> str:
    """The JSON schema of a verdict by `rubric`: the reason first, then an integer for each criterion."""
    scale = {"type": "integer", "enum": list(range(rubric.low, rubric.high + 1))}
    return _schema({criterion.name: scale for criterion in rubric.criteria})


def choice_schema(choices: Sequence[str]) -> str:
    return _schema({"verdict": {"type": "string", "enum": list(choices)}})


def _schema(verdict: Mapping[str, Any]) -> str:
    properties = {"reason": {"type": "string", "maxLength": REASON_CHARACTERS}, **verdict}
    schema = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    return json.dumps(schema)  # unsorted: the order of the fields is the order of writing


def read_ratings(reply: str, rubric: Rubric, tokens: Tokens = ()) -> Rated | None:
    """The last verdict in `reply`, or None where it is not whole or a rating is off the scale.

    With `tokens`, a rating is its expectation over the scale (G-Eval: Liu et al. 2023, section 2), where the tokens
    agree with what the text says.
    """
    names = [criterion.name for criterion in rubric.criteria]
    found = _last_object(reply, names)
    said = found if found is not None else _last_lines(reply, names)
    ratings = {name: _rating(said.get(name), rubric) for name in names}
    whole = {name: float(value) for name, value in ratings.items() if value is not None}
    if len(whole) < len(names):
        return None
    return Rated(_reason(said, reply), expected(whole, tokens, rubric))


def read_choice(reply: str, choices: Sequence[str]) -> Chosen | None:
    """The last verdict in `reply`, or None where it is none of `choices`."""
    found = _last_object(reply, ["verdict"])
    said = found if found is not None else _last_lines(reply, ["verdict"])
    word = str(said.get("verdict", "")).strip().strip("\"'`*.").casefold()
    choice = next((choice for choice in choices if choice.casefold() == word), None)
    return Chosen(_reason(said, reply), choice) if choice is not None else None


def _last_object(reply: str, names: Sequence[str]) -> Mapping[str, Any] | None:
    """The last JSON object that names a verdict, whole or not; None when there is none."""
    text, decoder = reply[-MOST_READ:], json.JSONDecoder()
    last: Mapping[str, Any] | None = None
    at, tried = text.find("{"), 0
    while at >= 0 and tried < MOST_OBJECTS:
        tried += 1
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            end = at + 1
        else:
            if isinstance(value, dict) and any(name in value for name in names):
                last = value
        at = text.find("{", end)
    return last


def _last_lines(reply: str, names: Sequence[str]) -> Mapping[str, Any]:
    """The last `name: word` line of each name, quote marks, bullets and bold tolerated."""
    found: dict[str, Any] = {}
    wanted = "|".join(re.escape(name) for name in names)
    pattern = rf"^[ \t>*_#\-\"']{{0,9}}({wanted})[*_\"' \t]{{0,9}}[:=][*_ \t]{{0,9}}([^\n]{{1,60}})$"
    for match in re.finditer(pattern, reply[-MOST_READ:], re.IGNORECASE | re.MULTILINE):
        found[match[1].casefold()] = match[2].strip().rstrip(",")
    return {name: found[name.casefold()] for name in names if name.casefold() in found}


def _rating(value: Any, rubric: Rubric) -> int | None:
    """A whole rating on the scale, from 4, 4.0, "4" or "4/5"."""
    if isinstance(value, str):
        match = re.fullmatch(rf"[*_]{{0,3}}([0-9]{{1,2}})(?:\.0)?(?:\s*/\s*{rubric.high})?[*_.]{{0,3}}", value.strip())
        value = int(match[1]) if match else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return int(value) if value == int(value) and rubric.low <= value <= rubric.high else None


def _reason(said: Mapping[str, Any], reply: str) -> str:
    text = said.get("reason")
    words = text if isinstance(text, str) else reply[:MOST_READ].partition("{")[0]
    flat = " ".join(words.split())
    return flat if len(flat) <= REASON_CHARACTERS else flat[: REASON_CHARACTERS - 1] + "…"


def expected(ratings: Mapping[str, float], tokens: Tokens, rubric: Rubric) -> dict[str, float]:
    """The ratings as expectations over the scale: of the places where ratings have most of the weight, the last ones
    are the verdict's. Where their likeliest rating is not what was said, the text alone counts."""
    scale = {str(rating): rating for rating in range(rubric.low, rubric.high + 1)}
    places = []
    for place in tokens:
        weights = {
            scale[word]: math.exp(min(0.0, logprob)) for token, logprob in place if (word := token.strip()) in scale
        }
        if sum(weights.values()) >= SURE_ENOUGH:
            places.append(weights)
    last = places[-len(ratings) :]
    if len(last) < len(ratings):
        return dict(ratings)
    found = {}
    for (name, rating), weights in zip(ratings.items(), last, strict=True):
        if max(weights, key=lambda r: weights[r]) != rating:
            return dict(ratings)
        found[name] = sum(value * weight for value, weight in weights.items()) / sum(weights.values())
    return found


def rubric_value(ratings: Mapping[str, float], rubric: Rubric) -> float:
    """The weighted mean of the ratings, with the scale mapped to [0, 1]."""
    total = math.fsum(criterion.weight for criterion in rubric.criteria)
    mean = math.fsum(c.weight * ratings[c.name] for c in rubric.criteria) / total
    return min(1.0, max(0.0, (mean - rubric.low) / (rubric.high - rubric.low)))
