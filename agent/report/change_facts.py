"""What a run changed in a prompt, what came of its proposer and what would show its gain, in words. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from agent.release.result import RunResult
from agent.report.facts import combined, ships_prompt, size
from agent.results.run_parts import Change, PromptSize, ProposerUse, ToShow

REASONED = ("chain-of-thought", "few-shot-cot")
ABOUT_THE_SAME = 0.05
MOST_TOOLS = 8
"""That are named."""


def changes(result: RunResult) -> list[str]:
    """What the best found has that the user's own prompt has not, a sentence part each; empty when that one won, and of
    an older version."""
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
        return ["the prompts of your program are changed"] if change.instruction else []
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
    return [f"texts of tools are changed: {named}{more}"] if named else []


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
    """How long the new one is, and by how much that is more: measured, or, where the provider does not count, about."""
    said = size(now.tokens_a_call, now.prompt_tokens)
    before, after = (side.tokens_a_call if now.tokens_a_call else side.prompt_tokens for side in (was, now))
    if not before:
        return said
    times = after / before
    return f"{said} instead of {before:,} ({'about the same' if abs(times - 1) <= ABOUT_THE_SAME else f'{times:.1f}x'})"


def proposer(result: RunResult) -> str:
    """What came of the model that writes instructions; "" of an older version."""
    use = result.proposer
    if use is None:
        return ""
    if use.why_not:
        return f"proposer: not asked, as {use.why_not}"
    if use.tried is None:
        return f"proposer: {use.asked} calls; the strategy does not say which prompts came of them"
    said = _of_operators(use) if use.proposals else _of_proposals(use)
    return f"proposer: {use.asked} of at most {use.planned} planned calls; {'; '.join(said)}"


def _of_operators(use: ProposerUse) -> list[str]:
    tried = sum(each.tried for each in use.operators)
    finalists = sum(each.finalists for each in use.operators)
    said = f"{tried} of {len(use.proposals)} proposals tried, {finalists or 'none'} among the finalists"
    if use.points is not None:
        said += f", {use.points:+.1f} points against the best prompt without one"
    return [said, "the best found has one" if use.won else "the best found has none"]


def proposals(result: RunResult | None, claims: Mapping[int, str]) -> list[tuple[str, ...]]:
    """Each proposal of the run as the cells of a line of `run_tables.PROPOSALS`; none of an older version.

    Args:
        result: of the run; None: it has none.
        claims: by number the proposer's own words (`ledger.trail.claims`).
    """
    use = result.proposer if result is not None else None
    return [
        (
            str(each.number),
            each.operator,
            ": ".join(filter(None, (each.hypothesis, claims.get(each.number)))) or "-",
            ", ".join(each.rows) or "all",
            _score(each.before),
            _score(each.after),
            f"refused: {each.refused}" if each.refused else each.became,
        )
        for each in (use.proposals if use else ())
    ]


def _score(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _of_proposals(use: ProposerUse) -> list[str]:
    said = [f"{use.failed} brought no reply"] * bool(use.failed)
    said += [f"{use.refused} of its replies held no instruction that can be used"] * bool(use.refused)
    if not use.tried:
        return [*said, "no prompt with an instruction of its own was tried"]
    tried = f"{use.tried} prompt{'s' * (use.tried > 1)} with an instruction of its own"
    full = "none" if not use.finalists else str(use.finalists)
    won = "the best found has one" if use.won else "the best found has none"
    return [*said, f"of {tried} {full} came as far as the whole of dev, and {won}"]


def to_show(result: RunResult) -> str:
    """What would show a gain that was not shown; "" where that is no question."""
    need = result.to_show
    if need is None:
        return ""
    gain = f"a gain of {100 * need.gain:.1f} points"
    if need.rows_needed is None:
        wants = f"{gain} is too small for any number of test rows"
    elif need.rows_needed <= need.rows_tested:
        wants = (
            f"{gain} needs about {need.rows_needed:,} test rows to be shown 4 times of 5, and was not shown this time"
        )
    else:
        wants = f"{gain} needs about {need.rows_needed:,} test rows to be shown 4 times of 5"
    return f"{wants}; {_there(need)}"


def _there(need: ToShow) -> str:
    if need.max_calls is None:
        return f"there are {need.rows_there:,}: add rows to the test split"
    caps = f", and more of {' and '.join(need.other_caps)}" if need.other_caps else ""
    short = need.rows_needed is None or need.rows_needed > need.rows_there
    more = "; then add rows" if short else ""
    return (
        f"{need.rows_there:,} are there, {need.rows_tested:,} were paid for: --max-calls {need.max_calls}{caps}{more}"
    )
