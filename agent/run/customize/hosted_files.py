"""The files that a provider trains on: rows as chats, as the tuned model will be asked them. Calls nothing."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from agent.errors import InputError, ReleaseError
from agent.files import new_files
from agent.gateway.gateway import TEMPLATE_TOKENS
from agent.models.fine_tuning import TuningSettings, tuning_body
from agent.models.openai import OpenAIModel
from agent.programs.prompt import PromptProgram
from agent.prompt.prompt_candidate import PromptCandidate
from agent.release.formats.finetune import chat_line, right_answer
from agent.run.customize.arms import instructed_prompt
from agent.types import LM, Example, Task

TRAIN, VALIDATION, SCRIPT = "train.jsonl", "validation.jsonl", "start-job.sh"


@dataclass(frozen=True, slots=True)
class TrainingFiles:
    """What is uploaded.

    Args:
        train: the train rows as JSON Lines.
        validation: the dev rows as JSON Lines.
        tokens: of the train rows, at most, in one epoch.
    """

    train: bytes
    validation: bytes
    rows: int
    tokens: int


def training_prompt(best: PromptCandidate) -> PromptCandidate:
    """What a provider's model is trained with and asked: a prompt's instruction without its examples, in an own layout
    where it has one of DSPy's, whose answers are wrapped."""
    bare = instructed_prompt(best)
    return replace(bare, format="turns") if bare.format.startswith("dspy-") else bare


def training_files(task: Task, lm: LM, prompt: PromptCandidate) -> TrainingFiles:
    """Train and dev rows as chats: exactly what the tuned model will be asked, and the right answer.

    Raises:
        InputError: the answer of a row would not be read back as the row has it.
    """
    program = PromptProgram(task, lm)

    def chats(rows: Sequence[Example]) -> tuple[bytes, int]:
        lines, tokens = [], 0
        for row in rows:
            try:
                answer = right_answer(row, task, task.signature.outputs, reasoning=False)
            except ReleaseError as error:
                raise InputError(f"{error}, so no model can be trained on it; leave the row out") from error
            messages = program.request(prompt, row).messages
            texts = [*(message.content for message in messages), answer]
            tokens += sum(lm.count_tokens(text) + TEMPLATE_TOKENS for text in texts)
            lines.append(chat_line(messages, answer))
        return "".join(lines).encode("utf-8", "replace"), tokens

    train, tokens = chats(task.train)
    return TrainingFiles(train, chats(task.dev)[0], len(task.train), tokens)


def write_training_files(
    folder: Path, files: TrainingFiles, model: OpenAIModel, settings: TuningSettings
) -> list[Path]:
    """Writes both files, and the shell commands that upload them and start the job; sends nothing.

    Args:
        folder: is made if need be.

    Returns:
        The paths of the files.

    Raises:
        InputError: they cannot be written.
    """
    contents = {TRAIN: files.train, VALIDATION: files.validation, SCRIPT: _script(files, model, settings).encode()}
    contents = {name: data for name, data in contents.items() if data}
    try:
        with new_files(folder) as beside:
            for name, data in contents.items():
                (beside / name).touch(mode=0o600)
                (beside / name).write_bytes(data)
    except OSError as error:
        raise InputError(
            f"--export-only {folder}: cannot be written ({error.strerror}); name another folder"
        ) from error
    return [folder / name for name in contents]


def _script(files: TrainingFiles, model: OpenAIModel, settings: TuningSettings) -> str:
    job = tuning_body(model, "@TRAIN@", "@VALIDATION@" if files.validation else "", settings)
    body = shlex.quote(json.dumps(job)).replace("@TRAIN@", "'\"$train\"'").replace("@VALIDATION@", "'\"$validation\"'")
    lines = [
        "#!/bin/sh",
        "# Uploads the files of this folder and starts the training. It costs money at the provider.",
        "set -eu",
        f"url={shlex.quote(model.server.url)}",
        f'key="Authorization: Bearer ${{{model.server.key_variable}}}"',
        "upload() {",
        '    curl -sSf "$url/files" -H "$key" -F purpose=fine-tune -F "file=@$1" |',
        """        tr -d '\\n' | sed 's/.*"id": *"\\([^"]*\\)".*/\\1/'""",
        "}",
        f"train=$(upload {TRAIN})",
        *([f"validation=$(upload {VALIDATION})"] if files.validation else []),
        f'curl -sSf "$url/fine_tuning/jobs" -H "$key" -H "Content-Type: application/json" -d {body}',
    ]
    return "\n".join(lines) + "\n"
