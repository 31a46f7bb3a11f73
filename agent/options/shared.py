"""Options of several jobs: reading data files, budgets, asking models, output."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Literal

from agent.errors import Problem
from agent.options.kinds import OneOrTexts, Place, Price, Rows, Texts, Time
from agent.options.option import JobOptions, Option, option
from agent.types import MOST_COUNT, MOST_DOLLARS, Budget, Task, Tool

LEDGER = Path("runs/ledger.db")
UNCAPPED_TIMES = 2
"""Call limit of a job without caps, as a multiple of the planned calls: leaves room for retries."""
MAX_WAIT = 300.0
"""Default of the longest wait for an unavailable provider, in seconds."""
TASK, MODELS, BUDGET, SEARCH, COMPARISON, OUTPUT = "Task", "Models", "Budget", "Search", "Comparison", "Output"
GROUPS = (TASK, MODELS, BUDGET, SEARCH, COMPARISON, OUTPUT, "")
"""The headings of a help text, in order."""


def in_order(options: Iterable[Option]) -> list[Option]:
    """Sort options by group, everyday ones first."""
    return sorted(options, key=lambda option: (GROUPS.index(option.group), not option.is_everyday))


class FormOptions(JobOptions):
    """How a data file is read."""

    encoding: str | None = option(None, group=TASK, metavar="NAME")
    """The encoding of a data file, such as cp1252. Default: UTF-8, or what is recognised."""
    sheet: str | None = option(None, "The sheet of an .xlsx file to read. Default: the first.", TASK, metavar="NAME")
    strip_html: bool = option(False, group=TASK)
    """Remove HTML tags from the inputs of a data file, and decode entities such as &amp;."""

    @property
    def has_form(self) -> bool:
        """Whether any of them is given."""
        return bool(self.encoding or self.sheet or self.strip_html)


class TargetOptions(JobOptions):
    """How a data file becomes a task."""

    target: OneOrTexts = option(None, group=TASK, metavar="COL", everyday=True)
    """The column to predict, when TASK is a data file; repeatable. label.queue is the key queue of JSON objects in the
    column label."""
    prompt: Place = option(None, group=TASK, metavar="FILE", everyday=True)
    """Your prompt, when TASK is a data file: a text file, or the text itself in quotes."""


class ScoredOptions(FormOptions):
    """How the columns of a data file are used, and how answers are scored."""

    metric: str | None = option(None, group=TASK, metavar="NAME", everyday=True)
    """How answers are scored: NAME[:FIELD][,option=value], such as rougeL or numeric,tolerance=1. `optimize metrics
    list` lists them. Default: the task's own; for a data file, what fits its answers (printed with the reason)."""
    type: Literal["text", "choice", "number", "json"] | None = option(None, group=TASK)
    """The type of the target of a data file. Default: inferred from its values."""
    input: Texts = option((), "A column to use as input; repeatable. Default: all with text.", TASK, metavar="COL")
    ignore: Texts = option((), "A column to ignore; repeatable.", TASK, metavar="COL")


class Asked(ScoredOptions):
    """The options of a data file, with the folder of its documents and the tools that its answers call."""

    knowledge: str = ""
    tools: tuple[Tool, ...] = ()

    @property
    def is_any(self) -> bool:
        """Whether an option of the columns or the metric is given."""
        return bool(self.metric or self.type or self.input or self.ignore)


def asked_of(options: ScoredOptions, with_metric: bool = True) -> Asked:
    """Read the options of a data file, without a Python function that scores."""
    asked = Asked(**{name: getattr(options, name) for name in ScoredOptions.model_fields})
    return asked if with_metric else asked.changed(metric=None)


class DataOptions(ScoredOptions, TargetOptions):
    """How a task or a data file is read, and how answers are scored."""

    max_examples: int | None = option(None, group=TASK, metavar="N", ge=0)
    """The most examples in a prompt, fixed and picked; 0: instructions only. The task's own limit applies, too."""
    limit: Rows = option(None, group=TASK, everyday=True)
    """ROWS or TRAIN-DEV-TEST: use at most that many rows of each split. Default: all."""


