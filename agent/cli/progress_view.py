"""The state of a run or job as a view, and as a line. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from agent.cli.common import short
from agent.gateway.budget import Account
from agent.gateway.in_flight import InFlight
from agent.jobs.observers import Snapshot, recent_loss
from agent.observer import TrainingProgress
from agent.report.wording import RELEASED, verb
from agent.safe_text import counted
from agent.stats.figures import bracketed, points
from agent.types import CallRole, Spend

LINE_WIDTH = 80
SLOW = 10.0
"""Seconds of waiting for a reply after which a line says so."""
ENOUGH = 16
"""Paid calls before the time left is shown: the first ones wait for the model and run concurrently."""
ROLES: tuple[CallRole, ...] = ("model", "proposer", "judge", "embedding")
STAGES = {
    "baseline": "baseline",
    "search": "searching",
    "finalists": "finalists on all of dev",
    "attribution": "what each part of the best adds",
    "sealed test": "sealed test",
}
"""The stages of a search in order, as shown; any other name is a strategy's."""
UNSEARCHED = ("baseline", "sealed test")

Row = tuple[str, str, str, str, str, str, str]
"""Spending of a role: its name, then calls, tokens and dollars as text, each with a suffix."""


@dataclass(frozen=True, slots=True)
class View:
    """The state of a run or job; a job has no `place` (stage), `points`, `score` and `best`."""

    title: str
    seconds: float
    left: float | None
    done: int
    planned: int
    spent: tuple[Row, ...]
    cached: int = 0
    retries: int = 0
    place: str = ""
    points: str = ""
    score: str = ""
    best: str = ""
    unit: str = "calls"
    losses: Sequence[float] = ()

    @property
    def usd(self) -> str:
        """Dollars paid."""
        return self.spent[-1][5]


def stage_key(snapshot: Snapshot) -> str:
    """Return the entry of STAGES that a search is in; its rounds are one stage."""
    return snapshot.stage if snapshot.stage in STAGES else "search"


def own_name(snapshot: Snapshot) -> str:
    return RELEASED if snapshot.is_migration else f"your own {snapshot.noun}"


def search_view(snapshot: Snapshot) -> View:
    account, plan, key = snapshot.account, snapshot.plan, stage_key(snapshot)
    stages = tuple(STAGES) if plan.finalists else UNSEARCHED
    title = own_name(snapshot) if key == "baseline" else STAGES[key]
    if key == "search":
        is_ours = snapshot.stage == "designs" or snapshot.stage.startswith("step ")
        title += f", round {snapshot.round}" if is_ours else f" ({short(snapshot.stage, 24)})"
        title += f", {snapshot.trials:,} tried"
    used = account.total_used.calls
    return View(
        title,
        account.seconds,
        seconds_left(account, used, plan.calls),
        used,
        plan.calls,
        _spent(account, [role for role, calls in plan.by_role().items() if calls]),
        account.cached,
        snapshot.retries,
        place=f"stage {stages.index(key) + 1} of {len(stages)}" if key in stages else "",
        points=points(snapshot.best[0]) if snapshot.best else "",
        score=_score(snapshot),
        best=_best(snapshot),
    )


def job_view(title: str, done: int, planned: int, account: Account, retries: int) -> View:
    """Make the view of a job: `title`, and the calls `done` and `planned`."""
    left, most = seconds_left(account, done, planned), max(done, planned)
    return View(title, account.seconds, left, done, most, _spent(account), account.cached, retries)


def training_view(progress: TrainingProgress, account: Account) -> View:
    """Make the view of a training, shown instead of the job's calls."""
    return View(
        f"training {progress.name}",
        progress.seconds,
        progress.left,
        progress.step,
        progress.steps,
        _spent(account),
        place=f"epoch {progress.epoch} of {progress.epochs}",
        unit="steps",
        losses=progress.losses,
    )


