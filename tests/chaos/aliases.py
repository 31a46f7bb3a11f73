"""A promotion or a rollback is killed at any moment: aliases, their history and the chain say the same afterwards."""

from __future__ import annotations

from tests.chaos.harness import Campaign, Row
from tests.release.test_promotion import killed_again_and_again

OPERATIONS = 1000
MOST = 90
"""Operations of a process at the most; it is killed before."""


def kills(c: Campaign) -> Row:
    """Promotions and rollbacks by one process after the other, each killed in its work."""
    folder, count = c.folder("aliases"), c.times(OPERATIONS, MOST)
    killed = killed_again_and_again(folder.path / "releases", folder.ledger, count, MOST)
    promised = "every change of an alias is there once, in its history and in the chain"
    return Row("SIGKILL in a promotion", killed, promised, f"{count} operations, {killed} kills, none lost")
