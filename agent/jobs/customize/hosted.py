"""The arm that a provider trains: its files, highest cost, job and model.

Three ledger events record its progress: files uploaded, job started, job ended. Each is on disk before the next request
is sent. After a kill between the first two, the provider's list of jobs shows whether a job was started.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import shlex
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from agent.errors import AgentError, BudgetRefused, InputError, ModelError, ReleaseError, RunRefused
from agent.gateway.gateway import TEMPLATE_TOKENS
from agent.gateway.prices import Price, price_for, price_of
from agent.gateway.retries import FIRST_WAIT, GROWTH, LINE_SECONDS, LONGEST_WAIT, poll
from agent.jobs.customize.arms import ArmSpec, MadeArm, instructed_prompt
from agent.jobs.launch import Launch
from agent.jobs.models import price_of as given_price
from agent.jobs.session import Session
from agent.ledger.query import FINE_TUNING
from agent.models.hosted import cut
from agent.models.model_registry import create_model
from agent.models.openai import OpenAIModel
from agent.models.provider_jobs import SUCCEEDED, FineTuning, TuningJob, TuningSettings, tuned_name, tuning_body
from agent.options.jobs import CustomizeOptions
from agent.programs.prompt import PromptProgram
from agent.prompt.prompt_candidate import PromptCandidate
from agent.release.formats.native import chat_line, right_answer
from agent.safe_file import disk_errors, new_files
from agent.types import LM, Example, Spend, Task, canonical

T = TypeVar("T")
TRAIN, VALIDATION, SCRIPT = "train.jsonl", "validation.jsonl", "start-job.sh"
FILES, STARTED, ENDED = FINE_TUNING
GRACE_SECONDS = 10.0
"""Time after a first Ctrl-C for a second one, which cancels the job at the provider."""
REFUSED = "refused"
"""Status of a training that the provider refused to start."""
_ENDINGS = {"failed": "failed", "cancelled": "was cancelled", "expired": "has expired"}


# -- the files --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TrainingFiles:
    """The files to upload; `tokens`: at most, of the train rows in one epoch."""

    train: bytes
    validation: bytes
    rows: int
    tokens: int


def training_prompt(best: PromptCandidate) -> PromptCandidate:
    """Return the prompt of a hosted training. It has no examples, and no DSPy layout, as these wrap answers."""
    bare = instructed_prompt(best)
    return replace(bare, format="turns") if bare.format.startswith("dspy-") else bare


def training_files(task: Task, lm: LM, prompt: PromptCandidate) -> TrainingFiles:
    """Render train and dev rows as the tuned model will be asked. Raises InputError for a row that cannot be."""
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
    """Write both files and a script that uploads them and starts the job. Raises InputError."""
    job = tuning_body(model, "@TRAIN@", "@VALIDATION@" if files.validation else "", settings)
    body = shlex.quote(json.dumps(job)).replace("@TRAIN@", "'\"$train\"'").replace("@VALIDATION@", "'\"$validation\"'")
    script = [
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
    contents = {TRAIN: files.train, VALIDATION: files.validation, SCRIPT: ("\n".join(script) + "\n").encode()}
    contents = {name: data for name, data in contents.items() if data}
    what = f"--export-only {folder}: cannot be written"
    with disk_errors(what, "name another folder", InputError), new_files(folder) as staging:
        for name, data in contents.items():
            (staging / name).touch(mode=0o600)
            (staging / name).write_bytes(data)
    return [folder / name for name in contents]


# -- before anything is paid ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HostedPlan:
    """A training at a provider; `train_price`: US dollars per million tokens, None: unknown."""

    spec: ArmSpec
    model: OpenAIModel
    call_price: Price
    train_price: float | None
    settings: TuningSettings
    prompt: PromptCandidate
    files: TrainingFiles

    @property
    def most_dollars(self) -> float | None:
        """Highest cost of the training by our own token count; None: price unknown."""
        return None if self.train_price is None else self.files.tokens * self.settings.epochs * self.train_price / 1e6

    @property
    def key(self) -> str:
        """Hash of the base model with its address, the rows and the settings."""
        parts = {
            "model": self.model.name,
            "train": hashlib.sha256(self.files.train).hexdigest(),
            "validation": hashlib.sha256(self.files.validation).hexdigest(),
            "settings": asdict(self.settings),
        }
        return hashlib.sha256(canonical(parts).encode()).hexdigest()


def hosted_plan(spec: ArmSpec, launch: Launch, asked: CustomizeOptions, best: PromptCandidate) -> HostedPlan:
    """Plan a hosted training with the instruction of a prompt. Raises InputError and BudgetRefused."""
    flag, lm, train_price, max_cost = f"--arms {spec.name}", launch.model, asked.train_price, launch.options.max_cost
    if not isinstance(lm, OpenAIModel):
        raise InputError(
            f"{flag}: {lm.name} is not trained at a provider; name openai/NAME or openai-compatible/NAME@URL"
        )
    example = tuned_name(lm.name, f"ft:{lm.name.partition('/')[2].partition('@')[0]}:you::id")
    price, faults = price_for(example, given_price(launch.options)), list[str]()
    if price is None:
        faults.append(f"{flag}: the price of the tuned model is unknown; give --price IN,OUT")
    if train_price is None and max_cost is not None:
        faults.append(f"{flag}: --max-cost needs the price of training; give --train-price USD_PER_MILLION")
    if faults or price is None:
        raise InputError("\n".join(faults))
    prompt, settings = training_prompt(best), TuningSettings(seed=launch.options.seed)
    plan = HostedPlan(spec, lm, price, train_price, settings, prompt, training_files(launch.task, lm, prompt))
    most = plan.most_dollars
    if max_cost is not None and most is not None and most > max_cost:
        raise BudgetRefused(
            f"{flag}: {plan.files.tokens:,} tokens x {settings.epochs} epochs may cost ${most:.2f}, "
            f"more than --max-cost {max_cost:g}; raise it or use --limit"
        )
    return plan


def require_service(model: LM) -> None:
    """Check that the model's address has a fine-tuning API. Raises RunRefused otherwise."""
    assert isinstance(model, OpenAIModel)

    async def check() -> None:
        api = FineTuning.of(model)
        try:
            await api.check()
        finally:
            await api.close()

    asyncio.run(check())


