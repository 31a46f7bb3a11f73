"""The findings of a run in words: its answers, its proposer, and the sample size a gain needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agent.release.result import RunResult
from agent.report.wording import combined, points, sealed_score, ships_prompt, sides
from agent.results.base import SideName
from agent.results.breakdown import RowCount
from agent.results.run_parts import Carried, Change, ParetoRow, PromptSize, ProposerUse, ToShow, Yardstick

IN_A_SENTENCE = {"baseline": "your prompt", "winner": "the best found"}
OF_A_MIGRATION = {"baseline": "the old model", "winner": "the new model"}
PLAIN = (2, 3, 4, 5, 10)
FEWEST_READ, MUCH_LESS = 5, 3
"""Minimum of answered rows, and of distinct labels per distinct answer, to report low variety."""
NEAR = 0.02
"""Largest error of a plain ratio, such as 3 of 4."""
REASONED = ("chain-of-thought", "few-shot-cot")
ABOUT_THE_SAME = 0.05
MOST_TOOLS = 8
"""Maximum number of tools named."""


# -- answers -----------------------------------------------------------------------------------------------------------


def in_absolute_terms(result: RunResult) -> str:
    """Return the absolute score of the winner and of the yardsticks; "" in older results."""
    name = winner_name(result)
    counts = result.answers.winner if result.answers else None
    parts = [f"{name} gets {points(sealed_score(result, 'winner'))} of 100"]
    if counts is not None and counts.scored and (counts.right or not counts.partly):  # graded metrics rarely give 1
        parts.append(_right_rows(counts))
    if yardsticks := [f"{one.name} {points(one.test)}" for one in _yardsticks(result)]:
        parts.append(f"without a language model: {', '.join(yardsticks)}")
    if result.human_score is not None:
        parts.append(f"people: {points(result.human_score)} (according to the task)")
    return "; ".join(parts) if len(parts) > 1 else ""


def hardly_varied(result: RunResult) -> str:
    """Return that the answers vary much less than the labels; "" if not, or in older results."""
    counts = result.answers.winner if result.answers else None
    if counts is None or counts.readable < FEWEST_READ or not _is_alike(counts):
        return ""
    gave = "the same answer" if counts.different == 1 else f"{counts.different} different answers"
    return f"{winner_name(result)} gave {gave} on {counts.readable} rows (your rows have {counts.different_right})"


def _is_alike(counts: RowCount) -> bool:
    if counts.different == 1:
        return counts.different_right > 1
    return 0 < counts.different * MUCH_LESS <= counts.different_right


def winner_name(result: RunResult) -> str:
    """Return the name of the winner in a sentence."""
    return side_name(result, "baseline" if result.is_own else "winner")


def side_name(result: RunResult, side: SideName) -> str:
    """Return the name of a side of a result in a sentence."""
    return (IN_A_SENTENCE if result.migration is None else OF_A_MIGRATION)[side]


def _right_rows(counts: RowCount) -> str:
    short = counts.scored - counts.right
    if not short:
        return f"right on all {counts.scored} rows"
    what = "short of full marks" if counts.partly else "still wrong"
    return f"{what} on {short} of {counts.scored} rows{_plainly(short, counts.scored)}"


def _plainly(part: int, whole: int) -> str:
    # as a ratio of small numbers: " (about 3 of 4)"; "" without a near one
    for of in PLAIN:
        some = round(of * part / whole)
        if 0 < some < of < whole and abs(some / of - part / whole) <= NEAR:
            return f" (about {some} of {of})"
    return ""


def _yardsticks(result: RunResult) -> list[Yardstick]:
    others = sorted(result.yardsticks[1:], key=lambda one: -(one.test or 0.0))
    return [*result.yardsticks[:1], *others[:1]]


# -- unreadable replies -----------------------------------------------------------------------------------------------


def unreadable(result: RunResult) -> str:
    """Return the number of unreadable replies by prompt; "" if none, or in older results."""
    if result.answers is None:
        return ""
    counts = [(side, result.answers.side(side)) for side, _ in sides(result)]
    if not any(count.unreadable for _, count in counts):
        return ""
    said = [f"{count.unreadable} of {count.scored} with {side_name(result, side)}" for side, count in counts]
    return f"unreadable replies: {', '.join(said)}"


# -- what changed ------------------------------------------------------------------------------------------------------


def changes(result: RunResult) -> list[str]:
    """Return what the winner changes in your prompt, a clause each; empty if yours won, or in older results."""
    change = result.change
    if change is None:
        return []
    size = _tokens(change.baseline, change.winner)
    return [*_texts(result, change), *_tools(change), *_design(change), *_voting(result), size]


def _voting(result: RunResult) -> list[str]:
    found = result.calibration
    return [said] if found is not None and (said := combined(found)) else []


def _texts(result: RunResult, change: Change) -> list[str]:
    if change.winner.technique == "program" or not ships_prompt(result):
        return ["the prompts of your program changed"] if change.instruction else []
    is_proposed = change.instruction and not change.tools and result.proposer is not None and result.proposer.won
    if not change.instruction:
        return ["your instruction is unchanged"]
    if change.keeps:
        return [f"your instruction is kept; {'the proposer added text' if is_proposed else 'text was added'} to it"]
    return [
        "your instruction is replaced by one that the proposer wrote" if is_proposed else "your instruction is changed"
    ]


def _tools(change: Change) -> list[str]:
    named = ", ".join(change.tools[:MOST_TOOLS])
    more = f" and {left} more" if (left := len(change.tools) - MOST_TOOLS) > 0 else ""
    return [f"tool texts changed: {named}{more}"] if named else []


def _design(change: Change) -> list[str]:
    was, now = change.baseline, change.winner
    said = []
    if was.n_examples != now.n_examples:
        said.append(_demos(was.n_examples, now.n_examples))
    if now.technique in REASONED and was.technique not in REASONED:
        said.append("it is asked to reason before it answers")
    if now.role and now.role != was.role:
        said.append("it is given a role")
    if was.format != now.format:
        said.append(f"the answers' layout is {now.format} instead of {was.format}")
    return said


def _demos(was: int, now: int) -> str:
    if not was:
        return f"{now} example{'s were' if now > 1 else ' was'} added"
    return f"{now} examples instead of {was}" if now else f"its {was} examples were taken out"


def _tokens(was: PromptSize, now: PromptSize) -> str:
    said = size(now.tokens_a_call, now.prompt_tokens)
    before, after = (side.tokens_a_call if now.tokens_a_call else side.prompt_tokens for side in (was, now))
    if not before:
        return said
    times = after / before
    return f"{said} instead of {before:,} ({'about the same' if abs(times - 1) <= ABOUT_THE_SAME else f'{times:.1f}x'})"


def proposer(result: RunResult) -> str:
    """Return what became of the proposer's instructions; "" in older results."""
    use = result.proposer
    if use is None:
        return ""
    if use.why_not:
        return f"proposer: not called: {use.why_not}"
    if use.tried is None:
        return f"proposer: {use.asked} calls; the strategy does not report the resulting prompts"
    said = _of_operators(use) if use.proposals else _of_proposals(use)
    return f"proposer: {use.asked} of at most {use.planned} planned calls; {'; '.join(said)}"


