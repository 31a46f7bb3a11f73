"""Two prompts side by side, of two runs or two trials: facts, a paired test on their rows, the words that changed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any, Literal

from agent.errors import InputError
from agent.ledger.query import ERASED, History
from agent.prompt.parts.tools import TextChange, tool_changes
from agent.release.result import RunResult, search_result
from agent.report.facts import prompt_text, without_result

NO_TEXT = "(no description)"
SPLITS = ("train", "dev", "test")
ABOUT_RUN = ("id", "task", "status", "model", "proposer", "seed", "tool", "prices", "seconds")


@dataclass(frozen=True, slots=True)
class ComparedPrompt:
    """One of the two: a candidate with its run. `trial` is None for a run's winner; a score is 0 to 1."""

    run: dict[str, Any]
    candidate: dict[str, Any]
    trial: dict[str, Any] | None
    outcomes: dict[str, dict[str, float]]
    """Scores by split and row."""
    scoring: dict[str, Any]
    """What made the scores, as far as the ledger knows; options of metrics stand in task.toml alone."""
    result: RunResult | None = None


def compared_prompt(history: History, name: str) -> ComparedPrompt:
    """`name` is a run, or a trial as RUN:NUMBER. Raises InputError."""
    run_id, colon, number = name.rpartition(":")
    is_trial = bool(colon) and number.isdecimal()
    run = history.run(run_id if is_trial else name)
    result, trial = search_result(run["result"]), None
    if is_trial:
        trial = next(iter(history.trials(run["id"], [int(number)])), None)
        if trial is None:
            raise InputError(f"{name}: no trial {number}; there are {len(history.trials(run['id']))}, from 0")
        candidate_id = trial["candidate_id"]
    elif result is not None:
        candidate_id = result.winner.candidate_id
    elif run["result"] is None:
        raise InputError(f"{run['id']}: {without_result(run)}, so there is no winner; compare trials as RUN:NUMBER")
    else:
        kind = run["result"]["kind"].replace("_", " ")
        raise InputError(f"{run['id']}: this run is no search ({kind}): it cannot be compared")
    rows = {split: history.outcomes(run["id"], candidate_id, split) for split in ("test", "dev")}
    outcomes = {
        split: {r["example_id"]: r["value"] for r in seen if r["value"] is not None} for split, seen in rows.items()
    }
    scoring = _scoring(history, run, result, [*rows["test"], *rows["dev"]])
    return ComparedPrompt(run, history.candidate(candidate_id), trial, outcomes, scoring, result)


def _scoring(
    history: History, run: dict[str, Any], result: RunResult | None, rows: list[dict[str, Any]]
) -> dict[str, Any]:
    scoring: dict[str, Any] = {name: digest for name, digest in (run["hashes"] or {}).items() if _scores_by(name)}
    scoring["the metrics"] = next(([name for name, *_ in row["scores"]] for row in rows if row["scores"]), None)
    if result and result.metrics:  # an older version wrote neither these nor the judges
        scoring["the weights of the metrics"] = [(part.metric, part.field, part.weight) for part in result.metrics]
    models = {row["model"] for row in history.costs(run["id"]) if row["role"] == "judge"}
    scoring["the judges"] = sorted(models) or None
    if result and result.metrics:
        scoring["what the judges are told"] = [judge.judge_id for judge in result.judges]
    if result and any(judge.mode == "pairwise" for judge in result.judges):  # each run has its own middle
        own = history.trials(run["id"], [0])[0]["candidate_id"]
        scoring["the answers that a judge compared with"] = (run["model"], own)
    return scoring


def _scores_by(name: str) -> bool:
    """Whether a task's file decides scores: a rubric, or the task's own metric, and not its program."""
    return name not in (*SPLITS, "task.toml") and (name == "metric.py" or not name.endswith(".py"))


# -- side by side -----------------------------------------------------------------------------------------------------


def fact_lines(a: ComparedPrompt, b: ComparedPrompt) -> Iterator[tuple[str, Any, Any]]:
    """The lines of a comparison, as name and both values: run and scores, and of options and versions what differs."""
    for name in ABOUT_RUN:
        yield name, a.run[name], b.run[name]
    groups = [(name, *(side.run[name] or {} for side in (a, b))) for name in ("options", "hashes", "budget")]
    for name, one, two in (*groups, ("version", *(side.run["origin"].get("versions", {}) for side in (a, b)))):
        for key in {**one, **two}:
            if name == "hashes" or one.get(key) != two.get(key):
                yield f"{name}.{key}", one.get(key), two.get(key)
    one, two = _scores(a), _scores(b)
    for key in {**one, **two}:
        yield key, one.get(key), two.get(key)


