"""One run as one HTML file without scripts or requests to other hosts; and the environment of all templates.

The only importer of jinja2. Templates come from templates/ only; all values are escaped, and control characters
become visible marks. `run_blocks` has the contents.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from agent.errors import InputError
from agent.ledger.query import run_folder
from agent.release.result import RunResult
from agent.report import prompt_texts, run_tables, terms, trial_tables, wording
from agent.report.blocks import (
    Block,
    DiffBlock,
    PageCell,
    PageSection,
    cells,
    filled,
    group,
    line,
    plain_section,
    sentence,
)
from agent.report.comparison import comparison_sections, is_comparison
from agent.report.page_blocks import FigureBlock, TermsBlock
from agent.report.run_blocks import in_full, run_sections
from agent.report.view import RunView
from agent.results.base import SideName
from agent.safe_file import disk_errors, new_file
from agent.safe_text import plain
from agent.stats.figures import points

if TYPE_CHECKING:
    from jinja2 import Environment

FOLDER = files("agent.report")
REPORT_FILE = "report.html"
NO_META: Mapping[str, str] = {}


# -- templates --------------------------------------------------------------------------------------------------------


def visible(value: Any) -> Any:
    """Return text with visible control characters; other values and markup unchanged."""
    return value if not isinstance(value, str) or isinstance(value, Markup) else plain(value)


@cache
def environment() -> Environment:
    """Return the template environment: autoescaping, strict about unknown names."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("agent.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"cut": wording.cut, "sentence": sentence, "term": _explained}
    made.filters |= {"meaning": terms.meaning_of, "changes": _changes}
    return made


def _changes(diff: DiffBlock) -> list[prompt_texts.TextStretch]:
    return prompt_texts.changes(diff.old, diff.new, prompt_texts.CONTEXT if diff.is_short else None)


def _explained(text: str) -> Markup | str:
    meaning = terms.meaning_of(text)
    return Markup('<abbr title="{}">{}</abbr>').format(meaning, text) if meaning else text


def style() -> Markup:
    """Return the style sheet of all pages for a <style> element."""
    return Markup((FOLDER / "static" / "page.css").read_text("utf-8"))


def render(template: str, **values: Any) -> str:
    return environment().get_template(template).render(**values)


# -- the report -------------------------------------------------------------------------------------------------------


def report_html(view: RunView) -> str:
    """Return the report of a search or comparison, finished or not. Raise InputError for other runs."""
    run, head = view.run, view.head
    about = f"{run['model']} · {run['started_utc'][:10]} · run {run['id']}"
    if is_comparison(view) and run["result"] is not None:
        origin = PageSection("provenance", "Where this comes from", filled(*run_tables.provenance(view)))
        title = f"{run['task']}: instruct, customize, or no language model"
        return standalone(
            title, "Comparison", run["task"], [*comparison_sections(view), origin], f"{about}, {run['tool']}"
        )
    sections, result = report_sections(view), view.result
    title = f"{run['task']}: {run['status'] if result is None else wording.verdict(result)}"
    meta = {"ledger": head["ledger"], "ledger_head": head["hash"], "run_id": run["id"], "created_utc": head["utc"]}
    return standalone(title, "Prompt report", run["task"], sections, about, f"{run['tool']} ", meta)


def standalone(
    title: str,
    kind: str,
    name: str,
    sections: Sequence[PageSection],
    about: str = "",
    maker: str = "",
    meta: Mapping[str, str] = NO_META,
) -> str:
    """Return a page of sections as one file. `kind` is above its name, `about` below, `meta` in its head."""
    values = {"title": title, "kind": kind, "name": name, "about": about, "maker": maker, "meta": meta}
    return render("standalone.html", **values, sections=page_sections(sections), style=style())


