"""A sweep as one HTML file: the matrix of sealed scores, gains, which prompt is best for which task, and each cell.

Takes the object of `optimize sweep --json`, which other files make; all of its texts are untrusted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.errors import InputError
from agent.files import new_file
from agent.report import facts
from agent.report.blocks import Column, TableBlock, table
from agent.report.html import REPORT_FILE, render, style

OWN = "task's own"
"""Stands for a model or strategy that the file does not name."""
SHOWN: Mapping[int, str] = {1: "yes", 0: "not shown", -1: "worse"}
"""Whether a difference is shown, in words."""
_WORDS = 300  # characters of an instruction


GROUPS = (
    Column("task", floor=8),
    Column("model", floor=10),
    Column("strategy", rank=2),
    Column("seeds", "number", rank=3),
    Column("yours", "number", rank=1),
    Column("sealed test (95 % CI)", "number"),
    Column("lift (95 % CI)", "number", gain=True),
    Column("p, Holm", "number", rank=4),
    Column("better"),
    Column("promoted", "number", on="page"),
    Column("$", "number", rank=5),
)
Names = Mapping[str | None, str]
"""How models are shown in tables."""


def model_names(groups: Sequence[Mapping[str, Any]]) -> Names:
    """The models of groups without their addresses, but for those that only the address tells apart."""
    models = list(dict.fromkeys(group["model"] for group in groups))
    short = {model: OWN if model is None else model.split("@")[0] for model in models}
    shared = Counter(short.values())
    return {model: name if model is None or shared[name] == 1 else model for model, name in short.items()}


def group_name(group: Mapping[str, Any], names: Names) -> str:
    """Model and strategy of a group."""
    return f"{names[group['model']]}, {group['strategy'] or OWN}"


def best_of_task(task: Mapping[str, Any], names: Names) -> str:
    """Which combination is best for a task, and what is shown of it, in a sentence or two."""
    best = f"{task['task']}: {group_name(task['best'], names)} has the highest score, {facts.points(task['score'])}"
    beaten, level = ([group_name(each, names) for each in task[key]] for key in ("beats", "not_shown"))
    if not beaten and not level:
        return f"{best}."
    ahead = f"It is shown to be better than {'; '.join(beaten)}." if beaten else ""
    even = f"Not shown to be better than {'; '.join(level)}." if level else ""
    return " ".join(filter(None, (f"{best}.", ahead, even)))


def sweep_html(sweep: Mapping[str, Any]) -> str:
    """The page of a sweep, from the object of `optimize sweep --json`."""
    groups, names = sweep["groups"], model_names(sweep["groups"])
    best = [(best_of_task(task, names), _prompt_of(task, groups)) for task in sweep["tasks"]]
    tables = (_matrix(groups, names), groups_table(groups, names))
    return render(
        "sweep.html",
        sweep=sweep,
        best=best,
        tables=tables,
        pairs=_pairs(sweep["tasks"], names),
        cells=_cells(sweep),
        style=style(),
    )


def write_page(sweep: Mapping[str, Any]) -> Path:
    """Writes the page into the sweep's folder, for its owner only. Raises InputError where the disk refuses."""
    path = Path(sweep["folder"]) / REPORT_FILE
    try:
        with new_file(path, private=True) as file:
            file.write(sweep_html(sweep).encode("utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}); make room") from error
    return path


def _prompt_of(task: Mapping[str, Any], groups: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    return next(
        group
        for group in groups
        if group["task"] == task["task"] and all(group[key] == task["best"][key] for key in ("model", "strategy"))
    )


def _matrix(groups: Sequence[Mapping[str, Any]], names: Names) -> TableBlock:
    lines: dict[tuple[str, str | None], dict[str | None, str]] = {}
    for group in groups:
        cell = facts.points(group["score"]) + facts.bracketed(group["ci95"])
        lines.setdefault((group["task"], group["strategy"]), {})[group["model"]] = cell
    rows = [
        (f"{task}, {strategy or OWN}", *(line.get(m, "-") for m in names)) for (task, strategy), line in lines.items()
    ]
    return table(
        "Score of the best found on the sealed rows, 0 to 100 (95 % CI)",
        ("task, strategy", *(f"{name} #" for name in names.values())),
        rows,
        explained="Over the seeds: each row counts with its mean.",
    )


def groups_table(groups: Sequence[Mapping[str, Any]], names: Names) -> TableBlock:
    """A line for each task, model and strategy, over its seeds."""
    rows = []
    for group in groups:
        lift = group["lift"]
        tested = ("-", "-", "-")
        if lift is not None:
            gained = facts.gain(lift["diff"], lift["ci95"])
            tested = (gained, facts.chance(lift["p_holm"]).removeprefix("p = "), SHOWN[lift["shown"]])
        rows.append(
            (
                group["task"],
                names[group["model"]],
                group["strategy"] or OWN,
                len(group["seeds"]),
                facts.points(group["baseline"]),
                facts.points(group["score"]) + facts.bracketed(group["ci95"]),
                *tested,
                f"{group['promoted']} of {len(group['seeds'])}",
                facts.amount(group["cost_usd"]),
            )
        )
    note = "p-values are corrected for all lines of this table (Holm). The intervals are of each line alone."
    return table("Gain over your prompt on the sealed rows", GROUPS, rows, explained=note)


def _pairs(tasks: Sequence[Mapping[str, Any]], names: Names) -> list[TableBlock]:
    return [
        table(
            task["task"],
            ("one", "other", "difference (95 % CI) #", "p, corrected #", "shown"),
            [
                (
                    group_name(pair["one"], names),
                    group_name(pair["other"], names),
                    facts.gain(pair["diff"], pair["ci95"]),
                    facts.chance(pair["p_holm"]),
                    "yes" if pair["shown"] else "no",
                )
                for pair in task["pairs"]
            ],
            explained="Paired by sealed row; corrected for all lines of this table (Holm).",
        )
        for task in tasks
        if task["pairs"]
    ]


def _cells(sweep: Mapping[str, Any]) -> TableBlock:
    rows = [
        (
            cell["cell"],
            f"{cell['state']}{': ' if cell['error'] else ''}{facts.cut(cell['error'], _WORDS)}",
            cell["run_id"] or "-",
            facts.points(cell["baseline"]),
            facts.points(cell["score"]),
            facts.amount(cell["cost_usd"]) if cell["run_id"] else "-",
        )
        for cell in sweep["cells"]
    ]
    return table("Cells", ("cell", "state", "run", "your prompt #", "best found #", "US $ #"), rows)
