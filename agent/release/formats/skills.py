"""New descriptions as a diff of the user's SKILL.md files, or JSON file of tools, and the change of these files.

Only the value of `description` is replaced: bodies, other keys and comments stay as they are, byte for byte. A file
that changed since the task was made is refused, since its description was not the one that was compared.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

from agent.errors import ReleaseError
from agent.release.formats.export_format import Material, Opened, export_format
from agent.release.formats.templates import yaml_quoted
from agent.safe_data import parse_json
from agent.safe_file import disk_errors, new_file, read_bytes
from agent.safe_text import shown
from agent.task.skills import front_matter, known_skills
from agent.task.tools import read_tools

PATCH = "skills.patch"
_DESCRIPTION = re.compile(r'"description"\s*:\s*("(?:[^"\\]|\\.)*+")')


def with_description(text: str, description: str) -> str:
    """Return the text of a SKILL.md with another description, in the old style if possible.

    Raises ValueError if no style of YAML reads back as the description.

    >>> with_description("---\\nname: x\\ndescription: old # note\\n---\\n", "new")
    '---\\nname: x\\ndescription: new # note\\n---\\n'
    """
    head = front_matter(text)
    if head.description.strip() == description:
        return text
    before, old, after = text[: head.place.start], text[head.place], text[head.place.stop :]
    for value in _styled(old, head.style, description):
        try:
            now = front_matter(before + value + after)
        except ValueError:
            continue
        if (now.name, now.description.strip(), now.others) == (head.name, description.strip(), head.others):
            return before + value + after
    raise ValueError("the description cannot be written as YAML; write it yourself")


def _styled(old: str, style: str, description: str) -> Iterator[str]:
    if style in ("|", ">"):
        first, _, lines = old.partition("\n")
        content = lines.lstrip("\r\n")
        yield f"{first}\n{content[: len(content) - len(content.lstrip())]}{description}"
    elif style != '"':
        yield style + description.replace("'", "''" if style else "'") + style
    yield yaml_quoted(description)


def with_tool_description(text: str, name: str, description: str) -> str:
    """Return the JSON of tools with another description of one. Raises ValueError if it has no place for it."""
    old = _tools_in(text)
    if old.get(name, description) == description:
        return text
    for found in _DESCRIPTION.finditer(text):
        if json.loads(found[1]).strip() == old[name]:
            made = text[: found.start(1)] + json.dumps(description, ensure_ascii=False) + text[found.end(1) :]
            if _tools_in(made) == {**old, name: description}:
                return made
    raise ValueError(f"{name} has no description to replace; write it yourself")


def _tools_in(text: str) -> dict[str, str]:
    return {tool.name: tool.description for tool in read_tools(parse_json(text.removeprefix("\ufeff")))[0]}


def _diff(path: Path, before: str, after: str) -> str:
    name = shown(path).lstrip("/")
    lines = difflib.unified_diff(_lines(before), _lines(after), f"a/{name}", f"b/{name}")
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def _lines(text: str) -> list[str]:
    *lines, last = text.split("\n")  # other line ends stay in a line, as `git apply` reads them
    return [*(f"{line}\n" for line in lines), *([last] if last else [])]


def _changes(material: Material) -> dict[Path, tuple[str, str]]:
    # the texts of each changed file, before and after
    release, wrong, texts = material.release, list[str](), dict[Path, tuple[str, str]]()
    described = {tool.name: tool.description for tool in release.tools}
    for name, file in known_skills(Path(material.rows.folder)).items():
        path, data = Path(file.path), read_bytes(Path(file.path))
        try:
            if hashlib.sha256(data).hexdigest() != file.sha256:
                raise ValueError("changed since the task was made; restore it, or make the task again")
            before, after = texts.get(path, (data.decode("utf-8"),) * 2)
            if (new := described.get(name)) is not None:
                is_json = path.suffix == ".json"
                after = with_tool_description(after, name, new) if is_json else with_description(after, new)
                texts[path] = before, after
        except ValueError as error:
            wrong.append(f"{shown(path)}: {error}")
    changed = {path: (before, after) for path, (before, after) in texts.items() if before != after}
    if wrong or not changed:
        kept = f"{release.name}: the run kept your descriptions; there is nothing to write"
        raise ReleaseError("\n".join(dict.fromkeys(wrong)) or kept)
    return changed


def _write(material: Material) -> list[Path]:
    changes = _changes(material)
    for path, (_, after) in changes.items():
        with disk_errors(f"{shown(path)}: cannot be written"), new_file(path) as file:
            file.write(after.encode("utf-8"))
    return [*changes]


@export_format(
    "skills",
    about="skills.patch: the new descriptions as a diff of your SKILL.md or tools file; --write changes the files",
    load=lambda folder, release: Opened(None),
    needs_task=True,
    proof="each changed file reads back as the new description; all else in it is unchanged",
    carries=("tools",),
    write=_write,
)
def skills_patch(material: Material) -> dict[str, str]:
    return {PATCH: "".join(_diff(path, *texts) for path, texts in _changes(material).items())}
