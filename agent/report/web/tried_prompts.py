"""The prompts of the playground, of a run or a release, and the rows that can be picked."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from agent.errors import InputError, ReleaseError
from agent.ledger import trail
from agent.ledger.query import Row, released_file
from agent.prompt.label_calibration import LabelCalibration
from agent.prompt.parts.adapter import ReleasedAdapter
from agent.prompt.parts.calibration import Calibrating
from agent.prompt.parts.part import PromptPart
from agent.prompt.parts.tools import ReleasedTools, ToolTexts, with_texts
from agent.prompt.prompt_candidate import PromptCandidate
from agent.prompt.techniques import answers_last
from agent.release.completion import DEFAULT_PARAMETERS
from agent.release.prompt_file import PROMPT_FILE, PromptRelease, holds_prompt, read_release
from agent.release.runtime import Prompt
from agent.report import wording
from agent.report.view import RunView
from agent.report.web.page_request import PageRequest
from agent.report.web.registry_pages import version_folder
from agent.safe_data import read_as
from agent.types import Demo, Example, Message, SplitName, Tool

SPLITS: Final[tuple[SplitName, ...]] = ("dev", "train")
"""Splits whose rows can be picked; never the test rows."""
DEMO = ("example_id", "inputs", "outputs", "rationale", "source")
"""The parts of a demo."""


@dataclass(frozen=True, slots=True)
class Tried:
    """The prompts to try.

    The id of a run or NAME@VERSION, its address, the prompts by side, the rows that can be picked, and the names of the
    sides.
    """

    of: str
    back: str
    prompts: Mapping[str, Prompt]
    rows: Mapping[str, Mapping[str, Example]]
    names: Mapping[str, str]

    @property
    def inputs(self) -> tuple[str, ...]:
        return next(iter(self.prompts.values())).release.inputs


def tried_prompts(request: PageRequest) -> Tried:
    """Return the prompts of the requested run or version. Raises InputError and ReleaseError."""
    return _of_release(request) if "version" in request.names else _of_run(request)


def _of_run(request: PageRequest) -> Tried:
    view = RunView(request.history, request.names["run"])
    file = released_file(view.run, request.site.db)
    if view.result is None or file is None:
        raise InputError(f"{view.id}: {wording.without_result(view.run)}, so it has no prompt to try")
    if not holds_prompt(file):
        raise InputError(f"{view.id}: a custom program; only prompts can be tried here")
    released = read_release(file)
    candidates = {"baseline": view.baseline, "winner": view.winner}
    prompts: dict[str, Prompt] = {
        side: Prompt(_released(view, candidate, released))
        for side, _ in view.names.sides
        if (candidate := candidates[side]) is not None
    }
    names = {"baseline": view.own, "winner": "best found"}
    return Tried(view.id, f"/run/{quote(view.id, safe='')}", prompts, _rows(view, released), names)


def _of_release(request: PageRequest) -> Tried:
    folder = version_folder(request)
    name, version = folder.parent.name, folder.name
    if not version.startswith("p_"):
        raise InputError(f"{name}@{version}: no prompt, so there is nothing to render")
    released = read_release(folder / PROMPT_FILE)
    run_id = str(released.provenance.get("run_id") or "")
    is_known = bool(run_id and request.history.select("SELECT 1 FROM runs WHERE id = ?", run_id))
    rows = _rows(RunView(request.history, run_id), released) if is_known else {}
    names, prompts = {"release": "released prompt"}, {"release": Prompt(released)}
    return Tried(f"{name}@{version}", f"/release/{quote(name)}/{version}", prompts, rows, names)


def _rows(view: RunView, released: PromptRelease) -> Mapping[str, Mapping[str, Example]]:
    rows: dict[str, Mapping[str, Example]] = {split: view.examples.get(split, {}) for split in SPLITS}
    wanted = set(released.inputs)
    return {split: of for split, of in rows.items() if of and all(set(row.inputs) == wanted for row in of.values())}


def _released(view: RunView, candidate: Row, released: PromptRelease) -> PromptRelease:
    # the run's release, the winner that it held back, or one built from the ledger
    if candidate["id"] == released.provenance.get("candidate_id"):
        return released
    if view.result is not None and (folder := view.result.held_folder) is not None:
        with suppress(ReleaseError):
            held = read_release(folder / PROMPT_FILE)
            if candidate["id"] == held.provenance.get("candidate_id"):
                return held
    if not candidate["template"]:
        raise InputError(f"{view.id}: the text of {candidate['id']} was erased from the ledger")
    if candidate["picks"] or candidate["passages"]:
        raise InputError(
            f"{view.id}: the release of {candidate['id']} with its rows or passages is gone; "
            "restore it from a backup, or run again"
        )
    calibration, tools = candidate.get("calibration"), _tools(view, candidate, released)
    parts: list[PromptPart] = [ReleasedTools(tools)] if tools else []
    if calibration:
        parts.append(Calibrating(read_as(LabelCalibration, calibration, "calibration"), released.outputs[0]))
    if view.run["model"] != released.model:  # else the base alone answered it
        parts += [part for part in released.parts if isinstance(part, ReleasedAdapter)]
    demos = tuple(Demo(**{name: demo[name] for name in DEMO}) for demo in candidate["demos"])
    shape = {name: candidate[name] for name in ("technique", "format", "instruction", "role")}
    return PromptRelease(
        name=released.name,
        messages=tuple(Message(**message) for message in candidate["template"]),
        inputs=released.inputs,
        outputs=released.outputs,
        format=candidate["format"],
        reasoning=answers_last(PromptCandidate(**shape, demos=demos)),
        model=released.model,
        parameters=_parameters(view, candidate["id"], bool(calibration)) or released.parameters,
        provenance={"run_id": view.id, "candidate_id": candidate["id"]},
        parts=tuple(parts),
    )


def _tools(view: RunView, candidate: Row, released: PromptRelease) -> tuple[Tool, ...]:
    if not released.tools:
        return ()
    of_release = view.history.candidate(str(released.provenance.get("candidate_id")))
    both = (("own", of_release), ("new", candidate))
    found = {name: each["tool_texts"] for name, each in both if "tool_texts" in each}
    if None in found.values():
        raise InputError(f"{view.id}: the texts of the tools of {candidate['id']} were erased from the ledger")
    own = with_texts(released.tools, ToolTexts.of(found["own"]["own"])) if "own" in found else released.tools
    return with_texts(own, ToolTexts.of(found["new"])) if "new" in found else own


def _parameters(view: RunView, candidate_id: str, is_calibrated: bool) -> dict[str, Any]:
    # Taken from the candidate's calls. A search asks all calls for log-probabilities; a release only if it is
    # calibrated.
    keys = view.history.select(
        "SELECT call_key FROM outcomes WHERE run_id = ? AND candidate_id = ? AND call_key <> '' LIMIT 1",
        view.id,
        candidate_id,
    )
    request = trail.request_of(view.history, keys[0]["call_key"]) if keys else None
    names = [name for name in DEFAULT_PARAMETERS if is_calibrated or name not in ("logprobs", "labels")]
    sent = {} if request is None else {name: request.get(name) for name in names}
    return {name: value for name, value in sent.items() if value not in (None, [])}  # as a release names them
