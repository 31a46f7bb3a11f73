"""The options of a search and of what continues or varies one: `optimize run`, `resume`, `migrate` and `text`."""

from __future__ import annotations

from typing import Literal

from agent.errors import Problem
from agent.options.kinds import File, Place, Price, Rows, Tags, Texts, Time
from agent.options.option import JobOptions, option
from agent.options.shared import (
    BUDGET,
    MODELS,
    OUTPUT,
    SEARCH,
    TASK,
    AskingOptions,
    BatchOptions,
    CapOptions,
    DataOptions,
    SpendingOptions,
    ThinkingOption,
)
from agent.stats.power import MARGIN, smallest_margin
from agent.types import MOST_COUNT

Effort = Literal["quick", "standard", "thorough"]
Prefer = Literal["best", "cheap", "short"]
_ALL_ROLES = ", all roles together"
_TIME_LIMIT = "Cap on wall time, the sealed test included: 90, 5m or 1h30m. Calls in flight get 10 s more."


class MarginOption(JobOptions):
    """An accepted loss."""

    margin: float = option(100 * MARGIN, group=SEARCH, metavar="POINTS", unit="points", gt=0, le=50)
    """The loss, compared with the best prompt, that {prefer} cheap accepts."""

    @property
    def accepted_loss(self) -> float:
        """The margin as a share."""
        return self.margin / 100

    @property
    def accepted(self) -> str:
        """The margin in words."""
        return f"{self.margin:g} points"

    @staticmethod
    def passed_on(rows: int) -> str:
        """Return the option that two models or prompts of one quality pass with on `rows`."""
        return f"--margin {100 * smallest_margin(rows):.0f}"


class SearchOptions(MarginOption):
    """How a run searches."""

    trials: int | None = option(None, group=SEARCH, short="-n", metavar="N", everyday=True, ge=1, le=MOST_COUNT)
    """Stop the search after about this many trials; 1: only score your prompt. Default: as many as the caps allow."""
    strategy: str | None = option(None, group=SEARCH, metavar="NAME")
    """The search: evolve (alias bayes), or one of DSPy's optimizers. Default: evolve; dspy-mipro for a DSPy program."""
    sampler: Literal["bandit", "tpe", "gp", "cmaes", "random"] = option("bandit", group=SEARCH)
    """How evolve chooses what to try next: a bandit over its operators, or an Optuna study."""
    pruner: Literal["race", "wilcoxon"] = option("race", group=SEARCH)
    """How evolve prunes candidates: a paired sequential test (race), or Optuna's WilcoxonPruner."""
    prefer: Prefer = option("best", group=SEARCH)
    """Which prompt to test and ship: the best on dev, the cheapest that is shown on dev to lose less than {margin} to
    it, or the shortest within noise of it."""
    detect: float | None = option(None, group=SEARCH, metavar="POINTS", unit="points", gt=0, le=100, table="search")
    """The smallest gain worth having: with few calls, the sealed test gets only the rows that can show it and the
    search the rest. Default: the task's, else 10."""
    anyway: bool = option(False, "Search even if the preflight finds that no gain can be shown.", SEARCH)
    retrieval: bool = option(True, "Do not pick examples per input: the same ones for all.", SEARCH, table="search")
    shape: bool = option(True, group=SEARCH, table="search")
    """Do not search the shape of a JSON answer: order, descriptions and layout of its fields."""
    embeddings: str | None = option(None, group=SEARCH, metavar="NAME", table="search")
    """Also pick examples by embedding vectors of this model: wordllama (local, no calls) or PROVIDER:NAME. Default: the
    task's, else none."""
    calibrate: bool = option(True, group=SEARCH, table="search")
    """Do not try calibrated variants of the finalists (they cost no calls)."""
    seed: int = option(0, "Same seed, same trials.", SEARCH, metavar="N", everyday=True, ge=0, le=2**31 - 1)

    @property
    def tested(self) -> int:
        """The most prompts that the sealed test scores after a search."""
        return 3 if self.prefer == "cheap" else 2


class RunOptions(DataOptions, SpendingOptions, SearchOptions):
    """The options of a run, in task.toml's `[run]`, in sweep.toml and in the ledger."""

    model: str | None = option(None, group=MODELS, short="-m", metavar="NAME", everyday=True, table="models")
    """The model to prompt. Default: the task's, else the embedded local/smollm2-135m."""
    proposer: str | None = option(None, group=MODELS, metavar="NAME", everyday=True, table="models")
    """The model that writes instructions, or `none`. Default: the task's, else the model itself."""
    judge: Texts = option((), group=MODELS, metavar="NAME", everyday=True, table="models")
    """The model that judges; repeat it for a panel. Default: the task's, else the model itself."""
    knowledge: Place = option(None, group=TASK, metavar="DIR")
    """Documents to retrieve passages from, when TASK is a data file: a folder or one file."""
    tools: Place = option(None, group=TASK, metavar="FILE")
    """Tools that the answers call, when TASK is a data file: JSON, or FILE.py:NAME,... as in `optimize tools`."""
    agent: str | None = option(None, group=TASK, metavar="FILE.py:NAME")
    """Your own agent, when TASK is a data file: a function def run(texts, row, model) in a file. Its {texts} are
    searched instead of a prompt."""
    texts: Place = option(None, group=TASK, metavar="FILE")
    """The texts of {agent}: a JSON object of names and texts, or a folder with a .txt or .md file for each."""
    max_calls: int | None = option(None, group=BUDGET, metavar="N", everyday=True, ge=1, le=MOST_COUNT, table="budget")
    """Cap on model calls, retries (not 429s) included, all roles together. Default: the task's, else by {effort}."""
    time_limit: Time = option(None, _TIME_LIMIT, BUDGET, everyday=True, table="budget")
    effort: Effort = option("standard", "How many calls to plan if nothing is capped.", BUDGET, everyday=True)
    cache: bool = option(True, "Send every call again, even if the ledger holds its reply.", BUDGET)
    tag: Tags = option({}, "Tag the run; repeatable.", OUTPUT)

    def conflicts(self) -> list[Problem]:
        if "margin" in self.model_fields_set and self.prefer != "cheap":
            return [Problem("margin", "is the loss that {prefer} cheap accepts; add it"), *super().conflicts()]
        return super().conflicts()


