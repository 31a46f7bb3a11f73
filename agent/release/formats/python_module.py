"""A Python module with `render` and `parse` and no dependency: the prompt as data, and the very code that ran it.

The modules that a released prompt is rendered and read with are embedded whole, without their imports of each other, so
an export cannot render or read otherwise than the run did. Targets that call Python extend the module; `module_proof`
compares what is loaded with the release.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import keyword
from pathlib import Path
from typing import Any

from agent.errors import ReleaseError
from agent.metrics import calls
from agent.models import tool_calling
from agent.models.openai import response_format
from agent.models.tool_calling import openai_tools
from agent.prompt.parts.calibration import Calibrating
from agent.prompt.parts.passages import ReleasedPassages
from agent.prompt.parts.picks import PickedDemos
from agent.release.formats.export_format import Material, Opened, export_format, sent_schema
from agent.release.formats.module_proof import load_module, opened_module, require_same_answers
from agent.release.prompt_file import PromptRelease
from agent.retrieval import passages

FILE = "prompt.py"
_START = '"""A released prompt: its data, `render` and `parse` are at the end. Needs only Python 3.11 or newer."""\n'
_TOOL_CODE = (
    calls.ToolCall, calls.calls_in, calls._each, calls._call, calls._parts,
    tool_calling.calls_of, tool_calling._openai_messages, tool_calling._argument_text,
)  # fmt: skip
_SHOWN = """

_INDEX = PoolIndex([PoolRow(*row[:4]) for row in ROWS])


def _shown(values: dict[str, str]) -> list[tuple[str, ...]]:
    return [ROWS[at][4] for at in _INDEX.pick(text_of(values, COMPARED), PICKS, HEAD)]
"""
_CONTEXT = """

_PASSAGES = PoolIndex([PoolRow(str(at), text, "", "") for at, text in enumerate(PASSAGES)])


def _context(values: dict[str, str]) -> str:
    found = _PASSAGES.nearest(text_of(values, COMPARED), LOOKUP["retriever"], LOOKUP["k"])
    return passage_block(LOOKUP["tag"], [PASSAGES[at] for at in found])
"""
_CHANGED = """

