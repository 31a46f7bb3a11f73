"""Fine-tuning jobs behind OpenAI's API, and behind servers that speak it: files, jobs and their states in our terms.

The client is that of the model's calls: same key, same address, bounded replies, no redirect. Nothing is retried here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from agent.errors import RequestRefused
from agent.models.batch_jobs import ASK_SECONDS, MOVE_SECONDS, ProviderJobs
from agent.models.hosted import mapping, token_count
from agent.models.openai import OpenAIModel
from agent.models.transport import time_limits

SUCCEEDED = "succeeded"
ENDED = frozenset({SUCCEEDED, "failed", "cancelled", "expired"})
_MODEL = re.compile(r"[\w.:/-]{1,200}")  # neither "@" nor a blank: it becomes part of a model's name


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
        status: the provider's word; one of ENDED is final.
        model: the provider's name of the tuned model; "" until there is one.
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
        return self.status in ENDED


class FineTuning(ProviderJobs[OpenAIModel, TuningJob]):
    """The fine-tuning API at the address of a model, over connections that `close` closes."""

    kind = "job"
    no_api = (
        "fine-tuning API",
        "leave `hosted` out of --arms, or write the files for another provider with --export-only DIR",
    )
    cancel_seconds = 10.0

    @staticmethod
    def of(model: OpenAIModel) -> FineTuning:
        """The API for a model that is to be trained."""
        return FineTuning(OpenAIModel(model.name, model.served, api_key=model._given_key, server=model.server))

    async def _jobs(self) -> Any:
        return (await self._sdk()).fine_tuning.jobs.with_raw_response

    async def close(self) -> None:
        await self._model.close()

    async def upload(self, name: str, data: bytes) -> str:
        """Uploads a JSON Lines file for training. Returns its id at the provider."""
        files = (await self._sdk()).files.with_raw_response
        sending = files.create(file=(name, data), purpose="fine-tune", timeout=time_limits(MOVE_SECONDS))
        return self._id((await self._asked(sending, MOVE_SECONDS)).get("id"), "file")

    async def create(self, training_file: str, validation_file: str, settings: TuningSettings) -> TuningJob:
        """Starts a job on uploaded files; `validation_file` "" for none. What raises TransportUnknown or BadResponse
        may have started one."""
        jobs = await self._jobs()
        body = tuning_body(self._model, training_file, validation_file, settings)
        return self._job(await self._asked(jobs.create(**body, timeout=time_limits(ASK_SECONDS))))

    async def find(self, training_file: str) -> TuningJob | None:
        """The latest job on this file, if any."""
        async for page in self._pages():
            for each in page:
                if each.get("training_file") == training_file:
                    return self._job(each)
        return None

    def _job(self, data: dict[str, Any]) -> TuningJob:
        status, model, error = self._status(data), data.get("fine_tuned_model"), mapping(data.get("error"))
        quote = self._model._quote
        if status == SUCCEEDED and (not isinstance(model, str) or not _MODEL.fullmatch(model)):
            name = self._model.name
            raise RequestRefused(f"{name}: the job succeeded with no usable name of a model: {quote(model)}")
        said = [str(error[part]) for part in ("message", "code") if error.get(part)]
        file = data.get("training_file")
        return TuningJob(
            self._id(data.get("id"), "job"),
            status,
            file if isinstance(file, str) else "",
            str(model) if status == SUCCEEDED else "",
            quote(" / ".join(said)) if said else "",
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
