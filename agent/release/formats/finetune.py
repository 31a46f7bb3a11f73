"""Fine-tuning rows as JSON Lines of chat messages: the released instruction, a train row, its right answer.

For when prompting is not enough. Train rows only: dev and test stay unseen. Examples that are turns of their own are
left out, since every row is an example now. Each answer is read back by the prompt's own parser before it is written.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from agent.errors import ReleaseError
from agent.metrics.calls import one_answer
from agent.prompt.render import answer_of
from agent.prompt.reply_parser import parse_reply
from agent.prompt.template import fill_picked, label_text
from agent.release.formats.export_format import Material, Opened, export_format
from agent.release.runtime import PromptRelease
from agent.types import Demo, Example, Field, Message, Task, canonical

FILE = "finetune.jsonl"


def chat_line(messages: Sequence[Message], answer: str) -> str:
    """A line of a training file: the messages of a call and the answer to them."""
    turns = [message.as_dict() for message in messages]
    return json.dumps({"messages": [*turns, {"role": "assistant", "content": answer}]}, ensure_ascii=False) + "\n"


def right_answer(row: Example, task: Task, outputs: tuple[Field, ...], reasoning: bool) -> str:
    """The row's right answer as a reply. Raises ReleaseError where it would not be read back as the row has it."""
    signature, labels = task.signature, one_answer(row.labels, task.accepted)
    answers = {name: label_text(value) for name, value in labels.items()}
    answer = answer_of(Demo(row.id, row.inputs, answers), signature, reasoning)
    read = parse_reply(answer, outputs, reasoning=reasoning)
    if read.error or canonical(dict(read.fields)) != canonical(labels):
        raise ReleaseError(f"{FILE}: the answer of the train row {row.id} reads back as {dict(read.fields)!a:.60}")
    return answer


def _line(kept: tuple[Message, ...], release: PromptRelease, row: Example, task: Task) -> str:
    answer = right_answer(row, task, release.outputs, release.reasoning)
    return chat_line(fill_picked(kept, release.with_passages(row.inputs), ()), answer)


def _load(folder: Path, release: PromptRelease) -> Opened:
    for line in (folder / FILE).read_bytes().splitlines():
        json.loads(line)
    return Opened(None)


@export_format(
    "finetune-jsonl",
    about="finetune.jsonl: train rows as chats with the released instruction (OpenAI, Hugging Face)",
    load=_load,
    needs_task=True,
    proof="train rows only; each answer was read back by the prompt's own parser",
    carries=("adapter", "picks", "conversation"),
)
def files(material: Material) -> dict[str, str]:
    release, task = material.release, material.rows
    if release.format.startswith("dspy-"):
        raise ReleaseError(
            f"{release.name!r}: the layout {release.format} wraps answers in DSPy's own words; fine-tune a prompt of "
            "another layout (formats in task.toml)"
        )
    if release.picks is not None and release.format == "inline":
        raise ReleaseError(
            f"{release.name!r}: its picked examples stand in the turn of the row itself; fine-tune a prompt of another "
            "layout (formats in task.toml)"
        )
    last = release.messages[-1]
    if last.role != "user":
        raise ReleaseError(f"{release.name!r}: the last message is the {last.role}'s; a row needs an answer after it")
    kept = (*(message for message in release.messages if message.role == "system"), last)
    return {FILE: "".join(_line(kept, release, row, task) for row in task.train)}