def _changed(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    sent = [message.as_dict() for message in messages]
    for change in (@changes@,):
        sent = change(sent)
    return tuple(Message(**message) for message in sent)

"""
_RENDER = '''

def _values(inputs: dict[str, Any]) -> dict[str, str]:
    return {
        name: value if name != CONVERSATION else user_text(value) if isinstance(value, str) else waiting_text(value)
        for name, value in inputs.items()
    }


def _messages(inputs: dict[str, Any]) -> tuple[Message, ...]:
    values = _values(inputs)
    return @filled@


def render(@arguments@) -> list[dict[str, str]]:
    """Return the messages to send, exactly as they were scored."""
    return [message.as_dict() for message in _messages(@inputs@)]
'''
_SENT = '''

def sent(@arguments@) -> list[dict[str, Any]]:
    """Return the messages to send with TOOLS, in OpenAI's form: examples as calls with results."""
    return list(_openai_messages(_messages(@inputs@)))
'''
_PARSE = '''

def parse(reply: str) -> Prediction:
    """Read a reply exactly as when it was scored; never raises for a reply.

    Returns:
        In `fields` a value for each output; in `error` what did not parse or broke a limit, or "". The schema
        of a JSON output is not checked here.
    """
    return parse_reply(reply, OUTPUTS, reasoning=REASONING)
'''
_WEIGH = '''

def _votes(inputs: dict[str, Any] | None) -> tuple[float, ...]:
    return @votes@


def answer(logprobs: Tokens, inputs: dict[str, Any] | None = None) -> tuple[str, float] | None:
    """Return the label of a reply and its confidence.

    Args:
        logprobs: For each token of the reply its most likely (token, log-probability) pairs.
        inputs: The inputs of `render`. @needed@

    Returns:
        None if the reply does not begin with a label.
    """
    logs = label_scores(logprobs, OUTPUTS[0].choices)
    if logs is None:
        return None
    found = calibrated(Prediction({}, ""), logs, OUTPUTS[0], CALIBRATION, _votes(inputs))
    return found.fields[OUTPUTS[0].name], found.confidence or 0.0


def parse(reply: str, logprobs: Sequence[Any] = (), *, inputs: dict[str, Any] | None = None) -> Prediction:
    """Read a reply exactly as when it was scored; never raises for a reply.

    Args:
        reply: The model's text.
        logprobs: For each token of the reply its most likely tokens, as (token, log-probability) pairs or as OpenAI
            gives them (`choice.logprobs.content`). Calibration decides by them; without them, and if the reply does
            not begin with a label, its text is read.
        inputs: The inputs of `render`. @needed@

    Returns:
        In `fields` the label; in `error` what did not parse, or ""; in `confidence` that of a calibrated label.
    """
    tokens = tokens_of(logprobs)
    if tokens and inputs is None and CALIBRATION.reads_input:
        raise ValueError("the inputs also decide; pass inputs={...}")
    return read_reply(reply, tokens, OUTPUTS, REASONING, CALIBRATION, _votes(inputs) if tokens else ())
'''


# -- the source --------------------------------------------------------------------------------------------------------


def filled(template: str, **marks: str) -> str:
    """Replace the `@marks@` of a template by code."""
    for mark, code in marks.items():
        template = template.replace(f"@{mark}@", code)
    return template


def module_source(release: PromptRelease, template: str = "", **marks: str) -> str:
    """Write the module and a target's template. Raises ReleaseError for what a module cannot hold."""
    picks = release.part(PickedDemos)
    if picks is not None and picks.vectors is not None:
        raise ReleaseError(
            f"{release.name!r}: picks examples by vectors of {picks.vectors.model}, which a plain module "
            "cannot make; export as md or messages, and use load_prompt"
        )
    if bad := [name for name in release.inputs if keyword.iskeyword(name) or not name.isidentifier()]:
        raise ReleaseError(f"{release.name!r}: the input {bad[0]!r} cannot be an argument of a Python function")
    head = f"# {ascii(release.name)[1:-1]}, {release.version}\n{_START}"
    return head + _code(release) + _data(release) + filled(template, **marks)


def _code(release: PromptRelease) -> str:
    # no annotation is a text, as not every loader registers the module of a dataclass
    reading, retrieving = release.part(Calibrating), release.part(ReleasedPassages)
    classifier = reading and reading.classifier
    needed = (
        (("shipped", "conversation", "prompt.template", "prompt.value_readers", "prompt.reply_parser"), True),
        (("retrieval.pick",), release.part(PickedDemos) or retrieving or classifier),
        (("retrieval.linear",), classifier),
        (("prompt.label_calibration",), reading),
    )
    parts: list[Any] = []
    text = "".join(f"\n\n{_embedded(module)}" for modules, has in needed if has for module in modules)
    if retrieving:
        parts.append(passages.passage_block)
        text += f"\n\nABOUT_PASSAGES = {passages.ABOUT_PASSAGES!a}\n"
    if release.tools:
        parts += _TOOL_CODE
        text += f"\n\nNONE, DONE = {tool_calling.NONE!r}, {tool_calling.DONE!r}\nCall = tuple[str, Any]\n"
        text += "\n\ndef short(value: Any, limit: int) -> str:\n    return repr(value)[:limit]\n"
    return text + "".join(f"\n\n{inspect.getsource(part)}" for part in parts)


def _embedded(module: str) -> str:
    source = inspect.getsource(importlib.import_module(f"agent.{module}"))
    lines: list[str] = source.splitlines(keepends=True)
    for at, node in enumerate(ast.parse(source).body):
        ours = isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in ("__future__", "agent")
        typed = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if ours or typed or (at == 0 and isinstance(node, ast.Expr)):
            lines[node.lineno - 1 : node.end_lineno] = [""] * ((node.end_lineno or node.lineno) - node.lineno + 1)
    return "".join(lines).strip("\n") + "\n"


def _data(release: PromptRelease) -> str:
    kind = "str | list[dict[str, str]]"
    typed = [f"{name}: {kind if name == release.conversation else 'str'}" for name in release.inputs]
    messages = "fill_messages(MESSAGES, values)"
    text = "\n\n# -- the prompt --\n\n" + "".join(
        f"{line}\n"
        for line in (
            f"MODEL = {release.model!a}",
            f"PARAMETERS: dict[str, Any] = {dict(release.parameters)!a}",
            f"VERSION = {release.version!a}",
            "MESSAGES = (",
            *(
                f"    Message({message.role!r}, (\n        {_text(message.content)}\n    )),"
                for message in release.messages
            ),
            ")",
            f"OUTPUTS: tuple[Field, ...] = {release.outputs!a}",
            f"REASONING = {release.reasoning!r}",
            f"CONVERSATION = {release.conversation!a}",
            f"COMPARED = {release.compared!a}",
        )
    )
    if (picks := release.part(PickedDemos)) is not None:
        rows = zip(picks.rows, picks.shown, strict=True)
        lines = "".join(f"    {(row.id, row.text, row.label, row.group, shown)!a},\n" for row, shown in rows)
        text += f"PICKS = Picks(**{picks.picks.as_dict()!a})\nHEAD = {picks.head!a}\n"
        text += f"ROWS: list[Any] = [\n{lines}]\n{_SHOWN}"
        messages = "fill_messages(MESSAGES, values, _shown(values))"
    if (found := release.part(ReleasedPassages)) is not None:
        lookup = {"retriever": found.settings.retriever, "k": found.settings.k, "tag": found.index.tag}
        lines = "".join(f"    {passage.text!a},\n" for passage in found.passages)
        text += f"\n\nLOOKUP: Any = {lookup!a}\nPASSAGES = [\n{lines}]\n{_CONTEXT}"
        messages = messages.replace("values", f'{{**values, "{passages.CONTEXT}": _context(values)}}', 1)
    if sources := [part.source() for part in release.parts if part.source()]:
        changes = ", ".join(part.name for part in release.parts if part.source())
        text += "".join(f"\n\n{source}" for source in sources) + filled(_CHANGED, changes=changes)
        messages = f"_changed({messages})"
    if schema := sent_schema(release):
        text += f"RESPONSE_FORMAT: dict[str, Any] = {response_format(schema)!a}\n"
    if release.tools:
        text += f"TOOLS: list[dict[str, Any]] = {openai_tools(release.tools)!a}\n"
    inputs = "{" + ", ".join(f"{name!r}: {name}" for name in release.inputs) + "}"
    functions, arguments = _RENDER + _SENT * bool(release.tools), f"*, {', '.join(typed)}" if typed else ""
    return text + filled(functions, arguments=arguments, inputs=inputs, filled=messages) + _reading(release)


def _reading(release: PromptRelease) -> str:
    reading = release.part(Calibrating)
    if reading is None:
        return _PARSE
    how, classifier = reading.weights, reading.classifier
    data, counted = f"\n\nCALIBRATION = {how!a}\n", "()"
    if how.neighbours:
        labels, k = list(how.bias), how.neighbours.k
        counted = f"_INDEX.votes(text_of(_values(inputs or {{}}), COMPARED), {labels!a}, {k})"
    elif how.prior and classifier is not None:
        lines = classifier.lines(release.outputs[0].choices)
        data += f"CLASSIFIER = label_classifier(*{(classifier.settings(), lines, [*how.bias])!a})\n"
        counted = "CLASSIFIER.log_probabilities(text_of(_values(inputs or {}), COMPARED))"
    needed = "Needed, as they also decide." if how.reads_input else "Ignored."
    return data + filled(_WEIGH, votes=counted, needed=needed)


def _text(text: str) -> str:
    lines = [_literal(line) for line in text.split("\n")]
    lines = [line[:-1] + '\\n"' for line in lines[:-1]] + lines[-1:]
    kept = [line for line in lines if line != '""'] or ['""']
    return "\n        ".join(kept)


def _literal(line: str) -> str:
    body = line.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(char if char.isprintable() else f"\\U{ord(char):08x}" for char in body) + '"'


# -- the format --------------------------------------------------------------------------------------------------------


def _load(folder: Path, release: PromptRelease) -> Opened:
    module = load_module(folder / FILE, "exported_prompt")
    if release.reads_tokens:
        require_same_answers("python", module.answer, release)
    return opened_module("python", module, release)


@export_format(
    "python",
    about="prompt.py: `render(input=...)` gives the messages, `parse(reply)` the answer; needs nothing but Python",
    load=_load,
    carries=("tools", "calibration", "picks", "conversation", "schema", "more"),
)
def files(material: Material) -> dict[str, str]:
    return {FILE: module_source(material.release)}
