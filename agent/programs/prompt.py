"""The kind `prompt`: an instruction, examples, a technique and a layout, answered by one call.

It is rendered into a template once and filled with each row; layout and technique decide how the reply is read.
"""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from typing import Any

from agent.errors import InputError
from agent.extras import require
from agent.programs.kinds import Kind, ReleaseSpec, WrittenRelease, refuse_pairwise
from agent.programs.moves.prompt_moves import CandidateGenerator, PromptMoves
from agent.programs.moves.prompt_parts import features_of, leave_one_out
from agent.prompt.bound import BoundPrompt
from agent.prompt.calibration import LabelCalibration, logprobs_for
from agent.prompt.parts.adapter import released_model
from agent.prompt.parts.calibration import Opinion, calibrated_by, trained_opinions
from agent.prompt.parts.kind import TaskParts
from agent.prompt.parts.kinds import bound, held
from agent.prompt.parts.part import PromptPart, Row
from agent.prompt.parts.passages import PassageLibrary
from agent.prompt.parts.picks import PickedRows
from agent.prompt.prompt_candidate import PromptCandidate, as_prompt, baseline
from agent.prompt.render import dspy_signature, template
from agent.prompt.reply_parser import parse_reply
from agent.prompt.techniques import answers_last, labels_first, reasons_first, why_rejected
from agent.prompt.template import fill_picked, label_text, marks
from agent.release.export import write_release
from agent.release.prompt_file import PromptRelease
from agent.search.context import SearchContext
from agent.search.dspy.bridge import Meter
from agent.search.dspy.strategies import DspyForm, TriedProgram
from agent.search.effects import Feature
from agent.search.program import Ablation, Traits
from agent.search.registered import DEFAULT, DSPY
from agent.types import (
    LM,
    Call,
    Candidate,
    Completion,
    Demo,
    Example,
    Message,
    Prediction,
    Proposal,
    Request,
    Signature,
    Summary,
    Task,
    canonical,
    scores_labels,
)

SAMPLE = 50
"""Train rows for the mean length of the parts that vary by row."""
OF_PREDICT = ("config", "demos", "lm", "signature")
"""Arguments that `dspy.Predict` reserves."""
REASONING_TOKENS = 180
DSPY_TOKENS = 16  # markers around each field of a reply
REPLY_SLACK = 4
HOSTED_SLACK = 60  # a hosted model may say a sentence around the answer; it ends by itself


@dataclass(frozen=True, slots=True)
class ReplyCap:
    """The most tokens of a reply: of the longest right answer in the model's own tokens, and `more` to think."""

    answer: int
    more: int = 0

    @staticmethod
    def of(task: Task, lm: LM) -> ReplyCap:
        if task.max_tokens is not None:
            return ReplyCap(task.max_tokens, task.room(0))
        outputs = task.signature.outputs
        longest = 0
        for field in outputs:
            texts = set(field.choices) or {label_text(example.labels[field.name]) for example in task.train}
            widest = sorted(texts, key=len)[-5:]  # the longest in characters hold the longest in tokens
            tokens = max(lm.count_tokens(text) for text in widest)
            longest += tokens if field.choices else int(tokens * 1.5)
        slack = REPLY_SLACK * len(outputs) if lm.concurrency is not None else HOSTED_SLACK
        return ReplyCap(longest + slack + (0 if len(outputs) == 1 else 4 * len(outputs)), task.room(0))

    def tokens(self, candidate: PromptCandidate, n_outputs: int) -> int:
        extra = self.more + (REASONING_TOKENS if reasons_first(candidate) else 0)
        if candidate.format.startswith("dspy-"):
            extra += DSPY_TOKENS * (n_outputs + 1)
        return self.answer + extra


