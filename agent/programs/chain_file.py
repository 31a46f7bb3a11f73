"""The file of a chain's prompts (`chain_parts.py`), which a run releases.

    chain = load_chain("chain.json", build(ChatOpenAI(model="...")))

LangChain is loaded only by who has a chain.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.errors import InputError, ReleaseError
from agent.prompt.named_texts import why_unfit
from agent.release.prompt_file import MAX_FILE, only_release_errors
from agent.safe_data import parse_json, read_as
from agent.safe_file import new_files, read_file
from agent.types import content_id


def save_chain(path: Path, parts: Mapping[str, Mapping[str, Any]], texts: Mapping[str, Any]) -> str:
    version = content_id("v", parts)
    text = json.dumps({"version": version, **texts, "prompts": parts}, ensure_ascii=False, indent=2)
    with new_files(path.parent) as folder:
        (folder / path.name).write_text(text + "\n", "utf-8")
    return version


@dataclass(frozen=True)
class _FileDemo:
    inputs: Mapping[str, str]
    answer: str


@dataclass(frozen=True)
class _FilePart:
    system: str
    demos: tuple[_FileDemo, ...] | None


def load_chain(path: str | Path, chain: Any) -> Any:
    """Put the prompts of a chain.json into a chain.

    Args:
        path: of the file.
        chain: the result of your `build(model)`, which is returned.

    Raises:
        ReleaseError: the file cannot be read, was edited, or is of another chain.
    """
    where = f"{path!s:.300}: "
    with only_release_errors(path):
        data = parse_json(read_file(Path(path), MAX_FILE).decode("utf-8"))
    try:
        read_as(Mapping[str, _FilePart], parts := data["prompts"], "prompts")
    except (LookupError, TypeError, ValueError) as error:
        raise ReleaseError(f"{where}is no chain.json; give the file that a run released") from error
    if data.get("version") != content_id("v", parts):
        raise ReleaseError(f"{where}was edited after release; restore the released file")
    from agent.programs.chain_parts import ChainPrompt, find_parts

    prompts = find_parts(chain).prompts
    if set(prompts) != set(parts):
        raise ReleaseError(f"{where}the chain has the prompts {', '.join(prompts)}, and the file {', '.join(parts)}")
    for name, prompt in prompts.items():
        try:
            laid = ChainPrompt(name, prompt)
        except InputError as error:
            raise ReleaseError(f"{where}{error}") from error
        if wrong := why_unfit(name, laid.system, parts[name]["system"], laid.placeholders):
            raise ReleaseError(f"{where}{wrong}")
        for demo in parts[name]["demos"] or ():
            if laid.turn is None or set(demo["inputs"]) != laid.variables:
                raise ReleaseError(f"{where}the prompt {name} has no place for examples of {', '.join(demo['inputs'])}")
        prompt.messages = laid.laid_out(parts[name])
    return chain
