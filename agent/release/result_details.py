"""What stands behind a run's scores: answers by label, what changed in the prompt, the proposer's part, and what would
show a gain that was not shown. Pure.

Rows are those of the sealed test. What an older version of the tool did not write has its default.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from agent.release.json_part import IF_SET, JsonPart
from agent.release.result_breakdown import TwoSided


@dataclass(frozen=True, slots=True)
class RowCount(JsonPart):
    """How one prompt's rows were scored: full marks, some, none, or no score. `unreadable` of those with a score had a
    reply that did not parse or broke the limits of its fields; `unreadable_rows` are the ids of the first of them.
    `different` answers were given to the `readable` rows, which have `different_right` right ones (0: not counted)."""

    right: int = 0
    partly: int = 0
    wrong: int = 0
    unscored: int = 0
    unreadable: int = 0
    unreadable_rows: tuple[str, ...] = ()
    readable: int = field(default=0, metadata=IF_SET)
    different: int = field(default=0, metadata=IF_SET)
    different_right: int = field(default=0, metadata=IF_SET)

    @property
    def scored(self) -> int:
        """Rows with a score."""
        return self.right + self.partly + self.wrong


@dataclass(frozen=True, slots=True)
class Answers(TwoSided[RowCount]):
    """The rows of both prompts, counted."""

    winner: RowCount = RowCount()
    baseline: RowCount = RowCount()


@dataclass(frozen=True, slots=True)
class LabelScore(JsonPart):
    """One label: `support`, the rows whose right answer it is; `said`, the rows that were answered with it; `right`,
    those that are both. `precision` and `recall` in [0, 1]; None where no row was answered with it, or it has none."""

    label: str
    support: int
    said: int
    right: int
    precision: float | None
    recall: float | None


@dataclass(frozen=True, slots=True)
class ConfusionCell(JsonPart):
    """How many rows of `label`, 1 or more, were answered with `said`; None: the reply named no label that there is."""

    label: str
    said: str | None
    rows: int


@dataclass(frozen=True, slots=True)
class LabelSide(JsonPart):
    """One prompt's answers by label. `cells` are the cells of the confusion matrix that are not 0."""

    scores: tuple[LabelScore, ...] = ()
    cells: tuple[ConfusionCell, ...] = ()

    @property
    def rows(self) -> int:
        """Rows that were answered, readably or not."""
        return sum(cell.rows for cell in self.cells)

    def count(self, label: str, said: str | None) -> int:
        """One cell of the matrix, 0 or more."""
        return sum(cell.rows for cell in self.cells if cell.label == label and cell.said == said)

    def confused(self) -> list[ConfusionCell]:
        """The cells off the diagonal, unreadable replies left out, the largest first."""
        wrong = [cell for cell in self.cells if cell.said is not None and cell.said != cell.label]
        return sorted(wrong, key=lambda cell: (-cell.rows, cell.label, cell.said))


@dataclass(frozen=True, slots=True)
class LabelReport(TwoSided[LabelSide]):
    """The answers of a field that is a choice; `labels` are its choices in the task's order."""

    field: str
    labels: tuple[str, ...]
    winner: LabelSide = LabelSide()
    baseline: LabelSide = LabelSide()


# -- the prompt -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PromptSize(JsonPart):
    """A prompt's design and length; `role` is the sentence that gives it one, if any.

    `prompt_tokens`: without the row; `tokens_a_call`: the mean of its calls, prompt and reply, 0 where the provider
    does not say."""

    technique: str
    format: str
    n_demos: int
    prompt_tokens: int
    tokens_a_call: int = 0
    role: str = ""


@dataclass(frozen=True, slots=True)
class Change(TwoSided[PromptSize]):
    """What the winner has that the user's own prompt has not. `instruction`: whether the text differs; `keeps`: whether
    it differs and holds the user's whole; `tools`: which texts of tools do, as `TOOL` and `TOOL.ARGUMENT`."""

    winner: PromptSize
    baseline: PromptSize
    instruction: bool = False
    keeps: bool = field(default=False, metadata=IF_SET)
    tools: tuple[str, ...] = field(default=(), metadata=IF_SET)


@dataclass(frozen=True, slots=True)
class OperatorUse(JsonPart):
    """What came of one thing that the proposer was asked for.

    Args:
        operator: its name.
        asked: proposals by it.
        refused: those without a reply that can be used.
        dropped: those that mended less than they broke on the rows that they were for.
        tried: those that were scored, finalists among them.
        finalists: those that saw the whole of dev.
        points: the mean change against the prompts that they changed, on the rows of both; None: none was compared.
    """

    operator: str
    asked: int
    refused: int = 0
    dropped: int = 0
    tried: int = 0
    finalists: int = 0
    points: float | None = None


