"""`optimize ledger`: merge ledgers into one, and publish finished runs to a team's ledger."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Annotated

from agent.jobs.locations import open_history
from agent.jobs.registry import DB, Printed, job
from agent.ledger.anchors import noted_hash
from agent.ledger.container import Merged, merge_ledgers
from agent.ledger.publication import Published, PublishedReading
from agent.options.kinds import File
from agent.options.option import option
from agent.report.blocks import Block, table, text

URL_HELP = "postgresql://USER@HOST/NAME (the password in PGPASSWORD or ~/.pgpass) or sqlite:///FILE."


class MergeResult(Merged):
    """The result of a merge."""

    def blocks(self) -> Iterator[Block]:
        rows = [(each.name, each.chain, each.events, each.head) for each in self.sources]
        yield table(f"merged into {self.ledger}", ("source", "chain", "events", "head"), rows, tabbed=True)
        counts = f"{self.runs} runs, {self.calls} calls, {self.events} events in {self.chains} chains"
        yield text(f"{counts}; only read")


class PublishedRun(Published):
    """A run in a team's ledger; `new` if it was written now, `texts` if with its payload texts."""

    def blocks(self) -> Iterator[Block]:
        yield text(self.line())


class PublishedCheck(PublishedReading):
    """The verification of a run in a team's ledger."""

    whole: bool

    def blocks(self) -> Iterator[Block]:
        whole = f"whole: {self.events} events, {self.rows} rows, {self.texts} texts, digest {self.digest}"
        yield text(*(map(str, self.findings) if self.findings else [whole]), exact=True)


@job("ledger merge", required=("output",))
def merge(
    ledgers: Annotated[tuple[Path, ...], "A.db B.db ..."],
    *,
    output: File = option(None, "The merged ledger to write.", short="-o"),
    force: bool = option(False, "Overwrite an existing merged ledger."),
) -> MergeResult:
    """Merge ledgers into a read-only one. Use it with --db of `history`, `show`, `report`, `compare`, `ui` and `audit`.

    Each ledger is verified first, and its chain is kept complete: `optimize audit verify --db TEAM.db` proves each one.
    A copy adds nothing; of a copy that was continued only the new part is added. A run in two ledgers is taken from the
    one that has more of it, and refused if both have something that the other lacks. A text erased in one of them is
    dropped.
    """
    return MergeResult.model_validate(dict(merge_ledgers(ledgers, output or Path(), force)))


@job("ledger publish", required=("to",))
def publish_run(
    run: str,
    *,
    to: str = option("", f"The team's ledger: {URL_HELP}", metavar="URL"),
    texts: bool = option(False, "Also publish prompts, requests and replies. Default: only numbers, names and hashes."),
    db: Path = DB,
) -> PublishedRun:
    """Publish the finished RUN to a team's ledger: rows, and events with hashes.

    It is one transaction, and repeatable: newer records of the run replace older ones. Keep the printed digest:
    `optimize ledger verify --anchor DIGEST` detects a run that was forged there.
    """
    from agent.ledger.team_store import publish

    with closing(open_history(db)) as history:
        return PublishedRun.model_validate(dict(publish(history, run, to, texts)))


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
) -> Printed[PublishedCheck]:
    """Verify RUN in a team's ledger: each event, row and text against its hash. RUN is a whole id.

    Prints `whole: ...` and exits with 0, or prints every violation and exits with 1.
    """
    from agent.ledger.team_store import verify_published

    found = verify_published(url, run, noted_hash(anchor) if anchor is not None else None)
    return Printed(PublishedCheck(whole=not found.findings, **dict(found)), 1 if found.findings else 0)
