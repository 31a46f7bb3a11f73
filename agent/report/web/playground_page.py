"""The playground: the prompts of a run, or a released one, on an input of your own, rendered and (if allowed) asked.

Rendering needs no call and no key. Asking goes through the site's `Asker`, which has the caps; each answer is a call of
the ledger, and the page reads it from there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import Any, Final
from urllib.parse import quote, urlencode

from starlette.datastructures import QueryParams

from agent.errors import AgentError, InputError, ReleaseError
from agent.ledger import trail
from agent.ledger.query import History, Row, released_file
from agent.prompt.calibration import LabelCalibration
from agent.prompt.parts.tools import ToolTexts, with_texts
from agent.prompt.prompt_candidate import PromptCandidate
from agent.prompt.techniques import answers_last
from agent.prompt.template import label_text
from agent.release.completion import DEFAULT_PARAMETERS
from agent.release.prompt_file import PROMPT_FILE, PromptRelease, holds_prompt, read_release
from agent.release.runtime import Prompt
from agent.report import facts
from agent.report.next_steps import held_folder
from agent.report.view import RunView
from agent.report.web.page_request import PLAYGROUND, PageRequest, Site
from agent.report.web.registry_pages import version_folder
from agent.results.rows import PlayedAnswer, PlayedResult
from agent.safe_data import read_as
from agent.safe_text import plain
from agent.types import Demo, Example, Message, SplitName, Tool

FIELD = "in."
"""Begins the name of the form's field of an input."""
MOST_LOOKED_AT = 50
"""Runs, the newest first, among which one to try is looked for."""
SPLITS: Final[tuple[SplitName, ...]] = ("dev", "train")
"""The splits whose rows can be picked, never the sealed test."""
DEMO = ("example_id", "inputs", "outputs", "rationale", "source")
"""The parts of a demo."""


def play(request: PageRequest, problem: str = "") -> dict[str, Any]:
    """The prompts with the typed input, the rows to pick, and the answers. Raises InputError and ReleaseError."""
    tried = tried_prompts(request)
    asked = _asked(request, tried)
    fields = asked["inputs"] if asked and asked["inputs"] else _fields(request, tried)
    is_filled = any(value.strip() for value in fields.values())
    row = _picked(request, tried)
    asker = request.site.asker
    cost = asker.quote(tried.prompts, fields) if asker and is_filled else None
    return {
        "of": tried.of,
        "back": tried.back,
        "model": next(iter(tried.prompts.values())).model,
        "inputs": [{"name": name, "value": fields.get(name, "")} for name in tried.inputs],
        "is_filled": is_filled,
        "row": "" if row is None else f"{row[0]}:{row[1].id}",
        "is_row": row is not None and fields == row[1].inputs,
        "labels": {} if row is None else dict(row[1].labels),
        "prompts": [_shown(tried, side, fields, is_filled, asked) for side in tried.prompts],
        "asked": asked,
        "problem": problem,
        "asking": None
        if asker is None
        else {"caps": dict(asker.caps), "left": dict(asker.left), "quote": asdict(cost) if cost else None},
        "enable": "optimize ui --allow-calls --max-calls 50 --max-cost 0.50",
        "pick": _pick(request, tried),
    }


def latest(request: PageRequest) -> dict[str, Any]:
    """The playground of the newest run whose prompts can be tried; `of` is "" where none can."""
    for run in request.history.runs()[:MOST_LOOKED_AT]:
        with suppress(InputError, ReleaseError):
            return play(replace(request, names={"run": run["id"]}))
    return {"of": "", "back": "", "prompts": [], "row": ""}


def post(site: Site, names: Mapping[str, str], form: QueryParams) -> str | dict[str, Any]:
    """Shows the prompts with the form's input, or asks them. The ledger is not held open while a model answers."""
    problem = ""
    if form.get("action") == "ask":
        with closing(History(site.db, verified=True)) as history:
            request = PageRequest(site, history, names, form)
            tried = tried_prompts(request)
            fields = _fields(request, tried)
        try:
            run_id = _ask(site, tried, fields)
        except AgentError as error:
            problem = str(error)
        else:
            return f"{tried.back}/play?{urlencode({'asked': run_id, 'row': form.get('row', '')})}#prompts"
    with closing(History(site.db, verified=True)) as history:
        return play(PageRequest(site, history, names, form), problem)


