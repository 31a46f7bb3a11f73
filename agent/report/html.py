"""One run as one HTML file that opens anywhere: no script, no request to any host; and the templates of all pages.

The only importer of jinja2: templates lie in templates/ and are never a prompt or a task; all that is printed is
escaped, and control characters become visible marks. Words come from `facts`, numbers from `run_tables`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import InputError
from agent.files import new_file
from agent.ledger.query import run_folder
from agent.prompt.render import label_text
from agent.report import compare, facts, run_tables, terms
from agent.report.comparison import comparison
from agent.report.run_details import run_details
from agent.report.run_tables import RunTable
from agent.report.tool_facts import compared_texts, whole_prompt
from agent.report.view import EQUAL, RowPair, RunView

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

FOLDER = files("agent.report")
REPORT_FILE = "report.html"
FLIPS, DEMOS = 50, 40
"""Rows shown of those that got better and of those that got worse; demos shown."""
PROMPT_LETTERS = 12_000
"""Characters of a prompt that are compared and shown."""


# -- templates --------------------------------------------------------------------------------------------------------


def visible(value: Any) -> Any:
    """`marked` text; anything but text, and markup, as it is."""
    from markupsafe import Markup

    return value if not isinstance(value, str) or isinstance(value, Markup) else marked(value)


class _Marks(dict[int, int | str]):
    """For `str.translate`: each control or invisible character as a mark."""

    def __missing__(self, code: int) -> int | str:
        is_shown = chr(code) in "\n\t" or chr(code).isprintable()
        self[code] = mark = code if is_shown else f"\\x{code:02x}"
        return mark


_MARKS = _Marks()


def marked(text: str) -> str:
    """A text, or a whole page, with its control and invisible characters as marks such as \\x1b."""
    return text.translate(_MARKS)


@cache
def environment() -> Environment:
    """The templates, with escaping on for all of them; an unknown name in one is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("agent.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shared = (facts.dollars, facts.points, facts.gain, facts.duration, facts.chance, facts.cut, whole_prompt)
    made.filters |= {filter_.__name__: filter_ for filter_ in shared} | {"text": label_text, "term": explained}
    made.filters["meaning"] = terms.meaning_of
    made.globals["legend"] = terms.legend
    return made


def explained(text: str) -> Markup | str:
    """A word of `terms` with its meaning as its title; any other text as it is, to be escaped where it is printed."""
    from markupsafe import Markup

    meaning = terms.meaning_of(text)
    return Markup('<abbr title="{}">{}</abbr>').format(meaning, text) if meaning else text


def style() -> Markup:
    """The style sheet of all pages, ready to stand in a <style>."""
    from markupsafe import Markup

    return Markup((FOLDER / "static" / "page.css").read_text("utf-8"))


def render(template: str, **values: Any) -> str:
    """The text of a template of templates/ with these values."""
    return environment().get_template(template).render(**values)


# -- the report -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart as SVG, and the table with its numbers."""

    svg: Markup
    table: RunTable


@dataclass(frozen=True, slots=True)
class Flips:
    """Rows whose score differs between the two prompts, the largest change first; `total` counts all of them."""

    title: str
    rows: Sequence[RowPair]
    total: int


def report_html(view: RunView) -> str:
    """The report of a search, finished or not, or of a comparison. Raises InputError for a run of another kind."""
    if (compared := comparison(view)) is not None:
        return _comparison_html(view, compared)
    return render("report.html", **report_values(view), style=style())


def report_values(view: RunView) -> dict[str, Any]:
    """What report_body.html needs of a search. Raises InputError for a run of another kind."""
    if kind := (view.run["result"] or {}).get("kind"):
        what = str(kind).replace("_", " ")
        raise InputError(f"{view.id}: this run is no search ({what}); `optimize show {view.id}` shows what it found")
    result = view.result
    return {
        "view": view,
        "run": view.run,
        "result": result,
        "is_erased": result is None and view.run["result_hash"] is not None,
        "is_own": True,
        "own_letters": PROMPT_LETTERS,
        "facts": facts,
        "progress": _chart("progress", view, "Dev score against calls", run_tables.best),
        "trials": run_tables.trials(view),
        "mattered": run_tables.mattered(view),
        "rejected": view.history.rejected(view.id),
        "spend": run_tables.spend(view),
        "provenance": run_tables.provenance(view),
        **({} if result is None else _of_result(view)),
    }


def write_report(view: RunView, output: Path | None) -> tuple[Path, int]:
    """Writes the report of a run to a file that only this user can read.

    Args:
        view: the run.
        output: the file, or a folder for it. None: report.html in the folder of the run.

    Returns:
        The file, and its size in bytes.

    Raises:
        InputError: the run is of another kind, or the disk refuses.
    """
    path = output or run_folder(view.history.path.parent, view.id) / REPORT_FILE
    if path.is_dir():
        path = path / REPORT_FILE
    data = report_html(view).encode("utf-8")
    try:
        with new_file(path, private=True) as file:
            file.write(data)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}); name another file with -o") from error
    return path, len(data)


