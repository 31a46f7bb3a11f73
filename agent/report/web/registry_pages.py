"""Pages of the registry: released versions, one version, and all aliases with their moves.

They only read files; each page names the command that moves an alias.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from agent.errors import InputError, ReleaseError
from agent.ledger.connect import ledger_option
from agent.ledger.query import Row
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
from agent.release.file_release import how_to_load, read_files
from agent.release.prompt_file import PROMPT_FILE, PromptRelease, read_release
from agent.report.blocks import Block, Column, PageCell, PageSection, cells, line, listing, text
from agent.report.page_blocks import Button, FormBlock, FormField
from agent.report.web.page_request import Page, PageRequest, checks_named
from agent.report.web.parts import (
    address,
    box,
    crumbs,
    link,
    links,
    messages,
    moment,
    named,
    pager,
    section,
    soft,
    strong,
    title,
)
from agent.report.wording import points
from agent.safe_file import disk_errors

EMPTY: Row = {
    **{name: [] for name in ("messages", "inputs", "outputs")},
    **dict.fromkeys(("model", "format", "about"), ""),
    **{name: {} for name in ("parameters", "files")},
}
"""Fields of a version's page; prompts and files have different ones."""
NONE_YET = ("No release yet: ", PageCell("optimize promote RUN", tag="code"), " makes the first.")
ALIAS = (
    "An alias is the name by which a program loads a prompt: ",
    PageCell('load_prompt("NAME@production")', tag="code"),
    ". It is moved by a command, never here.",
)


def releases(request: PageRequest) -> Page:
    """Return the page of all versions, newest first by name; damaged ones show their problem."""
    root, found, problems, runs = request.site.releases, list[Row](), list[str](), _runs(request)
    for name, history in _histories(root, problems):
        lines = [_line(root / name / version, current(history or []), runs) for version in _versions(root / name)]
        found += sorted(lines, key=lambda line: str(line["created_utc"]), reverse=True)
    text = request.arg("text").casefold()
    rows, place = request.paged([line for line in found if text in f"{line['name']} {line['version']}".casefold()])
    page = {"releases": rows, "of": len(found), "place": place, "text": request.arg("text")}
    data = {**page, "registry": str(root), "problems": problems}
    return Page("Releases", data, partial(_releases_page, data), f"/releases.json?{place['query']}", foot=str(root))


def _releases_page(data: Row) -> Iterator[PageSection]:
    problems = [box(problem, "bad") for problem in data["problems"]]
    aliases_link = links([PageCell("Aliases and their history", "/aliases")])
    if not data["of"]:
        yield section("", title("Releases"), *problems, line(*NONE_YET), aliases_link)
        return
    search = FormField("text", data["text"], "name or version has", more={"size": 18, "maxlength": 200})
    everything = (PageCell("all", "/releases"),) if data["text"] else ()
    form = FormBlock("/releases", (search,), (Button("Search"),), after=everything)
    listed = listing(
        "Releases",
        [
            (Column("version", "id"), lambda one: link(one["version"], "release", one["name"], one["version"])),
            (Column("name", "break"), "name"),
            ("aliases", lambda one: cells(*_badges(one["aliases"])) or "-"),
            (Column("released, UTC", "id"), lambda one: moment(one["created_utc"], 16) or "-"),
            (Column("run", "id"), lambda one: _run(one) or "-"),
            ("sealed test #", lambda one: strong(points(one["test"]))),
            ("your prompt then #", lambda one: points(one["baseline_test"])),
            (Column("held back", "break"), _held),
        ],
        data["releases"],
    )
    none = None if data["releases"] else line("No such release.")
    place = pager(data["place"], "version", data["of"])
    yield section("", title("Releases"), *problems, form, listed, none, place, aliases_link)


def _badges(aliases: Iterable[str]) -> list[PageCell]:
    return [PageCell(alias, tag="base") for alias in aliases]


def _run(of: Row) -> str:
    # a link if this ledger has the run
    return link(of["run_id"], "run", of["run_id"]) if of["known_run"] else str(of["run_id"])


def _held(one: Row) -> str:
    if one["problem"]:
        return PageCell(one["problem"], tag="bad-text")
    if one["held_back"]:
        return f"yes, then promoted by {one['held_back']}"
    return "no: your own prompt" if one["decision"] == "keep_baseline" else "no"


