"""The wording of a run, the same on every surface: terminal, report, web page, notebook.

Scores and differences are given in [0, 1] and [-1, 1] and written as points: 0 to 100.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent.release.result import RunResult
from agent.release.versions import NOUNS, noun_of
from agent.results.base import CostedResult, SideName
from agent.results.breakdown import Calibration
from agent.results.run_parts import (
    Carried,
    Change,
    Cheaper,
    Lift,
    NotWorse,
    ParetoRow,
    PromptSize,
    Untested,
    Winner,
    Yardstick,
)
from agent.safe_text import counted, listed
from agent.shipped import REASONED
from agent.stats.figures import chance, evidence, gain, points
from agent.stats.power import SIGNIFICANT, shown

if TYPE_CHECKING:
    from agent.results.recorded import RecordedPrompt

Sides = Sequence[tuple[SideName, str]]
SIDES: Sides = (("baseline", "your prompt"), ("winner", "best found"))
"""The two prompts of a result: keys and display names."""
MIGRATED: Sides = (("baseline", "old model"), ("winner", "new model"))
"""SIDES for a migration: the released prompt on the old and on the new model."""
RELEASED = "the released prompt"
"""The name of trial 0 of a migration."""
NEVER_CACHED = ("check", "bless")
"""Commands that never reuse paid replies."""
ABOUT_THE_SAME = 0.05
MOST_TOOLS = 8
"""Maximum number of tools named."""


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
    reused = f", from the ledger {cached}" * bool(cached)
    return f"calls: {made}{reused}; {tokens}, {paid}, {result.seconds:.0f} s"


@dataclass(frozen=True, slots=True)
class PromptNames:
    """The names of a run's two prompts; `noun` is what it searches, and with `is_own` the winner is your own."""

    noun: str = "prompt"
    is_migration: bool = False
    is_own: bool = False

    @property
    def yours(self) -> str:
        """The name of the user's own version."""
        return f"your {self.noun}"

    @property
    def own(self) -> str:
        """The name of trial 0."""
        return RELEASED if self.is_migration else self.yours

    @property
    def sides(self) -> Sides:
        """The prompts as in SIDES. Only one if your own prompt is the best."""
        if self.is_migration:
            return MIGRATED
        own: Sides = (("baseline", self.yours),)
        return own if self.is_own else (*own, SIDES[1])

    def side(self, side: SideName) -> str:
        """Return the name of a side in a sentence."""
        name = dict([*SIDES, *self.sides])[side]
        return name if name.startswith("your") else f"the {name}"

    @property
    def winner(self) -> str:
        """The name of the winner in a sentence."""
        return self.side("baseline" if self.is_own else "winner")


def names_of(result: RunResult) -> PromptNames:
    """Return how a result's prompts are called."""
    return PromptNames(noun_of(result.release.path), result.migration is not None, result.is_own)


def verb(name: str, singular: str) -> str:
    """Return a name with its verb: "your prompt gets", "your texts get"."""
    is_plural = name.rpartition(" ")[2] in NOUNS.values()
    plural = {"was": "were", "is": "are"}.get(singular) or singular.removesuffix("s")
    return f"{name} {plural if is_plural else singular}"


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


