"""A provider that refuses, is down, is slow, or answers nonsense: no row is lost, none is scored 0 for it, and no
request is made that must not be.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.chaos.books import broken_promises, differences
from tests.chaos.faults import ENDLESS
from tests.chaos.harness import MAX_COST, OTHER_KEY, QUICK, TINY, WIDTH, Campaign, Row, impatient

FORMS: dict[str, dict[str, float]] = {
    "seconds": {"seconds": 1},
    "ms": {"ms": 700},
    "date": {"date": 1},
    "none": {},
}
REFUSED = 0.1  # of the requests, at most, that a limiter which learns runs into
SLACK = 3.0  # of the time that the same run takes without limits and that the provider's capacity allows, together
DEADLINE = 0.5  # seconds for an attempt at a slow provider
LATE = 20.0  # seconds, also on a busy machine, for an attempt with that deadline; a reply byte by byte takes 200
DOWN = 4.0  # seconds: two probes of the breaker fail
LIMIT = 4  # seconds of --time-limit
OVER = 60.0  # seconds, also on a busy machine, for a run with this limit; a call without one is given up after 120
LARGE = ("huge", "gzip_bomb", "deep_json")
MOST_MORE = 200_000  # KB of memory more than an undisturbed run has: some replies at once, of 10 MB each at most


def refusals(c: Campaign, fault: dict[str, Any], name: str) -> Row:
    """No quota or no key in mid-run: the run stops at once, and goes on with another key."""
    expected, broken = c.reference(*QUICK), []
    with c.provider(latency=0.02) as server:
        server.control({"kind": "status", "after": 150, **fault})
        folder = c.folder("refused")
        ended = folder.run(server.url, *QUICK).wait()
        broken += ended.told()
        refused = server.bill()["by_status"].get(str(fault["status"]), 0)
        if not 1 <= refused <= WIDTH:
            broken.append(f"{refused} requests were refused, with {WIDTH} workers")
        before = folder.books()
        broken += broken_promises(before, server.bill(), None, MAX_COST)
        server.control()
        again = folder.line(ended.last_line, key=OTHER_KEY).wait()
        broken += [f"resumed: {again.err[-300:]}"] if again.code else differences(folder.books(), expected)
        broken += broken_promises(folder.books(), server.bill(), before, MAX_COST)
    happened = f"{refused} refused, exit {ended.code}; resumed with another key: exit {again.code}"
    return Row(name, 1, f"<= {WIDTH} refused, exit 1, the resume line works", happened, tuple(broken))


def rate_limits(c: Campaign, form: str) -> Row:
    """429s at random moments, each with a wait: nothing may come inside it once the client can have heard of it."""
    expected, broken = c.reference(*QUICK), []
    limits = c.times(2)
    with c.provider(latency=0.02) as server:
        fault = {"kind": "status", "status": 429, "rate": 0.02, "times": limits, "retry_after": FORMS[form]}
        server.control(fault)
        folder = c.folder("limited")
        ended = folder.run(server.url, *QUICK).wait()
        bill, books = server.bill(), folder.books()
        broken += inside_waits(bill)
        broken += [f"exit {ended.code}: {ended.err[-300:]}"] if ended.code else differences(books, expected)
        broken += broken_promises(books, bill, None, MAX_COST)
    happened = f"{bill['by_fault'].get('status', 0)} 429s, {_early(bill)}, {ended.seconds:.1f} s"
    name = "429 without Retry-After" if form == "none" else f"429, Retry-After ({form})"
    return Row(name, 1, "0 requests in the second half of a wait, the same result", happened, tuple(broken))


def inside_waits(bill: dict[str, Any]) -> list[str]:
    """What came inside a wait although also a busy client had heard of it."""
    late = sum(window["late"] for window in bill["windows"])
    return [f"{late} requests in the second half of a wait"] if late else []


def _early(bill: dict[str, Any]) -> str:
    return f"{sum(window['inside_after_50ms'] for window in bill['windows'])} inside a wait after 50 ms"


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a provider lets through, and how many seconds `requests` take at best."""

    fault: dict[str, Any]
    latency: float
    words: str

    def best(self, requests: int) -> float:
        if "per_second" in self.fault:
            return requests / float(self.fault["per_second"])
        return requests * self.latency / int(self.fault["concurrent"])


RATE = Capacity({"per_second": 100.0, "retry_after": {"seconds": 1}}, 0.05, "100 a second")
SILENT = Capacity({"per_second": 100.0, "retry_after": {}}, 0.05, "100 a second, without Retry-After")
ROOM = Capacity({"concurrent": 8, "retry_after": {"ms": 500}}, 0.08, "8 at once")


