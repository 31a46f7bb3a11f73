"""What is said of a run in words, the same on every surface: terminal, report, web page, notebook. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any, Literal

from agent.release.gate import SIGNIFICANT, shown
from agent.release.prompt_file import holds_prompt
from agent.release.result import RunResult
from agent.release.result_breakdown import Carried, JudgeTrust, MetricPart, Preflight, Slice
from agent.release.result_parts import SideName

ERASED = "(erased)"
SIDES: Sequence[tuple[SideName, str]] = (("baseline", "your prompt"), ("winner", "best found"))
"""The two prompts of a result: their keys, and their names for people."""


def dollars(usd: float | None, unpriced: Sequence[str] = (), digits: int = 4) -> str:
    """What was paid, as far as prices are known; None where they are not."""
    if usd is None:
        return "unknown price"
    known = f"${usd:.{digits}f}"
    return known if not unpriced else f"{known} and an unknown price" if usd else "unknown price"


def amount(usd: float | None, digits: int = 4) -> str:
    """Dollars without their sign, for a table; "unknown" where nobody knows the price."""
    return "unknown" if usd is None else f"{usd:.{digits}f}"


def spent(usd: float, unpriced: Sequence[str], lost: float | None) -> str:
    """The dollars of a run, and how many of them brought nothing at most."""
    paid = dollars(usd, unpriced)
    return f"{paid} ({dollars(lost)} of it for calls that brought nothing, at most)" if lost else paid


def sides(result: RunResult) -> Sequence[tuple[SideName, str]]:
    """Those of SIDES that there are to tell of."""
    return SIDES[:1] if result.is_own else SIDES


def stopped_before_search(result: RunResult) -> bool:
    """Whether the preflight found that no gain can be shown, and was listened to: only the user's prompt was tried."""
    return result.preflight is not None and not result.preflight.worth and sum(result.trials.values()) == 1


def only_scored(result: RunResult) -> bool:
    """Whether nothing but the user's prompt was tried, as asked for (`-n 1`)."""
    return sum(result.trials.values()) == 1 and not result.search_ended and not stopped_before_search(result)


def without_result(run: Mapping[str, Any]) -> str:
    """Why there is no result, to be said after the run's id."""
    if run["result_hash"] is not None:
        return "its result was erased"
    return f"this run is {run['status']}" + (f" ({run['error']})" if run["error"] else "")


def instead_of_result(run: Mapping[str, Any]) -> str:
    """What to type for a run that has no result to show."""
    command = (run["options"] or {}).get("command")
    if not command or run["result_hash"] is not None:
        return f"`optimize history {run['id']}` shows it"
    is_asked_anew = command in ("check", "bless")  # what the model says now, whatever was bought
    kept = "" if is_asked_anew else ", what was paid is not asked twice"
    return f"it was `optimize {command}`: type its command again{kept}"


def ships_prompt(result: RunResult) -> bool:
    """Whether the run released a prompt, and not the state of a program of the user's own. Only a prompt that is held
    back can be promoted all the same: a label stands for prompts."""
    return holds_prompt(result.release.path)


def verdict(result: RunResult) -> str:
    """Did it get better? One sentence without its full stop, for the result of a search."""
    lift = result.lift
    gained = f"{100 * lift.diff:+.1f} points on {lift.n} sealed test rows"
    if stopped_before_search(result):
        return "Keep your prompt: no gain could be shown, so nothing was searched"
    if only_scored(result):
        return "Your prompt was scored, and nothing was searched"
    if result.decision == "promote":
        return f"Better: {gained}"
    if lift.wins + lift.losses == 0:
        if result.search_ended and result.trials["complete"] == 1:
            return "Keep your prompt: the search ended before anything else had seen the whole of dev"
        return "Keep your prompt: nothing better was found"
    sign = shown(lift.ci95, lift.p_value)
    if sign:
        return f"Held back: {gained}" if sign > 0 else f"Keep your prompt: the best found is worse, {gained}"
    if lift.p_value < SIGNIFICANT:
        return f"Keep your prompt: {gained} is not shown, its 95 % interval holds 0"
    return f"Keep your prompt: {gained} is not significant"


