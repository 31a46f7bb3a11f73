"""The options of the other jobs that ask models: `optimize check`, `label`, `judge calibrate` and so on."""

from __future__ import annotations

from typing import Literal

from agent.errors import Problem
from agent.options.kinds import Curve, File, Names, Place, Texts, Time
from agent.options.option import JobOptions, option
from agent.options.run import RunOptions
from agent.options.shared import (
    COMPARISON,
    MODELS,
    OUTPUT,
    TASK,
    AskingOptions,
    CapOptions,
    DataOptions,
    FormOptions,
    ScoredOptions,
    SeedOption,
    SpendingOptions,
)


class TransferOptions(SpendingOptions, SeedOption):
    """The options of scoring a run's prompts on other models."""

    models: str = option("", "The models to try, as a,b,c.", MODELS, metavar="NAMES", everyday=True)
    top: int = option(3, "How many of the best prompts.", TASK, metavar="N", everyday=True, ge=1, le=50)
    limit: int | None = option(None, group=TASK, metavar="N", everyday=True, ge=1)
    """Use at most this many dev rows, the first ones."""


class CheckOptions(SpendingOptions, SeedOption):
    """The options of a check of a released prompt."""

    model: str | None = option(None, group=MODELS, short="-m", metavar="NAME", everyday=True)
    """The model to ask. Default: the one whose answers were recorded."""
    judge: Texts = option((), group=MODELS, metavar="NAME")
    """Allow a judge that the suite names by an address; repeatable."""
    task: str | None = option(None, "The task, if neither the suite nor the ledger names it.", TASK)
    suite: File = option(None, "The recorded answers. Default: suite.json next to PROMPT.", TASK)
    repeats: int = option(2, "How often to ask each row.", TASK, metavar="N", ge=1, le=5)


class BlessOptions(SpendingOptions):
    """The options of recording a regression suite."""

    reason: str = option("", group=OUTPUT, everyday=True)
    """Why these answers are a good reference; kept in the ledger."""
    actor: str = option("", "Who decides. Default: the user of this machine.", OUTPUT)
    model: str | None = CheckOptions.field("model", help="The model to ask. Default: the suite's, else the prompt's.")
    judge: Texts = CheckOptions.field("judge", help="The model that judges; repeat it for a panel. Default: as before.")
    task: str | None = CheckOptions.field(
        "task", help="Take the dev rows of this task. Default: the rows of an existing suite."
    )
    suite: File = CheckOptions.field("suite", help="Where to keep it. Default: suite.json next to PROMPT.")
    limit: int | None = TransferOptions.field("limit", help="Use at most this many rows, the first ones.")
    repeats: int = CheckOptions.field("repeats", default=3)


class ApplyOptions(FormOptions, SpendingOptions):
    """The options of running a released prompt on the rows of a file."""

    output: File = option(None, "The .csv or .jsonl file to write.", TASK, short="-o", everyday=True)
    model: str | None = CheckOptions.field("model", help="The model to ask. Default: the prompt's.")
    limit: int | None = TransferOptions.field("limit", help="Use at most this many rows, the first ones.")
    prefix: str = option("", "Prefix of the new columns' names, such as answer_. Default: none.", TASK)


class LabelOptions(FormOptions, CapOptions, AskingOptions):
    """The options of labelling."""

    labeller: str = option("", "Who labels: a name or initials. Default: the user of this machine.", TASK)
    count: int | None = option(None, "Stop after this many labels.", TASK, metavar="N", ge=1)
    overlap: int = option(10, group=TASK, metavar="N", ge=0)
    """Rows labelled by another labeller that you label again, to measure your agreement."""
    add: File = option(None, group=TASK, metavar="FILE")
    """Add the rows of FILE (.csv, .jsonl, .txt, traces) to those to label."""
    status: bool = option(False, group=TASK, everyday=True)
    """Only print the progress, and how many labels a verdict needs."""
    web: bool = option(False, "Label in the browser, on this machine only.", TASK, everyday=True)
    port: int = option(0, "With {web}: the port. Default: a free one.", TASK, metavar="N", ge=0, le=65535)
    no_open: bool = option(False, "With {web}: print the link only.", TASK)
    ask: bool = option(False, group=TASK)
    """Run the best prompts of the last run on unlabelled rows, at most {max_calls} in all; rows on which they disagree
    then come first."""

    def conflicts(self) -> list[Problem]:
        found = super().conflicts()
        if self.ask and not (self.max_calls or self.max_cost):
            found.append(Problem("ask", "calls models; add a cap, {max_calls} N or {max_cost} USD"))
        if self.web and (self.count or self.status):
            other = "count" if self.count else "status"
            found.append(Problem("web", f"labels in the browser until you end it, without {{{other}}}; leave one out"))
        return found


class CalibrateOptions(SpendingOptions, SeedOption):
    """The options of measuring a judge against people."""

    labels: File = option(None, "Ratings of people, .jsonl or .csv.", TASK, metavar="FILE", everyday=True)
    judge: Texts = option((), group=MODELS, metavar="NAME", everyday=True)
    """The model that judges; repeat it for a panel. Default: the task's, else its model, else the embedded one."""
    input: Texts = option((), group=TASK, metavar="COL", everyday=True)
    """Without TASK: an input column of the rated answers; repeatable."""
    output: str | None = option(None, group=TASK, metavar="COL", everyday=True)
    """The column of the answer; with TASK, the field that its judge rates."""
    pair: str | None = option(None, group=TASK, metavar="A,B", everyday=True)
    """Two columns, A,B, with answers that were compared; ratings are then 1, 2 or tie."""
    rating: str = option("rating", group=TASK, metavar="COL", everyday=True)
    """The column of the rating, or of comma-separated votes."""
    scale: str | None = option(None, group=TASK, metavar="A-B", everyday=True)
    """Lowest and highest rating of the people. Default: those of the rubric, else 1-5."""
    mode: Literal["rubric", "reference", "pairwise", "faithfulness"] | None = option(None, group=TASK)
    """With TASK: which of its judges, if several rate the same field."""
    rubric: File = option(None, "Without TASK: the rubric file of the judge.", TASK, metavar="FILE")
    about: str = option("", "Without TASK: a sentence on what the answers are for.", TASK)
    limit: int | None = TransferOptions.field("limit", help="Use at most this many items, the first ones.")
    repeats: int = option(3, "How often to ask each item.", TASK, metavar="N", ge=1, le=10)


