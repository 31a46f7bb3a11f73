"""The wording of a run, the same on every surface: terminal, report, web page, notebook.

Scores and differences are given in [0, 1] and [-1, 1] and written as points: 0 to 100.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from agent.release.prompt_file import holds_prompt
from agent.release.result import RunResult
from agent.release.versions import NOUNS, noun_of
from agent.results.base import CostedResult, SideName
from agent.results.breakdown import Calibration
from agent.results.run_parts import Carried, NotWorse, ParetoRow, Winner
from agent.stats.figures import chance, evidence, gain, paired_test, points
from agent.stats.intervals import SIGNIFICANT, shown

if TYPE_CHECKING:
    from agent.results.recorded import RecordedPrompt

SIDES: Sequence[tuple[SideName, str]] = (("baseline", "your prompt"), ("winner", "best found"))
"""The two prompts of a result: keys and display names."""
MIGRATED: Sequence[tuple[SideName, str]] = (("baseline", "old model"), ("winner", "new model"))
"""SIDES for a migration: the released prompt on the old and on the new model."""
RELEASED = "the released prompt"
"""The name of trial 0 of a migration."""
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


def cost_line(result: CostedResult) -> str:
    """Return calls, tokens, dollars and seconds in one line."""
    made = ", ".join(f"{role} {count}" for role, count in result.calls_made.items()) or "none"
    cached = result.calls["cached"]
    tokens = f"{result.tokens.prompt + result.tokens.completion:,} tokens{' (cached replies included)' * bool(cached)}"
    lost = f" (up to {dollars(result.lost_usd)} of it for failed calls)" if result.lost_usd else ""
    paid = dollars(result.cost_usd, result.unpriced) + lost
    return f"calls: {made}, from the ledger {cached}; {tokens}, {paid}, {result.seconds:.0f} s"


def noun(of: Mapping[str, Any] | RunResult) -> str:
    """Return what a run searches, given its ledger row or result."""
    path = of.release.path if isinstance(of, RunResult) else (of.get("result") or {}).get("release") or ""
    return noun_of(path)


def yours(of: Mapping[str, Any] | RunResult) -> str:
    """Return the name of the user's own version."""
    return f"your {noun(of)}"


def verb(name: str, singular: str) -> str:
    """Return a name with its verb: "your prompt gets", "your texts get"."""
    is_plural = name.rpartition(" ")[2] in NOUNS.values()
    plural = {"was": "were", "is": "are"}.get(singular) or singular.removesuffix("s")
    return f"{name} {plural if is_plural else singular}"


def own_prompt(of: Mapping[str, Any] | RunResult) -> str:
    """Return the name of trial 0, given a run's ledger row or result."""
    is_migration = of.migration if isinstance(of, RunResult) else (of["options"] or {}).get("migrates")
    return RELEASED if is_migration else yours(of)


def sides(result: RunResult) -> Sequence[tuple[SideName, str]]:
    """Return the prompts of a result as in SIDES. Only one if your own prompt is the best."""
    if result.migration is not None:
        return MIGRATED
    both: Sequence[tuple[SideName, str]] = (("baseline", yours(result)), SIDES[1])
    return both[:1] if result.is_own else both


def side_name(result: RunResult, side: SideName) -> str:
    """Return the name of a side of a result in a sentence."""
    name = dict([*SIDES, *sides(result)])[side]
    return name if name.startswith("your") else f"the {name}"


def winner_name(result: RunResult) -> str:
    """Return the name of the winner in a sentence."""
    return side_name(result, "baseline" if result.is_own else "winner")


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


def continued(run: Mapping[str, Any]) -> str:
    """Return how to continue a run without a result."""
    if run["result_hash"] is not None:
        return f"`optimize history {run['id']}` shows the rest"
    command = (run["options"] or {}).get("command")
    hint = "" if command in NEVER_CACHED else "; paid replies are reused"
    if not command:
        return f"continue it with `optimize resume {run['id']}`{hint}"
    return f"run `optimize {command}` again with the same arguments{hint}"


def ships_prompt(result: RunResult) -> bool:
    """Return whether the run released a prompt, not the state of a custom program."""
    return holds_prompt(result.release.path)


