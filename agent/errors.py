"""Every error that the program raises on purpose, and what it means for the caller.

A ModelError is one failed attempt at a provider: it may be retried, concerns one row, or stops the run.
`str(error)` is one line: what is wrong, where, and what to do. `code` is stable: docs/messages.md lists all codes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Self


class AgentError(Exception):
    """Base class; `code` is stable, `advice` is for the docs, `hint` the next command, `run_id` the run it ended."""

    code = "error"
    exit_code = 1
    advice = "Read the message; it names the file, the option or the command to use."
    hint = run_id = ""


def message_of(error: BaseException) -> str:
    """Return the message of `error`, after the class name if it is not ours."""
    return str(error) if isinstance(error, AgentError) else f"{type(error).__name__}: {error}"


def error_lines(error: BaseException) -> list[str]:
    """Return the lines of a message; the class name if the message is empty."""
    return str(error).strip().splitlines() or [type(error).__name__]


def one_line(error: BaseException, most: int = 300) -> str:
    """Return the class name and the first line of the message, at most `most` characters."""
    says = str(error).strip().splitlines()
    return ": ".join([type(error).__name__, *says[:1]])[:most]


class InputError(AgentError):
    """The user's input is wrong; no call was made."""

    code = "input"
    advice = "Fix what the message names, and run the same command again."
    exit_code = 2


class Problem(NamedTuple):
    """One problem of a file: `where` is `file:line`, `what` the bad value and the fix."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


class ProblemsError(InputError):
    """All problems of a task or file, found in one pass."""

    code = "input_problems"
    advice = "Fix each named line, and run the same command again."

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))


def refuse_all(problems: Iterable[Problem]) -> None:
    """Raise ProblemsError if there are problems."""
    if found := tuple(problems):
        raise ProblemsError(found)


class TrainingDiverged(InputError):
    """The loss of a training is not a number; take a lower learning rate."""

    code = "training_diverged"
    advice = "Lower the learning rate of this arm."


class BudgetRefused(AgentError):
    """The budget is too small for the baseline; no call was made."""

    code = "budget_refused"
    advice = "Raise the cap to the number in the message, or use fewer rows (--limit)."
    exit_code = 3


class BudgetExhausted(AgentError):
    """The next call would pass a cap; the run ends with what it has. Not a failure."""

    code = "budget_exhausted"
    advice = "Raise the cap and continue with `optimize resume`."


class GateFailed(AgentError):
    """A gate did not pass, for the reasons in the message."""

    code = "gate_failed"
    advice = "Fix the reasons, or promote with --override --reason WHY."
    exit_code = 100


class Interrupted(AgentError):
    """The user stopped the run; settled calls are kept. Not a failure."""

    code = "interrupted"
    advice = "Continue with the command in the last line."
    exit_code = 130

    def __init__(self, message: str = "the run was interrupted; it can be resumed") -> None:
        super().__init__(message)


class ModelError(AgentError):
    """One attempt at a provider failed, with its HTTP status and requested wait if any; `retry`: may work later."""

    retry = False

    def __init__(self, message: str, retry_after: float | None = None, *, status: int | None = None) -> None:
        self.retry_after = retry_after
        self.status = status
        super().__init__(message)

    def within(self, where: str, status: int | None = None) -> Self:
        """Return the same error with `where: ` before its message. It gets `status` if it has none."""
        known = status if self.status is None else self.status
        return type(self)(f"{where}: {self}", self.retry_after, status=known)


class RateLimited(ModelError):
    """HTTP 429: retry after `retry_after` seconds."""

    code = "rate_limit"
    advice = "Nothing: calls are retried. If it persists, lower --max-concurrency."
    retry = True


class Transient(ModelError):
    """A failure that the provider reports (5xx, 529, 408), or no connection: nothing was done or paid for."""

    code = "transient"
    advice = "Nothing: calls are retried for as long as --max-wait says."
    retry = True


class ParameterRefused(Transient):
    """The model refuses an optional parameter, which is left out from now on: retry."""

    code = "parameter_refused"
    advice = "Nothing: the call is repeated without the parameter."


class TemperatureRefused(ParameterRefused):
    """The refused parameter is `temperature`; a prompt for this model is released without it."""

    code = "temperature_refused"
    advice = "Nothing: the call is repeated without a temperature."


class TransportUnknown(ModelError):
    """The connection broke, the body was cut off or the call timed out: it may have been done and paid for."""

    code = "transport_unknown"
    advice = "Nothing: the call is retried, and the lost one is counted as paid."
    retry = True


class BadResponse(ModelError):
    """The provider's answer is not a reply. Never scored, never cached."""

    code = "bad_response"
    advice = "If it persists, check the address of the model and its server."
    retry = True


class RowRefused(ModelError):
    """This request cannot work (too long, refused by the provider); others may."""

    code = "permanent_row"
    advice = "Shorten or remove the row; refused rows have no score."

    @classmethod
    def by_provider(cls, reply: str, what: str = "the provider refused this row") -> Self:
        """Make the error of a reply that is a refusal, with or without text."""
        said = reply.strip()[:200]
        return cls(f"{what}: {said}" if said else f"{what} without a word")


class RequestRefused(RowRefused):
    """A refusal for neither length nor content; many in a row are not the fault of the rows."""


class RunRefused(ModelError):
    """No request can work (wrong key, no quota, unknown model); stops the run."""

    code = "permanent_run"
    advice = "Fix the key, the quota or the model name, and run the command in the last line."


OF_A_ROW = (RowRefused, BadResponse, Transient, TransportUnknown)
"""Errors that leave a row without an answer and the others alone."""


class LedgerError(AgentError):
    """The ledger cannot be opened, read or written."""

    code = "ledger"
    advice = "Make room on the disk, or restore a copy of the ledger."


class LedgerBusy(LedgerError):
    """Another process writes to the ledger; reading is possible meanwhile."""

    code = "ledger_busy"
    advice = "Wait for the named process to end."


class ReleaseError(AgentError):
    """A released prompt is damaged, incomplete, or would not send what was scored."""

    code = "release"
    advice = "Restore the file, or release the prompt again."

    def __init__(self, message: str) -> None:
        super().__init__(message.encode("utf-8", "backslashreplace").decode())  # a path may hold what no log can