def _ask(site: Site, tried: Tried, fields: Mapping[str, str]) -> str:
    if site.asker is None:
        raise InputError("no call is allowed here; start the web view with --allow-calls and a cap")
    if empty := [name for name in tried.inputs if not fields.get(name, "").strip()]:
        raise InputError(f"{', '.join(empty)}: empty; give each input a text")
    return site.asker.ask(tried.of, tried.prompts, fields)


# -- the input --------------------------------------------------------------------------------------------------------


def _fields(request: PageRequest, tried: Tried) -> dict[str, str]:
    """The value of each input: as typed, else that of the row.

    A browser sends a line's end as CR LF, and a page shows control characters as marks, so that a text that is the
    row's own as the page shows it is taken from the row.
    """
    row = _picked(request, tried)
    own = row[1].inputs if row else {}
    found = {}
    for name in tried.inputs:
        typed = request.args.get(FIELD + name)
        text = own.get(name, "") if typed is None else _lines(typed)
        is_own = name in own and _lines(plain(own[name])) == text
        found[name] = own[name] if is_own else text
    return found


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _picked(request: PageRequest, tried: Tried) -> tuple[str, Example] | None:
    """The split and row that the address names. Raises InputError for one that is not to be picked."""
    split, _, row_id = request.arg("row").partition(":")
    if not row_id:
        return None
    if split == "test":
        raise InputError("rows of the sealed test are not for playing: a prompt that is tuned by them is not measured")
    row = tried.rows.get(split, {}).get(row_id)
    if row is None:
        raise InputError(f"{request.arg('row')}: no such row; pick one of train or dev on the page of the playground")
    return split, row


def _pick(request: PageRequest, tried: Tried) -> dict[str, Any]:
    text = request.arg("text")
    every = chain.from_iterable(((split, row) for row in rows.values()) for split, rows in tried.rows.items())
    found = [(split, row) for split, row in every if _holds(split, row, text.casefold())]
    shown, place = request.paged(found)
    place["query"] = urlencode({"text": text}) if text else ""
    return {
        "known": bool(tried.rows),
        "text": text,
        "place": place,
        "rows": [
            {
                "row": f"{split}:{row.id}",
                "words": facts.cut(" · ".join(row.inputs.values()), 160),
                "labels": facts.cut(" · ".join(map(label_text, row.labels.values())), 80),
            }
            for split, row in shown
        ],
    }


def _holds(split: str, row: Example, text: str) -> bool:
    texts = (f"{split}:{row.id}", *row.inputs.values(), *map(label_text, row.labels.values()))
    return not text or any(text in one.casefold() for one in texts)


# -- what is shown ----------------------------------------------------------------------------------------------------


def _shown(
    tried: Tried, side: str, fields: Mapping[str, str], is_filled: bool, asked: Mapping[str, Any] | None
) -> dict[str, Any]:
    prompt = tried.prompts[side]
    is_filled = is_filled and not prompt.embeddings  # a preview asks no provider for a vector
    sent = prompt.release.fill(fields) if is_filled else prompt.release.messages
    answers: Sequence[Mapping[str, Any]] = asked["answers"] if asked else ()
    return {
        "side": side,
        "words": tried.names[side],
        "version": prompt.version,
        "messages": [message.as_dict() for message in sent],
        "answer": next((answer for answer in answers if answer["side"] == side), None),
    }


def _asked(request: PageRequest, tried: Tried) -> dict[str, Any] | None:
    """What the run of `asked` answered, from the ledger; None without one. Raises InputError for another run's."""
    run_id = request.arg("asked")
    if not run_id:
        return None
    run = request.history.run(run_id)
    stored = run["result"] or {}
    if run["id"] != run_id or stored.get("kind") != PLAYGROUND or stored.get("of") != tried.of:
        raise InputError(f"{run_id}: was not asked in the playground of {tried.of}, or its result was erased")
    result = PlayedResult.from_json(stored)
    answers = [_answer(request, tried.prompts.get(answer.side), answer) for answer in result.asked]
    return {
        "run_id": run_id,
        "inputs": {name: result.inputs.get(name, "") for name in tried.inputs},
        "answers": answers,
        "cost_usd": result.cost_usd,
        "unpriced": result.unpriced,
        "calls": sum(result.calls_made.values()),
        "cached": result.calls["cached"],
    }


def _answer(request: PageRequest, prompt: Prompt | None, answer: PlayedAnswer) -> dict[str, Any]:
    """One answer with its reply as the ledger has it, and what is read out of it."""
    key, error = answer.call_key, answer.error
    number = trail.call_id(request.history, key) if key else None
    reply = trail.call(request.history, number, with_events=False)["reply"] if number is not None else None
    text = reply["text"] if reply else ""
    read = prompt.parse(text) if prompt and text else None
    return {
        "side": answer.side,
        "call": number,
        "reply": text,
        "fields": dict(read.fields) if read else {},
        "error": error or (read.error if read else ""),
    }


