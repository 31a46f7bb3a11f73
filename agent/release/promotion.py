"""Store versions and move aliases, in the files that production reads and in the ledger's chain.

The file comes first: a line on the disk counts, and then becomes an event of the chain. A process that was killed in
between, or that moved an alias while another one held the ledger, leaves a line without its event; a history that was
lost, or restored from an old copy, leaves events without their lines. The next change completes whichever is behind
(`_reconcile`), by the hash that each line carries, so nothing is lost or written twice. Contradictions are refused.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from agent.errors import InputError, LedgerError, ReleaseError
from agent.ledger.files import Lock
from agent.ledger.provenance import utc_now
from agent.ledger.query import History
from agent.ledger.store import Ledger
from agent.ledger.verify import ALIAS_MOVED
from agent.redact import mask, rare_secrets_in
from agent.release.aliases import (
    ALIAS,
    ALIASES_FILE,
    GENESIS,
    KEYS,
    NAME,
    PRODUCTION,
    AliasChange,
    change_from,
    current,
    hash_of,
    in_force,
    line_of,
    read_history,
    released_names,
)
from agent.release.versions import Release, form_of, is_whole
from agent.safe_file import disk_errors, new_file, sync_folder

PATIENCE = 20.0  # seconds to wait for another process that moves an alias of the same name
Chain = Ledger | History | None
"""The ledger, open for writing, or for reading while another process writes to it; or none."""


class ReleaseRegistry:
    """The released versions and aliases under the folder `root`. Each method holds the name's lock."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def promote(
        self,
        release: Release,
        alias: str,
        chain: Chain,
        *,
        share: float | None = None,
        evidence: Mapping[str, Any],
        **note: str,
    ) -> AliasChange | None:
        """Store the version and move the alias; None if it has both version and share.

        `share`: of the units, for an A/B alias. `note`: `actor` and `reason`, for the history. Raises InputError for an
        invalid alias or share, ReleaseError if the files are damaged, contradict the chain, or cannot be written.
        """
        self.require(release, alias, share, chain)
        with self._locked(release.name) as folder:
            history = self._reconcile(folder, chain)
            now = current(history)
            self._store(folder, release)
            before = now.get(alias)
            if before is not None and (before.version, before.share) == (release.version, share):
                return None
            part = None if share is None else float(share)
            change = {"alias": alias, "version": release.version, "share": part, "actor": "", "reason": "", **note}
            return self._move(folder, history, chain, {**change, "action": "promote", "evidence": dict(evidence)})

    def require(self, release: Release, alias: str, share: float | None, chain: Chain) -> None:
        """Check name, alias and share as `promote` does, without writing."""
        check_alias(alias, share)
        _check_name(release.name)
        if share is None:
            return
        other = self.version_of(release.name, PRODUCTION, chain)
        if not other:
            raise InputError(
                f"{release.name}: --share needs a version in {PRODUCTION} for the other arm; promote one first"
            )
        if other[0] != release.version[0]:
            raise InputError(
                f"{release.name}: --share needs two versions that the same function loads; {PRODUCTION} is {other}, "
                f"and this is {release.version}"
            )

    def version_of(self, name: str, alias: str, chain: Chain) -> str:
        """Return the current version of an alias, or "", without creating a folder."""
        if not self._knows(name, chain):
            return ""
        with self._locked(name) as folder:
            change = current(self._reconcile(folder, chain)).get(alias)
        return change.version if change else ""

    def rollback(self, name: str, alias: str, chain: Chain, *, actor: str = "", reason: str = "") -> AliasChange:
        """Move an alias back to before the last promotion in force. Raises as `promote` does."""
        check_alias(alias, None)
        if not self._knows(name, chain):
            known = ", ".join(released_names(self.root)) or "none"
            raise InputError(f"{name!r:.90}: no releases of this name in {self.root}; known: {known}")
        with self._locked(name) as folder:
            history = self._reconcile(folder, chain)
            kept = in_force(history, alias)
            if len(kept) < 2:
                only = f"{kept[0].version} is its first version" if kept else f"{name} has no such alias"
                raise InputError(f"{name}@{alias}: cannot be rolled back: {only}; `optimize aliases {name}` lists all")
            undone, back = kept[-1], kept[-2]
            if not is_whole(folder / back.version, back.version):
                raise ReleaseError(
                    f"{folder / back.version}: the previous version is incomplete; restore the folder from a copy"
                )
            change = {"alias": alias, "version": back.version, "share": back.share, "actor": actor, "reason": reason}
            head = {"ledger": chain.id(), "ledger_head": chain.head()} if isinstance(chain, Ledger) else {}
            evidence = {"undoes": undone.seq, **head}
            return self._move(folder, history, chain, {**change, "action": "rollback", "evidence": evidence})

    def catch_up(self, ledger: Ledger) -> None:
        """Synchronize files and chain for every name that has a folder here."""
        moved = [name for name in ledger.moved_names() if (self.root / name).is_dir()]
        for name in sorted({*released_names(self.root), *moved}):
            with self._locked(name) as folder:
                self._reconcile(folder, ledger)

    def _knows(self, name: str, chain: Chain) -> bool:
        if not NAME.fullmatch(name):
            return False
        return (self.root / name / ALIASES_FILE).exists() or bool(chain and chain.alias_moves(name))

    # -- files --------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[Path]:
        _check_name(name)
        folder = self.root / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = Lock(folder / ALIASES_FILE)
            end = time.monotonic() + PATIENCE
            while not lock.take():
                if time.monotonic() > end:
                    raise ReleaseError(f"{folder}: another process is moving an alias here; try again later")
        except (OSError, LedgerError) as error:
            raise ReleaseError(f"{folder}: cannot hold releases ({error}); choose another folder") from error
        try:
            yield folder
        finally:
            lock.release()

    def _store(self, folder: Path, release: Release) -> None:
        target = folder / release.version
        if is_whole(target, release.version):
            return
        if target.exists():  # damaged: what it must hold is known by its name
            release.write(target)
            return
        for left in folder.glob(".new-*"):  # of a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        new = folder / f".new-{os.getpid()}"
        release.write(new)
        with disk_errors(f"{target}: cannot be written", "free or repair the disk"):
            sync_folder(new)
            new.rename(target)
            sync_folder(folder)

    def _move(self, folder: Path, history: list[AliasChange], chain: Chain, change: Mapping[str, Any]) -> AliasChange:
        before = current(history).get(change["alias"])
        data = {
            **change,
            "name": folder.name,
            "seq": len(history) + 1,
            "utc": utc_now(),
            "from": before.version if before else "",
            "prev": history[-1].hash if history else GENESIS,
        }
        clean = json.loads(mask(json.dumps(data), rare_secrets_in(os.environ)))
        made = change_from({**clean, "hash": hash_of(clean)})
        _append(folder, [made])
        if isinstance(chain, Ledger):
            _record(folder, [made], chain)
        return made

    # -- files and chain ----------------------------------------------------------------------------------------------

    def _reconcile(self, folder: Path, chain: Chain) -> list[AliasChange]:
        lines = read_history(folder)
        if chain is None:
            return lines
        events = chain.alias_moves(folder.name)
        for change, event in zip(lines, events, strict=False):
            if change.hash != event["hash"]:
                raise ReleaseError(
                    f"{folder / ALIASES_FILE}:{change.seq}: contradicts the ledger (hash {event['hash'][:16]}...); "
                    "restore the wrong one, or move the file away: it is rewritten from the ledger"
                )
        if missing := [_change_of(folder, event) for event in events[len(lines) :]]:
            for event in events:
                self._restore(folder, event, chain)
            _append(folder, missing)
            return read_history(folder)
        if isinstance(chain, Ledger) and len(events) < len(lines):
            _record(folder, lines[len(events) :], chain)
        return lines

    def _restore(self, folder: Path, event: Mapping[str, Any], chain: Ledger | History) -> None:
        version = event["version"]
        if is_whole(folder / version, version):
            return
        if (text := chain.text(event.get("release_hash", ""))) is None:
            return
        with contextlib.suppress(ReleaseError):  # a text in which a key was masked is not that version any more
            self._store(folder, form_of(version).restored(text))


