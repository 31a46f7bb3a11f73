"""`optimize audit verify` and the files next to the ledger: an older copy is found, another ledger is not."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from agent.programs import prompt as prompt_program
from agent.release.export import write_release
from tests.cli.world import files, good, good_json, learner, optimize
from tests.ledger.ledgers import read
from tests.scripted import Toy, Toys, toy_makers

DB = Path("runs/ledger.db")
OLDER = Path("older.db")


def run(model: Toy, db: Path = DB, seed: int = 0) -> str:
    """A finished run; returns its id."""
    words = ["-m", model.name, "--max-calls", "100", "-n", "1", "--seed", str(seed), "--db", db, "-q"]
    return str(good_json(*files(120), *words)["run_id"])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Two runs; of the second a report, and an alias on its prompt. `older.db` is the ledger as it was between them."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch, toy_makers() as toys:
        patch.chdir(folder)
        ids = [run(toys(learner))]
        shutil.copyfile(DB, OLDER)
        ids.append(run(toys(learner), seed=1))
        good("promote", ids[1])
        good("report", ids[1])
        good("report", ids[1], "-o", "runs/mine.html")
    return folder, ids


@pytest.fixture
def ids(made: tuple[Path, list[str]], here: Path) -> list[str]:
    shutil.copytree(made[0], here, dirs_exist_ok=True)
    return made[1]


def bring_back(copy: Path = OLDER) -> None:
    """As who restores a backup does."""
    for path in DB.parent.glob("ledger.db*"):
        path.unlink()
    copy.rename(DB)


def verified(db: Path = DB) -> dict[str, Any]:
    result = optimize("audit", "verify", "--json", "--db", db)
    found = json.loads(result.stdout)
    assert result.exit_code == (0 if found["whole"] else 1)
    assert isinstance(found, dict)
    return found


def named(found: dict[str, Any]) -> list[str]:
    """The files that say otherwise."""
    told = [re.match(r"this ledger is older than (\S+), or another one: ", each["what"]) for each in found["findings"]]
    return sorted(each[1] for each in told if each)


def change(path: Path, pattern: str, new: str) -> None:
    text, count = re.subn(pattern, new, path.read_text("utf-8"))
    assert count
    path.write_text(text, "utf-8")


def test_an_older_copy_is_found_by_every_file_that_was_made_since(ids: list[str]) -> None:
    assert verified()["whole"]
    bring_back()
    assert read(DB, "SELECT id FROM runs") == [(ids[0],)], "the second run has vanished"
    (version,) = Path("runs/releases").glob("*/p_*")
    files = [
        f"runs/{ids[1]}/prompt.md",
        f"runs/{ids[1]}/report.html",
        "runs/mine.html",
        f"{version}/prompt.md",
        f"{version.parent}/aliases.jsonl",
    ]
    assert named(verified()) == sorted(files)
    for file in files:
        Path(file).unlink()
    assert verified()["whole"], "the files of the first run are its own"


def test_an_older_copy_is_found_after_the_next_run_as_well(ids: list[str], toys: Toys) -> None:
    bring_back()
    run(toys(learner), seed=2)
    assert f"runs/{ids[1]}/prompt.md" in named(verified())


def test_files_of_older_versions_count_where_their_run_is_in_the_ledger(ids: list[str]) -> None:
    for each in ids:
        change(Path(f"runs/{each}/prompt.md"), r'(?m)^    "ledger": "[0-9a-f]{64}",\n', "")
    assert verified()["whole"]
    change(Path(f"runs/{ids[0]}/prompt.md"), r'"ledger_head": "[0-9a-f]{64}"', f'"ledger_head": "{"5" * 64}"')
    assert named(verified()) == [f"runs/{ids[0]}/prompt.md"]


# -- no false alarm ----------------------------------------------------------------------------------------------------


def test_a_copy_that_went_on_by_itself_is_no_finding_but_a_note(ids: list[str], toys: Toys) -> None:
    fork = Path("runs/fork.db")
    shutil.copyfile(DB, fork)
    went_on = run(toys(learner), fork, seed=2)
    result = optimize("audit", "verify")
    assert (result.exit_code, result.stdout[:6]) == (0, "whole:")
    assert result.stderr == f"note: runs/{went_on}/prompt.md: names a head of {fork}, which continued this ledger\n"
    assert verified(fork)["whole"]


NOT_OURS = (b"", b"+++\n+++\n", b"\xff\xfe", b'+++\n{"provenance": 5}\n+++\n', b"[" * 100_000)


def test_files_that_are_something_else_say_nothing(ids: list[str]) -> None:
    for number, content in enumerate(NOT_OURS):
        for name in ("prompt.md", "held/prompt.md", "page.html"):
            path = Path(f"runs/some{number}") / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        Path(f"runs/releases/x{number}").mkdir()
        Path(f"runs/releases/x{number}/aliases.jsonl").write_bytes(content)
    Path("runs/folder.html").mkdir()
    assert verified()["whole"]


def test_no_file_names_a_head_that_a_kill_could_take_back(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it names is on the disk before it is written."""
    noted: list[bool] = []

    def looked(release: Any, folder: Path) -> Path:
        head = release.provenance["ledger_head"]
        noted.append(read(DB, "SELECT COUNT(*) FROM events WHERE hash = ?", head) == [(1,)])
        return write_release(release, folder)

    monkeypatch.setattr(prompt_program, "write_release", looked)
    run(toys(learner))
    assert noted
    assert all(noted)
