"""Loads a released prompt and renders it: what a program ships with. Knows no SDK, no search and no ledger.

Imports only the standard library and the light parts of this package. A file is data: nothing in it is run, and its
text enters a message only through `{{field}}` marks. `load_prompt("prompt.md").render(message=...)` gives exactly the
messages that were scored; `load_prompt("support_triage@production")` the version that the label means now.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import ReleaseError
from agent.release.labels import PRODUCTION, NeedsUnit, Reference, ResolvedVersion, releases_root, resolve
from agent.release.prompt_file import MESSAGES_FILE, PROMPT_FILE, PromptRelease, only_release_errors, read_release

if TYPE_CHECKING:
    from agent.shipped import Prediction
    from agent.types import LM

__all__ = ["MESSAGES_FILE", "PROMPT_FILE", "Prompt", "PromptRelease", "load_prompt"]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A loaded release, ready to use.

    `label` is the label by which it was found ("" for a path or a version), `arm` is "candidate" or "production" when
    that is an A/B label, else "". `fallback_reason` says why the fallback was loaded instead ("": it was not).
    """

    release: PromptRelease
    label: str = ""
    arm: str = ""
    fallback_reason: str = ""

    @property
    def name(self) -> str:
        return self.release.name

    @property
    def version(self) -> str:
        """The hash of the content that was loaded, whatever the file says."""
        return self.release.version

    @property
    def model(self) -> str:
        return self.release.model

    @property
    def parameters(self) -> dict[str, Any]:
        return dict(self.release.parameters)

    @property
    def provenance(self) -> dict[str, Any]:
        return dict(self.release.provenance)

    def render(self, /, **fields: str) -> list[dict[str, str]]:
        """The messages to send, [{"role", "content"}]. Needs exactly the declared inputs, each a str.

        Raises a ReleaseError that names what is missing, unknown or not text.
        """
        inputs = self.release.inputs
        wrong = [f"{name} is missing" for name in inputs if name not in fields]
        wrong += [f"{name!r} is unknown" for name in fields if name not in inputs]
        wrong += [
            f"{name} is {type(value).__name__}, not str"
            for name, value in fields.items()
            if name in inputs and not isinstance(value, str)
        ]
        if wrong:
            needs = ", ".join(inputs) or "none"
            raise ReleaseError(f"cannot render {self.name!r}: {'; '.join(wrong)}; give exactly these as text: {needs}")
        return [message.as_dict() for message in self.release.fill(fields)]

    def parse(self, reply: str) -> Prediction:
        """Reads a reply as it was read when it was scored; never raises."""
        from agent.prompt.reply_parser import (
            parse_reply,  # its patterns take time, and not everybody who renders parses
        )

        return parse_reply(reply, self.release.outputs, reasoning=self.release.reasoning)

    def complete(self, lm: LM | None = None, /, **fields: str) -> Prediction:
        """Renders, calls the model once, parses. Not inside a running event loop: there, await `acomplete`."""
        from agent.release.completion import complete

        self.render(**fields)  # wrong fields raise before anything starts
        return complete(self.release, fields, lm)

    async def acomplete(self, lm: LM | None = None, /, **fields: str) -> Prediction:
        """`complete` inside an event loop: one attempt, and another for a parameter that the model refuses.

        It counts in no budget and no ledger.

        Args:
            lm: A model to use and keep open; without it one is made and closed.
            fields: The inputs.

        Raises:
            ModelError: The call failed; its `retry` says whether to try again.
            ReleaseError: The fields are not the inputs, or a parameter cannot be sent.
        """
        from agent.release.completion import acomplete

        self.render(**fields)
        return await acomplete(self.release, fields, lm)


def load_prompt(
    path: str | os.PathLike[str],
    *,
    verify: bool = True,
    root: str | os.PathLike[str] | None = None,
    fallback: str | os.PathLike[str] | None = None,
    unit: str | None = None,
) -> Prompt:
    """Loads a released prompt.

    Args:
        path: "NAME@LABEL", "NAME@VERSION", or the path of a prompt.md, a messages.json or a folder with the first.
        verify: Refuse a file whose content does not match the version in it.
        root: The folder of the releases; default: PROMPTASSAY_RELEASES, else runs/releases.
        fallback: Path of a prompt that comes with your program, loaded when the other cannot be; this is logged and
            kept as `fallback_reason`.
        unit: What an A/B label buckets, as text. A wrong one, or none for an A/B label, is a mistake in the program and
            raises even with a fallback.

    Raises:
        ReleaseError: One line with the file (and line where known): it cannot be read, is not a release, or was edited.
            For a label of a version that is no prompt it says what loads it.
    """
    if unit is not None and not isinstance(unit, str):
        raise ReleaseError(f"unit={unit!r:.60} is {type(unit).__name__}; give the id of the unit as text")
    reference = Reference.of(path) if isinstance(path, str) else None
    try:
        with only_release_errors(path):
            if reference is None:
                return Prompt(read_release(path, verify=verify))
            resolved = resolve(releases_root(root), reference, unit)
            return _load(releases_root(root), reference, resolved, verify)
    except NeedsUnit:  # a mistake in the program, so no fallback
        raise
    except ReleaseError as error:
        if fallback is None:
            raise
        return _fall_back(fallback, reference, str(error), verify)


def _load(root: os.PathLike[str], reference: Reference, resolved: ResolvedVersion, verify: bool) -> Prompt:
    folder = os.path.join(root, reference.name, resolved.version)
    if not resolved.version.startswith("p_"):
        from agent.release.file_release import how_to_load

        named = Reference(reference.name, PRODUCTION) if resolved.arm else reference  # the candidate's arm is a prompt
        raise ReleaseError(how_to_load(Path(folder), str(named)))
    release = read_release(os.path.join(folder, PROMPT_FILE), verify=verify)
    if release.name != reference.name or (verify and release.version != resolved.version):
        raise ReleaseError(
            f"{folder}: holds {release.name} {release.version}, not {reference.name} {resolved.version}; restore the "
            "folder from a copy, or promote the run again"
        )
    return Prompt(release, resolved.label, resolved.arm)


def _fall_back(path: str | os.PathLike[str], reference: Reference | None, why: str, verify: bool) -> Prompt:
    import logging

    try:
        release = read_release(path, verify=verify)
    except ReleaseError as error:
        raise ReleaseError(f"{error}; it is the fallback, because of {why}") from None
    if reference is not None and release.name != reference.name:
        raise ReleaseError(f"{path}: the fallback is of {release.name!r}, not of {reference.name!r}; {why}")
    logging.getLogger("agent.release").warning("loaded the fallback %s: %s", path, why)
    return Prompt(release, fallback_reason=why)
