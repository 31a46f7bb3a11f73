"""Fine-tuning jobs behind OpenAI's API, and behind servers that speak it: files, jobs and their states in our terms.

The client is that of the model's calls: same key, same address, bounded replies, no redirect. Nothing is retried here.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Any

from agent.errors import BadResponse, ModelError, RequestRefused, RunRefused
from agent.models.hosted import mapping, token_count
from agent.models.openai import OpenAIModel
from agent.models.transport import time_limits

UPLOAD_SECONDS = 600.0
ASK_SECONDS = 60.0
CANCEL_SECONDS = 10.0
PAGE = 100
"""Jobs in a reply of the list."""
MOST_PAGES = 20
SUCCEEDED = "succeeded"
ENDED = frozenset({SUCCEEDED, "failed", "cancelled", "expired"})
_NO_SUCH_ADDRESS = (404, 405, 501)
_ID = re.compile(r"[\w.:-]{1,200}")
_MODEL = re.compile(r"[\w.:/-]{1,200}")  # neither "@" nor a blank: it becomes part of a model's name
_STATUS = re.compile(r"\w{1,40}")


@dataclass(frozen=True, slots=True)
class TuningSettings:
    """How a provider trains.

    Args:
        epochs: passes over the train rows, at least 1.
        seed: at least 0.
    """

    epochs: int = 3
    seed: int = 0


@dataclass(frozen=True, slots=True)
class TuningJob:
    """A job as the provider shows it.

    Args:
        id: of the job.
        status: the provider's word; one of ENDED is final.
        training_file: the id of the file that it trains on.
        model: the provider's name of the tuned model; "" as long as there is none.
        words: why it failed, in the provider's words; "" where it says nothing.
        tokens: tokens that are billed. None: not said.
        seconds: from its creation to its end. None: not said.
    """

    id: str
    status: str
    training_file: str = ""
    model: str = ""
    words: str = ""
    tokens: int | None = None
    seconds: float | None = None

    @property
    def is_ended(self) -> bool:
        """Whether its state is final."""
        return self.status in ENDED


class FineTuning(OpenAIModel):
    """The fine-tuning API at the address of a model. Each method is one request (`find`: one a page), and raises a
    ModelError where it fails."""

    @staticmethod
    def of(model: OpenAIModel) -> FineTuning:
        """The API for a model that is to be trained."""
        return FineTuning(model.name, model.served, api_key=model._given_key, server=model.server)

    async def check(self) -> None:
        """Raises RunRefused where there is no such API or the key is refused; what is unclear passes."""
        await self._started()
        try:
            await self.asked(self._jobs(1, ""), ASK_SECONDS)
        except RunRefused as refusal:
            if refusal.status in _NO_SUCH_ADDRESS:
                raise RunRefused(
                    f"{self.name}: the server has no fine-tuning API (HTTP {refusal.status}); leave `hosted` out of "
                    "--arms, or write the files for another provider with --export-only DIR",
                    status=refusal.status,
                ) from refusal
            if refusal.status != 403:  # the key may start jobs and not list them
                raise
        except ModelError as error:
            if error.status == 501:
                raise RunRefused(f"{self.name}: the server has no fine-tuning API (HTTP 501)", status=501) from error

    async def upload(self, name: str, data: bytes) -> str:
        """Uploads a JSON Lines file for training. Returns its id at the provider."""
        await self._started()
        files = self._client.files.with_raw_response
        sending = files.create(file=(name, data), purpose="fine-tune", timeout=time_limits(UPLOAD_SECONDS))
        return self._id((await self.asked(sending, UPLOAD_SECONDS)).get("id"), "file")

    async def create(self, training_file: str, validation_file: str, settings: TuningSettings) -> TuningJob:
        """Starts a job on uploaded files; `validation_file` "" for none. What raises TransportUnknown or BadResponse
        may have started one."""
        await self._started()
        body = tuning_body(self, training_file, validation_file, settings)
        jobs = self._client.fine_tuning.jobs.with_raw_response
        return self._job(await self.asked(jobs.create(**body, timeout=time_limits(ASK_SECONDS)), ASK_SECONDS))

    async def find(self, training_file: str) -> TuningJob | None:
        """The latest job on this file; None where there is none."""
        await self._started()
        after = ""
        for _ in range(MOST_PAGES):
            data = await self.asked(self._jobs(PAGE, after), ASK_SECONDS)
            jobs = [each for each in data.get("data") or [] if isinstance(each, dict)]
            for each in jobs:
                if each.get("training_file") == training_file:
                    return self._job(each)
            if not jobs or data.get("has_more") is not True:
                return None
            after = self._id(jobs[-1].get("id"), "job")
        return None

    async def look(self, job: str) -> TuningJob:
        """The job as it is now."""
        await self._started()
        jobs = self._client.fine_tuning.jobs.with_raw_response
        return self._job(await self.asked(jobs.retrieve(job, timeout=time_limits(ASK_SECONDS)), ASK_SECONDS))

    async def cancel(self, job: str) -> TuningJob:
        """Asks the provider to end the job."""
        await self._started()
        jobs = self._client.fine_tuning.jobs.with_raw_response
        return self._job(await self.asked(jobs.cancel(job, timeout=time_limits(CANCEL_SECONDS)), CANCEL_SECONDS))

    # -- requests and replies -----------------------------------------------------------------------------------------

    def _jobs(self, limit: int, after: str) -> Awaitable[Any]:
        jobs = self._client.fine_tuning.jobs.with_raw_response
        start = {"after": after} if after else {}
        sending: Awaitable[Any] = jobs.list(limit=limit, timeout=time_limits(ASK_SECONDS), **start)
        return sending

    def _id(self, value: object, what: str) -> str:
        if not isinstance(value, str) or not _ID.fullmatch(value):
            raise BadResponse(f"{self.name}: the reply names no {what}: {self._quote(value)}; try again")
        return value

    def _job(self, data: Mapping[str, Any]) -> TuningJob:
        status, model, error = data.get("status"), data.get("fine_tuned_model"), mapping(data.get("error"))
        if not isinstance(status, str) or not _STATUS.fullmatch(status):
            raise BadResponse(f"{self.name}: the reply has no status of a job: {self._quote(data)}; try again")
        if status == SUCCEEDED and (not isinstance(model, str) or not _MODEL.fullmatch(model)):
            raise RequestRefused(f"{self.name}: the job succeeded with no usable name of a model: {self._quote(model)}")
        said = [str(error[part]) for part in ("message", "code") if error.get(part)]
        file = data.get("training_file")
        return TuningJob(
            self._id(data.get("id"), "job"),
            status,
            file if isinstance(file, str) else "",
            str(model) if status == SUCCEEDED else "",
            self._quote(" / ".join(said)) if said else "",
            token_count(data.get("trained_tokens")),
            _seconds(data.get("created_at"), data.get("finished_at")),
        )


def tuning_body(
    model: OpenAIModel, training_file: str, validation_file: str, settings: TuningSettings
) -> dict[str, Any]:
    """What is sent to start a job; `validation_file` "" for none."""
    how = {"hyperparameters": {"n_epochs": settings.epochs}}
    return {
        "model": model.served,
        "training_file": training_file,
        **({"validation_file": validation_file} if validation_file else {}),
        "seed": settings.seed,
        **(
            {"method": {"type": "supervised", "supervised": how}} if model.server.is_official else how
        ),  # others know the older
    }


def tuned_name(base: str, served: str) -> str:
    """The name of a tuned model: that of its base with the provider's name in the place of the model's.

    >>> tuned_name("openai-compatible/small@http://127.0.0.1:1/v1", "ft:small:me")
    'openai-compatible/ft:small:me@http://127.0.0.1:1/v1'
    """
    kind, _, rest = base.partition("/")
    _, at, url = rest.partition("@")
    return f"{kind}/{served}{at}{url}"


def _seconds(start: object, end: object) -> float | None:
    if isinstance(start, int | float) and isinstance(end, int | float) and end >= start > 0:
        return float(end - start)
    return None
