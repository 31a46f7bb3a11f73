"""The tables of a run's report as cells of plain text. Pure but for the view.

Each takes a run, and where it is about the result, a run with one. Its note says what is left out, and which command
shows that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from agent.ledger.trail import claims
from agent.release.result import RunResult
from agent.release.result_details import LabelReport
from agent.report import change_facts, facts
from agent.report.answer_facts import label_rows
from agent.report.facts import amount, bracketed, carried, cut, duration, gain, points
from agent.report.importances import importances
from agent.report.view import RunView

BEST, LAST, WORDS = 100, 20, 100
"""Trials that are shown of a long search, and characters of an instruction in a table."""


@dataclass(frozen=True, slots=True)
class RunColumn:
    """A column's head, and how its cells are set: numbers to the right, long texts wrapped."""

    name: str
    look: Literal["", "number", "long"] = ""


@dataclass(frozen=True, slots=True)
class RunTable:
    """The first cell of a row is its head. `note`: what a reader must know besides, "" for nothing."""

    caption: str
    columns: tuple[RunColumn, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def _table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], note: str = "") -> RunTable:
    """A column whose name ends in " #" holds numbers, in " ~" sentences; None is an empty cell."""
    looks: Mapping[str, Literal["number", "long"]] = {" #": "number", " ~": "long"}
    made = tuple(RunColumn(name[:-2], looks[name[-2:]]) if name[-2:] in looks else RunColumn(name) for name in columns)
    cells = tuple(tuple("" if cell is None else str(cell) for cell in row) for row in rows)
    return RunTable(caption, made, cells, note)


def _interval(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"{points(low)} to {points(high)}"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}." if text else ""


# -- the result -------------------------------------------------------------------------------------------------------


def scores(view: RunView) -> RunTable:
    """Baseline and winner on dev and on the sealed test, and the paired difference. Needs a result."""
    assert view.result is not None
    rows: list[Sequence[Any]] = []
    for side, name in facts.sides(view.result):
        sealed = view.sealed.get(side)
        interval = _interval(*sealed[1:]) if sealed else "-"
        rows.append(
            (name, points(facts.sealed_score(view.result, side)), interval, *map(points, view.result.dev(side)))
        )
    columns = ("prompt", "sealed test #", "95 % CI #", "dev #", "dev, corrected #")
    if view.result.is_own:
        return _table("Scores, 0 to 100", columns[:-1], [row[:-1] for row in rows])
    lift = view.result.lift
    rows.append(("difference", gain(lift.diff), facts.gain_interval(lift.ci95), "", ""))
    counts = f"{facts.tally(lift.wins, lift.losses, lift.ties)} of {lift.n} sealed rows"
    corrected = "corrected takes that out on average, give or take 6 to 10 points"
    note = f"Dev scores chose the prompt, so they flatter it; {facts.uncorrected(view.result) or corrected}. "
    note += (
        f"Only the sealed test counts.{''.join(f' {_sentence(line)}' for line in [facts.cheaper(view.result)] if line)}"
    )
    return _table("Scores, 0 to 100", columns, rows, f"{counts}; {facts.chance(lift.p_value)}. {note}")


def yardsticks(result: RunResult) -> RunTable:
    """The methods without a language model on dev and on the sealed test."""
    rows = [(name, test, dev) for name, dev, test in facts.yardsticks(result)]
    trained = f", trained on {result.yardsticks[-1].trained_on} rows" if rows else ""
    note = _sentence(facts.against_yardsticks(result))
    return _table(f"Without a language model{trained}", ("method", "sealed test (95 % CI) #", "dev #"), rows, note)


def metrics(result: RunResult) -> RunTable:
    """Each metric on the sealed test, for both prompts and as a difference."""
    rows, sides = [], facts.sides(result)
    for row in facts.metric_parts(result):
        means = [f"{points(row.side(side).mean)}{bracketed(row.side(side).ci95)}" for side, _ in sides]
        weight = f"{row.weight:.2f}" if row.weight else ""
        difference = [gain(row.diff, row.diff_ci95)] * (len(sides) > 1)
        unscored = ", ".join(str(row.side(side).unscored) for side, _ in sides)
        rows.append((facts.metric_name(row), weight, *means, *difference, unscored))
    columns = ["metric", "weight #", *(f"{name} (95 % CI) #" for _, name in sides)]
    columns += ["difference (95 % CI) #"] * (len(sides) > 1)
    readable = "readable: replies that could be read and kept the limits of their fields."
    return _table("By metric, on the sealed test", (*columns, "unscored #"), rows, readable)


