"""Tasks whose rows ask which skill or tool a query means; only descriptions are searched."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from agent.errors import InputError
from agent.jobs.tool_sources import tools_in_file
from agent.options.jobs import InitOptions
from agent.safe_file import prompt_text, sha256_of
from agent.safe_text import counted, listed
from agent.stats.figures import detectable_line
from agent.stats.power import detectable_gains, rows_for
from agent.task.by_name import SAMPLES
from agent.task.from_file import write_task_files
from agent.task.label_files import json_line
from agent.task.skills import (
    MOST_DESCRIPTION,
    NO_ARGUMENTS,
    SKILLS_FILE,
    Query,
    SkillFile,
    query_files,
    read_queries,
    skills_in,
    skills_json,
)
from agent.task.splits import FRACTIONS, split_rows
from agent.task.task_text import slug, string
from agent.task.tools import TOOLS_FILE, tools_json
from agent.types import SPLITS, Tool

ABOUT = "Choose the skill that a request needs, or none."
SAMPLE = SAMPLES / "skill_choice" / "task.toml"
"""The sample from which a new task differs in its name, prompt and limit."""
FEWEST = 12
"""Queries of a task: fewer leave a split without rows."""
USUAL_GAIN = 0.2
"""The gain for which the number of queries is told."""

Source = Mapping[Tool, SkillFile | None]
"""The tools to choose from, with the file of each, unless it is a function."""


def source_of(path: Path) -> Source:
    """Read a folder of skills, or a file of tools. Raises InputError."""
    if path.is_dir():
        return skills_in(path)
    file = SkillFile(str(path), sha256_of(path)) if path.is_file() else None  # no file: FILE.py:NAME,...
    return {Tool(tool.name, tool.description, NO_ARGUMENTS): file for tool in tools_in_file(path)}


def write_skill_task(folder: Path, source: Source, options: InitOptions) -> list[str]:
    """Write the folder of a task; return what was read, in lines. Raises InputError."""
    names = [tool.name for tool in source]
    own = names[0] if len(names) == 1 else ""
    skills = {tool: file for tool, file in source.items() if file}
    queries = read_queries([*query_files(skills), *((Path(each), own) for each in options.queries)], names)
    if len(queries) < FEWEST:
        fix = f"optimize init {folder.name} --from-skills {options.from_skills} --draft 40"
        raise InputError(f"{counted(len(queries), 'query', 'queries')}; a task needs {FEWEST}; draft some: {fix}")
    labels = [json.dumps(label) for _, label in queries]
    parts = split_rows([text for text, _ in queries], labels, random.Random(options.seed))
    splits = [[queries[at] for at in part] for part in parts]
    partly = [query for query in splits[0] if isinstance(query[1], dict)]  # they describe no skill
    splits[0], splits[1] = [query for query in splits[0] if not isinstance(query[1], dict)], [*splits[1], *partly]
    if not splits[0]:
        raise InputError('too few queries say which skill is meant; add rows such as {"query": "...", "skill": "..."}')
    most = max(MOST_DESCRIPTION, *(len(tool.description) for tool in source))
    toml = SAMPLE.read_text("utf-8").partition("\n[budget]")[0].replace('"skill_choice"', string(slug(folder.name)))
    toml = toml.replace(f"= {MOST_DESCRIPTION}\n", f"= {most}\n")
    if options.prompt:
        own = f"instruction = {string(prompt_text(str(options.prompt)))}"
        toml = re.sub('instruction = """.*?"""', lambda _: own, toml, flags=re.DOTALL)
    files = {"task.toml": toml, TOOLS_FILE: tools_json([*source])}
    for split, part in zip(SPLITS, splits, strict=True):
        files[f"{split}.jsonl"] = "".join(json_line({"query": text, "calls": label}) for text, label in part)
    if skills:
        files[SKILLS_FILE] = skills_json(skills, folder)
    write_task_files(folder, files)
    return list(_read(source, queries, [len(part) for part in splits]))


def _read(source: Source, queries: Sequence[Query], sizes: Sequence[int]) -> Iterator[str]:
    gains = detectable_gains(sizes[2])
    none, partly = sum(label == [] for _, label in queries), sum(isinstance(label, dict) for _, label in queries)
    more = f", {partly} say only which skill is not meant" if partly else ""
    yield f"{counted(len(source), 'skill')}: {listed(tool.name for tool in source)}"
    yield f"{len(queries)} queries: {len(queries) - none - partly} name a skill, {none} need none{more}"
    left = f"; near-duplicates left out: {len(queries) - sum(sizes)}" * (len(queries) > sum(sizes))
    yield ", ".join(f"{split}: {counted(size, 'row')}" for split, size in zip(SPLITS, sizes, strict=True)) + left
    yield detectable_line(gains)
    if gains[0.5] > USUAL_GAIN:
        needed = round((rows_for(USUAL_GAIN, 0.5) or 0) / FRACTIONS[2])
        yield f"a gain of {100 * USUAL_GAIN:.0f} points needs about {needed} queries; --draft N drafts some to confirm"
