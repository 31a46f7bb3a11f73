"""The result of `optimize customize` as blocks: arms with their cost, learning curve, training losses."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from agent.report import charts
from agent.report.blocks import ChartBlock, Column, PageSection, TableBlock, filled, listing, table, text
from agent.report.view import RunView
from agent.results.customize import ArmSettings, ComparedArm, CustomizeResult, SettingsTried
from agent.stats.figures import bracketed, gain, gain_interval, interval, points

KIND = "customize"
ARM = Column("arm", floor=8)
TRAINING = ("arm", "labels", "losses")


def is_comparison(view: RunView) -> bool:
    """Return whether a run is a comparison, finished or not."""
    return KIND in ((view.run["result"] or {}).get("kind"), (view.run["options"] or {}).get("command"))


def comparison_sections(view: RunView) -> list[PageSection]:
    """Return the sections of a comparison and its trainings; without a result the trainings alone."""
    stored, lines = view.run["result"] or {}, loss_lines(view)
    sections = []
    if stored.get("kind") == KIND:
        result = CustomizeResult.from_json(stored)
        draw = partial(charts.score_against_cost, result.arms)
        chart = ChartBlock("cost", f"Sealed score against cost, run {view.id}", draw, _costs(result.arms), on="page")
        sections = [*result_sections(result), PageSection("cost", "Score against cost", filled(chart))]
    if lines:
        rows = [(name, len(of), f"{of[0]:.3f}", f"{of[-1]:.3f}") for name, of in lines.items()]
        numbers = table("Training loss, in nats", ("training", "steps #", "first #", "last #"), rows)
        draw = partial(charts.losses, lines)
        chart = ChartBlock("losses", f"Training loss, run {view.id}", draw, numbers, on="page")
        sections.append(PageSection("losses", "Training loss", (chart,)))
    return sections


def result_sections(result: CustomizeResult) -> list[PageSection]:
    """Return the sections of a comparison's result, without charts."""
    arms, rows = result.arms, result.rows
    title = f"{result.task} on {result.model}: {rows.test} sealed rows, {rows.train} train rows"
    scores = {(point.arm, point.labels): point.test for point in result.curve}
    sizes, learners = sorted({labels for _, labels in scores}), dict.fromkeys(arm for arm, _ in scores)
    heads = (ARM, *(Column(f"{size:,} rows", "number", rank=1) for size in sizes))
    curve = [(arm, *(points(scores[arm, size]) if (arm, size) in scores else "" for size in sizes)) for arm in learners]
    advice = result.text
    made = (
        ("arms", "The arms on the sealed rows", text(advice, on="page"), _arms(title, arms)),
        (
            *("curve", "By the number of train rows"),
            table("sealed test by the number of train rows", heads, curve),
            text(result.curve_text if curve else ""),
        ),
        ("settings", "", _settings(result.settings)),
        ("seeds", "", _seeds(arms)),
        ("elsewhere", "", _elsewhere(arms)),
        ("advice", "", text(advice, strong=True, on="screen"), text(f"Prompts of run {result.of_run}.", on="page")),
    )
    return [section for name, head, *blocks in made if (section := PageSection(name, head, filled(*blocks)))]


def _arms(title: str, arms: Sequence[ComparedArm]) -> TableBlock:
    def elsewhere(arm: ComparedArm) -> str:
        return f"{arm.elsewhere.same} of {arm.elsewhere.n} as before" if arm.elsewhere else ""

    return listing(
        title,
        [
            (ARM, lambda arm: arm.arm),
            (Column("what it is", "long", on="page"), lambda arm: arm.about),
            ("sealed test #", lambda arm: points(arm.test)),
            (Column("95 % CI", "number", rank=3), lambda arm: interval(*arm.ci95) if arm.ci95 else ""),
            (
                Column("against yours", "number", gain=True),
                lambda arm: "" if arm.diff is None else gain(arm.diff),
            ),
            (
                Column("95 % CI", "number", rank=4),
                lambda arm: gain_interval(arm.diff_ci95) if arm.diff_ci95 else "",
            ),
            (Column("labels", "number", rank=5), lambda arm: f"{arm.labels:,}"),
            (Column("train s", "number", rank=2), lambda arm: f"{arm.train_s:.0f}" if arm.train_s else ""),
            (Column("tokens", "number", rank=6), lambda arm: f"{arm.tokens_per_call:.0f}"),
            (Column("$/1,000", "number", rank=7), lambda arm: _known(arm.usd_per_1000)),
            (Column("call s", "number", rank=1), lambda arm: _known(arm.latency_s)),
            (
                Column("pays from", "number", rank=2),
                lambda arm: f"{arm.break_even_calls:,}" if arm.break_even_calls else "",
            ),
            (Column("elsewhere", rank=8), elsewhere),
            (Column("MB", "number", rank=9), lambda arm: f"{arm.megabytes:.1f}" if arm.megabytes else ""),
        ],
        arms,
    )