def slices(result: RunResult) -> list[RunTable]:
    """A table for each slice: its groups on the sealed test, for both prompts and as a difference."""
    tables, sides = [], facts.sides(result)
    is_compared = len(sides) > 1
    for one in result.slices:
        rows = []
        for group in one.groups:
            means = [f"{points(group.side(side).mean)}{bracketed(group.side(side).ci95)}" for side, _ in sides]
            difference = [gain(group.diff, group.diff_ci95)] * is_compared
            rows.append((group.value, group.winner.n, *means, *difference))
        columns = (one.slice, "rows #", *(f"{name} (95 % CI) #" for _, name in sides))
        note = _sentence(facts.gaps(result, one))
        tables.append(_table(f"By {one.slice}", (*columns, *["difference (95 % CI) #"] * is_compared), rows, note))
    return tables


def labels(result: RunResult, report: LabelReport) -> RunTable:
    """Precision, recall and support of each label of a field, for both prompts."""
    rows, sides = [], facts.sides(result)
    for own, best in label_rows(report):
        each = (own,) if result.is_own else (own, best)
        rows.append((best.label, best.support, *(points(o.precision) for o in each), *(points(o.recall) for o in each)))
    heads = [f"{what}, {name} #" for what in ("precision", "recall") for _, name in sides]
    note = "Precision: of the rows that were answered with the label, those where it is right. Recall: of the rows "
    note += "whose right answer it is, those that were answered with it."
    return _table(f"By label of {report.field}, on the sealed test", ("label", "rows #", *heads), rows, note)


def attribution(view: RunView) -> RunTable:
    """The gain of each part of the best found, in points."""
    assert view.result is not None
    rows = [(row.part, *carried(row)) for row in view.result.attribution]
    columns = ("part", "points #", "95 % CI #", "how it is known")
    note = f"Points that are lost with {view.own.phrase}'s part in its place."
    return _table("What carried the gain", columns, rows, note)


def pareto(view: RunView) -> RunTable:
    """The prompts that no other beats in dev score, prompt length and cost at once."""
    assert view.result is not None
    rows = []
    numbers = {trial["candidate_id"]: trial["number"] for trial in view.trials}
    size_name, sizes = facts.sizes(view.result.pareto)
    for row, size in zip(view.result.pareto, sizes, strict=True):
        number = numbers.get(row.candidate_id)
        name = f"trial {number}" if number is not None else row.candidate_id
        own = f", {view.own.name}" * (number == 0)
        cells = (points(row.dev), f"{size:,}", amount(row.usd_per_1000), facts.latency(row.latency_s))
        rows.append((name + own, "yes" if row.chosen else "", *cells))
    columns = ("prompt", "chosen", "dev #", f"{size_name} #", "$ per 1,000 calls #", "latency #")
    return _table("The Pareto front: nothing beats these in score, prompt length and cost", columns, rows)


def reliability(view: RunView) -> RunTable:
    """How often the best found is right, by its confidence; no rows without log-probabilities."""
    assert view.result is not None
    found = view.result.calibration
    bins = found.bins if found else ()
    rows = [(_interval(one.low, one.high), one.n, points(one.confidence), points(one.right)) for one in bins]
    columns = ("confidence", "rows #", "mean confidence #", "right #")
    note = " ".join(_sentence(line) for line in facts.confidence(view.result))
    return _table("Right answers by confidence, on the sealed test, 0 to 100", columns, rows, note)


def judges(result: RunResult) -> RunTable:
    """The judges behind the score, and whether each is to be trusted."""
    rows = [
        (", ".join(judge.models), judge.metric, judge.mode, facts.judge_trust(judge), facts.judge_order(judge))
        for judge in result.judges
    ]
    columns = ("judge", "metric", "mode", "trust ~", "order ~")
    return _table("The judges that the score rests on", columns, rows)


# -- the search -------------------------------------------------------------------------------------------------------


def best(view: RunView) -> RunTable:
    """The line of the progress chart: each trial that was the best so far."""
    rows = [(f"trial {trial['number']}", trial["used"], points(trial["mean"]), trial["n"]) for trial in view.best]
    columns = ("best so far", "after calls #", "dev score #", "rows #")
    return _table("The best so far, by calls made", columns, rows)


def mattered(view: RunView) -> RunTable:
    """What told the best candidates of the search from the others; no rows with too few trials."""
    rows = [
        (one.name, f"{one.share:.0%}", facts.cut(one.best, WORDS), points(one.mean), one.trials)
        for one in importances(view)
    ]
    columns = ("parameter", "importance #", "its best choice ~", "dev score there #", "trials #")
    note = (
        "How far the choices of the best quarter of the trials differ from those of all (PED-ANOVA): a hint, no proof."
    )
    return _table("What mattered in the search", columns, rows, note)


