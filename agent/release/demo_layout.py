"""The texts of a new worked example in the layout of a released prompt, without the task and without DSPy.

What is written is compared with a row that the release holds: where they differ in anything but their values, the
layout was made by other rules, and the example is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from agent.conversation import worked_turns
from agent.errors import ReleaseError
from agent.prompt.template import PICKED, fill
from agent.prompt.worked import answer_text, worked_text
from agent.release.prompt_file import PromptRelease

_VALUE = "\ue0f7"  # stands for every value while layouts are compared


def demo_texts(release: PromptRelease, inputs: Mapping[str, str], answers: Mapping[str, str]) -> tuple[str, ...]:
    """The texts of an example, as the rows of the release's pool have them.

    Args:
        release: A prompt whose examples are picked.
        inputs: A text for each of its inputs.
        answers: A text for each of its outputs.
    """
    inputs = {name: inputs[name] for name in release.inputs}
    names = [output.name for output in release.outputs]
    if release.format == "inline":
        return (f"{worked_text(inputs, names, answers)}\n\n",)
    if release.conversation:
        return *worked_turns(inputs[release.conversation]), answer_text(names, answers)
    if not release.format.startswith("dspy-"):
        user = fill(release.messages[-1].content, {**inputs, PICKED: ""})
        return user, answer_text(names, answers)
    outputs = {name: answers[name] for name in names}
    if release.format == "dspy-xml":
        return _tagged(inputs), _tagged({name: _escaped(text) for name, text in outputs.items()})
    if release.format == "dspy-json":
        return _headed(inputs), json.dumps(outputs, indent=2, ensure_ascii=False)
    return _headed(inputs), f"{_headed(outputs)}\n\n[[ ## completed ## ]]\n"


def require_layout(release: PromptRelease) -> None:
    """Raises a ReleaseError where `demo_texts` writes otherwise than the rows of the release are written."""
    assert release.picks is not None
    values = dict.fromkeys((*release.inputs, *(output.name for output in release.outputs)), _VALUE)
    made = demo_texts(release, values, values)
    if not all(map(_has_form, release.picks.shown[0], made)):
        raise ReleaseError(
            f"{release.name!r} {release.version}: cannot remember: its examples are laid out ({release.format}) "
            "otherwise than this version of Promptassay lays them out; run its task again, or update"
        )


def _headed(values: Mapping[str, str]) -> str:
    return "\n\n".join(f"[[ ## {name} ## ]]\n{value}" for name, value in values.items()).strip()


def _tagged(values: Mapping[str, str]) -> str:
    return "\n\n".join(f"<{name}>\n{value}\n</{name}>" for name, value in values.items())


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


def _has_form(text: str, form: str) -> bool:
    """Whether `text` is `form` with any values; in linear time, whatever stands in it."""
    first, *between = form.split(_VALUE)
    if not between:
        return text == form
    last = between.pop()
    at = len(first)
    for piece in between:
        found = text.find(piece, at)
        if found < 0:
            return False
        at = found + len(piece)
    return text.startswith(first) and text.endswith(last) and at <= len(text) - len(last)