@dataclass(frozen=True, slots=True)
class ProposalFate(JsonPart):
    """One proposal and what became of it.

    Args:
        number: in the order of the run, at least 1.
        operator: what the proposer was asked for.
        hypothesis: what it was expected to mend, in words.
        rows: ids of the dev rows that it was for; empty: for all.
        instruction: its name among the instructions of the run.
        refused: why nothing came of it, or "".
        parent_id: the candidate that it changes.
        before, after: the mean score on shared rows without and with it, in [0, 1]; None: not compared.
        became: `refused`, `dropped`, `waiting` (for its first rows), `tried`, `finalist` or `winner`.
    """

    number: int
    operator: str
    hypothesis: str = ""
    rows: tuple[str, ...] = ()
    instruction: str = ""
    refused: str = ""
    parent_id: str | None = None
    before: float | None = None
    after: float | None = None
    became: str = ""


@dataclass(frozen=True, slots=True)
class ProposerUse(JsonPart):
    """What came of the model that writes instructions.

    Args:
        model: its name; "" without one.
        planned: calls that the plan had for it, at most.
        asked: calls that were made, those answered from the ledger among them.
        refused: replies of these that held no instruction that can be used.
        failed: calls that brought no reply.
        tried: prompts with an instruction of its own that were scored; None where the strategy does not say.
        finalists: those of them that saw the whole of dev.
        won: whether the winner has one.
        why_not: why it was not asked; "" where it was.
        points: by how much the best prompt with such an instruction is above the best without, on the dev rows of both;
            None: there is no such pair.
        operators: what came of each thing that it was asked for.
        proposals: each proposal, in the order of the run.
    """

    model: str = ""
    planned: int = 0
    asked: int = 0
    refused: int = 0
    failed: int = 0
    tried: int | None = None
    finalists: int = 0
    won: bool = False
    why_not: str = ""
    points: float | None = field(default=None, metadata=IF_SET)
    operators: tuple[OperatorUse, ...] = field(default=(), metadata=IF_SET)
    proposals: tuple[ProposalFate, ...] = field(default=(), metadata=IF_SET)


@dataclass(frozen=True, slots=True)
class ToShow(JsonPart):
    """What would show a gain that was measured and not shown.

    Args:
        gain: the gain that was measured, in (0, 1].
        rows_needed: test rows that show it with 80 % power, rounded up to two digits; None: more than ten million.
        rows_tested: rows that the plan paid.
        rows_there: rows of the task's test split.
        max_calls: the cap on calls whose plan pays as many of them as are needed; None: it paid them all.
        other_caps: caps on tokens, dollars or time, by their options, that must then grow as well.
    """

    gain: float
    rows_needed: int | None
    rows_tested: int
    rows_there: int
    max_calls: int | None = None
    other_caps: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Untested(JsonPart):
    """A prompt that leads the user's own on dev and did not go to the sealed test.

    Args:
        candidate_id: its id.
        dev: its mean, in [0, 1], on the dev rows that both saw.
        baseline: the mean of the user's own prompt on these rows.
        rows: how many these are.
        dev_rows: all dev rows of the run.
        p_value: of the paired difference.
        is_chance: whether chance explains the lead: it saw a part of dev, and no prompt that saw all of dev leads.
        why: why it was not tested, to stand after "because".
        next: the options with which a run may test it; "": none is known.
    """

    candidate_id: str
    dev: float
    baseline: float
    rows: int
    dev_rows: int
    p_value: float
    is_chance: bool
    why: str
    next: str = ""


@dataclass(frozen=True, slots=True)
class NotWorse(JsonPart):
    """How much one prompt may lose against another over `n` paired rows: the difference of the means, and its one-sided
    95 % limit `low`, both in [-1, 1]. `shown`: a loss of `margin`, in (0, 1), or more is ruled out."""

    diff: float
    low: float
    margin: float
    n: int
    shown: bool


@dataclass(frozen=True, slots=True)
class Cheaper(JsonPart):
    """The winner beside `best`, the best on dev, which costs more (`--prefer cheap`). `saved`: the share of the best
    one's dollars, or tokens where no dollars are known, that a call saves, in [0, 1]. `dev` chose the winner; `test` is
    of the sealed test, where `best_test` is the mean of the best; None where no row has a score."""

    best: str
    saved: float
    saved_in: Literal["dollars", "tokens"]
    dev: NotWorse
    best_test: float | None = None
    test: NotWorse | None = None


@dataclass(frozen=True, slots=True)
class Migrated(JsonPart):
    """What a prompt was migrated from: the `run` that released its candidate as `version` for `model`, whose replies to
    the sealed rows are those of that run. `test`: how much the new model may lose against it."""

    run: str
    candidate_id: str
    version: str
    model: str
    test: NotWorse
