"""The wording of a run, the same on every surface: terminal, report, web page, notebook.

Scores and differences are given in [0, 1] and [-1, 1] and written as points: 0 to 100.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.evaluate.verdict import shown
from agent.release.prompt_file import holds_prompt
from agent.release.result import RunResult
from agent.results.base import SideName
from agent.results.breakdown import Calibration
from agent.results.checks import Difference
from agent.results.run_parts import Migrated, NotWorse
from agent.stats.intervals import SIGNIFICANT

SIDES: Sequence[tuple[SideName, str]] = (("baseline", "your prompt"), ("winner", "best found"))
"""The two prompts of a result: keys and display names."""


@dataclass(frozen=True, slots=True)
class BaselineWords:
    """How trial 0 of a run is called: `name`, in a sentence (`phrase`), next to another prompt (`short`)."""

    name: str
    phrase: str
    short: str


OWN = BaselineWords("your prompt", "your prompt", "yours")
RELEASED = BaselineWords("released prompt", "the released prompt", "the released one")
MIGRATED: Sequence[tuple[SideName, str]] = (("baseline", "old model"), ("winner", "new model"))
"""SIDES for a migration: the released prompt on the old and on the new model."""


NEVER_CACHED = ("check", "bless")
"""Commands that never reuse paid replies."""


def dollars(usd: float | None, unpriced: Sequence[str] = (), digits: int = 4) -> str:
    """Return US dollars for a sentence; None: price unknown, `unpriced`: models without a price."""
    if usd is None:
        return "unknown price"
    known = f"${usd:.{digits}f}"
    return known if not unpriced else f"{known} and an unknown price" if usd else "unknown price"


def amount(usd: float | None, digits: int = 4) -> str:
    """Return US dollars without their sign for a table; "unknown" for None."""
    return "unknown" if usd is None else f"{usd:.{digits}f}"


def spent(usd: float, unpriced: Sequence[str], lost: float | None) -> str:
    """Return the cost of a run in US dollars, and the upper bound (`lost`) spent on failed calls."""
    paid = dollars(usd, unpriced)
    return f"{paid} (up to {dollars(lost)} of it for failed calls)" if lost else paid


def baseline_words(of: Mapping[str, Any] | RunResult) -> BaselineWords:
    """Return the wording for trial 0 of a run, given its row of the ledger or its result."""
    is_migration = of.migration if isinstance(of, RunResult) else (of["options"] or {}).get("migrates")
    return RELEASED if is_migration else OWN


def sides(result: RunResult) -> Sequence[tuple[SideName, str]]:
    """Return the prompts of a result as in SIDES; only one if your own prompt is the best."""
    if result.migration is not None:
        return MIGRATED
    return SIDES[:1] if result.is_own else SIDES


def stopped_before_search(result: RunResult) -> bool:
    """Return whether the preflight ended the run because no gain could be shown."""
    return result.preflight is not None and not result.preflight.worth and sum(result.trials.values()) == 1


def only_scored(result: RunResult) -> bool:
    """Return whether only your prompt was scored, as asked for (`-n 1`)."""
    return sum(result.trials.values()) == 1 and not result.search_ended and not stopped_before_search(result)


def without_result(run: Mapping[str, Any]) -> str:
    """Return why a run has no search result, as a phrase after its id."""
    if kind := (run["result"] or {}).get("kind"):
        return f"not a search ({str(kind).replace('_', ' ')})"
    if run["result_hash"] is not None:
        return "its result was erased"
    return f"this run is {run['status']}" + (f" ({run['error']})" if run["error"] else "")


def instead_of_result(run: Mapping[str, Any]) -> str:
    """Return the command to run for a run without a result."""
    command = (run["options"] or {}).get("command")
    if not command or run["result_hash"] is not None:
        return f"`optimize history {run['id']}` shows it"
    hint = "" if command in NEVER_CACHED else "; paid replies are reused"
    return f"run `optimize {command}` again with the same arguments{hint}"


def continued(run: Mapping[str, Any]) -> str:
    """Return how to continue a run without a result, as a sentence."""
    command = (run["options"] or {}).get("command")
    if not command:
        return f"Continue it with optimize resume {run['id']}; paid replies are reused."
    hint = "" if command in NEVER_CACHED else "; paid replies are reused"
    return f"Run optimize {command} again{hint}."


def ships_prompt(result: RunResult) -> bool:
    """Return whether the run released a prompt, not the state of a custom program."""
    return holds_prompt(result.release.path)


def verdict(result: RunResult) -> str:
    """Return whether a search improved the prompt, as a sentence without full stop."""
    lift = result.lift
    gained = f"{gain(lift.diff)} points on {lift.n} sealed test rows"
    if result.migration is not None:
        return _migration_verdict(result, result.migration)
    if stopped_before_search(result):
        return "Keep your prompt: no gain could be shown, so nothing was searched"
    if only_scored(result):
        return "Your prompt was scored, and nothing was searched"
    if result.decision == "promote":
        return f"Better: {gained}"
    if result.is_own or (lift.wins + lift.losses == 0 and not result.blocked):
        return _kept(result)
    if lift.wins + lift.losses == 0:
        return f"Keep your prompt: the best found scores the same on {lift.n} sealed test rows"
    sign = shown(lift.ci95, lift.p_value)
    if sign:
        return f"Held back: {gained}" if sign > 0 else f"Keep your prompt: the best found is worse, {gained}"
    if lift.p_value < SIGNIFICANT:
        return f"Keep your prompt: {gained} is not shown, its 95 % interval holds 0"
    return f"Keep your prompt: {gained} is not significant"


def _kept(result: RunResult) -> str:
    left_out = result.untested
    if result.search_ended and result.trials["complete"] == (result.baseline.dev_rows is None):
        return "Keep your prompt: the search ended before another prompt had seen all of dev"
    if left_out is not None and not left_out.is_chance:
        return "Keep your prompt: a prompt with a higher dev score was not tested"
    if result.cheaper is not None:
        return "Keep your prompt: it costs less than the best on dev"
    if left_out is not None:
        return "Keep your prompt: no prompt that saw all of dev scored higher"
    return "Keep your prompt: nothing better was found"


def untested(result: RunResult) -> str:
    """Return which prompt led yours on dev untested, why, and how to test it; "" if none."""
    found = result.untested
    if found is None or result.decision == "promote":
        return ""
    is_whole = found.rows == found.dev_rows
    on, there = ("dev", "") if is_whole else (f"{found.rows} of {found.dev_rows} dev rows", " there")
    what = f"a prompt scored {points(found.dev)} on {on} (yours {points(found.baseline)}{there})"
    chance_said = f", a difference that chance explains ({chance(found.p_value)})," if found.is_chance else ""
    following = f"; next: {found.next}" if found.next else ""
    return f"{what}{chance_said} and was not tested, because {found.why}{following}"


def _migration_verdict(result: RunResult, found: Migrated) -> str:
    said = at_most_worse(found.test, found.model)
    if result.decision == "promote":
        return f"Migrated: {result.model} is {said}"
    return f"Held back: {result.model} is {said}" if found.test.shown else f"Keep {found.model}: {said}"


def outcome(result: RunResult) -> str:
    """Return how a search ended, in a few words for a list."""
    if result.migration is not None:
        return "migrated, released" if result.decision == "promote" else "old model kept"
    if result.decision == "promote":
        return "better, released"
    return "better, held back" if held_back(result) else "your prompt kept"


def sealed_score(result: RunResult, side: SideName) -> float | None:
    """Return a prompt's score (0 to 1) on the test rows with scores for both prompts."""
    if side == "baseline":
        return result.baseline.test if result.lift.baseline is None else result.lift.baseline
    return result.winner.test if result.lift.winner is None else result.lift.winner


