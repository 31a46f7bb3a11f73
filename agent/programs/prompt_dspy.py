"""A prompt for DSPy's optimizers: `dspy.Predict` on the Signature that `prompt/render.py` makes of the task.

Both send the same messages, so the optimizer's programs are candidates of the layout `dspy-chat`.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from agent.programs.moves.pool import as_prompt
from agent.prompt.prompt_candidate import PromptCandidate
from agent.prompt.render import dspy_signature
from agent.prompt.reply_parser import parse_reply
from agent.prompt.template import label_text
from agent.search.context import SearchContext
from agent.search.dspy.bridge import Meter
from agent.search.dspy.methods import TriedProgram
from agent.search.dspy.strategies import DspyForm
from agent.types import Candidate, Completion, Demo, Example, Prediction, Proposal, Signature, Task, canonical

if TYPE_CHECKING:
    from agent.programs.prompt import PromptProgram


def predict_form(program: PromptProgram, context: SearchContext) -> DspyForm:
    """The user's own prompt as a `dspy.Predict`."""
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
        """DSPy's chat layout, read as the run reads it; a reply of one field without its header is that field."""

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
    """DSPy's ChatAdapter for this task and for the other calls of an optimizer."""
    return _reader_class()(signature)
