"""Skills (agentskills format): the front matter of SKILL.md files, and queries that say which skill is meant.

    ---
    name: invoice-reader
    description: Reads totals from supplier invoices.
    ---
    The body, which only a model that has chosen the skill reads.

A skill is a tool without arguments. Nothing in a file is run; its YAML is parsed, and no object is made of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from agent.errors import InputError, Problem, refuse_all
from agent.metrics.calls import EXCLUDES
from agent.safe_data import MOST_TOOLS, parse_json, read_as
from agent.safe_file import OutsideFile, decoded, read_bytes
from agent.safe_text import near, quoted, shown
from agent.shipped import fold
from agent.task.tables import DataFile
from agent.task.tools import NAME
from agent.types import SPLITS, Tool

SKILL_FILE = "SKILL.md"
SKILLS_FILE = "skills.json"
"""In a task folder: the file of each skill or tool, and its hash when the task was made."""
MOST_DESCRIPTION = 1024
"""Characters of a description in the agentskills format."""
NO_ARGUMENTS = '{"type": "object", "properties": {}}'
QUERY_FILES = ("evals.json", "trigger-eval.json", "trigger-evals.json")
"""Names of the files of queries next to a SKILL.md."""
NO_SKILL = ("", "none")
"""What a row writes for a query that needs no skill."""
_HEAD = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)^---[ \t]*\r?$", re.DOTALL | re.MULTILINE)
_MOST_HEAD = 100_000


@dataclass(frozen=True, slots=True)
class FrontMatter:
    """The front matter of a SKILL.md; `place` is that of the description's value in the text."""

    name: str
    description: str
    place: slice
    style: str
    others: Mapping[str, str]
    """All other keys and values as YAML, to compare."""


def front_matter(text: str) -> FrontMatter:
    """Parse the front matter of a SKILL.md. Raises ValueError."""
    import yaml

    found = _HEAD.match(text)
    if found is None or len(found[1]) > _MOST_HEAD:
        raise ValueError("has no front matter; begin it with ---, name, description and ---")
    try:
        top: Any = yaml.compose(found[1], yaml.SafeLoader)
        nodes = {key.value: (key, value) for key, value in top.value}
        others = {name: yaml.serialize(node) for name, (_, node) in nodes.items() if name != "description"}
    except yaml.YAMLError as error:
        raise ValueError(f"wrong YAML: {' '.join(str(error).split())[:150]}; quote the text") from None
    except (AttributeError, TypeError, RecursionError):
        raise ValueError("its front matter is no mapping of names to texts; write name and description") from None
    for name in ("name", "description"):
        if name not in nodes or nodes[name][1].tag != "tag:yaml.org,2002:str" or not nodes[name][1].value.strip():
            raise ValueError(f"its front matter has no text for {name}; write {name}: TEXT")
    key, node = nodes["description"]
    if len(nodes) < len(top.value) or node.start_mark.index < key.end_mark.index:
        raise ValueError("its front matter has a key twice, or an alias as description; write the text once")
    start, end = (found.start(1) + mark.index for mark in (node.start_mark, node.end_mark))
    end = start + len(text[start:end].rstrip())  # a block scalar ends with its blank lines
    return FrontMatter(nodes["name"][1].value.strip(), node.value, slice(start, end), node.style or "", others)


@dataclass(frozen=True, slots=True)
class SkillFile:
    """The file of a skill, and its SHA-256 when it was read."""

    path: str
    sha256: str


def skills_in(folder: Path) -> dict[Tool, SkillFile]:
    """Read the SKILL.md files under a folder, sorted by path. Raises ProblemsError with all their problems."""
    found, wrong, places = dict[Tool, SkillFile](), list[Problem](), dict[str, str]()
    for path in sorted(folder.rglob(SKILL_FILE)):
        file = OutsideFile(path)
        with file.at(1):
            head = front_matter(decoded(file.data, file.where))
            if not NAME.fullmatch(head.name):
                raise ValueError(f"the name {quoted(head.name)} cannot be that of a tool; begin it with a letter")
            if (first := places.setdefault(head.name, file.where)) != file.where:
                raise ValueError(f"the name {quoted(head.name)} is that of {first}; rename one")
            tool = Tool(head.name, head.description.strip(), NO_ARGUMENTS)
            found[tool] = SkillFile(str(path), hashlib.sha256(file.data).hexdigest())
        wrong += file.problems
    refuse_all(wrong)
    if not 1 <= len(found) <= MOST_TOOLS:
        raise InputError(f"{shown(folder)}: holds {len(found)} {SKILL_FILE} files; name a folder of 1 to {MOST_TOOLS}")
    return found


