"""The options of each job that asks models: `optimize run`, `migrate`, `check` and the others."""

from __future__ import annotations

from typing import Literal

from agent.errors import Problem
from agent.options.kinds import Curve, File, Names, Place, Price, Rows, Tags, Texts, Time
from agent.options.option import JobOptions, option
from agent.options.shared import (
    BUDGET,
    COMPARISON,
    MODELS,
    OUTPUT,
    SEARCH,
    TASK,
    AskingOptions,
    BatchOptions,
    CapOptions,
    DataOptions,
    FormOptions,
    ScoredOptions,
    SeedOption,
    SpendingOptions,
    ThinkingOption,
)
from agent.stats.intervals import MARGIN, smallest_margin
from agent.types import MOST_COUNT

Effort = Literal["quick", "standard", "thorough"]
Prefer = Literal["best", "cheap", "short"]
_ALL_ROLES = ", all roles together"
_TIME_LIMIT = "Cap on wall time, the sealed test included: 90, 5m or 1h30m. Calls in flight have 10 s more."


class MarginOption(JobOptions):
    """An accepted loss."""

    margin: float = option(100 * MARGIN, group=SEARCH, metavar="POINTS", unit="points", gt=0, le=50)
    """The loss against the best that {prefer} cheap accepts."""

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
    """Stop the search after about this many trials; 1: only score your prompt. Default: as many as the calls pay."""
    strategy: str | None = option(None, group=SEARCH, metavar="NAME")
    """Our search (evolve, also called bayes), or one of DSPy's optimizers. Default: evolve; dspy-mipro for your DSPy
    program."""
    sampler: Literal["bandit", "tpe", "gp", "cmaes", "random"] = option("bandit", group=SEARCH)
    """What our search tries next: by a bandit over its operators, or all of it by one Optuna study."""
    pruner: Literal["race", "wilcoxon"] = option("race", group=SEARCH)
    """What ends losing candidates in our search: our paired race, valid at every look, or Optuna's WilcoxonPruner."""
    prefer: Prefer = option("best", group=SEARCH)
    """Which to test and ship: the best on dev, the cheapest that is shown there to lose less than {margin} against it,
    or the shortest within noise of it."""
    detect: float | None = option(None, group=SEARCH, metavar="POINTS", unit="points", gt=0, le=100, table="search")
    """The smallest gain worth having: where calls are few, the sealed test takes the rows that show it and the search
    the rest. Default: the task's, else 10."""
    anyway: bool = option(False, "Search even when nothing can be won by the preflight.", SEARCH)
    retrieval: bool = option(True, "Pick no examples for each input; the same ones for all.", SEARCH, table="search")
    shape: bool = option(True, group=SEARCH, table="search")
    """Do not search the shape of a JSON answer: order, descriptions and layout of its fields."""
    embeddings: str | None = option(None, group=SEARCH, metavar="NAME", table="search")
    """Also pick examples by the vectors of this model: wordllama, which calls none, or PROVIDER:NAME. Default: the
    task's, else none."""
    calibrate: bool = option(True, group=SEARCH, table="search")
    """Do not try calibration on the finalists (it costs no call)."""
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
    """Documents that have the answers, when TASK is a data file: a folder, or one file. Prompts look passages up."""
    tools: Place = option(None, group=TASK, metavar="FILE")
    """Tools that the answers call, when TASK is a data file: JSON, or FILE.py:NAME,... as `optimize tools` has it."""
    agent: str | None = option(None, group=TASK, metavar="FILE.py:NAME")
    """Your own agent, when TASK is a data file: the function def run(texts, row, model) of a file. Its {texts} are
    searched, and there is no prompt."""
    texts: Place = option(None, group=TASK, metavar="FILE")
    """The texts of {agent}: a JSON object of names and texts, or a folder with a .txt or .md file each."""
    max_calls: int | None = option(None, group=BUDGET, metavar="N", everyday=True, ge=1, le=MOST_COUNT, table="budget")
    """Cap on model calls, retries (not 429s) included, all roles together. Default: the task's, else by {effort}."""
    time_limit: Time = option(None, _TIME_LIMIT, BUDGET, everyday=True, table="budget")
    effort: Effort = option("standard", "How many calls to plan with when nothing is capped.", BUDGET, everyday=True)
    cache: bool = option(True, "Buy every call again, also those that the ledger holds.", BUDGET)
    tag: Tags = option({}, "Tag the run; repeatable.", OUTPUT)

    def conflicts(self) -> list[Problem]:
        if "margin" in self.model_fields_set and self.prefer != "cheap":
            return [Problem("margin", "what {prefer} cheap may lose; add {prefer} cheap"), *super().conflicts()]
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

    rows: str = option("", "The rows, of any shape (.jsonl, .csv, ...).", TASK, metavar="FILE", everyday=True)
    command: str = option("", group=TASK, flag="--eval", metavar="COMMAND", everyday=True)
    """What scores the text on a row: {{file}} and {{row}} are paths, of a copy of the text and of the row as JSON."""
    repeats: int = option(1, "How often some sealed rows are scored.", TASK, metavar="N", everyday=True, ge=1, le=20)
    seconds: Time = option(300.0, "The longest run of the command: 90, 5m.", BUDGET, everyday=True)


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


