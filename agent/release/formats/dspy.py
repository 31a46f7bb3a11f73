"""A DSPy program that sends exactly the released messages: its state as JSON, our messages, a module that loads both.

DSPy's adapters add their own words to a prompt, so a state alone would not send what was scored. The module has an
adapter that sends the released messages unchanged and reads the reply as it was read when scored.

DSPy passes an adapter only the text of a reply and puts its log-probabilities, which calibrated prompts need, into the
prediction. So the adapter returns the text, and the program reads it.
"""

from __future__ import annotations

import contextlib
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from agent.extras import command, require
from agent.prompt.label_calibration import Tokens
from agent.release.export import export_messages
from agent.release.formats.export_format import (
    Material,
    Opened,
    Sent,
    Values,
    as_openai,
    as_sent,
    export_format,
    from_openai,
    no_lone_surrogates,
    openai_content,
)
from agent.release.formats.module_proof import load_module, require_same_answers
from agent.release.formats.python_module import filled
from agent.release.runtime import MESSAGES_FILE, PromptRelease
from agent.types import Prediction

FOLDER = "dspy"
STATE = f"{FOLDER}/program.json"
MODULE = f"{FOLDER}/program.py"
_SOURCE = '''\
"""A released prompt as a DSPy program: `program = load(); program(INPUT="...")` after `dspy.configure(lm=...)`.

Needs dspy and promptassay, and program.json and messages.json next to this file.
"""

import json
from pathlib import Path

import dspy
from dspy.utils.exceptions import AdapterParseError
from promptassay import load_prompt

HERE = Path(__file__).parent
INPUTS = @inputs@
OUTPUTS = @outputs@


class Released(dspy.Adapter):
    """Sends the released messages, and returns the reply unchanged, for Program to read."""

    def __init__(self, prompt):
        super().__init__()
        self.prompt = prompt

    def format(self, signature, demos, inputs):
        return self.prompt.render(**{name: inputs[name] for name in INPUTS})

    def parse(self, signature, completion):
        return {name: completion for name in OUTPUTS}


class Program(dspy.Module):
    def __init__(self):
        super().__init__()
        fields = {name: (str, dspy.InputField()) for name in INPUTS}
        fields |= {name: (object, dspy.OutputField()) for name in OUTPUTS}
        self.answer = dspy.Predict(dspy.make_signature(fields, "Answer."))
        self.adapter = Released(load_prompt(HERE / "messages.json"))

    def forward(self, **inputs):
        with dspy.context(adapter=self.adapter):
            found = self.answer(**inputs, config=@config@)
        reply, logprobs = found[OUTPUTS[0]], found.get("logprobs")
        tokens = logprobs["content"] if isinstance(logprobs, dict) else getattr(logprobs, "content", None)
        read = self.adapter.prompt.parse(reply, tokens or (), inputs={name: inputs[name] for name in INPUTS})
        if read.error:
            raise AdapterParseError("Released", self.answer.signature, reply, message=read.error)
        return dspy.Prediction(**{"confidence": read.confidence, **read.fields})


def load():
    """Load the program with its state. DSPy matches fields by position, so their names are compared first."""
    program = Program()
    state = json.loads((HERE / "program.json").read_text("utf-8"))["answer"]
    states = state, program.answer.dump_state()
    saved, mine = ([field["prefix"] for field in one["signature"]["fields"]] for one in states)
    if saved != mine:
        raise ValueError(f"program.json has the fields {saved}, this module has {mine}; export them again together")
    program.load(str(HERE / "program.json"))
    return program
'''
_NO_LABEL = "\u2603"
"""A reply that is no label."""


def _state(release: PromptRelease) -> str:
    # DSPy shows the instruction in it to people; the adapter sends the messages.
    require("dspy", "the format dspy")
    import dspy

    fields: dict[str, Any] = {name: (str, dspy.InputField()) for name in release.inputs}
    fields |= {field.name: (object, dspy.OutputField()) for field in release.outputs}
    program = dspy.Module()
    program.answer = dspy.Predict(dspy.make_signature(fields, release.messages[0].content))
    with tempfile.TemporaryDirectory(prefix="export-") as folder:
        program.save(str(Path(folder, "program.json")))
        return Path(folder, "program.json").read_text("utf-8")


def _load(folder: Path, release: PromptRelease) -> Opened:
    from dspy.utils import DummyLM, exceptions

    program = load_module(folder / MODULE, "exported_dspy_program").load()
    if release.reads_tokens:
        require_same_answers("dspy", _answers_of(program, release), release, no_lone_surrogates)

    def sent(lm: Any, values: Values) -> dict[str, Any]:
        with contextlib.suppress(exceptions.AdapterParseError):
            _asked(program, lm, values)
        return dict(lm.history.pop())

    recorder, bare = DummyLM([{"answer": "none"}] * 10_000), DummyLM([{"answer": "none"}])
    bare.kwargs.clear()  # its own parameters

    def render(values: Values) -> Sent:
        return as_sent(sent(recorder, values)["messages"])

    def read(values: Values, reply: str) -> Prediction:
        try:
            answer = _asked(program, DummyLM([{"reply": reply}], adapter=_AsItIs()), values)
        except exceptions.AdapterParseError as error:
            return Prediction({}, reply, str(error).partition("\n")[0])
        return Prediction({output.name: answer[output.name] for output in release.outputs}, reply)

    settings = from_openai(sent(bare, dict.fromkeys(release.inputs, "plain"))["kwargs"])
    return Opened(render, settings, read)


def _asked(program: Any, lm: Any, values: Values) -> Any:
    import dspy

    with dspy.context(lm=lm, track_usage=False), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return program(**values)


class _AsItIs:
    def format_field_with_value(self, fields: Mapping[Any, str], role: str = "") -> str:
        (reply,) = fields.values()
        return reply


# -- calibration -----------------------------------------------------------------------------------------------------


def _answers_of(program: Any, release: PromptRelease) -> Callable[..., tuple[str, float] | None]:
    import dspy

    (name,) = (output.name for output in release.outputs)

    class Replies(dspy.BaseLM):  # type: ignore[misc]
        tokens: Tokens = ()

        def forward(self, prompt: Any = None, messages: Any = None, **kwargs: Any) -> Any:
            message = SimpleNamespace(content=_NO_LABEL, tool_calls=None)
            choice = SimpleNamespace(
                message=message, logprobs={"content": openai_content(self.tokens)}, finish_reason="stop"
            )
            return SimpleNamespace(choices=[choice], usage={}, model="replies")

    def answer(tokens: Tokens, values: Mapping[str, str] | None = None) -> tuple[str, float] | None:
        lm = Replies("replies")
        lm.tokens = tokens
        try:
            found = _asked(program, lm, values or dict.fromkeys(release.inputs, "plain"))
        except dspy.utils.exceptions.AdapterParseError:
            return None
        return found[name], found.confidence

    return answer


# -- the format --------------------------------------------------------------------------------------------------------


@export_format(
    "dspy",
    about="dspy/: program.py, whose load() gives a dspy.Module that sends the released messages, and its state",
    load=_load,
    library="dspy",
    install=command("dspy"),
    unfit=no_lone_surrogates,
    carries=("calibration", "picks"),
)
def files(material: Material) -> dict[str, str]:
    release = material.release
    inputs, outputs = ascii(list(release.inputs)), ascii([field.name for field in release.outputs])
    source = filled(_SOURCE, inputs=inputs, outputs=outputs, config=ascii(as_openai(release.parameters)))
    return {STATE: _state(release), f"{FOLDER}/{MESSAGES_FILE}": export_messages(release), MODULE: source}