def verdict(result: RunResult) -> str:
    """Return whether a search improved the prompt, as a sentence without full stop."""
    lift = result.lift
    gained = f"{gain(lift.diff)} points on {lift.n} sealed test rows"
    if (moved := result.migration) is not None:
        said = at_most_worse(moved.test, moved.model)
        if result.decision == "promote":
            return f"Migrated: {result.model} is {said}"
        return f"Held back: {result.model} is {said}" if moved.test.shown else f"Keep {moved.model}: {said}"
    if stopped_before_search(result):
        return f"Keep {yours(result)}: no gain could be shown, so nothing was searched"
    if only_scored(result):
        return f"{verb(yours(result), 'was')} scored, and nothing was searched".capitalize()
    if result.decision == "promote":
        return (
            f"{result.reference_won.capitalize()} is better: {gained}" if result.reference_won else f"Better: {gained}"
        )
    if result.is_own or lift.wins + lift.losses == 0:
        return _kept(result)
    sign = shown(lift.ci95, lift.p_value)
    if sign:
        return f"Held back: {gained}" if sign > 0 else f"Keep {yours(result)}: the best found is worse, {gained}"
    if lift.p_value < SIGNIFICANT:
        return f"Keep {yours(result)}: {gained} is not shown, its 95 % interval holds 0"
    return f"Keep {yours(result)}: {gained} is not significant"


def _kept(result: RunResult) -> str:
    left_out = result.untested
    if result.blocked:
        return f"Keep {yours(result)}: the best found scores the same on {result.lift.n} sealed test rows"
    if result.search_ended and result.trials["complete"] == (result.baseline.dev_rows is None):
        return f"Keep {yours(result)}: the search ended before another prompt had seen all of dev"
    if left_out is not None and not left_out.is_chance:
        return f"Keep {yours(result)}: a prompt with a higher dev score was not tested"
    if result.cheaper is not None:
        return f"Keep {yours(result)}: it costs less than the best on dev"
    if left_out is not None:
        return f"Keep {yours(result)}: no prompt that saw all of dev scored higher"
    return f"Keep {yours(result)}: nothing better was found"


def untested(result: RunResult) -> str:
    """Return which prompt led yours on dev untested, why, and how to test it. "" if none."""
    found = result.untested
    if found is None or result.decision == "promote":
        return ""
    is_whole = found.rows == found.dev_rows
    on, there = ("dev", "") if is_whole else (f"{found.rows} of {found.dev_rows} dev rows", " there")
    what = f"a prompt scored {points(found.dev)} on {on} (yours {points(found.baseline)}{there})"
    chance_said = f", a difference that chance explains ({chance(found.p_value)})," if found.is_chance else ""
    following = f"; next: {found.next}" if found.next else ""
    return f"{what}{chance_said} and was not tested, because {found.why}{following}"


def outcome(result: RunResult) -> str:
    """Return how a search ended, in a few words for a list."""
    if result.migration is not None:
        return "migrated, released" if result.decision == "promote" else "old model kept"
    if result.decision == "promote":
        return "better, released"
    return "better, held back" if held_back(result) else f"{yours(result)} kept"


def sealed_score(result: RunResult, side: SideName) -> float | None:
    """Return a prompt's score on the test rows with scores of both."""
    if side == "baseline":
        return result.baseline.test if result.lift.baseline is None else result.lift.baseline
    return result.winner.test if result.lift.winner is None else result.lift.winner


def cheaper(result: RunResult) -> str:
    """Return how a cheaper winner compares with the best on dev. "" if the best was tested."""
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


def combined(found: Calibration) -> str:
    """Return what votes next to the model, as a clause. "" if the model decides alone."""
    if found.prior and found.prior.model_adds_nothing:
        return "the classifier trained on the train rows decides alone: the model adds nothing"
    if found.prior:
        weights = f"weight {found.prior.weight:.2f}, model {found.prior.model_weight:.2f}"
        return f"answers are combined with a classifier's vote (prior: {weights})"
    if near := found.neighbours:
        votes = f"the {near['k']:.0f} nearest train rows (weight {near['weight']:.2f})"
        return f"answers are combined with a kNN vote of {votes}"
    return ""


def against_references(result: RunResult) -> Iterator[str]:
    """Yield how the winner compares with each further baseline."""
    for one in result.references or ():
        if one.lift is not None:
            yield f"{one.name} scores {points(one.test)}; {winner_name(result)} against it: {paired_test(one.lift)}"
        elif one.why:
            yield f"{one.name} has no score: {one.why}"


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
    return (
        f"without a language model, {best.name} trained on the same {best.trained_on} rows {does}: "
        f"{points(best.test)} against {points(result.winner.test)} of {winner_name(result)}"
    )


