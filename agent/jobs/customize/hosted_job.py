"""One training at a provider, from its files to its end; the same training is found again after a kill.

Three events tell how far it came, each on the disk before what follows it is sent: the files are uploaded, the job has
started, the job has ended. Where only the files are known, the provider's list says whether a job on them was started.
"""

from __future__ import annotations

import asyncio
import json
import shlex
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from agent.errors import AgentError, InputError, ModelError, ReleaseError, RunRefused
from agent.files import new_files
from agent.gateway.gateway import TEMPLATE_TOKENS
from agent.gateway.limiter import FIRST_WAIT, GROWTH, LINE_SECONDS, LONGEST_WAIT, patiently
from agent.jobs.customize.arms import instructed_prompt
from agent.jobs.customize.training import Stopped
from agent.jobs.session import Session
from agent.ledger.query import FINE_TUNING
from agent.models.hosted import cut
from agent.models.openai import OpenAIModel
from agent.models.provider_jobs import SUCCEEDED, FineTuning, TuningJob, TuningSettings, tuning_body
from agent.programs.prompt import PromptProgram
from agent.prompt.prompt_candidate import PromptCandidate
from agent.release.formats.native import chat_line, right_answer
from agent.types import LM, Example, Task

TRAIN, VALIDATION, SCRIPT = "train.jsonl", "validation.jsonl", "start-job.sh"
T = TypeVar("T")
FILES, STARTED, ENDED = FINE_TUNING
GRACE_SECONDS = 10.0
"""After a first Ctrl-C, in which a second one cancels the job at the provider."""
REFUSED = "refused"
"""The status of a training that the provider would not start."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A training that succeeded: its job, and its dollars (None: no price was given)."""

    job: TuningJob
    usd: float | None