def report_sections(view: RunView) -> list[PageSection]:
    """Return the sections of a search, verdict first; raise InputError for other runs."""
    result = view.result
    if kind := (view.run["result"] or {}).get("kind"):
        what = str(kind).replace("_", " ")
        raise InputError(f"{view.id}: not a search ({what}); `optimize show {view.id}` shows its result")
    made = page_sections(run_sections(result, view) if result is not None else _unfinished_sections(view))
    first = list(_unfinished(view))
    if result is not None:
        tone = "good" if result.decision == "promote" else "kept"
        verdict = line(f"{wording.verdict(result)}.", level=2)
        said = made.pop(0).blocks
        first = [group(verdict, *said, tag="section", look=f"verdict {tone}"), _tiles(result, tone)]
    named = [section for section in made if section.title]
    addresses = {**{section.title: section.name for section in named}, "What the words mean": "terms"}
    contents = [part for title, name in addresses.items() for part in (PageCell(title, f"#{name}"), " ")]
    words = TermsBlock(terms.legend(is_compared=result is not None and not result.is_own, noun=view.names.noun))
    return [plain_section(*first, line(*contents, look="contents")), *made, plain_section(words)]


def _tiles(result: RunResult, tone: str) -> FigureBlock:
    scored = "of 100 on the sealed test"
    of_model = result.migration is not None

    def score(side: SideName, tag: str = "") -> PageCell:
        return cells(PageCell(points(result.sealed(side)), tag=tag), PageCell(scored, tag="small"))

    figures: list[tuple[str, str]] = [
        ("Old model" if of_model else wording.names_of(result).yours.capitalize(), score("baseline"))
    ]
    if not result.is_own:
        lift = result.lift
        figures.append(("New model" if of_model else "Best found", score("winner", f"{tone}-text")))
        changed = PageCell(f"{lift.losses} got worse, {lift.ties} stayed", tag="small")
        figures.append(("Rows that got better", cells(str(lift.wins), changed)))
    calls = f"{sum(result.calls_made.values()):,} calls, {wording.duration(result.seconds)}"
    paid = wording.dollars(result.cost_usd, result.unpriced, 2)
    return FigureBlock((*figures, ("What it cost", cells(paid, PageCell(calls, tag="small")))), look="tiles")


def _unfinished(view: RunView) -> Iterator[Block]:
    run, count = view.run, len(view.trials)
    is_erased = run["result_hash"] is not None
    error = line(run["error"], look="text") if run["error"] else None
    verdict = "The result of this run was erased." if is_erased else f"This run is {run['status']}: there is no result."
    rest = "" if run["status"] == "running" else f" {sentence(wording.continued(run))}"
    told = line(f"{count} trials; the sealed test has decided nothing.{rest}" if not is_erased else rest)
    yield group(line(verdict, level=2), error, told, tag="section", look="verdict")
    if view.baseline is not None:
        yield in_full(view.own, view.baseline)


def _unfinished_sections(view: RunView) -> list[PageSection]:
    parts = (
        ("search", "The search", trial_tables.trial_blocks),
        ("spend", "What it cost", run_tables.spend),
        ("provenance", "Where this comes from", run_tables.provenance),
    )
    return [PageSection(name, title, filled(*of(view))) for name, title, of in parts]


def page_sections(sections: Iterable[PageSection]) -> list[PageSection]:
    """Return the sections with something for a page, without terminal-only blocks."""
    shown = (replace(each, blocks=tuple(one for one in each.blocks if one.on != "screen")) for each in sections)
    return [section for section in shown if section]


def write_report(view: RunView, output: Path | None) -> tuple[Path, int]:
    """Write the report of a run with owner-only permissions. Return the file and its size in bytes.

    Args:
        output: the file, or a folder for it. None: report.html in the folder of the run.

    Raises:
        InputError: the run is of another kind, or the file cannot be written.
    """
    path = output or run_folder(view.history.path.parent, view.id) / REPORT_FILE
    if path.is_dir():
        path = path / REPORT_FILE
    return path, write_page(path, report_html(view))


def write_page(path: Path, html: str) -> int:
    """Write a page with owner-only permissions; return its size in bytes. Raises InputError."""
    data = html.encode("utf-8")
    what, fix = f"{path}: cannot be written", "name another place"
    with disk_errors(what, fix, InputError), new_file(path, private=True) as file:
        file.write(data)
    return len(data)
