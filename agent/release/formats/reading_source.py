"""The reading of replies as Python source that needs nothing but Python: our own functions and the numbers.

Of every prompt the parser; of one with calibration also what decides by them.
"""

from __future__ import annotations

import ast
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import cycle, islice
from types import ModuleType
from typing import Any, get_args

from agent.errors import ReleaseError
from agent.prompt import reply_parser, value_readers
from agent.prompt.calibration import (
    FLOOR,
    MIN_LABEL_MASS,
    LabelCalibration,
    Place,
    Tokens,
    agree,
    calibrated,
    label_scores,
    pairs_of,
    places,
    tokens_of,
)
from agent.prompt.reply_parser import parse_reply
from agent.release.export import HOSTILE, as_given, probe_rows, tried_rows
from agent.release.prompt_file import PromptRelease
from agent.retrieval import votes
from agent.retrieval.votes import SMOOTHING
from agent.shipped import MAX_NUMBER, Field, FieldType, Prediction, composed, fold

# -- the parser --------------------------------------------------------------------------------------------------------

_TYPES = f"""

# The parser of replies: Python 3.11 or newer.
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

MAX_NUMBER = {MAX_NUMBER!r}
FieldType = Literal{list(get_args(FieldType))!r}


"""
PARSE = '''

def parse(reply: str) -> Prediction:
    """Reads a reply as it was read when it was scored, whatever the model wrote.

    Returns:
        In `fields` a value for each output; in `error` what did not parse or broke a limit, "" for nothing. The schema
        of a JSON output is not checked here.
    """
    return parse_reply(reply, OUTPUTS, reasoning=REASONING)
'''
WEIGHED = '''

def parse(reply: str, logprobs: Sequence[Any] = (), *, inputs: dict[str, Any] | None = None) -> Prediction:
    """Reads a reply as it was read when it was scored, whatever the model wrote.

    Args:
        reply: The model's text.
        logprobs: For each token of the reply its most likely tokens, as (token, log-probability) pairs or as OpenAI
            gives them (`choice.logprobs.content`). Calibration decides by them; without them, and where the reply
            does not begin with a label, it is read as it stands.
        inputs: What the prompt was rendered with. @needed@

    Returns:
        In `fields` the label; in `error` what did not parse, "" for nothing; the `confidence` of a calibrated label.
    """
    tokens = tokens_of(logprobs)
@answer@
    if found is None:
        return parse_reply(reply, OUTPUTS, reasoning=REASONING)
    return Prediction({OUTPUTS[0].name: found[0]}, reply, confidence=found[1])
'''
_ALONE = "    found = answer(tokens) if tokens else None"
_WITH_INPUTS = """\
    if tokens and inputs is None:
        raise ValueError("the inputs decide, too; write parse(reply, logprobs, inputs={...})")
    found = answer(tokens, inputs) if tokens and inputs is not None else None"""


def reply_source(release: PromptRelease) -> str:
    """What goes last in an exported module: `parse` and what it needs."""
    parts: list[Any] = [composed, fold, Field, Prediction]
    calibration = None if release.reasoning else release.calibration
    read = PARSE
    if calibration is not None:
        needed = "Needed with `logprobs`." if calibration.reads_input else "Not looked at."
        read = WEIGHED.replace("@needed@", needed)
        read = read.replace("@answer@", _WITH_INPUTS if calibration.reads_input else _ALONE)
    files = (value_readers, reply_parser)
    taken = (tokens_of, pairs_of) if calibration is not None else ()
    return (
        _TYPES
        + "\n\n".join([*(inspect.getsource(part) for part in parts), *map(_embedded, files)])
        + "".join(f"\n\n{inspect.getsource(part)}" for part in taken)
        + f"\n\nOUTPUTS: tuple[Field, ...] = {release.outputs!a}\nREASONING = {release.reasoning!r}\n"
        + read
    )


def _embedded(module: ModuleType) -> str:
    """The source of a module without its docstring and the imports of this project."""
    source = inspect.getsource(module)
    lines: list[str] = source.splitlines(keepends=True)
    for at, node in enumerate(ast.parse(source).body):
        ours = isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in ("__future__", "agent")
        if ours or (at == 0 and isinstance(node, ast.Expr)):
            lines[node.lineno - 1 : node.end_lineno] = [""] * ((node.end_lineno or node.lineno) - node.lineno + 1)
    return "".join(lines).strip("\n") + "\n"


def require_same_replies(name: str, parse: Callable[[str], Any], release: PromptRelease) -> None:
    """Raises a ReleaseError unless an exported `parse` reads replies as the release does."""
    for reply in _replies(release):
        found, want = parse(reply), parse_reply(reply, release.outputs, reasoning=release.reasoning)
        if (dict(found.fields), found.error) != (dict(want.fields), want.error):
            raise ReleaseError(f"{name}: parse drifts: {found!a:.80} for {reply!a:.60}, not {want!a:.80}")