class TransferOptions(SpendingOptions, SeedOption):
    """The options of scoring a run's prompts on other models."""

    models: str = option("", "The models to try, as a,b,c.", MODELS, metavar="NAMES", everyday=True)
    top: int = option(3, "How many of the best prompts.", TASK, metavar="N", everyday=True, ge=1, le=50)
    limit: int | None = option(None, group=TASK, metavar="N", everyday=True, ge=1)
    """Use at most this many dev rows, the first ones."""


class CheckOptions(SpendingOptions, SeedOption):
    """The options of a check of a released prompt."""

    model: str | None = option(None, group=MODELS, short="-m", metavar="NAME")
    """The model to ask. Default: the one whose answers are recorded."""
    judge: Texts = option((), group=MODELS, metavar="NAME")
    """Allows a judge that the suite names by an address; repeat it for several."""
    task: str | None = option(None, "The task, where neither the suite nor the ledger says enough.", TASK)
    suite: File = option(None, "The recorded answers. Default: suite.json next to PROMPT.", TASK)
    repeats: int = option(2, "How often each row is asked.", TASK, metavar="N", ge=1, le=5)


class BlessOptions(SpendingOptions):
    """The options of recording a regression suite."""

    reason: str = option("", "Why these answers are right to compare with; kept in the ledger.", OUTPUT)
    actor: str = option("", "Who decides. Default: the user of this machine.", OUTPUT)
    model: str | None = CheckOptions.field(
        "model", help="The model to ask. Default: the one of the suite, else that of the prompt."
    )
    judge: Texts = CheckOptions.field("judge", help="The model that judges; repeat it for a panel. Default: as before.")
    task: str | None = CheckOptions.field(
        "task", help="Take the dev rows of this task; without it the suite's rows stay, if there is a suite."
    )
    suite: File = CheckOptions.field("suite", help="Where to keep it. Default: suite.json next to PROMPT.")
    limit: int | None = TransferOptions.field("limit", help="Use at most this many rows, the first ones.")
    repeats: int = CheckOptions.field("repeats", default=3)


class ApplyOptions(FormOptions, SpendingOptions):
    """The options of running a released prompt on the rows of a file."""

    output: File = option(None, "The .csv or .jsonl file to write.", TASK, short="-o", everyday=True)
    model: str | None = CheckOptions.field("model", help="The model to ask. Default: the one of the prompt.")
    limit: int | None = TransferOptions.field("limit", help="Use at most this many rows, the first ones.")
    prefix: str = option("", "Before the names of the new columns: answer_. Default: nothing.", TASK)