class HostedTraining:
    """A training at a provider.

    Args:
        price: dollars per million trained tokens. None: not known.
    """

    def __init__(
        self, arm: str, api: FineTuning, key: str, session: Session[Any], stopped: Stopped, price: float | None
    ) -> None:
        self._arm, self._api, self._key, self._stopped, self._price = arm, api, key, stopped, price
        self._ledger, self._run_id = session.ledger, session.id
        self._watcher, self._max_wait = session.watcher, session.options.longest_wait
        self._running: TuningJob | None = None

    def settled(self) -> Finished | None:
        kind, body = self._known()
        if kind != ENDED or body["status"] != SUCCEEDED:
            return None
        job = TuningJob(body["job"], SUCCEEDED, "", body["model"], "", body["tokens"], body["seconds"])
        return Finished(job, body["usd"])

    async def finished(self, files: TrainingFiles, settings: TuningSettings) -> Finished:
        """Trains, or continues the training that the same command began.

        Raises:
            RunRefused: the job failed, was cancelled or expired, or the provider does not start it.
            ModelError: the provider cannot be reached; the same command continues.
            Exception: what `stopped` returns; the job continues at the provider.
        """
        await self._api.check()
        kind, body = self._known()
        if kind == STARTED:
            self._say(f"the job {body['job']} was started before; going on with it")
            job = await self._look(str(body["job"]))
        else:
            job = await self._submitted(body if kind == FILES else None, files, settings)
        self._running = job
        began = time.monotonic()
        try:
            job = await self._until_ended(job)
        finally:
            if job.is_ended:
                self._running = None
        job = replace(job, seconds=round(job.seconds or time.monotonic() - began, 1))
        usd = await self._note_end(job, self._billed(job, files, settings))
        if job.status != SUCCEEDED:
            raise RunRefused(
                f"{self._arm}: the job {job.id} {_ENDINGS.get(job.status, job.status)}"
                f"{f' ({job.words})' if job.words else ''}; the same command starts a new one"
            )
        return Finished(job, usd)

    async def abandon(self) -> None:
        """Cancels a job that is running: the user leaves at once. Raises nothing."""
        job, self._running = self._running, None
        if job is None:
            return
        try:
            ended = await self._api.cancel(job.id)
            self._watcher.warn(f"{self._arm}: the job {job.id} is cancelled at the provider ({ended.status})")
            if ended.is_ended:
                await self._note_end(ended, ended.tokens or 0)
        except AgentError as error:
            self._watcher.warn(f"{self._arm}: the job {job.id}: {error}; see to it at the provider")

    # -- the events ---------------------------------------------------------------------------------------------------

    def _known(self) -> tuple[str, Mapping[str, Any]]:
        """The last event of this training, unless it ended without a model; then, and at first, nothing."""
        events = self._ledger.fine_tuning(self._key)
        kind, body = events[-1] if events else ("", {})
        return ("", {}) if kind == ENDED and body["status"] != SUCCEEDED else (kind, body)

    async def _note(self, kind: str, **body: Any) -> None:
        self._ledger.event(self._run_id, kind, {"key": self._key, "arm": self._arm, **body})
        await self._ledger.commit()

    async def _note_end(self, job: TuningJob, tokens: int) -> float | None:
        usd = None if self._price is None else tokens * self._price / 1e6
        end = {"status": job.status, "model": job.model, "words": job.words}
        await self._note(ENDED, job=job.id, **end, tokens=tokens, seconds=job.seconds, usd=usd)
        return usd

    @staticmethod
    def _billed(job: TuningJob, files: TrainingFiles, settings: TuningSettings) -> int:
        """Tokens that are billed: as the provider says, else all of a job that succeeded."""
        if job.tokens is not None:
            return job.tokens
        return files.tokens * settings.epochs if job.status == SUCCEEDED else 0

    # -- the job ------------------------------------------------------------------------------------------------------

    async def _submitted(
        self, known: Mapping[str, Any] | None, files: TrainingFiles, settings: TuningSettings
    ) -> TuningJob:
        """Starts the job, unless one on the files that are `known` was started: by a run that was killed, say."""
        is_first = known is None
        if known is None:
            known = await self._uploaded(files)

        async def once() -> TuningJob:
            nonlocal is_first
            if not is_first and (found := await self._api.find(known["train"])) is not None:
                return found
            is_first = False
            try:
                return await self._api.create(known["train"], known["validation"], settings)
            except ModelError as error:
                if not error.retry and error.status not in (401, 403):  # nothing was started; perhaps a file is gone
                    await self._note(ENDED, job="", status=REFUSED, model="", words=cut(str(error)), tokens=0, usd=0.0)
                raise

        job = await self._patiently(once)
        await self._note(STARTED, job=job.id)
        self._say(f"the job {job.id} has started at the provider ({job.status})")
        return job

    async def _uploaded(self, files: TrainingFiles) -> Mapping[str, Any]:
        train = await self._patiently(lambda: self._api.upload(TRAIN, files.train))
        validation = ""
        if files.validation:
            validation = await self._patiently(lambda: self._api.upload(VALIDATION, files.validation))
        body = {"train": train, "validation": validation}
        await self._note(FILES, **body)
        return body

    async def _until_ended(self, job: TuningJob) -> TuningJob:
        wait, began, said = FIRST_WAIT, time.monotonic(), time.monotonic()
        while not job.is_ended:
            await self._pause(wait)
            wait, before = min(LONGEST_WAIT, GROWTH * wait), job.status
            job = await self._look(job.id)
            now = time.monotonic()
            if job.status != before:
                said = now
                self._say(f"the job is {job.status}")
            elif now - said >= LINE_SECONDS:
                said = now
                self._say(f"the job is still {job.status}, {now - began:.0f} s so far")
        return job

    async def _look(self, job: str) -> TuningJob:
        try:
            return await self._patiently(lambda: self._api.look(job))
        except RunRefused as refusal:
            if refusal.status != 404:
                raise
            raise RunRefused(
                f"{self._arm}: the provider does not know the job {job} (a key of another account?); to train anew, "
                "give another --seed",
                status=404,
            ) from refusal

    # -- patience -----------------------------------------------------------------------------------------------------

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        return await patiently(ask, self._pause, self._say, self._max_wait, FIRST_WAIT)

    async def _pause(self, seconds: float) -> None:
        """Waits; a run that is stopped ends here, after time for a second Ctrl-C where a job is running."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if (stopped := self._stopped()) is not None:
                if self._running is not None:
                    self._watcher.warn(
                        f"{self._arm}: the job {self._running.id} goes on at the provider, and the same command finds "
                        f"it again; Ctrl-C within {GRACE_SECONDS:.0f} s cancels it there"
                    )
                    await asyncio.sleep(GRACE_SECONDS)
                raise stopped
            await asyncio.sleep(min(left, 0.2))

    def _say(self, line: str) -> None:
        self._watcher.on_message(f"{self._arm}: {line}")


_ENDINGS = {"failed": "failed", "cancelled": "was cancelled", "expired": "has expired"}


# -- the files --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TrainingFiles:
    """What is uploaded.

    Args:
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