def _scores(side: ComparedPrompt) -> dict[str, Any]:
    candidate, trial, result = side.candidate, side.trial, side.result
    scores: dict[str, Any] = {"candidate": candidate["id"]}
    scores |= {name: candidate[name] for name in ("technique", "format", "role", "n_examples")}
    if trial is not None:
        names = ("number", "state", "n", "mean", "low", "high", "operator", "calls", "cached", "tokens", "cost_usd")
        return scores | {name: trial[name] for name in names}
    assert result is not None
    lift = result.lift
    return {
        **scores,
        "baseline dev": result.baseline.dev,
        "baseline test": result.baseline.test,
        "winner dev": result.winner.dev,
        "winner test": result.winner.test,
        **({} if result.is_own else {"lift": lift.diff, "lift ci95": list(lift.ci95), "lift p": lift.p_value}),
        "decision": result.decision,
        **{f"calls {role}": count for role, count in result.calls.items()},
        **{f"tokens {kind}": count for kind, count in result.tokens},
        "cost_usd": None if result.unpriced else result.cost_usd,
    }


# -- the paired test --------------------------------------------------------------------------------------------------


def scoring_difference(a: ComparedPrompt, b: ComparedPrompt) -> str:
    """Why the scores of the two cannot be compared; "" where they were made alike.

    What the ledger knows of only one of them, as where a run has no result, does not count.
    """
    files = {name for side in (a, b) for name in side.run["hashes"] or ()}
    differ = [
        name
        for name in {**a.scoring, **b.scoring}
        if a.scoring.get(name) != b.scoring.get(name)
        and (name in files or (a.scoring.get(name) is not None and b.scoring.get(name) is not None))
    ]
    return f"scored in different ways ({', '.join(differ)}): no paired test" if differ else ""


def paired_tests(a: ComparedPrompt, b: ComparedPrompt) -> tuple[dict[str, dict[str, Any]], str]:
    """The paired tests by split, and why nothing was tested ("" otherwise)."""
    tests = {split: test for split in ("test", "dev") if (test := paired(split, a, b)) is not None}
    return tests, "" if tests else scoring_difference(
        a, b
    ) or "no rows of the same data were scored by both: no paired test"


def paired(split: str, a: ComparedPrompt, b: ComparedPrompt) -> dict[str, Any] | None:
    """The paired test of B minus A over the rows of `split` that both have a score on, as `PairedResult`.

    None where there is no such row, or where the data or the scoring is not the same.
    """
    from agent.stats.intervals import paired_difference

    if a.run["hashes"].get(split) != b.run["hashes"].get(split) or scoring_difference(a, b):
        return None
    first, second = a.outcomes[split], b.outcomes[split]
    both = [row for row in first if row in second]
    if not both:
        return None
    test = asdict(paired_difference([second[row] for row in both], [first[row] for row in both], 0))
    return {**test, "ci95": list(test["ci95"])}


# -- words that changed -----------------------------------------------------------------------------------------------


Kind = Literal["same", "gone", "new"]
CONTEXT = 12
"""Equal words and blanks that are shown around a change."""
COMPARED = 2500
"""Words between the first and the last change that are compared; what follows them counts as replaced."""
_PIECES = re.compile(r"\s+|\[\w+\]|\w+|[^\w\s]")
_WORDS = re.compile(r"\s+|\[\w+\]\s*|\w+\s*|[^\w\s]\s*")  # its own blank would be like every other blank


@dataclass(frozen=True, slots=True)
class TextStretch:
    """A stretch of text that two versions share, that only the first has (`gone`), or only the second (`new`)."""

    kind: Kind
    text: str


def changes(one: str, two: str, keep: int | None = None) -> list[TextStretch]:
    """The changes from text `one` to `two`, by words.

    Args:
        keep: equal words and blanks to leave around a change; the rest of a long equal stretch becomes an ellipsis.
            None keeps all.
    """
    pieces = (piece for gone, new in _stretches(one, two) for piece in _pieces(gone, new))
    runs = [(kind, [text for _, text in group]) for kind, group in groupby(pieces, key=itemgetter(0))]
    return [
        TextStretch(kind, _shortened(texts, at == 0, at == len(runs) - 1, keep if kind == "same" else None))
        for at, (kind, texts) in enumerate(runs)
    ]