def check_alias(alias: str, share: float | None) -> None:
    """Raise InputError for an invalid alias or share."""
    if not ALIAS.fullmatch(alias):
        raise InputError(
            f"--alias {alias!r:.60}: use lower-case letters, digits, dash and underscore, such as {PRODUCTION}"
        )
    if share is not None and not 0 <= share <= 1:
        raise InputError(f"--share {share}: write the candidate's share of the units, from 0 to 1")
    if share is not None and alias == PRODUCTION:
        raise InputError(f"--share: {PRODUCTION} is the other arm; set another alias, such as --alias ab")


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise ReleaseError(f"{name!r:.90}: not a name for releases; use letters, digits, dot, dash, underscore")


def _change_of(folder: Path, event: Mapping[str, Any]) -> AliasChange:
    try:
        return change_from({key: event[key] for key in (*KEYS, "hash")})
    except (KeyError, ValueError) as error:
        raise ReleaseError(
            f"{folder / ALIASES_FILE}: lacks a change of the ledger, whose line cannot be restored ({error}); "
            "restore the file from a copy"
        ) from None


def _record(folder: Path, changes: list[AliasChange], ledger: Ledger) -> None:
    for change in changes:
        kept = form_of(change.version).kept(folder / change.version) if change.action == "promote" else None
        texts = {} if kept is None else {"release": kept}
        ledger.event(str(change.evidence.get("run_id", "")), ALIAS_MOVED, change.as_dict(), texts)
    ledger.flush()


def _append(folder: Path, changes: list[AliasChange]) -> None:
    path = folder / ALIASES_FILE
    with disk_errors(f"{path}: the change cannot be written", "nothing was changed; free or repair the disk"):
        raw = path.read_bytes() if path.exists() else b""
        with new_file(path) as file:  # whole or not at all: a change reported as failed must not take effect
            file.write(raw[: raw.rfind(b"\n") + 1] + b"".join(line_of(change) for change in changes))
        sync_folder(folder)