def capacity(c: Campaign, kind: Capacity) -> Row:
    """A provider that lets only so many through: the run finds the pace that it bears. Just before, the same run meets
    no limit: that is how fast this machine is now, and how long the search keeps the provider waiting anyway.
    """
    with c.provider(latency=kind.latency) as server:
        folder = c.folder("free")
        ended = folder.run(server.url, *QUICK).wait()
        bill, expected = server.bill(arrivals=True), folder.books()
        broken = [f"without limits: exit {ended.code}: {ended.err[-300:]}"] if ended.code else []
        free, widest = _seconds(bill), bill["max_concurrent"]
        server.reset({"kind": "capacity", **kind.fault})
        folder = c.folder("capacity")
        ended = folder.run(server.url, *QUICK).wait()
        bill, books = server.bill(arrivals=True), folder.books()
    broken += [f"only {widest} at once without limits"] if widest < WIDTH // 2 else []
    broken += unkept(kind, bill, free)
    broken += [f"exit {ended.code}: {ended.err[-300:]}"] if ended.code else differences(books, expected)
    broken += broken_promises(books, bill, None, MAX_COST)
    seconds, waited, best = _seconds(bill), asked_to_wait(bill), kind.best(bill["billed_requests"])
    happened = f"{bill['billed_requests']} calls in {seconds:.1f} s, {seconds / best:.2f} times the ideal"
    happened += f" ({free:.1f} s without limits, {widest} at once; waits of {waited:.1f} s); "
    happened += f"{bill['by_fault'].get('capacity', 0)} 429s, {_early(bill)}"
    promised = f"0 in the second half of a wait, <= {100 * REFUSED:.0f} % refused, outside the waits no crawl"
    return Row(f"capacity: {kind.words}", 1, promised, happened, tuple(broken))


def unkept(kind: Capacity, bill: dict[str, Any], free: float) -> list[str]:
    """What a limiter does not keep, by the provider's own timeline. `free`: seconds of the same run without limits.

    Seen with a limiter spoilt on purpose, beside six busy processes: without its pauses, 94 to 268 requests in second
    halves; without learning a width or a pace, 31 to 44 % refused; at an eighth of the pace, 37 s outside the waits.
    """
    broken = inside_waits(bill)
    refused = bill["by_fault"].get("capacity", 0) / bill["requests"]
    broken += [f"{100 * refused:.0f} % of the requests were refused"] if refused > REFUSED else []
    seconds, best = _seconds(bill) - asked_to_wait(bill), kind.best(bill["billed_requests"])
    if seconds > SLACK * (free + best):
        broken.append(f"{seconds:.1f} s outside the waits ({free:.1f} s without limits, ideal {best:.1f} s)")
    return broken


def _seconds(bill: dict[str, Any]) -> float:
    return float(bill["arrivals"][-1] - bill["arrivals"][0])


def asked_to_wait(bill: dict[str, Any]) -> float:
    """Seconds that lie inside any of the waits that were asked for."""
    total, until = 0.0, 0.0
    for window in sorted(bill["windows"], key=lambda window: float(window["start"])):
        total += max(0.0, window["end"] - max(until, window["start"]))
        until = max(until, window["end"])
    return total


def server_errors(c: Campaign) -> Row:
    """A tenth of the requests fails with one of five statuses."""
    expected, broken = c.reference(*QUICK), []
    with c.provider(latency=0.02) as server:
        server.control(*({"kind": "status", "status": status, "rate": 0.021} for status in (500, 502, 503, 504, 529)))
        folder = c.folder("errors")
        ended = folder.run(server.url, *QUICK).wait()
        bill, books = server.bill(), folder.books()
    calls = len(books.in_state("ok"))
    broken += [f"exit {ended.code}: {ended.err[-300:]}"] if ended.code else differences(books, expected)
    broken += [f"{books.unscored()} rows without a score"] if books.unscored() else []
    broken += [f"{bill['requests']} requests for {calls} calls"] if bill["requests"] > 1.2 * calls else []
    broken += broken_promises(books, bill, None, MAX_COST)
    failed = bill["by_fault"].get("status", 0)
    happened = f"{failed} failed of {bill['requests']}, {bill['requests'] / calls:.2f} requests a call"
    happened += f", {books.unscored()} rows lost"
    return Row("10 % of 500, 502, 503, 504, 529", 1, "0 rows lost, <= 1.2 requests a call", happened, tuple(broken))


def outage(c: Campaign) -> Row:
    """Nothing but 503 for some seconds: the run waits and goes on by itself."""
    expected, broken = c.reference(*QUICK), []
    with c.provider(latency=0.02) as server:
        server.control({"kind": "outage", "seconds": DOWN, "after": 150})
        folder = c.folder("outage")
        ended = folder.run(server.url, *QUICK).wait()
        bill, books = server.bill(), folder.books()
    failed = bill["by_fault"].get("outage", 0)
    broken += [f"exit {ended.code}: {ended.err[-300:]}"] if ended.code else differences(books, expected)
    broken += [f"{books.unscored()} rows without a score"] if books.unscored() else []
    broken += broken_promises(books, bill, None, MAX_COST)
    happened = f"down for {DOWN:g} s, {failed} requests failed in it, exit {ended.code} after {ended.seconds:.1f} s"
    return Row("outage", 1, "goes on by itself, 0 rows lost, the same result", happened, tuple(broken))


@dataclass(frozen=True, slots=True)
class Odd:
    """A fault that strikes a tenth of the requests. `same`: it may not change the result; `rest`: its parameters."""

    kind: str
    rest: dict[str, Any] = field(default_factory=dict)
    same: bool = False
    deadline: float = 0.0


