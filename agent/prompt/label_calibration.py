"""Label calibration: decide among the labels by their log-probabilities instead of by what the reply spells.

A small model prefers some labels whatever the input says. A bias for each label and one temperature, estimated on dev,
take that preference out when a reply is read; the request stays as it is. With neighbours the labels of the most
similar rows of a pool decide, too, and with a prior a classifier of the train rows. `stats/calibration.py` estimates
the weights. Pure, and only the standard library, as a shipped prompt reads its replies here.

Source: Zhao et al. 2021, "Calibrate Before Use", section 4; Zhou et al. 2023, "Batch Calibration", section 3;
neighbours: Khandelwal et al. 2020, "Generalization through Memorization", section 2; Shi et al. 2022, "kNN-Prompt",
section 3.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, NamedTuple

from agent.prompt.reply_parser import parse_reply
from agent.shipped import Field, Prediction

Tokens = Sequence[Sequence[tuple[str, float]]]
"""For each token of a reply its most likely (token, log-probability) pairs."""
Method = Literal["label-free", "fitted", "neighbours", "prior"]
FLOOR = 1e-6  # the least probability of a label: a list of the most likely tokens says no more about it
MIN_LABEL_MASS = 0.05  # of a token's probability; below it the reply is about something other than the labels
MOST_LOGPROBS = 20
NEIGHBOURS = 32
"""Rows that vote in a search: of 8, 16, 24, 32 and 48 the one with the least cross-fitted loss on dev."""
MOST_NEIGHBOURS = 1_000
SMOOTHING = 0.5  # of a vote for each label, so that one without any neighbour is not ruled out
LABELS_FIRST = ("turns", "labelled-turns", "inline")
"""The layouts whose replies begin with the answer."""


def logprobs_for(labels: Sequence[str]) -> int:
    """Return how many log-probabilities to request per token of a reply that is a label."""
    return min(MOST_LOGPROBS, max(5, 2 * len(labels)))


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Votes of the `k` nearest rows of the pool; `weight`: of the log of a label's share in the votes."""

    k: int
    weight: float


@dataclass(frozen=True, slots=True)
class Prior:
    """Votes of a classifier of the train rows (`retrieval/linear.py`); `weight`: of its log-probability of a label;
    `rows`: the hash of its train rows.
    """

    weight: float
    rows: str


@dataclass(frozen=True, slots=True)
class LabelCalibration:
    """Weights for the label with the highest `log p(label) / temperature + bias[label]`.

    Neighbours add `weight * log(share of the label in their votes)`, a prior `weight * log(probability by its
    classifier)`. `method`: how they were estimated; `bias`: in nats; a `temperature` of 1 changes nothing.
    """

    method: Method
    bias: Mapping[str, float]
    temperature: float = 1.0
    neighbours: Neighbours | None = None
    prior: Prior | None = None

    @property
    def reads_input(self) -> bool:
        """Whether the input also decides, by neighbours or a classifier."""
        return self.neighbours is not None or self.prior is not None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, JSON-ready."""
        found = {"method": self.method, "bias": dict(self.bias), "temperature": self.temperature}
        more = {"neighbours": self.neighbours, "prior": self.prior}
        return found | {name: asdict(part) for name, part in more.items() if part is not None}

    def scores(self, logs: Sequence[float], votes: Sequence[float] = ()) -> list[float]:
        """Return the weighted scores of the labels, in the order of `bias`.

        `votes`: the neighbours' votes for them, or with a prior the classifier's log-probabilities.
        """
        scores = [log / self.temperature + bias for log, bias in zip(logs, self.bias.values(), strict=True)]
        if self.neighbours is not None:
            weight, shares = self.neighbours.weight, log_shares(votes)
        elif self.prior is not None:
            weight, shares = self.prior.weight, list(votes)
        else:
            return scores
        return [score + weight * share for score, share in zip(scores, shares, strict=True)]


def log_shares(votes: Sequence[float]) -> list[float]:
    """Return the log of each label's share in the votes, each with SMOOTHING added.

    Without votes all are equal.

    >>> [round(share, 2) for share in log_shares([1.5, 0.0])]
    [-0.22, -1.61]
    """
    total = math.fsum(votes) + SMOOTHING * len(votes)
    return [math.log((vote + SMOOTHING) / total) for vote in votes]


def label_scores(tokens: Tokens, labels: Sequence[str]) -> tuple[float, ...] | None:
    """Return the log-probability of each label, as far as the reply's most likely tokens tell.

    The labels are followed along the reply: at each token a label has the probability of the listed tokens that
    continue it. While the reply spells a label, the probabilities of its tokens are multiplied; where it leaves the
    reply, labels with the same continuation share theirs. A label that no listed token spells gets its upper bound, the
    least listed probability or what the list leaves of 1, and no label gets less than FLOOR.

    Args:
        tokens: Of a reply that begins with its label.
        labels: At least one.

    Returns:
        Values from log(FLOOR) to 0, in the order of `labels`; None if the reply does not begin with a label.

    >>> [round(score, 2) for score in label_scores([[("yes", -0.1), ("no", -2.4)]], ["yes", "no"])]
    [-0.1, -2.4]
    """
    names = [label.casefold() for label in labels]
    logs, open_ = [0.0] * len(names), set(range(len(names)))
    begun, ended = False, list[int]()
    for place in places(tokens, names):
        ended = []
        weights, shared = [0.0] * len(names), 0.0
        for text, weight in place.listed:
            alike = [at for at in open_ if agree(text, names[at])]
            shared += weight if alike else 0.0
            on = text == place.likeliest and place.goes_on
            for at in alike:
                weights[at] += weight if on else weight / len(alike)
        if not begun and shared < MIN_LABEL_MASS:
            return None
        begun = True
        rest = max(FLOOR, min(place.least, 1.0 - place.mass))
        for at in open_:
            logs[at] += math.log(weights[at] or rest)
        if place.goes_on:
            open_ = {at for at in open_ if names[at].startswith(place.likeliest)}
            ended = [at for at in open_ if names[at] == place.likeliest]
    for at in open_ - set(ended) if ended else ():  # the reply ends with a label that begins others
        logs[at] += math.log(FLOOR)
    return tuple(min(0.0, max(math.log(FLOOR), log)) for log in logs) if begun else None


class Place(NamedTuple):
    """One token of a reply.

    `listed`, `likeliest`: the reply up to each listed token with its probability, and up to the most likely one.
    `goes_on`: whether that is still a prefix of several labels. `least`, `mass`: of the listed probabilities.
    """

    listed: tuple[tuple[str, float], ...]
    likeliest: str
    goes_on: bool
    least: float
    mass: float


def places(tokens: Tokens, names: Sequence[str]) -> Iterator[Place]:
    """Yield a reply's tokens up to the one that decides among `names` (casefolded)."""
    spelled = ""
    for place in tokens:
        listed, likeliest, best = [], "", -math.inf
        for token, logprob in place:
            text = spelled + (token.casefold() if spelled else token.casefold().lstrip())
            if logprob > best:
                likeliest, best = text, logprob
            if text != spelled:
                listed.append((text, math.exp(min(0.0, logprob))))
        if likeliest == spelled:  # white space before the label, or nothing
            continue
        every = [math.exp(min(0.0, logprob)) for _, logprob in place]
        goes_on = sum(name.startswith(likeliest) for name in names) > 1
        yield Place(tuple(listed), likeliest, goes_on, min(every, default=0.0), math.fsum(every))
        if not goes_on:
            return
        spelled = likeliest


