"""Aliases move as asked, the history only grows, files and chain complete each other, and damage is refused by line."""

from __future__ import annotations

import json
import os
import random
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent.errors import InputError, ReleaseError
from agent.ledger.connect import reader
from agent.ledger.query import History
from agent.ledger.store import Ledger
from agent.ledger.verify import ALIAS_MOVED, verify
from agent.release.aliases import ALIASES_FILE, change_from, current, hash_of, in_force, line_of, read_history
from agent.release.promotion import ReleaseRegistry
from agent.release.prompt_file import MESSAGES_FILE, PROMPT_FILE, PromptRelease, read_release
from agent.release.runtime import load_prompt
from agent.types import Field, Message
from tests.ledger.ledgers import first_break

ROOT = Path(__file__).resolve().parents[2]
NAME = "support_triage"


def release(number: int, **changes: Any) -> PromptRelease:
    values: dict[str, Any] = {
        "name": NAME,
        "messages": (Message("user", f"Version {number}: {{{{message}}}}"),),
        "inputs": ("message",),
        "outputs": (Field("team", "choice", choices=("billing", "account")),),
        "format": "turns",
        "reasoning": False,
        "model": "openai/gpt-x",
        "parameters": {"max_tokens": 8, "temperature": 0.0},
        "provenance": {"run_id": f"r_{number}"},
    }
    return PromptRelease(**{**values, **changes})


ONE, TWO, THREE = release(1), release(2), release(3)


def evidence(number: int, *overridden: str) -> dict[str, Any]:
    return {"run_id": f"r_{number}", "decision": "promote", "lift": {"diff": 0.1}, "overridden": list(overridden)}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "releases"


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


def promote(root: Path, chain: Any, what: PromptRelease, alias: str = "production", **more: Any) -> Any:
    return ReleaseRegistry(root).promote(what, alias, chain, evidence=evidence(1), **more)


def told(db: Path) -> list[dict[str, Any]]:
    """The moves in the chain, which must hold."""
    history = History(db)
    try:
        assert first_break(history.select("SELECT * FROM events ORDER BY seq")) is None
        chain = reader(db)
        assert not verify(chain)
        chain.close()
        return history.alias_moves(NAME)
    finally:
        history.close()


def same(root: Path, db: Path) -> list[str]:
    """The versions in the history; file and chain must tell the same."""
    lines = read_history(root / NAME)
    assert [change.hash for change in lines] == [event["hash"] for event in told(db)]
    return [change.version for change in lines]


def test_a_promotion_is_a_version_a_line_and_an_event_and_the_runtime_loads_it(root: Path, db: Path) -> None:
    ledger = Ledger(db)
    change = ReleaseRegistry(root).promote(
        ONE, "production", ledger, actor="jo", reason="better", evidence=evidence(7, "p = 0.2")
    )
    ledger.close()
    prompt = load_prompt(f"{NAME}@production", root=root)
    assert (prompt.version, prompt.alias, prompt.arm, prompt.fallback_reason) == (ONE.version, "production", "", "")
    assert load_prompt(f"{NAME}@{ONE.version}", root=root).release == ONE
    assert {path.name for path in (root / NAME / ONE.version).iterdir()} == {PROMPT_FILE, MESSAGES_FILE}
    (event,) = told(db)
    release_hash = event.pop("release_hash")
    assert event == change.as_dict() == json.loads((root / NAME / ALIASES_FILE).read_text())
    assert (event["actor"], event["reason"], event["from"]) == ("jo", "better", "")
    assert event["evidence"]["overridden"] == ["p = 0.2"]
    assert event["utc"].endswith("+00:00")
    history = History(db)
    assert history.text(release_hash) == (root / NAME / ONE.version / MESSAGES_FILE).read_text()
    history.close()


def test_the_same_promotion_again_changes_nothing(root: Path) -> None:
    assert promote(root, None, ONE)
    before = (root / NAME / ALIASES_FILE).read_bytes()
    assert promote(root, None, ONE, reason="again") is None
    assert (root / NAME / ALIASES_FILE).read_bytes() == before


