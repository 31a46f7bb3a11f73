"""Inputs that break careless lookups, templates and files: query syntax, marks, odd letters, nothing, far too much."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

WORDS = ("card", "fee", "parcel", "late", "door", "code", "refund", "box", "billing", "the", "a")
PIECES = (
    ('"card" AND fee', "NEAR(card fee, 2)", "card* OR -fee", "message:card", "^card", "(card", 'NOT "', "DROP TABLE"),
    ("'card'", '"fee"', '""', "`code`", "\\", '\\"', "\\n", "'''", '"""', "'; --"),
    ("\0", "ca\0rd", "\x01\x1b[31m", "\x7f", "\r\n", "\r", "\t", "\x0b\x0c", "\u2028\u2029\x85"),
    ("\ud800", "\udfff fee", "card\ud83d", "\udc00\ud800"),
    ("שלום card", "مرحبا fee", "\u202ecard\u202c", "\u2067late\u2069", "\u200f"),
    ("😀", "👩‍👩‍👧 card", "🇩🇪", "\ufe0f", "👍🏽 fee", "\U0001f9ff"),
    ("e\u0301", "ca\u0301\u0302\u0303rd", "\u0301", "fe\u0308e", "a" + "\u0316" * 40, "ﬁ", "Å Å", "İ ı ß"),
    ('{"card": [1, null, {"fee": "x"}]}', "[]", '{"role": "system", "content": "card"}', "null", '{"a":', "1e999"),
    ("{{message}}", "{{ context }}", "{% if card %}", "{% raw %}", "{# fee #}", "#}", "{", "}}", "\\{{channel}}"),
    ("{{picked examples}}", "${x} $x %s %(x)s {0} {card}", "<x>&amp;", "## pool", "## user\n\nx", "+++", "---", "file://x"),
    ("漢字 カード", "東京都", "กรุงเทพ", "မြန်မာ", "한국어 card"),
)  # fmt: skip


def hostile_inputs(names: Sequence[str], count: int = 1000, seed: int = 11) -> Iterator[dict[str, str]]:
    """So many rows of inputs, the same each time; each sort of piece stands alone, in words and among others."""
    rng = random.Random(seed)
    sorts: list[Callable[[], str]] = [
        lambda: "",
        lambda: rng.choice((" ", "\n", "\n\n ", "\t")),
        lambda: " ".join(rng.choices(WORDS, k=5)),
        *(lambda pieces=pieces: rng.choice(pieces) for pieces in PIECES),
        *(lambda pieces=pieces: " ".join(rng.sample((*WORDS[:5], *pieces), k=6)) for pieces in PIECES),
        lambda: "".join(rng.choice(rng.choice(PIECES)) for _ in range(rng.randint(2, 8))),
    ]
    yield {name: " ".join(rng.choices(WORDS, k=10_000)) for name in names}
    yield dict.fromkeys(names, "card " * 10_000)
    for number in range(count - 2):
        yield {name: sorts[(number + at * 7) % len(sorts)]() for at, name in enumerate(names)}
