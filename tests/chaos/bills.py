"""A provider that refuses without asking for a wait, and one that bills more than a call was reserved at: what it costs
is bounded, and told.
"""

from __future__ import annotations

from tests.chaos.books import DOLLARS_IN, DOLLARS_OUT, broken_promises, copied, differences
from tests.chaos.harness import MAX_COST, TINY, Campaign, Folder, Row

NO_WAITS = {"0": "0", "negative": "-5", "past date": "Wed, 21 Oct 2015 07:28:00 GMT", "1e300": "1e300"}
"""What Retry-After says. The last asks for a wait, and for more than anybody has."""
PATIENCE = 4  # seconds of --max-wait
MOST_REQUESTS = 60  # in them
HIDDEN = (500, 10_000)
"""Tokens that are billed on top of each reply."""
TOLD = "times its reservation: "
TOKENS = "prompt_tokens + completion_tokens"
PRICED = ("--price", f"{DOLLARS_IN},{DOLLARS_OUT}")
CAPS = {"$": ("--max-cost", "0.05"), "tokens": ("--max-tokens", "60000")}


def retry_zero(c: Campaign) -> Row:
    """Nothing but 429s that ask for no wait: a few requests, no call of the cap, one clear line, and the run goes on
    when the provider is back.
    """
    options = (*TINY, "--max-calls", "330")
    broken, told, expected = [], [], c.reference(*options)
    with c.provider() as server:
        for name, value in NO_WAITS.items():
            server.reset({"kind": "status", "status": 429, "retry_after": {"text": value}})
            folder = c.folder("limited")
            ended = folder.run(server.url, *options, "--max-wait", str(PATIENCE)).wait(60)
            requests, books = server.bill()["requests"], folder.books()
            calls = sum(call["error_class"] != "rate_limit" for call in books.attempts)
            told.append(f"{name}: {requests} requests, {calls} calls in {ended.seconds:.1f} s")
            broken += [f"{name}: {what}" for what in ended.told()]
            broken += [f"{name}: {requests} requests"] if requests > MOST_REQUESTS else []
            broken += [f"{name}: {calls} calls"] if calls else []
            longest = max(map(len, ended.errors), default=0)
            broken += [f"{name}: a line of {longest} characters"] if longest > 300 else []
            broken += broken_promises(books, server.bill(), None, MAX_COST)
            server.control()
            again = folder.line(ended.last_line).wait()
            broken += [f"{name}, resumed: {again.err[-300:]}"] if again.code else differences(folder.books(), expected)
    promised = f"<= {MOST_REQUESTS} requests in {PATIENCE} s, 0 calls of the cap, resumes"
    return Row("429 that asks for no wait", len(NO_WAITS), promised, "; ".join(told), tuple(broken))


def over_bill(c: Campaign) -> Row:
    """Replies that cost many times their reservation: one call flies before the first bill, a cap is passed by it at
    most, and the end says by how much. Where the cap is large enough, the result is that of an honest provider.
    """
    broken, told, runs = [], [], 0
    with c.provider(latency=0.05) as server:
        for tokens in HIDDEN:
            for what, cap in CAPS.items():
                runs += 1
                server.reset({"kind": "overbill", "tokens": tokens})
                folder = c.folder("dear")
                ended = folder.run(server.url, *TINY, *cap, *PRICED, price=False).wait(60)
                above, excess, paid = _above(folder, what)
                over = max(0.0, paid - float(cap[1]))
                name = f"+{tokens} tokens, cap {cap[1]} {what}"
                told.append(f"{name}: paid {paid:g}, {above} calls above their reservation")
                broken += [f"{name}: {above} calls above their reservation"] if above != 1 else []
                broken += [f"{name}: passed by {over:g}, by these calls {excess:g}"] if over > excess + 1e-9 else []
                broken += [f"{name}: not told"] if TOLD not in ended.err else []
                passed = "which passes the cap" in ended.err + ended.out
                broken += [f"{name}: the end does not say it"] if passed is not (over > 0) else []
                broken += broken_promises(folder.books(), server.bill())
        server.reset({"kind": "overbill", "tokens": HIDDEN[0]})
        folder, runs = c.folder("rich"), runs + 1
        ended = folder.run(server.url, *TINY).wait(60)
        broken += [f"exit {ended.code}: {ended.err[-300:]}"] if ended.code else []
        broken += differences(folder.books(), c.reference(*TINY))
        broken += broken_promises(folder.books(), server.bill(), None, MAX_COST)
    promised = "one call above its reservation, the cap passed by this one alone, and told"
    return Row("bills above what was reserved", runs, promised, "; ".join(told), tuple(broken))


def _above(folder: Folder, what: str) -> tuple[int, float, float]:
    """Replies that cost more than was reserved, by how much in all, and all that was paid: in $ or in tokens."""
    cost, reserved = ("cost_usd", "reserved_usd") if what == "$" else (TOKENS, "reserved_tokens")
    with copied(folder.ledger) as db:
        calls = db.execute(f"SELECT {cost}, {reserved} FROM calls WHERE state = 'ok'").fetchall()
    above = [paid - worst for paid, worst in calls if paid > worst + 1e-12]
    return len(above), sum(above), sum(paid for paid, _ in calls)
