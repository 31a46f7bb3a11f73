"""The kind `dspy`: a user's DSPy program; its predictors' instructions and examples are optimized.

Every predictor is a text with examples. Every call goes through the gateway, with the adapter that DSPy itself would
use; the program's code runs in this process.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dspy
from dspy.adapters import ChatAdapter
from dspy.utils.exceptions import AdapterParseError

from agent.errors import ReleaseError
from agent.programs.kinds import ReleaseSpec, UserKind, UserProgram, read_fields
from agent.prompt.named_texts import as_texts
from agent.prompt.prompt_candidate import PromptCandidate, as_prompt
from agent.prompt.render import dspy_signature
from agent.prompt.reply_parser import parse_reply
from agent.prompt.template import label_text
from agent.safe_file import new_files
from agent.search.context import SearchContext
from agent.search.dspy.bridge import Bridge, DspyForm, Meter, TriedProgram
from agent.search.dspy.strategies import state_of
from agent.search.registered import DSPY
from agent.types import (
    LM,
    Call,
    Candidate,
    Completion,
    Demo,
    Example,
    Prediction,
    Proposal,
    Signature,
    Task,
    canonical,
    content_id,
)

if TYPE_CHECKING:
    from agent.programs.prompt import PromptProgram


def read(prediction: Any, signature: Signature) -> Prediction:
    if not isinstance(prediction, dspy.Prediction):
        return Prediction({}, str(prediction), f"the program gave a {type(prediction).__name__}, not a dspy.Prediction")
    return read_fields(prediction.get, signature, "prediction")


class DspyProgram(UserKind):
    kind = "dspy"
    what, usual, file = "a DSPy program", DSPY[0], "program.json"

    def __init__(self, task: Task, lm: LM, own: UserProgram, made: Any) -> None:
        predictors = made.named_predictors()
        if not predictors:
            raise own.wrong(f"{own.factory}() has no predictor, so there is nothing to optimize")
        for part, predictor in predictors:
            if predictor.lm is not None:
                raise own.wrong(f"{part} sets its own model; leave the model to the run")
        own_state = state_of(made)
        super().__init__(task, lm, own_state.texts, own_state.examples)
        self._own = made
        self.calls = len(predictors)  # where each makes one
        self._modules: dict[str, Any] = {}

    async def answered(
        self, candidate: Candidate, example: Example, call: Call, bridge: Bridge, repeat: int
    ) -> Prediction:
        lm = bridge.lm(self._lm, "model", max_tokens=self.max_tokens(candidate))
        if candidate.id not in self._modules:
            self._modules[candidate.id] = self._fresh(candidate)
        with dspy.context(lm=lm.copy(rollout_id=repeat) if repeat else lm, track_usage=False):
            return read(await bridge.run(self._modules[candidate.id], **example.inputs), self.task.signature)

    def _fresh(self, candidate: Candidate) -> Any:
        program, parts = self._own.deepcopy(), as_texts(candidate)
        for name, predictor in program.named_predictors():
            predictor.signature = predictor.signature.with_instructions(parts.texts[name])
            predictor.demos = deepcopy(parts.examples[name])
        return program

    def unreadable(self, problem: Exception) -> str | None:
        return problem.lm_response if isinstance(problem, AdapterParseError) else None

    def for_dspy(self, context: SearchContext) -> DspyForm:
        def proposal(method: str, tried: TriedProgram) -> Proposal:
            place = {"layout": "program", "instruction": method, "demos": str(tried.state.n_examples)}
            return Proposal(tried.state, place, method, None, tried.reason(method))

        def predicted(prediction: Any) -> Prediction:
            return read(prediction, self.task.signature)

        max_tokens = self.max_tokens(context.baseline)
        return DspyForm(self._meter, self._fresh(self.baseline()), {}, max_tokens, predicted, proposal)

    def saved(self, candidate: Candidate, path: Path, spec: ReleaseSpec) -> tuple[str, Callable[[], None]]:
        def loaded(path: Path) -> Any:
            program = self._own.deepcopy()
            program.load(str(path))
            return program

        with new_files(path.parent) as folder:
            self._fresh(candidate).save(str(folder / path.name))
            if state_of(loaded(folder / path.name)) != candidate:
                raise ReleaseError(f"{path}: the program loads a different state than was written")

        def load() -> None:
            self._modules[candidate.id] = loaded(path)

        return content_id("v", candidate.parts()), load


# -- prompts for DSPy's optimizers -------------------------------------------------------------------------------------


def predict_form(program: PromptProgram, context: SearchContext) -> DspyForm:
    task, signature = program.task, program.task.signature
    plain = replace(as_prompt(program.baseline()), format="dspy-chat")
    meter = Meter(context.gateway)

    def paid(candidate: Candidate, row: Example) -> Completion | None:
        return meter.reply(context.target, program.request(candidate, row))

    def read(prediction: Any) -> Prediction:
        texts = {field: prediction[field.name] for field in signature.outputs}
        fields = {f.name: json.loads(text) if f.type in ("number", "json") else text for f, text in texts.items()}
        return Prediction(fields, canonical(fields))

    def proposal(method: str, tried: TriedProgram) -> Proposal:
        (instruction,), (demos,) = tried.state.texts.values(), tried.state.examples.values()
        train = {canonical(dict(row.inputs)): row for row in reversed(task.train)}
        ours = tuple(_demo(signature, train, demo) for demo in demos)
        candidate = PromptCandidate("few-shot" if ours else "zero-shot", "dspy-chat", instruction, demos=ours)
        place = {"layout": f"{candidate.technique}/dspy-chat", "instruction": method, "trial": str(tried.number)}
        return Proposal(candidate, place, method, None, tried.reason(method))

    module = dspy.Predict(dspy_signature(signature, plain.instruction.strip()))
    return DspyForm(meter, module, {"adapter": _reader(signature)}, program.max_tokens(plain), read, proposal, paid)


def _demo(signature: Signature, train: dict[str, Example], demo: dict[str, Any]) -> Demo:
    inputs = {field.name: demo[field.name] for field in signature.inputs}
    outputs = {field.name: demo[field.name] for field in signature.outputs}
    row = train[canonical(inputs)]
    return Demo(row.id, inputs, outputs, source="target" if demo.get("augmented") else "label")


def _reader(own: Signature) -> Any:
    class Reader(ChatAdapter):  # type: ignore[misc]
        """DSPy's chat layout, read as the run reads it. A single-field reply without its header is that field."""

        def parse(self, signature: Any, completion: str) -> dict[str, Any]:
            names = [field.name for field in own.inputs], [field.name for field in own.outputs]
            if (list(signature.input_fields), list(signature.output_fields)) == names:
                reply = parse_reply(completion, own.outputs)
                if reply.error:
                    raise AdapterParseError("dspy-chat", signature, completion, reply.error)
                return {name: label_text(value) for name, value in reply.fields.items()}
            try:
                return dict(super().parse(signature, completion))
            except AdapterParseError:
                if len(signature.output_fields) != 1 or not completion.strip():
                    raise
                return {next(iter(signature.output_fields)): completion.split("[[ ##")[0].strip() or completion}

    return Reader(use_json_adapter_fallback=False)
