"""Where the messages of an export begin to differ from those that were scored, and what it sets otherwise. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agent.errors import ReleaseError
from agent.release.completion import UNSAID
from agent.release.formats.base import Told, told_by
from agent.release.runtime import PromptRelease


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


def require_told(name: str, release: PromptRelease, told: Told) -> None:
    """Raises a ReleaseError unless each model and parameter that the files hold is that of the release."""
    want = {**UNSAID, **told_by(release)}
    for key, value in told.items():
        if _plain(value) != _plain(want.get(key)):
            raise ReleaseError(f"{name}: the files say {key} = {value!a:.60}, the release says {want.get(key)!a:.60}")


def untold(release: PromptRelease, told: Told) -> Told:
    """What the release says of model and parameters, and the files do not."""
    return {key: value for key, value in told_by(release).items() if key not in told and value not in ("", [])}


def _plain(value: Any) -> Any:
    """One text to stop at is a list of it, too."""
    return list(value) if isinstance(value, list | tuple) else [value] if isinstance(value, str) else value


def _differ(one: str, two: str) -> int:
    pairs = enumerate(zip(one, two, strict=False))
    return next((number for number, (a, b) in pairs if a != b), min(len(one), len(two)))
