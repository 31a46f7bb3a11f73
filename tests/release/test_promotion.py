"""Aliases move as asked, the history only grows, files and chain complete each other, and damage is refused by line."""

from __future__ import annotations

import json
import os
import random
import shutil
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agent.errors import InputError, ReleaseError
from agent.ledger.connect import reader
from agent.ledger.query import History
from agent.ledger.store import Ledger
from agent.ledger.verify import verify
from agent.release.aliases import ALIASES_FILE, change_from, current, hash_of, in_force, line_of, read_history
from agent.release.promotion import ReleaseRegistry
from agent.release.prompt_file import MESSAGES_FILE, PROMPT_FILE, PromptRelease, read_release
from agent.release.runtime import load_prompt
from agent.types import Field, Message
from tests.cases import each_case
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


RELEASES = [release(number) for number in range(12)]
ONE, TWO, THREE = RELEASES[1:4]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "releases"


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


def promote(root: Path, chain: Any, what: Any, alias: str = "production", **more: Any) -> Any:
    evidence = {"run_id": "r_1", "decision": "promote", **more.pop("evidence", {})}
    return ReleaseRegistry(root).promote(what, alias, chain, evidence=evidence, **more)


def told(db: Path) -> list[dict[str, Any]]:
    """The moves in the chain, which must hold."""
    with closing(History(db)) as history, closing(reader(db)) as chain:
        assert first_break(history.select("SELECT * FROM events ORDER BY seq")) is None
        assert not verify(chain)
        return history.alias_moves(NAME)


def same(root: Path, db: Path) -> list[str]:
    """The versions in the history; file and chain must tell the same."""
    lines = read_history(root / NAME)
    assert [change.hash for change in lines] == [event["hash"] for event in told(db)]
    return [change.version for change in lines]


def loaded(root: Path) -> str:
    return load_prompt(f"{NAME}@production", root=root).version


def test_a_promotion_is_a_version_a_line_and_an_event_and_the_runtime_loads_it(
    root: Path, db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-planted-0123456789")
    with closing(Ledger(db)) as ledger:
        change = promote(
            root, ledger, ONE, actor="jo", reason="with sk-planted-0123456789", evidence={"overridden": ["p"]}
        )
    prompt = load_prompt(f"{NAME}@production", root=root)
    assert (prompt.version, prompt.alias, prompt.arm, prompt.fallback_reason) == (ONE.version, "production", "", "")
    assert load_prompt(f"{NAME}@{ONE.version}", root=root).release == ONE
    assert {path.name for path in (root / NAME / ONE.version).iterdir()} == {PROMPT_FILE, MESSAGES_FILE}
    (event,) = told(db)
    release_hash = event.pop("release_hash")
    assert event == change.as_dict() == json.loads((root / NAME / ALIASES_FILE).read_text())
    assert (event["actor"], event["reason"], event["from"]) == ("jo", "with [key]", "")
    assert event["evidence"]["overridden"] == ["p"]
    assert event["utc"].endswith("+00:00")
    with closing(History(db)) as history:
        assert history.text(release_hash) == (root / NAME / ONE.version / MESSAGES_FILE).read_text()
    for path in (*root.rglob("*"), db):
        assert path.is_dir() or b"planted" not in path.read_bytes()


def test_a_version_is_written_once_and_the_same_promotion_changes_nothing(root: Path) -> None:
    assert promote(root, None, ONE)
    prompt, history = root / NAME / ONE.version / PROMPT_FILE, root / NAME / ALIASES_FILE
    before = prompt.read_bytes(), history.read_bytes()
    assert promote(root, None, ONE, reason="again") is None
    assert promote(root, None, release(1, provenance={"run_id": "other"})) is None
    assert (prompt.read_bytes(), history.read_bytes()) == before
    promote(root, None, TWO)
    prompt.write_bytes(before[0].replace(b"Version", b"version"))
    with pytest.raises(ReleaseError, match="is incomplete"):
        ReleaseRegistry(root).rollback(NAME, "production", None)
    promote(root, None, ONE)
    assert prompt.read_bytes() == before[0], "the same release mends a damaged version"


@each_case(
    "name, alias, share, says",
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
    ],
)
def test_what_cannot_be_an_alias_is_refused_before_anything_is_written(
    root: Path, name: str, alias: str, share: float | None, says: str
) -> None:
    with pytest.raises((InputError, ReleaseError), match=says):
        promote(root, None, release(1, name=name), alias, share=share)
    assert not root.exists()
    assert not (root.parent / "up").exists()