def meaning(result: RunResult) -> str:
    """Return the test scores and the interval of the gain, in full sentences."""
    lift = result.lift
    own = points(sealed_score(result, "baseline"))
    if result.is_own:
        return f"Of 100 points {verb(yours(result), 'gets')} {own}, on {lift.n} rows that the search never saw."
    best, (low, high) = points(sealed_score(result, "winner")), map(gain, lift.ci95)
    return (
        f"Of 100 points {verb(side_name(result, 'baseline'), 'gets')} {own} and {winner_name(result)} {best}, "
        f"on {lift.n} rows that the search never saw. "
        f"With 95 % confidence the true difference lies between {low} and {high} points ({chance(lift.p_value)})."
    )


def promotion(promoted: Mapping[str, Any]) -> str:
    """Return who promoted a winner that was held back, why, and the reasons against it."""
    more = [f"{name}: {promoted[name]}" for name in ("reason", "against") if promoted[name]]
    return "; ".join([f"promoted by {promoted['actor']}", *more])


def released(result: RunResult, promoted: Mapping[str, Any] | None = None) -> str:
    """Return which prompt is released. `promoted`: a later promotion of a winner that was held back."""
    if promoted is not None:
        return f"the best found, {promotion(promoted)}"
    own = f"your own {noun(result)}" if result.migration is None else "the prompt of the old model"
    return "the best found" if result.decision == "promote" else own


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


def duration(seconds: float | None) -> str:
    """Return seconds as hours, minutes and seconds: 4 min 34 s."""
    minutes, rest = divmod(round(seconds or 0), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def cut(text: str, limit: int) -> str:
    """Return the text, or its first `limit` characters and the number of those omitted."""
    return text if len(text) <= limit else f"{text[:limit]} … ({len(text) - limit:,} more characters)"


def which(trial: Mapping[str, Any], result: RunResult | None, own: str) -> str:
    """Return whether a trial is the baseline (named by `own`), the best found, or both. "" for others."""
    is_winner = result is not None and trial["candidate_id"] == result.winner.candidate_id
    return " and ".join([own] * (trial["number"] == 0) + [SIDES[1][1]] * is_winner)


# -- a prompt ---------------------------------------------------------------------------------------------------------


def size(tokens_a_call: int, prompt_tokens: int) -> str:
    """Return a length in words, measured or else estimated.

    >>> size(1354, 245), size(0, 245)
    ('1,354 tokens a call', 'about 245 prompt tokens')
    """
    return f"{tokens_a_call:,} tokens a call" if tokens_a_call else f"about {prompt_tokens:,} prompt tokens"


def sizes(front: Sequence[ParetoRow]) -> tuple[str, list[int]]:
    """Return the head and the figures of a size column: measured if all are."""
    if all(row.tokens_a_call for row in front):
        return "tokens a call", [row.tokens_a_call for row in front]
    return "prompt tokens, about", [row.prompt_tokens for row in front]


def design(prompt: Winner | RecordedPrompt) -> str:
    """Return technique, layout, examples and retrieval of a prompt."""
    parts = [prompt.technique, prompt.format, f"{prompt.n_examples} examples"]
    if picks := prompt.picks:
        parts[-1] += f" ({picks['k']} picked for each input by {picks['retriever']})"
    if found := prompt.passages:
        overlap = f", {found['overlap']} overlapping" if found["overlap"] else ""
        parts.append(f"{found['k']} passages by {found['retriever']}, up to {found['chunk']} letters each{overlap}")
    return ", ".join(parts)


def carried(row: Carried) -> tuple[str, str, str]:
    """Return a part's gain in points, its 95 % interval and source. "?": the sign is unclear."""
    low, high = row.ci95
    source = {"measured": "measured", "unknown": "unknown"}.get(row.how, "estimated from all trials")
    return ("?" if row.how == "unknown" else f"{row.points:+.1f}"), f"{low:+.1f} to {high:+.1f}", source


# -- what not every run has -------------------------------------------------------------------------------------------


def held_back(result: RunResult) -> list[str]:
    """Return the reasons against releasing a winner with a significant gain; empty otherwise."""
    is_shown = shown(result.lift.ci95, result.lift.p_value) > 0
    if result.migration is not None:
        is_shown = result.migration.test.shown
    return list(result.blocked) if is_shown else []
