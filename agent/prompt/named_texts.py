"""The candidate of every program that is not one prompt: texts by name, with few-shot examples of some."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from agent.types import Candidate, Demo


@dataclass(frozen=True, slots=True)
class TextsCandidate(Candidate):
    """Texts by name. `examples`: demos, or JSON objects, by the name of their text; without an entry the user's own."""

    kind: str  # type: ignore[misc]  # that of the program: its kinds differ in how they run, not in this
    texts: Mapping[str, str]
    examples: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def parts(self) -> dict[str, Any]:
        examples = {
            name: [each.as_dict() if isinstance(each, Demo) else each for each in found]
            for name, found in self.examples.items()
        }
        return {"texts": dict(self.texts), **({"examples": examples} if examples else {})}

    @property
    def n_examples(self) -> int:
        return sum(map(len, self.examples.values()))

    def with_text(self, name: str, text: str) -> TextsCandidate:
        return replace(self, texts={**self.texts, name: text})

    def with_examples(self, name: str, examples: Sequence[Any]) -> TextsCandidate:
        return replace(self, examples={**self.examples, name: examples})

    def changed(self, baseline: TextsCandidate) -> tuple[str, ...]:
        """Return the names of the texts that differ, in words or examples."""

        def is_other(name: str) -> bool:
            own, theirs = self.examples.get(name), baseline.examples.get(name)
            return self.texts[name] != baseline.texts.get(name) or own != theirs

        return tuple(filter(is_other, self.texts))

    def ablations(self, baseline: TextsCandidate) -> dict[str, Candidate]:
        """Return one candidate with each text, and one with the examples, of the baseline."""
        own = baseline.texts.items()
        made: dict[str, Candidate] = {f"text {n}": self.with_text(n, text) for n, text in own if text != self.texts[n]}
        if self.examples != baseline.examples:
            made["examples"] = replace(self, examples=baseline.examples)
        return made


def as_texts(candidate: Candidate) -> TextsCandidate:
    assert isinstance(candidate, TextsCandidate)
    return candidate


def why_unfit(name: str, own: str, text: str, holes: Callable[[str], Counter[str]]) -> str:
    """Return why `text` cannot replace the user's `own`, or "". `holes`: its placeholders; ValueError if unreadable."""
    if own.strip() and not text.strip():
        return f"the text {name} is empty"
    try:
        before, now = holes(own), holes(text)
    except ValueError as error:
        return f"the text {name} cannot be filled in: {error}"
    if lost := before - now:
        return f"the text {name} lost the placeholder {min(lost)}"
    if new := now - before:
        return f"the text {name} has a strange placeholder {min(new)}"
    return ""