def release(request: PageRequest) -> Page:
    """Return one version: its prompt or files, origin and aliases. Raises InputError and ReleaseError."""
    folder, root = version_folder(request), request.site.releases
    name, version = request.names["name"], request.names["version"]
    history, runs = read_history(folder.parent), _runs(request)
    is_prompt = version.startswith("p_")
    found = read_release(folder / PROMPT_FILE) if is_prompt else read_files(folder)
    if (found.name, found.version) != (name, version):
        raise ReleaseError(f"{folder}: holds {found.name} {found.version}; restore the folder from a copy")
    if isinstance(found, PromptRelease):
        where = "" if root == releases_root() else f", root={str(root)!r}"
        parts = {
            "messages": [message.as_dict() for message in found.messages],
            "inputs": list(found.inputs),
            "outputs": [{key: value for key, value in asdict(field).items() if value} for field in found.outputs],
            "model": without_folder(found, found.target),
            "format": found.format,
            "parameters": dict(found.parameters),
            "load": f"load_prompt({f'{name}@{version}'!r}{where})",
        }
    else:
        files = {file: len(data) for file, data in found.files.items()}
        parts = {"about": how_to_load(folder, f"{name}@{version}"), "files": files, "load": ""}
    data = {
        "name": name,
        "version": version,
        **EMPTY,
        **parts,
        "provenance": dict(found.provenance),
        **_origin(found.provenance, runs),
        "is_prompt": is_prompt,
        "checks": len(checks_named(request, name).checks),
        "aliases": _pointing(current(history), version),
        "moves": [_move(change, runs) for change in reversed(history) if version in (change.version, change.before)],
        "folder": str(folder),
    }
    also = f"{address('release', name, version)}.json"
    return Page(f"{name} {version}", data, partial(_release_page, data), also, foot=str(folder))


def _release_page(data: Row) -> Iterator[PageSection]:
    name, version = data["name"], data["version"]
    here, run_id = address("release", name, version), data["run_id"]
    aliases = [part for alias in _badges(data["aliases"]) for part in (alias, " ")]
    unknown = ", which is not in this ledger" if run_id else ""
    run = link(f"run {run_id}", "run", run_id) if data["known_run"] else f"run {run_id or 'unknown'}{unknown}"
    scores = f" · sealed test {points(data['test'])}, your prompt then {points(data['baseline_test'])}"
    notice = f"Held back by the gate, and promoted by {data['held_back']}" if data["held_back"] else ""
    if not notice and data["decision"] == "keep_baseline" and data["is_prompt"]:
        notice = "Your own prompt: it claims no gain."
    play = PageCell("Try the prompt", f"{here}/play", "button main")
    over_time = [link("Checks over time", "checks", name)] if data["checks"] else []
    yield section(
        "",
        crumbs("releases", "releases"),
        title(f"{name} ", PageCell(version, tag="id")),
        line(*(aliases or [soft("No alias means this version.")])),
        line(
            f"{moment(data['created_utc']) or 'no date'} UTC · ",
            run,
            scores if data["test"] is not None else "",
            look="soft",
        ),
        box(notice),
        links([play, *over_time]) if data["is_prompt"] else None,
    )
    if data["is_prompt"]:
        yield section("Prompt", *messages(data["messages"]))
        outputs = (
            {
                "output": f"{one['name']}, {one['type']}"
                + (f" ({', '.join(one['choices'])})" if one.get("choices") else "")
            }
            for one in data["outputs"]
        )
        called: list[Row] = [{"model": data["model"], "inputs": ", ".join(data["inputs"])}, *outputs]
        called += [{"layout": data["format"], **data["parameters"]}]
        yield section("What it is called with", *(each for one in called for each in named(one)))
        code = f"from promptassay import load_prompt\nprompt = {data['load']}"
        yield section("Load it", text(code, exact=True))
    else:
        files = (line(f"{file}, {size} bytes") for file, size in data["files"].items())
        yield section("Files", line(data["about"], look="text"), *files)
    yield section("Moves of aliases to it and from it", _moves(data["moves"], name, True), name="moves")


def _moves(moves: Sequence[Row], name: str, with_alias: bool = False) -> Block:
    def version(of: str) -> str:
        return link(of, "release", name, of) if of else "-"

    def share(move: Row) -> str:
        return "-" if move["share"] is None else f"{100 * move['share']:.0f} %"

    columns: list[Any] = [
        (Column("UTC", "id"), lambda move: moment(move["utc"])),
        *[("alias", "alias")] * with_alias,
        ("what", "action"),
        (Column("to", "id"), lambda move: version(move["version"])),
        (Column("from", "id"), lambda move: version(move["before"])),
        *[("share #", share)] * any(move["share"] is not None for move in moves),
        ("by", lambda move: move["actor"] or "-"),
        (Column("reason", "short"), lambda move: move["reason"] or "-"),
        ("run", lambda move: _run(move) or "-"),
    ]
    return listing("Moves", columns, moves)


