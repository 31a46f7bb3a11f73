"""A sweep as one HTML file: matrix of test scores, gains, the best prompt for each task, and all cells.

Takes the object of `optimize sweep --json`, possibly from other machines; all texts are untrusted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.report import html, wording
from agent.report.blocks import Block, Column, PageSection, TableBlock, filled, listing, table, text
from agent.stats.figures import bracketed, chance, gain, points

OWN = "task's own"
"""Name of a model or strategy that the sweep file leaves to the task."""
SHOWN: Mapping[int, str] = {1: "yes", 0: "not shown", -1: "worse"}
"""Result of a comparison in words."""
_WORDS = 300  # characters of an instruction
Names = Mapping[str | None, str]
"""How models are shown in tables."""


def model_names(groups: Sequence[Mapping[str, Any]]) -> Names:
    """Return short model names, with addresses only where names clash."""
    models = list(dict.fromkeys(group["model"] for group in groups))
    short = {model: OWN if model is None else model.split("@")[0] for model in models}
    shared = Counter(short.values())
    return {model: name if model is None or shared[name] == 1 else model for model, name in short.items()}


def group_name(group: Mapping[str, Any], names: Names) -> str:
    """Return model and strategy of a group."""
    return f"{names[group['model']]}, {group['strategy'] or OWN}"


def best_of_task(task: Mapping[str, Any], names: Names) -> str:
    """Return which combination is best for a task, and the significant differences."""
    best = f"{task['task']}: {group_name(task['best'], names)} has the highest score, {points(task['score'])}"
    beaten, level = ([group_name(each, names) for each in task[key]] for key in ("beats", "not_shown"))
    if not beaten and not level:
        return f"{best}."
    ahead = f"It is shown to be better than {'; '.join(beaten)}." if beaten else ""
    even = f"Not shown to be better than {'; '.join(level)}." if level else ""
    return " ".join(filter(None, (f"{best}.", ahead, even)))


def sweep_html(sweep: Mapping[str, Any]) -> str:
    """Return the page of a sweep, given the object of `optimize sweep --json`."""
    groups, names, folder = sweep["groups"], model_names(sweep["groups"]), sweep["folder"]
    best: list[Block] = []
    by_place = {(group["task"], group["model"], group["strategy"]): group for group in groups}
    for task in sweep["tasks"]:
        group = by_place[task["task"], task["best"]["model"], task["best"]["strategy"]]
        design = [group["technique"], f"{group['examples']} examples", group["release"]]
        said = text(best_of_task(task, names), ", ".join(filter(None, design)))
        best += [said, text(group["instruction"], heading="Its instruction", exact=True, folded=True)]
    where = f"Each cell has its own ledger in {folder}; `optimize show --db {folder}/CELL.db` shows it."
    sections = (
        PageSection("scores", "Scores on the sealed rows", (_matrix(groups, names), groups_table(groups, names))),
        PageSection("best", "Which is best where", filled(*best, *_pairs(sweep["tasks"], names))),
        PageSection("cells", "Each cell", (text(where), _cells(sweep))),
    )
    about = f"{len(sweep['cells'])} cells · {wording.dollars(sweep['cost_usd'])}"
    return html.standalone(f"Sweep {sweep['sweep']}", "Sweep", sweep["sweep"], sections, about)


def write_page(sweep: Mapping[str, Any]) -> Path:
    """Write the page into the sweep's folder with owner-only permissions. Raises InputError."""
    path = Path(sweep["folder"]) / html.REPORT_FILE
    html.write_page(path, sweep_html(sweep))
    return path


def _matrix(groups: Sequence[Mapping[str, Any]], names: Names) -> TableBlock:
    lines: dict[tuple[str, str | None], dict[str | None, str]] = {}
    for group in groups:
        lines.setdefault((group["task"], group["strategy"]), {})[group["model"]] = _score(group)
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
    """Return one line for each task, model and strategy, averaged over seeds."""

    def tested(say: Callable[[Mapping[str, Any]], str]) -> Callable[[Mapping[str, Any]], str]:
        return lambda group: "-" if group["lift"] is None else say(group["lift"])

    return listing(
        "Gain over your prompt on the sealed rows",
        [
            (Column("task", floor=8), "task"),
            (Column("model", floor=10), lambda group: names[group["model"]]),
            (Column("strategy", rank=2), lambda group: group["strategy"] or OWN),
            (Column("seeds", "number", rank=3), lambda group: len(group["seeds"])),
            (Column("yours", "number", rank=1), lambda group: points(group["baseline"])),
            (Column("sealed test (95 % CI)", "number"), _score),
            (
                Column("lift (95 % CI)", "number", gain=True),
                tested(lambda lift: gain(lift["diff"], lift["ci95"])),
            ),
            (
                Column("p, Holm", "number", rank=4),
                tested(lambda lift: chance(lift["p_holm"]).removeprefix("p = ")),
            ),
            (Column("better"), tested(lambda lift: SHOWN[lift["shown"]])),
            (Column("promoted", "number", on="page"), lambda group: f"{group['promoted']} of {len(group['seeds'])}"),
            (Column("$", "number", rank=5), lambda group: wording.amount(group["cost_usd"])),
        ],
        groups,
        explained="p-values are corrected for all lines of this table (Holm). The intervals are of each line alone.",
    )


def _score(group: Mapping[str, Any]) -> str:
    return points(group["score"]) + bracketed(group["ci95"])


def _pairs(tasks: Sequence[Mapping[str, Any]], names: Names) -> list[TableBlock]:
    columns: Any = [
        ("one", lambda pair: group_name(pair["one"], names)),
        ("other", lambda pair: group_name(pair["other"], names)),
        ("difference (95 % CI) #", lambda pair: gain(pair["diff"], pair["ci95"])),
        ("p, corrected #", lambda pair: chance(pair["p_holm"])),
        ("shown", lambda pair: "yes" if pair["shown"] else "no"),
    ]
    note = "Paired by sealed row. p-values are corrected for all lines of this table (Holm); the intervals are not."
    return [listing(task["task"], columns, task["pairs"], explained=note) for task in tasks if task["pairs"]]


def _cells(sweep: Mapping[str, Any]) -> TableBlock:
    def state(cell: Mapping[str, Any]) -> str:
        return f"{cell['state']}{': ' if cell['error'] else ''}{wording.cut(cell['error'], _WORDS)}"

    return listing(
        "Cells",
        [
            ("cell", "cell"),
            ("state", state),
            ("run", lambda cell: cell["run_id"] or "-"),
            ("your prompt #", lambda cell: points(cell["baseline"])),
            ("best found #", lambda cell: points(cell["score"])),
            ("US $ #", lambda cell: wording.amount(cell["cost_usd"]) if cell["run_id"] else "-"),
        ],
        sweep["cells"],
    )
