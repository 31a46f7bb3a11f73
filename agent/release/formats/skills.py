"""New descriptions as a diff of the user's SKILL.md files, and the change of these files.

Only the value of `description` is replaced: bodies, other keys and comments stay as they are, byte for byte. A file
that changed since the task was made is refused, since its description was not the one that was compared.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.errors import ReleaseError
from agent.release.formats.export_format import Material, Opened, export_format
from agent.release.formats.templates import yaml_quoted
from agent.safe_file import disk_errors, new_file, read_bytes
from agent.safe_text import shown
from agent.task.skills import front_matter, known_skills

PATCH = "skills.patch"


def with_description(text: str, description: str) -> str:
    """Return the text of a SKILL.md with another description, in the old style if possible.

    Raises ValueError if no style of YAML reads back as the description.

    >>> with_description("---\\nname: x\\ndescription: old # note\\n---\\n", "new")
    '---\\nname: x\\ndescription: new # note\\n---\\n'
    """
    head = front_matter(text)
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


@dataclass(frozen=True, slots=True)
class _Change:
    path: Path
    before: str
    after: str

    def diff(self) -> str:
        name = shown(self.path).lstrip("/")
        lines = difflib.unified_diff(_lines(self.before), _lines(self.after), f"a/{name}", f"b/{name}")
        return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def _lines(text: str) -> list[str]:
    *lines, last = text.split("\n")  # other line ends stay in a line, as `git apply` reads them
    return [*(f"{line}\n" for line in lines), *([last] if last else [])]


def _changes(material: Material) -> list[_Change]:
    release, wrong, changes = material.release, list[str](), list[_Change]()
    texts = {tool.name: tool.description for tool in release.tools}
    for name, file in known_skills(Path(material.rows.folder)).items():
        path, data = Path(file.path), read_bytes(Path(file.path))
        try:
            if hashlib.sha256(data).hexdigest() != file.sha256:
                raise ValueError("changed since the task was made; restore it, or make the task again")
            text = data.decode("utf-8")
            if name in texts and front_matter(text).description.strip() != texts[name]:
                changes.append(_Change(path, text, with_description(text, texts[name])))
        except ValueError as error:
            wrong.append(f"{shown(path)}: {error}")
    if wrong or not changes:
        kept = f"{release.name}: the run kept your descriptions; there is nothing to write"
        raise ReleaseError("\n".join(wrong) or kept)
    return changes


def _write(material: Material) -> list[Path]:
    changes = _changes(material)
    for change in changes:
        with disk_errors(f"{shown(change.path)}: cannot be written"), new_file(change.path) as file:
            file.write(change.after.encode("utf-8"))
    return [change.path for change in changes]


@export_format(
    "skills",
    about="skills.patch: the new descriptions as a diff of your SKILL.md files; --write changes the files",
    load=lambda folder, release: Opened(None),
    needs_task=True,
    proof="each changed file reads back as the new description; all else in it is unchanged",
    carries=("tools",),
    write=_write,
)
def skills_patch(material: Material) -> dict[str, str]:
    return {PATCH: "".join(change.diff() for change in _changes(material))}
