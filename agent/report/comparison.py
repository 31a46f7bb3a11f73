"""A comparison (`optimize customize`) as blocks: arms with their cost, label curve, training losses."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from agent.report import facts
from agent.report.blocks import ChartBlock, Column, PageSection, TableBlock, filled, table, text
from agent.report.view import RunView
from agent.results.base import Interval
from agent.results.customize import ArmSettings, ComparedArm, CustomizeResult, SeedSpread

KIND = "customize"
ARM = Column("arm", floor=8)
ARMS = (
    ARM,
    Column("what it is", "long", on="page"),
    Column("sealed test", "number"),
    Column("95 % CI", "number", rank=3),
    Column("against yours", "number", gain=True),
    Column("95 % CI", "number", rank=4),
    Column("labels", "number", rank=5),
    Column("train s", "number", rank=2),
    Column("tokens", "number", rank=6),
    Column("$/1,000", "number", rank=7),
    Column("call s", "number", rank=1),
    Column("pays from", "number", rank=2),
    Column("elsewhere", rank=8),
    Column("MB", "number", rank=9),
)
SETTINGS = (
    ARM,
    Column("rate", "number"),
    Column("rank", "number", rank=2),
    Column("epochs", "number", rank=3),
    Column("dev loss", "number"),
    Column("train s", "number", rank=4),
    Column("", rank=1),
)
SEEDS = (
    ARM,
    *(Column(name, "number") for name in ("seeds", "mean", "smallest", "largest")),
    Column("seed of the arm (95 % CI)", "number", rank=1),
)
THOUSAND, MILLION = 1_000, 1_000_000
HOUR = 3600
Unit = Literal["$", "hours", "tokens"]


def is_comparison(view: RunView) -> bool:
    """Whether a run is a comparison, finished or not."""
    return KIND in ((view.run["result"] or {}).get("kind"), (view.run["options"] or {}).get("command"))


def comparison_sections(view: RunView) -> list[PageSection]:
    """What a comparison found, and how its trainings went; of one without a result the trainings alone."""
    from agent.report import comparison_charts

    stored, lines = view.run["result"] or {}, loss_lines(view)
    sections = []
    if stored.get("kind") == KIND:
        result = CustomizeResult.from_json(stored)
        sections, arms = result_sections(result), result.arms
        draw = partial(comparison_charts.score_against_cost, arms)
        numbers = _costs(arms)
        chart = ChartBlock("cost", f"Sealed score against cost, run {view.id}", draw, numbers, on="page")
        sections.append(PageSection("cost", "Score against cost", filled(chart)))
    if lines:
        rows = [(name, len(of), f"{of[0]:.3f}", f"{of[-1]:.3f}") for name, of in lines.items()]
        numbers = table("Training loss, in nats", ("training", "steps #", "first #", "last #"), rows)
        draw = partial(comparison_charts.losses, lines)
        chart = ChartBlock("losses", f"Training loss, run {view.id}", draw, numbers, on="page")
        sections.append(PageSection("losses", "Training loss", (chart,)))
    return sections


def result_sections(result: CustomizeResult) -> list[PageSection]:
    """The sections of the result of a comparison, without its charts."""
    arms, rows, curve = result.arms, result.rows, facts.curve_table(result.curve)
    title = f"{result.task} on {result.model}: {rows.test} sealed rows, {rows.train} train rows"
    sizes = sorted({point.labels for point in result.curve})
    heads = (ARM, *(Column(f"{size:,} rows", "number", rank=1) for size in sizes))
    advice, chosen = result.text, "settings that were tried on dev"
    seeds = "sealed test with other seeds; the arm is the first, not the best"
    settings = [line for of in result.settings for line in _settings(of)]
    made = (
        ("arms", "The arms on the sealed rows", text(advice, on="page"), table(title, ARMS, map(_arm, arms))),
        (
            *("curve", "By the number of train rows"),
            table("sealed test by the number of train rows", heads, curve),
            text(result.curve_text if curve else ""),
        ),
        ("settings", "", table(chosen, SETTINGS, settings)),
        ("seeds", "", table(seeds, SEEDS, [_seeds(arm, arm.seeds) for arm in arms if arm.seeds])),
        ("elsewhere", "", _elsewhere(arms)),
        ("advice", "", text(advice, strong=True, on="screen"), text(f"Prompts of run {result.of_run}.", on="page")),
    )
    return [section for name, head, *blocks in made if (section := PageSection(name, head, filled(*blocks)))]


def _arm(arm: ComparedArm) -> list[str]:
    elsewhere, pays = arm.elsewhere, arm.break_even_calls
    return [
        arm.arm,
        arm.about,
        facts.points(arm.test),
        _interval(arm.ci95),
        "" if arm.diff is None else facts.gain(arm.diff),
        _interval(arm.diff_ci95, "+"),
        f"{arm.labels:,}",
        f"{arm.train_s:.0f}" if arm.train_s else "",
        f"{arm.tokens_per_call:.0f}",
        "-" if arm.usd_per_1000 is None else f"{arm.usd_per_1000:.2f}",
        "-" if arm.latency_s is None else f"{arm.latency_s:.2f}",
        f"{pays:,}" if pays else "",
        f"{elsewhere.same} of {elsewhere.n} as before" if elsewhere else "",
        f"{arm.megabytes:.1f}" if arm.megabytes else "",
    ]


def _interval(interval: Sequence[float] | None, sign: str = "") -> str:
    return "" if interval is None else f"{100 * interval[0]:{sign}.1f} to {100 * interval[1]:{sign}.1f}"


def _settings(line: ArmSettings) -> Iterator[list[str]]:
    for each in line.tried:
        loss = "diverged" if each.diverged else "-" if each.dev_loss is None else f"{each.dev_loss:.3f}"
        own = {"learning_rate": each.learning_rate, "rank": each.rank}
        is_chosen = all(line.chosen[name] == value for name, value in own.items() if value is not None)
        rank, last = "" if each.rank is None else str(each.rank), "chosen" if is_chosen else each.ended
        yield [line.arm, f"{each.learning_rate:g}", rank, str(each.epochs), loss, f"{each.seconds:.0f}", last]


def _seeds(arm: ComparedArm, spread: SeedSpread) -> list[str]:
    ends = [facts.points(value) for value in (spread.mean, spread.min, spread.max)]
    return [arm.arm, str(spread.n), *ends, facts.points(arm.test) + facts.bracketed(arm.ci95)]


def _elsewhere(arms: Sequence[ComparedArm]) -> TableBlock:
    """What adapters cost on questions and tasks that they were not trained for."""
    lines = [(arm.arm, found) for arm in arms if (found := arm.elsewhere) and found.tasks]
    heads = [f"{found.n} general questions" for _, found in lines[:1]]
    heads += [f"{one.task}, {one.n} rows" for _, found in lines[:1] for one in found.tasks]
    rows = []
    for name, found in lines:
        tasks = (f"{facts.points(one.on)}, was {facts.points(one.off)}" for one in found.tasks)
        rows.append((name, f"{found.right}, was {found.base_right}", *tasks))
    columns = (ARM, *(Column(head, rank=1) for head in heads))
    return table("right elsewhere with the adapter on, and off", columns, rows)


def _costs(arms: Sequence[ComparedArm]) -> TableBlock:
    rows = []
    for arm in arms:
        cells: list[str] = [arm.arm, f"{arm.train_s:.0f}"]
        for calls in (THOUSAND, MILLION):
            usd, seconds = arm.usd_per_1000, arm.latency_s
            cells.append("-" if usd is None else f"{usd * calls / THOUSAND:.2f}")
            cells.append("-" if seconds is None else f"{seconds * calls / HOUR:.1f}")
        rows.append(cells)
    heads = (f"{calls:,} calls, {unit} #" for calls in (THOUSAND, MILLION) for unit in ("$", "hours"))
    note = "Training and calls, one after the other. Lines: 95 % intervals. What costs nothing stands at the left edge."
    return table("What training and calls cost", ("arm", "training, s #", *heads), rows, explained=note)


def losses(view: RunView) -> list[dict[str, Any]]:
    """The loss of each step of each training that was done, in nats: `arm`, `labels`, `seed`, `losses`."""
    found = [
        {**{name: body[name] for name in ("arm", "labels", "losses")}, "seed": body["settings"].get("seed", 0)}
        for body in _events(view, "trained")
    ]
    return sorted(found, key=lambda one: -one["labels"])


def running_losses(view: RunView) -> dict[str, list[float]]:
    """The losses of epochs that have ended by what is trained, in the order of its start."""
    lines: dict[str, list[float]] = {}
    for body in _events(view, "training_epoch"):
        lines.setdefault(f"{body['name']}, {body['labels']} rows", []).extend(body["losses"])
    return lines


def loss_lines(view: RunView) -> dict[str, list[float]]:
    """The losses by name of a training: those of the trainings that were done or, while the run lasts, so far."""
    if view.run["result"] is None:
        return running_losses(view)
    made = losses(view)
    seeds = {one["seed"] for one in made}
    more = {one["seed"]: f", seed {one['seed']}" if len(seeds) > 1 else "" for one in made}
    return {f"{one['arm']}, {one['labels']} rows{more[one['seed']]}": one["losses"] for one in made}


def _events(view: RunView, kind: str) -> list[dict[str, Any]]:
    found = view.history.select("SELECT body FROM events WHERE run_id = ? AND kind = ? ORDER BY seq", view.id, kind)
    return [json.loads(row["body"]) for row in found]


# -- score against cost -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CostPoint:
    """Arms with one `score` in [0, 1] and one `cost` of training and calls; `family` is that of the first."""

    names: tuple[str, ...]
    family: str
    cost: float
    score: float
    ci95: tuple[float, float]


def cost_unit(arms: Sequence[ComparedArm]) -> Unit:
    """Dollars where all are known and some are above 0, else hours where calls were timed, else tokens."""
    dollars = [(arm.usd_per_1000, arm.train_usd) for arm in arms]
    if all(None not in pair for pair in dollars) and any(any(pair) for pair in dollars):
        return "$"
    return "tokens" if any(arm.latency_s is None for arm in arms) else "hours"


def cost_points(arms: Sequence[ComparedArm], calls: int) -> list[CostPoint]:
    """Score and cost of training and `calls` calls for each arm with a score; equal ones are one point."""
    unit = cost_unit(arms)
    groups: dict[tuple[float, float, Interval], list[ComparedArm]] = {}
    for arm in arms:
        if arm.test is not None and arm.ci95:
            groups.setdefault((_total(arm, unit, calls), arm.test, arm.ci95), []).append(arm)
    return [
        CostPoint(tuple(arm.arm for arm in some), some[0].family, cost, score, ci95)
        for (cost, score, ci95), some in groups.items()
    ]


def _total(arm: ComparedArm, unit: Unit, calls: int) -> float:
    if unit == "$":
        return (arm.train_usd or 0.0) + (arm.usd_per_1000 or 0.0) * calls / THOUSAND
    if unit == "hours":
        return (arm.train_s + (arm.latency_s or 0.0) * calls) / HOUR
    return arm.tokens_per_call * calls