# -- what is tried -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tried:
    """What is tried: the id of a run or NAME@VERSION, its address, its prompts by side, the rows that can be picked,
    and what each side is called."""

    of: str
    back: str
    prompts: Mapping[str, Prompt]
    rows: Mapping[str, Mapping[str, Example]]
    names: Mapping[str, str]

    @property
    def inputs(self) -> tuple[str, ...]:
        return next(iter(self.prompts.values())).release.inputs


def tried_prompts(request: PageRequest) -> Tried:
    """The prompts of the run or version of the address. Raises InputError and ReleaseError."""
    return _of_release(request) if "version" in request.names else _of_run(request)


def _of_run(request: PageRequest) -> Tried:
    view = RunView(request.history, request.names["run"])
    file = released_file(view.run, request.site.db)
    if view.result is None or file is None:
        raise InputError(f"{view.id}: {facts.without_result(view.run)}, so it has no prompt to try")
    if not holds_prompt(file):
        raise InputError(f"{view.id}: a program of your own; only prompts can be tried here")
    released = read_release(file)
    candidates = {"baseline": view.baseline, "winner": view.winner}
    prompts: dict[str, Prompt] = {
        side: Prompt(_released(view, candidate, released))
        for side, _ in facts.sides(view.result)
        if (candidate := candidates[side]) is not None
    }
    names = {"baseline": view.own.name, "winner": "best found"}
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
    """A candidate of the run as a release: the run's own, the winner that it held back, or one made of what the ledger
    has of it."""
    if candidate["id"] == released.provenance.get("candidate_id"):
        return released
    if (held := _held_back(view)) is not None and candidate["id"] == held.provenance.get("candidate_id"):
        return held
    if not candidate["template"]:
        raise InputError(f"{view.id}: the text of {candidate['id']} was erased from the ledger")
    if candidate["picks"] or candidate["passages"]:
        raise InputError(
            f"{view.id}: {candidate['id']} looks up rows or passages that only its release holds, and that file is "
            "gone; restore it from a backup, or run again"
        )
    calibration = candidate.get("calibration")
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
        calibration=read_as(LabelCalibration, calibration, "calibration") if calibration else None,
        adapter=released.adapter if view.run["model"] != released.model else None,  # else the base alone answered it
        tools=_tools(view, candidate, released),
    )


def _tools(view: RunView, candidate: Row, released: PromptRelease) -> tuple[Tool, ...]:
    """The tools of a candidate, by those of the run's release and the texts that the ledger has of both."""
    if not released.tools:
        return ()
    of_release = view.history.candidate(str(released.provenance.get("candidate_id")))
    both = (("own", of_release), ("new", candidate))
    found = {name: each["tool_texts"] for name, each in both if "tool_texts" in each}
    if None in found.values():
        raise InputError(f"{view.id}: the texts of the tools of {candidate['id']} were erased from the ledger")
    own = with_texts(released.tools, ToolTexts.of(found["own"]["own"])) if "own" in found else released.tools
    return with_texts(own, ToolTexts.of(found["new"])) if "new" in found else own


def _held_back(view: RunView) -> PromptRelease | None:
    """The release of a winner that the run held back; None without a whole file of it."""
    folder = held_folder(view.result) if view.result else None
    if folder is None or not (folder / PROMPT_FILE).is_file():
        return None
    with suppress(ReleaseError):
        return read_release(folder / PROMPT_FILE)
    return None


def _parameters(view: RunView, candidate_id: str, is_calibrated: bool) -> dict[str, Any]:
    """What the candidate was scored with, as its calls have it; nothing where none is there. A release asks for
    log-probabilities, as a search does of all its calls, only where calibration needs them."""
    keys = view.history.select(
        "SELECT call_key FROM outcomes WHERE run_id = ? AND candidate_id = ? AND call_key <> '' LIMIT 1",
        view.id,
        candidate_id,
    )
    request = trail.request_of(view.history, keys[0]["call_key"]) if keys else None
    names = [name for name in DEFAULT_PARAMETERS if is_calibrated or name not in ("logprobs", "labels")]
    sent = {} if request is None else {name: request.get(name) for name in names}
    return {name: value for name, value in sent.items() if value not in (None, [])}  # as a release names them
