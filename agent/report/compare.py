"""Two prompts compared, of two runs or two trials: facts, a paired test on shared rows, a word diff."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from agent.errors import InputError
from agent.ledger.query import History
from agent.prompt.template import label_text
from agent.release.result import RunResult
from agent.report.blocks import Block, Column, DiffBlock, TableBlock, table, text
from agent.report.prompt_texts import tool_differences, word_diff
from agent.report.terminal import won_and_lost
from agent.report.view import RunView
from agent.report.wording import PromptNames, without_result
from agent.results.base import Result, absent, hidden
from agent.results.run_parts import PairedResult
from agent.stats.figures import paired_test

SPLITS = ("train", "dev", "test")
COLUMNS = (
    Column("what"),
    *(Column(side, "break", floor=16, wraps=True, digests=True) for side in "AB"),
    Column("", rank=1),
)
ABOUT_RUN = ("id", "task", "status", "model", "proposer", "seed", "tool", "prices", "seconds")


@dataclass(frozen=True, slots=True)
class ComparedPrompt:
    """A candidate with its run. `trial` is None for a run's winner; scores are in [0, 1]."""

    run: dict[str, Any]
    candidate: dict[str, Any]
    trial: dict[str, Any] | None
    outcomes: dict[str, dict[str, float]]
    """Scores by split and row id."""
    scoring: dict[str, Any]
    """Scoring as far as the ledger knows it; metric options are only in task.toml."""
    names: PromptNames
    result: RunResult | None = None


def compared_prompt(history: History, name: str) -> ComparedPrompt:
    """Return the prompt that `name` means, a run or RUN:TRIAL; raise InputError if missing."""
    run_id, colon, number = name.rpartition(":")
    is_trial = bool(colon) and number.isdecimal()
    view = RunView(history, run_id if is_trial else name)
    run, result = view.run, view.result
    trial = view.numbered(int(number)) if is_trial else None
    if trial is not None:
        candidate_id = trial["candidate_id"]
    elif result is not None:
        candidate_id = result.winner.candidate_id
    else:
        raise InputError(f"{view.id}: {without_result(run)}, so there is no winner; compare trials as RUN:NUMBER")
    rows = {split: history.outcomes(run["id"], candidate_id, split) for split in ("test", "dev")}
    outcomes = {
        split: {r["example_id"]: r["value"] for r in seen if r["value"] is not None} for split, seen in rows.items()
    }
    scoring = _scoring(history, run, result, [*rows["test"], *rows["dev"]])
    return ComparedPrompt(run, history.candidate(candidate_id), trial, outcomes, scoring, view.names, result)


def _scoring(
    history: History, run: dict[str, Any], result: RunResult | None, rows: list[dict[str, Any]]
) -> dict[str, Any]:
    scoring: dict[str, Any] = {name: digest for name, digest in (run["hashes"] or {}).items() if _scores_by(name)}
    scoring["the metrics"] = next(([name for name, *_ in row["scores"]] for row in rows if row["scores"]), None)
    if result and result.metrics:  # an older version wrote neither these nor the judges
        scoring["the weights of the metrics"] = [(part.metric, part.field, part.weight) for part in result.metrics]
    models = {row["model"] for row in history.costs(run["id"]) if row["role"] == "judge"}
    scoring["the judges"] = sorted(models) or None
    if result and result.metrics:
        scoring["what the judges are told"] = [judge.judge_id for judge in result.judges]
    if result and any(judge.mode == "pairwise" for judge in result.judges):  # each run has its own middle
        own = history.trials(run["id"], [0])[0]["candidate_id"]
        scoring["the answers that a judge compared with"] = (run["model"], own)
    return scoring


def _scores_by(name: str) -> bool:
    # a rubric or the task's own metric, not its program
    return name not in (*SPLITS, "task.toml") and (name == "metric.py" or not name.endswith(".py"))


# -- side by side -----------------------------------------------------------------------------------------------------


def fact_lines(a: ComparedPrompt, b: ComparedPrompt) -> Iterator[tuple[str, Any, Any]]:
    """Return the lines of a comparison as name and both values.

    Run and scores are always among them, options and versions only if they differ.
    """
    for name in ABOUT_RUN:
        yield name, a.run[name], b.run[name]
    groups = [(name, *(side.run[name] or {} for side in (a, b))) for name in ("options", "hashes", "budget")]
    for name, one, two in (*groups, ("version", *(side.run["origin"].get("versions", {}) for side in (a, b)))):
        for key in {**one, **two}:
            if name == "hashes" or one.get(key) != two.get(key):
                yield f"{name}.{key}", one.get(key), two.get(key)
    one, two = _scores(a), _scores(b)
    for key in {**one, **two}:
        yield key, one.get(key), two.get(key)


def _scores(side: ComparedPrompt) -> dict[str, Any]:
    candidate, trial, result = side.candidate, side.trial, side.result
    scores: dict[str, Any] = {"candidate": candidate["id"]}
    scores |= {name: candidate[name] for name in ("technique", "format", "role", "n_examples")}
    if trial is not None:
        names = ("number", "state", "n", "mean", "low", "high", "operator", "calls", "cached", "tokens", "cost_usd")
        return scores | {name: trial[name] for name in names}
    assert result is not None
    lift = result.lift
    return {
        **scores,
        "baseline dev": result.baseline.dev,
        "baseline test": result.baseline.test,
        "winner dev": result.winner.dev,
        "winner test": result.winner.test,
        **({} if result.is_own else {"lift": lift.diff, "lift ci95": list(lift.ci95), "lift p": lift.p_value}),
        "decision": result.decision,
        **{f"calls {role}": count for role, count in result.calls.items()},
        **{f"tokens {kind}": count for kind, count in result.tokens},
        "cost_usd": None if result.unpriced else result.cost_usd,
    }


