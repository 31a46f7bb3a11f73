"""Jobs as Python functions: options are keyword arguments, and the result is returned instead of shown."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Concatenate, ParamSpec, TypeVar, cast

from pydantic import SkipValidation, create_model

from agent.errors import AgentError
from agent.jobs.interrupts import StopSignal, run_blocking
from agent.jobs.observers import LogWatcher, Snapshot, Watcher
from agent.jobs.registry import After, JobSpec, Printed
from agent.jobs.session import run_work
from agent.jobs.tracking import NO_TRACKING, Tracking
from agent.jobs.work import Work
from agent.options.option import JobOptions, Option, option
from agent.options.shared import LEDGER, LedgerOption, TrackOptions, in_order
from agent.redact import silence
from agent.safe_text import closest

T = TypeVar("T")
SOURCE = "str | Path | Task | Rows | Table"
"""The type of `optimize`'s task, as `help` shows it."""


class WatchArguments(LedgerOption, TrackOptions):
    """Where a run is stored and shown."""

    db: str | Path = LedgerOption.field("db")  # type: ignore[assignment]
    progress: Annotated[Callable[[Snapshot], None] | None, SkipValidation] = option(None)
    """Called with a Snapshot whenever something happened, in the thread of the run; it must be quick."""


def run_job(spec: JobSpec, words: Sequence[Any], options: JobOptions) -> Any:
    """Run a job from Python."""
    watcher = LogWatcher(getattr(options, "progress", None))
    tracking = Tracking.of(options) if isinstance(options, TrackOptions) else NO_TRACKING
    silence(watcher.warn)
    given, models = options.as_given, spec.models.values()
    parts = [part.given({name: given[name] for name in part.declared() if name in given}) for part in models]
    named = {
        each.name: str(word) if isinstance(word, Path) and each.annotation is str else word
        for each, word in zip(spec.arguments, words, strict=True)
    }
    found = spec.begin(named, parts, watcher, as_json=True)
    if isinstance(found, Printed):
        if found.error is not None:
            raise found.error
        return found.made()
    if not isinstance(found, Work | After):
        return found
    return run_blocking(runner(lambda: found, Path(getattr(options, "db", LEDGER)), watcher, tracking))


def in_python(spec: JobSpec) -> Callable[..., Any]:
    """Return a job as a blocking function; options are keyword arguments."""
    bases: list[Any] = [*spec.models.values(), *([WatchArguments] if spec.makes_work else [])]
    model = create_model("Arguments", __base__=tuple(bases) or JobOptions)

    def run(*words: Any) -> Any:
        return run_job(spec, words[:-1], words[-1])

    run.__name__ = run.__qualname__ = spec.function.__name__
    about, *sections = spec.paragraphs
    run.__doc__ = "\n\n".join([about, "Args:\n    options: its options.", *sections])
    options = inspect.Parameter("options", inspect.Parameter.KEYWORD_ONLY)
    words = [each.replace(kind=inspect.Parameter.POSITIONAL_OR_KEYWORD) for each in spec.arguments]
    found = next(iter(spec.results), Any)
    run.__signature__ = inspect.Signature([*words, options], return_annotation=found)  # type: ignore[attr-defined]
    made: Callable[..., Any] = takes(cast(Any, model))(cast(Any, run))
    return made


def runner(
    make: Callable[[], Work[Any] | After[Any]], db: Path, watcher: Watcher, tracking: Tracking
) -> Callable[[StopSignal | None], Any]:
    """Return the Python function of a job. An error that ends it early says how to continue."""

    def run(stop: StopSignal | None) -> Any:
        def begun(work: Work[Any]) -> Any:
            return run_work(work, db, watcher, stop, tracking)

        try:
            found = After.next(make(), begun)
            return found.made() if isinstance(found, Printed) else begun(found)
        except AgentError as error:
            if error.run_id:
                where = "" if db == LEDGER else f", db={str(db)!r}"
                error.add_note(f"to continue: promptassay.resume({error.run_id!r}{where}), or {error.hint}")
            raise

    return run


_P = ParamSpec("_P")
_A = TypeVar("_A")
_O = TypeVar("_O", bound=JobOptions)


def takes(model: Callable[_P, _O]) -> Callable[[Callable[[_A, _O], T]], Callable[Concatenate[_A, _P], T]]:
    """Give a function a model's options as keyword arguments. Type checkers, editors and `help` see them."""
    declared: type[JobOptions] = model  # type: ignore[assignment]

    def take(function: Callable[[_A, _O], T]) -> Callable[Concatenate[_A, _P], T]:
        own = inspect.signature(function)
        words = [
            each.replace(annotation=SOURCE if each.annotation == "Source" else each.annotation)
            for name, each in own.parameters.items()
            if name != "options"
        ]
        signature = own.replace(parameters=[*words, *map(_parameter, in_order(declared.declared().values()))])

        @functools.wraps(function)
        def called(*arguments: Any, **given: Any) -> T:
            if unknown := next((name for name in given if name not in signature.parameters), ""):
                meant = closest(unknown, signature.parameters)
                hint = f"; did you mean {meant!r}?" if meant else ""
                raise TypeError(f"{function.__name__}() got an unexpected keyword argument {unknown!r}{hint}")
            try:
                bound = signature.bind(*arguments, **given).arguments
            except TypeError as error:
                raise TypeError(f"{function.__name__}() {error}") from None
            asked = {name: bound[name] for name in given if name in declared.declared() and name in bound}
            first = [bound.get(each.name, each.default) for each in words]
            return function(*first, declared.given(asked))  # type: ignore[call-arg]

        called.__signature__ = signature  # type: ignore[attr-defined]
        called.__doc__ = _documented(function.__doc__ or "", declared)
        return called

    return take


def _parameter(declared: Option) -> inspect.Parameter:
    module = r"\b(collections\.abc|pathlib(\._local)?|typing|agent(\.[a-z_]+)+)\."
    kind = re.sub(module, "", inspect.formatannotation(declared.field.annotation))
    return inspect.Parameter(
        declared.name, inspect.Parameter.KEYWORD_ONLY, default=declared.field.default, annotation=kind
    )


def _documented(doc: str, model: type[JobOptions]) -> str:
    lines = []
    for each in in_order(model.declared().values()):
        bounds = each.expected().removeprefix("write ") if each.kind in (int, float) else ""
        lines.append(f"    {each.name}: {each.about}{f' ({bounds})' if bounds else ''}")
    return re.sub(r"(?m)^    options: .*$", lambda found: "\n".join(lines), inspect.cleandoc(doc))
