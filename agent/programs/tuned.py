"""The kind `tuned`: a prompt that a local model answers with a LoRA adapter, or a copy of it that was trained whole.

One engine serves the base and all its adapters. A search makes none: whoever trains them gives them, and this kind
runs, shows and releases prompts with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from agent.errors import InputError
from agent.models.adapters import Adapter
from agent.programs.moves.prompt_moves import PromptMoves
from agent.programs.prompt import PromptProgram
from agent.prompt.prompt_candidate import PromptCandidate, TunedCandidate
from agent.search.context import SearchContext
from agent.search.dspy.strategies import DspyForm
from agent.types import LM, Call, Candidate, Completion, Request, Task


class AdaptedModel(LM, Protocol):
    """A local model, with the adapter that its calls go through."""

    @property
    def adapter(self) -> Adapter | None: ...


def adapter_of(candidate: Candidate) -> str:
    """The SHA-256 of the adapter that answers a candidate; "" without one."""
    return candidate.adapter if isinstance(candidate, TunedCandidate) else ""


class TunedProgram(PromptProgram):
    """Prompts for one task, answered by a base (`lm`, which counts tokens) with one of several adapters.

    `models`: the base with each adapter, named `local/BASE+ADAPTER.gguf`; whoever makes them closes them. `copies`:
    models that were trained whole, by the SHA-256 of their files. Raises InputError for a model without an adapter.
    """

    kind = TunedCandidate.kind

    def __init__(
        self, task: Task, lm: LM, models: Sequence[AdaptedModel], copies: Mapping[str, LM] = MappingProxyType({})
    ) -> None:
        super().__init__(task, lm)
        if plain := [model.name for model in models if model.adapter is None]:
            raise InputError(f"{', '.join(plain)}: no adapter; name it as local/BASE+ADAPTER.gguf")
        self._models: dict[str, LM] = {model.adapter.sha256: model for model in models if model.adapter is not None}
        self._models |= copies

    def candidates(self, prompt: PromptCandidate) -> list[TunedCandidate]:
        """A prompt with each of the adapters, in their order."""
        return [TunedCandidate.of(prompt, adapter) for adapter in self._models]

    def model_of(self, candidate: Candidate) -> LM:
        assert isinstance(candidate, TunedCandidate)
        return self._models[candidate.adapter]

    def check(self, candidate: Candidate) -> str:
        if not isinstance(candidate, TunedCandidate) or candidate.adapter not in self._models:
            return "its adapter is none of those that were given"
        return super().check(candidate)

    async def asked(self, candidate: Candidate, request: Request, call: Call) -> Completion:
        return await call(request, self.model_of(candidate))

    def moves(self, context: SearchContext) -> PromptMoves:
        raise NotImplementedError("TunedProgram: a search makes no candidates with adapters")

    def for_dspy(self, context: SearchContext) -> DspyForm:
        raise NotImplementedError("TunedProgram: DSPy's optimizers know no adapters")
