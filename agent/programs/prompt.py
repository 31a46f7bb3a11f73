"""The kind `prompt`: an instruction, examples, a technique and a layout, answered by one call."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from agent.errors import InputError
from agent.extras import require
from agent.programs.kinds import Kind, ReleaseSpec, WrittenRelease
from agent.programs.moves.prompt_moves import CandidateGenerator, PromptMoves
from agent.programs.moves.prompt_parts import features_of, leave_one_out
from agent.prompt.bound import BoundPrompt
from agent.prompt.label_calibration import LabelCalibration, logprobs_for
from agent.prompt.parts.adapter import released_model
from agent.prompt.parts.calibration import Opinion, calibrated_by, trained_opinions
from agent.prompt.parts.kinds import TaskParts, bound, held
from agent.prompt.parts.part import Row
from agent.prompt.parts.passages import PassageLibrary
from agent.prompt.parts.picks import PickedRows
from agent.prompt.prompt_candidate import PromptCandidate, as_prompt, baseline
from agent.prompt.render import template
from agent.prompt.techniques import answers_last, labels_first, reasons_first, why_rejected
from agent.prompt.template import fill_messages, label_text, marks
from agent.release.export import write_release
from agent.release.prompt_file import PromptRelease
from agent.search.context import SearchContext
from agent.search.dspy.bridge import DspyForm
from agent.search.registered import DEFAULT, DSPY
from agent.search.study import Feature
from agent.types import (
    LM,
    Call,
    Candidate,
    Completion,
    Example,
    Message,
    Prediction,
    Request,
    Summary,
    Task,
    scores_labels,
)

SAMPLE = 50  # train rows for the mean length of the parts that vary by row
OF_PREDICT = ("config", "demos", "lm", "signature")  # arguments that `dspy.Predict` reserves
REASONING_TOKENS = 180
DSPY_TOKENS = 16  # markers around each field of a reply
REPLY_SLACK = 4
HOSTED_SLACK = 60  # a hosted model may say a sentence around the answer; it ends by itself


@dataclass(frozen=True, slots=True)
class ReplyCap:
    """The most tokens of a reply: of the longest right answer, and `more` to think."""

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
        return self.answer + extra + sum(kind.reply_tokens(own, n_outputs) for kind, own in held(candidate))


class PromptProgram(Kind):
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
                parts=bound(prompt, self.shared),
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
        others = (kind.why_other(settings, prompt, self.shared) for kind, settings in held(prompt))
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
                messages = fill_messages(messages, empty, ())
            rows = [self._row(row) for row in self.task.train[:SAMPLE]]
            size = sum(count(message.content) for message in messages)
            self._sizes[candidate.id, most] = size + sum(part.size(count, rows, most) for part in prompt.parts)
        return self._sizes[candidate.id, most]

    def features(self, candidate: Candidate) -> Mapping[Feature, float]:
        return features_of(candidate)

    def ablations(self, candidate: Candidate, baseline: Candidate) -> dict[str, Candidate]:
        return leave_one_out(as_prompt(candidate), as_prompt(baseline))

    def documents(self, candidate: Candidate, example: Example) -> tuple[str, ...] | None:
        found = (part.documents(self._row(example)) for part in self.bound(candidate).parts)
        return next((files for files in found if files is not None), None)

    def calibrated(self, candidate: Candidate, calibration: LabelCalibration) -> Candidate | None:
        prompt = as_prompt(candidate)
        return calibrated_by(prompt, calibration) if labels_first(prompt, self.task.signature.outputs) else None

    def opinions(self, candidate: Candidate, trained: bool = False) -> list[Opinion]:
        found = [found for kind, _ in held(as_prompt(candidate)) if (found := kind.opinion(self.shared))]
        return [*found, *trained_opinions(self.shared)] if trained else found

    def strategy(self, name: str | None) -> str:
        task, name = self.task, super().strategy(name)
        if name not in DSPY:
            return name
        require("dspy", f"--strategy {name}")
        names = [field.name for field in task.signature.inputs]
        taken, why = [one for one in names if one in OF_PREDICT], ""
        if taken:
            why = f"DSPy reserves the input name {taken[0]}; rename it, or"
        elif task.signature.conversation:
            why = f"DSPy sends a conversation as one text, but {task.name} sends messages;"
        elif task.space.descriptions_only is not None:
            why = f"DSPy's optimizers rewrite instructions, but {task.name} allows descriptions only;"
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
        from agent.programs.dspy import predict_form

        return predict_form(self, context)

    def _label_parameters(self) -> dict[str, Any]:
        labels = self.task.signature.outputs[0].choices
        return {"logprobs": logprobs_for(labels), "labels": list(labels)} if scores_labels(self._lm) else {}

    async def write(self, candidate: Candidate, spec: ReleaseSpec) -> WrittenRelease:
        result, prompt = spec.result, as_prompt(candidate)
        abstain = result.calibration.abstain if result.calibration and prompt.id == result.winner.candidate_id else None
        abstaining = {"abstain_below": abstain.below} if abstain and abstain.below is not None else {}
        parameters = {**(self._label_parameters() if abstaining else {}), **spec.parameters}
        release = self.release(candidate, parameters, spec.provenance(prompt, self.task, **abstaining))
        return WrittenRelease(write_release(release, spec.folder), release.version)

    def release(
        self, candidate: Candidate, parameters: Mapping[str, Any], provenance: Mapping[str, Any]
    ) -> PromptRelease:
        """Return the release form of the candidate, with the adapter of its model."""
        prompt, (model, adapter) = self.bound(candidate), released_model(self.model_of(candidate).name)
        parts = (*prompt.parts, *([adapter] if adapter else []))
        fields = {each.name: getattr(prompt, each.name) for each in dataclasses.fields(BoundPrompt)}
        fields |= {"model": model, "parts": parts, "parameters": dict(parameters), "provenance": dict(provenance)}
        return PromptRelease(**fields)