class LabelOptions(FormOptions, CapOptions, AskingOptions):
    """The options of labelling."""

    labeller: str = option("", "Who labels: a name or initials. Default: the user of this machine.", TASK)
    count: int | None = option(None, "Stop after this many labels.", TASK, metavar="N", ge=1)
    overlap: int = option(10, group=TASK, metavar="N", ge=0)
    """Rows that another labeller has labelled and that you label, too, so that your agreement can be measured."""
    add: File = option(None, group=TASK, metavar="FILE")
    """Add the rows of FILE (.csv, .jsonl, .txt, traces) to those to label."""
    status: bool = option(False, "Only say how far labelling is, and what is wanted for a verdict.", TASK)
    web: bool = option(False, "Label in the browser, on this machine only.", TASK)
    port: int = option(0, "With {web}: the port. Default: a free one.", TASK, metavar="N", ge=0, le=65535)
    no_open: bool = option(False, "With {web}: print the link only.", TASK)
    ask: bool = option(False, group=TASK)
    """Ask the best prompts of the last run the rows without a label, {max_calls} in all; rows on which they disagree
    come first from then on."""

    def conflicts(self) -> list[Problem]:
        found = super().conflicts()
        if self.ask and not (self.max_calls or self.max_cost):
            found.append(Problem("ask", "asks models; give a cap with it, {max_calls} N or {max_cost} USD"))
        if self.web and (self.count or self.status):
            other = "count" if self.count else "status"
            found.append(Problem("web", f"labels in the browser until you end it, without {{{other}}}; leave one out"))
        return found


class CalibrateOptions(SpendingOptions, SeedOption):
    """The options of measuring a judge against people."""

    labels: File = option(None, "Ratings of people, .jsonl or .csv.", TASK, metavar="FILE")
    judge: Texts = option((), group=MODELS, metavar="NAME")
    """The model that judges; repeat it for a panel. Default: the task's, else the task's model, else the embedded."""
    input: Texts = option((), "Without TASK: a column that the answer was made from; repeatable.", TASK, metavar="COL")
    output: str | None = option(None, group=TASK, metavar="COL")
    """The column of the answer; with TASK the field that its judge rates."""
    pair: str | None = option(None, group=TASK, metavar="A,B")
    """Two columns, A,B: answers that were compared; ratings are then 1, 2 or tie."""
    rating: str = option("rating", "The column of the rating, or of comma-separated votes.", TASK, metavar="COL")
    scale: str | None = option(None, group=TASK, metavar="A-B")
    """Lowest and highest rating of the people. Default: those of the rubric, else 1-5."""
    mode: Literal["rubric", "reference", "pairwise", "faithfulness"] | None = option(None, group=TASK)
    """With TASK: which of its judges, where several rate the same field."""
    rubric: File = option(None, "Without TASK: what the judge goes by.", TASK, metavar="FILE")
    about: str = option("", "Without TASK: in a sentence, what the answers are for.", TASK)
    limit: int | None = TransferOptions.field("limit", help="Use at most this many items, the first ones.")
    repeats: int = option(3, "How often an item is asked.", TASK, metavar="N", ge=1, le=10)


class TuneOptions(CalibrateOptions):
    """The options of tuning a judge; its search takes the caps."""

    judge: Texts = option((), group=MODELS, metavar="NAME")
    """The model that judges, one. Default: the task's, else the task's model, else the embedded."""
    proposer: str | None = RunOptions.field("proposer", help="The model that rewrites the instruction, or `none`.")
    name: str = option("", "The name of the tuned judge. Default: that of the task or file, and _judge.", TASK)
    next: int = option(20, group=TASK, metavar="N", ge=0, le=200)
    """How many answers of the last run of TASK to name whose ratings would help most; they are asked, too."""
    repeats: int = CalibrateOptions.field("repeats", default=1)