def skills_json(found: Mapping[Tool, SkillFile], folder: Path) -> str:
    """Write the file by which a task folder finds its skills again."""
    known = {tool.name: {**asdict(file), "path": os.path.relpath(file.path, folder)} for tool, file in found.items()}
    return json.dumps(known, indent=2) + "\n"


def known_skills(folder: Path) -> dict[str, SkillFile]:
    """Return the files of the skills of a task folder by name. Raises InputError."""
    where = folder / SKILLS_FILE
    if not where.is_file():
        raise InputError(f"{shown(where)}: no such file; it comes with a task of `optimize init --from-skills DIR`")
    try:
        known: dict[str, SkillFile] = read_as(Mapping[str, SkillFile], parse_json(read_bytes(where, folder)), "it")
    except ValueError as error:
        raise InputError(f"{shown(where)}: is not as `optimize init --from-skills` wrote it: {error}") from None
    return {name: replace(file, path=str(folder / file.path)) for name, file in known.items()}


# -- queries -----------------------------------------------------------------------------------------------------------


Query = tuple[str, Any]
"""A query and its label: calls of the right skill, [] for none, or the skills that it does not mean."""


@dataclass(frozen=True, slots=True)
class _Row:
    # says that the skill ("" for none) is meant, or is not
    where: str
    text: str
    skill: str
    is_meant: bool

    @staticmethod
    def of(row: Mapping[str, Any], own: str, names: Sequence[str], where: str) -> _Row:
        text, told = row.get("query", row.get("text")), row.get("should_trigger")
        if not isinstance(text, str) or not text.strip():
            raise ValueError('has no query; write {"query": "...", "skill": "..."}')
        skill = next((row[key] for key in ("skill", "tool") if key in row), own if "should_trigger" in row else None)
        skill = "" if skill in NO_SKILL and skill is not None else skill
        if skill is None or (skill and skill not in names):
            near_miss = f"there is no skill {quoted(skill)}{near(str(skill), names)}"
            raise ValueError('says no skill; write its name, or "none"' if skill is None else near_miss)
        told = {"true": True, "false": False}.get(told.lower()) if isinstance(told, str) else told
        if "should_trigger" in row and not (skill and isinstance(told, bool)):
            raise ValueError("needs the skill of its should_trigger, and true or false; write both")
        return _Row(where, text.strip(), skill, told is not False)

    def clash(self, other: _Row) -> str:
        if self.skill == other.skill:
            what = "repeats the query of" if self.is_meant == other.is_meant else "contradicts"
            return f"{what} {other.where}; keep one"
        if self.is_meant and other.is_meant:
            return f"means {self.skill or 'no skill'}, and {other.where} {other.skill or 'no skill'}; keep one"
        return ""


def query_files(skills: Mapping[Tool, SkillFile]) -> Iterator[tuple[Path, str]]:
    """Return each file of queries next to a SKILL.md, and the name of its skill."""
    own = ((Path(file.path), tool.name) for tool, file in skills.items() if Path(file.path).name == SKILL_FILE)
    places = ((path.with_name(name), skill) for path, skill in own for name in QUERY_FILES)
    return (place for place in places if place[0].is_file())


def _opened(place: Path) -> list[Path]:
    if not place.is_dir():
        return [place]
    return [file for split in SPLITS if (file := place / f"{split}.jsonl").is_file()]


def read_queries(files: Sequence[tuple[Path, str]], names: Sequence[str]) -> list[Query]:
    """Read the rows of files or labelled tasks; `files` have the skill of should_trigger rows.

    Raises ProblemsError with all wrong, repeated and contradicting rows.
    """
    if taken := {EXCLUDES, NO_SKILL[1]} & set(names):
        raise InputError(f"{min(taken)!r} cannot be the name of a skill, as labels use the word; rename it")
    told, wrong = dict[str, list[_Row]](), list[Problem]()
    for path, own in [(file, own) for place, own in files for file in _opened(place)]:
        file = DataFile(path)
        for line, row in file.rows:
            with file.at(line):
                new = _Row.of(row, own, names, f"{file.where}:{line}")
                before = told.setdefault(fold(new.text), [])
                if clash := next(filter(None, map(new.clash, before)), ""):
                    raise ValueError(clash)
                before.append(new)
        wrong += file.problems
    refuse_all(wrong)
    return [(rows[0].text, _label(rows, names)) for rows in told.values()]


def _label(rows: Sequence[_Row], names: Sequence[str]) -> Any:
    if meant := [row.skill for row in rows if row.is_meant]:
        return [{"name": meant[0], "arguments": {}}] if meant[0] else []
    excluded = sorted(row.skill for row in rows)
    return {EXCLUDES: excluded} if set(excluded) < set(names) else []