def tested(result: RunResult, side: SideName) -> float | None:
    """What a side scores on the sealed rows that both got a score on. A result of an older version does not say, and
    gives the mean over all that this side got one on."""
    both, all_rows = {
        "baseline": (result.lift.baseline, result.baseline.test),
        "winner": (result.lift.winner, result.winner.test),
    }[side]
    return all_rows if both is None else both


def uncorrected(result: RunResult) -> str:
    """Why the dev score of the best found was not corrected; "" where it was, or an older version does not say."""
    why = "" if result.is_own else result.uncorrected
    return f"the dev score is not corrected: {why}" if why else ""


def yardsticks(result: RunResult) -> list[tuple[str, str, str]]:
    """What is reached without a language model: what it is, its score on dev and on the sealed test with interval."""
    found = []
    for one in result.yardsticks:
        interval = f" ({points(one.ci95[0])} to {points(one.ci95[1])})" if one.ci95 else ""
        found.append((one.name, points(one.dev), f"{points(one.test)}{interval}"))
    return found


def against_yardsticks(result: RunResult) -> str:
    """Said where the best of them does better than the best found, or as well as far as this test can tell; "" where
    the best found is better than all of them, or nothing was compared."""
    known = [one for one in result.yardsticks if one.diff is not None]
    if not known:
        return ""
    best = max(known, key=lambda one: one.test or 0.0)
    assert best.diff_ci95 is not None
    assert best.p_value is not None
    sign = shown(best.diff_ci95, best.p_value)
    if sign > 0:
        return ""
    does = "does better" if sign < 0 else "does as well, as far as these rows can tell"
    ours = "your prompt" if result.is_own else "the best found"
    return (
        f"without a language model, {best.name} trained on the same {best.trained_on} rows {does}: "
        f"{points(best.test)} against {points(result.winner.test)} of {ours}"
    )


def uneven(result: RunResult) -> str:
    """Said where the two prompts did not get a score on the same sealed rows; "" where they did."""
    own, best = result.baseline.test or 0, result.winner.test or 0
    moved = max(abs((tested(result, "baseline") or 0) - own), abs((tested(result, "winner") or 0) - best))
    if result.is_own or moved < 1e-9:
        return ""
    return f"the scores on the sealed test are over the {result.lift.n} rows that both prompts got a score on"


def meaning(result: RunResult) -> str:
    """The same in plain words: the scores, and how far the gain may be off."""
    lift = result.lift
    yours = points(tested(result, "baseline"))
    if result.is_own:
        return f"Of 100 points your prompt gets {yours}, on {lift.n} rows that the search never saw."
    low, high = (gain(end) for end in lift.ci95)
    return (
        f"Of 100 points your prompt gets {yours} and the best found {points(tested(result, 'winner'))}, on {lift.n} "
        f"rows that the search never saw. "
        f"With 95 % confidence the true difference lies between {low} and {high} points ({chance(lift.p_value)})."
    )


def chance(p_value: float) -> str:
    """A p-value for people who do not read powers of ten."""
    return "p < 0.0001" if p_value < 0.0001 else f"p = {p_value:.2g}"


def promotion(promoted: Mapping[str, Any]) -> str:
    """Who promoted a winner that its run had held back, why, and what was against it."""
    more = [f"{name}: {promoted[name]}" for name in ("reason", "against") if promoted[name]]
    return "; ".join([f"promoted by {promoted['actor']}", *more])


def ending(result: RunResult, promoted: Mapping[str, Any] | None = None) -> str:
    """What follows from it: which prompt is released. `promoted`: who decided otherwise since."""
    if promoted is not None:
        return f"The run kept your own prompt; since then the best found was {promotion(promoted)}."
    if result.decision == "promote":
        return "The best found is released."
    return "Your own prompt is released." if held_back(result) else "Your own prompt stays."


def certainty(result: RunResult) -> str:
    """How sure that is: interval and p-value of the paired difference; "" where nothing was compared."""
    if result.is_own:
        return ""
    low, high = (100 * value for value in result.lift.ci95)
    return f"95 % CI {low:+.1f} to {high:+.1f}, p = {result.lift.p_value:.2g}"