class InitOptions(ScoredOptions, CapOptions, AskingOptions):
    """The options of a new task folder."""

    sample: str = option("", group=TASK, metavar="NAME", everyday=True)
    """Copy the task of this name that ships with Promptassay; needs no file."""
    source: File = option(None, group=TASK, flag="--from", metavar="FILE", everyday=True)
    """Your data file (.csv, .tsv, .jsonl, .json, .xlsx, .parquet), promptfoo's tests (a promptfooconfig.yaml, or a .csv
    with __expected), or traces (Langfuse, OpenAI chat logs, OpenTelemetry, a production log)."""
    from_skills: Place = option(None, group=TASK, metavar="DIR", everyday=True)
    """Search the descriptions of skills: a folder of SKILL.md files, or tools as JSON or FILE.py:NAME,... Only which
    one is chosen counts."""
    queries: Texts = option((), group=TASK, metavar="FILE", everyday=True)
    """With {from_skills}: rows with query and skill, or query and should_trigger, or the folder of a labelled task; in
    addition to the evals.json next to each SKILL.md; repeatable."""
    draft: int | None = option(None, group=TASK, metavar="N", ge=1, le=500)
    """With {from_skills}: a model drafts N queries, and `optimize label NAME-queries` has you confirm them; then give
    that task as {queries}."""
    target: Texts = option((), group=TASK, metavar="COL", everyday=True)
    """The column to predict; repeat it for several. Not needed for promptfoo's tests and traces."""
    prompt: Place = DataOptions.field(
        "prompt", help="The prompt you use today: a text file, or the text itself in quotes. Default: a plain one."
    )
    seed: int = option(0, "Decides which rows go to which split.", TASK, metavar="N", everyday=True, ge=0, le=2**31 - 1)
    describe: str = option("", group=TASK, metavar="TEXT", everyday=True)
    """Without labels: a sentence on what the task is. A model drafts labels, definitions and a prompt."""
    labels: str = option("", group=TASK, metavar="A,B", everyday=True)
    """With {describe}, or traces of which few are confirmed: the labels. Default: the model names them, or the answers
    in the traces do."""
    rows: int = option(40, group=TASK, metavar="N", everyday=True, ge=1, le=500)
    """With {describe} and no {source}: how many synthetic rows are written."""
    model: str | None = option(None, group=MODELS, short="-m", metavar="NAME", everyday=True)
    """With {describe} or {draft}: the model that drafts. Default: the embedded one."""

    def conflicts(self) -> list[Problem]:
        found = super().conflicts()
        if self.from_skills is None:
            alone = [name for name in ("queries", "draft") if getattr(self, name)]
            return found + [Problem(name, "goes with {from_skills}") for name in alone]
        others = ("sample", "source", "target", "describe", "labels", "metric", "type", "input", "ignore")
        given = [name for name in others if getattr(self, name)]
        return found + [Problem(name, "does not go with {from_skills}; leave it out") for name in given]


class CustomizeOptions(JobOptions):
    """What a comparison compares and trains; its search takes the options of a run."""

    run: str = option("", group=COMPARISON, metavar="RUN")
    """The search to take the prompts from. Default: the latest of this task and model, else a new one."""
    arms: Names = option((), group=COMPARISON, everyday=True)
    """In addition to your own prompt only these: best, retrieved, calibrated, soft-prompt, lora, lora+prompt, full,
    hosted, no-model. Default: all but soft-prompt, full and hosted."""
    curve: Curve = option("", group=COMPARISON, metavar="N,N,all")
    """Also train each arm that learns on these numbers of train rows, and say where arms cross: 24,75,all."""
    trainer: Literal["numpy", "peft"] = option("numpy", group=COMPARISON)
    """What trains adapters: numpy, or peft (transformers and peft, extra `tune`)."""
    hf_folder: File = option(None, group=COMPARISON, metavar="DIR")
    """Train on the weights of this Hugging Face folder, which the model's GGUF was made from (extra `tune`)."""
    settings: int = option(3, group=COMPARISON, metavar="N", ge=1, le=4)
    """Settings of each training (learning rate, rank) that are tried on dev, 1 to 4; the better half continues."""
    tune: int | None = option(None, group=COMPARISON, metavar="N", ge=2, le=64)
    """Instead of {settings}: draw N settings of each training, which ASHA stops early on dev."""
    seeds: int = option(1, group=COMPARISON, metavar="N", ge=1, le=10)
    """Train each arm with this many seeds and show the spread; the first is the arm itself."""
    ray: str | None = option(None, group=COMPARISON, metavar="[ADDRESS]")
    """Train on a Ray cluster: its address, auto, or local, the default. Write it after TASK."""
    train_time: Time = option(None, group=COMPARISON)
    """The most that one arm may train: 90, 5m. Default: until dev gets no better."""
    train_price: float | None = option(None, group=COMPARISON, metavar="USD", unit="US dollars", ge=0)
    """Dollars per million trained tokens, for {arms} hosted: the model trained at its provider."""
    expected_calls: int | None = option(None, group=COMPARISON, metavar="N", ge=1)
    """Calls that you expect in all; fewer than pay for the training speak against it."""

    @property
    def tried(self) -> int:
        """Return how many settings of each training are tried on dev."""
        return self.tune or self.settings

    def conflicts(self) -> list[Problem]:
        if self.tune is not None and "settings" in self.model_fields_set:
            both = Problem("settings", "{settings} and {tune} both say how many settings are tried; give one")
            return [both, *super().conflicts()]
        return super().conflicts()
