"""Parts of a printed result that not every run has: was it worth a search, what carried the gain, the Pareto front.

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
    parts = [part for part in (preflight_lines(result), attribution_lines(result), pareto_lines(result)) if part]
    return [line for part in parts for line in ("", *part)] + [""] * bool(parts)


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
