"""One run as one HTML file that opens anywhere: no script, no request to any host; and the templates of all pages.

The only importer of jinja2: templates lie in templates/ and are never a prompt or a task; all that is printed is
escaped, and control characters become visible marks. What a run says are the blocks of `run_blocks`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import InputError
from agent.ledger.query import run_folder
from agent.prompt.template import label_text
from agent.report import compare, facts, run_tables, terms
from agent.report.blocks import DiffBlock, PageSection, filled, sentence
from agent.report.compare import whole_prompt
from agent.report.comparison import comparison_sections, is_comparison
from agent.report.run_blocks import PROMPT_LETTERS, run_sections
from agent.report.view import RunView
from agent.safe_file import disk_errors, new_file
from agent.safe_text import plain

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

FOLDER = files("agent.report")
REPORT_FILE = "report.html"


# -- templates --------------------------------------------------------------------------------------------------------


def visible(value: Any) -> Any:
    """Text with control characters made visible; anything but text, and markup, as it is."""
    from markupsafe import Markup

    return value if not isinstance(value, str) or isinstance(value, Markup) else plain(value)


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
    shared = (facts.dollars, facts.points, facts.gain, facts.duration, facts.chance, facts.cut, whole_prompt, sentence)
    made.filters |= {filter_.__name__: filter_ for filter_ in shared} | {"text": label_text, "term": explained}
    made.filters |= {"meaning": terms.meaning_of, "changes": _changes}
    made.globals["legend"] = terms.legend
    return made


def _changes(diff: DiffBlock) -> list[compare.TextStretch]:
    return compare.changes(diff.old, diff.new)


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


def report_html(view: RunView) -> str:
    """The report of a search, finished or not, or of a comparison. Raises InputError for a run of another kind."""
    if is_comparison(view) and view.run["result"] is not None:
        origin = PageSection("provenance", "Where this comes from", filled(*run_tables.provenance(view)))
        run = view.run
        about = f"{run['model']} · {run['started_utc'][:10]} · run {run['id']}, {run['tool']}"
        title = f"{run['task']}: instruct, customize, or no language model"
        return standalone(title, "Comparison", run["task"], [*comparison_sections(view), origin], about)
    return render("report.html", **report_values(view), style=style())


def standalone(title: str, kind: str, name: str, sections: Sequence[PageSection], about: str = "") -> str:
    """A page of sections as one file; `kind` stands above its name, `about` below it."""
    values = {"title": title, "kind": kind, "name": name, "about": about, "sections": page_sections(sections)}
    return render("sections.html", **values, style=style())


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
        "is_own": result is None or result.is_own,
        "own_letters": PROMPT_LETTERS,
        "facts": facts,
        "sections": page_sections(_sections_of(view)),
    }


def _sections_of(view: RunView) -> list[PageSection]:
    if view.result is not None:
        return run_sections(view.result, view)
    return [
        PageSection("search", "The search", filled(*run_tables.trial_blocks(view))),
        PageSection("spend", "What it cost", (run_tables.spend(view),)),
        PageSection("provenance", "Where this comes from", filled(*run_tables.provenance(view))),
    ]


def page_sections(sections: Sequence[PageSection]) -> list[PageSection]:
    """The sections of a page; one without a title becomes a part of the one before."""
    pages: list[PageSection] = []
    for section in sections:
        blocks = tuple(block for block in section.blocks if block.on != "screen")
        if section.title or not pages:
            pages.append(replace(section, blocks=blocks))
        else:
            pages[-1] = replace(pages[-1], blocks=(*pages[-1].blocks, *blocks))
    return [section for section in pages if section]


def write_report(view: RunView, output: Path | None) -> tuple[Path, int]:
    """Write the report of a run for this user alone; return the file and its size in bytes.

    Args:
        output: the file, or a folder for it. None: report.html in the folder of the run.

    Raises:
        InputError: the run is of another kind, or the disk refuses.
    """
    path = output or run_folder(view.history.path.parent, view.id) / REPORT_FILE
    if path.is_dir():
        path = path / REPORT_FILE
    return path, write_page(path, report_html(view))


def write_page(path: Path, html: str) -> int:
    """Write a page for its owner alone; return its size in bytes. Raises InputError where the disk refuses."""
    data = html.encode("utf-8")
    what, fix = f"{path}: cannot be written", "name another place"
    with disk_errors(what, fix, InputError), new_file(path, private=True) as file:
        file.write(data)
    return len(data)