def uncorrected(result: RunResult) -> str:
    """Return why the winner's dev score is not corrected; "" if it is, or in older results."""
    why = "" if result.is_own else result.uncorrected
    return f"the dev score is not corrected: {why}" if why else ""


def cheaper(result: RunResult) -> str:
    """Return how a cheaper winner compares with the best on dev; "" if the best was tested."""
    found = result.cheaper
    if found is None:
        return ""
    kind = "fewer prompt tokens" if found.saved_in == "tokens" else "cheaper per call"
    saves = f"{100 * found.saved:.0f} % {kind} than the best on dev"
    if found.test is None:
        return f"{saves}; not compared: the best on dev has no score on the test rows"
    return f"{saves}, and {at_most_worse(found.test, 'it')}"


def at_most_worse(bound: NotWorse, other: str) -> str:
    """Return whether a loss of the margin is ruled out, with the figures."""
    margin = f"{100 * bound.margin:g} points"
    said = f"not worse than {other} by more than {margin}"
    said = said if bound.shown else f"a loss of more than {margin} against {other} is not ruled out"
    figures = f"{gain(bound.diff)} points on {bound.n} sealed test rows, at worst {100 * bound.low:+.1f}"
    return f"{said}: {figures} (one-sided 95 % limit)"


def calibration(result: RunResult) -> str:
    """Return how the best prompt is calibrated, in a sentence; "" without calibration."""
    found = result.calibration
    if found is None or not found.is_calibrated:
        return ""
    each = ", ".join(f"{label} {bias:+.2f}" for label, bias in found.bias.items())
    temperature = f", temperature {found.temperature:.2f}" if found.method != "label-free" else ""
    decides = combined(found)
    first = f"{decides[0].upper()}{decides[1:]}. " if decides else ""
    return f"{first}Answers are calibrated ({found.method}{temperature}): {cut(each, 600)}."


