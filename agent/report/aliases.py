"""Aliases and their history, for the terminal and the release pages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.release.aliases import AliasChange
from agent.report.blocks import Block, Column, PageCell, TableBlock, listing, short, text
from agent.results.base import Result, called, hidden
from agent.stats.figures import gain, points


class MovedAlias(Result):
    """One line of aliases.jsonl; `before` (`from` in JSON) is the previous version, "" if none.

    `share`: of the units, for an A/B alias.
    """

    name: str
    seq: int
    utc: str
    actor: str
    action: str
    alias: str
    version: str
    before: str = called("from")
    share: float | None
    reason: str
    evidence: Mapping[str, Any]
    prev: str
    hash: str

    @property
    def version_for(self) -> str:
        """The version, and its share of the units."""
        return self.version + ("" if self.share is None else f" for {self.share:.0%}")

    @property
    def claim(self) -> str:
        """The evidence behind the move."""
        evidence = self.evidence
        if "undoes" in evidence:
            return f"undoes {evidence['undoes']}"
        claim = f" {evidence['claim']}" if "claim" in evidence else ""
        over = ", overridden" if evidence.get("overridden") else ""
        lift = evidence.get("lift") or {}
        method = f" {evidence['method']} {points(evidence['test'])}" if "method" in evidence else ""
        diff = f" {gain(lift['diff'])}" if "diff" in lift else ""
        return f"{evidence.get('run_id', '')}{method}{diff}{claim}{over}"


class Rollback(MovedAlias):
    """A rolled back alias; `in_chain`: whether the ledger already has the change."""

    in_chain: bool

    def blocks(self) -> Iterator[Block]:
        share = "" if self.share is None else f" for {100 * self.share:g} % of the units"
        yield text(f"{self.name}@{self.alias} is {self.version} again{share}; before: {self.before}")


class AliasesResult(Result):
    """The current version of every alias."""

    aliases: tuple[MovedAlias, ...]
    root: Path = hidden()

    def blocks(self) -> Iterator[Block]:
        yield changes_table(f"aliases in {self.root}", [(f"{each.name}@{each.alias}", each) for each in self.aliases])


class NameHistory(Result):
    """The current aliases of a name and all their changes, oldest first."""

    name: str
    aliases: Mapping[str, MovedAlias]
    history: tuple[MovedAlias, ...]

    def blocks(self) -> Iterator[Block]:
        title = f"{self.name}: every change of an alias"
        yield changes_table(title, [(f"{each.seq} {each.alias}", each) for each in self.history])


def moved(changes: Iterable[AliasChange]) -> tuple[MovedAlias, ...]:
    """Return the changes as results."""
    return tuple(MovedAlias(**change.as_dict()) for change in changes)


def changes_table(title: str, changes: Sequence[tuple[str, MovedAlias]]) -> TableBlock:
    """Return changes of aliases, each with its name; a page links to the versions."""

    return listing(
        title,
        [
            ("alias", lambda pair: pair[0]),
            ("version", lambda pair: PageCell(pair[1].version_for, f"/release/{pair[1].name}/{pair[1].version}")),
            (Column("before", on="page"), lambda pair: pair[1].before),
            (Column("when (UTC)", "id", floor=12, wraps=True), lambda pair: pair[1].utc[:19]),
            ("how", lambda pair: pair[1].action),
            ("who", lambda pair: pair[1].actor),
            ("evidence", lambda pair: pair[1].claim),
            (Column("why", floor=12, wraps=True, on="screen"), lambda pair: short(pair[1].reason, 60)),
            (Column("why", "short", on="page"), lambda pair: pair[1].reason),
        ],
        changes,
        tabbed=True,
    )