class PromptProgram(Kind):
    """Prompts for one task and one model."""

    kind = PromptCandidate.kind
    calls = 1
    is_fixed = True

    def __init__(self, task: Task, lm: LM) -> None:
        self.task = task
        self._lm = lm
        self._bound: dict[str, BoundPrompt] = {}
        self._sizes: dict[tuple[str, bool], int] = {}
        self.shared = TaskParts(task)

    @property
    def pool(self) -> PickedRows:
        return self.shared.of(PickedRows)

    @property
    def library(self) -> PassageLibrary:
        return self.shared.of(PassageLibrary)

    def bound(self, candidate: Candidate) -> BoundPrompt:
        """Return the runnable form of the candidate, cached."""
        if candidate.id not in self._bound:
            prompt, signature = as_prompt(candidate), self.task.signature
            self._bound[candidate.id] = BoundPrompt(
                name=self.task.name,
                model=self.model_of(candidate).name,
                messages=template(prompt, signature),
                inputs=tuple(field.name for field in signature.inputs),
                outputs=signature.outputs,
                format=prompt.format,
                reasoning=answers_last(prompt),
                **bound(prompt, self.shared),
            )
        return self._bound[candidate.id]

    def request(self, candidate: Candidate, example: Example, repeat: int = 0, logprobs: int = 0) -> Request:
        return self._request(as_prompt(candidate), self._row(example), repeat, logprobs)

    def _row(self, example: Example) -> Row:
        return Row(example.inputs, self.task.signature.compared, example.id)

    def _request(self, prompt: PromptCandidate, row: Row, repeat: int, logprobs: int) -> Request:
        outputs = self.task.signature.outputs
        is_scored = logprobs > 0 and labels_first(prompt, outputs) and scores_labels(self.model_of(prompt))
        return self.bound(prompt).request(
            row,
            max_tokens=self.max_tokens(prompt),
            logprobs=0 if reasons_first(prompt) else logprobs,
            repeat=repeat,
            labels=outputs[0].choices if is_scored else (),
        )

    async def run(self, candidate: Candidate, example: Example, call: Call, repeat: int = 0) -> Prediction:
        prompt, row = as_prompt(candidate), self._row(example)
        completion = await self.asked(candidate, self._request(prompt, row, repeat, call.logprobs), call)
        if not labels_first(prompt, self.task.signature.outputs):
            completion = replace(completion, logprobs=())
        return await self.bound(candidate).read_aside(completion, row)

    def model_of(self, candidate: Candidate) -> LM:
        return self._lm

    async def asked(self, candidate: Candidate, request: Request, call: Call) -> Completion:
        return await call(request)

    @cached_property
    def _cap(self) -> ReplyCap:
        return ReplyCap.of(self.task, self._lm)

    def max_tokens(self, candidate: Candidate) -> int:
        return self._cap.tokens(as_prompt(candidate), len(self.task.signature.outputs))

    def template(self, candidate: Candidate) -> tuple[Message, ...]:
        return template(as_prompt(candidate), self.task.signature)

    def baseline(self) -> Candidate:
        return baseline(self.task, self.library.usual())

    def check(self, candidate: Candidate) -> str:
        prompt = as_prompt(candidate)
        others = (kind.why_other(prompt, self.shared) for kind, _ in held(prompt))
        return next(filter(None, others), "") or why_rejected(prompt, self.task)

    def place(self, candidate: Candidate) -> dict[str, str]:
        return CandidateGenerator(self.task, random.Random(0), self.shared).place(as_prompt(candidate))

    def shown(self, candidate: Candidate) -> Summary:
        return as_prompt(candidate).shown(self.task.tools)

    def prompt_tokens(self, candidate: Candidate) -> int:
        return self._size(candidate, most=False)

    def most_prompt_tokens(self, candidate: Candidate) -> int:
        return self._size(candidate, most=True)

    def _size(self, candidate: Candidate, most: bool) -> int:
        if (candidate.id, most) not in self._sizes:
            prompt, count, of = self.bound(candidate), self._lm.count_tokens, as_prompt(candidate)
            empty, messages = dict.fromkeys(of.marks("context"), ""), prompt.messages
            if empty or of.marks("examples"):
                messages = fill_picked(messages, empty, ())
            rows = [self._row(row) for row in self.task.train[:SAMPLE]]
            size = sum(count(message.content) for message in messages)
            self._sizes[candidate.id, most] = size + sum(part.size(count, rows, most) for part in prompt.parts)
        return self._sizes[candidate.id, most]

    def traits(self, candidate: Candidate) -> PromptTraits:
        return PromptTraits(as_prompt(candidate), self)

    def strategy(self, name: str | None) -> str:
        task, name = self.task, name or DEFAULT
        if name not in DSPY:
            return name
        require("dspy", f"--strategy {name}")
        refuse_pairwise(task, name, f", or use --strategy {DEFAULT}")
        names = [field.name for field in task.signature.inputs]
        taken, why = [one for one in names if one in OF_PREDICT], ""
        if taken:
            why = f"DSPy reserves the input name {taken[0]}; rename it, or"
        elif task.signature.conversation:
            why = f"DSPy sends a conversation as one text, but {task.name} sends messages;"
        elif task.knowledge is not None:
            why = f"DSPy's optimizers do not retrieve passages, but {task.name} has [knowledge];"
        elif marks(task.instruction, names):
            why = f"DSPy lays out the inputs, but the instruction of {task.name} places {{{{{names[0]}}}}}; "
            why += "write it without, or"
        if why:
            raise InputError(f"--strategy {name}: {why} use --strategy {DEFAULT}")
        return name

    def moves(self, context: SearchContext) -> PromptMoves:
        return PromptMoves(self.task, context, self.shared)

    def for_dspy(self, context: SearchContext) -> DspyForm:
        return predict_form(self, context)

    def _label_parameters(self) -> dict[str, Any]:
        labels = self.task.signature.outputs[0].choices
        return {"logprobs": logprobs_for(labels), "labels": list(labels)} if scores_labels(self._lm) else {}

    async def write(self, candidate: Candidate, spec: ReleaseSpec) -> WrittenRelease:
        result, task, prompt = spec.result, self.task, as_prompt(candidate)
        abstain = result.calibration.abstain if result.calibration and prompt.id == result.winner.candidate_id else None
        abstaining = {"abstain_below": abstain.below} if abstain and abstain.below is not None else {}
        side = result.winner if prompt.id == result.winner.candidate_id else result.baseline
        parameters = {**(self._label_parameters() if abstaining else {}), **spec.parameters}
        provenance = {
            "run_id": result.run_id,
            "trial": spec.trial,
            "candidate_id": prompt.id,
            "decision": result.decision,
            "test": side.test,
            "baseline_test": result.baseline.test,
            "lift": result.lift.to_json(),
            "hashes": dict(task.hashes),
            **abstaining,
            **spec.origin,
            "ledger_head": result.ledger_head,
        }
        release = self.release(candidate, parameters, provenance)
        return WrittenRelease(write_release(release, spec.folder), release.version)

    def release(
        self, candidate: Candidate, parameters: Mapping[str, Any], provenance: Mapping[str, Any]
    ) -> PromptRelease:
        """Return the release form of the candidate, with the adapter of its model.

        `parameters`: those that it was scored with. `provenance`: JSON-ready.
        """
        prompt, (model, adapter) = self.bound(candidate), released_model(self.model_of(candidate).name)
        fields = {each.name: getattr(prompt, each.name) for each in dataclasses.fields(BoundPrompt) if each.init}
        fields |= {name: part.whole() for name, part in fields.items() if isinstance(part, PromptPart)}
        fields |= {"model": model, "adapter": adapter, "parameters": dict(parameters), "provenance": dict(provenance)}
        return PromptRelease(**fields)