def sparkline(values: Sequence[float], columns: int, marks: str) -> str:
    """Draw a curve of at most `columns` marks, each the mean of some values."""
    count = min(columns, len(values))
    ends = [len(values) * at // count for at in range(count + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(ends)]
    least, spread = min(means), max(means) - min(means)
    return "".join(marks[round((mean - least) / spread * (len(marks) - 1)) if spread else 0] for mean in means)


def seconds_left(account: Account, done: int, planned: int) -> float | None:
    """Estimate the remaining seconds at the pace so far; None: too early to tell."""
    paid, limit = done - account.cached, account.budget.time_limit
    if paid < ENOUGH:
        return None
    left = account.seconds / paid * max(0, planned - done)
    return left if limit is None else max(0.0, min(left, limit - account.seconds))


def clock(seconds: float) -> str:
    """Format seconds as on a clock: 0:07, 12:34, 1:02:03."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def waiting(in_flight: InFlight) -> str:
    """Say what a run waits for."""
    if in_flight.outage:
        return f"no answer from {short(in_flight.outage, 200)}"
    if not in_flight.calls:
        return "at work; no call in flight"
    names = dict.fromkeys(name.partition("@")[0] for name in in_flight.models)
    since = f"{'the oldest ' if in_flight.calls > 1 else ''}{in_flight.oldest:.0f} s"
    return f"waiting for {counted(in_flight.calls, 'reply', 'replies')} of {short(', '.join(names), 36)}, {since}"


def as_line(view: View, in_flight: InFlight) -> str:
    """Format the view as one line, without the parts that exceed LINE_WIDTH."""
    parts = [
        f"[{clock(view.seconds)}] {view.title}: {view.done:,} of {view.planned:,} {view.unit}",
        *([f"loss {recent_loss(view.losses):.3f}"] if view.losses else []),
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
            return f"none yet: {verb(own_name(snapshot), 'is')} scored first"
        rows = counted(snapshot.plan.rungs[-2:][0], "dev row")
        own = "" if snapshot.baseline is None else f"; {own_name(snapshot)} {points(snapshot.baseline)}"
        return f"none of {snapshot.trials:,} tried was scored on {rows} yet{own}"
    mean, *ci95 = snapshot.best
    is_own = snapshot.leader is not None and snapshot.leader.id == snapshot.baseline_id
    name = "released" if snapshot.is_migration else "baseline"
    baseline = "" if is_own or snapshot.baseline is None else f", {name} {points(snapshot.baseline)}"
    return points(mean) + bracketed(ci95).replace("(", "(95 % CI ", 1) + baseline


def _best(snapshot: Snapshot) -> str:
    leader = snapshot.leader
    if leader is None:
        return ""
    if leader.id == snapshot.baseline_id:
        return own_name(snapshot)
    demos = f", {counted(leader.n_examples, 'example', 'examples')}" if leader.n_examples else ""
    return short(f"{leader.technique}{demos}, {leader.id[:6]}", 60)


def _spent(account: Account, planned: Iterable[CallRole] = ()) -> tuple[Row, ...]:
    paid, budget = account.paid, account.budget
    shown = [role for role in ROLES if role in paid or role in planned]
    rows = [_row(account, role, paid.get(role)) for role in shown]
    name, calls, of_calls, tokens, of_tokens, usd, _ = _row(
        account, shown[0] if len(shown) == 1 else "all", account.total_paid
    )
    of_calls = f"of {count(budget.max_calls)} calls" if budget.max_calls else of_calls
    of_tokens = f"of {count(budget.max_tokens)} tokens" if budget.max_tokens else of_tokens
    of_usd = f"of ${budget.max_cost:,.2f}" if budget.max_cost is not None else ""
    return (*(rows if len(rows) > 1 else ()), (name, calls, of_calls, tokens, of_tokens, usd, of_usd))


def _row(account: Account, name: str, spend: Spend | None) -> Row:
    calls, tokens, paid = (spend.calls, spend.tokens, spend.usd) if spend else (0, 0, 0.0)
    usd = f"${paid:,.4f}" if paid < 100 else f"${paid:,.2f}"
    if account.unpriced:
        usd = f"over {usd}" if paid else "unknown price"
    return name, count(calls), "call" if calls == 1 else "calls", count(tokens), "tokens", usd, ""


def count(number: int) -> str:
    """Format a whole number in at most 7 characters: 999,999 or 1.23 M."""
    if number < 1_000_000:
        return f"{number:,}"
    return f"{number / 1e6:.2f} M" if number < 1e9 else f"{number / 1e9:.2f} G"
