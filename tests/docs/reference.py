"""Writes the pages of docs/ that are made out of the code: commands, task.toml, Python and layers.

    python -m tests.docs.reference    # or: make docs-reference

The texts are those of `optimize -h`, of the schema of task.toml and of the docstrings: mend them there.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click

import promptassay
from agent.cli import GROUPS
from agent.cli import main as command_line
from agent.cli.declared import PLAIN, JobCommand
from agent.errors import AgentError, ModelError
from agent.options.shared import GROUPS as HEADINGS
from agent.results.base import Result
from agent.results.run_parts import BLOCKS
from agent.task.task_file import json_schema
from tests.schemas import RESULTS, schema_of, schema_text
from tests.test_layers import DOORS, LAYERS

DOCS = Path(__file__).resolve().parents[2] / "docs"
MADE = "<!-- Made by `make docs-reference`; do not edit. -->\n\n"


def commands(group: click.Group = command_line, words: str = "optimize") -> Iterator[tuple[str, click.Command]]:
    """Every command with its words, as in `optimize judge rate`; a group comes before its commands."""
    context = click.Context(group, info_name=words)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield f"{words} {name}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{words} {name}")


def _sentences(text: str) -> str:
    """Return a help text as paragraphs of one line each; preformatted parts become code blocks."""
    paragraphs = []
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        if paragraph.startswith("\b"):
            paragraphs.append("```text\n" + paragraph.removeprefix("\b").strip("\n") + "\n```")
        else:
            paragraphs.append(_plain(" ".join(paragraph.split())))
    return "\n\n".join(paragraphs)


def _plain(text: str) -> str:
    """Outside code, what Markdown would read as a tag or as emphasis."""
    return "".join(
        part if part.startswith("`") else re.sub(r"(<(?=[A-Za-z/!?])|\*)", r"\\\1", part)
        for part in re.split(r"(`[^`]*`)", text)
    )


def _command(words: str, command: click.Command) -> str:
    context = click.Context(
        command, info_name=words, max_content_width=500, terminal_width=500, **command.context_settings
    )
    text = f"## {words}\n\n{_sentences(command.help or '')}\n\n"
    text += f"```text\n{words} {' '.join(command.collect_usage_pieces(context))}\n```\n"
    options = {
        str(option.name): _option(option, context)
        for option in command.get_params(context)
        if isinstance(option, click.Option) and "--help" not in option.opts
    }
    if not isinstance(command, JobCommand) or command.home == PLAIN:
        return text + ("\n" + "".join(options.values()) if options else "")
    for heading in HEADINGS:
        lines = [line for name, line in options.items() if command.groups.get(name) == heading]
        text += f"\n**{heading}**\n\n{''.join(lines)}" if lines else ""
    return text


def _option(option: click.Option, context: click.Context) -> str:
    names, about = (" ".join(part.split()) for part in option.get_help_record(context) or ("", ""))
    variable = "" if option.is_eager else f" Environment: `OPTIMIZE_{str(option.name).upper()}`."
    return f"- `{names}`: {_plain(about)}{variable}\n"


def command_page() -> str:
    """docs/commands.md."""
    head = (
        "# Every command\n\n"
        f"{MADE}"
        "What `optimize COMMAND -h` prints, for each command. RUN is the id of a run or the unique start of\n"
        "one. What holds for all commands (exit codes, environment, `--json`): [Command line](command-line.md).\n\n"
        "| command | what it does |\n|---|---|\n"
    )
    found = dict(commands())
    for heading, names in GROUPS.items():
        head += f"| **{heading}** | |\n"
        for name in names:
            about = " ".join((found[f"optimize {name}"].help or "").split("\n\n")[0].split())
            head += f"| [`optimize {name}`](#optimize-{name}) | {_plain(about)} |\n"
    return head + "\n" + "\n".join(_command(words, command) for words, command in found.items())


def _kind(schema: dict[str, Any]) -> str:
    """What a key may hold, in a few words."""
    if "anyOf" in schema:
        return " or ".join(_kind(each) for each in schema["anyOf"])
    if "enum" in schema:
        return "one of " + ", ".join(f"`{each}`" for each in schema["enum"])
    if schema.get("type") == "array":
        items = _kind(schema["items"])
        return f"list of {items}" if not items.startswith("one of") else f"list, each {items}"
    kind = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}.get(
        schema.get("type", ""), "table"
    )
    low, high = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    bounds = [
        *([f"at least {low:g}"] if low is not None else []),
        *([f"above {above:g}"] if above is not None else []),
        *([f"at most {high:g}"] if high is not None and high < 1e9 else []),
        *([f"below {below:g}"] if below is not None else []),
    ]
    return " ".join([kind, *([", ".join(bounds)] if bounds else [])])


def _keys(table: dict[str, Any]) -> str:
    lines = []
    for key, schema in table["properties"].items():
        if "$ref" in schema or (schema.get("items") or {}).get("$ref") or schema.get("additionalProperties"):
            continue  # a table that has its own heading
        needed = "required, " if key in table.get("required", ()) else ""
        default = schema.get("default")
        given = "" if default in (None, "", [], {}, 2**53) else f" Default: `{json.dumps(default)}`."
        lines.append(f"- `{key}` ({needed}{_kind(schema)}): {_plain(schema.get('description', ''))}{given}\n")
    return "".join(lines)


def task_page() -> str:
    """docs/task-toml.md."""
    schema = json_schema()
    text = (
        "# Every key of task.toml\n\n"
        f"{MADE}"
        f"{schema['description']} An unknown key is an error.\n"
        "An example with words around it: [Tasks by hand](tasks.md).\n\n"
        f"## At the top\n\n{_keys(schema)}"
    )
    for key, value in schema["properties"].items():
        reference = value.get("$ref") or (value.get("items") or value.get("additionalProperties") or {}).get("$ref")
        if not reference:
            continue
        table = schema["$defs"][reference.rsplit("/", 1)[1]]
        title = {"fields": "[fields.NAME]", "metrics": "[[metrics]]"}.get(key, f"[{key}]")
        about = value.get("description") or table.get("description", "")
        text += f"\n## `{title}`\n\n{_plain(about)}\n\n{_keys(table)}"
    return text


def _docstring(text: str) -> str:
    """A docstring: sections become bold words, arguments list items, examples code."""
    lines, section = [], ""
    for paragraph in re.split(r"\n\n+", inspect.cleandoc(text)):
        first, *rest = paragraph.split("\n")
        if first in {"Args:", "Returns:", "Raises:", "Example:"}:
            section = first.rstrip(":")
            body = inspect.cleandoc("\n".join(rest))
            if section == "Example":
                shown = re.sub(r"^>>> |^\.\.\. ?", "", body, flags=re.M)
                lines.append("```python\n" + re.sub(r"\s*# doctest:.*", "", shown) + "\n```")
                continue
            lines.append(f"**{section}**")
            if section == "Returns":
                lines.append(_plain(" ".join(body.split())))
                continue
            items = [" ".join(item.split()) for item in re.split(r"\n(?=\S)", body)]
            lines.append(
                "\n".join(f"- `{name}`: {_plain(about)}" for name, _, about in (i.partition(": ") for i in items))
            )
        elif paragraph.startswith("    "):
            lines.append("```python\n" + inspect.cleandoc(paragraph) + "\n```")
        else:
            lines.append(_plain(" ".join(paragraph.split())))
    return "\n\n".join(lines)


def _signature(name: str, thing: Any) -> str:
    parameters = inspect.signature(thing).parameters.values()
    each = [
        re.sub(r"PosixPath\((.*)\)$", r"\1", str(p)).replace(repr(p.annotation), str(p.annotation)) for p in parameters
    ]
    kinds = [parameter.kind for parameter in parameters]
    if inspect.Parameter.KEYWORD_ONLY in kinds and inspect.Parameter.VAR_POSITIONAL not in kinds:
        each.insert(kinds.index(inspect.Parameter.KEYWORD_ONLY), "*")
    each = [argument.replace("pathlib._local.", "pathlib.") for argument in each]  # as Python 3.13 writes it
    one = f"{name}({', '.join(each)})"
    return one if len(one) <= 100 else f"{name}(\n" + "".join(f"    {argument},\n" for argument in each) + ")"


def _attributes(thing: type) -> str:
    """The fields of a frozen dataclass or a result with their types."""
    fields = {field.name: field.type for field in getattr(thing, "__dataclass_fields__", {}).values()}
    if issubclass(thing, Result):
        fields = {name: each.__annotations__[name] for each in thing.__mro__[::-1] for name in _own(each, thing)}
    return "".join(f"- `{name}: {kind}`\n" for name, kind in fields.items() if not name.startswith("_"))


def _own(each: type, thing: type[Result]) -> list[str]:
    return [name for name in vars(each).get("__annotations__", ()) if name in thing.model_fields]


def python_page() -> str:
    """docs/python-reference.md."""
    text = (
        "# Every function in Python\n\n"
        f"{MADE}"
        "What `import promptassay as pa` gives. How they go together: [Python](python.md).\n"
    )
    for name in promptassay.__all__:
        thing = getattr(promptassay, name)
        text += f"\n## {name}\n\n"
        if not inspect.isclass(thing):
            text += f"```text\n{_signature(name, thing)}\n```\n\n"
        text += _docstring(thing.__doc__ or "") + "\n"
        if inspect.isclass(thing) and (fields := _attributes(thing)):
            text += f"\n**Attributes**\n\n{fields}"
    return text


def _holds(schema: dict[str, Any]) -> str:
    """What a key of a result holds, in a few words; parts by their names in the schema."""
    if "$ref" in schema:
        return f"`{schema['$ref'].rsplit('/', 1)[1]}`"
    if "anyOf" in schema:
        return " or ".join(_holds(each) for each in schema["anyOf"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if schema.get("type") == "array" and "items" in schema:
        return f"list of {_holds(schema['items'])}"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_holds(schema['additionalProperties'])}"
    return {"null": "null", "object": "object", "array": "list"}.get(schema.get("type", ""), "") or _kind(schema)


def _commands_of() -> dict[tuple[type[Result], ...], list[str]]:
    """The commands by what they print, `run` first."""
    found: dict[tuple[type[Result], ...], list[str]] = {}
    for name, models in sorted(RESULTS.items(), key=lambda pair: pair[0] != "run"):
        found.setdefault(models, []).append(name)
    return found


def _schema_file(names: list[str]) -> str:
    return f"{names[0].replace(' ', '-')}.json"


def json_page() -> str:
    """docs/json.md."""
    text = (
        "# What --json prints\n\n"
        f"{MADE}"
        "Each result is one object, with a JSON Schema (2020-12). In Python the keys are attributes. Every key is\n"
        "printed, empty ones too. What the keys of `run` mean: [Command line](command-line.md#one-json-object).\n"
    )
    for models, names in _commands_of().items():
        file = _schema_file(names)
        text += f"\n## {', '.join(names)}\n\nSchema: [{file}](schemas/{file})\n"
        for model in models:
            schema = schema_of(model)
            about, *_ = inspect.cleandoc(model.__doc__ or "").split("\n\nArgs:")
            text += f"\n{_plain(' '.join(about.split()))}\n\n"
            text += "".join(f"- `{key}`: {_holds(each)}\n" for key, each in schema["properties"].items())
            for name, part in schema.get("$defs", {}).items():
                if "properties" not in part:
                    continue
                said, *_ = inspect.cleandoc(part.get("description", "")).split("\n\nArgs:")
                keys = ", ".join(f"`{key}`" for key in part["properties"])
                text += f"\n**{name}** ({keys}): {_plain(' '.join(said.split()))}\n"
    return text


def _errors(kind: type[AgentError] = AgentError) -> Iterator[type[AgentError]]:
    """The class and its subclasses that have their own code."""
    yield from [kind] if "code" in vars(kind) else []
    for each in kind.__subclasses__():
        yield from _errors(each)


def messages_page() -> str:
    """docs/messages.md."""
    failures = {kind.code: kind for kind in _errors(ModelError)}
    ends = {kind.code: kind for kind in _errors() if kind.code not in failures}

    def row(code: str, kind: type[AgentError], *more: str) -> str:
        about = (
            " ".join((kind.__doc__ or "").split("\n\n")[0].split()) if kind is not AgentError else "Any other error."
        )
        return f"| `{code}` | {about} | {''.join(f'{each} | ' for each in more)}{kind.advice} |"

    blocked = [f"| `{code}` | {about} | {advice} |" for code, (about, advice) in BLOCKS.items()]
    parts = [
        f"# Messages and their codes\n\n{MADE}",
        "Every error has a stable code. In Python it is `error.code`, in JSON of `optimize ui` it "
        "is `code`; the command line prints the message and exits with the exit code.\n",
        "## Errors that end a command\n\n| code | when | exit code | what to do |\n|---|---|---|---|",
        *(row(code, kind, str(kind.exit_code)) for code, kind in ends.items()),
        "\n## Failures of single calls\n",
        "The ledger keeps them as `error_class`; only `permanent_run` ends a run.\n",
        "| code | when | what to do |\n|---|---|---|",
        *(row(code, kind) for code, kind in failures.items()),
        "\n## Why a winner is not promoted\n",
        "These are the `blocked_codes` of a result.\n\n| code | when | what to do |\n|---|---|---|",
        *blocked,
    ]
    return "\n".join(parts) + "\n"


def layers_page() -> str:
    """docs/development/index.md with the layers and doors of tests/test_layers.py between their marks."""
    rows = [f"| {number} | {', '.join(f'`{name}`' for name in names)} |" for number, names in enumerate(LAYERS)]
    doors = [f"| {name} | {', '.join(f'`{place}`' for place in places)} |" for name, places in sorted(DOORS.items())]
    made = ["| layer | rooms and files |", "|---|---|", *rows, "", "| package | enters in |", "|---|---|", *doors]
    page = (DOCS / LAYERS_IN).read_text("utf-8")
    start, end = page.index(MARKS[0]) + len(MARKS[0]), page.index(MARKS[1])
    return page[:start] + "\n\n" + "\n".join(made) + "\n\n" + page[end:]


LAYERS_IN = "development/index.md"
MARKS = ("<!-- Made by `make docs-reference` out of tests/test_layers.py: -->", "<!-- end -->")
PAGES = {
    "commands.md": command_page,
    "task-toml.md": task_page,
    "python-reference.md": python_page,
    "messages.md": messages_page,
    LAYERS_IN: layers_page,
    "json.md": json_page,
    **{f"schemas/{_schema_file(names)}": partial(schema_text, *models) for models, names in _commands_of().items()},
}


def main() -> None:
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), "utf-8")


if __name__ == "__main__":
    main()