def verdict(result: RunResult) -> str:
    """Return whether a search improved the prompt, as a sentence without full stop."""
    lift, yours = result.lift, names_of(result).yours
    gained = f"{gain(lift.diff)} points on {lift.n} sealed test rows"
    if (moved := result.migration) is not None:
        said = at_most_worse(moved.test, moved.model)
        if result.decision == "promote":
            return f"Migrated: {result.model} is {said}"
        return f"Held back: {result.model} is {said}" if moved.test.shown else f"Keep {moved.model}: {said}"
    if result.stopped_before_search:
        return f"Keep {yours}: no gain could be shown, so nothing was searched"
    if sum(result.trials.values()) == 1 and not result.search_ended:
        return f"{verb(yours, 'was')} scored, and nothing was searched".capitalize()
    if result.decision == "promote":
        return (
            f"{result.reference_won.capitalize()} is better: {gained}" if result.reference_won else f"Better: {gained}"
        )
    if result.is_own or lift.wins + lift.losses == 0:
        return f"Keep {yours}: {_why_kept(result)}"
    sign = shown(lift.ci95, lift.p_value)
    if sign:
        return f"Held back: {gained}" if sign > 0 else f"Keep {yours}: the best found is worse, {gained}"
    if lift.p_value < SIGNIFICANT:
        return f"Keep {yours}: {gained} is not shown, its 95 % interval includes 0"
    return f"Keep {yours}: {gained} is not significant"


def _why_kept(result: RunResult) -> str:
    left_out = result.untested
    if result.blocked:
        return f"the best found scores the same on {result.lift.n} sealed test rows"
    if result.search_ended and result.trials["complete"] == (result.baseline.dev_rows is None):
        return "the search ended before another prompt was scored on all of dev"
    if left_out is not None and not left_out.is_chance:
        return "a prompt with a higher dev score was not tested"
    if result.cheaper is not None:
        return "it costs less than the best on dev"
    return "no prompt scored on all of dev did better" if left_out is not None else "nothing better was found"


def untested(found: Untested) -> str:
    """Return which prompt led yours on dev untested, why, and how to test it."""
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
    return "better, held back" if result.held_back else f"{names_of(result).yours} kept"


def cheaper(found: Cheaper) -> str:
    """Return how a cheaper winner compares with the best on dev."""
    kind = "fewer prompt tokens" if found.saved_in == "tokens" else "cheaper per call"
    saves = f"{100 * found.saved:.0f} % {kind} than the best on dev"
    if found.test is None:
        return f"{saves}; not compared: the best on dev has no score on the test rows"
    return f"{saves}, and {at_most_worse(found.test, 'it')}"


def at_most_worse(bound: NotWorse, other: str) -> str:
    """Return whether a larger loss than accepted is ruled out, with the figures."""
    said = f"not worse than {other} by more than {bound.accepted}"
    said = said if bound.shown else f"a loss of more than {bound.accepted} against {other} is not ruled out"
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


def unbeaten(yardsticks: Iterable[Yardstick]) -> Yardstick | None:
    """Return the best yardstick, or None if the winner beats it."""
    known = [one for one in yardsticks if one.diff is not None]
    best = max(known, key=lambda one: one.test or 0.0, default=None)
    return best if best is not None and _sign(best) <= 0 else None


def _sign(one: Yardstick) -> int:
    assert one.diff_ci95 is not None
    assert one.p_value is not None
    return shown(one.diff_ci95, one.p_value)


def against_yardstick(best: Yardstick, winner: str, score: float | None, rows: int) -> str:
    """Return how well an `unbeaten` yardstick does against `winner`."""
    method = f"{best.name} trained on the same {best.trained_on} rows"
    theirs, ours = points(best.test), points(score)
    if _sign(best) == 0 and theirs != ours:
        return (
            f"{counted(rows, 'row')} cannot tell {theirs} from {ours}: {method}, without a language model, and {winner}"
        )
    does = "better" if _sign(best) < 0 else "as well"
    return f"without a language model, {method} does {does}: {theirs} against {ours} of {winner}"


def meaning(names: PromptNames, lift: Lift, own: float | None, best: float | None) -> str:
    """Return the test scores and the interval of the gain, in full sentences."""
    of_rows = f"on {lift.n} rows that the search never saw."
    if names.is_own:
        return f"Of 100 points {verb(names.yours, 'gets')} {points(own)}, {of_rows}"
    low, high = map(gain, lift.ci95)
    return (
        f"Of 100 points {verb(names.side('baseline'), 'gets')} {points(own)} and {names.winner} {points(best)}, "
        f"{of_rows} "
        f"With 95 % confidence the true difference lies between {low} and {high} points ({chance(lift.p_value)})."
    )