TASK_RUN = tuple(name for name, each in RunOptions.declared().items() if each.group != TASK and not each.table)
"""The options of a run that the `[run]` table of a task may set."""
TASK_DEFAULTS = {name: each.table for name, each in RunOptions.declared().items() if each.table in ("budget", "search")}
"""The options of a run that take their default from another table of task.toml, and its name."""


class Migrates(JobOptions):
    """The released prompt that a migration starts from."""

    run: str
    candidate: str
    version: str


class TextSource(JobOptions):
    """The rows of a text file, and the command that scores it."""

    rows: str = option("", "The rows, with any columns (.jsonl, .csv, ...).", TASK, metavar="FILE", everyday=True)
    command: str = option("", group=TASK, flag="--eval", metavar="COMMAND", everyday=True)
    """The command that scores the text on a row; {{file}} and {{row}} become the paths of a copy of the text and of the
    row as JSON."""
    repeats: int = option(1, "How often to score some sealed rows.", TASK, metavar="N", everyday=True, ge=1, le=20)
    seconds: Time = option(300.0, "Longest run of the command: 90, 5m.", BUDGET, everyday=True)


class RecordedOptions(RunOptions):
    """A run as the ledger stores it: options, task, and digests of its metric, agent and model file."""

    task: str = ""
    metric_source: str = ""
    agent_source: str = ""
    migrates: Migrates | None = None
    text: TextSource | None = None
    model_digest: str = ""


class TextOptions(TextSource, ThinkingOption):
    """The options of optimizing a text file."""

    proposer: str = option("none", "The model that writes edits. Default: none.", MODELS, metavar="NAME", everyday=True)
    max_concurrency: int = AskingOptions.field("max_concurrency", default=4, help="Runs of the command at once.")
    max_runs: int = option(300, group=BUDGET, metavar="N", everyday=True, ge=1, le=MOST_COUNT)
    """Cap on runs of the command; a call of {proposer} counts as one."""
    max_cost: float | None = CapOptions.field(
        "max_cost", help="Cap in US dollars: {proposer}, and cost_usd of the runs."
    )
    time_limit: Time = RunOptions.field("time_limit")
    price: Price = CapOptions.field("price")
    limit: Rows = DataOptions.field("limit")
    prefer: Prefer = SearchOptions.field("prefer", help="Which text to test: the best, cheapest or shortest one.")
    detect: float | None = SearchOptions.field("detect")
    seed: int = SearchOptions.field("seed")
    cache: bool = RunOptions.field("cache")
    output: File = option(None, "Write the new text here, if it is better.", OUTPUT, short="-o", everyday=True)
    tag: Tags = RunOptions.field("tag")


class ResumeOptions(JobOptions):
    """What may change when a run is resumed."""

    fork: bool = option(False, "Start a new run from it, with the task as it is now.", SEARCH)
    model: str | None = option(None, "Another model; only with {fork}.", MODELS, short="-m", metavar="NAME")
    max_calls: int | None = option(None, group=BUDGET, metavar="N", ge=1, le=MOST_COUNT)
    """A new cap on model calls; what was paid before counts."""
    max_tokens: int | None = option(None, "A new cap on tokens.", BUDGET, metavar="N", ge=1, le=MOST_COUNT)
    max_cost: float | None = CapOptions.field("max_cost", help="A new cap in US dollars.")
    time_limit: Time = option(None, "A new cap on wall time: 90, 5m or 1h30m.", BUDGET)
    max_concurrency: int | None = AskingOptions.field("max_concurrency")
    max_wait: Time = AskingOptions.field("max_wait")
    batch_wait: Time = BatchOptions.field("batch_wait")


class MigrateOptions(MarginOption, BatchOptions):
    """The options of a migration; defaults come from the run of the prompt."""

    model: str = option("", "The model to migrate to.", MODELS, short="-m", metavar="NAME", everyday=True)
    max_calls: int = RunOptions.field(
        "max_calls", default=150, help="Cap on model calls, retries (not 429s) included, all roles together."
    )
    max_tokens: int | None = CapOptions.field("max_tokens", help=f"Cap on tokens in and out{_ALL_ROLES}.")
    max_cost: float | None = CapOptions.field("max_cost", help=f"Cap in US dollars{_ALL_ROLES}.")
    time_limit: Time = RunOptions.field(
        "time_limit", help="Cap on wall time, the sealed test included: 90, 5m or 1h30m."
    )
    price: Price = CapOptions.field("price")
    margin: float = MarginOption.field("margin", help="The loss against the old model that you accept.")
    max_examples: int | None = DataOptions.field("max_examples", group=SEARCH)
    max_concurrency: int | None = AskingOptions.field("max_concurrency")
    max_wait: Time = AskingOptions.field("max_wait")