def _stretches(one: str, two: str) -> Iterator[tuple[str, str]]:
    """Both texts in pairs of stretches, alike or not."""
    first, second = (_WORDS.findall(text) for text in (one, two))
    start, end = _alike(first, second)
    yield "".join(first[:start]), "".join(second[:start])
    old, new = (words[start : len(words) - end] for words in (first, second))
    matcher = difflib.SequenceMatcher(None, old[:COMPARED], new[:COMPARED], autojunk=False)
    for _, a0, a1, b0, b1 in matcher.get_opcodes():
        yield "".join(old[a0:a1]), "".join(new[b0:b1])
    yield "".join(old[COMPARED:]), "".join(new[COMPARED:])
    yield "".join(first[len(first) - end :]), "".join(second[len(second) - end :])


def _pieces(gone: str, new: str) -> Iterator[tuple[Kind, str]]:
    """Words and blanks of a stretch; those that both begin or end with are the same."""
    first, second = (_PIECES.findall(text) for text in (gone, new))
    start, end = _alike(first, second)
    yield from (("same", piece) for piece in first[:start])
    yield from (("gone", piece) for piece in first[start : len(first) - end])
    yield from (("new", piece) for piece in second[start : len(second) - end])
    yield from (("same", piece) for piece in first[len(first) - end :])


def _alike(one: Sequence[str], two: Sequence[str]) -> tuple[int, int]:
    """With how many words both begin, and with how many of those after them both end."""
    start = next((at for at, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two)))
    ends = zip(reversed(one[start:]), reversed(two[start:]), strict=False)
    return start, next((at for at, (a, b) in enumerate(ends) if a != b), min(len(one), len(two)) - start)


def _shortened(words: Sequence[str], is_first: bool, is_last: bool, keep: int | None) -> str:
    if keep is None or len(words) <= 2 * keep + 4:
        return "".join(words)
    before = "" if is_first else "".join(words[:keep])
    after = "" if is_last else "".join(words[-keep:])
    return f"{before} … {after}"


# -- whole prompts -----------------------------------------------------------------------------------------------------


def text_changes(candidate: Mapping[str, Any]) -> list[TextChange]:
    """What a candidate of the ledger says of tools in the place of the task's own texts."""
    if "tool_texts" not in candidate:
        return []
    shown = candidate["tool_texts"]
    return [TextChange("texts of tools", ERASED, ERASED)] if shown is None else tool_changes(shown)


def tool_differences(one: Mapping[str, Any], two: Mapping[str, Any]) -> list[TextChange]:
    """What differs between two candidates of one task, by tool and argument."""
    first, second = ({change.what: change for change in text_changes(each)} for each in (one, two))
    found = []
    for what in dict.fromkeys([*first, *second]):
        before = first[what].after if what in first else second[what].before
        after = second[what].after if what in second else first[what].before
        if before != after:
            found.append(TextChange(what, before, after))
    return found


def compared_texts(one: Mapping[str, Any], two: Mapping[str, Any]) -> tuple[str, str]:
    """Two prompts as `prompt_text` gives them, with the texts of tools that differ under them."""
    texts, changed = (prompt_text(one), prompt_text(two)), tool_differences(one, two)
    if not changed:
        return texts
    first = "\n".join(f"{change.what}: {change.before or NO_TEXT}" for change in changed)
    second = "\n".join(f"{change.what}: {change.after or NO_TEXT}" for change in changed)
    return f"{texts[0]}\n[tools]\n{first}", f"{texts[1]}\n[tools]\n{second}"


def whole_prompt(candidate: Mapping[str, Any]) -> str:
    """All messages of a candidate, examples among them, each under its role, and its own texts of tools; ERASED when
    its text was erased."""
    parts = [f"[{part['role']}]\n{part['content']}" for part in candidate["template"] or ()] or [ERASED]
    own = "\n".join(f"{change.what}: {change.after or NO_TEXT}" for change in text_changes(candidate))
    return "\n\n".join([*parts, *([f"[tools]\n{own}"] if own else [])])


def change_lines(candidate: Mapping[str, Any]) -> list[str]:
    """The texts of tools of one prompt, a line each, after those of the task."""
    return [f"{each.what}: {each.before or NO_TEXT} -> {each.after or NO_TEXT}" for each in text_changes(candidate)]
