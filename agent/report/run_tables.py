"""Blocks of a run in the ledger: its trials, proposals, cost and provenance.

A note says what is omitted, and which command shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from agent.prompt.template import label_text
from agent.report.blocks import (
    Block,
    Column,
    TableBlock,
    listing,
    short,
    table,
    text,
)
from agent.report.view import EQUAL, RunView
from agent.report.wording import amount, cut, duration
from agent.results.recorded import RecordedOutcome
from agent.results.run_parts import Preflight, ProposerUse
from agent.safe_text import counted
from agent.stats.figures import points

FLIPS, FEW = 50, 5
"""Maximum of changed rows (each way), and rows that need no folding."""
ANSWER, REASON = 1200, 400
"""Maximum length of a reply and of a reason."""
GONE = "The task's files are gone or have changed since the run"


def before_search(preflight: Preflight | None) -> str:
    """Return the preflight's estimate of headroom and noise; "" without a preflight."""
    if preflight is None or not preflight.why:
        return ""
    noise, rows = preflight.noise, preflight.noise_rows or 0
    changed = "" if noise is None else f"; asked twice, {round(noise * rows)} of {rows} rows changed"
    return f"before the search: {preflight.why}{changed}"


def proposer(use: ProposerUse | None) -> str:
    """Return what became of the proposer's instructions; "" in older results."""
    if use is None:
        return ""
    if use.why_not:
        return f"proposer: not called: {use.why_not}"
    if use.tried is None:
        return f"proposer: {use.asked} calls; the strategy does not report the resulting prompts"
    said = [f"proposer: {use.asked} of at most {use.planned} planned calls"]
    said += [f"{use.failed} without a reply"] * bool(use.failed)
    said += [f"{use.refused} without a usable instruction"] * bool(use.refused)
    tried, finalists = use.tried, use.finalists
    if use.proposals:
        tried = sum(each.tried for each in use.operators)
        finalists = sum(each.finalists for each in use.operators)
    lead = "" if use.points is None else f", {use.points:+.1f} points against the best prompt without one"
    of_all = f" of {len(use.proposals)}" if use.proposals else ""
    said += [f"{tried}{of_all} proposals tried, {finalists or 'none'} among the finalists{lead}"]
    return "; ".join([*said, f"the best found has {'one' if use.won else 'none'}"])


def proposals(use: ProposerUse | None, claims: Mapping[int, str]) -> TableBlock:
    """Return what the proposer was asked for, why, and the outcome. `claims`: its explanations by number."""
    return listing(
        "What the proposer was asked for",
        [
            (Column("proposal"), "number"),
            (Column("asked for"), "operator"),
            (
                Column("why", "long", floor=24),
                lambda one: ": ".join(filter(None, (one.hypothesis, claims.get(one.number)))) or "-",
            ),
            (Column("for rows", "long", rank=3, floor=8), lambda one: ", ".join(one.rows) or "all"),
            (Column("before", "number", rank=2), lambda one: points(one.before)),
            (Column("after", "number", rank=1), lambda one: points(one.after)),
            (
                Column("what became of it", "long", floor=12),
                lambda one: f"refused: {one.refused}" if one.refused else one.became,
            ),
        ],
        use.proposals if use else (),
        explained="Points before and after, on the same dev rows; a rule was first tried on its and some right rows.",
        folded=True,
    )


def demos(of: Sequence[Mapping[str, Any]]) -> TableBlock:
    """Return the examples of a prompt: shortened on a screen, whole on a page."""

    def joined(name: str, width: int) -> Callable[[Mapping[str, Any]], str]:
        return lambda demo: short(" | ".join(demo[name].values()), width)

    return listing(
        f"{len(of)} examples",
        [
            (Column("", on="screen"), lambda demo: demo["position"] + 1),
            (Column("row"), "example_id"),
            (Column("input", floor=20, on="screen"), joined("inputs", 80)),
            (Column("output", floor=12, on="screen"), joined("outputs", 40)),
            (Column("input", "text", on="page"), lambda demo: fields(demo["inputs"])),
            (
                Column("output", "text", on="page"),
                lambda demo: "\n".join(filter(None, (demo["rationale"], fields(demo["outputs"])))),
            ),
        ],
        of,
        explained="In their order in the prompt.",
        folded=True,
    )


def fields(values: Mapping[str, Any]) -> str:
    """Return named values, one per line, long ones cut. Without the name if there is only one."""
    cells = {name: cut(label_text(value), ANSWER) for name, value in values.items()}
    return "\n".join(f"{name}: {cell}" if len(cells) > 1 else cell for name, cell in cells.items())


def changed_rows(view: RunView) -> Iterator[Block]:
    """Yield the test rows that improved and those that got worse, for a page."""
    own, best = view.baseline, view.winner
    if view.names.is_own or own is None or best is None:
        return
    pairs = sorted(view.pairs("test", own["id"], best["id"]), key=lambda pair: -abs(pair.change or 0.0))
    is_known, (one, two) = "test" in view.examples, (name for _, name in view.names.sides)
    if not is_known and any(pair.change for pair in pairs):
        yield text(f"{GONE}, so rows are named by their id alone")
    columns: Any = [
        (Column("row"), lambda pair: pair.example_id),
        *[(Column("input", "text"), lambda pair: fields(pair.inputs))] * is_known,
        *[(Column("right answer", "text"), lambda pair: fields(pair.labels))] * is_known,
        (Column(one, "text"), lambda pair: _answer(pair.one)),
        (Column(two, "text"), lambda pair: _answer(pair.two)),
    ]
    for word, sign in (("better", 1), ("worse", -1)):
        rows = [pair for pair in pairs if (pair.change or 0.0) * sign > EQUAL]
        left = f"The {FLIPS} largest changes; {len(rows) - FLIPS} rows are left out. "
        left += f"`optimize history {view.id} --trial N` shows every row of a prompt."
        explained, is_folded = left if len(rows) > FLIPS else "", word == "better" and len(rows) > FEW
        title = f"{counted(len(rows), 'sealed row')} got {word}"
        yield listing(title, columns, rows[:FLIPS], explained=explained, folded=is_folded, on="page")
        yield from traces(f"the {word}", (pair.two for pair in rows[:FLIPS] if pair.two))