def _of_operators(use: ProposerUse) -> list[str]:
    tried = sum(each.tried for each in use.operators)
    finalists = sum(each.finalists for each in use.operators)
    said = f"{tried} of {len(use.proposals)} proposals tried, {finalists or 'none'} among the finalists"
    if use.points is not None:
        said += f", {use.points:+.1f} points against the best prompt without one"
    return [said, "the best found has one" if use.won else "the best found has none"]


def _of_proposals(use: ProposerUse) -> list[str]:
    said = [f"{use.failed} without a reply"] * bool(use.failed)
    said += [f"{use.refused} without a usable instruction"] * bool(use.refused)
    if not use.tried:
        return [*said, "no prompt with a proposed instruction was tried"]
    tried = f"{use.tried} prompt{'s' * (use.tried > 1)} with a proposed instruction"
    full = "none" if not use.finalists else str(use.finalists)
    won = "the best found has one" if use.won else "the best found has none"
    return [*said, f"{tried} tried, {full} on all dev rows; {won}"]


def to_show(result: RunResult) -> str:
    """Return the sample size that would confirm the gain; "" if that is no question."""
    need = result.to_show
    if need is None:
        return ""
    gain = f"a gain of {100 * need.gain:.1f} points"
    if need.rows_needed is None:
        wants = f"{gain} is too small for any number of test rows"
    elif need.rows_needed <= need.rows_tested:
        wants = f"{gain} needs about {need.rows_needed:,} test rows for 80 % power; it was missed this time"
    else:
        wants = f"{gain} needs about {need.rows_needed:,} test rows for 80 % power"
    return f"{wants}; {_there(need)}"


def _there(need: ToShow) -> str:
    if need.max_calls is None:
        return f"there are {need.rows_there:,}: add rows to the test split"
    caps = f", and more of {' and '.join(need.other_caps)}" if need.other_caps else ""
    short = need.rows_needed is None or need.rows_needed > need.rows_there
    more = "; then add rows" if short else ""
    return f"{need.rows_tested:,} of {need.rows_there:,} were within budget: --max-calls {need.max_calls}{caps}{more}"


# -- the design of a prompt, and what its parts carry ------------------------------------------------------------------


def prompt_size(result: RunResult) -> str:
    """Return the length of the winner: measured tokens per call, else an estimate."""
    winner, change = result.winner, result.change
    measured = winner.tokens_a_call or (change.winner.tokens_a_call if change else 0)
    return size(measured, winner.prompt_tokens)


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


def picked(picks: Mapping[str, Any] | None) -> str:
    """Return how many examples are retrieved for each input, and by what; "" for None.

    >>> picked({"k": 6, "retriever": "bm25"}), picked(None)
    (' (6 picked for each input by bm25)', '')
    """
    return f" ({picks['k']} picked for each input by {picks['retriever']})" if picks else ""


def before_search(result: RunResult) -> str:
    """Return the preflight's estimate of headroom and noise; "" without a preflight."""
    preflight = result.preflight
    if preflight is None or not preflight.why:
        return ""
    noise, rows = preflight.noise, preflight.noise_rows
    if noise is None:
        return preflight.why
    changed = (
        f"{100 * noise:.0f} % of the" if rows is None else f"{round(noise * rows)} of {rows}"
    )  # None: an older run
    return f"{preflight.why}; asked twice, {changed} rows changed"


def looks_up(passages: Mapping[str, Any] | None) -> str:
    """Return how a prompt retrieves passages; "" if it does not."""
    if not passages:
        return ""
    overlap = f", {passages['overlap']} overlapping" if passages["overlap"] else ""
    return f"{passages['k']} passages by {passages['retriever']}, up to {passages['chunk']} letters each{overlap}"


def carried(row: Carried) -> tuple[str, str, str]:
    """Return a part's gain in points ("?" if its sign is unclear), its 95 % interval and source."""
    low, high = row.ci95
    source = {"measured": "measured", "unknown": "unknown"}.get(row.how, "estimated from all trials")
    return ("?" if row.how == "unknown" else f"{row.points:+.1f}"), f"{low:+.1f} to {high:+.1f}", source
