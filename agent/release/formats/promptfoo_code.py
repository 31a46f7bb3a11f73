"""A promptfoo prompt in Python, for what its JSON cannot hold: the exported module, and a prompt function.

promptfoo takes what a prompt function returns for Nunjucks templates and fills them again, so the function returns its
messages as templates that say just what they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from agent.release.export import as_given, hostile_rows, tried_rows
from agent.release.formats.escaping import OPENS
from agent.release.formats.export_format import Render, Sent, no_lone_surrogates
from agent.release.formats.promptfoo_run import FOLDER, Given, asked_rows, echo, rendered, require_valid
from agent.release.formats.python_module import load_module, module_source
from agent.release.prompt_file import PromptRelease

FILE = "prompt.py"
_RETURNED = "returned.cjs"
"""For the proof alone: a prompt that is what the function returned."""
REFERENCE = f"file://{FILE}:promptfoo_prompt"
_SOURCE = '''

# promptfoo: `prompts: [file://prompt.py:promptfoo_prompt]`.
import json

INPUTS = @inputs@
OPENS = re.compile(@opens@)


def promptfoo_prompt(context: dict[str, Any]) -> str:
    """The messages for `vars.row` as JSON, each a Nunjucks template of itself: promptfoo fills what this returns."""
    row = context["vars"]["row"]
    messages = render(**{name: row[name] for name in INPUTS})
    return json.dumps([{**message, "content": _template(message["content"])} for message in messages])


def _template(text: str) -> str:
    text = OPENS.sub(lambda found: _quoted(found[0]), text)
    return text[:-1] + _quoted("\\n") if text.endswith("\\n") else text


def _quoted(char: str) -> str:
    return '{{ "' + {"\\n": "\\\\n", "\\r": "\\\\r"}.get(char, char) + '" }}'
'''


def function_source(release: PromptRelease) -> str:
    """The file with the prompt function."""
    source = _SOURCE.replace("@inputs@", ascii(release.inputs)).replace("@opens@", f"{OPENS.pattern!r}")
    return module_source(release) + source


def load(folder: Path, release: PromptRelease) -> Render:
    """Every row by what the function returns for it, filled by promptfoo in one evaluation; each hostile
    value also by promptfoo from end to end, which starts a Python for each row."""
    require_valid(folder)
    module = load_module(folder / FOLDER / FILE, "exported_promptfoo_prompt")

    def echoed(rows: Sequence[Given]) -> list[Sent]:
        return echo(folder, FILE, REFERENCE, rows)

    rows = asked_rows(folder, release)
    (folder / FOLDER / _RETURNED).write_text("module.exports = ({ vars }) => vars.row.returned;\n", "utf-8")
    returned = [{"returned": module.promptfoo_prompt({"vars": {"row": dict(values)}})} for values in rows]
    filled = echo(folder, _RETURNED, f"file://{_RETURNED}", returned)
    each = list(hostile_rows(release.inputs))[:: max(1, len(release.inputs))]  # every hostile value is in one of them
    sent = [values for values in each if not no_lone_surrogates(release, values)]
    hostile = [as_given(release, values) for values in tried_rows(release, sent)]
    return rendered(release, [*zip(rows, filled, strict=True), *zip(hostile, echoed(hostile), strict=True)], echoed)
