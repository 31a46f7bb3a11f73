"""Checks and messages about the models of a job, their prices and caps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from agent.errors import InputError
from agent.gateway.prices import Price, assumed_free, fixed_price
from agent.models.adapters import SUFFIX, split_adapter
from agent.models.hosted import HostedModel
from agent.models.model_registry import require_files
from agent.models.provider_jobs import batch_api
from agent.models.recorded import note
from agent.models.weights import fetch
from agent.options.run import RecordedOptions
from agent.options.shared import CapOptions
from agent.types import LM, Budget


def fetch_weights(models: Iterable[str], download: Callable[[int, int], None]) -> None:
    """Download missing weights of embedded models, and check their adapters.

    Raises InputError with every file of the user that makes calls impossible.
    """
    names = list(models)
    require_files(names)
    for name in names:
        kind, _, rest = name.partition("/")
        if kind == "local" and not (base := split_adapter(rest)[0]).endswith(SUFFIX):
            fetch(base, download)
    require_files(names)  # with the weights available


def require_batches(lms: Sequence[LM]) -> None:
    """Raise InputError if no model has a batch API."""
    if not any(batch_api(lm) for lm in lms):
        names = ", ".join(dict.fromkeys(lm.name for lm in lms))
        raise InputError(
            f"--batch: {names}: no batch API; openai/, anthropic/ and openai-compatible/ servers that offer it have one"
        )


def remarks(lms: Sequence[LM], price: Price | None, earlier: Mapping[str, Price] | None = None) -> list[str]:
    """Return messages about the models: unusual addresses, recorded replies, models taken as free."""
    hints = dict.fromkeys(hint for lm in lms if isinstance(lm, HostedModel) for hint in lm.hints)
    names = [lm.name for lm in lms]
    recorded = [line for name in names if (line := note(name))]
    return [*hints, *recorded, *assumed_free(names, price, earlier or {})]


def price_of(options: CapOptions) -> Price | None:
    """Return the given price for models without a known one."""
    return None if options.price is None else fixed_price(*options.price)


def earlier_prices(recorded: RecordedOptions | None, *models: str) -> dict[str, Price]:
    """Return the price that an earlier run was given, for its models."""
    price = None if recorded is None else price_of(recorded)
    return {} if price is None else {model: price for model in models if model}


def whole_budget(options: CapOptions, planned: int, what: str) -> Budget:
    """Return the caps of an all-or-nothing job. Raises InputError if --max-calls is too small."""
    most = options.max_calls
    if most is not None and most < planned:
        raise InputError(f"--max-calls {most}: {what} takes {planned} calls at least; raise it, or lower --repeats")
    return options.budget_for(planned)
