"""Twelve small tables of the kinds that people have; every row is made up, by seeds."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = dict[str, Any]

ISSUES = {
    "billing": [
        "I was charged twice for the March invoice",
        "the receipt shows the wrong company name",
        "our VAT number is missing on every bill",
        "the direct debit failed although the account is covered",
        "you still bill five seats but we cancelled two",
        "the credit note you promised never arrived",
    ],
    "delivery": [
        "the parcel has been stuck in the depot since Monday",
        "the courier left the box in the rain",
        "tracking says delivered and nothing is here",
        "half of the order is missing from the crate",
        "we moved and the van went to the old address",
        "the pallet arrived a week late and nobody told us",
    ],
    "account": [
        "the reset link for my password expires at once",
        "two-step login asks for a code I never get",
        "my colleague cannot see the shared workspace",
        "please change the owner of our team profile",
        "the app logs me out every few minutes",
        "I cannot verify the new email address",
    ],
}
OPENINGS = [
    "Hello team,",
    "Good morning,",
    "Hi there,",
    "To whom it may concern,",
    "Dear support,",
    "Hey,",
    "Sorry to bother you again,",
    "Quick question:",
    "Following up on yesterday's call,",
    "As agreed on the phone,",
]
ENDINGS = [
    "could someone look into it before Friday?",
    "this is the third time this month.",
    "please call me back after lunch.",
    "our customers are starting to complain.",
    "I have attached a screenshot.",
    "let me know what you need from us.",
    "it worked fine until last week.",
    "thanks a lot for your patience.",
    "we need an answer for our audit.",
    "otherwise I have to escalate.",
    "the office in Leeds has the same problem.",
    "no rush, but do keep me posted.",
]
WHO = [
    "the bakery",
    "our warehouse",
    "the school office",
    "a client in Porto",
    "the night shift",
    "the front desk",
    "my manager",
    "the print shop",
    "a volunteer",
    "the clinic",
    "our reseller",
    "the garden centre",
    "the choir",
    "a neighbour",
]


def _message(rng: random.Random, topic: str) -> str:
    first, second = rng.sample(ISSUES[topic], 2)
    about = f"{rng.choice(WHO)} reports that {first}, and {rng.choice(WHO)} adds that {second}"
    return f"{rng.choice(OPENINGS)} {about}; {' '.join(rng.sample(ENDINGS, 2))}"


def _topics(count: int, seed: int, weights: Sequence[int] = (1, 1, 1)) -> list[tuple[random.Random, str]]:
    rng = random.Random(seed)
    return [(rng, topic) for topic in rng.choices(list(ISSUES), weights, k=count)]


def helpdesk() -> list[Row]:
    """An export with ids, dates, HTML and columns that are filled in after the answer."""
    return [
        {
            "Ticket ID": 48100 + n,
            "Created at": f"2026-0{n % 9 + 1}-{n % 27 + 1:02} 10:{n % 60:02}",
            "Body": f"<p>{_message(rng, topic)}</p><br>",
            "Assignee": rng.choice(["Priya", "Tom", "Lena", "Jo"]),
            "CSAT": rng.choice(["", "1", "2", "3", "4", "5"]),
            "Queue": topic,
        }
        for n, (rng, topic) in enumerate(_topics(70, 1))
    ]


AGREEMENT = {
    "Strongly disagree": ["never get a reply from my lead", "dread every planning day", "find the tools useless"],
    "Disagree": ["rarely hear why things change", "often wait for approvals", "miss a clear plan"],
    "Neutral": ["see good weeks and bad weeks", "have no firm view yet", "joined only last month"],
    "Agree": ["mostly get the help I need", "usually know what to do next", "like the new office"],
    "Strongly agree": ["love working with this crew", "learn something every day", "would recommend us to anyone"],
}
ZUFRIEDEN = {
    "sehr unzufrieden": [
        "Niemand ging ans Telefon",
        "Das Gerät war nach zwei Tagen kaputt",
        "Drei Termine wurden abgesagt",
    ],
    "unzufrieden": ["Die Lieferung kam zu spät", "Die Anleitung fehlte im Paket", "Der Rückruf dauerte lange"],
    "teils/teils": [
        "Die Ware ist gut, der Versand nicht",
        "Freundlich, aber langsam",
        "Manches klappte, manches nicht",
    ],
    "zufrieden": ["Alles kam pünktlich an", "Die Beratung war hilfreich", "Der Preis stimmt"],
    "sehr zufrieden": ["Besser geht es nicht", "Ich empfehle Sie allen weiter", "Der Monteur war großartig"],
}
PLACES_DE = [
    "in Bremen",
    "im Laden am Markt",
    "bei der Filiale Süd",
    "über die App",
    "per Telefon",
    "in Köln",
    "am Schalter",
    "im Onlineshop",
]
NAMES_DE = ["Müller", "Öztürk", "Schäfer", "Groß", "Weiß", "Lindner"]
WHEN_DE = [
    "letzte Woche",
    "gestern Abend",
    "im Januar",
    "kurz vor Ostern",
    "nach dem Umzug",
    "am Montag",
    "beim zweiten Versuch",
    "heute früh",
]


def survey() -> list[Row]:
    """Answers to a survey, on a scale of agreement."""
    rng = random.Random(2)
    rows = []
    for label in rng.choices(list(AGREEMENT), k=75):
        first, second, who = rng.choice(AGREEMENT[label]), rng.choice(AGREEMENT[label]), rng.choice(WHO)
        comment = f"In {who}'s project I {first} and also {second}; {' '.join(rng.sample(ENDINGS, 2))}"
        rows.append({"comment": comment, "agreement": label})
    return rows


def umfrage() -> list[Row]:
    """The same in German, with semicolons between the columns."""
    rng = random.Random(3)
    rows = []
    for label in rng.choices(list(ZUFRIEDEN), k=80):
        said, when, place = " und ".join(rng.sample(ZUFRIEDEN[label], 2)), rng.choice(WHEN_DE), rng.choice(PLACES_DE)
        comment = f"{said}, {when} {place}, Auftrag von {rng.choice('ABCDEFG')}. {rng.choice(NAMES_DE)}"
        rows.append({"Kommentar": comment, "Zufriedenheit": label})
    return rows


def two_targets() -> list[Row]:
    """Tickets with a queue and a priority."""
    return [
        {"message": _message(rng, topic), "queue": topic, "priority": rng.choice(["low", "medium", "high"])}
        for rng, topic in _topics(66, 4)
    ]


def tags() -> list[Row]:
    """One to three tags in a cell."""
    rng = random.Random(5)
    rows = []
    for _ in range(70):
        topics = rng.sample(list(ISSUES), rng.choice([1, 1, 2, 3]))
        said = ", and ".join(rng.choice(ISSUES[topic]) for topic in topics)
        text = f"{rng.choice(OPENINGS)} at {rng.choice(WHO)} {said}; {' '.join(rng.sample(ENDINGS, 2))}"
        rows.append({"note": text, "tags": "; ".join(topics)})
    return rows


def orders() -> list[Row]:
    """Order mails with the quantity in the text."""
    rng = random.Random(6)
    goods = ["oak shelves", "desk lamps", "steel hooks", "bar stools", "picture frames", "door mats", "paper rolls"]
    rows = []
    for _ in range(70):
        count, what, who = rng.randint(1, 20), rng.choice(goods), rng.choice(WHO)
        mail = f"{rng.choice(OPENINGS)} please send {count} {what} to {who}; {' '.join(rng.sample(ENDINGS, 2))}"
        rows.append({"mail": mail, "quantity": count})
    return rows


def own_split() -> list[Row]:
    """A file that says which rows are for what."""
    rows = [{"message": _message(rng, topic), "queue": topic} for rng, topic in _topics(90, 7)]
    return [row | {"split": ("train", "validation", "test")[n % 3]} for n, row in enumerate(rows)]


def imbalanced() -> list[Row]:
    """One queue has most of the rows."""
    return [{"message": _message(rng, topic), "queue": topic} for rng, topic in _topics(80, 8, (16, 2, 2))]


def replies() -> list[Row]:
    """Long answers in free text."""
    steps = {
        "billing": "I have corrected the invoice and you will get the new one by email within two working days",
        "delivery": "I have asked the carrier to search for it and will write to you as soon as they answer",
        "account": "I have reset the access, so please sign in again and choose a new password",
    }
    rows = []
    for rng, topic in _topics(60, 9):
        question, who, end = _message(rng, topic), rng.choice(WHO), rng.choice(ENDINGS)
        reply = f"Thank you for writing. {steps[topic]}. If that does not help {who}, {end}"
        rows.append({"question": question, "reply": reply})
    return rows


def weights() -> list[Row]:
    """Numbers with a unit, out of notes."""
    rng = random.Random(10)
    goods = ["sand", "cable", "paint", "rope", "flour", "gravel"]
    rows = []
    for _ in range(60):
        amount = f"{rng.randint(2, 90)} {rng.choice(['kg', 'l', 'm'])}"
        note = f"{rng.choice(WHO)} brought {amount} of {rng.choice(goods)}; {' '.join(rng.sample(ENDINGS, 2))}"
        rows.append({"note": note, "amount": amount})
    return rows


def stars() -> list[Row]:
    """Ratings from 1 to 5, as JSON lines."""
    labels = list(AGREEMENT)
    return [{"review": row["comment"], "stars": labels.index(row["agreement"]) + 1} for row in survey()]


def two_sheets() -> list[Row]:
    """The first of two sheets of a workbook."""
    return [{"Message": _message(rng, topic), "Team": topic} for rng, topic in _topics(60, 12)]


@dataclass(frozen=True)
class Table:
    """A table: its file, its rows, the columns to predict, and the prompt that somebody uses today."""

    file: str
    rows: Callable[[], list[Row]]
    targets: tuple[str, ...]
    prompt: str
    encoding: str = "utf-8"

    def write(self) -> list[str]:
        """Write the file here; returns the command that runs it."""
        rows, path = self.rows(), Path(self.file)
        if path.suffix == ".jsonl":
            path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
        elif path.suffix == ".xlsx":
            _write_workbook(path, rows)
        else:
            with path.open("w", encoding=self.encoding, newline="") as file:
                table = csv.DictWriter(file, list(rows[0]), delimiter=";" if self.file == "umfrage.csv" else ",")
                table.writeheader()
                table.writerows(rows)
        return [
            "run",
            self.file,
            *(word for name in self.targets for word in ("--target", name)),
            "--prompt",
            self.prompt,
        ]


def _write_workbook(path: Path, rows: Sequence[Row]) -> None:
    import openpyxl

    book = openpyxl.Workbook()
    first, second = book.active, book.create_sheet("Legend")
    assert first is not None
    first.title = "Tickets"
    for row in ([*rows[0]], *(list(row.values()) for row in rows)):
        first.append(row)
    second.append(["Team", "Who"])
    second.append(["billing", "Accounts"])
    book.save(path)


ROUTE = "Which queue is this message for: billing, delivery or account? Answer with one word."
TABLES = (
    Table("helpdesk.csv", helpdesk, ("Queue",), ROUTE),
    Table("survey.csv", survey, ("agreement",), "How much does the writer agree that work goes well?", "utf-16"),
    Table("umfrage.csv", umfrage, ("Zufriedenheit",), "Wie zufrieden ist der Kunde?", "cp1252"),
    Table("two_targets.jsonl", two_targets, ("queue", "priority"), "Name the queue and the priority of this message."),
    Table("tags.csv", tags, ("tags",), "Which topics does the note have? Separate them by semicolons."),
    Table("orders.csv", orders, ("quantity",), "How many pieces are ordered? Answer with a number."),
    Table("own_split.csv", own_split, ("queue",), ROUTE),
    Table("two_sheets.xlsx", two_sheets, ("Team",), ROUTE),
    Table("imbalanced.csv", imbalanced, ("queue",), ROUTE),
    Table("replies.csv", replies, ("reply",), "Answer the customer politely in two or three sentences."),
    Table("weights.csv", weights, ("amount",), "How much was brought? Answer with the number and its unit."),
    Table("stars.jsonl", stars, ("stars",), "How many stars would the writer give, 1 to 5?"),
)
