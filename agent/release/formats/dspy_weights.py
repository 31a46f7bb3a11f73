"""Label weights in an exported DSPy program: how its module asks for log-probabilities and reads a reply by them.

DSPy hands an adapter the text of a reply and puts its log-probabilities into the prediction, so the adapter gives the
text back as it stands and the program decides.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

from agent.prompt.label_weights import Tokens
from agent.release.formats.weights_source import as_openai
from agent.release.prompt_file import PromptRelease

_NO_LABEL = "\u2603"
"""A reply that is none of any labels."""
_AS_READ = """\
        found = self.prompt.parse(completion)
        if found.error:
            raise AdapterParseError("Released", signature, completion, message=found.error)
        return dict(found.fields)
"""
_AS_IT_STANDS = """\
        return {name: completion for name in OUTPUTS}  # Program reads it, by its log-probabilities, too
"""
_FORWARD = """\
            return self.answer(**inputs, config=dict(self.adapter.prompt.parameters))
"""
_FORWARD_WEIGHTED = """\
            found = self.answer(**inputs, config=@config@)
        reply, logprobs = found[OUTPUTS[0]], found.get("logprobs")
        tokens = logprobs["content"] if isinstance(logprobs, dict) else getattr(logprobs, "content", None)
        read = self.adapter.prompt.parse(reply, tokens or (), inputs={name: inputs[name] for name in INPUTS})
        if read.error:
            raise AdapterParseError("Released", self.answer.signature, reply, message=read.error)
        return dspy.Prediction(**read.fields, confidence=read.confidence)
"""


def weighted_source(source: str, release: PromptRelease) -> str:
    """The module of a release with label weights: it asks for log-probabilities and decides by them.

    Args:
        source: The module as it is without weights.
        release: What is exported.
    """
    config = ascii(as_openai(release.parameters))
    return source.replace(_AS_READ, _AS_IT_STANDS).replace(_FORWARD, _FORWARD_WEIGHTED.replace("@config@", config))


def answers_of(program: Any, release: PromptRelease) -> Callable[..., tuple[str, float] | None]:
    """How the whole program answers where the text of a reply says nothing, and its log-probabilities all."""
    import dspy
    from dspy.utils.exceptions import AdapterParseError

    (name,) = (output.name for output in release.outputs)

    class Replies(dspy.BaseLM):  # type: ignore[misc]
        """A model that gives these tokens, in the form of OpenAI."""

        tokens: Tokens = ()

        def forward(self, prompt: Any = None, messages: Any = None, **kwargs: Any) -> Any:
            content = [
                {"token": place[0][0], "top_logprobs": [{"token": token, "logprob": log} for token, log in place]}
                for place in self.tokens
            ]
            message = SimpleNamespace(content=_NO_LABEL, tool_calls=None)
            choice = SimpleNamespace(message=message, logprobs={"content": content}, finish_reason="stop")
            return SimpleNamespace(choices=[choice], usage={}, model="replies")

    def answer(tokens: Tokens, values: Mapping[str, str] | None = None) -> tuple[str, float] | None:
        lm = Replies("replies")
        lm.tokens = tokens
        with dspy.context(lm=lm, track_usage=False), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                found = program(**(values or dict.fromkeys(release.inputs, "plain")))
            except AdapterParseError:
                return None
        return found[name], found.confidence

    return answer
