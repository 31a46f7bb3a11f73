"""What is checked and said of the models of a job before they are asked, and their prices and caps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from agent.errors import InputError
from agent.gateway.prices import assumed_free, fixed_price

if TYPE_CHECKING:
    from agent.gateway.prices import Price
    from agent.options.jobs import RecordedOptions
    from agent.options.shared import CapOptions
    from agent.types import LM, Budget


def fetch_weights(models: Iterable[str], download: Callable[[int, int], None]) -> None:
    """Fetch the weights of embedded models that are missing, and check the adapters that go with them.

    Raises InputError with all of the user's own files with which no call can work.
    """
    from agent.models.adapters import SUFFIX, split_adapter
    from agent.models.model_registry import require_files
    from agent.models.weights import fetch

    names = list(models)
    require_files(names)
    for name in names:
        kind, _, rest = name.partition("/")
        if kind == "local" and not (base := split_adapter(rest)[0]).endswith(SUFFIX):
            fetch(base, download)
    require_files(names)  # with the weights available


def require_batches(lms: Sequence[LM]) -> None:
    """Raise InputError where none of the models has a batch API."""
    from agent.models.provider_jobs import batch_api

    if not any(batch_api(lm) for lm in lms):
        names = ", ".join(dict.fromkeys(lm.name for lm in lms))
        raise InputError(
            f"--batch: {names}: no batch API; openai/, anthropic/ and openai-compatible/ servers that offer it have one"
        )


def remarks(lms: Sequence[LM], price: Price | None, earlier: Mapping[str, Price] | None = None) -> list[str]:
    """What is to be said of the models before a job: odd addresses, recorded replies, and what is taken as free."""
    from agent.models.hosted import HostedModel
    from agent.models.recorded import note

    hints = dict.fromkeys(hint for lm in lms if isinstance(lm, HostedModel) for hint in lm.hints)
    names = [lm.name for lm in lms]
    recorded = [line for name in names if (line := note(name))]
    return [*hints, *recorded, *assumed_free(names, price, earlier or {})]


def price_of(options: CapOptions) -> Price | None:
    """The price that was given for models without a known one."""
    return None if options.price is None else fixed_price(*options.price)


def earlier_prices(recorded: RecordedOptions | None, *models: str) -> dict[str, Price]:
    """The price that an earlier run was given, for its models."""
    price = None if recorded is None else price_of(recorded)
    return {} if price is None else {model: price for model in models if model}


def whole_budget(options: CapOptions, planned: int, what: str) -> Budget:
    """The caps of a job that says nothing before its last call. Raises InputError where --max-calls is too few."""
    most = options.max_calls
    if most is not None and most < planned:
        raise InputError(f"--max-calls {most}: {what} takes {planned} calls at least; raise it, or lower --repeats")
    return options.budget_for(planned)