def _answer(outcome: Mapping[str, Any] | None) -> str:
    if outcome is None:
        return "not asked"
    said = fields(outcome["fields"]) or cut(outcome["reply"], ANSWER)
    reasons = [
        f"{metric}{f' {points(value)}' * (len(outcome['scores']) > 1)}: {cut(reason, REASON)}"
        for metric, value, reason in outcome["scores"]
        if reason and reason != outcome["error"]
    ]
    return "\n".join(filter(None, (points(outcome["value"]), said, cut(outcome["error"] or "", REASON), *reasons)))


def messages(template: Iterable[Mapping[str, str]], heading: str = "") -> Block:
    """Return a prompt as sent, each message under its role."""
    texts = (f"[{message['role']}]\n{message['content']}" for message in template)
    return text(*texts, heading=heading, exact=True)


def outcomes(split: str, rows: Sequence[RecordedOutcome]) -> TableBlock:
    """Return the outcome of each row of a split with one prompt."""
    return listing(
        split,
        [
            (Column("row"), "example_id"),
            (Column("score", "number"), lambda row: points(row.value)),
            (Column("call", rank=1), "call_key"),
            (Column("reply", floor=16), lambda row: short(fields(row.fields) if row.trace else row.reply, 60)),
            (
                Column("why", floor=16),
                lambda row: short(row.error or "; ".join(reason for _, _, reason in row.scores if reason), 80),
            ),
        ],
        rows,
        tabbed=True,
    )


def traces(split: str, rows: Iterable[Mapping[str, Any]]) -> Iterator[Block]:
    """Yield the traces of recorded rows, the worst rows first."""
    known = sorted((row for row in rows if row.get("trace")), key=lambda row: row["value"] or 0.0)
    if known:
        told = (
            f"row {row['example_id']}, {points(row['value'])}\n{row['trace']}\nanswer: {fields(row['fields'])}\n"
            for row in known
        )
        yield text(*told, heading=f"What was done on {split} rows", folded=True, exact=True)


# -- what it cost and where it comes from -----------------------------------------------------------------------------


def spend(view: RunView) -> Iterator[TableBlock]:
    """Yield calls, tokens, dollars and model time by role and state, and in total."""
    kinds = ("calls", "prompt_tokens", "cached_prompt_tokens", "completion_tokens")
    paid = [row["cost_usd"] for row in view.costs]
    every = {"role": "all", "model": "", "state": "", "cost_usd": None if None in paid else sum(paid)}
    every |= {name: sum(row[name] or 0 for row in view.costs) for name in (*kinds, "seconds")}
    calls, tokens, cached, written = (lambda row, kind=kind: f"{row[kind] or 0:,}" for kind in kinds)
    yield listing(
        "Calls, tokens and dollars",
        [
            (Column("role"), "role"),
            (Column("model", "long", floor=12), "model"),
            (Column("state"), "state"),
            (Column("calls", "number"), calls),
            (Column("prompt tokens", "number"), tokens),
            (Column("of them cached", "number", rank=2), cached),
            (Column("completion tokens", "number", rank=1), written),
            (Column("$", "number"), lambda row: amount(row["cost_usd"])),
            (Column("model time", "number", rank=3), lambda row: duration(row["seconds"])),
        ],
        [*view.costs, every],
        explained="cached: answered from the ledger and not paid for. Model time adds up calls that ran side by side.",
    )


def provenance(view: RunView) -> Iterator[Block]:
    """Return what ran, on which data, with which versions, and the ledger's head."""
    run, head = view.run, view.head
    origin: Mapping[str, Any] = run["origin"] or {}
    rows: list[Sequence[Any]] = [
        ("run", run["id"]),
        *((name, run[name]) for name in ("task", "model")),
        ("proposer", run["proposer"] or "none"),
        ("seed", run["seed"]),
        ("started", f"{run['started_utc'][:19]} UTC"),
        ("ended", f"{run['ended_utc'][:19]} UTC" if run["ended_utc"] else "-"),
        ("by", " on ".join(filter(None, (origin.get("user"), origin.get("host"))))),
        ("command", " ".join(["optimize", *(origin.get("argv") or [])[1:]])),
        ("platform", origin.get("platform")),
        ("commit", origin.get("git")),
        ("prices", run["prices"]),
        *((f"tag {key}", value) for key, value in (run["tags"] or {}).items()),
        *((f"SHA-256 of {name}", digest) for name, digest in (run["hashes"] or {}).items()),
        ("promptassay", run["tool"]),
        ("python", run["python"]),
        ("sqlite", run["sqlite"]),
        *((origin.get("versions") or {}).items()),
        ("ledger head of the result", view.result.ledger_head if view.result else None),
        ("ledger head now", f"{head['hash']} (event {head['seq']:,})"),
    ]
    check = "Every number here is read from the ledger. `optimize audit verify` checks that it is what was written."
    yield text(check, on="page")
    kept = [row for row in rows if row[1] not in (None, "")]
    yield table("What ran", ("what", "value ~"), kept, folded=True, on="page")
