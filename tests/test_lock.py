"""What is installed is what was locked: each package by its version and by the hashes of its files."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PINNED = re.compile(r"[A-Za-z0-9._-]+(\[[a-z,-]+\])?==\S+( ; .+)?( --hash=sha256:[0-9a-f]{64})+")


LOCKS = {
    "requirements.lock": 50,
    "requirements-extras.lock": 20,
    "requirements-torch.lock": 0,
    "docs/requirements.txt": 9,
}


def packages(lock: str) -> list[str]:
    text = (ROOT / lock).read_text("utf-8").replace("\\\n", " ")
    lines = [" ".join(line.split("#")[0].split()) for line in text.splitlines()]
    return [line for line in lines if line]


@pytest.mark.parametrize(("lock", "many"), LOCKS.items())
def test_every_package_is_pinned_by_version_and_hash(lock: str, many: int) -> None:
    found = packages(lock)
    assert len(found) > many
    assert [line for line in found if not PINNED.fullmatch(line)] == []


def test_the_extras_replace_no_package_of_the_plain_environment() -> None:
    plain, extras = (
        {re.split(r"[\[=]", line)[0] for line in packages(lock)}
        for lock in ("requirements.lock", "requirements-extras.lock")
    )
    assert not plain & extras


def test_pip_is_told_to_insist_on_the_hashes() -> None:
    commands = [line for line in (ROOT / "Makefile").read_text("utf-8").splitlines() if " pip install " in line]
    assert commands
    for line in commands:  # ours alone has none: it lies here, and brings no other package along
        assert "--no-deps" in line
        assert bool(
            re.search(r"--require-hashes -r (requirements(-extras|-torch)?\.lock|docs/requirements\.txt)", line)
        ) is not line.endswith("--no-build-isolation -e .")