def decision(result: Mapping[str, Any]) -> str:
    """One or two words for a list of runs, of what the ledger has of a run of any kind."""
    if result.get("kind") == "judge_calibration":
        return f"calibration: {'trusted' if result['trusted'] else 'not trusted'}"
    if result.get("kind") == "check":
        return f"check: {result['gate']}"
    return str(result.get("decision") or result.get("kind") or "")


def points(value: float | None) -> str:
    """A score of 0 to 1 as 0 to 100 with one decimal; "-" where there is none."""
    return "-" if value is None else f"{100 * value:.1f}"


def gain(value: float | None, ci95: Sequence[float] | None = None) -> str:
    """A difference of scores in points, with its sign, and its interval in brackets where there is one."""
    if value is None:
        return "-"
    return f"{100 * value:+.1f}" + (f" ({100 * ci95[0]:+.1f} to {100 * ci95[1]:+.1f})" if ci95 else "")


def duration(seconds: float | None) -> str:
    """Seconds as people say them: 4 min 34 s."""
    minutes, rest = divmod(round(seconds or 0), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def cut(text: str, limit: int) -> str:
    """The text, or its first `limit` characters and how many more there are."""
    return text if len(text) <= limit else f"{text[:limit]} … ({len(text) - limit:,} more characters)"


def design(technique: str, layout: str, demos: int) -> str:
    """How a candidate, a trial or a winner is made."""
    return f"{technique}, {layout}, {demos} demos"


def prompt_text(candidate: Mapping[str, Any]) -> str:
    """A candidate's messages without its demo turns, each under its role; "(erased)" when its text was."""
    template = candidate["template"]
    if not template:
        return ERASED
    if candidate["format"] != "inline" and candidate["demos"]:
        first = len(template) - 1 - 2 * len(candidate["demos"])
        template = [*template[:first], {"role": "", "content": f"({len(candidate['demos'])} demos)"}, template[-1]]
    parts = (f"[{part['role']}]\n{part['content']}" if part["role"] else part["content"] for part in template)
    return "\n".join(parts)


# -- what not every run has -------------------------------------------------------------------------------------------


def held_back(result: RunResult) -> list[str]:
    """What keeps the winner back although its gain was shown; empty otherwise."""
    is_shown = shown(result.lift.ci95, result.lift.p_value) > 0
    return list(result.blocked) if is_shown else []


def before_search(result: RunResult) -> str:
    """Was there something to win, as it looked after the baseline; "" when nobody asked."""
    found = result.preflight
    return f"{found.why}{_noise(found)}" if found is not None and found.why else ""


def _noise(found: Preflight) -> str:
    """How many rows changed when they were asked again; a run of an older version does not say of how many."""
    noise, rows = found.noise, found.noise_rows
    if noise is None:
        return ""
    if rows is None:
        return f"; asked twice, {100 * noise:.0f} % of the rows changed"
    return f"; asked twice, {round(noise * rows)} of {rows} rows changed"


def metric_name(row: MetricPart) -> str:
    return f"{row.metric} ({row.field})" if row.field else row.metric


def worth_parts(result: RunResult) -> Sequence[MetricPart]:
    """The lines of each metric, where there is more than the score itself to tell."""
    found = result.metrics
    plainly = len(found) == 2 and all(found[0].side(side).mean == 1.0 for side, _ in SIDES)
    scored = all(row.side(side).unscored == 0 for row in found for side, _ in SIDES)
    return () if plainly and scored else found


def gaps(result: RunResult, slice_: Slice) -> str:
    """How far the groups of a slice lie apart, by prompt, where that is more than chance; "" for a single group."""
    found = [f"{name} {_gap(*slice_.gap(side))}" for side, name in sides(result)]
    return f"largest gap between groups: {'; '.join(found)}" if slice_.winner_gap is not None else ""


def _gap(gap: float | None, p_value: float | None) -> str:
    if gap is None:
        return "-"
    if p_value is None:  # of an older version
        return f"{points(gap)} points, not tested"
    if p_value < SIGNIFICANT:
        return f"{points(gap)} points ({chance(p_value)})"
    return f"no more than chance makes ({chance(p_value)})"


def steadiness(result: RunResult) -> list[str]:
    """How alike the answers to one row are when it is asked again; a title and a line per prompt, or nothing."""
    lines = []
    for side, name in sides(result):
        if result.consistency and (asked := result.consistency.side(side)):
            every, some = points(asked.pass_hat_k), points(asked.pass_at_k)
            lines.append(
                f"{name}: same answer {points(asked.agreement)} % of the time, entropy {asked.entropy:.2f} bits; "
                f"right every time {every} %, at least once {some} %"
            )
    if not lines or not result.consistency:
        return []
    first = result.consistency.winner or result.consistency.baseline
    assert first is not None
    return [f"asked {first.k} times each, {first.rows} test rows:", *lines]


def variety(result: RunResult) -> list[str]:
    """How varied the texts of a field are, by prompt."""
    lines = []
    for row in result.variety:
        for side, name in sides(result):
            if (texts := row.side(side)) is not None and texts.distinct_2 is not None:
                lines.append(
                    f"variety of {row.field}, {name}: {100 * texts.distinct_2:.0f} % of its word pairs are "
                    f"different ones, {100 * texts.openings:.0f} % of its openings"
                )
    return lines


def judge_trust(judge: JudgeTrust) -> str:
    """Whether a judge has earned trust, against people's ratings."""
    trust = "trusted" if judge.trusted else "NOT TO BE TRUSTED"
    if judge.kappa is not None and judge.ci95 is not None:
        low, high = judge.ci95
        trust += f", kappa {judge.kappa:.2f} ({low:.2f} to {high:.2f})"
    return trust + ("" if judge.trusted else f": {judge.why}")


def judge_order(judge: JudgeTrust) -> str:
    """How often a pairwise judge changed its mind with the order of the two; "" for other judges."""
    return f"{judge.turned} of {judge.compared} verdicts changed with the order" if judge.compared else ""


def carried(row: Carried) -> tuple[str, str]:
    """A part's gain in points ("?" where its sign cannot be told), and where the number comes from."""
    sources = {"measured": "measured", "unknown": "cannot be told"}
    source = sources.get(row.how, "estimated from all trials")
    return ("?" if row.how == "unknown" else f"{row.points:+.1f}"), source


# -- words that changed -----------------------------------------------------------------------------------------------


Kind = Literal["same", "gone", "new"]
COMPARED = 2500
"""So many words between the first and the last change are compared; what follows them is told as replaced."""
_PIECES = re.compile(r"\s+|\[\w+\]|\w+|[^\w\s]")
_WORDS = re.compile(r"\s+|\[\w+\]\s*|\w+\s*|[^\w\s]\s*")  # a blank of its own would be like every other blank


@dataclass(frozen=True, slots=True)
class Change:
    """A stretch of text that two versions share, that only the first has (`gone`), or only the second (`new`)."""

    kind: Kind
    text: str


def changes(one: str, two: str, keep: int | None = None) -> list[Change]:
    """From `one` to `two` by words. `keep`: so many equal words and blanks are left beside a change, the rest of a long
    equal stretch becomes an ellipsis; None keeps all."""
    pieces = (piece for gone, new in _stretches(one, two) for piece in _pieces(gone, new))
    found = [(kind, [text for _, text in group]) for kind, group in groupby(pieces, key=itemgetter(0))]
    return [
        Change(kind, _shortened(texts, at == 0, at == len(found) - 1, keep if kind == "same" else None))
        for at, (kind, texts) in enumerate(found)
    ]


def _stretches(one: str, two: str) -> Iterator[tuple[str, str]]:
    """Both texts in stretches, those at one place beside each other, alike or not."""
    first, second = (_WORDS.findall(text) for text in (one, two))
    start, end = _alike(first, second)
    yield "".join(first[:start]), "".join(second[:start])
    mine, others = (words[start : len(words) - end] for words in (first, second))
    matcher = difflib.SequenceMatcher(None, mine[:COMPARED], others[:COMPARED], autojunk=False)
    for _, a0, a1, b0, b1 in matcher.get_opcodes():
        yield "".join(mine[a0:a1]), "".join(others[b0:b1])
    yield "".join(mine[COMPARED:]), "".join(others[COMPARED:])
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
