"""Load and render a released prompt: the part that programs ship with. Knows no SDK, no search and no ledger.

Imports only the standard library and the light parts of this package. A file is data: nothing in it is run, and its
text enters a message only through `{{field}}` marks. `load_prompt("prompt.md").render(message=...)` returns exactly the
messages that were scored; `load_prompt("support_triage@production")` loads the current version of the alias.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from agent.errors import ReleaseError
from agent.prompt.parts.part import Row
from agent.release.aliases import PRODUCTION, NeedsUnit, Reference, ResolvedVersion, releases_root, resolve
from agent.release.prompt_file import MESSAGES_FILE, PROMPT_FILE, PromptRelease, only_release_errors, read_release
from agent.safe_text import printable
from agent.shipped import Prediction

if TYPE_CHECKING:
    from agent.release.remembered import RememberedRows
    from agent.release.texts import TextsRelease
    from agent.types import LM

Input: TypeAlias = str | list[dict[str, str]]
"""The value of an input: a text, or the messages of a conversation."""
R = TypeVar("R", bound="PromptRelease | TextsRelease")
REMEMBERED = "remembered"
"""The folder of user-confirmed examples, next to a prompt's file."""

__all__ = ["MESSAGES_FILE", "PROMPT_FILE", "Prompt", "PromptRelease", "load_prompt"]


@dataclass(frozen=True, slots=True, eq=False)
class LoadedRelease:
    """What any loaded release says of itself.

    `alias` is the alias it was found by ("" for a path or a version), `arm` is "candidate" or "production" for an A/B
    alias, else "". `fallback_reason` says why the fallback was loaded ("": it was not).
    """

    release: Any
    alias: str = ""
    arm: str = ""
    fallback_reason: str = ""

    @property
    def name(self) -> str:
        return str(self.release.name)

    @property
    def version(self) -> str:
        """The hash of the loaded content, whatever the file says."""
        return str(self.release.version)

    @property
    def model(self) -> str:
        """The name of the answering model, with the path of an adapter."""
        return str(self.release.target)

    @property
    def abstain_below(self) -> float | None:
        """The confidence below which not to use an answer, if the task demands precision."""
        below = self.release.provenance.get("abstain_below")
        return float(below) if isinstance(below, int | float) else None

    @property
    def parameters(self) -> dict[str, Any]:
        return dict(self.release.parameters)

    @property
    def provenance(self) -> dict[str, Any]:
        return dict(self.release.provenance)


