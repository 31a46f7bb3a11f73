"""What progress says, as plain data: the words and numbers of a run or a job at one moment. Knows no terminal."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.cli.common import short
from agent.report.facts import bracketed, points
from agent.run.observers import recent_loss
from agent.task.words import counted

if TYPE_CHECKING:
    from agent.gateway.budget import Account
    from agent.gateway.in_flight import InFlight
    from agent.observer import TrainingProgress
    from agent.run.observers import Snapshot
    from agent.types import CallRole, Spend

ENOUGH = 16
"""Paid calls before the time left is told: the first ones wait for the model and run side by side."""
LINE_WIDTH = 80
SLOW = 10.0
"""Seconds for which a reply has been waited for when a line says so."""
ROLES: tuple[CallRole, ...] = ("model", "proposer", "judge", "embedding")
STAGES = {
    "baseline": "baseline (your own prompt)",
    "search": "searching",
    "finalists": "finalists on all of dev",
    "attribution": "what each part of the best adds",
    "sealed test": "sealed test",
}
"""The stages of a search in their order, in the words of the screen; each name that is no other is a strategy's."""
UNSEARCHED = ("baseline", "sealed test")


@dataclass(frozen=True, slots=True)
class Spent:
    """What a role was paid for: number of calls, tokens and dollars as text, each with what stands behind it."""

    name: str
    calls: tuple[str, str]
    tokens: tuple[str, str]
    usd: tuple[str, str]


@dataclass(frozen=True, slots=True)
class View:
    """A run or a job at one moment.

    Args:
        place: which stage of how many; "" for a job.
        left: seconds left, at most; None: not known yet.
        points, score, best: the best score alone, with interval and baseline, and whose it is; "" for a job.
        spent: by role; the last one over all roles.
        unit: of `done` and `planned`.
    """

    title: str
    place: str
    seconds: float
    left: float | None
    done: int
    planned: int
    cached: int
    retries: int
    points: str
    score: str
    best: str
    spent: tuple[Spent, ...]
    unit: str = "calls"
    losses: Sequence[float] = ()

    @property
    def usd(self) -> str:
        """What was paid, in dollars."""
        return self.spent[-1].usd[0]


def stage_key(snapshot: Snapshot) -> str:
    """Which of STAGES a search is in; its rounds are one stage."""
    return snapshot.stage if snapshot.stage in STAGES else "search"


def search_view(snapshot: Snapshot) -> View:
    """What is shown of a search."""
    account, plan, key = snapshot.account, snapshot.plan, stage_key(snapshot)
    stages = tuple(STAGES) if plan.finalists else UNSEARCHED
    title = STAGES[key]
    if key == "search":
        is_ours = snapshot.stage == "designs" or snapshot.stage.startswith("step ")
        title += f", round {snapshot.round}" if is_ours else f" ({short(snapshot.stage, 24)})"
        title += f", {snapshot.trials:,} tried"
    used = account.total_used.calls
    planned = [role for role, calls in plan.by_role().items() if calls]
    return View(
        title,
        f"stage {stages.index(key) + 1} of {len(stages)}" if key in stages else "",
        account.seconds,
        seconds_left(account, used, plan.calls),
        used,
        plan.calls,
        account.cached,
        snapshot.retries,
        points(snapshot.best[0]) if snapshot.best else "",
        _score(snapshot),
        _best(snapshot),
        _spent(account, planned),
    )


def job_view(title: str, done: int, planned: int, account: Account, retries: int) -> View:
    """What is shown of a job: `title` says what it does, `done` and `planned` are calls."""
    left, spent = seconds_left(account, done, planned), _spent(account, ())
    return View(title, "", account.seconds, left, done, max(done, planned), account.cached, retries, "", "", "", spent)


def training_view(progress: TrainingProgress, account: Account) -> View:
    """What is shown of a training, in the place of the calls that a job makes."""
    return View(
        f"training {progress.name}",
        f"epoch {progress.epoch} of {progress.epochs}",
        progress.seconds,
        progress.left,
        progress.step,
        progress.steps,
        0,
        0,
        "",
        "",
        "",
        _spent(account, ()),
        "steps",
        progress.losses,
    )


def loss_words(losses: Sequence[float]) -> str:
    """The loss of the last steps in nats, as text."""
    return f"{recent_loss(losses):.3f}"