def changes(result: RunResult, noun: str) -> list[str]:
    """Return what the winner changes in your prompt, a clause each. Empty if yours won, or in older results."""
    change = result.change
    if change is None:
        return []
    size = _tokens(change.baseline, change.winner)
    tools = f"tool texts changed: {', '.join(change.tools[:MOST_TOOLS])}" if change.tools else ""
    if (left := len(change.tools) - MOST_TOOLS) > 0:
        tools += f" and {left} more"
    voting = combined(result.calibration) if result.calibration is not None else ""
    if change.winner.technique == "program" or not result.ships_prompt:
        what = f"the {noun.removesuffix('s')}s of your program changed"
        instruction = ": ".join(filter(None, [what, listed(change.texts)])) if change.instruction else ""
    else:
        instruction = _instruction(change, result.proposer is not None and result.proposer.won)
    clauses = (instruction, tools, *change.answer, *_new_design(change), voting, size)
    return [clause for clause in clauses if clause]


def _instruction(change: Change, has_proposed: bool) -> str:
    if not change.instruction:
        return "your instruction is unchanged"
    is_proposed = has_proposed and not change.tools and not change.answer
    if change.keeps:
        return f"your instruction is kept; {'the proposer added text' if is_proposed else 'text was added'} to it"
    return f"your instruction is {'replaced by one that the proposer wrote' if is_proposed else 'changed'}"


def _new_design(change: Change) -> list[str]:
    was, now = change.baseline, change.winner
    before, after = was.n_examples, now.n_examples
    said = []
    if before != after:
        added = f"{after} example{'s were' if after > 1 else ' was'} added"
        fewer = f"{counted(after, 'example')} instead of {before}" if after else f"its {before} examples were removed"
        said.append(fewer if before else added)
    if now.technique in REASONED and was.technique not in REASONED:
        said.append("it is asked to reason before it answers")
    if now.role and now.role != was.role:
        said.append("it is given a role")
    if was.format != now.format:
        said.append(f"the answers' layout is {now.format} instead of {was.format}")
    return said


def _tokens(was: PromptSize, now: PromptSize) -> str:
    said = size(now.tokens_a_call, now.prompt_tokens)
    before, after = (side.tokens_a_call if now.tokens_a_call else side.prompt_tokens for side in (was, now))
    if not before:
        return said
    times = after / before
    return f"{said} instead of {before:,} ({'about the same' if abs(times - 1) <= ABOUT_THE_SAME else f'{times:.1f}x'})"


def promotion(promoted: Mapping[str, Any]) -> str:
    """Return who promoted a winner that was held back, why, and the reasons against it."""
    more = [f"{name}: {promoted[name]}" for name in ("reason", "against") if promoted[name]]
    return "; ".join([f"promoted by {promoted['actor']}", *more])


def released(names: PromptNames, is_best: bool, promoted: Mapping[str, Any] | None = None) -> str:
    """Return which prompt is released. `promoted`: a later promotion of a winner that was held back."""
    if promoted is not None:
        return f"the best found, {promotion(promoted)}"
    if is_best:
        return "the best found"
    return "the prompt of the old model" if names.is_migration else f"your own {names.noun}"


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
        parts.append(f"{found['k']} passages by {found['retriever']}, up to {found['chunk']} characters each{overlap}")
    return ", ".join(parts)


def carried(row: Carried) -> tuple[str, str, str]:
    """Return a part's gain in points, its 95 % interval and source. "?": the sign is unclear."""
    low, high = row.ci95
    source = {"measured": "measured", "unknown": "unknown"}.get(row.how, "estimated from all trials")
    return ("?" if row.how == "unknown" else f"{row.points:+.1f}"), f"{low:+.1f} to {high:+.1f}", source