def aliases(request: PageRequest) -> Page:
    """Return the page of all aliases: current version, every move, and the commands to move it."""
    root, found, problems, runs = request.site.releases, list[Row](), list[str](), _runs(request)
    for name, history in _histories(root, problems):
        if history is not None:
            marks = [_alias(request, name, change, history, runs) for change in current(history).values()]
            marks.sort(key=lambda mark: (mark["alias"] != PRODUCTION, mark["alias"]))
            found.append({"name": name, "aliases": marks})
    command = _command(request, "promote", "RUN", "--alias", PRODUCTION)
    data = {"names": found, "promote": command, "registry": str(root), "problems": problems}
    return Page("Aliases", data, partial(_aliases_page, data), "/aliases.json", foot=str(root))


def _aliases_page(data: Row) -> Iterator[PageSection]:
    problems = (box(problem, "bad") for problem in data["problems"])
    none = "To set an alias to what a run released:" if data["names"] else "No alias yet. The first release sets one:"
    yield section("", title("Aliases"), line(*ALIAS), *problems, line(none), text(data["promote"], exact=True))
    for each in data["names"]:
        blocks: list[Block] = []
        for mark in each["aliases"]:
            part = "" if mark["share"] is None else f" for {100 * mark['share']:.0f} % of the units"
            version = link(mark["version"], "release", each["name"], mark["version"])
            blocks.append(line(PageCell(mark["alias"], tag="base"), " means ", version, part, level=3))
            blocks.append(line(f"since {moment(mark['utc'])} UTC", look="soft"))
            if mark["rollback"]:
                blocks += [line("Back to the version before:"), text(mark["rollback"], exact=True)]
            else:
                blocks.append(line("This is its first version; there is no earlier one.", look="soft"))
            blocks.append(_moves(mark["moves"], each["name"]))
        yield section(each["name"], *blocks)


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


def _line(folder: Path, aliases: Mapping[str, AliasChange], runs: Collection[str]) -> Row:
    name, version = folder.parent.name, folder.name
    pointing = _pointing(aliases, version)
    line: Row = {"name": name, "version": version, "aliases": pointing, "problem": "", **_origin({}, runs)}
    try:
        found = read_release(folder / PROMPT_FILE) if version.startswith("p_") else read_files(folder)
    except ReleaseError as error:
        return {**line, "problem": str(error)}
    if found.version != version:
        return {**line, "problem": f"{folder}: holds {found.version}; restore the folder from a copy"}
    return {**line, **_origin(found.provenance, runs)}


def _origin(provenance: Mapping[str, Any], runs: Collection[str]) -> Row:
    # The files may hold anything here, so only texts and numbers are taken.
    texts = {key: str(provenance.get(key) or "") for key in ("run_id", "created_utc", "decision")}
    scores = {key: _number(provenance.get(key)) for key in ("test", "baseline_test")}
    promoted = provenance.get("promoted")
    held = ""
    if isinstance(promoted, Mapping):
        said = ": ".join(str(promoted[key]) for key in ("actor", "reason") if promoted.get(key))
        held = said or "promoted all the same"
    return {**texts, **scores, "held_back": held, "known_run": texts["run_id"] in runs}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _pointing(aliases: Mapping[str, AliasChange], version: str) -> list[str]:
    meant = [change for change in aliases.values() if change.version == version]
    return [change.alias + ("" if change.share is None else f" ({change.share:.0%})") for change in meant]


def _alias(request: PageRequest, name: str, now: AliasChange, history: list[AliasChange], runs: Collection[str]) -> Row:
    is_reversible = len(in_force(history, now.alias)) > 1
    return {
        "alias": now.alias,
        "version": now.version,
        "share": now.share,
        "utc": now.utc,
        "rollback": _command(request, "rollback", name, "--alias", now.alias) if is_reversible else "",
        "moves": [_move(change, runs) for change in reversed(history) if change.alias == now.alias],
    }


def _move(change: AliasChange, runs: Collection[str]) -> Row:
    names = ("seq", "utc", "actor", "action", "alias", "version", "before", "share", "reason")
    run_id = str(change.evidence.get("run_id") or "")
    return {**{name: getattr(change, name) for name in names}, "run_id": run_id, "known_run": run_id in runs}


def _command(request: PageRequest, *words: str) -> str:
    return shlex.join(["optimize", *words, "--reason", "WHY"]) + ledger_option(request.site.db)


def _runs(request: PageRequest) -> set[str]:
    return {row["id"] for row in request.history.select("SELECT id FROM runs")}
