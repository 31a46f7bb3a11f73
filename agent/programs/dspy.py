"""The kind `dspy`: a user's DSPy program; its predictors' instructions and examples are optimized.

A candidate is the program's state as JSON: {predictor: {instruction, demos}}. Every call goes through the gateway, with
the adapter that DSPy itself would use; the program's code runs in this process.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from agent.errors import ReleaseError
from agent.programs.kinds import ReleaseSpec, UserKind, UserProgram, program, read_fields, refuse_pairwise
from agent.prompt.techniques import forbidden_in
from agent.safe_file import new_files
from agent.search.context import SearchContext
from agent.search.dspy.bridge import Bridge
from agent.search.dspy.strategies import DspyForm, TriedProgram, state_of
from agent.search.registered import DSPY
from agent.types import (
    LM,
    Call,
    Candidate,
    Example,
    Prediction,
    Proposal,
    Signature,
    Summary,
    Task,
    content_id,
)


def is_dspy(made: Any) -> bool:
    """Tell whether the user's factory gave a DSPy program; it cannot without DSPy loaded."""
    dspy = sys.modules.get("dspy")
    return dspy is not None and isinstance(made, dspy.Module)


def written(state: Mapping[str, Any]) -> str:
    """Serialize a state; equal states are equal texts. Example values that are no JSON become text."""
    parts = {name: {"instruction": words, "demos": demos} for name, (words, demos) in state.items()}
    return json.dumps(parts, ensure_ascii=False, sort_keys=True, default=str)


def count_demos(state: str) -> int:
    return sum(len(part["demos"]) for part in json.loads(state).values())


def read(prediction: Any, signature: Signature) -> Prediction:
    import dspy

    if not isinstance(prediction, dspy.Prediction):
        return Prediction({}, str(prediction), f"the program gave a {type(prediction).__name__}, not a dspy.Prediction")
    return read_fields(prediction.get, signature, "prediction")


@dataclass(frozen=True, slots=True)
class DspyCandidate(Candidate):
    kind: ClassVar[str] = "dspy"

    state: str

    def parts(self) -> dict[str, Any]:
        return {"state": self.state}


@program("dspy", about="Your own DSPy program.", takes="a dspy.Module", claims=is_dspy)
class DspyProgram(UserKind):
    kind = DspyCandidate.kind
    word, takes, usual, has_moves, file = "program", "a DSPy program", DSPY[0], False, "program.json"

    def __init__(self, task: Task, lm: LM, own: UserProgram, made: Any) -> None:
        """Raise InputError if `made`, the result of `own`, cannot be optimized."""
        super().__init__(task, lm)
        predictors = made.named_predictors()
        if not predictors:
            raise own.wrong(f"{own.factory}() has no predictor, so there is nothing to optimize")
        for part, predictor in predictors:
            if predictor.lm is not None:
                raise own.wrong(f"{part} sets its own model; leave the model to the run")
        self._own, self._state = made, written(state_of(made))
        self.task = replace(task, instruction=self._state)
        self.calls = len(predictors)  # where each makes one
        self._modules: dict[str, Any] = {}

    async def answered(
        self, candidate: Candidate, example: Example, call: Call, bridge: Bridge, repeat: int
    ) -> Prediction:
        import dspy

        lm = bridge.lm(self._lm, "model", max_tokens=self.max_tokens(candidate))
        if candidate.id not in self._modules:
            self._modules[candidate.id] = self._fresh(as_dspy(candidate).state)
        with dspy.context(lm=lm.copy(rollout_id=repeat) if repeat else lm, track_usage=False):
            return read(await bridge.run(self._modules[candidate.id], **example.inputs), self.task.signature)

    def _fresh(self, state: str) -> Any:
        program, parts = self._own.deepcopy(), json.loads(state)
        for name, predictor in program.named_predictors():
            predictor.signature = predictor.signature.with_instructions(parts[name]["instruction"])
            predictor.demos = parts[name]["demos"]
        return program

    def unreadable(self, problem: Exception) -> str | None:
        from dspy.utils.exceptions import AdapterParseError

        return problem.lm_response if isinstance(problem, AdapterParseError) else None

    def baseline(self) -> Candidate:
        return DspyCandidate(self._state)

    def check(self, candidate: Candidate) -> str:
        return forbidden_in(as_dspy(candidate).state, self.task)

    def shown(self, candidate: Candidate) -> Summary:
        return self.shown_as(candidate, as_dspy(candidate).state)

    def prompts_of(self, candidate: Candidate) -> Iterable[tuple[str, str, Sequence[Any]]]:
        parts = json.loads(as_dspy(candidate).state)
        return [(name, part["instruction"], part["demos"]) for name, part in parts.items()]

    def prompt_tokens(self, candidate: Candidate) -> int:
        return self._lm.count_tokens(as_dspy(candidate).state)

    def strategy(self, name: str | None) -> str:
        name = super().strategy(name)
        refuse_pairwise(self.task, name)
        return name

    def for_dspy(self, context: SearchContext) -> DspyForm:
        return DspyForm(
            self._meter,
            self._fresh(self._state),
            {},
            self.max_tokens(context.baseline),
            lambda prediction: read(prediction, self.task.signature),
            _proposal,
        )

    def saved(self, candidate: Candidate, path: Path, spec: ReleaseSpec) -> tuple[str, Callable[[], None]]:
        state = as_dspy(candidate).state

        def loaded(path: Path) -> Any:
            program = self._own.deepcopy()
            program.load(str(path))
            return program

        with new_files(path.parent) as folder:
            self._fresh(state).save(str(folder / path.name))
            if written(state_of(loaded(folder / path.name))) != state:
                raise ReleaseError(f"{path}: the program loads a different state than was written")

        def load() -> None:
            self._modules[candidate.id] = loaded(path)

        return content_id("v", state), load


def as_dspy(candidate: Candidate) -> DspyCandidate:
    assert isinstance(candidate, DspyCandidate)
    return candidate


def _proposal(method: str, tried: TriedProgram) -> Proposal:
    candidate = DspyCandidate(written(tried.state))
    reason = f"program {tried.number} of {method}: {tried.score:.1f} on {tried.rows} rows"
    place = {"layout": "program", "instruction": method, "demos": str(count_demos(candidate.state))}
    return Proposal(candidate, place, method, None, reason)