def test_a_rollback_goes_back_one_more_each_time_and_the_history_only_grows(root: Path) -> None:
    registry = ReleaseRegistry(root)
    for each in (ONE, TWO, THREE):
        promote(root, None, each)
    before = (root / NAME / ALIASES_FILE).read_bytes()
    assert registry.rollback(NAME, "production", None).version == TWO.version
    assert registry.rollback(NAME, "production", None, reason="worse").version == ONE.version
    with pytest.raises(InputError, match="is its first version"):
        registry.rollback(NAME, "production", None)
    promote(root, None, THREE)
    last = registry.rollback(NAME, "production", None)
    assert (last.version, last.before, last.evidence["undoes"]) == (ONE.version, THREE.version, 6)
    assert (root / NAME / ALIASES_FILE).read_bytes().startswith(before)
    assert [change.seq for change in read_history(root / NAME)] == list(range(1, 8))


def test_aliases_of_a_name_do_not_touch_each_other(root: Path) -> None:
    promote(root, None, ONE)
    promote(root, None, TWO, "staging")
    promote(root, None, THREE, "staging")
    ReleaseRegistry(root).rollback(NAME, "staging", None)
    now = {alias: change.version for alias, change in current(read_history(root / NAME)).items()}
    assert now == {"production": ONE.version, "staging": TWO.version}


def test_a_version_that_is_there_is_never_written_again(root: Path) -> None:
    promote(root, None, ONE)
    before = (root / NAME / ONE.version / PROMPT_FILE).read_bytes()
    promote(root, None, TWO)
    promote(root, None, release(1, provenance={"run_id": "other"}))
    assert (root / NAME / ONE.version / PROMPT_FILE).read_bytes() == before
    assert release(1, model="openai/gpt-y").version != ONE.version


def test_a_damaged_version_is_mended_by_the_same_release(root: Path) -> None:
    promote(root, None, ONE)
    promote(root, None, TWO)
    file = root / NAME / ONE.version / PROMPT_FILE
    file.write_text(file.read_text().replace("Version", "version"))
    with pytest.raises(ReleaseError, match="is incomplete"):
        ReleaseRegistry(root).rollback(NAME, "production", None)
    promote(root, None, ONE)
    assert load_prompt(f"{NAME}@production", root=root).release == ONE


@pytest.mark.parametrize(
    ("name", "alias", "share", "says"),
    [
        (NAME, "Production", None, "lower-case letters"),
        (NAME, "../x", None, "lower-case letters"),
        (NAME, ONE.version, None, "lower-case letters"),
        (NAME, "ab", 1.1, "from 0 to 1"),
        (NAME, "ab", float("nan"), "from 0 to 1"),
        (NAME, "production", 0.1, "other arm"),
        (NAME, "ab", 0.1, "needs a version in production"),
        ("a\nb", "production", None, "not a name"),
        ("x" * 300, "production", None, "not a name"),
        ("../up", "production", None, "not a name"),
        ("a/b", "production", None, "not a name"),
    ],
)
def test_what_cannot_be_a_alias_is_refused_before_anything_is_written(
    root: Path, name: str, alias: str, share: float | None, says: str
) -> None:
    with pytest.raises((InputError, ReleaseError), match=says):
        promote(root, None, release(1, name=name), alias, share=share)
    assert not root.exists()
    assert not (root.parent / "up").exists()