def _known(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _settings(settings: Sequence[ArmSettings]) -> TableBlock:
    def ended(line: ArmSettings, tried: SettingsTried) -> str:
        own = {"learning_rate": tried.learning_rate, "rank": tried.rank}
        is_chosen = all(line.chosen[name] == value for name, value in own.items() if value is not None)
        return "chosen" if is_chosen else tried.ended

    return listing(
        "settings that were tried on dev",
        [
            (ARM, lambda pair: pair[0].arm),
            (Column("rate", "number"), lambda pair: f"{pair[1].learning_rate:g}"),
            (Column("rank", "number", rank=2), lambda pair: pair[1].rank),
            (Column("epochs", "number", rank=3), lambda pair: pair[1].epochs),
            (Column("dev loss", "number"), lambda pair: _known(pair[1].dev_loss, 3)),
            (Column("train s", "number", rank=4), lambda pair: f"{pair[1].seconds:.0f}"),
            (Column("", rank=1), lambda pair: ended(*pair)),
        ],
        [(line, tried) for line in settings for tried in line.tried],
    )


def _seeds(arms: Sequence[ComparedArm]) -> TableBlock:
    return listing(
        "sealed test with other seeds; the arm is the first, not the best",
        [
            (ARM, lambda arm: arm.arm),
            (Column("seeds", "number"), lambda arm: arm.seeds.n),
            *(
                (Column(name, "number"), lambda arm, key=key: points(getattr(arm.seeds, key)))
                for name, key in (("mean", "mean"), ("smallest", "min"), ("largest", "max"))
            ),
            (
                Column("seed of the arm (95 % CI)", "number", rank=1),
                lambda arm: points(arm.test) + bracketed(arm.ci95),
            ),
        ],
        [arm for arm in arms if arm.seeds],
    )


def _elsewhere(arms: Sequence[ComparedArm]) -> TableBlock:
    lines = [(arm.arm, found) for arm in arms if (found := arm.elsewhere) and found.tasks]
    heads = [f"{found.n} general questions" for _, found in lines[:1]]
    heads += [f"{one.task}, {one.n} rows" for _, found in lines[:1] for one in found.tasks]
    rows = []
    for name, found in lines:
        tasks = (f"{points(one.on)}, was {points(one.off)}" for one in found.tasks)
        rows.append((name, f"{found.right}, was {found.base_right}", *tasks))
    columns = (ARM, *(Column(head, rank=1) for head in heads))
    return table("forgetting: right answers to other questions with the adapter, and without", columns, rows)


def _costs(arms: Sequence[ComparedArm]) -> TableBlock:
    rows = []
    for arm in arms:
        cells: list[str] = [arm.arm, f"{arm.train_s:.0f}"]
        for calls in (charts.THOUSAND, charts.MILLION):
            usd, seconds = arm.usd_per_1000, arm.latency_s
            cells.append(_known(None if usd is None else usd * calls / charts.THOUSAND))
            cells.append(_known(None if seconds is None else seconds * calls / charts.HOUR, 1))
        rows.append(cells)
    heads = (f"{calls:,} calls, {unit} #" for calls in (charts.THOUSAND, charts.MILLION) for unit in ("$", "hours"))
    note = "Cost of training plus calls. Lines: 95 % intervals. Methods without cost are at the left edge."
    return table("What training and calls cost", ("arm", "training, s #", *heads), rows, explained=note)


def losses(view: RunView) -> list[dict[str, Any]]:
    """Return the losses of each finished training by step, in nats: `arm`, `labels`, `seed`, `losses`."""
    made = [event["body"] for event in view.history.facts("trained", run_ids=[view.id])]
    found = [{**{name: body[name] for name in TRAINING}, "seed": body["settings"].get("seed", 0)} for body in made]
    return sorted(found, key=lambda one: -one["labels"])


def running_losses(view: RunView) -> dict[str, list[float]]:
    """Return the losses of finished epochs by training, in the order of their start."""
    lines: dict[str, list[float]] = {}
    for event in view.history.facts("training_epoch", run_ids=[view.id]):
        body = event["body"]
        lines.setdefault(f"{body['name']}, {body['labels']} rows", []).extend(body["losses"])
    return lines


def loss_lines(view: RunView) -> dict[str, list[float]]:
    """Return the losses by training: finished ones or, while the run lasts, those so far."""
    if view.run["result"] is None:
        return running_losses(view)
    made = losses(view)
    is_many = len({one["seed"] for one in made}) > 1
    return {
        f"{one['arm']}, {one['labels']} rows{', seed ' + str(one['seed']) if is_many else ''}": one["losses"]
        for one in made
    }