class PromptTraits(Traits):
    """The answers of a prompt's parts."""

    def __init__(self, prompt: PromptCandidate, program: PromptProgram) -> None:
        self._prompt, self._program = prompt, program

    def features(self) -> Mapping[Feature, float]:
        return features_of(self._prompt)

    def ablations(self, baseline: Candidate) -> list[Ablation]:
        return leave_one_out(self._prompt, as_prompt(baseline))

    def documents(self, example: Example) -> tuple[str, ...] | None:
        row = Row(example.inputs, self._program.task.signature.compared)
        found = (part.documents(row) for part in self._program.bound(self._prompt).parts)
        return next((files for files in found if files is not None), None)

    def calibrated(self, calibration: LabelCalibration) -> Candidate | None:
        fits = labels_first(self._prompt, self._program.task.signature.outputs)
        return calibrated_by(self._prompt, calibration) if fits else None

    def voters(self) -> list[Opinion]:
        return [found for kind, _ in held(self._prompt) if (found := kind.opinion(self._program.shared))]

    def opinions(self) -> list[Opinion]:
        return [*self.voters(), *trained_opinions(self._program.shared)]


def predict_form(program: PromptProgram, context: SearchContext) -> DspyForm:
    import dspy

    signature = program.task.signature
    plain = replace(as_prompt(program.baseline()), format="dspy-chat")
    meter = Meter(context.gateway)

    def paid(candidate: Candidate, row: Example) -> Completion | None:
        return meter.reply(context.target, program.request(candidate, row))

    return DspyForm(
        meter,
        dspy.Predict(dspy_signature(signature, plain.instruction.strip())),
        {"adapter": reader(signature)},
        program.max_tokens(plain),
        partial(_prediction, signature=signature),
        partial(_proposal, program.task),
        paid,
    )


