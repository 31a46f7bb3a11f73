"""What a team's ledger gets of a finished run, and how it is verified there.

Published are the events of the run, and those of earlier runs that made candidates it tried. Their numbers and hashes
are those of the chain, so each verifies on its own, and consecutive ones as a chain. `digest` covers all hashes: a copy
of it kept elsewhere proves that none was removed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from agent.errors import LedgerError
from agent.ledger.anchors import FoundWrong
from agent.ledger.chain import AUDITED, EVENT, Finding, Folded, Row, columns_of, sha256
from agent.ledger.connect import ledger_option
from agent.ledger.query import History
from agent.results.base import Result

FINISHED = ("complete", "budget")
NUL, SHOWN_NUL = "\0", "\u2400"  # PostgreSQL stores no text with NUL: its symbol is stored instead
_TRIED = (
    "SELECT candidate_id FROM proposals WHERE run_id = :run UNION SELECT candidate_id FROM trials WHERE run_id = :run"
)
_OF_RUN = (
    f"SELECT {', '.join(EVENT)} FROM events WHERE run_id = :run "
    "OR (kind IN ('candidate_made', 'example_made') AND CASE json_extract(body, '$.insert') "
    f"WHEN 'candidates' THEN json_extract(body, '$.row.id') IN ({_TRIED}) "
    f"WHEN 'examples' THEN json_extract(body, '$.row.candidate_id') IN ({_TRIED}) "
    "END) ORDER BY seq"
)


class Published(Result):
    """A run in a team's ledger; `new` if it was written now, `texts` if with its payload texts."""

    run_id: str
    to: str
    events: int
    rows: int
    texts: int
    digest: str
    new: bool

    def line(self) -> str:
        """Summarize it in one line."""
        how = "published" if self.new else "stands there already"
        counts = f"{self.events} events, {self.rows} rows, {self.texts} texts"
        return f"{self.run_id}: {how}: {counts}, digest {self.digest}"


class PublishedReading(Result):
    """Result of `verify_published`: `findings` are violations."""

    run_id: str
    events: int
    rows: int
    texts: int
    digest: str
    findings: tuple[FoundWrong, ...]


def publication(history: History, run_id: str, with_texts: bool) -> tuple[Row, dict[str, list[Row]]]:
    """Return the record of a finished run and its rows by table. Raises LedgerError otherwise."""
    run = history.run(run_id)
    if run["status"] not in FINISHED:
        raise LedgerError(f"{run['id']}: not finished ({run['status']}); `optimize resume` continues it")
    events = [dict(zip(EVENT, found, strict=True)) for found in history.db.execute(_OF_RUN, {"run": run["id"]})]
    folded = Folded.of(events, gaps=True)
    if folded.broken:
        verify = f"`optimize audit verify{ledger_option(history.path)}`"
        raise LedgerError(f"{history.path}: not whole: {folded.broken}; {verify} lists all")
    tables: dict[str, list[Row]] = {"events": events, **{table: [] for table in AUDITED}, "texts": []}
    for place, row in folded.rows.items():
        empty = {name: value for name, (_, value) in columns_of(place[0]).items()}
        tables[place[0]].append(plain({**empty, **row}))
    for digest in folded.texts if with_texts else ():
        if (text := history.text(digest)) is not None:
            tables["texts"].append(plain({"hash": digest, "body": text}))
    (ledger,) = history.db.execute("SELECT hash FROM events WHERE seq = 1").fetchone()
    counts = {"events": len(events), "texts": len(tables["texts"])}
    return {"run": run["id"], "ledger": ledger, **counts, "digest": digest_of(events)}, tables


def digest_of(events: Iterable[Row]) -> str:
    return hashlib.sha256("".join(str(event["hash"]) for event in events).encode()).hexdigest()


def plain(row: Mapping[str, Any]) -> Row:
    """Return a row with only values that PostgreSQL can store."""
    return {name: value.replace(NUL, SHOWN_NUL) if isinstance(value, str) else value for name, value in row.items()}


def differences(events: Iterable[Row], rows: Mapping[str, Iterable[Row]], texts: Iterable[Row]) -> Iterator[Finding]:
    folded = Folded.of(events, gaps=True)
    if folded.broken:
        yield folded.broken
        return
    said = {place: plain(row) for place, row in folded.rows.items()}
    yield from folded.compare(((table, map(dict, there)) for table, there in rows.items()), said)
    for text in texts:
        if text["hash"] not in folded.texts:
            yield Finding(0, f"no event names a text: {text['hash']}")
        elif text["hash"] not in {sha256(text["body"]), sha256(text["body"].replace(SHOWN_NUL, NUL))}:
            yield Finding(folded.texts[text["hash"]], f"a text does not match its hash: {text['hash']}")