class CapOptions(JobOptions):
    """Hard caps on spending."""

    max_calls: int | None = option(None, group=BUDGET, metavar="N", everyday=True, ge=1, le=MOST_COUNT, table="budget")
    """Cap on model calls, retries (not 429s) included."""
    max_tokens: int | None = option(None, group=BUDGET, metavar="N", ge=1, le=MOST_COUNT, table="budget")
    """Cap on tokens, input and output together."""
    max_cost: float | None = option(
        None, group=BUDGET, metavar="USD", unit="US dollars", everyday=True, ge=0, le=MOST_DOLLARS, table="budget"
    )
    """Cap in US dollars."""
    price: Price = option(None, group=BUDGET)
    """Dollars per million input and output tokens, used only for models without a known price."""

    @property
    def budget(self) -> Budget:
        """The given caps."""
        return Budget(self.max_calls, self.max_tokens, self.max_cost, getattr(self, "time_limit", None))

    def budget_for(self, planned: int) -> Budget:
        """Return the given caps; without any, twice the `planned` calls."""
        if self.budget == Budget():
            return Budget(max_calls=UNCAPPED_TIMES * planned + 1)
        return self.budget


class BatchOptions(JobOptions):
    """How fixed sets of calls are sent as provider batches."""

    batch: bool = option(False, group=BUDGET)
    """Send calls that are known in advance as provider batches: half the price, within a day."""
    batch_only: bool = option(False, "As {batch}; calls that a batch leaves unanswered are not sent live.", BUDGET)
    batch_wait: Time = option(None, group=BUDGET)
    """Longest wait for a batch: 90m, 6h, 1d; then the command ends and can be repeated later. Default: no limit."""

    def conflicts(self) -> list[Problem]:
        if self.batch_wait is not None and not self.is_batched:
            return [Problem("batch_wait", "limits the wait for a batch; add {batch}")]
        return []

    @property
    def is_batched(self) -> bool:
        """Whether calls are sent as batches."""
        return self.batch or self.batch_only


class ThinkingOption(JobOptions):
    """Room for reasoning models."""

    thinking: int | None = option(None, group=MODELS, metavar="N", ge=0, le=MOST_COUNT, table="models")
    """Extra tokens per call for reasoning models, in addition to the reply. Default: the task's."""

    def applied_to(self, task: Task) -> Task:
        """Return the task with the given thinking budget."""
        return task if self.thinking is None else replace(task, thinking=self.thinking)


class AskingOptions(ThinkingOption):
    """How models are asked."""

    max_concurrency: int | None = option(None, group=MODELS, short="-j", metavar="N", ge=1, le=MOST_COUNT)
    """Most calls in flight. Default: 32 for hosted models; for local ones, as many as the engine takes."""
    max_wait: Time = option(None, group=MODELS)
    """Longest wait for a provider that is down or limits the rate: 90, 5m. Default: 5m."""

    @property
    def longest_wait(self) -> float:
        """The longest wait for an unavailable provider, in seconds."""
        return MAX_WAIT if self.max_wait is None else float(self.max_wait)


class SeedOption(JobOptions):
    """The seed of a job."""

    seed: int = option(0, "For tests and intervals.", OUTPUT, metavar="N", everyday=True, ge=0, le=2**31 - 1)


class SpendingOptions(CapOptions, AskingOptions, BatchOptions):
    """What a job may spend, and how it asks models."""


class TrackOptions(JobOptions):
    """Where a run is shown in addition to the ledger."""

    track: Texts = option((), group=OUTPUT, metavar="NAME")
    """Also show the run in this tracker (mlflow, wandb, clearml); repeatable. Nothing leaves this machine unless its
    server is configured."""
    track_texts: bool = option(False, "Also send texts of your rows to trackers: examples, inputs and replies.", OUTPUT)
    trace: str | None = option(None, group=OUTPUT, metavar="ADDRESS")
    """Send the run, its trials and calls as OpenTelemetry spans to this OTLP/HTTP receiver, such as
    http://localhost:4318 (`env`: the address in OTEL_EXPORTER_OTLP_ENDPOINT)."""


class LedgerOption(JobOptions):
    """The ledger file."""

    db: Path = option(LEDGER, "The ledger file.", OUTPUT, everyday=True)


class JsonOption(JobOptions):
    """JSON output."""

    as_json: bool = option(False, "Print one JSON object and nothing else.", OUTPUT, flag="--json", everyday=True)


class QuietOption(JsonOption):
    """JSON output of a command with progress."""

    quiet: bool = option(False, "Show no progress.", OUTPUT, short="-q", everyday=True)


class OutputOptions(LedgerOption, JsonOption):
    """Ledger and JSON output."""


class PublishedOptions(JobOptions):
    """Where a search is published."""

    ledger_url: str | None = option(None, group=OUTPUT, metavar="URL")
    """A team's ledger, postgresql://USER@HOST/NAME or sqlite:///FILE: the run is published there when it has finished.
    A failure to publish does not fail the run."""


class PlanOption(JobOptions):
    """A plan instead of a run."""

    dry_run: bool = option(False, "Print the plan and its maximum cost; call nothing.", BUDGET, everyday=True)
