"""A/B aliases: buckets are stable, as large as the share, and move only who must move; and loading by reference."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import ReleaseError
from agent.release.aliases import Reference, bucket
from agent.release.export import write_release
from agent.release.promotion import ReleaseRegistry
from agent.release.runtime import load_prompt
from tests.cases import each_case
from tests.release.test_promotion import NAME, ONE, THREE, TWO, promote, release


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "releases"
    promote(root, None, ONE)
    promote(root, None, TWO, "ab", share=0.2)
    return root


def test_buckets_are_the_same_in_every_process_and_version() -> None:
    """Pinned: another number here would move users between the arms of experiments that run."""
    assert bucket("support_triage", "user-1") == 0.7358909114797874
    assert bucket("support_triage", "") == 0.4777950837176521


@each_case("share", [0.01, 0.2, 0.9])
@each_case("shape", ["{}", "{:012d}", "user{}@example.org"])
def test_the_share_is_met_within_three_sigma_for_each_name_by_itself(share: float, shape: str) -> None:
    n, units = 10_000, [shape.format(number) for number in range(10_000)]
    hits = sum(bucket(NAME, unit) < share for unit in units)
    assert abs(hits - n * share) <= 3 * math.sqrt(n * share * (1 - share))
    both, p = sum(bucket("a", unit) < share and bucket("b", unit) < share for unit in units), share * share
    assert abs(both - n * p) <= 3 * math.sqrt(n * p * (1 - p)) + 1


@given(st.floats(0, 1), st.floats(0, 1), st.text(max_size=30), st.text(max_size=30))
def test_a_change_of_the_share_moves_only_whom_it_must(one: float, two: float, name: str, unit: str) -> None:
    low, high, place = min(one, two), max(one, two), bucket(name, unit)
    assert 0 <= place < 1
    assert (place < low) <= (place < high), "a larger share takes nobody out"
    assert ((place < low) != (place < high)) == (low <= place < high)


def test_each_unit_gets_its_arm_and_keeps_it(root: Path) -> None:
    def arms() -> dict[str, str]:
        found = {}
        for unit in map(str, range(100)):
            prompt = load_prompt(f"{NAME}@ab", unit=unit, root=root)
            assert (prompt.arm, prompt.version) in {("candidate", TWO.version), ("production", ONE.version)}
            assert prompt.alias == "ab"
            found[unit] = prompt.arm
        return found

    first = arms()
    assert 10 <= sum(arm == "candidate" for arm in first.values()) <= 30
    promote(root, None, TWO, "ab", share=0.5)
    assert all(now == "candidate" or first[unit] == "production" for unit, now in arms().items())
    for share, arm in ((0.0, "production"), (1.0, "candidate")):
        promote(root, None, TWO, "ab", share=share)
        assert set(arms().values()) == {arm}
    promote(root, None, TWO, "ab", share=0.2)
    promote(root, None, THREE)
    unit = next(unit for unit, arm in first.items() if arm == "production")
    assert load_prompt(f"{NAME}@ab", unit=unit, root=root).version == THREE.version, "it follows production"
    promote(root, None, THREE, "ab", share=0.95)
    back = ReleaseRegistry(root).rollback(NAME, "ab", None)
    assert (back.version, back.share) == (TWO.version, 0.2)


def test_an_ab_alias_without_a_unit_is_a_bug_of_the_program_even_with_a_fallback(root: Path, tmp_path: Path) -> None:
    bundled = write_release(ONE, tmp_path / "bundled")
    with pytest.raises(ReleaseError, match="unit=ID"):
        load_prompt(f"{NAME}@ab", root=root, fallback=bundled)
    with pytest.raises(ReleaseError, match="as text"):
        load_prompt(f"{NAME}@ab", unit=7, root=root)  # type: ignore[arg-type]
    assert load_prompt(f"{NAME}@production", unit="x", root=root).arm == ""


@each_case(
    "text, known",
    [
        *((text, True) for text in ("a@production", "a.b-c_d@p_0123456789abcdef", "A1@staging_2")),
        *((text, False) for text in ("a", "a@", "@b", "a/b@c", "../a@b", "a@b/c", "a@Prod", "a@b.md", "a@..", "a@b@c")),
    ],
)
def test_a_reference_is_told_from_a_path(text: str, known: bool) -> None:
    assert (str(Reference.of(text)) == text) == known


def test_the_root_is_the_argument_the_variable_or_the_usual_folder(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PROMPTASSAY_RELEASES", raising=False)
    with pytest.raises(ReleaseError, match="no releases of this name; known: none"):
        load_prompt(f"{NAME}@production")
    monkeypatch.setenv("PROMPTASSAY_RELEASES", str(root))
    assert load_prompt(f"{NAME}@production").version == ONE.version
    monkeypatch.delenv("PROMPTASSAY_RELEASES")
    (tmp_path / "runs").mkdir()
    root.rename(tmp_path / "runs" / "releases")
    assert load_prompt(f"{NAME}@production").version == ONE.version
    with pytest.raises(ReleaseError, match="no alias 'staging'; known: ab, production"):
        load_prompt(f"{NAME}@staging")


def test_the_fallback_is_logged_and_must_be_of_the_same_name(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bundled, other = write_release(THREE, tmp_path / "b"), write_release(release(1, name="other"), tmp_path / "other")
    assert load_prompt(f"{NAME}@production", root=root, fallback=bundled).fallback_reason == ""
    prompt = load_prompt(f"{NAME}@production", root=tmp_path / "nowhere", fallback=bundled)
    assert (prompt.version, "no releases of this name" in prompt.fallback_reason) == (THREE.version, True)
    assert "loaded the fallback" in caplog.text
    file = root / NAME / ONE.version / "prompt.md"
    file.write_text(file.read_text() + "edited")
    assert "was edited" in load_prompt(f"{NAME}@production", root=root, fallback=bundled).fallback_reason
    with pytest.raises(ReleaseError, match="the fallback is of 'other'"):
        load_prompt(f"{NAME}@production", root=root, fallback=other)
    with pytest.raises(ReleaseError, match=r"no such file.*it is the fallback for: .*was edited"):
        load_prompt(f"{NAME}@production", root=root, fallback=tmp_path / "none.md")
    write_release(THREE, file.parent)
    with pytest.raises(ReleaseError, match=f"holds {NAME} {THREE.version}"):
        load_prompt(f"{NAME}@production", root=root)