def combined(found: Calibration) -> str:
    """Return what votes next to the model, as a clause; "" if the model decides alone."""
    if found.prior:
        if found.prior.model_adds_nothing:
            return "the classifier trained on the train rows decides alone: the model adds nothing"
        weights = f"weight {found.prior.weight:.2f}, model {found.prior.model_weight:.2f}"
        return f"answers are combined with a classifier's vote (prior: {weights})"
    if not found.neighbours:
        return ""
    weight = found.neighbours["weight"]
    votes = f"the {found.neighbours['k']:.0f} nearest train rows"
    return f"answers are combined with a kNN vote of {votes} (weight {weight:.2f})"


def against_yardsticks(result: RunResult) -> str:
    """Return that the best yardstick matches or beats the winner; "" if it does not."""
    known = [one for one in result.yardsticks if one.diff is not None]
    if not known:
        return ""
    best = max(known, key=lambda one: one.test or 0.0)
    assert best.diff_ci95 is not None
    assert best.p_value is not None
    sign = shown(best.diff_ci95, best.p_value)
    if sign > 0:
        return ""
    does = "does better" if sign < 0 else "does as well within the margin of error"
    ours = "your prompt" if result.is_own else "the best found"
    return (
        f"without a language model, {best.name} trained on the same {best.trained_on} rows {does}: "
        f"{points(best.test)} against {points(result.winner.test)} of {ours}"
    )


def uneven(result: RunResult) -> str:
    """Return that the two prompts have scores on different test rows; "" if not."""
    own, best = result.baseline.test or 0, result.winner.test or 0
    moved = max(abs((sealed_score(result, "baseline") or 0) - own), abs((sealed_score(result, "winner") or 0) - best))
    if result.is_own or moved < 1e-9:
        return ""
    return f"sealed test scores are over the {result.lift.n} rows scored for both prompts"


def meaning(result: RunResult) -> str:
    """Return the test scores and the interval of the gain, in full sentences."""
    lift = result.lift
    yours = points(sealed_score(result, "baseline"))
    if result.is_own:
        return f"Of 100 points your prompt gets {yours}, on {lift.n} rows that the search never saw."
    best, (low, high) = points(sealed_score(result, "winner")), map(gain, lift.ci95)
    one, other = ("your prompt", "the best found") if result.migration is None else ("the old model", "the new one")
    return (
        f"Of 100 points {one} gets {yours} and {other} {best}, "
        f"on {lift.n} rows that the search never saw. "
        f"With 95 % confidence the true difference lies between {low} and {high} points ({chance(lift.p_value)})."
    )


def chance(p_value: float) -> str:
    """Return a p-value without powers of ten."""
    return "p < 0.0001" if p_value < 0.0001 else f"p = {p_value:.2g}"