def _comparison_html(view: RunView, compared: Mapping[str, Any]) -> str:
    from markupsafe import Markup

    from agent.report.comparison_charts import comparison_svgs

    drawn = {name: Markup(drawing) for name, drawing in comparison_svgs(view).items()}
    origin = run_tables.provenance(view)
    return render("comparison.html", run=view.run, comparison=compared, provenance=origin, style=style(), **drawn)


def _of_result(view: RunView) -> dict[str, Any]:
    result, winner, baseline = view.result, view.winner, view.baseline
    assert result is not None
    assert winner is not None
    assert baseline is not None
    own, best = (facts.cut(text, PROMPT_LETTERS) for text in compared_texts(baseline, winner))
    sealed = (
        "Your prompt on the sealed test" if result.is_own else "Both prompts on the sealed test, and their difference"
    )
    return {
        "sealed": _chart("sealed", view, sealed, run_tables.scores),
        "attribution": _chart("attribution", view, "What each part carries", run_tables.attribution),
        "reliability": _chart("reliability", view, "Right answers by confidence", run_tables.reliability)
        if result.calibration
        else None,
        "pareto": _chart("pareto", view, "Dev score against cost", run_tables.pareto),
        "yardsticks": run_tables.yardsticks(result),
        "metrics": run_tables.metrics(result),
        "slices": run_tables.slices(result),
        "judges": run_tables.judges(result),
        "details": run_details(view),
        "is_own": winner["id"] == baseline["id"] and result.migration is None,
        "changes": compare.changes(own, best),
        "baseline_text": facts.cut(whole_prompt(baseline), PROMPT_LETTERS),
        "winner_text": facts.cut(whole_prompt(winner), PROMPT_LETTERS),
        "demos": winner["demos"][:DEMOS],
        "demos_total": len(winner["demos"]),
        "names": [name for _, name in facts.sides(result)],
        "flips": flips(view.pairs("test", baseline["id"], winner["id"])),
        "rows_known": "test" in view.examples,
    }


def flips(pairs: Sequence[RowPair]) -> list[Flips]:
    """The rows that got better, and those that got worse."""
    changed = sorted(((pair, change) for pair in pairs if (change := pair.change)), key=lambda one: -abs(one[1]))
    better, worse = ([p for p, change in changed if change * sign > EQUAL] for sign in (1, -1))
    return [Flips("got better", better[:FLIPS], len(better)), Flips("got worse", worse[:FLIPS], len(worse))]


def _chart(name: str, view: RunView, title: str, table: Callable[[RunView], RunTable]) -> Chart:
    from markupsafe import Markup

    from agent.report import charts

    draw = getattr(charts, name)
    return Chart(Markup(charts.svg(draw(view), name, title)), table(view))
