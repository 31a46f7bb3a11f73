"""Formats without a library: the two files of `load_prompt`, requests of two providers, the tools of a prompt in each
provider's form, and rows for fine-tuning."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.errors import ReleaseError
from agent.metrics.calls import one_answer
from agent.models.anthropic import output_config
from agent.models.openai import response_format
from agent.models.tool_calling import anthropic_tools, openai_tools
from agent.prompt.parts.part import PromptPart
from agent.prompt.render import answer_of
from agent.prompt.reply_parser import parse_reply
from agent.prompt.template import fill, fill_messages, label_text
from agent.release.completion import parameters_of
from agent.release.export import export_markdown, export_messages, rendered, verify_file
from agent.release.formats.export_format import (
    Material,
    Opened,
    as_sent,
    chosen,
    export_format,
    hosted_name,
    json_text,
    renamed,
    sent_schema,
    settings_of,
)
from agent.release.runtime import MESSAGES_FILE, PROMPT_FILE, PromptRelease, load_prompt
from agent.task.tools import read_tools
from agent.types import Demo, Example, Field, Message, Task, canonical

Load = Callable[[Path, PromptRelease], Opened]


def load_file(name: str) -> Load:
    def opened(folder: Path, release: PromptRelease) -> Opened:
        verify_file(folder / name, release)
        prompt = load_prompt(folder / name)
        return Opened(lambda values: rendered(prompt, values), settings_of(prompt.release))

    return opened


@export_format(
    "md",
    about="prompt.md: for people and diffs; load_prompt reads it",
    load=load_file(PROMPT_FILE),
    carries=("tools", "calibration", "picks", "conversation", "schema", "more"),
)
def markdown(material: Material) -> dict[str, str]:
    return {PROMPT_FILE: export_markdown(material.release)}


@export_format(
    "messages",
    about="messages.json: roles and contents for any program; load_prompt reads it",
    load=load_file(MESSAGES_FILE),
    carries=("tools", "calibration", "picks", "conversation", "schema", "more"),
)
def messages(material: Material) -> dict[str, str]:
    return {MESSAGES_FILE: export_messages(material.release)}


# -- requests: the body that a provider takes, with `{{input}}` where the row's values go ------------------------------

ANTHROPIC_REQUEST, OPENAI_REQUEST = "anthropic.json", "openai.json"
_OPENAI = {"max_tokens": "max_completion_tokens", "temperature": "temperature", "stop": "stop", "seed": "seed"}


def _load_request(provider: str, file: str, names: Mapping[str, str], form: str) -> Load:
    # `names`: theirs by ours; `form`: the key with the schema, as words separated by points
    def opened(folder: Path, release: PromptRelease) -> Opened:
        body = json.loads((folder / file).read_bytes())
        system = [{"role": "system", "content": body.pop("system")}] if "system" in body else []
        messages, schema = as_sent([*system, *body.pop("messages")]), body.pop(form.partition(".")[0], None)
        for key in form.split(".")[1:] if schema else ():
            schema = schema[key]
        model = {"model": f"{provider}/{body.pop('model')}"} if "model" in body else {}
        settings = {**renamed(body, names), **model, **({"json_schema": schema} if schema else {})}
        return Opened(lambda values: [{**one, "content": fill(one["content"], values)} for one in messages], settings)

    return opened


@export_format(
    "openai",
    about="openai.json: the body of a Chat Completions request with its JSON schema, with {{input}} marks",
    load=_load_request("openai", OPENAI_REQUEST, _OPENAI, "response_format.json_schema.schema"),
    carries=("schema",),
)
def openai_request(material: Material) -> dict[str, str]:
    release, schema = material.release, sent_schema(material.release)
    model = hosted_name(release.model, "openai")
    body: dict[str, Any] = {**({"model": model} if model else {}), **chosen(release, _OPENAI)}
    body |= {"response_format": response_format(schema)} if schema else {}
    return {OPENAI_REQUEST: json_text({**body, "messages": [message.as_dict() for message in release.messages]})}


@export_format(
    "anthropic",
    about="anthropic.json: the body of a Messages request, system apart, with {{input}} marks",
    load=_load_request("anthropic", ANTHROPIC_REQUEST, {"stop": "stop_sequences"}, "output_config.format.schema"),
    carries=("schema",),
)
def anthropic_request(material: Material) -> dict[str, str]:
    release = material.release
    messages = [message.as_dict() for message in release.messages]
    system = messages.pop(0)["content"] if messages[0]["role"] == "system" else None
    if any(message["role"] == "system" for message in messages) or not messages or messages[0]["role"] != "user":
        raise ReleaseError(
            f"{release.name!r}: anthropic takes one system text, then turns that start with the user's, but "
            f"the roles here are {', '.join(message.role for message in release.messages)}; use --format messages"
        )
    parameters = parameters_of(release)
    model = hosted_name(release.model, "anthropic")
    body: dict[str, object] = {"model": model} if model else {}
    body["max_tokens"] = parameters["max_tokens"]  # its API asks for one
    body |= {"temperature": parameters["temperature"]} if "temperature" in release.parameters else {}
    body |= {"stop_sequences": parameters["stop"]} if parameters["stop"] else {}
    body |= {"output_config": output_config(schema)} if (schema := sent_schema(release)) else {}
    body |= {"messages": messages} if system is None else {"system": system, "messages": messages}
    return {ANTHROPIC_REQUEST: json_text(body)}


# -- tools -------------------------------------------------------------------------------------------------------------

OPENAI_FILE, ANTHROPIC_FILE = "tools.openai.json", "tools.anthropic.json"


def _load_tools(folder: Path, release: PromptRelease) -> Opened:
    wanted = [(tool.name, tool.description.strip(), json.loads(tool.parameters)) for tool in release.tools]
    for name in (OPENAI_FILE, ANTHROPIC_FILE):
        tools, wrong = read_tools(json.loads((folder / name).read_bytes()))
        if wrong or [(tool.name, tool.description, json.loads(tool.parameters)) for tool in tools] != wanted:
            raise ReleaseError(f"{name}: does not hold the tools of the release ({'; '.join(wrong) or 'other texts'})")
    return Opened(None)


@export_format(
    "tools",
    about="tools.openai.json and tools.anthropic.json: the tools of the prompt as each provider takes them",
    load=_load_tools,
    proof="both files were read back: the tools of the release",
    carries=("tools", "calibration", "picks"),
)
def tool_files(material: Material) -> dict[str, str]:
    tools = material.release.tools
    if not tools:
        raise ReleaseError(f"{material.release.name!r}: calls no tools; leave --format tools out")
    return {OPENAI_FILE: json_text(openai_tools(tools)), ANTHROPIC_FILE: json_text(anthropic_tools(tools))}


# -- fine-tuning rows: the released instruction, a train row, its right answer -----------------------------------------
#
# Train rows only: dev and test stay unseen. Examples that are turns are left out, since every row is one now.

FINETUNE_FILE = "finetune.jsonl"


def chat_line(messages: Sequence[Message], answer: str) -> str:
    """Write a line of a training file: the messages of a call and their answer."""
    turns = [message.as_dict() for message in messages]
    return json.dumps({"messages": [*turns, {"role": "assistant", "content": answer}]}, ensure_ascii=False) + "\n"


def right_answer(
    row: Example, task: Task, outputs: tuple[Field, ...], reasoning: bool, parts: Sequence[PromptPart] = ()
) -> str:
    """Return the row's right answer as a reply. Raises ReleaseError if it parses differently."""
    signature, labels = task.signature, one_answer(row.labels, task.accepted)
    answers = {name: label_text(value) for name, value in labels.items()}
    usual = answer_of(Demo(row.id, row.inputs, answers), signature, reasoning)
    answer = next(filter(None, (part.answer(labels) for part in parts)), usual)
    read = parse_reply(answer, outputs, reasoning=reasoning)
    if read.error or canonical(dict(read.fields)) != canonical(labels):
        raise ReleaseError(
            f"{FINETUNE_FILE}: the answer of the train row {row.id} reads back as {dict(read.fields)!a:.60}"
        )
    return answer