def _replies(release: PromptRelease) -> Iterator[str]:
    yield from (message.content for message in release.messages if message.role == "assistant")
    values = {"number": "1,234.5", "json": '{"a": [1]}', "text": "Said so."}
    lines = [f"{each.name}: {each.choices[-1] if each.choices else values.get(each.type)}" for each in release.outputs]
    yield from ("\n".join(lines), f"<think>So.</think>\n{lines[0] if lines else ''}", *values.values())
    yield from (choice for each in release.outputs for choice in each.choices)
    yield from HOSTILE


# -- calibration -----------------------------------------------------------------------------------------------------

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
    """What goes after `render` in an exported module; "" for a release without calibration."""
    calibration = release.calibration
    if calibration is None:
        return ""
    near = calibration.neighbours
    parts: list[Any] = [agree, Place, places, label_scores]
    parts += [votes.label_votes, votes.log_shares] if near else []
    numbers, read = "", ANSWER
    if near:
        numbers = f"NEIGHBOURS, WEIGHT, SMOOTHING = {near.k!r}, {near.weight!r}, {SMOOTHING!r}\n"
        read = _with_input(release, "the labels of the nearest rows decide", _SHARES)
    elif calibration.prior and release.classifier:
        lines = release.classifier.lines(release.outputs[0].choices)
        data = (release.classifier.settings(), lines, [*calibration.bias])
        numbers = f"WEIGHT = {calibration.prior.weight!r}\nCLASSIFIER = label_classifier(*{data!a})\n"
        read = _with_input(release, "a classifier of the train rows decides", "CLASSIFIER.log_probabilities(text)")
    numbers += f"INPUTS = {release.inputs!a}\n" if numbers else ""
    return (
        "\n\n".join(
            [
                "\n\n# Calibration: ask the model for log-probabilities and pass them to `answer`.\n"
                "import math\n"
                "from collections.abc import Iterator, Sequence\n"
                "from typing import NamedTuple\n\n"
                "Tokens = Sequence[Sequence[tuple[str, float]]]\n"
                f"FLOOR, MIN_LABEL_MASS = {FLOOR!r}, {MIN_LABEL_MASS!r}\n"
                f"BIAS: dict[str, float] = {dict(calibration.bias)!a}\n"
                f"TEMPERATURE = {calibration.temperature!r}\n{numbers}",
                *(inspect.getsource(part) for part in parts),
            ]
        )
        + f"\n{read}"
    )


def _with_input(release: PromptRelease, deciding: str, shares: str) -> str:
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

    `unfit`: why the target cannot be given some inputs, which are left out.
    """
    calibration, field = release.calibration, release.outputs[0]
    assert calibration is not None
    replies = list(_weighed_replies(field.choices, calibration))
    for tokens, values in zip(cycle(replies), _inputs(release, len(replies)), strict=False):
        if calibration.reads_input and unfit(release, values):
            continue
        logs = label_scores(tokens, field.choices)
        want = None
        if logs is not None:
            found = calibrated(Prediction({}, ""), logs, field, calibration, release.votes(values))
            want = found.fields[field.name], found.confidence
        got = answer(tokens, as_given(release, values)) if calibration.reads_input else answer(tokens)
        if (got and got[0]) != (want and want[0]) or (got and want and abs(got[1] - (want[1] or 0)) > 1e-9):
            raise ReleaseError(f"{name}: its calibration drifts: {got!a:.80} for {tokens!a:.80}, not {want!a:.80}")


def _inputs(release: PromptRelease, least: int) -> Iterator[Mapping[str, str]]:
    """Inputs, hostile ones and texts of the pool, at least `least`."""
    texts = [row.text for row in release.picks.rows[:least]] if release.picks else []
    probes = list(probe_rows(release.inputs))
    made = [*probes, *(dict.fromkeys(release.inputs, text) for text in texts)]
    return islice(cycle(tried_rows(release, made)), max(least, len(made)))


def _weighed_replies(labels: Sequence[str], calibration: LabelCalibration) -> Iterator[Tokens]:
    """One that begins with no label; for each label one where it is spelled whole, one that comes in two tokens."""
    yield [[("\u2603", 0.0)]]
    for at, label in enumerate(labels):
        others = [(other, -1.0 - 0.1 * place) for place, other in enumerate(labels) if other != label]
        yield [[(label, -0.2 - 0.1 * at), *others]]
        half = max(1, len(label) // 2)
        yield [[(label[:half], math.log(0.6)), *others], [(label[half:], -0.1), ("x", -3.0)]]
