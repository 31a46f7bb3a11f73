"""`optimize ledger`: many ledgers in one, and finished runs in a team's ledger."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

from agent.jobs.locations import open_history
from agent.jobs.registry import DB, Printed, job
from agent.ledger.anchors import noted_hash
from agent.ledger.container import merge_ledgers
from agent.ledger.team_store import publish, verify_published
from agent.options.kinds import File
from agent.options.option import option
from agent.report.blocks import text
from agent.report.terminal import print_table, say, show

URL_HELP = "postgresql://USER@HOST/NAME (the password in PGPASSWORD or ~/.pgpass) or sqlite:///FILE."


@job("ledger merge", required=("output",))
def merge(
    ledgers: Annotated[tuple[Path, ...], "A.db B.db ..."],
    *,
    output: File = option(None, "The merged ledger to write.", short="-o"),
    force: bool = option(False, "Write over a merged ledger that is there."),
) -> Printed:
    """Merge ledgers into one that is only read, with --db: by `history`, `show`, `report`, `compare`, `ui`, `audit`.

    Each ledger is verified first, and its chain is kept whole: `optimize audit verify --db TEAM.db` proves each on its
    own. A copy adds nothing; of one that went on by itself comes what is new. A run in two of them is taken from the
    one that has more of it, and refused where each has something of its own. A text that one of them erased is left
    out.
    """
    out = output or Path()
    merged = merge_ledgers(ledgers, out, force)

    def tables() -> None:
        print_table(f"merged into {out}", ("source", "chain", "events", "head"), merged.sources)
        counts = f"{merged.runs} runs, {merged.calls} calls, {merged.events} events in {merged.chains} chains"
        say(f"{counts}; only read")

    return Printed(merged.to_json(), tables)


@job("ledger publish", required=("to",))
def publish_run(
    run: str,
    *,
    to: str = option("", f"The team's ledger: {URL_HELP}", metavar="URL"),
    texts: bool = option(False, "Prompts, requests and replies, too. Without it: numbers, names and hashes."),
    db: Path = DB,
) -> Printed:
    """Publish RUN, which has finished, into a team's ledger: its rows and its events with their hashes.

    One transaction: all of it stands there or nothing. Again is harmless; what was recorded about the run since comes
    in its place. Keep the digest that is printed: `optimize ledger verify --anchor DIGEST` shows a run that was made
    anew there.
    """
    with closing(open_history(db)) as history:
        published = publish(history, run, to, texts)
    return Printed(published.to_json(), lambda: say(published.line()))


@job("ledger verify", required=("url",))
def verify(
    run: str,
    *,
    url: str = option("", f"The team's ledger: {URL_HELP}", flag="--from", metavar="URL"),
    anchor: str | None = option(
        None,
        "A digest that `publish` printed, or a head of the run's ledger in its release; or its file.",
        metavar="DIGEST",
    ),
) -> Printed:
    """Read RUN, by its whole id, back out of a team's ledger: check each event, row and text against its hash.

    Prints `whole: ...` and ends with 0, or each thing that does not hold and ends with 1.
    """
    found = verify_published(url, run, noted_hash(anchor) if anchor is not None else None)
    whole = f"whole: {found.events} events, {found.rows} rows, {found.texts} texts, digest {found.digest}"
    lines = [str(finding) for finding in found.findings] or [whole]
    return Printed(found.to_json(), lambda: show(text(*lines, exact=True)), 1 if found.findings else 0)
