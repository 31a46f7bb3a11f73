"""Pages of the registry: released versions, one version, and all aliases with their moves.

They only read files; each page names the command that moves an alias.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.errors import InputError, ReleaseError
from agent.ledger.connect import ledger_option
from agent.prompt.parts.adapter import without_folder
from agent.release.aliases import (
    PRODUCTION,
    VERSION,
    AliasChange,
    current,
    in_force,
    read_history,
    released_names,
    releases_root,
)
from agent.release.file_release import FileRelease
from agent.release.prompt_file import PromptRelease
from agent.release.texts import TextsRelease
from agent.release.versions import Release, form_of, how_to_load
from agent.report.aliases import changes_table, moved
from agent.report.blocks import Block, Column, PageCell, PageSection, cells, line, listing, soft, strong, text
from agent.report.web import parts
from agent.report.web.page_request import Page, PageRequest, checks_named
from agent.report.web.parts import link, moment, section
from agent.safe_file import disk_errors
from agent.stats.figures import points

NONE_YET = ("No release yet: ", PageCell("optimize promote RUN", tag="code"), " makes the first.")
ALIAS = (
    "An alias is the name by which a program loads a prompt: ",
    PageCell('load_prompt("NAME@production")', tag="code"),
    ". It is moved by a command, never here.",
)


@dataclass(frozen=True, slots=True)
class Released:
    """A version. `problem`: why it cannot be read; `held_back`: who overrode the gate."""

    name: str
    version: str
    aliases: Sequence[str]
    problem: str = ""
    run_id: str = ""
    created_utc: str = ""
    decision: str = ""
    test: float | None = None
    baseline_test: float | None = None
    held_back: str = ""


def releases(request: PageRequest) -> Page:
    """Return the page of all versions, newest first by name; damaged ones show their problem."""
    root = request.site.releases
    found = list[Released]()
    problems = list[str]()
    for name, history in _histories(root, problems):
        lines = [_listed(root / name / version, history) for version in _versions(root / name)]
        found += sorted(lines, key=lambda one: one.created_utc, reverse=True)
    wanted = request.arg("text")
    rows, place = request.paged([one for one in found if wanted.casefold() in f"{one.name} {one.version}".casefold()])
    table = listing(
        "Releases",
        [
            (Column("version", "id"), lambda one: link(one.version, "release", one.name, one.version)),
            (Column("name", "break"), "name"),
            ("aliases", lambda one: cells(*_badges(one.aliases)) or "-"),
            (Column("released, UTC", "id"), lambda one: moment(one.created_utc, 16) or "-"),
            (Column("run", "id"), lambda one: link(one.run_id, "run", one.run_id) if one.run_id else "-"),
            ("sealed test #", lambda one: strong(points(one.test))),
            ("your prompt then #", lambda one: points(one.baseline_test)),
            (Column("held back", "break"), _held),
        ],
        rows,
    )
    none = None if rows else line("No such release.")
    form = parts.search("/releases", wanted, "name or version has", "/releases", size=18)
    shown = (form, table, none, parts.pager(place, "version", len(found))) if found else (line(*NONE_YET),)
    boxes = [parts.box(problem, "bad") for problem in problems]
    aliases = parts.links([PageCell("Aliases and their history", "/aliases")])
    sections = [parts.head("Releases", *boxes, *shown, aliases)]
    data = {"releases": rows, "place": place, "problems": problems}
    return Page("Releases", sections, data, foot=str(root))


def _badges(aliases: Iterable[str]) -> list[PageCell]:
    return [PageCell(alias, tag="base") for alias in aliases]


def _held(one: Released) -> str:
    if one.problem:
        return PageCell(one.problem, tag="bad-text")
    if one.held_back:
        return f"yes, then promoted by {one.held_back}"
    return "no: your own prompt" if one.decision == "keep_baseline" else "no"


def release(request: PageRequest) -> Page:
    """Return one version: its prompt or files, origin and aliases. Raises InputError and ReleaseError."""
    folder = version_folder(request)
    name, version = folder.parent.name, folder.name
    history, found = read_history(folder.parent), _read(folder)
    one = _released(folder, history, found.provenance)
    is_prompt = isinstance(found, PromptRelease)
    scores = f" · sealed test {points(one.test)}, your prompt then {points(one.baseline_test)}"
    notice = f"Held back by the gate, and promoted by {one.held_back}" if one.held_back else ""
    if not notice and one.decision == "keep_baseline" and is_prompt:
        notice = "Your own prompt: it claims no gain."
    links = [PageCell("Try the prompt", f"{parts.address('release', name, version)}/play", "button main")]
    if checks_named(request, name).checks:
        links.append(link("Checks over time", "checks", name))
    head = parts.head(
        cells(name, PageCell(version, tag="id")),
        line(cells(*_badges(one.aliases)) or soft("No alias means this version.")),
        line(
            f"{moment(one.created_utc) or 'no date'} UTC · ",
            parts.run_link(one.run_id) if one.run_id else "run unknown",
            scores if one.test is not None else "",
            look="soft",
        ),
        parts.box(notice),
        parts.links(links) if is_prompt else None,
        above=link("releases", "releases"),
    )
    moves = [change for change in reversed(history) if version in (change.version, change.before)]
    of_kind = _prompt(found, request.site.releases) if isinstance(found, PromptRelease) else _others(found, folder)
    title = "Moves of aliases to it and from it"
    sections = [head, *of_kind, section(title, _moves(moves), name="moves")]
    data = {"release": one, "provenance": found.provenance, "moves": moved(moves)}
    return Page(f"{name} {version}", sections, data, foot=str(folder))


def _prompt(found: PromptRelease, root: Path) -> Iterator[PageSection]:
    yield section("Prompt", *parts.messages(message.as_dict() for message in found.messages))
    called = parts.named({"model": without_folder(found, found.target), "inputs": ", ".join(found.inputs)})
    for one in found.outputs:
        choices = f" ({', '.join(one.choices)})" if one.choices else ""
        called += parts.named({"output": f"{one.name}, {one.type}{choices}"})
    called += parts.named({"layout": found.format, **found.parameters})
    yield section("What it is called with", *called)
    where = "" if root == releases_root() else f", root={str(root)!r}"
    code = f"from promptassay import load_prompt\nprompt = load_prompt({f'{found.name}@{found.version}'!r}{where})"
    yield section("Load it", text(code, exact=True))


def _others(found: FileRelease | TextsRelease, folder: Path) -> Iterator[PageSection]:
    about = line(how_to_load(folder, f"{found.name}@{found.version}"), look="text")
    if isinstance(found, FileRelease):
        yield section("Files", about, *(line(f"{file}, {len(data)} bytes") for file, data in found.files.items()))
        return
    texts = (block for name, words in found.texts.items() for block in (line(name, level=3), text(words, exact=True)))
    yield section("Texts", about, *texts)


def _moves(moves: Iterable[AliasChange]) -> Block:
    return changes_table("Moves", [(move.alias, move) for move in moved(moves)])


def aliases(request: PageRequest) -> Page:
    """Return the page of aliases: versions, moves, and the commands to move them."""
    root, problems = request.site.releases, list[str]()
    readable = [(name, history) for name, history in _histories(root, problems) if history is not None]
    sections = [
        section(name, *(block for change in _in_order(history) for block in _alias(request, change, history)))
        for name, history in readable
    ]
    boxes = (parts.box(problem, "bad") for problem in problems)
    how = "To set an alias to what a run released:" if readable else "No alias yet. The first release sets one:"
    command = text(_command(request, "promote", "RUN", "--alias", PRODUCTION), exact=True)
    head = parts.head("Aliases", line(*ALIAS), *boxes, line(how), command)
    now = [change for _, history in readable for change in moved(_in_order(history))]
    return Page("Aliases", [head, *sections], {"aliases": now, "problems": problems}, foot=str(root))


def _in_order(history: Sequence[AliasChange]) -> list[AliasChange]:
    return sorted(current(history).values(), key=lambda change: (change.alias != PRODUCTION, change.alias))


def _alias(request: PageRequest, now: AliasChange, history: Sequence[AliasChange]) -> Iterator[Block]:
    part = "" if now.share is None else f" for {100 * now.share:.0f} % of the units"
    version = link(now.version, "release", now.name, now.version)
    yield line(PageCell(now.alias, tag="base"), " means ", version, part, level=3)
    yield line(f"since {moment(now.utc)} UTC", look="soft")
    if len(in_force(history, now.alias)) > 1:
        yield line("Back to the version before:")
        yield text(_command(request, "rollback", now.name, "--alias", now.alias), exact=True)
    else:
        yield line("This is its first version; there is no earlier one.", look="soft")
    yield _moves(change for change in reversed(history) if change.alias == now.alias)


def _command(request: PageRequest, *words: str) -> str:
    return shlex.join(["optimize", *words, "--reason", "WHY"]) + ledger_option(request.site.db)


def _histories(root: Path, problems: list[str]) -> Iterator[tuple[str, list[AliasChange] | None]]:
    # None for a name that cannot be read, which goes to `problems`
    for name in released_names(root):
        try:
            yield name, read_history(root / name)
        except ReleaseError as error:
            problems.append(str(error))
            yield name, None


def version_folder(request: PageRequest) -> Path:
    """Return the folder of the requested version; raise InputError if missing."""
    root, name, version = request.site.releases, request.names["name"], request.names["version"]
    if name not in released_names(root) or version not in _versions(root / name):
        raise InputError(f"{name}@{version}: no such version in {root}; the page of releases lists them")
    return root / name / version


def _versions(folder: Path) -> list[str]:
    with disk_errors(f"{folder}: cannot be read", "make it readable"):
        folders = [path.name for path in folder.iterdir() if path.is_dir() and not path.is_symlink()]
    return sorted(name for name in folders if VERSION.fullmatch(name))


def _read(folder: Path) -> Release:
    found = form_of(folder.name).read(folder)
    if (found.name, found.version) != (folder.parent.name, folder.name):
        raise ReleaseError(f"{folder}: holds {found.name} {found.version}; restore the folder from a copy")
    return found


def _listed(folder: Path, history: Sequence[AliasChange] | None) -> Released:
    try:
        return _released(folder, history, _read(folder).provenance)
    except ReleaseError as error:
        return _released(folder, history, {}, str(error))


def _released(
    folder: Path, history: Sequence[AliasChange] | None, provenance: Mapping[str, Any], problem: str = ""
) -> Released:
    # The files may hold anything here, so only texts and numbers are taken.
    read: dict[str, Any] = {key: str(provenance.get(key) or "") for key in ("run_id", "created_utc", "decision")}
    read |= {key: _number(provenance.get(key)) for key in ("test", "baseline_test")}
    promoted = provenance.get("promoted")
    held = ""
    if isinstance(promoted, Mapping):
        said = ": ".join(str(promoted[key]) for key in ("actor", "reason") if promoted.get(key))
        held = said or "promoted all the same"
    shares = [(one.alias, one.share) for one in current(history or []).values() if one.version == folder.name]
    pointing = [alias if share is None else f"{alias} ({share:.0%})" for alias, share in shares]
    return Released(folder.parent.name, folder.name, pointing, problem, **read, held_back=held)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