def trials(view: RunView) -> RunTable:
    """Every trial, or of a long search the best and the last ones, in their order."""
    shown = view.trials
    if len(shown) > BEST + LAST:
        ranked = sorted(shown, key=lambda trial: (trial["state"] == "complete", trial["mean"] or 0.0), reverse=True)
        numbers = {trial["number"] for trial in [*ranked[:BEST], *shown[-LAST:], shown[0]]}
        shown = [trial for trial in shown if trial["number"] in numbers]
    left = len(view.trials) - len(shown)
    note = f"The {BEST} best and the {LAST} last; {left:,} are left out, `optimize history {view.id}` lists all."
    columns = ["trial", "state", "dev score #", "95 % CI #", "rows #", "which", "design ~", "made by"]
    columns += ["calls #", "tokens #", "$ #", "instruction ~", "why it ended ~"]
    rows = [
        (
            trial["number"],
            trial["state"],
            points(trial["mean"]),
            _interval(trial["low"], trial["high"]),
            trial["n"],
            facts.which(trial, view.result, view.own),
            facts.design(trial["technique"], trial["format"], trial["n_demos"]),
            trial["operator"],
            f"{trial['calls'] + trial['cached']:,}",
            f"{trial['tokens']:,}",
            amount(trial["cost_usd"]),
            cut(trial["instruction"], WORDS),
            cut(trial["reason"], WORDS),
        )
        for trial in shown
    ]
    return _table(f"{len(view.trials):,} trials", columns, rows, note * (left > 0))


# -- what it cost and where it comes from -----------------------------------------------------------------------------


def spend(view: RunView) -> RunTable:
    """Calls, tokens, dollars and model time by role and state, and all together."""
    kinds = ("calls", "prompt_tokens", "cached_prompt_tokens", "completion_tokens")
    rows = [
        (
            row["role"],
            row["model"],
            row["state"],
            *(f"{row[kind] or 0:,}" for kind in kinds),
            amount(row["cost_usd"]),
            duration(row["seconds"]),
        )
        for row in view.costs
    ]
    sums = [f"{sum(row[kind] or 0 for row in view.costs):,}" for kind in kinds]
    paid = [row["cost_usd"] for row in view.costs]
    usd = None if None in paid else sum(paid)
    rows.append(("all", "", "", *sums, amount(usd), duration(sum(row["seconds"] or 0 for row in view.costs))))
    columns = (
        "role",
        "model ~",
        "state",
        "calls #",
        "prompt tokens #",
        "of them cached #",
        "completion tokens #",
        "$ #",
    )
    note = "cached: answered from the ledger and not paid for. Model time adds up calls that ran side by side."
    return _table("Calls, tokens and dollars", (*columns, "model time #"), rows, note)


def provenance(view: RunView) -> RunTable:
    """What ran, on which data, with which versions, and the ledger's head."""
    run, head = view.run, view.head
    origin: Mapping[str, Any] = run["origin"] or {}
    rows: list[Sequence[Any]] = [
        ("run", run["id"]),
        ("task", run["task"]),
        ("model", run["model"]),
        ("proposer", run["proposer"] or "none"),
        ("seed", run["seed"]),
        ("started", f"{run['started_utc'][:19]} UTC"),
        ("ended", f"{run['ended_utc'][:19]} UTC" if run["ended_utc"] else "-"),
        ("by", " on ".join(filter(None, (origin.get("user"), origin.get("host"))))),
        ("command", " ".join(["optimize", *(origin.get("argv") or [])[1:]])),
        ("platform", origin.get("platform")),
        ("commit", origin.get("git")),
        ("prices", run["prices"]),
        *((f"tag {key}", value) for key, value in (run["tags"] or {}).items()),
        *((f"SHA-256 of {name}", digest) for name, digest in (run["hashes"] or {}).items()),
        ("promptassay", run["tool"]),
        ("python", run["python"]),
        ("sqlite", run["sqlite"]),
        *((origin.get("versions") or {}).items()),
        ("ledger head of the result", view.result.ledger_head if view.result else None),
        ("ledger head now", f"{head['hash']} (event {head['seq']:,})"),
    ]
    return _table("What ran", ("what", "value ~"), [row for row in rows if row[1] not in (None, "")])


def proposals(view: RunView) -> RunTable | None:
    """What the proposer was asked for, why, and what became of it; None where nothing is known of it."""
    rows = change_facts.proposals(view.result, claims(view.history, view.id))
    number, operator, why, of_rows, before, after, became = change_facts.PROPOSALS
    columns = (number, operator, f"{why} ~", f"{of_rows} ~", f"{before} #", f"{after} #", f"{became} ~")
    note = (
        "Points before and after, on the dev rows that both prompts saw; of a rule that was looked at first, on the "
        "rows that it is for and on some that were right."
    )
    return _table("Proposals", columns, rows, note) if rows else None
