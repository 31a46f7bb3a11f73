"""Twelve tables whose rows are alike: copies of a source, or rows of one template, with the source of each row."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

WORDS = [f"{a}{b}{c}" for a in ("ba", "co", "di", "fu", "ge") for b in ("ran", "sel", "tip", "vum") for c in "aeiou"]
NAMES = ("Ada", "Bo", "Cem", "Dina", "Eli", "Fay", "Gus", "Hana", "Ivo", "Jun", "Kim", "Lea")
THINGS = ("printer", "badge", "laptop", "door", "phone", "lamp", "chair", "screen", "mouse", "heater", "router", "desk")
FAULTS = ("is broken", "is missing", "was stolen", "makes noise", "smells odd", "is too slow")


class Row(NamedTuple):
    text: str
    label: str
    source: int


def said(rng: random.Random, count: int) -> str:
    return " ".join(rng.choices(WORDS, k=count))


def tailed(rng: random.Random, labels: int, count: int) -> list[int]:
    """Labels of a long tail, at least four rows each."""
    rare = [label for label in range(labels) for _ in range(4)]
    return rare + rng.choices(range(labels), [1 / (at + 1) for at in range(labels)], k=count - len(rare))


def tickets(rng: random.Random) -> list[Row]:
    """Generated tickets, one sentence per label."""
    kinds = [(THINGS[label % 12], FAULTS[label // 6]) for label in range(31)]
    return [
        Row(
            f"Hello, this is {rng.choice(NAMES)} from office {rng.randrange(100, 400)}. The {kinds[label][0]} here "
            f"{kinds[label][1]} since Monday. Please send someone as soon as you can. Ticket {rng.randrange(10**6)}",
            f"l{label}",
            at,
        )
        for at, label in enumerate(tailed(rng, 31, 420))
    ]


def intents(rng: random.Random) -> list[Row]:
    """Five sentences per intent, filled with names and numbers."""
    frames = {(label, form): said(rng, 9) for label in range(8) for form in range(5)}
    return [
        Row(f"{frames[at % 8, rng.randrange(5)]} {rng.choice(NAMES)} {rng.randrange(10**4)}", f"l{at % 8}", at)
        for at in range(240)
    ]


def long_tail(rng: random.Random) -> list[Row]:
    return [Row(said(rng, 12), f"l{label}", at) for at, label in enumerate(tailed(rng, 25, 300))]


def contradicting(rng: random.Random) -> list[Row]:
    """Texts that were labelled by up to four people who do not agree."""
    texts = [said(rng, 14) for _ in range(90)]
    return [
        Row(f"{text} {rng.choice(WORDS)}", f"l{rng.randrange(3)}", at)
        for at, text in enumerate(texts)
        for _ in range(rng.randrange(1, 5))
    ]


def conversations(rng: random.Random) -> list[Row]:
    """A customer's conversation, sent again with each message that is added."""
    rows = []
    for customer in range(80):
        text = said(rng, 40)
        for _ in range(rng.randrange(1, 7)):
            text += f" {said(rng, 3)}"
            rows.append(Row(text, f"l{customer % 4}", customer))
    return rows


def insistent(rng: random.Random) -> list[Row]:
    """A complaint that is sent up to eight times."""
    complaints = [(said(rng, 15), f"l{rng.randrange(4)}") for _ in range(80)]
    return [
        Row(f"{text} {rng.choice(WORDS)}", label, at)
        for at, (text, label) in enumerate(complaints)
        for _ in range(rng.randrange(1, 9))
    ]


def series(rng: random.Random) -> list[Row]:
    """Readings that rise, fall or stay, in a sentence."""
    rows = []
    for at in range(180):
        step = (at % 3 - 1) * rng.randrange(5, 9)
        first = rng.randrange(100, 900)
        numbers = " ".join(str(first + step * place + rng.randrange(-2, 3)) for place in range(4))
        frame = "The sensor in the cold store of the plant sent these four readings in degrees at noon today"
        rows.append(
            Row(f"{frame}: {numbers} and then it was read again by hand", ("falls", "stays", "rises")[at % 3], at)
        )
    return rows


def forms(rng: random.Random) -> list[Row]:
    """A form whose amount decides."""
    rows = []
    for at in range(200):
        amount = rng.randrange(10, 2000)
        text = (
            f"Expense report of the sales team. Employee: {rng.choice(NAMES)}. Amount: {amount} euros. "
            "Receipt attached: yes. Approved by the head of the department, online: not yet. Comment: none."
        )
        rows.append(Row(text, "check" if amount > 800 else "pay", at))
    return rows


def colours(rng: random.Random) -> list[Row]:
    """A form in which one word decides."""
    kinds = dict(zip(("red", "green", "blue", "white", "black", "pink"), "aabbcd", strict=True))
    rows = []
    for at in range(240):
        colour = rng.choice(list(kinds))
        frame = "We received your order of one bicycle with a basket and a bell and will send it in the colour"
        rows.append(Row(f"{frame} {colour} on day {rng.randrange(365)}", kinds[colour], at))
    return rows


def logs(rng: random.Random) -> list[Row]:
    """Log lines with their own numbers; a word decides."""
    words = {
        "accepted": "fine",
        "refused": "look",
        "timeout": "look",
        "closed": "fine",
        "corrupt": "call",
        "full": "call",
    }
    rows = []
    for at in range(300):
        word = rng.choices(list(words), [9, 3, 3, 9, 1, 2])[0]
        start = f"2026-03-{rng.randrange(1, 29):02d} gateway worker {rng.randrange(40)} line {rng.randrange(10**5)}"
        rows.append(
            Row(f"{start} from the office network to the store was {word} by peer after a new try", words[word], at)
        )
    return rows


def opposites(rng: random.Random) -> list[Row]:
    """Reviews in pairs that differ in one word."""
    rows = []
    for at in range(100):
        text = said(rng, 12)
        rows += [Row(f"{text} good", "+", at), Row(f"{text} awful", "-", at)]
    return rows


def spam(rng: random.Random) -> list[Row]:
    """Different texts, and one that a third of the rows repeat."""
    letter = said(rng, 25)
    copies = [Row(f"{letter} {rng.choice(WORDS)}", "spam", 0) for _ in range(100)]
    return copies + [Row(said(rng, 20), rng.choice(["spam", "ham", "ham", "news"]), at) for at in range(1, 201)]


TABLES: tuple[Callable[[random.Random], list[Row]], ...] = (
    tickets, intents, long_tail, contradicting, conversations, insistent, series, forms, colours, logs, opposites, spam,
)  # fmt: skip