def test_rolling_back_what_is_not_there_says_what_is(root: Path) -> None:
    promote(root, None, ONE)
    for name, alias, says in (
        ("nope", "production", f"known: {NAME}"),
        ("../x", "production", f"known: {NAME}"),
        (NAME, "ab", "has no such alias"),
        (NAME, "production", f"{ONE.version} is its first version"),
    ):
        with pytest.raises(InputError, match=says):
            ReleaseRegistry(root).rollback(name, alias, None)


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_who_may_read_releases_and_aliases_is_what_the_umask_says(root: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        promote(root, None, ONE)
    finally:
        os.umask(before)
    files = [file for file in root.rglob("*") if file.suffix in (".md", ".json", ".jsonl")]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {mode}
    assert len(files) == 3


# -- a line that is not whole, and lines that are not what they were ---------------------------------------------------


def test_every_cut_of_the_last_line_is_as_if_it_had_not_happened_and_is_mended(root: Path) -> None:
    promote(root, None, ONE)
    file = root / NAME / ALIASES_FILE
    first = file.read_bytes()
    promote(root, None, TWO)
    both = file.read_bytes()
    for end in range(len(first), len(both), 7):
        file.write_bytes(both[:end])
        assert [change.version for change in read_history(root / NAME)] == [ONE.version]
        assert loaded(root) == ONE.version
        if end % 5 == 0:
            promote(root, None, THREE)
            assert [change.version for change in read_history(root / NAME)] == [ONE.version, THREE.version]
            assert file.read_bytes().startswith(first)


def test_a_damaged_history_is_refused_by_its_line_and_nothing_is_written(root: Path) -> None:
    for each in (ONE, TWO, THREE):
        promote(root, None, each, actor="jo")
    file = root / NAME / ALIASES_FILE
    lines = file.read_bytes().splitlines(keepends=True)
    for each in (TWO, ONE):
        promote(root.with_name("others"), None, each)
    foreign = (root.with_name("others") / NAME / ALIASES_FILE).read_bytes().splitlines(keepends=True)
    for changed, number in (
        ([lines[0], foreign[1], lines[2]], 2),
        ([lines[0], lines[1].replace(b'"jo"', b'"al"'), lines[2]], 2),
        ([lines[0], lines[2]], 2),
        ([lines[1], lines[0], lines[2]], 1),
        ([lines[0], b"{}\n", lines[2]], 2),
        ([lines[0], b"\n", lines[1]], 2),
        ([b"[" * 50_000 + b"\n"], 1),
        ([lines[0], lines[0]], 2),
        ([lines[0], lines[1].replace(b'"actor":', b'"actor":"al","actor":')], 2),
    ):
        file.write_bytes(b"".join(changed))
        with pytest.raises(ReleaseError, match=rf"{ALIASES_FILE}:{number}: "):
            read_history(root / NAME)
        with pytest.raises(ReleaseError):
            promote(root, None, ONE)
        assert file.read_bytes() == b"".join(changed)
    for key, value in (("version", "../../x"), ("alias", "../x"), ("action", "other")):
        forged = {**json.loads(lines[0]), key: value}
        with pytest.raises(ValueError, match="is no change of an alias"):
            change_from({**forged, "hash": hash_of(forged)})
    file.write_bytes(b"".join(lines))
    shutil.copytree(root / NAME, root / "other")
    for ask in (lambda: load_prompt("other@production", root=root), lambda: read_history(root / "other")):
        with pytest.raises(ReleaseError, match=rf"belongs to '{NAME}'.*move it away if it is a copy"):
            ask()


def test_a_disk_that_is_full_or_read_only_changes_nothing(root: Path) -> None:
    promote(root, None, ONE)
    before = (root / NAME / ALIASES_FILE).read_bytes()

    def refuse(*words: Any) -> int:
        raise PermissionError(13, "No space left, or read-only")

    for place, says in (
        ("agent.ledger.files.os.open", "cannot hold releases"),
        ("agent.release.promotion.os.fsync", ""),
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(place, refuse)  # root may write everywhere, so modes prove nothing
            with pytest.raises(ReleaseError, match=rf"{says}.*No space left"):
                promote(root, None, TWO)
        assert (root / NAME / ALIASES_FILE).read_bytes() == before
        assert loaded(root) == ONE.version
    (root.parent / "file").write_text("")
    with pytest.raises(ReleaseError, match="cannot hold releases"):
        promote(root.parent / "file", None, ONE)
    assert promote(root, None, TWO)


# -- file and chain complete each other --------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [None, 0, 1, 2])
def test_a_lost_history_is_written_again_from_the_ledger_with_its_versions(
    root: Path, db: Path, kept: int | None
) -> None:
    promote(root, None, ONE)
    promote(root, None, TWO)
    with closing(Ledger(db)) as ledger:
        ReleaseRegistry(root).catch_up(ledger)  # what moved while the ledger was away, once
        promote(root, ledger, THREE)
    file = root / NAME / ALIASES_FILE
    before = file.read_bytes()
    if kept is None:
        shutil.rmtree(root)
    else:
        shutil.rmtree(root / NAME / TWO.version)
        file.write_bytes(b"".join(before.splitlines(keepends=True)[:kept]))
    with closing(History(db)) as history:  # reading is enough, so this works while a run holds the ledger
        assert ReleaseRegistry(root).rollback(NAME, "production", history).version == TWO.version
    assert file.read_bytes().startswith(before)
    assert read_release(root / NAME / TWO.version).version == TWO.version
    assert not list((root / NAME).glob(".new-*"))
    with closing(Ledger(db)) as ledger:
        ReleaseRegistry(root).catch_up(ledger)
    assert same(root, db) == [ONE.version, TWO.version, THREE.version, TWO.version]


def test_a_history_that_contradicts_the_ledger_is_refused(root: Path, db: Path) -> None:
    file = root / NAME / ALIASES_FILE
    with closing(Ledger(db)) as ledger:
        promote(root, ledger, ONE)
        file.unlink()
        promote(root, None, TWO)
        before = file.read_bytes()
        with pytest.raises(ReleaseError, match="contradicts the ledger"):
            promote(root, ledger, THREE)
        assert file.read_bytes() == before
        file.unlink()
        promote(root, ledger, THREE)
    assert same(root, db) == [ONE.version, THREE.version]


# -- many operations, many kills ---------------------------------------------------------------------------------------


class Model:
    """What must come out: a stack of promotions for each alias, and the number of changes."""

    def __init__(self) -> None:
        self.stacks: dict[str, list[tuple[int, float | None]]] = {}
        self.changes = 0

    def apply(self, op: dict[str, Any]) -> bool:
        """Whether the operation can be done."""
        stack, new = self.stacks.setdefault(op["alias"], []), (op["number"], op["share"])
        if op["do"] == "promote":
            if not stack or stack[-1] != new:
                stack.append(new)
                self.changes += 1
            return True
        if len(stack) < 2:
            return False
        stack.pop()
        self.changes += 1
        return True

    def check(self, root: Path) -> None:
        history = read_history(root / NAME)
        assert len(history) == self.changes
        assert [change.seq for change in history] == [*range(1, self.changes + 1)]
        for alias, stack in self.stacks.items():
            kept = [(change.version, change.share) for change in in_force(history, alias)]
            assert kept == [(RELEASES[number].version, share) for number, share in stack]
            if kept:
                assert (current(history)[alias].version, current(history)[alias].share) == kept[-1]


def operations(count: int, seed: int) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    made: list[dict[str, Any]] = [{"do": "promote", "alias": "production", "number": 0, "share": None}]
    while len(made) < count:
        alias = rng.choice(["production", "staging", "ab"])
        share = rng.choice([0.1, 0.2, 0.5]) if alias == "ab" else None
        kind = "rollback" if rng.random() < 0.4 else "promote"
        made.append({"do": kind, "alias": alias, "number": rng.randrange(12), "share": share})
    return made


def perform(root: Path, chain: Any, op: dict[str, Any]) -> bool:
    if op["do"] == "promote":
        promote(root, chain, RELEASES[op["number"]], op["alias"], share=op["share"])
        return True
    try:
        return bool(ReleaseRegistry(root).rollback(NAME, op["alias"], chain))
    except InputError:
        return False


def test_after_random_operations_with_and_without_a_ledger_the_history_is_complete_in_both(
    root: Path, db: Path
) -> None:
    model, rng = Model(), random.Random(4)
    ledger: Ledger | None = Ledger(db)
    for number, op in enumerate(operations(150, 3)):
        if number % 20 == 19:  # now and then without a ledger, and then it comes back
            if ledger:
                ledger.close()
            ledger = None if rng.random() < 0.3 else Ledger(db)
        assert perform(root, ledger, op) == model.apply(op)
    if ledger:
        ledger.close()
    with closing(Ledger(db)) as ledger:
        ReleaseRegistry(root).catch_up(ledger)
    model.check(root)
    assert len(same(root, db)) == model.changes > 100


CHILD = """
import sys
from pathlib import Path
from agent.ledger.store import Ledger
from agent.release.promotion import ReleaseRegistry
from tests.release.test_promotion import operations, perform
root, db, count, start = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
ledger = Ledger(db)
ReleaseRegistry(root).catch_up(ledger)
for op in operations(count, 5)[start:]:
    print("begin", flush=True)
    perform(root, ledger, op)
    print("end", flush=True)
"""


def killed_again_and_again(root: Path, db: Path, count: int, most: int) -> int:
    """Processes that are each killed with SIGKILL at a random moment of their work, and the next one continues.

    Args:
        root: the folder of releases, not there yet.
        db: the ledger, not there yet.
        count: the number of operations.
        most: of them in one process.

    Returns:
        How many were killed; all that they did is there, once, in files and chain.
    """
    rng, ops, done, model, kills = random.Random(11), operations(2 * count, 5), 0, Model(), 0
    while done < count:
        kills += 1
        command = [sys.executable, "-c", CHILD, str(root), str(db), str(len(ops)), str(done)]
        child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
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
            model.apply(op)
        done += said.count("end\n")
        file = root / NAME / ALIASES_FILE
        if file.exists() and rng.random() < 0.5:  # as if the kill had cut off a write
            raw = file.read_bytes()
            file.write_bytes(raw + raw.splitlines()[-1][: rng.randrange(1, 200)])
        lines = read_history(root / NAME)
        if len(lines) != model.changes:  # the operation in the middle had happened already
            model.apply(ops[done])
            done += 1
        model.check(root)
        known = [event["hash"] for event in told(db)]
        assert known == [change.hash for change in lines[: len(known)]]
    with closing(Ledger(db)) as ledger:
        ReleaseRegistry(root).catch_up(ledger)
    model.check(root)
    assert len(same(root, db)) == model.changes > 0.8 * count
    assert not list((root / NAME).glob("p_*/.new-*"))
    return kills


def test_operations_with_kills_lose_nothing_and_write_nothing_twice(root: Path, db: Path) -> None:
    """A thousand of them: `aliases` of the fault campaign."""
    assert killed_again_and_again(root, db, 60, 30) >= 2


@pytest.mark.parametrize("step", ["_append", "_record"])
def test_a_kill_at_each_step_is_made_good_by_the_same_command_again(
    root: Path, db: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process ends right after the version, or after the line was written."""

    def end(*words: Any) -> None:
        raise SystemExit(9)

    with closing(Ledger(db)) as ledger, monkeypatch.context() as patch:
        patch.setattr(f"agent.release.promotion.{step}", end)
        with pytest.raises(SystemExit):
            promote(root, ledger, ONE)
    assert (root / NAME / ONE.version).is_dir()
    assert (root / NAME / ALIASES_FILE).exists() == (step == "_record")
    assert not told(db)
    with closing(Ledger(db)) as ledger:
        promote(root, ledger, ONE)
    assert same(root, db) == [ONE.version]


def test_two_processes_at_once_both_leave_their_lines(root: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from tests.release.test_promotion import RELEASES, promote\n"
        "for number in range(15): promote(Path(sys.argv[1]), None, RELEASES[number % 2], sys.argv[2])"
    )
    words = [sys.executable, "-c", code, str(root)]
    both = [subprocess.Popen([*words, alias], cwd=ROOT) for alias in ("staging", "canary")]
    assert [child.wait(120) for child in both] == [0, 0]
    history = read_history(root / NAME)
    assert len(history) == 30
    assert b"".join(map(line_of, history)) == (root / NAME / ALIASES_FILE).read_bytes()
