"""The parser of replies as Python source that needs nothing but Python: our own modules as they stand."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, get_args

from agent.errors import ReleaseError
from agent.prompt import answer_limits, reply_parser, value_readers, weighted_reply
from agent.prompt.reply_parser import parse_reply
from agent.release.export import HOSTILE
from agent.release.prompt_file import PromptRelease
from agent.shipped import MAX_NUMBER, Field, FieldType, Prediction, composed, fold

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
            gives them (`choice.logprobs.content`). The label weights decide by them; without them, and where the reply
            does not begin with a label, it is read as it stands.
        inputs: What the prompt was rendered with. @needed@

    Returns:
        In `fields` the label; in `error` what did not parse, "" for nothing; the `confidence` where the weights decide.
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
    weights = None if release.reasoning else release.weights
    read = PARSE
    if weights is not None:
        needed = "Needed with `logprobs`." if weights.reads_input else "Not looked at."
        read = WEIGHED.replace("@needed@", needed)
        read = read.replace("@answer@", _WITH_INPUTS if weights.reads_input else _ALONE)
    files = (answer_limits, value_readers, reply_parser)
    taken = (weighted_reply.tokens_of, weighted_reply.pairs_of) if weights is not None else ()
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
    """Raises a ReleaseError unless an exported `parse` reads replies as the release does.

    Args:
        name: Of the export, for the error.
        parse: The exported function.
        release: What was exported.
    """
    for reply in _replies(release):
        found, want = parse(reply), parse_reply(reply, release.outputs, reasoning=release.reasoning)
        if (dict(found.fields), found.error) != (dict(want.fields), want.error):
            raise ReleaseError(f"{name}: parse drifts: {found!a:.80} for {reply!a:.60}, not {want!a:.80}")


def _replies(release: PromptRelease) -> Iterator[str]:
    """The answers of examples, answers of each type, and hostile texts."""
    yield from (message.content for message in release.messages if message.role == "assistant")
    values = {"number": "1,234.5", "json": '{"a": [1]}', "text": "Said so."}
    lines = [f"{each.name}: {each.choices[-1] if each.choices else values.get(each.type)}" for each in release.outputs]
    yield from ("\n".join(lines), f"<think>So.</think>\n{lines[0] if lines else ''}", *values.values())
    yield from (choice for each in release.outputs for choice in each.choices)
    yield from HOSTILE
