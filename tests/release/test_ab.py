"""A/B aliases: buckets are stable, as large as the share, and move only who must move; and loading by reference."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import agent
from agent.errors import ReleaseError
from agent.release.aliases import Reference, bucket
from agent.release.export import write_release
from agent.release.promotion import ReleaseRegistry
from agent.release.runtime import load_prompt
from tests.release.test_promotion import NAME, ONE, THREE, TWO, evidence, promote, release

UNITS = st.text(max_size=30)
SHARES = st.floats(0, 1)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "releases"
    promote(root, None, ONE)
    promote(root, None, TWO, "ab", share=0.2)
    return root


@given(UNITS, UNITS)
def test_a_bucket_is_in_range_and_always_the_same(name: str, unit: str) -> None:
    assert 0 <= bucket(name, unit) < 1
    assert bucket(name, unit) == bucket(name, unit)


def test_buckets_are_the_same_in_every_process_and_version() -> None:
    """Pinned: another number here would move users between the arms of experiments that run."""
    assert bucket("support_triage", "user-1") == 0.7358909114797874
    assert bucket("support_triage", "") == 0.4777950837176521
    code = "from agent.release.aliases import bucket; print(bucket('support_triage', 'user-1'))"
    root = Path(agent.__file__).parent.parent
    for seed in ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=root,
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert float(done.stdout) == 0.7358909114797874


@pytest.mark.parametrize("share", [0.01, 0.05, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("kind", ["numbers", "padded", "mails"])
def test_the_share_is_met_within_three_sigma(share: float, kind: str) -> None:
    shape = {"numbers": "{}", "padded": "{:012d}", "mails": "user{}@example.org"}[kind]
    n = 20_000
    hits = sum(bucket(NAME, shape.format(number)) < share for number in range(n))
    assert abs(hits - n * share) <= 3 * math.sqrt(n * share * (1 - share))


@given(SHARES, SHARES, UNITS)
def test_a_change_of_the_share_moves_only_whom_it_must(one: float, two: float, unit: str) -> None:
    low, high = sorted((one, two))
    place = bucket(NAME, unit)
    before, after = place < low, place < high
    assert not (before and not after)  # a larger share takes nobody out
    assert (before != after) == (low <= place < high)


def test_other_names_bucket_independently() -> None:
    n = 20_000
    both = sum(bucket("a", str(number)) < 0.5 and bucket("b", str(number)) < 0.5 for number in range(n))
    assert abs(both - n / 4) <= 3 * math.sqrt(n * 3 / 16)


def test_each_unit_gets_its_arm_and_keeps_it(root: Path) -> None:
    arms = {}
    for number in range(300):
        prompt = load_prompt(f"{NAME}@ab", unit=f"u{number}", root=root)
        assert (prompt.arm, prompt.version) in {("candidate", TWO.version), ("production", ONE.version)}
        assert prompt.alias == "ab"
        arms[number] = prompt.arm
    assert 30 < sum(arm == "candidate" for arm in arms.values()) < 90
    promote(root, None, TWO, "ab", share=0.5)
    for number, arm in arms.items():
        now = load_prompt(f"{NAME}@ab", unit=f"u{number}", root=root).arm
        assert now == "candidate" or arm == "production"
    for share, arm in ((0.0, "production"), (1.0, "candidate")):
        promote(root, None, TWO, "ab", share=share)
        assert {load_prompt(f"{NAME}@ab", unit=f"u{number}", root=root).arm for number in range(50)} == {arm}


def test_the_other_arm_follows_production_and_a_rollback_restores_the_share(root: Path) -> None:
    unit = next(str(n) for n in range(99) if bucket(NAME, str(n)) > 0.9)
    promote(root, None, THREE)
    assert load_prompt(f"{NAME}@ab", unit=unit, root=root).version == THREE.version
    promote(root, None, THREE, "ab", share=0.95)
    back = ReleaseRegistry(root).rollback(NAME, "ab", None)
    assert (back.version, back.share) == (TWO.version, 0.2)


def test_an_ab_alias_without_a_unit_is_the_program_s_mistake_even_with_a_fallback(root: Path, tmp_path: Path) -> None:
    write_release(ONE, tmp_path / "bundled")
    with pytest.raises(ReleaseError, match="unit=ID"):
        load_prompt(f"{NAME}@ab", root=root, fallback=tmp_path / "bundled")
    with pytest.raises(ReleaseError, match="as text"):
        load_prompt(f"{NAME}@ab", unit=7, root=root)  # type: ignore[arg-type]
    assert load_prompt(f"{NAME}@production", unit="x", root=root).arm == ""


# -- references


@pytest.mark.parametrize("text", ["a@production", "a.b-c_d@p_0123456789abcdef", "A1@staging_2"])
def test_a_reference_is_known(text: str) -> None:
    assert str(Reference.of(text)) == text


@pytest.mark.parametrize(
    "text", ["a", "a@", "@b", "a/b@c", "../a@b", "a@b/c", "a@Prod", "a@b.md", "a@..", "a@b@c", "./a@b"]
)
def test_a_path_is_no_reference(text: str) -> None:
    assert Reference.of(text) is None


def test_the_root_is_the_argument_the_variable_or_the_usual_folder(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PROMPTASSAY_RELEASES", raising=False)
    with pytest.raises(ReleaseError, match="no releases of this name"):
        load_prompt(f"{NAME}@production")
    monkeypatch.setenv("PROMPTASSAY_RELEASES", str(root))
    assert load_prompt(f"{NAME}@production").version == ONE.version
    monkeypatch.delenv("PROMPTASSAY_RELEASES")
    root.rename(tmp_path / "moved")
    (tmp_path / "runs").mkdir()
    (tmp_path / "moved").rename(tmp_path / "runs" / "releases")
    assert load_prompt(f"{NAME}@production").version == ONE.version
    with pytest.raises(ReleaseError, match="no alias 'staging'; known: ab, production"):
        load_prompt(f"{NAME}@staging")


def test_the_fallback_is_loaded_told_and_must_be_of_the_same_name(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_release(THREE, tmp_path / "bundled")
    bundled = tmp_path / "bundled" / "prompt.md"
    assert load_prompt(f"{NAME}@production", root=root, fallback=bundled).fallback_reason == ""
    prompt = load_prompt(f"{NAME}@production", root=tmp_path / "nowhere", fallback=bundled)
    assert prompt.version == THREE.version
    assert "no releases of this name" in prompt.fallback_reason
    assert "loaded the fallback" in caplog.text
    file = root / NAME / ONE.version / "prompt.md"
    file.write_text(file.read_text() + "edited")
    assert "was edited" in load_prompt(f"{NAME}@production", root=root, fallback=bundled).fallback_reason
    write_release(release(1, name="other"), tmp_path / "other")
    with pytest.raises(ReleaseError, match="the fallback is of 'other'"):
        load_prompt(f"{NAME}@production", root=root, fallback=tmp_path / "other")
    with pytest.raises(ReleaseError, match=r"no such file.*it is the fallback for: .*was edited"):
        load_prompt(f"{NAME}@production", root=root, fallback=tmp_path / "none.md")


def test_a_version_in_a_folder_of_another_version_is_refused(root: Path) -> None:
    write_release(THREE, root / NAME / ONE.version)
    with pytest.raises(ReleaseError, match=f"holds {NAME} {THREE.version}"):
        load_prompt(f"{NAME}@production", root=root)
    assert evidence(1)