def test_rolling_back_what_is_not_there_says_what_is(root: Path) -> None:
    promote(root, None, ONE)
    for name, alias, says in [
        ("nope", "production", f"known: {NAME}"),
        ("../x", "production", f"known: {NAME}"),
        (NAME, "ab", "has no such alias"),
    ]:
        with pytest.raises(InputError, match=says):
            ReleaseRegistry(root).rollback(name, alias, None)


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_who_may_read_releases_and_aliases_is_what_the_umask_says(root: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        promote(root, None, ONE)
    finally:
        os.umask(before)
    folder = root / NAME
    files = [folder / ALIASES_FILE, *(folder / ONE.version / name for name in (PROMPT_FILE, MESSAGES_FILE))]
    assert [stat.S_IMODE(file.stat().st_mode) for file in files] == [mode] * 3


def test_a_key_in_a_reason_is_in_no_file(root: Path, db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-planted-0123456789")
    ledger = Ledger(db)
    promote(root, ledger, ONE, reason="with sk-planted-0123456789")
    ledger.close()
    assert "[key]" in (root / NAME / ALIASES_FILE).read_text()
    assert same(root, db) == [ONE.version]
    for path in (*root.rglob("*"), db):
        assert path.is_dir() or b"planted" not in path.read_bytes()


# -- a line that is not whole, and lines that are not what they were


def test_every_cut_of_the_last_line_is_as_if_it_had_not_happened_and_is_mended(root: Path) -> None:
    promote(root, None, ONE)
    file = root / NAME / ALIASES_FILE
    first = file.read_bytes()
    promote(root, None, TWO)
    both = file.read_bytes()
    for end in range(len(first), len(both)):
        file.write_bytes(both[:end])
        assert [change.version for change in read_history(root / NAME)] == [ONE.version]
        assert load_prompt(f"{NAME}@production", root=root).version == ONE.version
        if end % 40 == 0:
            promote(root, None, THREE)
            assert [change.version for change in read_history(root / NAME)] == [ONE.version, THREE.version]
            assert file.read_bytes().startswith(first)


def test_an_edited_removed_or_reordered_line_is_named(root: Path) -> None:
    for each in (ONE, TWO, THREE):
        promote(root, None, each, actor="jo")
    file = root / NAME / ALIASES_FILE
    lines = file.read_bytes().splitlines(keepends=True)
    for changed, number in [
        ([lines[0], lines[1].replace(b'"jo"', b'"al"'), lines[2]], 2),
        ([lines[0], lines[2]], 2),
        ([lines[1], lines[0], lines[2]], 1),
        ([lines[0], b"{}\n", lines[2]], 2),
        ([lines[0], b"\n", lines[1]], 2),
        ([b"[" * 50_000 + b"\n"], 1),
        ([lines[0], lines[0]], 2),
        ([lines[0], lines[1].replace(b'"actor":', b'"actor":"al","actor":')], 2),
    ]:
        file.write_bytes(b"".join(changed))
        with pytest.raises(ReleaseError, match=rf"{ALIASES_FILE}:{number}: "):
            read_history(root / NAME)
        with pytest.raises(ReleaseError):
            promote(root, None, ONE)
        assert file.read_bytes() == b"".join(changed)


def test_a_history_of_another_name_is_refused(root: Path) -> None:
    promote(root, None, ONE)
    shutil.copytree(root / NAME, root / "other")
    with pytest.raises(ReleaseError, match="belongs to"):
        load_prompt("other@production", root=root)
    with pytest.raises(ReleaseError, match=rf"belongs to '{NAME}'.*move it away if it is a copy"):
        read_history(root / "other")


def test_a_line_that_names_another_place_is_no_change_of_a_alias(root: Path) -> None:
    promote(root, None, ONE)
    file = root / NAME / ALIASES_FILE
    for key, value in (("version", "../../x"), ("alias", "../x"), ("action", "other")):
        told = {**json.loads(file.read_text()), key: value}
        with pytest.raises(ValueError, match="is no change of an alias"):
            change_from({**told, "hash": hash_of(told)})


def test_a_place_that_cannot_be_written_is_told_in_a_line(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    promote(root, None, ONE)
    before = (root / NAME / ALIASES_FILE).read_bytes()

    def read_only(*words: Any) -> int:
        raise PermissionError(13, "Permission denied", str(words[0]))

    with monkeypatch.context() as patched:
        patched.setattr("agent.ledger.files.os.open", read_only)  # root may write everywhere, so modes prove nothing
        for act in (lambda: promote(root, None, TWO), lambda: ReleaseRegistry(root).rollback(NAME, "production", None)):
            with pytest.raises(ReleaseError, match=r"cannot hold releases.*Permission denied"):
                act()
    assert (root / NAME / ALIASES_FILE).read_bytes() == before
    assert load_prompt(f"{NAME}@production", root=root).version == ONE.version
    (root.parent / "file").write_text("")
    with pytest.raises(ReleaseError, match="cannot hold releases"):
        promote(root.parent / "file", None, ONE)


# -- file and chain complete each other


def test_what_moved_while_the_ledger_was_away_is_taken_into_its_chain_once(root: Path, db: Path) -> None:
    promote(root, None, ONE)
    promote(root, None, TWO)
    ledger = Ledger(db)
    ReleaseRegistry(root).catch_up(ledger)
    ReleaseRegistry(root).catch_up(ledger)
    promote(root, ledger, THREE)
    ledger.close()
    assert same(root, db) == [ONE.version, TWO.version, THREE.version]


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_a_lost_history_is_written_again_from_the_ledger_with_its_versions(root: Path, db: Path, kept: int) -> None:
    ledger = Ledger(db)
    for each in (ONE, TWO, THREE):
        promote(root, ledger, each)
    ledger.close()
    file = root / NAME / ALIASES_FILE
    before = file.read_bytes()
    shutil.rmtree(root / NAME / TWO.version)
    file.write_bytes(b"".join(before.splitlines(keepends=True)[:kept]))
    history = History(db)  # reading is enough, so this works while a run holds the ledger
    assert ReleaseRegistry(root).rollback(NAME, "production", history).version == TWO.version
    history.close()
    assert file.read_bytes().startswith(before)
    assert read_release(root / NAME / TWO.version).version == TWO.version
    assert not list((root / NAME).glob(".new-*"))
    ledger = Ledger(db)
    ReleaseRegistry(root).catch_up(ledger)
    ledger.close()
    assert same(root, db) == [ONE.version, TWO.version, THREE.version, TWO.version]


def test_a_whole_folder_that_is_gone_comes_back_when_it_is_asked_for(root: Path, db: Path) -> None:
    ledger = Ledger(db)
    promote(root, ledger, ONE)
    promote(root, ledger, TWO)
    shutil.rmtree(root)
    ReleaseRegistry(root).catch_up(ledger)
    assert not root.exists()
    assert ReleaseRegistry(root).rollback(NAME, "production", ledger).version == ONE.version
    ledger.close()
    assert same(root, db) == [ONE.version, TWO.version, ONE.version]


def test_a_history_that_contradicts_the_ledger_is_refused(root: Path, db: Path) -> None:
    ledger = Ledger(db)
    promote(root, ledger, ONE)
    (root / NAME / ALIASES_FILE).unlink()
    promote(root, None, TWO)
    before = (root / NAME / ALIASES_FILE).read_bytes()
    with pytest.raises(ReleaseError, match="contradicts the ledger"):
        promote(root, ledger, THREE)
    assert (root / NAME / ALIASES_FILE).read_bytes() == before
    (root / NAME / ALIASES_FILE).unlink()
    promote(root, ledger, THREE)
    ledger.close()
    assert same(root, db) == [ONE.version, THREE.version]


def test_a_full_disk_leaves_the_history_as_it_was(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    promote(root, None, ONE)
    before = (root / NAME / ALIASES_FILE).read_bytes()
    import agent.release.promotion as module

    def refuse(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "fsync", refuse)
    with pytest.raises(ReleaseError, match="No space left"):
        promote(root, None, TWO)
    monkeypatch.undo()
    assert (root / NAME / ALIASES_FILE).read_bytes() == before
    assert promote(root, None, TWO)


# -- many operations, many kills


class Model:
    """What must come out: a stack of promotions an alias, and how many changes there were."""

    def __init__(self) -> None:
        self.stacks: dict[str, list[tuple[int, float | None]]] = {}
        self.changes = 0

    def promote(self, alias: str, number: int, share: float | None) -> None:
        stack = self.stacks.setdefault(alias, [])
        if not stack or stack[-1] != (number, share):
            stack.append((number, share))
            self.changes += 1

    def rollback(self, alias: str) -> bool:
        stack = self.stacks.get(alias, [])
        if len(stack) < 2:
            return False
        stack.pop()
        self.changes += 1
        return True

    def check(self, root: Path) -> None:
        history = read_history(root / NAME)
        assert len(history) == self.changes
        for alias, stack in self.stacks.items():
            kept = [(change.version, change.share) for change in in_force(history, alias)]
            assert kept == [(RELEASES[number].version, share) for number, share in stack]
            now = current(history)[alias]
            assert (now.version, now.share) == kept[-1]


RELEASES = [release(number) for number in range(12)]


def operations(count: int, seed: int) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    made: list[dict[str, Any]] = [{"do": "promote", "alias": "production", "number": 0, "share": None, "over": []}]
    while len(made) < count:
        alias = rng.choice(["production", "staging", "ab"])
        share = rng.choice([0.1, 0.2, 0.5]) if alias == "ab" else None
        over = ["the gain is not shown"] if rng.random() < 0.2 else []
        kind = "rollback" if rng.random() < 0.4 else "promote"
        made.append({"do": kind, "alias": alias, "number": rng.randrange(12), "share": share, "over": over})
    return made


def perform(registry: ReleaseRegistry, chain: Any, op: dict[str, Any], model: Model | None = None) -> None:
    if op["do"] == "promote":
        registry.promote(
            RELEASES[op["number"]],
            op["alias"],
            chain,
            share=op["share"],
            reason="why",
            evidence=evidence(1, *op["over"]),
        )
        if model:
            model.promote(op["alias"], op["number"], op["share"])
        return
    try:
        registry.rollback(NAME, op["alias"], chain)
        worked = True
    except InputError:
        worked = False
    assert model is None or model.rollback(op["alias"]) == worked


def test_after_many_random_operations_with_and_without_a_ledger_the_history_is_complete_in_both(
    root: Path, db: Path
) -> None:
    model, registry, rng = Model(), ReleaseRegistry(root), random.Random(4)
    ledger: Ledger | None = Ledger(db)
    for number, op in enumerate(operations(300, 3)):
        if number % 20 == 19:  # now and then without a ledger, and then it comes back
            if ledger:
                ledger.close()
            ledger = None if rng.random() < 0.3 else Ledger(db)
        perform(registry, ledger, op, model)
    if ledger:
        ledger.close()
    ledger = Ledger(db)
    registry.catch_up(ledger)
    ledger.close()
    model.check(root)
    assert len(same(root, db)) == model.changes > 200
    overridden = [event for event in told(db) if event["evidence"].get("overridden")]
    assert len(overridden) == sum(bool(c.evidence.get("overridden")) for c in read_history(root / NAME)) > 15


CHILD = """
import sys
from pathlib import Path
from agent.ledger.store import Ledger
from agent.release.promotion import ReleaseRegistry
from tests.release.test_promotion import operations, perform
root, db, count, start = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
registry, ledger = ReleaseRegistry(root), Ledger(db)
registry.catch_up(ledger)
for op in operations(count, 5)[start:]:
    print("begin", flush=True)
    perform(registry, ledger, op)
    print("end", flush=True)
"""


def killed_again_and_again(root: Path, db: Path, count: int, most: int) -> int:
    """Processes that are each killed with SIGKILL at a random moment of their work, then the next one goes on.

    Args:
        root: the folder of releases, not there yet.
        db: the ledger, not there yet.
        count: how many operations.
        most: how many of them a process does at the most.

    Returns:
        How many were killed; all that they did is there, once, in files and chain.
    """
    rng, ops, done, model, kills = random.Random(11), operations(2 * count, 5), 0, Model(), 0
    while done < count:
        kills += 1
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(root), str(db), str(len(ops)), str(done)],
            cwd=ROOT, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert child.stdout is not None
        said = [child.stdout.readline()]  # it has begun
        assert said == ["begin\n"]
        for _ in range(rng.randrange(2 * most)):
            said.append(child.stdout.readline())
        try:
            child.wait(rng.random() * 0.02)
        except subprocess.TimeoutExpired:
            child.kill()
        said += child.stdout.readlines()
        child.stdout.close()
        assert child.wait() == -9
        for op in ops[done : done + said.count("end\n")]:
            apply(model, op)
        done += said.count("end\n")
        file = root / NAME / ALIASES_FILE
        if file.exists() and rng.random() < 0.5:  # as if the kill had cut off a write
            raw = file.read_bytes()
            file.write_bytes(raw + raw.splitlines()[-1][: rng.randrange(1, 200)])
        lines = read_history(root / NAME)
        if len(lines) != model.changes:  # the operation in the middle had happened already
            apply(model, ops[done])
            done += 1
        model.check(root)
        known = [event["hash"] for event in told(db)]
        assert known == [change.hash for change in lines[: len(known)]]
    ledger = Ledger(db)
    ReleaseRegistry(root).catch_up(ledger)
    ledger.close()
    model.check(root)
    assert len(same(root, db)) == model.changes > 0.8 * count
    assert not list((root / NAME).glob("p_*/.new-*"))
    return kills


def test_many_operations_with_kills_lose_nothing_and_write_nothing_twice(root: Path, db: Path) -> None:
    """A thousand of them: `aliases` of the fault campaign."""
    assert killed_again_and_again(root, db, 200, 30) >= 8


def apply(model: Model, op: dict[str, Any]) -> None:
    if op["do"] == "promote":
        model.promote(op["alias"], op["number"], op["share"])
    else:
        model.rollback(op["alias"])


@pytest.mark.parametrize("moment", ["version", "line", "event"])
def test_a_kill_at_each_step_is_made_good_by_the_same_command_again(root: Path, db: Path, moment: str) -> None:
    """The process dies right after the version, after the line, or after the event was written."""
    code = f"""
import os, sys
from pathlib import Path
import agent.release.promotion as module
from agent.ledger.store import Ledger
from tests.release.test_promotion import ONE, promote
name = {{"version": "_append", "line": "_tell", "event": None}}["{moment}"]
if name:
    setattr(module, name, lambda *a: os._exit(9))
promote(Path(sys.argv[1]), Ledger(Path(sys.argv[2])), ONE)
os._exit(9)
"""
    done = subprocess.run([sys.executable, "-c", code, str(root), str(db)], cwd=ROOT, check=False)
    assert done.returncode == 9
    ledger = Ledger(db)
    promote(root, ledger, ONE)
    ledger.close()
    assert same(root, db) == [ONE.version]
    assert sum(event["alias"] == "production" for event in told(db)) == 1


def test_two_processes_at_once_both_leave_their_lines(root: Path, db: Path) -> None:
    code = """
import sys
from pathlib import Path
from agent.release.promotion import ReleaseRegistry
from tests.release.test_promotion import NAME, RELEASES, promote
for number in range(40):
    promote(Path(sys.argv[1]), None, RELEASES[number % 2], sys.argv[2])
"""
    both = [
        subprocess.Popen([sys.executable, "-c", code, str(root), alias], cwd=ROOT) for alias in ("staging", "canary")
    ]
    assert [child.wait(120) for child in both] == [0, 0]
    history = read_history(root / NAME)
    assert len(history) == 80
    assert b"".join(map(line_of, history)) == (root / NAME / ALIASES_FILE).read_bytes()
    ledger = Ledger(db)
    ReleaseRegistry(root).catch_up(ledger)
    ledger.close()
    assert len(same(root, db)) == 80
    assert ALIAS_MOVED == "alias_moved"