# -- the training -----------------------------------------------------------------------------------------------------


class HostedMaker:
    """Trains the arm of a plan at its provider, within the budget of the run."""

    def __init__(self, plan: HostedPlan, session: Session[Any]) -> None:
        self._plan, self._session = plan, session
        self._api = FineTuning.of(plan.model)
        self._running: TuningJob | None = None
        self._model: OpenAIModel | None = None
        session.cancel_elsewhere = self.abandon

    async def make(self) -> MadeArm:
        """Return the arm with its tuned model; train equal rows and settings once across runs.

        Raises BudgetExhausted, and RunRefused where the job failed, was cancelled or expired, or was not taken.
        """
        plan = self._plan
        kind, body = self._known()
        if kind == ENDED:
            job = TuningJob(body["job"], SUCCEEDED, "", body["model"], "", body["tokens"], body["seconds"])
            usd = body["usd"]
        else:
            job, usd = await self._paid(kind, body)
        model = create_model(tuned_name(plan.model.name, job.model))
        assert isinstance(model, OpenAIModel)
        self._model = model
        self._session.prices[model.name] = price_of(model.name) or plan.call_price
        self._say(f"answered by {model.name}")
        candidate = replace(plan.prompt, model=job.model)
        took = job.seconds or 0.0
        rows = plan.files.rows
        return MadeArm(plan.spec, candidate, model, rows, train_s=took, seconds=took, usd=usd, job=job.id)

    async def abandon(self) -> None:
        """Cancel a running job when the user leaves at once. Raises nothing."""
        job, self._running = self._running, None
        if job is None:
            return
        warn, what = self._session.watcher.warn, f"{self._plan.spec.name}: the job {job.id}"
        try:
            ended = await self._api.cancel(job.id)
            warn(f"{what} is cancelled at the provider ({ended.status})")
            if ended.is_ended:
                await self._note_end(ended, ended.tokens or 0)
        except AgentError as error:
            warn(f"{what}: {error}; cancel it at the provider")

    async def close(self) -> None:
        await self._api.close()
        if self._model is not None:
            await self._model.close()

    async def _paid(self, kind: str, body: Mapping[str, Any]) -> tuple[TuningJob, float | None]:
        plan, account, most = self._plan, self._session.account, self._plan.most_dollars
        if most is None:
            account.no_price += (f"training {plan.model.name}",)
        says = "price unknown" if most is None else f"${most:.2f} at most"
        self._say(
            f"training at the provider on {plan.files.rows} rows, {plan.files.tokens:,} tokens at most x "
            f"{plan.settings.epochs} epochs, {says}"
        )
        worst = Spend(usd=most or 0.0)
        account.reserve(worst)
        try:
            await self._api.check()
            if kind == STARTED:
                self._say(f"the job {body['job']} was started before; continuing with it")
                job = await self._look(str(body["job"]))
            else:
                job = await self._submitted(body if kind == FILES else None)
            job, usd = await self._ended(job)
        finally:
            account.release(worst)
        account.charge("model", Spend(usd=usd or 0.0))
        return job, usd

    async def _ended(self, job: TuningJob) -> tuple[TuningJob, float | None]:
        self._running, began, wait, said = job, time.monotonic(), FIRST_WAIT, time.monotonic()
        while not job.is_ended:
            await self._pause(wait)
            wait, before = min(LONGEST_WAIT, GROWTH * wait), job.status
            job, now = await self._look(job.id), time.monotonic()
            if job.status != before or now - said >= LINE_SECONDS:
                said = now
                self._say(f"the job is {job.status}, {now - began:.0f} s so far")
        self._running = None
        job = replace(job, seconds=round(job.seconds or time.monotonic() - began, 1))
        most = self._plan.files.tokens * self._plan.settings.epochs if job.status == SUCCEEDED else 0
        usd = await self._note_end(job, most if job.tokens is None else job.tokens)  # as the provider says, else all
        if job.status == SUCCEEDED:
            return job, usd
        raise RunRefused(
            f"{self._plan.spec.name}: the job {job.id} {_ENDINGS.get(job.status, job.status)}"
            f"{f' ({job.words})' if job.words else ''}; the same command starts a new one"
        )

    async def _submitted(self, known: Mapping[str, Any] | None) -> TuningJob:
        api, settings, is_first = self._api, self._plan.settings, known is None
        if known is None:
            known = {"train": "", "validation": ""}
            for name, data in ((TRAIN, self._plan.files.train), (VALIDATION, self._plan.files.validation)):
                if data:
                    known[Path(name).stem] = await self._poll(partial(api.upload, name, data))
            await self._note(FILES, **known)
        train, validation = known["train"], known["validation"]

        async def once() -> TuningJob:
            nonlocal is_first
            if not is_first and (found := await api.find(train)) is not None:
                return found
            is_first = False
            try:
                return await api.create(train, validation, settings)
            except ModelError as error:
                if not error.retry and error.status not in (401, 403):  # nothing was started; perhaps a file is gone
                    await self._note(ENDED, job="", status=REFUSED, model="", words=cut(str(error)), tokens=0, usd=0.0)
                raise

        job = await self._poll(once)
        await self._note(STARTED, job=job.id)
        self._say(f"the job {job.id} has started at the provider ({job.status})")
        return job

    async def _look(self, job: str) -> TuningJob:
        try:
            return await self._poll(partial(self._api.look, job))
        except RunRefused as refusal:
            if refusal.status != 404:
                raise
            raise RunRefused(
                f"{self._plan.spec.name}: the provider does not know the job {job} (another account's key?); "
                "give another --seed to train again",
                status=404,
            ) from refusal

    async def _poll(self, ask: Callable[[], Awaitable[T]]) -> T:
        return await poll(ask, self._pause, self._say, self._session.options.longest_wait, FIRST_WAIT)

    async def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if (stopped := self._session.gateway.stopped) is not None:
                if self._running is not None:
                    self._session.watcher.warn(
                        f"{self._plan.spec.name}: the job {self._running.id} continues at the provider; the same "
                        f"command picks it up; press Ctrl-C within {GRACE_SECONDS:.0f} s to cancel it there"
                    )
                    await asyncio.sleep(GRACE_SECONDS)
                raise stopped
            await asyncio.sleep(min(left, 0.2))

    def _say(self, line: str) -> None:
        self._session.watcher.on_message(f"{self._plan.spec.name}: {line}")

    # -- the events ---------------------------------------------------------------------------------------------------

    def _known(self) -> tuple[str, Mapping[str, Any]]:
        events = self._session.ledger.fine_tuning(self._plan.key)
        kind, body = events[-1] if events else ("", {})
        return ("", {}) if kind == ENDED and body["status"] != SUCCEEDED else (kind, body)

    async def _note(self, kind: str, **body: Any) -> None:
        ledger, run = self._session.ledger, self._session.id
        ledger.event(run, kind, {"key": self._plan.key, "arm": self._plan.spec.name, **body})
        await ledger.commit()

    async def _note_end(self, job: TuningJob, tokens: int) -> float | None:
        usd = None if self._plan.train_price is None else tokens * self._plan.train_price / 1e6
        end = {"status": job.status, "model": job.model, "words": job.words}
        await self._note(ENDED, job=job.id, **end, tokens=tokens, seconds=job.seconds, usd=usd)
        return usd
