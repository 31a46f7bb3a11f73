"""Label weights as Python source that needs nothing but Python: our own functions as they stand, and the numbers."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import cycle, islice
from typing import Any

from agent.errors import ReleaseError
from agent.prompt import label_weights
from agent.prompt.label_weights import FLOOR, MIN_LABEL_MASS, LabelWeights, Tokens, label_scores, weighed
from agent.release.export import as_given, probe_rows, tried_rows
from agent.release.prompt_file import PromptRelease
from agent.retrieval import votes
from agent.retrieval.votes import SMOOTHING
from agent.types import Prediction

ANSWER = '''
def answer(logprobs: Tokens) -> tuple[str, float] | None:
    """The label of a reply and its confidence.

    Args:
        logprobs: For each token of the reply its most likely (token, log-probability) pairs.

    Returns:
        None where the reply does not begin with a label.
    """
    logs = label_scores(logprobs, list(BIAS))
    if logs is None:
        return None
    scores = [log / TEMPERATURE + bias for log, bias in zip(logs, BIAS.values())]
    top = max(scores)
    return list(BIAS)[scores.index(top)], 1 / math.fsum(math.exp(score - top) for score in scores)
'''
_SHARES = "log_shares(label_votes(_INDEX, text, list(BIAS), NEIGHBOURS))"
NEAR_ANSWER = '''
def answer(logprobs: Tokens, inputs: dict[str, str]) -> tuple[str, float] | None:
    """The label of a reply and its confidence.

    Args:
        logprobs: For each token of the reply its most likely (token, log-probability) pairs.
        inputs: What the prompt was rendered with; @deciding@, too.

    Returns:
        None where the reply does not begin with a label.
    """
    logs = label_scores(logprobs, list(BIAS))
    if logs is None:
        return None
    text = "\\n".join(inputs[name] for name in INPUTS)
    shares = @shares@
    scores = [log / TEMPERATURE + bias + WEIGHT * share for log, bias, share in zip(logs, BIAS.values(), shares)]
    top = max(scores)
    return list(BIAS)[scores.index(top)], 1 / math.fsum(math.exp(score - top) for score in scores)
'''


def weights_source(release: PromptRelease) -> str:
    """What goes after `render` in an exported module; "" for a release without label weights."""
    weights = release.weights
    if weights is None:
        return ""
    near = weights.neighbours
    parts: list[Any] = [label_weights.agree, label_weights.Place, label_weights.places, label_weights.label_scores]
    parts += [votes.label_votes, votes.log_shares] if near else []
    numbers, read = "", ANSWER
    if near:
        numbers = f"NEIGHBOURS, WEIGHT, SMOOTHING = {near.k!r}, {near.weight!r}, {SMOOTHING!r}\n"
        read = _with_input(release, "the labels of the nearest rows decide", _SHARES)
    elif weights.prior and release.classifier:
        data = (release.classifier.settings(), release.classifier.lines(release.outputs[0].choices), [*weights.bias])
        numbers = f"WEIGHT = {weights.prior.weight!r}\nCLASSIFIER = label_classifier(*{data!a})\n"
        read = _with_input(release, "a classifier of the train rows decides", "CLASSIFIER.log_probabilities(text)")
    numbers += f"INPUTS = {release.inputs!a}\n" if numbers else ""
    return (
        "\n\n".join(
            [
                "\n\n# Label weights: ask the model for log-probabilities and pass them to `answer`.\n"
                "import math\n"
                "from collections.abc import Iterator, Sequence\n"
                "from typing import NamedTuple\n\n"
                "Tokens = Sequence[Sequence[tuple[str, float]]]\n"
                f"FLOOR, MIN_LABEL_MASS = {FLOOR!r}, {MIN_LABEL_MASS!r}\n"
                f"BIAS: dict[str, float] = {dict(weights.bias)!a}\n"
                f"TEMPERATURE = {weights.temperature!r}\n{numbers}",
                *(inspect.getsource(part) for part in parts),
            ]
        )
        + f"\n{read}"
    )


def _with_input(release: PromptRelease, deciding: str, shares: str) -> str:
    """An `answer` that reads the inputs, too."""
    said = "last_said(_said(inputs[name])) for" if release.conversation else "inputs[name] for"
    return NEAR_ANSWER.replace("@deciding@", deciding).replace("@shares@", shares).replace("inputs[name] for", said)


def as_openai(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of a release as OpenAI names them: whether there are log-probabilities, and for how many tokens.

    >>> as_openai({"max_tokens": 8, "logprobs": 6})
    {'max_tokens': 8, 'logprobs': True, 'top_logprobs': 6}
    """
    found = dict(parameters)
    if count := found.pop("logprobs", 0):
        found |= {"logprobs": True, "top_logprobs": count}
    return found


def from_openai(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What `as_openai` was given.

    >>> from_openai({"max_tokens": 8, "logprobs": True, "top_logprobs": 6})
    {'max_tokens': 8, 'logprobs': 6}
    """
    found = dict(parameters)
    if found.pop("logprobs", False):
        found["logprobs"] = found.pop("top_logprobs", 0)
    return found


def require_same_answers(
    name: str,
    answer: Callable[..., Any],
    release: PromptRelease,
    unfit: Callable[[PromptRelease, Mapping[str, str]], str] = lambda release, values: "",
) -> None:
    """Raises a ReleaseError unless an exported `answer` decides as the release does, on replies in every label.

    Args:
        name: Of the export, for the error.
        answer: Label and confidence of a reply; None where it does not begin with a label.
        release: What was exported.
        unfit: Why the target cannot be given some inputs, which are left out; "" where it can.
    """
    weights, field = release.weights, release.outputs[0]
    assert weights is not None
    replies = list(_replies(field.choices, weights))
    for tokens, values in zip(cycle(replies), _inputs(release, len(replies)), strict=False):
        if weights.reads_input and unfit(release, values):
            continue
        logs = label_scores(tokens, field.choices)
        want = None
        if logs is not None:
            found = weighed(Prediction({}, ""), logs, field, weights, release.votes(values))
            want = found.fields[field.name], found.confidence
        got = answer(tokens, as_given(release, values)) if weights.reads_input else answer(tokens)
        if (got and got[0]) != (want and want[0]) or (got and want and abs(got[1] - (want[1] or 0)) > 1e-9):
            raise ReleaseError(f"{name}: the label weights drift: {got!a:.80} for {tokens!a:.80}, not {want!a:.80}")


def _inputs(release: PromptRelease, least: int) -> Iterator[Mapping[str, str]]:
    """Inputs, hostile ones and texts of the pool, at least so many."""
    texts = [row.text for row in release.picks.rows[:least]] if release.picks else []
    probes = list(probe_rows(release.inputs))
    made = [*probes, *(dict.fromkeys(release.inputs, text) for text in texts)]
    return islice(cycle(tried_rows(release, made)), max(least, len(made)))


def _replies(labels: Sequence[str], weights: LabelWeights) -> Iterator[Tokens]:
    """One that begins with no label; for each label one where it is spelled whole, one that comes in two tokens."""
    yield [[("\u2603", 0.0)]]
    for at, label in enumerate(labels):
        others = [(other, -1.0 - 0.1 * place) for place, other in enumerate(labels) if other != label]
        yield [[(label, -0.2 - 0.1 * at), *others]]
        half = max(1, len(label) // 2)
        yield [[(label[:half], math.log(0.6)), *others], [(label[half:], -0.1), ("x", -3.0)]]
