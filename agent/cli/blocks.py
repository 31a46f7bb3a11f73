"""Parts of a printed result that not every run has: what holds the winner back, was it worth a search, the score by
metric and by slice, how steady and how varied the answers are, the judges, what carried the gain, the Pareto front.

Each takes the result object and gives lines, none when its key is absent or empty, as in runs of an older version.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from agent.cli.common import plain, score

Result = Mapping[str, Any]


def blocks(result: Result) -> list[str]:
    """All of them, an empty line before each and after the last."""
    makers = (
        blocked_lines,
        preflight_lines,
        parts_lines,
        slices_lines,
        steady_lines,
        variety_lines,
        judges_lines,
        attribution_lines,
        pareto_lines,
    )
    parts = [part for part in (maker(result) for maker in makers) if part]
    return [line for part in parts for line in ("", *part)] + [""] * bool(parts)


def blocked_lines(result: Result) -> list[str]:
    """Said where a gain was shown and something else stands in the way."""
    found = result.get("blocked") or []
    if not found or any(why.startswith("the gain is not shown") for why in found):
        return []
    return [
        "the best found is held back, and your own prompt is released:",
        *[plain(f"  {why}") for why in found],
        f"  to promote it all the same: optimize promote {result['run_id']} --override --reason WHY",
    ]


def parts_lines(result: Result) -> list[str]:
    """Each metric, where there is more than the score itself to tell."""
    found = result.get("metrics") or []
    plainly = len(found) == 2 and all(side["mean"] == 1.0 for side in (found[0]["winner"], found[0]["baseline"]))
    if not found or plainly:
        return []
    names = [f"{row['metric']} ({row['field']})" if row["field"] else row["metric"] for row in found]
    width = max(map(len, map(plain, names)))
    lines = [f"{'on the sealed test':<{width + 2}}{'weight':>8}{'yours':>8}{'found':>8}   difference (95 % CI)"]
    for name, row in zip(names, found, strict=True):
        weight = f"{row['weight']:.2f}" if row["weight"] else ""
        sides = "".join(f"{score(row[side]['mean']):>8}" for side in ("baseline", "winner"))
        lines.append(f"  {plain(name):<{width}}{weight:>8}{sides}   {_difference(row)}{_unscored(row)}")
    return lines


def _difference(row: Mapping[str, Any]) -> str:
    if row["diff"] is None:
        return "-"
    low, high = row["diff_ci95"]
    return f"{100 * row['diff']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def _unscored(row: Mapping[str, Any]) -> str:
    lost = [row[side]["unscored"] for side in ("baseline", "winner")]
    return f", unscored {lost[0]} and {lost[1]}" if any(lost) else ""


def slices_lines(result: Result) -> list[str]:
    lines = []
    for cut in result.get("slices") or []:
        width = max(len(plain(group["value"])) for group in cut["groups"])
        lines.append(f"by {plain(cut['slice'])}:  rows   yours   found   difference (95 % CI)")
        for group in cut["groups"]:
            sides = "".join(f"{score(group[side]['mean']):>8}" for side in ("baseline", "winner"))
            lines.append(f"  {plain(group['value']):<{width}}{group['winner']['n']:>6}{sides}   {_difference(group)}")
        if cut["winner_gap"] is not None:
            gaps = f"{100 * cut['winner_gap']:.1f} points, with your prompt {100 * cut['baseline_gap']:.1f}"
            lines.append(f"  largest gap between groups: {gaps}")
    return lines


def steady_lines(result: Result) -> list[str]:
    found = result.get("consistency")
    if not found:
        return []
    lines = []
    for side, name in (("baseline", "your prompt"), ("winner", "best found")):
        told = found[side]
        if told is not None:
            every, some = score(told["pass_hat_k"]), score(told["pass_at_k"])
            lines.append(
                f"  {name}: same answer {score(told['agreement'])} % of the time, entropy {told['entropy']:.2f} bits; "
                f"right every time {every} %, at least once {some} %"
            )
    first = found["winner"] or found["baseline"]
    return [f"asked {first['k']} times each, {first['rows']} test rows:", *lines] if lines else []


def variety_lines(result: Result) -> list[str]:
    lines = []
    for row in result.get("variety") or []:
        for side, name in (("baseline", "your prompt"), ("winner", "best found")):
            if (told := row[side]) is not None and told["distinct_2"] is not None:
                lines.append(
                    f"variety of {plain(row['field'])}, {name}: {100 * told['distinct_2']:.0f} % of its word pairs are "
                    f"different ones, {100 * told['openings']:.0f} % of its openings"
                )
    return lines


def judges_lines(result: Result) -> list[str]:
    lines = []
    for judge in result.get("judges") or []:
        trust = "trusted" if judge["trusted"] else "NOT TO BE TRUSTED"
        if judge["kappa"] is not None and judge["ci95"] is not None:
            low, high = judge["ci95"]
            trust += f", kappa {judge['kappa']:.2f} ({low:.2f} to {high:.2f})"
        why = "" if judge["trusted"] else f": {judge['why']}"
        turned = (
            f"; {judge['turned']} of {judge['compared']} verdicts changed with the order" if judge["compared"] else ""
        )
        lines.append(plain(f"judge {', '.join(judge['models'])} ({judge['mode']}): {trust}{why}{turned}"))
    return lines


def preflight_lines(result: Result) -> list[str]:
    found = result.get("preflight") or {}
    if not found.get("why"):
        return []
    noise = found.get("noise")
    moved = "" if noise is None else f"; asked twice, {100 * noise:.0f} % of the rows changed"
    return [plain(f"before the search: {found['why']}{moved}")]


def attribution_lines(result: Result) -> list[str]:
    found = result.get("attribution") or []
    if not found:
        return []
    width = max(len(plain(row["part"])) for row in found)
    lines = ["what carried the gain: points lost with your prompt's part in its place (95 % CI)"]
    for row in found:
        low, high = row["ci95"]
        source = "measured" if row["how"] == "measured" else "estimated from all trials"
        told = f"{row['points']:+6.1f}   {low:+.1f} to {high:+.1f}, {source}"
        unknown = f"     ?   {low:+.1f} to {high:+.1f}, cannot be told"
        lines.append(f"  {plain(row['part']):<{width}} {unknown if row['how'] == 'unknown' else told}")
    return lines


def pareto_lines(result: Result) -> list[str]:
    found = result.get("pareto") or []
    if not found:
        return []
    lines = ["Pareto front: nothing that saw the whole of dev is better in all of these (* chosen)"]
    lines.append(f"  {'dev':>7}{'prompt tokens':>15}{'$ per 1000':>12}{'latency':>10}  candidate")
    for row in found:
        latency = "-" if row["latency_s"] is None else f"{row['latency_s']:.2f} s"
        mark = "*" if row["chosen"] else " "
        lines.append(
            f"{mark} {score(row['dev']):>7}{row['prompt_tokens']:>15,}{row['usd_per_1000']:>12.4f}{latency:>10}  "
            f"{plain(row['candidate_id'])}"
        )
    return lines


def detectable_line(gains: Mapping[float, float]) -> str:
    """What the sealed test can show, by the baseline's score, which is not known before the first call."""
    words = [f"{_points(gain)} if your prompt scores {100 * rate:.0f}" for rate, gain in gains.items()]
    return f"the smallest gain that the sealed test can show (80 % power): {', '.join(words)}"


def _points(gain: float) -> str:
    return f"{100 * gain:.0f} points" if math.isfinite(gain) else "none"