@dataclass(frozen=True, slots=True)
class Prompt(LoadedRelease):
    """A loaded prompt, ready to use.

    `remembered` is the folder of examples confirmed by users (None: the prompt was not loaded from a file).
    """

    release: PromptRelease
    remembered: Path | None = field(default=None, compare=False)

    def render(
        self, /, *, who: str | None = None, vector: Sequence[float] | str | None = None, **fields: Input
    ) -> list[dict[str, str]]:
        """Return the messages to send, [{"role", "content"}]; needs exactly the declared inputs.

        Args:
            who: A user or tenant, whose confirmed examples (`remember`) are picked first. If an input is named `who`,
                it is that input; the same holds for `vector`.
            vector: For a prompt that picks examples by a provider's vectors: that model's vector of `embedded_text`.
            fields: The inputs: texts, a conversation also as a list of {"role", "content"}.

        Raises:
            ReleaseError: An input is missing, unknown or not text.
        """
        return [message.as_dict() for message in self.release.render(self._row(*self._named(who, vector, fields)))]

    @property
    def embeddings(self) -> str:
        """The model, as "PROVIDER:NAME", whose vector of the input `render` needs, or ""."""
        return self.release.embeddings

    def embedded_text(self, **fields: Input) -> str:
        """Return the text to embed for a program that calls the provider itself."""
        texts = self._texts(fields, "embed")
        self._require_inputs("embed", texts)
        return self.release.row(texts).text

    def _named(
        self, who: Any, vector: Any, fields: Mapping[str, Any], verb: str = "render"
    ) -> tuple[str | None, Any, dict[str, Any]]:
        given = {"who": who, "vector": vector}
        own = {name: value for name, value in given.items() if value is not None and name in self.release.inputs}
        inputs = self._texts({**fields, **own}, verb)
        self._require_inputs(verb, inputs)
        return (None if "who" in own else who), (None if "vector" in own else vector), inputs

    def _row(self, who: str | None, vector: Any, inputs: dict[str, str]) -> Row:
        if who is None or not self.release.takes_rows:
            return self.release.row(inputs, vector=vector)
        return self._rows_of(who).row(inputs, vector)

    def _texts(self, given: Mapping[str, Any], verb: str) -> dict[str, str]:
        try:
            for part in self.release.parts:
                given = part.texts_of(given)
        except ValueError as error:
            raise ReleaseError(f"cannot {verb} {self.name!r}: {error}") from None
        return dict(given)

    def _require_inputs(self, verb: str, fields: Mapping[str, Any]) -> None:
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

            said = printable(f"{'; '.join(wrong)}; give exactly these as text: {needs}")
            raise ReleaseError(f"cannot {verb} {self.name!r}: {said}")

    def remember(self, inputs: Mapping[str, Input], answer: Any, *, who: str) -> None:
        """Store a confirmed example of a user or tenant, without changing the version.

        It is shown to this user alone, by `render(..., who=...)` and `complete(..., who=...)`. At most 200 examples and
        a million characters are kept for each user; the oldest are dropped. The same inputs replace the older answer.

        Args:
            inputs: A text for each input.
            answer: The right answer, or one for each output by its name. Checked against its type, choices and limits.
            who: The user or tenant, 1 to 1,000 characters. Stored only as a hash, in the file name.

        Raises ReleaseError if the prompt picks no examples, the example does not fit it, or the disk refuses.
        """
        from agent.release.remembered import answers_of, require_layout, wrong_answers

        if not self.release.takes_rows:
            raise ReleaseError(
                f"cannot remember: {self.name!r} {self.version} shows every input the same examples; release a prompt "
                "that picks its examples for each input"
            )
        if "who" in self.release.inputs:
            raise ReleaseError(f"cannot remember: {self.name!r} has an input with the name who; rename it in the task")
        rows, texts = self._rows_of(who), self._texts(inputs, "remember an example of")
        self._require_inputs("remember an example of", texts)
        answers = answers_of(self.release.outputs, answer)
        if wrong := wrong_answers(self.release.outputs, answers):
            raise ReleaseError(
                f"cannot remember an example of {self.name!r}: {'; '.join(wrong)}; give the right answer"
            )
        require_layout(self.release)
        rows.add(texts, answers)

    def forget(self, who: str, *, inputs: Mapping[str, Input] | None = None) -> int:
        """Erase and count the confirmed examples of a user, or that with these inputs."""
        given = inputs if inputs is None else self._texts(inputs, "forget an example of")
        return self._rows_of(who).forget(given)

    def _rows_of(self, who: str) -> RememberedRows:
        from agent.release.remembered import RememberedRows

        if self.remembered is None:
            raise ReleaseError(f"{self.name!r}: there is no folder for remembered rows; load it with load_prompt")
        return RememberedRows(self.release, self.remembered, who)

    def parse(
        self,
        reply: str,
        logprobs: Sequence[Any] = (),
        *,
        inputs: Mapping[str, Input] | None = None,
        who: str | None = None,
    ) -> Prediction:
        """Read a reply exactly as when it was scored; never raises for a reply.

        Args:
            reply: The model's text.
            logprobs: For each token of the reply its most likely tokens, as (token, log-probability) pairs or in
                OpenAI's form (`choice.logprobs.content`). A release with calibration decides by them; without them the
                text alone is read. They also give the prediction its `confidence`.
            inputs: Those of `render`. Needed with `logprobs` if nearest rows or a classifier also decide; else ignored.
            who: The user or tenant of `render`.

        Raises ReleaseError if the inputs are needed and missing, or not those of the prompt.
        """
        from agent.prompt.label_calibration import tokens_of  # takes time, and not all who render parse

        tokens, row = tokens_of(logprobs), None
        if tokens and (what := self.release.reads_input):
            if inputs is None:
                raise ReleaseError(
                    f"cannot parse a reply of {self.name!r} without its inputs, as {what}; pass inputs={{...}}"
                )
            user, _, given = self._named(who, None, inputs, "parse a reply of")
            row = self._row(user, None, given)
        return self.release.read(reply, tokens, row)

    def complete(
        self,
        lm: LM | None = None,
        /,
        *,
        who: str | None = None,
        vector: Sequence[float] | str | None = None,
        **fields: Input,
    ) -> Prediction:
        """Render, call the model once and parse. Inside an event loop, await `acomplete` instead."""
        from agent.release.completion import blocking

        user, given, inputs = self._named(who, vector, fields)  # wrong fields raise before anything starts
        return blocking(self.name, lambda: self._complete(lm, user, given, inputs))

    async def acomplete(
        self,
        lm: LM | None = None,
        /,
        *,
        who: str | None = None,
        vector: Sequence[float] | str | None = None,
        **fields: Input,
    ) -> Prediction:
        """Render, call the model once and parse, inside an event loop; arguments as of `render`.

        A parameter that the model refuses is dropped in another attempt. The call counts in no budget and no ledger. If
        examples are picked by a provider's vectors, the provider is asked for that of the input first, unless it is
        given. `lm`: a model to use and keep open; without it one is made and closed.

        Raises:
            ModelError: The call failed; its `retry` says whether to try again.
            ReleaseError: The fields are not the inputs, or a parameter cannot be sent.
        """
        return await self._complete(lm, *self._named(who, vector, fields))

    async def _complete(self, lm: LM | None, who: str | None, vector: Any, inputs: dict[str, str]) -> Prediction:
        from agent.release.completion import acomplete, input_vector

        if self.embeddings and vector is None:
            vector = await input_vector(self.embeddings, self.embedded_text(**inputs))
        return await acomplete(self.release, self._row(who, vector, inputs), lm)