def agree(text: str, label: str) -> bool:
    """Return whether `text` is a prefix of the label or continues it."""
    return bool(text) and (label.startswith(text) or text.startswith(label))


def calibrated(
    prediction: Prediction,
    logs: Sequence[float],
    field: Field,
    weights: LabelCalibration | None,
    votes: Sequence[float] = (),
) -> Prediction:
    """Replace the answer by that of the weights (None: it stays), and set its confidence.

    `logs`, `votes`: for each choice of `field`, the only output; see `label_logs` and `LabelCalibration.scores`.
    """
    scores = weights.scores(logs, votes) if weights else list(logs)
    if weights:
        prediction = Prediction({field.name: field.choices[scores.index(max(scores))]}, prediction.raw)
    answer = prediction.fields.get(field.name)
    if answer not in field.choices:
        return prediction
    return replace(prediction, confidence=share_of_all(scores, field.choices.index(answer)))


def share_of_all(logs: Sequence[float], at: int) -> float:
    """Return the share in [0, 1] of one of several log-probabilities (nats, of any sum)."""
    top = max(logs)
    weights = [math.exp(log - top) for log in logs]
    return weights[at] / math.fsum(weights)


# -- a reply with its log-probabilities --------------------------------------------------------------------------------


def label_logs(
    tokens: Tokens, outputs: Sequence[Field], reasoning: bool, exact: Sequence[float] = ()
) -> Sequence[float] | None:
    """Return the log-probability of each label; None unless a reply begins with one.

    `tokens`: of the reply. `exact`: from a model that scores labels; then `tokens` are ignored.
    """
    labels = outputs[0].choices if len(outputs) == 1 and not reasoning else ()
    if not labels or not (tokens or exact):
        return None
    return exact if len(exact) == len(labels) else label_scores(tokens, labels)


def read_reply(
    text: str,
    tokens: Tokens,
    outputs: tuple[Field, ...],
    reasoning: bool,
    weights: LabelCalibration | None,
    votes: Sequence[float] = (),
    exact: Sequence[float] = (),
) -> Prediction:
    """Parse a reply, with its confidence if it begins with a label; never raises. See `label_logs` and `calibrated`."""
    prediction = parse_reply(text, outputs, reasoning=reasoning)
    logs = label_logs(tokens, outputs, reasoning, exact)
    return prediction if logs is None else calibrated(prediction, logs, outputs[0], weights, votes)


def tokens_of(logprobs: Sequence[Any]) -> Tokens:
    """Return log-probabilities as pairs, from pairs or OpenAI's form; () for anything else."""
    try:
        return tuple(tuple((str(token), float(log)) for token, log in pairs_of(place)) for place in logprobs)
    except (AttributeError, KeyError, TypeError, ValueError):
        return ()


def pairs_of(place: Any) -> list[tuple[Any, Any]]:
    """Return the most likely tokens at one place, with log-probabilities; raises for other forms."""
    if isinstance(place, Mapping):  # as JSON
        return [(top["token"], top["logprob"]) for top in place["top_logprobs"]]
    if hasattr(place, "top_logprobs"):
        return [(top.token, top.logprob) for top in place.top_logprobs]
    return list(place)