ODD = (
    Odd("slow_loris", deadline=DEADLINE),
    Odd("hang", deadline=DEADLINE),
    Odd("truncated"),
    Odd("short"),
    Odd("empty"),
    Odd("reset"),
    Odd("html"),
    Odd("html", {"status": 502}),
    Odd("list"),
    Odd("wrong_schema"),
    Odd("null_choices"),
    Odd("deep_json"),
    Odd("huge"),
    Odd("gzip_bomb"),
    Odd("no_usage", same=True),
    Odd("model_change", same=True),
    Odd("empty_content"),
    Odd("finish_length"),
    Odd("finish_content_filter"),
    Odd("refusal"),
    Odd("echo_key"),
    Odd("echo_key", {"status": 200}),
    Odd("status", {"status": 400}),
)


def name_of(odd: Odd) -> str:
    return "-".join([odd.kind, *map(str, odd.rest.values())])


def odd_replies(c: Campaign, odd: Odd) -> Row:
    """A short run in which a tenth of the replies is of one odd kind: it ends well, or with one clear line."""
    expected, broken = c.reference(*TINY), []
    with c.provider(seed=1) as server:
        usual = c.folder("plain").run(server.url, *TINY, real=False).wait().peak_kb if odd.kind in LARGE else 0
        server.reset({"kind": odd.kind, "rate": 0.1, **odd.rest})
        folder = c.folder("odd")

        def hook() -> None:
            impatient()
            if odd.deadline:
                _deadline(odd.deadline)

        ended = folder.run(server.url, *TINY, hook=hook).wait()
        bill, books = server.bill(), folder.books()
    struck = bill["by_fault"].get(odd.kind, 0)
    broken += [] if struck else ["the fault never struck"]
    broken += ended.told() if ended.code else []
    broken += broken_promises(books, bill, None, MAX_COST)
    broken += differences(books, expected) if odd.same and not ended.code else []
    more = ended.peak_kb - usual if usual else 0
    broken += [f"{more / 1000:.0f} MB more memory"] if more > MOST_MORE else []
    if odd.kind == "model_change":
        seen = sum(call["served_model"] == "another-model" for call in books.calls)
        broken += [f"{seen} of {struck} changes of the model are in the ledger"] if seen != struck else []
    longest = max((call["latency_s"] or 0.0 for call in books.calls), default=0.0)
    if odd.deadline and longest > LATE:
        broken.append(f"an attempt of {longest:.1f} s, with a deadline of {odd.deadline:g} s")
    zeros, usual_zeros = (sum(value == 0.0 for value, _ in b.outcomes.values()) for b in (books, expected))
    happened = f"{struck} of {bill['requests']} struck, exit {ended.code}, {books.unscored()} unscored"
    happened += f", {zeros} zeros ({usual_zeros} undisturbed)" if zeros != usual_zeros else ""
    happened += f", longest attempt {longest:.1f} s" if odd.deadline else ""
    happened += f", {more / 1000:+.0f} MB" if usual else ""
    promised = "the same result" if odd.same else "no zero for it, exit 0 or one clear line"
    promised += f", ends at its deadline (<= {LATE:g} s)" if odd.deadline else ""
    return Row(name_of(odd).replace("-", " "), 1, promised, happened, tuple(broken))


def _deadline(seconds: float) -> None:
    """Gives every attempt so many seconds."""
    from dataclasses import replace

    from agent.models.hosted import HostedModel

    plain = HostedModel.complete

    async def complete(self: HostedModel, request: Any) -> Any:
        return await plain(self, replace(request, timeout=seconds))

    HostedModel.complete = complete  # type: ignore[method-assign]


def endless(c: Campaign) -> Row:
    """Replies that never end: the time limit ends the run, and what is in flight counts as paid."""
    broken, told = list[str](), list[str]()
    with c.provider() as server:
        for kind in ENDLESS:
            server.reset({"kind": kind, "after": 40})
            folder = c.folder("endless")
            ended = folder.run(server.url, *TINY, "--time-limit", str(LIMIT), hook=hasty).wait()
            books = folder.books()
            unknown = len(books.in_state("unknown"))
            told.append(f"{kind}: exit {ended.code} after {ended.seconds:.1f} s, {unknown} unknown")
            broken += [] if ended.seconds < OVER else [f"{kind}: {ended.seconds:.1f} s"]
            broken += [] if "time_limit" in ended.err + ended.out else [f"{kind}: not told: {ended.err[-300:]!r}"]
            broken += [] if 1 <= unknown <= WIDTH else [f"{kind}: {unknown} unknown outcomes"]
            broken += broken_promises(books, server.bill(), None, MAX_COST)
    promised = f"ended by --time-limit {LIMIT}, what was in flight unknown and charged, under the cap"
    return Row("replies without an end", len(told), promised, "; ".join(told), tuple(broken))


def hasty() -> None:
    """A hook: calls in flight have a second after the time limit."""
    from agent.gateway import budget

    budget.LANDING_SECONDS = 1.0
