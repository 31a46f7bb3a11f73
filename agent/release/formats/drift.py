"""Where the messages of an export begin to differ from those that were scored. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agent.errors import ReleaseError


def require_same(
    name: str, want: Sequence[Mapping[str, str]], got: Sequence[Mapping[str, str]], values: Mapping[str, str]
) -> None:
    """Raises a ReleaseError that names message and character, unless the two are equal. `values`: the row's."""
    if len(got) != len(want):
        raise ReleaseError(f"{name}: drifts with {dict(values)!a:.60}: {len(got)} messages, not {len(want)}")
    for number, (mine, theirs) in enumerate(zip(want, got, strict=True)):
        if mine != theirs:
            at = _differ(mine["content"], theirs["content"])
            start = max(0, at - 20)
            raise ReleaseError(
                f"{name}: message {number} drifts at character {at} with {dict(values)!a:.60}: sends "
                f"{theirs['role']} {theirs['content'][start : at + 20]!a}, not {mine['content'][start : at + 20]!a}"
            )


def _differ(one: str, two: str) -> int:
    pairs = enumerate(zip(one, two, strict=False))
    return next((number for number, (a, b) in pairs if a != b), min(len(one), len(two)))