def _proposal(task: Task, method: str, tried: TriedProgram) -> Proposal:
    ((instruction, demos),) = tried.state.values()
    train = {canonical(dict(row.inputs)): row for row in reversed(task.train)}
    ours = tuple(_demo(task.signature, train, demo) for demo in demos)
    candidate = PromptCandidate("few-shot" if ours else "zero-shot", "dspy-chat", instruction, demos=ours)
    place = {"layout": f"{candidate.technique}/dspy-chat", "instruction": method, "trial": str(tried.number)}
    reason = f"program {tried.number} of {method}: {tried.score:.1f} on {tried.rows} rows"
    return Proposal(candidate, place, method, None, reason)


def _demo(signature: Signature, train: dict[str, Example], demo: dict[str, Any]) -> Demo:
    inputs = {field.name: demo[field.name] for field in signature.inputs}
    outputs = {field.name: demo[field.name] for field in signature.outputs}
    row = train[canonical(inputs)]
    return Demo(row.id, inputs, outputs, source="target" if demo.get("augmented") else "label")


def _prediction(prediction: Any, signature: Signature) -> Prediction:
    texts = {field: prediction[field.name] for field in signature.outputs}
    fields = {f.name: json.loads(text) if f.type in ("number", "json") else text for f, text in texts.items()}
    return Prediction(fields, canonical(fields))


@cache
def _reader_class() -> Any:
    from dspy.adapters import ChatAdapter
    from dspy.utils.exceptions import AdapterParseError

    class Reader(ChatAdapter):  # type: ignore[misc]
        """DSPy's chat layout, read as the run reads it. A single-field reply without its header is that field."""

        def __init__(self, signature: Signature) -> None:
            super().__init__(use_json_adapter_fallback=False)
            self._own = signature

        def parse(self, signature: Any, completion: str) -> dict[str, Any]:
            names = [field.name for field in self._own.inputs], [field.name for field in self._own.outputs]
            if (list(signature.input_fields), list(signature.output_fields)) == names:
                reply = parse_reply(completion, self._own.outputs)
                if reply.error:
                    raise AdapterParseError("dspy-chat", signature, completion, reply.error)
                return {name: label_text(value) for name, value in reply.fields.items()}
            try:
                return dict(super().parse(signature, completion))
            except AdapterParseError:
                if len(signature.output_fields) != 1 or not completion.strip():
                    raise
                return {next(iter(signature.output_fields)): completion.split("[[ ##")[0].strip() or completion}

    return Reader


def reader(signature: Signature) -> Any:
    """Return DSPy's ChatAdapter for this task and the other calls of an optimizer."""
    return _reader_class()(signature)