def promotion(promoted: Mapping[str, Any]) -> str:
    """Return who promoted a winner that was held back, why, and the reasons against it."""
    more = [f"{name}: {promoted[name]}" for name in ("reason", "against") if promoted[name]]
    return "; ".join([f"promoted by {promoted['actor']}", *more])


def ending(result: RunResult, promoted: Mapping[str, Any] | None = None) -> str:
    """Return which prompt is released. `promoted`: a later promotion of a winner that was held back."""
    if promoted is not None:
        return f"The run kept your own prompt; since then the best found was {promotion(promoted)}."
    if result.decision == "promote":
        return "The best found is released."
    if result.migration is not None:
        return "The prompt of the old model is released."
    return "Your own prompt is released." if held_back(result) else "Your own prompt stays."


def certainty(result: RunResult) -> str:
    """Return interval and p-value of the paired test difference; "" if nothing was compared."""
    return "" if result.is_own else evidence(result.lift.ci95, result.lift.p_value)


def decision(result: Mapping[str, Any]) -> str:
    """Return how a run of any kind ended, in one or two words."""
    if result.get("kind") == "judge_calibration":
        return f"calibration: {'trusted' if result['trusted'] else 'not trusted'}"
    if result.get("kind") == "check":
        return f"check: {result['gate']}"
    if result.get("kind") == "customize":
        return f"{result['advice']['verdict']}: {result['advice']['arm']}"
    return str(result.get("decision") or result.get("kind") or "")


# -- numbers ----------------------------------------------------------------------------------------------------------


def points(value: float | None) -> str:
    """Return a score in points with one decimal; "-" for None."""
    return "-" if value is None else f"{100 * value:.1f}"


def bracketed(ci95: Sequence[float] | None) -> str:
    """Return the 95 % interval to append to a score: " (61.0 to 72.5)"; "" for None."""
    return f" ({points(ci95[0])} to {points(ci95[1])})" if ci95 else ""


def gain(value: float | None, ci95: Sequence[float] | None = None) -> str:
    """Return a signed difference in points with its 95 % interval in brackets; "-" for None."""
    if value is None:
        return "-"
    return f"{100 * value:+.1f}" + (f" ({gain_interval(ci95)})" if ci95 else "")


def gain_interval(ci95: Sequence[float]) -> str:
    """Return the ends of a difference's interval as signed points."""
    return f"{gain(ci95[0])} to {gain(ci95[1])}"


def evidence(ci95: Sequence[float], p_value: float) -> str:
    """Return the 95 % interval and the p-value of a paired difference."""
    return f"95 % CI {gain_interval(ci95)}, p = {p_value:.2g}"


def tally(wins: int, losses: int, ties: int) -> str:
    """Return the counts of pairs won, lost and tied."""
    return f"{wins} won, {losses} lost, {ties} tied"


def paired_test(test: Difference, rows: str = "") -> str:
    """Return a paired test in one line; `rows` describes its rows, as " on 9 rows"."""
    counts = tally(test.wins, test.losses, test.ties)
    return f"{gain(test.diff)} points{rows} ({evidence(test.ci95, test.p_value)}); {counts}"


def duration(seconds: float | None) -> str:
    """Return seconds as hours, minutes and seconds: 4 min 34 s."""
    minutes, rest = divmod(round(seconds or 0), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def cut(text: str, limit: int) -> str:
    """Return the text, or its first `limit` characters and the number of those omitted."""
    return text if len(text) <= limit else f"{text[:limit]} … ({len(text) - limit:,} more characters)"


def which(trial: Mapping[str, Any], result: RunResult | None, own: BaselineWords) -> str:
    """Return whether a trial is the baseline (named by `own`), the best found, or both; "" for others."""
    is_winner = result is not None and trial["candidate_id"] == result.winner.candidate_id
    return " and ".join([own.name] * (trial["number"] == 0) + [SIDES[1][1]] * is_winner)


# -- what not every run has -------------------------------------------------------------------------------------------


def held_back(result: RunResult) -> list[str]:
    """Return the reasons against releasing a winner with a significant gain; empty otherwise."""
    is_shown = shown(result.lift.ci95, result.lift.p_value) > 0
    if result.migration is not None:
        is_shown = result.migration.test.shown
    return list(result.blocked) if is_shown else []