def load_prompt(
    path: str | os.PathLike[str],
    *,
    verify: bool = True,
    root: str | os.PathLike[str] | None = None,
    fallback: str | os.PathLike[str] | None = None,
    unit: str | None = None,
    remembered: str | os.PathLike[str] | None = None,
) -> Prompt:
    """Load a released prompt.

    Args:
        path: "NAME@ALIAS", "NAME@VERSION", or the path of a prompt.md, a messages.json or a folder with the first.
        verify: Refuse a file whose content does not match its version.
        root: The folder of the releases; default: PROMPTASSAY_RELEASES, else runs/releases.
        fallback: Path of a prompt that ships with your program, loaded if the other cannot be; this is logged and kept
            as `fallback_reason`.
        unit: A text that assigns an arm of an A/B alias. A wrong type, or none for an A/B alias, is a bug in the
            program and raises even with a fallback.
        remembered: The folder of the examples that users confirm (`Prompt.remember`). Default: `remembered` next to the
            prompt's file. Use one folder for all versions of a name to keep them when the alias moves.

    Raises:
        ReleaseError: The file cannot be read, is not a release, or was edited; one line with the file (and line if
            known). For a version that is no prompt the message says what loads it.
    """
    release, place, how = located(
        path,
        partial(read_release, verify=verify),
        ("p", PROMPT_FILE),
        root=root,
        fallback=fallback,
        unit=unit,
        verify=verify,
    )
    if remembered is None:
        file = Path(place)
        remembered = (file if file.is_dir() else file.parent) / REMEMBERED
    return Prompt(release, **how, remembered=Path(remembered))


def located(
    path: str | os.PathLike[str],
    read: Callable[[Any], R],
    form: tuple[str, str],
    *,
    root: str | os.PathLike[str] | None,
    fallback: str | os.PathLike[str] | None,
    unit: str | None,
    verify: bool = True,
) -> tuple[R, str | os.PathLike[str], dict[str, str]]:
    """Return a release, its file or folder, and how it was found.

    How: `alias`, `arm` and `fallback_reason` of a `Prompt`. `read` takes a path or folder; `form` is the first letter
    of the versions that it reads, and their file.
    """
    if unit is not None and not isinstance(unit, str):
        raise ReleaseError(f"unit={unit!r:.60} is {type(unit).__name__}; give the id of the unit as text")
    reference = Reference.of(path) if isinstance(path, str) else None
    try:
        with only_release_errors(path):
            if reference is None:
                return read(path), path, {}
            resolved = resolve(releases_root(root), reference, unit)
            folder = os.path.join(releases_root(root), reference.name, resolved.version)
            release = _version_in(Path(folder), reference, resolved, read, form, verify)
            return release, folder, {"alias": resolved.alias, "arm": resolved.arm}
    except NeedsUnit:  # a mistake in the program, so no fallback
        raise
    except ReleaseError as error:
        if fallback is None:
            raise
        return _fall_back(fallback, reference, str(error), read), fallback, {"fallback_reason": str(error)}


def _version_in(
    folder: Path,
    reference: Reference,
    resolved: ResolvedVersion,
    read: Callable[[Any], R],
    form: tuple[str, str],
    verify: bool,
) -> R:
    tag, file = form
    if not resolved.version.startswith(tag):
        from agent.release.versions import how_to_load

        named = Reference(reference.name, PRODUCTION) if resolved.arm else reference  # the candidate's arm is a prompt
        raise ReleaseError(how_to_load(folder, str(named), tag))
    release = read(folder / file)
    if release.name != reference.name or (verify and release.version != resolved.version):
        raise ReleaseError(
            f"{folder}: holds {release.name} {release.version}, not {reference.name} {resolved.version}; restore the "
            "folder from a copy, or promote the run again"
        )
    return release


def _fall_back(path: str | os.PathLike[str], reference: Reference | None, why: str, read: Callable[[Any], R]) -> R:
    import logging

    try:
        release = read(path)
    except ReleaseError as error:
        raise ReleaseError(f"{error}; it is the fallback for: {why}") from None
    if reference is not None and release.name != reference.name:
        raise ReleaseError(f"{path}: the fallback is of {release.name!r}, not of {reference.name!r}; {why}")
    logging.getLogger("agent.release").warning("loaded the fallback %s: %s", path, why)
    return release
