"""The kind `chain`: a LangChain Runnable of the user's own; the system texts and examples of its prompts are optimized.

`build(model)` makes it: a run passes the model whose calls go through the gateway (`chain_model.py`), production its
own. Another model in the chain is refused, as its calls would be in no budget. The chain is made once; its prompts are
replaced by those of the candidate that runs. To prove a release the user's module is loaded anew, as in production.

It takes a dict of the task's inputs and gives text, a message, a dict of the outputs or a pydantic object of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.errors import InputError
from agent.models.langchain import untraced
from agent.programs.chain_model import ROW, ChainRow, chat_model, is_ours, use_candidate_messages
from agent.programs.chain_parts import (
    ChainCandidate,
    ChainPrompt,
    Part,
    PromptTexts,
    as_chain,
    find_parts,
    is_chain,
    load_chain,
    save_chain,
)
from agent.programs.kinds import ReleaseSpec, program
from agent.programs.moves.chain_moves import ChainMoves
from agent.programs.user_program import UserKind, UserProgram, plain, read_fields
from agent.prompt.reply_parser import parse_reply
from agent.prompt.techniques import forbidden_in
from agent.prompt.template import escape, label_text
from agent.search.context import SearchContext
from agent.search.dspy.bridge import Bridge
from agent.search.program import Ablation
from agent.search.registered import DEFAULT
from agent.types import (
    LM,
    Call,
    Candidate,
    Demo,
    Example,
    Message,
    Prediction,
    Request,
    Shown,
    Signature,
    Task,
)


@program("chain", about="A LangChain chain of your own.", takes="a LangChain Runnable", claims=is_chain)
class ChainProgram(UserKind):
    """The prompts of the user's chain on one model."""

    kind = ChainCandidate.kind
    word, takes, usual, has_moves, file = "chain", "a LangChain chain", DEFAULT, True, "chain.json"

    def __init__(self, task: Task, lm: LM, source: UserProgram, made: Any) -> None:
        """Raises InputError where `made`, which `source` gave, cannot be optimized."""
        from langchain_core.output_parsers import JsonOutputParser

        super().__init__(task, lm)
        self._source, self._chain = source, made
        parts = find_parts(made)
        if not parts.prompts:
            raise source.wrong(f"{source.factory}() has no ChatPromptTemplate, so there is nothing to optimize")
        if others := [type(model).__name__ for model in parts.models if not is_ours(model)]:
            raise source.wrong(
                f"{source.factory}() has a model of its own ({others[0]}), whose calls would be in no budget; write "
                f"def {source.factory}(model): and use that"
            )
        try:
            self.laid = {name: ChainPrompt(name, prompt) for name, prompt in parts.prompts.items()}
        except InputError as error:
            raise source.wrong(str(error)) from error
        self.answers_json = isinstance(parts.parser, JsonOutputParser)
        """Whether the chain reads its last reply as JSON, which examples must then be."""
        for name, prompt in parts.prompts.items():
            use_candidate_messages(name, prompt)
        self.task = replace(task, instruction="\n\n".join(laid.system for laid in self.laid.values()))
        self.calls = len(self.laid)
        self.last_inputs: dict[str, dict[str, Any]] = {}
        """The inputs of the baseline's last prompt, by the row's id and by variable."""
        self._chains: dict[str, Any] = {}
        self._messages: dict[str, dict[str, Sequence[Any]]] = {}

    @property
    def last(self) -> ChainPrompt:
        """The prompt whose reply is the answer."""
        return next(reversed(self.laid.values()))

    async def answered(
        self, candidate: Candidate, example: Example, call: Call, bridge: Bridge, repeat: int
    ) -> Prediction:
        untraced()  # the user's module may have switched it on
        own = Request((), self.max_tokens(candidate), repeat=repeat)
        row = ChainRow(bridge, call, own, self._messages_of(candidate))
        chain = self._chains.get(candidate.id, self._chain)
        token = ROW.set(row)
        try:
            output = await bridge.through(chain.ainvoke(dict(example.inputs)))
        finally:
            ROW.reset(token)
        if candidate.id == self.baseline().id:
            self.last_inputs[example.id] = row.inputs.get(self.last.name, {})
        return read(output, self.task.signature)

    def unreadable(self, problem: Exception) -> str | None:
        from langchain_core.exceptions import OutputParserException

        return str(problem.llm_output or "") if isinstance(problem, OutputParserException) else None

    def _messages_of(self, candidate: Candidate) -> Mapping[str, Sequence[Any]]:
        if candidate.id not in self._messages:
            parts = self.parts_of(candidate)
            self._messages[candidate.id] = {name: laid.laid_out(parts[name]) for name, laid in self.laid.items()}
        return self._messages[candidate.id]

    def parts_of(self, candidate: Candidate) -> dict[str, Part]:
        """The candidate as `chain.json` holds it."""

        def part(texts: PromptTexts) -> Part:
            shots = [{"inputs": dict(demo.inputs), "answer": self.answer(demo)} for demo in texts.demos or ()]
            return {"system": texts.system, "demos": None if texts.demos is None else shots}

        return {texts.name: part(texts) for texts in as_chain(candidate).prompts}

    def answer(self, demo: Demo) -> str:
        """The right reply of the model, in the form that the chain reads."""
        fields = self.task.signature.outputs
        if self.answers_json:
            texts = {f: demo.outputs[f.name] for f in fields}
            typed = {f.name: json.loads(t) if f.type in ("number", "json") else t for f, t in texts.items()}
            return json.dumps(typed, ensure_ascii=False)
        if len(fields) == 1:
            return demo.outputs[fields[0].name]
        return "\n".join(f"{field.name}: {demo.outputs[field.name]}" for field in fields)

    def baseline(self) -> ChainCandidate:
        return ChainCandidate(tuple(PromptTexts(laid.name, laid.system) for laid in self.laid.values()))

    def check(self, candidate: Candidate) -> str:
        train, limit = {row.id for row in self.task.train}, self.task.constraints.max_examples
        for texts in as_chain(candidate).prompts:
            laid = self.laid[texts.name]
            if problem := laid.wrong(texts.system) or forbidden_in(texts.system, self.task):
                return problem
            if texts.demos and laid is not self.last:
                return f"examples in {texts.name}, whose answers are not known"
            if others := [demo.example_id for demo in texts.demos or () if demo.example_id not in train]:
                return f"demo {others[0]} is not a train row"
        count = as_chain(candidate).n_examples
        return f"{count} examples, more than max_examples = {limit}" if limit is not None and count > limit else ""

    def shown(self, candidate: Candidate) -> Shown:
        text = "\n\n".join(self._texts(candidate))
        return Shown(candidate.id, "program", self.kind, text, n_examples=as_chain(candidate).n_examples)

    def template(self, candidate: Candidate) -> tuple[Message, ...]:
        """One message per prompt, to be read and never sent: its name, its system text and its demos."""
        names = [field.name for field in self.task.signature.inputs]
        return tuple(Message("system", escape(text, names)) for text in self._texts(candidate))

    def _texts(self, candidate: Candidate) -> list[str]:
        texts = []
        for name, part in self.parts_of(candidate).items():
            demos = [json.dumps(demo, ensure_ascii=False) for demo in part["demos"] or ()]
            texts.append("\n".join([f"{name}: {part['system']}", *demos]))
        return texts

    def prompt_tokens(self, candidate: Candidate) -> int:
        """Tokens of all system texts and examples, as they are shown."""
        return self._lm.count_tokens("\n\n".join(self._texts(candidate)))

    def ablations(self, winner: Candidate, baseline: Candidate) -> list[Ablation]:
        won, ablations = as_chain(winner), list[Ablation]()
        for base in as_chain(baseline).prompts:
            texts = won.texts(base.name)
            if texts.system != base.system:
                made = won.with_texts(base.name, system=base.system)
                ablations.append(Ablation(f"instruction of {base.name}", made))
            if texts.demos != base.demos:
                ablations.append(Ablation("examples", won.with_texts(base.name, demos=base.demos)))
        return ablations

    def moves(self, context: SearchContext) -> ChainMoves:
        return ChainMoves(context, self)

    def saved(self, candidate: Candidate, path: Path, spec: ReleaseSpec) -> tuple[str, Callable[[], None]]:
        texts = {"model": self._lm.name, "parameters": dict(spec.parameters)}
        version = save_chain(path, self.parts_of(candidate), texts)

        def load() -> None:
            self._chains[candidate.id] = load_chain(path, self._source.made(chat_model))

        return version, load


def read(output: Any, signature: Signature) -> Prediction:
    """Read a chain's output as typed fields: a text or a message like a reply, an object by its fields."""
    from langchain_core.messages import BaseMessage

    if isinstance(output, BaseMessage):
        output = str(output.text)
    if isinstance(output, str):
        return parse_reply(output, signature.outputs)
    fields = plain(output)
    if not isinstance(fields, dict):
        words = f"the chain gave a {type(output).__name__}, not text, a dict or a pydantic object"
        return Prediction({}, label_text(fields) if isinstance(fields, list | float | int) else str(output), words)
    return read_fields(fields.get, signature, "dict")
