"""Every error that the program raises on purpose, and what each one means for the caller.

    AgentError
    ├── InputError            the user's files or options are wrong; nothing was called     exit 2
    │   ├── ProblemsError     several of them at once, each with file:line
    │   └── TrainingDiverged  the learning rate is too high for the rows: the loss is no number
    ├── BudgetRefused         the plan cannot fit the budget; nothing was called            exit 3
    ├── BudgetExhausted       a call would pass a cap; a named stop, not a failure
    ├── GateFailed            a gate did not pass; nothing was changed                       exit 100
    ├── Interrupted           the user stopped the run; it can be resumed                   exit 130
    ├── ModelError            one attempt at a provider failed
    │   ├── RateLimited       429: wait (retry_after seconds), then the same call again     retry
    │   ├── Transient         5xx, or no connection was made: the same call again           retry
    │   │   └── ParameterRefused  one that can be left out, and is from now on              retry
    │   │       └── TemperatureRefused  and which a prompt is shipped without               retry
    │   ├── TransportUnknown  reset, truncated, timeout: perhaps done, perhaps paid         retry
    │   ├── BadResponse       a 200 whose body is not a usable reply                        retry
    │   ├── RowRefused        this request can never work (context length, refusal)         no retry
    │   │   └── RequestRefused    for a reason that is not known here                       no retry
    │   └── RunRefused        no request can work (key, quota, unknown model)               stops the run
    ├── LedgerError           the history cannot be opened, read or written
    │   └── LedgerBusy        another process writes to it now
    └── ReleaseError          a prompt file cannot be loaded or does not render the same

`str(error)` is one line: what is wrong, where it stands, what to do.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self


class AgentError(Exception):
    """Base of all. `exit_code` is that of the command line, `hint` the next command, `run_id` the run that it ended."""

    exit_code = 1
    hint = ""
    run_id = ""


def message_of(error: BaseException) -> str:
    """What is shown of `error`: a message of ours as it is, any other after the name of its class."""
    return str(error) if isinstance(error, AgentError) else f"{type(error).__name__}: {error}"


def error_lines(error: BaseException) -> list[str]:
    """The lines of what an error says, at least one: the name of its class where it says nothing."""
    return str(error).strip().splitlines() or [type(error).__name__]


def one_line(error: BaseException, most: int = 300) -> str:
    """The name of an error's class and the first line of what it says, in at most `most` characters."""
    says = str(error).strip().splitlines()
    return ": ".join([type(error).__name__, *says[:1]])[:most]


class InputError(AgentError):
    """The user's input is wrong, and nothing was called. Fault: user. Fix the named place."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in a file: `where` is `file:line`, `what` says the bad value and the fix."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


class ProblemsError(InputError):
    """All problems of a task, found in one pass and reported together."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))


def refuse_all(problems: Iterable[Problem]) -> None:
    """Raise ProblemsError where there is a problem."""
    if found := tuple(problems):
        raise ProblemsError(found)


class TrainingDiverged(InputError):
    """The loss of a training is no number any more. Take a lower learning rate."""


class BudgetRefused(AgentError):
    """The budget is too small for even the baseline. Raise a cap or take a smaller task; nothing was called."""

    exit_code = 3


class BudgetExhausted(AgentError):
    """The next call would pass a cap. The run ends with what it has; this is not a failure."""


class GateFailed(AgentError):
    """A gate did not pass, for the reasons in the message. Meet it, or override it with a reason."""

    exit_code = 100


class Interrupted(AgentError):
    """The user stopped the run. What was settled is kept; this is not a failure."""

    exit_code = 130

    def __init__(self, message: str = "the run was interrupted; it can be resumed") -> None:
        super().__init__(message)


class ModelError(AgentError):
    """One attempt at a provider failed. `retry` says whether the same request may work later.

    `status` is the answer's HTTP status (100 to 599), None where there was no answer. `retry_after` are the seconds
    (>= 0) that the provider asks to wait, None where it does not say.
    """

    retry = False
    kind = "error"

    def __init__(self, message: str, retry_after: float | None = None, *, status: int | None = None) -> None:
        self.retry_after = retry_after
        self.status = status
        super().__init__(message)

    def within(self, where: str, status: int | None = None) -> Self:
        """The same error with `where: ` before its message; `status` is taken where it has none of its own."""
        known = status if self.status is None else self.status
        return type(self)(f"{where}: {self}", self.retry_after, status=known)


class RateLimited(ModelError):
    """HTTP 429. Wait `retry_after` seconds if given, then send the same request again."""

    retry = True
    kind = "rate_limit"


class Transient(ModelError):
    """An answer that says that it failed (5xx, 529, 408), or no connection at all: nothing was done or paid for."""

    retry = True
    kind = "transient"


class ParameterRefused(Transient):
    """The model refuses a parameter that it can do without. It is left out from now on: send the same request again."""

    kind = "parameter_refused"


class TemperatureRefused(ParameterRefused):
    """The parameter is `temperature`, which a prompt for this model is shipped without."""

    kind = "temperature_refused"


class TransportUnknown(ModelError):
    """The connection broke, the body was cut off or the time was up: the request may have been done and paid for."""

    retry = True
    kind = "transport_unknown"


class BadResponse(ModelError):
    """The provider answered with something that is not a reply. Never scored, never cached."""

    retry = True
    kind = "bad_response"


class RowRefused(ModelError):
    """This request cannot work (too long, refused by the provider); others may."""

    kind = "permanent_row"

    @classmethod
    def by_provider(cls, reply: str, what: str = "the provider refused this row") -> Self:
        """For a reply that is a refusal, which need not say anything."""
        said = reply.strip()[:200]
        return cls(f"{what}: {said}" if said else f"{what} without a word")


class RequestRefused(RowRefused):
    """A refusal for neither length nor content; many in succession are no fault of the rows."""


class RunRefused(ModelError):
    """No request can work: wrong key, no quota, unknown model. Stops the run."""

    kind = "permanent_run"


class LedgerError(AgentError):
    """The ledger cannot be opened, read or written. Fault: disk or another process."""


class LedgerBusy(LedgerError):
    """Another process has the ledger open for writing. Wait for it; reading is possible meanwhile."""


class ReleaseError(AgentError):
    """A released prompt is damaged, incomplete, or would not send what was scored."""

    def __init__(self, message: str) -> None:
        super().__init__(message.encode("utf-8", "backslashreplace").decode())  # a path may hold what no log can
