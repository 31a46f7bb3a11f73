"""The figures of the arms, and the advice in words. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agent.evaluate.breakdown import difference, summary
from agent.results.breakdown import Gain
from agent.results.customize import ArmAdvice, ComparedArm, Elsewhere, Family, SeedScore, SeedSpread
from agent.stats.advice import FEW_ROWS, ROWS_A_LABEL, Advice, ArmScores, advise

MILLION = 1_000_000
WHOLE = ("full", "hosted")
"""Arms whose model has no adapter that is switched on."""


@dataclass(frozen=True, slots=True)
class MeasuredArm:
    """What was measured of an arm.

    Args:
        usd_per_1000: dollars of 1,000 calls. None: nobody knows the price.
        latency_s: of one call, alone. None: not measured.
        elsewhere: general questions with it on; None for what leaves the model as it is.
        train_usd: dollars of its training at a provider. None: nobody knows the price.
        seeds: of all trainings with these settings, that of the arm first; none where there was one.
        path: of the released prompt; "" where none was written.
    """

    name: str
    about: str
    family: Family
    candidate_id: str
    scores: Sequence[float | None]
    labels: int
    train_s: float = 0.0
    tokens_per_call: float = 0.0
    usd_per_1000: float | None = 0.0
    latency_s: float | None = None
    elsewhere: Elsewhere | None = None
    megabytes: float = 0.0
    path: str = ""
    train_usd: float | None = 0.0
    seeds: Sequence[SeedScore] = ()


def break_even(arm: MeasuredArm, prompt: MeasuredArm | None) -> int | None:
    """Calls after which the training is won back against the best prompt: its dollars where it cost some, else its
    seconds. None: never, or not known."""
    if arm.train_usd != 0.0:
        return _pays_in_dollars(arm, prompt)
    if prompt is None or arm.latency_s is None or prompt.latency_s is None or not arm.train_s:
        return None
    won = prompt.latency_s - arm.latency_s
    return -int(-arm.train_s // won) if won > 0 else None


def _pays_in_dollars(arm: MeasuredArm, prompt: MeasuredArm | None) -> int | None:
    if prompt is None or arm.train_usd is None or arm.usd_per_1000 is None or prompt.usd_per_1000 is None:
        return None
    won = (prompt.usd_per_1000 - arm.usd_per_1000) / 1000
    return math.ceil(arm.train_usd / won) if won > 0 else None


def table(
    arms: Sequence[MeasuredArm], rows: Mapping[str, int], expected_calls: int | None, seed: int
) -> tuple[tuple[ComparedArm, ...], ArmAdvice]:
    """The arms and the advice of the result.

    Args:
        expected_calls: calls in the life of the prompt; None: as many as it takes.
    """
    prompts = [arm for arm in arms if arm.family == "prompt"]
    best = max(prompts, key=lambda arm: _scored(arm).mean)
    pays_from = {arm.name: break_even(arm, best) for arm in arms if arm.family == "tuned"}
    advice = advise([_scored(arm, pays_from.get(arm.name)) for arm in arms], rows, expected_calls, seed)
    lines = tuple(_line(arm, arms[0], pays_from.get(arm.name), seed) for arm in arms)
    return lines, ArmAdvice(verdict=advice.verdict, arm=advice.arm, text=advice_text(advice, lines))


def _scored(arm: MeasuredArm, break_even_calls: int | None = None) -> ArmScores:
    return ArmScores(arm.name, arm.family, arm.scores, break_even_calls)


def _line(arm: MeasuredArm, yours: MeasuredArm, pays_from: int | None, seed: int) -> ComparedArm:
    scored, against = summary(arm.scores), Gain()
    if arm is not yours:
        against = difference(arm.scores, yours.scores, seed)
    return ComparedArm(
        arm=arm.name,
        about=arm.about,
        family=arm.family,
        candidate_id=arm.candidate_id,
        test=scored.mean,
        ci95=scored.ci95,
        unscored=scored.unscored,
        **dict(against),
        labels=arm.labels,
        train_s=round(arm.train_s, 1),
        train_usd=arm.train_usd,
        tokens_per_call=round(arm.tokens_per_call, 1),
        usd_per_1000=arm.usd_per_1000,
        latency_s=None if arm.latency_s is None else round(arm.latency_s, 3),
        break_even_calls=pays_from,
        elsewhere=arm.elsewhere,
        seeds=_spread(arm.seeds),
        megabytes=round(arm.megabytes, 1),
        path=arm.path,
    )


def _spread(seeds: Sequence[SeedScore]) -> SeedSpread | None:
    """Mean, smallest and largest score over the seeds, and each of them; None where there is one training."""
    known = [each.test for each in seeds if each.test is not None]
    if not known:
        return None
    mean = math.fsum(known) / len(known)
    return SeedSpread(n=len(known), mean=mean, min=min(known), max=max(known), each=tuple(seeds))


def advice_text(advice: Advice, lines: Sequence[ComparedArm]) -> str:
    """The advice in a paragraph: what to use, by which figures, and what labels are scarce."""
    by_name = {line.arm: line for line in lines}
    arm, best = by_name[advice.arm], by_name[advice.best]
    head = {
        "no model": f"You need no language model: {arm.arm} reads {_points(arm)} of 100 sealed rows right",
        "instruct": f"Instruct: {arm.arm} reads {_points(arm)} of 100 sealed rows right",
        "customize": f"Customize: {arm.arm} reads {_points(arm)} of 100 sealed rows right, ahead of every prompt",
        "label more": f"Label more rows before you customize: {best.arm} leads with {_points(best)}, on fewer than "
        f"{ROWS_A_LABEL} train rows a label; till then {arm.arm} ({_points(arm)})",
    }[advice.verdict]
    parts = [head]
    if advice.behind is not None and advice.verdict in ("no model", "instruct"):
        low, high = advice.behind.ci95
        gap = f"{100 * advice.behind.diff:+.1f} points (95 % CI {100 * low:+.1f} to {100 * high:+.1f})"
        noise = "within noise" if low <= 0 else "and fewer calls are expected than pay for its training"
        parts.append(f"{best.arm} is {gap} ahead, {noise}")
    if advice.verdict == "customize" and arm.break_even_calls:
        parts.append(f"its training is paid for after {arm.break_even_calls:,} calls")
    if advice.verdict == "customize" and arm.elsewhere:
        off = arm.elsewhere
        when, so = ("once trained", "use it") if arm.arm in WHOLE else ("with the adapter on", "switch it on")
        parts.append(
            f"{when}, {off.same} of {off.n} general questions are answered as before, so {so} for this task alone"
        )
    if advice.scarce and advice.verdict != "no model":
        named = ", ".join(f"{label} ({count})" for label, count in sorted(advice.scarce.items()))
        parts.append(f"labels with fewer than {FEW_ROWS} train rows: {named}")
    return "; ".join(parts) + "."


def _points(line: ComparedArm) -> str:
    return "-" if line.test is None else f"{100 * line.test:.1f}"
