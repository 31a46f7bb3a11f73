"""Blocks of a run in the ledger: its trials, its proposals, what it cost and where it comes from.

A note says what is left out, and which command shows that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from agent.ledger.trail import claims
from agent.report import change_facts, facts
from agent.report.blocks import Block, ChartBlock, Column, TableBlock, short, table, text
from agent.report.facts import amount, cut, duration, points
from agent.report.importances import importances
from agent.report.terminal import whisker
from agent.report.view import RunView

BEST, LAST, WORDS = 100, 20, 100
"""Trials that a page shows of a long search, and characters of an instruction in its table."""
REJECTED = 50
AXIS = "0    dev    100"
TRIALS = (
    Column("trial"),
    Column("round", rank=10, on="screen"),
    Column("state"),
    Column("score", "number"),
    Column("95 % CI", "number", on="page"),
    Column(AXIS, rank=2, drawn=True, on="screen"),
    Column("rows", "number"),
    Column("which", on="page"),
    Column("technique", rank=1, floor=9),
    Column("format", rank=5, floor=8),
    Column("examples", "number", rank=1),
    Column("operator", rank=3, floor=11),
    Column("calls", "number", rank=7),
    Column("tokens", "number", rank=8),
    Column("$", "number", rank=9),
    Column("instruction", "long", rank=4, floor=16),
    Column("reason", "long", rank=6, floor=16),
)
PROPOSALS = (
    Column("proposal"),
    Column("asked for"),
    Column("why", "long", floor=24),
    Column("for rows", "long", rank=3, floor=8),
    Column("before", "number", rank=2),
    Column("after", "number", rank=1),
    Column("what became of it", "long", floor=12),
)
SPEND = (
    Column("role"),
    Column("model", "long", floor=12),
    Column("state"),
    Column("calls", "number"),
    Column("prompt tokens", "number"),
    Column("of them cached", "number", rank=2),
    Column("completion tokens", "number", rank=1),
    Column("$", "number"),
    Column("model time", "number", rank=3),
)
OUTCOMES = (
    Column("row"),
    Column("score", "number"),
    Column("call", rank=1),
    Column("reply", floor=16),
    Column("why", floor=16),
)
DEMOS = (Column(""), Column("row"), Column("input", floor=20), Column("output", floor=12))


def interval(low: float | None, high: float | None) -> str:
    """The ends of an interval of a score, in points."""
    return "-" if low is None or high is None else f"{points(low)} to {points(high)}"


def trial_blocks(view: RunView) -> Iterator[Block]:
    """The search on a page: progress, trials, what mattered, what was rejected."""
    if not view.trials:
        yield text("No trial yet.", on="page")
        return
    from agent.report import charts

    yield ChartBlock("progress", "Dev score against calls", partial(charts.progress, view), best(view), on="page")
    yield trials(view)
    yield mattered(view)
    rejected = view.history.rejected(view.id) if view.shows_rows else []
    lines = [f"{row['candidate_id']} {row['operator']}: {cut(row['rejected'], 300)}" for row in rejected[:REJECTED]]
    left = len(rejected) - REJECTED
    more = f"{left} more are left out; `optimize history {view.id}` lists them" if left > 0 else ""
    heading = f"{len(rejected)} candidates were rejected before they were tried"
    yield text(*lines, more, heading=heading, folded=True, on="page")


def best(view: RunView) -> TableBlock:
    """The line of the progress chart: each trial that was the best so far."""
    rows = [(f"trial {trial['number']}", trial["used"], points(trial["mean"]), trial["n"]) for trial in view.best]
    return table("The best so far, by calls made", ("best so far", "after calls #", "dev score #", "rows #"), rows)


def mattered(view: RunView) -> TableBlock:
    """What told the best candidates of the search from the others; no rows with too few trials."""
    rows = [
        (one.name, f"{one.share:.0%}", cut(one.best, WORDS), points(one.mean), one.trials) for one in importances(view)
    ]
    columns = ("parameter", "importance #", "its best choice ~", "dev score there #", "trials #")
    note = "How far the choices of the best quarter of the trials differ from those of all (PED-ANOVA): a hint only."
    return table("What mattered in the search", columns, rows, note=note, folded=True, on="page")


def trials(view: RunView, is_whole: bool = False) -> TableBlock:
    """The trials in their order; of a long search, but for `is_whole`, the best and the last ones."""
    shown = view.trials
    if len(shown) > BEST + LAST and not is_whole:
        ranked = sorted(shown, key=lambda trial: (trial["state"] == "complete", trial["mean"] or 0.0), reverse=True)
        numbers = {trial["number"] for trial in [*ranked[:BEST], *shown[-LAST:], shown[0]]}
        shown = [trial for trial in shown if trial["number"] in numbers]
    left = len(view.trials) - len(shown)
    note = f"The {BEST} best and the {LAST} last; {left:,} are left out, `optimize history {view.id}` lists all. "
    rows = [
        (
            trial["number"],
            trial["round"],
            trial["state"],
            points(trial["mean"]),
            interval(trial["low"], trial["high"]),
            whisker(trial["mean"], trial["low"], trial["high"], len(AXIS)),
            trial["n"],
            facts.which(trial, view.result, view.own),
            trial["technique"],
            trial["format"],
            trial["n_examples"],
            trial["operator"],
            f"{trial['calls'] + trial['cached']}",
            f"{trial['tokens']}",
            amount(trial["cost_usd"]),
            short(trial["instruction"], 50) if is_whole else cut(trial["instruction"], WORDS),
            short(trial["reason"], 60) if is_whole else cut(trial["reason"], WORDS),
        )
        for trial in shown
    ]
    return table(
        f"{len(view.trials):,} trials",
        TRIALS,
        rows,
        explained=f"{note * (left > 0)}Scores of pruned trials are over fewer rows: a high one can be luck.",
        folded=True,
        quiet=frozenset(at for at, trial in enumerate(shown) if trial["state"] != "complete"),
    )


def proposals(view: RunView, letters: int = 0) -> TableBlock:
    """What the proposer was asked for, why, and what became of it; cells of at most `letters`, 0: whole."""
    rows = change_facts.proposals(view.result, claims(view.history, view.id))
    cells = [tuple(short(cell, letters) if letters else cell for cell in row) for row in rows]
    note = "Points before and after, on the dev rows that both prompts saw; of a rule that was looked at first, on the "
    note += "rows that it is for and on some that were right."
    return table("What the proposer was asked for", PROPOSALS, cells, explained=note, folded=True)


def demos(of: Sequence[Mapping[str, Any]]) -> TableBlock:
    """The examples of a prompt on a screen."""
    rows = []
    for demo in of:
        inputs, outputs = (" | ".join(demo[side].values()) for side in ("inputs", "outputs"))
        rows.append((demo["position"] + 1, demo["example_id"], short(inputs, 80), short(outputs, 40)))
    return table(f"{len(rows)} examples", DEMOS, rows, on="screen")


def messages(candidate: Mapping[str, Any], heading: str = "") -> Block:
    """A prompt as it is sent, each message under its role."""
    texts = (f"[{message['role']}]\n{message['content']}" for message in candidate["template"])
    return text(*texts, heading=heading, exact=True)


def outcomes(split: str, rows: Sequence[Mapping[str, Any]]) -> TableBlock:
    """What became of each row of a split with one prompt, as `History.outcomes` gives them."""
    cells = [
        (
            *(row["example_id"], points(row["value"]), row["call_key"], short(row["reply"], 60)),
            short(row["error"] or "; ".join(reason for _, _, reason in row["scores"] if reason), 80),
        )
        for row in rows
    ]
    return table(split, OUTCOMES, cells)


# -- what it cost and where it comes from -----------------------------------------------------------------------------


def spend(view: RunView) -> TableBlock:
    """Calls, tokens, dollars and model time by role and state, and all together."""
    kinds = ("calls", "prompt_tokens", "cached_prompt_tokens", "completion_tokens")
    rows = [
        (
            *(row[name] for name in ("role", "model", "state")),
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
    note = "cached: answered from the ledger and not paid for. Model time adds up calls that ran side by side."
    return table("Calls, tokens and dollars", SPEND, rows, explained=note)


def provenance(view: RunView) -> Iterator[Block]:
    """What ran, on which data, with which versions, and the ledger's head."""
    run, head = view.run, view.head
    origin: Mapping[str, Any] = run["origin"] or {}
    rows: list[Sequence[Any]] = [
        ("run", run["id"]),
        *((name, run[name]) for name in ("task", "model")),
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
    check = "Every number here is read from the ledger. `optimize audit verify` checks that it is what was written."
    yield text(check, on="page")
    kept = [row for row in rows if row[1] not in (None, "")]
    yield table("What ran", ("what", "value ~"), kept, folded=True, on="page")