def sparkline(values: Sequence[float], columns: int, marks: str) -> str:
    """A curve in at most `columns` marks, each the mean of some values, from the lowest mark to the highest."""
    count = min(columns, len(values))
    ends = [len(values) * at // count for at in range(count + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(ends)]
    least, spread = min(means), max(means) - min(means)
    return "".join(marks[round((mean - least) / spread * (len(marks) - 1)) if spread else 0] for mean in means)


def seconds_left(account: Account, done: int, planned: int) -> float | None:
    """The most seconds that the planned calls take at the pace of the paid ones; None: too few to tell."""
    paid, limit = done - account.cached, account.budget.time_limit
    if paid < ENOUGH:
        return None
    left = account.seconds / paid * max(0, planned - done)
    return left if limit is None else max(0.0, min(left, limit - account.seconds))


def clock(seconds: float) -> str:
    """Seconds as on a clock: 0:07, 12:34, 1:02:03."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def time_left(seconds: float | None) -> str:
    """How long it takes at most, in words."""
    return "time left -" if seconds is None else f"at most {clock(seconds)} left"


def waiting(in_flight: InFlight) -> str:
    """What a run waits for, in words."""
    if in_flight.outage:
        return f"no answer from {short(in_flight.outage, 200)}"
    if not in_flight.calls:
        return "at work; no call in flight"
    names = dict.fromkeys(name.partition("@")[0] for name in in_flight.models)
    since = f"{'the oldest ' if in_flight.calls > 1 else ''}{in_flight.oldest:.0f} s"
    return f"waiting for {counted(in_flight.calls, 'reply', 'replies')} of {short(', '.join(names), 36)}, {since}"


def as_line(view: View, in_flight: InFlight) -> str:
    """The view in one line of at most LINE_WIDTH characters; parts that do not fit are left out."""
    parts = [
        f"[{clock(view.seconds)}] {view.title}: {view.done:,} of {view.planned:,} {view.unit}",
        *([f"loss {loss_words(view.losses)}"] if view.losses else []),
        *([f"best {view.points}"] if view.points else []),
        *([f"{clock(view.left)} left"] if view.left is not None else []),
        view.usd,
        *([f"waiting {in_flight.oldest:.0f} s"] if in_flight.oldest >= SLOW else []),
    ]
    line = short(parts[0], LINE_WIDTH)
    for part in parts[1:]:
        if len(line) + 2 + len(part) <= LINE_WIDTH:
            line += f", {part}"
    return line


def _score(snapshot: Snapshot) -> str:
    if snapshot.best is None:
        if snapshot.baseline is None and snapshot.trials <= 1:
            return "none yet: your own prompt is scored first"
        rows = counted(snapshot.plan.rungs[-2:][0], "dev row")
        own = "" if snapshot.baseline is None else f"; your prompt {points(snapshot.baseline)}"
        return f"none of {snapshot.trials:,} tried was scored on {rows} yet{own}"
    mean, *ci95 = snapshot.best
    is_own = snapshot.leader is not None and snapshot.leader.id == snapshot.baseline_id
    baseline = "" if is_own or snapshot.baseline is None else f", baseline {points(snapshot.baseline)}"
    return points(mean) + bracketed(ci95).replace("(", "(95 % CI ", 1) + baseline


def _best(snapshot: Snapshot) -> str:
    leader = snapshot.leader
    if leader is None:
        return ""
    if leader.id == snapshot.baseline_id:
        return "your own prompt (the baseline)"
    demos = f", {counted(leader.n_examples, 'example', 'examples')}" if leader.n_examples else ""
    return short(f"{leader.technique}{demos}, {leader.id[:6]}", 60)


def _spent(account: Account, planned: Iterable[CallRole]) -> tuple[Spent, ...]:
    """A row for each role that is planned or was paid, and one for all of them with the caps."""
    paid, budget = account.paid, account.budget
    shown = [role for role in ROLES if role in paid or role in planned]
    rows = [_row(account, role, paid.get(role)) for role in shown]
    total = _row(account, shown[0] if len(shown) == 1 else "all", account.total_paid)
    caps = Spent(
        total.name,
        (total.calls[0], f"of {count(budget.max_calls)} calls" if budget.max_calls else total.calls[1]),
        (total.tokens[0], f"of {count(budget.max_tokens)} tokens" if budget.max_tokens else total.tokens[1]),
        (total.usd[0], f"of ${budget.max_cost:,.2f}" if budget.max_cost is not None else ""),
    )
    return (*(rows if len(rows) > 1 else ()), caps)


def _row(account: Account, name: str, spend: Spend | None) -> Spent:
    calls, tokens = (spend.calls, spend.tokens) if spend else (0, 0)
    usd = _dollars(account, spend.usd if spend else 0.0)
    return Spent(name, (count(calls), "call" if calls == 1 else "calls"), (count(tokens), "tokens"), (usd, ""))


def count(number: int) -> str:
    """A whole number in at most 7 characters: 999,999 or 1.23 M."""
    if number < 1_000_000:
        return f"{number:,}"
    return f"{number / 1e6:.2f} M" if number < 1e9 else f"{number / 1e9:.2f} G"


def _dollars(account: Account, usd: float) -> str:
    """Dollars that were paid; those of a model without a known price are not among them."""
    known = f"${usd:,.4f}" if usd < 100 else f"${usd:,.2f}"
    if not account.unpriced:
        return known
    return f"over {known}" if usd else "unknown price"