# -- the paired test --------------------------------------------------------------------------------------------------


def scoring_difference(a: ComparedPrompt, b: ComparedPrompt) -> str:
    """Return why the scores of the two cannot be compared; "" if they can.

    Facts that the ledger knows for only one of them, as for a run without a result, are ignored.
    """
    files = {name for side in (a, b) for name in side.run["hashes"] or ()}
    differ = [
        name
        for name in {**a.scoring, **b.scoring}
        if a.scoring.get(name) != b.scoring.get(name)
        and (name in files or (a.scoring.get(name) is not None and b.scoring.get(name) is not None))
    ]
    return f"scored in different ways ({', '.join(differ)}): no paired test" if differ else ""


def paired(split: str, a: ComparedPrompt, b: ComparedPrompt) -> PairedResult | None:
    """Return the paired test of B minus A on rows with both scores.

    None without such rows, or if data or scoring differ.
    """
    from agent.stats.intervals import paired_difference  # here, as numpy would slow down every command

    if a.run["hashes"].get(split) != b.run["hashes"].get(split) or scoring_difference(a, b):
        return None
    both = _both(split, a, b)
    return paired_difference([after for _, after in both], [before for before, _ in both], 0) if both else None


def _both(split: str, a: ComparedPrompt, b: ComparedPrompt) -> list[tuple[float, float]]:
    second = b.outcomes[split]
    return [(value, second[row]) for row, value in a.outcomes[split].items() if row in second]


# -- the result -------------------------------------------------------------------------------------------------------


class ComparedFact(Result):
    """One fact of both prompts."""

    a: Any
    b: Any
    same: bool


class ComparedTexts(Result):
    """A text of both, with different words as [-old-] and {+new+}."""

    a: str
    b: str
    diff: str


class ComparedTool(Result):
    """A tool text that differs."""

    what: str
    a: str
    b: str


class ComparedExamples(Result):
    """The examples of both by row id, in their order."""

    a: tuple[str, ...]
    b: tuple[str, ...]


class CompareResult(Result):
    """Two prompts compared. `paired`: B minus A by split; `not_tested`: why there is no paired test, or ""."""

    facts: Mapping[str, ComparedFact]
    paired: Mapping[str, PairedResult]
    not_tested: str
    instruction: ComparedTexts
    examples: ComparedExamples
    tools: tuple[ComparedTool, ...] | None = absent()
    marks: Mapping[str, str] = hidden({})
    """Win/loss strips by split, for a terminal."""

    @property
    def unshared(self) -> list[str]:
        """Examples that only one of them has, a line for each side."""
        sides = (("A", self.examples.a, self.examples.b), ("B", self.examples.b, self.examples.a))
        only = ((name, [row for row in own if row not in other]) for name, own, other in sides)
        return [f"examples only in {name}: {', '.join(rows)}" for name, rows in only if rows]

    @property
    def tests(self) -> dict[str, str]:
        """The paired tests in words, by split."""
        return {
            split: f"B minus A on {test.n} {split} rows: {paired_test(test)}" for split, test in self.paired.items()
        }

    def facts_table(self, title: str = "compared", **more: Any) -> TableBlock:
        """Return what is recorded about both; `more`: other fields of `TableBlock`."""
        rows = [(name, _cell(one.a), _cell(one.b), "" if one.same else "differs") for name, one in self.facts.items()]
        same = frozenset(at for at, row in enumerate(rows) if not row[3])
        return table(title, COLUMNS, rows, quiet=same, tabbed=True, **more)

    def blocks(self) -> Iterator[Block]:
        yield self.facts_table()
        for split, test in self.tests.items():
            yield text(test)
            yield text(self.marks[split], drawn=True)
        yield text(self.not_tested)
        instruction = self.instruction
        yield DiffBlock(instruction.a, instruction.b, "== the instruction, [-A-]{+B+} ==", words=True)
        tools = (f"{each.what}: {word_diff(each.a, each.b)}" for each in self.tools or ())
        yield text(*tools, heading="== the texts of tools, [-A-]{+B+} ==")
        yield text(*self.unshared)


def compare(a: ComparedPrompt, b: ComparedPrompt) -> CompareResult:
    first, second = a.candidate, b.candidate
    tests = {split: test for split in ("test", "dev") if (test := paired(split, a, b)) is not None}
    differ = [ComparedTool(what=each.what, a=each.before, b=each.after) for each in tool_differences(first, second)]
    texts = (first["instruction"], second["instruction"])
    demos = [tuple(demo["example_id"] for demo in each["demos"]) for each in (first, second)]
    why = scoring_difference(a, b) or "no paired test: both have scores on no common row"
    return CompareResult(
        facts={name: ComparedFact(a=one, b=two, same=one == two) for name, one, two in fact_lines(a, b)},
        paired=tests,
        not_tested="" if tests else why,
        instruction=ComparedTexts(a=texts[0], b=texts[1], diff=word_diff(*texts)),
        examples=ComparedExamples(a=demos[0], b=demos[1]),
        tools=tuple(differ) or None,
        marks={split: won_and_lost(after - before for before, after in _both(split, a, b)) for split in tests},
    )


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else label_text(value)