class TuneOptions(CalibrateOptions):
    """The options of tuning a judge; its search takes the caps."""

    judge: Texts = option((), group=MODELS, metavar="NAME", everyday=True)
    """The model that judges. Default: the task's, else the task's model, else the embedded one."""
    proposer: str | None = RunOptions.field("proposer", help="The model that rewrites the instruction, or `none`.")
    name: str = option("", "The name of the tuned judge. Default: the name of the task or file with _judge.", TASK)
    next: int = option(20, group=TASK, metavar="N", ge=0, le=200)
    """How many answers of the last run of TASK to suggest for rating, those whose ratings would help most."""
    repeats: int = CalibrateOptions.field("repeats", default=1)


class InitOptions(ScoredOptions, CapOptions, AskingOptions):
    """The options of a new task folder."""

    sample: str = option("", group=TASK, metavar="NAME", everyday=True)
    """Copy the task of this name that ships with Promptassay; needs no file."""
    source: File = option(None, group=TASK, flag="--from", metavar="FILE", everyday=True)
    """Your data file (.csv, .tsv, .jsonl, .json, .xlsx, .parquet), promptfoo's tests (a promptfooconfig.yaml, or a .csv
    with __expected), or traces (Langfuse, OpenAI chat logs, OpenTelemetry, a production log)."""
    from_skills: Place = option(None, group=TASK, metavar="DIR", everyday=True)
    """Optimize descriptions of skills or tools: a folder of SKILL.md files, or tools as JSON or FILE.py:NAME,... Scored
    by whether the right one is chosen."""
    queries: Texts = option((), group=TASK, metavar="FILE", everyday=True)
    """With {from_skills}: rows with query and skill, or query and should_trigger, or the folder of a labelled task; in
    addition to the evals.json next to each SKILL.md. Repeatable."""
    draft: int | None = option(None, group=TASK, metavar="N", ge=1, le=500)
    """With {from_skills}: a model drafts N queries; confirm them with `optimize label NAME-queries`, then give that
    task as {queries}."""
    target: Texts = option((), group=TASK, metavar="COL", everyday=True)
    """The column to predict; repeat it for several. Not needed for promptfoo's tests and traces."""
    prompt: Place = DataOptions.field(
        "prompt", help="The prompt you use today: a text file, or the text itself in quotes. Default: a plain one."
    )
    seed: int = option(0, "Decides which rows go to which split.", TASK, metavar="N", everyday=True, ge=0, le=2**31 - 1)
    describe: str = option("", group=TASK, metavar="TEXT", everyday=True)
    """Without labels: describe the task in a sentence. A model drafts labels, definitions and a prompt."""
    labels: str = option("", group=TASK, metavar="A,B", everyday=True)
    """With {describe}, or traces with few confirmed answers: the labels. Default: drafted by the model, or the answers
    in the traces."""
    rows: int = option(40, group=TASK, metavar="N", everyday=True, ge=1, le=500)
    """With {describe} and no {source}: how many synthetic rows to write."""
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
    curve: Curve = option("", group=COMPARISON, metavar="N,N,all", everyday=True)
    """Also train each arm on these numbers of train rows, and report where arms cross: 24,75,all."""
    trainer: Literal["numpy", "peft"] = option("numpy", group=COMPARISON)
    """How adapters are trained: with numpy, or with peft (PyTorch, extra `tune`)."""
    hf_folder: File = option(None, group=COMPARISON, metavar="DIR")
    """Train on the weights of this Hugging Face folder, from which the model's GGUF was made (extra `tune`)."""
    settings: int = option(3, group=COMPARISON, metavar="N", ge=1, le=4)
    """How many settings (learning rate, rank) of each training to try on dev, 1 to 4; the better half continues."""
    tune: int | None = option(None, group=COMPARISON, metavar="N", ge=2, le=64)
    """Instead of {settings}: draw N settings of each training, which ASHA stops early on dev."""
    seeds: int = option(1, group=COMPARISON, metavar="N", ge=1, le=10)
    """Train each arm with this many seeds and show the spread; the first is the arm itself."""
    ray: str | None = option(None, group=COMPARISON, metavar="[ADDRESS]")
    """Train on a Ray cluster: its address, auto, or local (default). Write it after TASK."""
    train_time: Time = option(None, group=COMPARISON)
    """Longest training of one arm: 90, 5m. Default: until dev loss no longer improves."""
    train_price: float | None = option(None, group=COMPARISON, metavar="USD", unit="US dollars", ge=0)
    """Dollars per million trained tokens, for {arms} hosted (training at the provider)."""
    expected_calls: int | None = option(None, group=COMPARISON, metavar="N", everyday=True, ge=1)
    """How many calls you expect in all; too few to repay the training count against it."""

    @property
    def tried(self) -> int:
        """Return how many settings of each training are tried on dev."""
        return self.tune or self.settings

    def conflicts(self) -> list[Problem]:
        if self.tune is not None and "settings" in self.model_fields_set:
            both = Problem("settings", "{settings} and {tune} both say how many settings are tried; give one")
            return [both, *super().conflicts()]
        return super().conflicts()