def _line(kept: tuple[Message, ...], release: PromptRelease, row: Example, task: Task) -> str:
    answer = right_answer(row, task, release.outputs, release.reasoning, release.parts)
    return chat_line(fill_messages(kept, release.values(release.row(row.inputs), examples=False), ()), answer)


def _load_rows(folder: Path, release: PromptRelease) -> Opened:
    for line in (folder / FINETUNE_FILE).read_bytes().splitlines():
        json.loads(line)
    return Opened(None)


@export_format(
    "finetune-jsonl",
    about="finetune.jsonl: train rows as chats with the released instruction (OpenAI, Hugging Face)",
    load=_load_rows,
    needs_task=True,
    proof="train rows only; each answer was read back by the prompt's own parser",
    carries=("adapter", "picks", "conversation"),
)
def finetune_files(material: Material) -> dict[str, str]:
    release, task = material.release, material.rows
    if release.format.startswith("dspy-"):
        raise ReleaseError(
            f"{release.name!r}: the layout {release.format} wraps answers in DSPy's own words; fine-tune a prompt of "
            "another layout (formats in task.toml)"
        )
    if release.takes_rows and release.format == "inline":
        raise ReleaseError(
            f"{release.name!r}: its picked examples are in the turn of the row; fine-tune a prompt of another "
            "layout (formats in task.toml)"
        )
    last = release.messages[-1]
    if last.role != "user":
        raise ReleaseError(f"{release.name!r}: the last message is the {last.role}'s; a row needs an answer after it")
    kept = (*(message for message in release.messages if message.role == "system"), last)
    return {FINETUNE_FILE: "".join(_line(kept, release, row, task) for row in task.train)}
