"""The kind `chain`: a LangChain Runnable of the user's own; the system texts and demos of its prompts are optimized.

`build(model)` makes it. It is handed its model because that is how a chain is written to run on more than one: a run
gives it the one whose calls go through the gateway (`chain_model.py`), production gives it its own. To look for models
in a chain and replace them would miss those that functions hold, whose calls would then be in no budget; one that is
found is refused. The chain is made once: its prompts give way to those of the candidate that runs (`chain_parts.py`).
To prove a release the user's module is loaded anew, as production does.

It takes a dict of the task's inputs and gives text, a message, a dict of the outputs or a pydantic object of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from agent.errors import BadResponse, InputError, RowRefused, Transient, TransportUnknown
from agent.gateway.gateway import Gateway
from agent.models.langchain import untraced
from agent.programs.chain_model import ROW, Row, chat_model, give_way, is_ours
from agent.programs.chain_parts import (
    ChainCandidate,
    ChainPrompt,
    Part,
    PromptTexts,
    as_chain,
    find,
    is_chain,
    load_chain,
    save_chain,
)
from agent.programs.kind import Defaults, Making, Written
from agent.programs.kinds import program
from agent.programs.moves.chain_moves import ChainMoves
from agent.programs.user_program import REPLY_TOKENS, Raised, RowDoor, UserProgram, named, plain, prove, read_fields
from agent.prompt.candidate_rules import forbidden_in
from agent.prompt.render import label_text
from agent.prompt.reply_parser import parse_reply
from agent.prompt.template import escape
from agent.search.context import SearchContext
from agent.search.dspy.bridge import Bridge
from agent.search.dspy.meter import Meter
from agent.search.program import Ablation
from agent.search.registered import DEFAULT, STRATEGIES
from agent.types import (
    LM,
    Call,
    Candidate,
    Demo,
    Example,
    Message,
    Outcome,
    Prediction,
    Request,
    Shown,
    Signature,
    Task,
)

CHAIN_FILE = "chain.json"


@program("chain", about="A LangChain chain of your own.", takes="a LangChain Runnable", claims=is_chain)
class ChainProgram(Defaults):
    """What the prompts of the user's chain may say, on one model. No call is made twice in a run (`Meter`)."""

    kind = ChainCandidate.kind
    is_fixed = False

    def __init__(self, task: Task, lm: LM, source: UserProgram, made: Any) -> None:
        """`made` is what `source` gave. Raises InputError where it cannot be optimized."""
        self._source, self._chain, self._lm = source, made, lm
        found = find(made)
        if not found.prompts:
            raise source.wrong(f"{source.factory}() has no ChatPromptTemplate, so there is nothing to optimize")
        if strange := [type(model).__name__ for model in found.models if not is_ours(model)]:
            raise source.wrong(
                f"{source.factory}() has a model of its own ({strange[0]}), whose calls would be in no budget; write "
                f"def {source.factory}(model): and use that"
            )
        try:
            self.laid = {name: ChainPrompt(name, prompt) for name, prompt in found.prompts.items()}
        except InputError as error:
            raise source.wrong(str(error)) from error
        self.answers_json = _gives_json(found.parser)
        """Whether the chain reads its last reply as JSON, which demos must then be."""
        for name, prompt in found.prompts.items():
            give_way(name, prompt)
        self.task = replace(task, instruction="\n\n".join(laid.system for laid in self.laid.values()))
        self.calls = len(self.laid)
        self.seen: dict[str, dict[str, Any]] = {}
        """What the last prompt of the baseline was given on a row, by the row's id and by variable."""
        self._chains: dict[str, Any] = {}
        self._messages: dict[str, dict[str, Sequence[Any]]] = {}
        self._raised = Raised(task.program)
        self._meter: Meter

    @property
    def last(self) -> ChainPrompt:
        """The prompt that answers."""
        return next(reversed(self.laid.values()))

    # -- running ------------------------------------------------------------------------------------------------------

    async def run(self, candidate: Candidate, example: Example, call: Call, repeat: int = 0) -> Prediction:
        from langchain_core.exceptions import OutputParserException

        untraced()  # the user's module may have switched it on
        bridge = Bridge(RowDoor(call))
        asked = Request((), self.max_tokens(candidate), repeat=repeat)
        row = Row(bridge, call, asked, self._messages_of(candidate))
        chain = self._chains.get(candidate.id, self._chain)
        token = ROW.set(row)
        try:
            said = await bridge.through(chain.ainvoke(dict(example.inputs)))
        except (RowRefused, BadResponse, Transient, TransportUnknown):
            raise
        except OutputParserException as problem:
            raw = str(problem.llm_output or "")
            return Prediction({}, raw, f"The reply could not be read: {raw[:80]!r}")
        except Exception as problem:
            if bridge.stopped is not None:
                raise
            self._raised.note(candidate.id, example.id)
            return Prediction({}, "", f"the chain raised {named(problem)}")
        finally:
            ROW.reset(token)
        if candidate.id == self.baseline().id:
            self.seen[example.id] = row.seen.get(self.last.name, {})
        return read(said, self.task.signature)

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
        """What the model should have replied, in the form that the chain reads."""
        fields = self.task.signature.outputs
        if self.answers_json:
            typed = {f.name: _typed(demo.outputs[f.name], f.type) for f in fields}
            return json.dumps(typed, ensure_ascii=False)
        if len(fields) == 1:
            return demo.outputs[fields[0].name]
        return "\n".join(f"{field.name}: {demo.outputs[field.name]}" for field in fields)

    def max_tokens(self, candidate: Candidate) -> int:
        return (self.task.max_tokens or REPLY_TOKENS) + self.task.thinking

    # -- what a run asks ----------------------------------------------------------------------------------------------

    def baseline(self) -> ChainCandidate:
        return ChainCandidate(tuple(PromptTexts(laid.name, laid.system) for laid in self.laid.values()))

    def check(self, candidate: Candidate) -> str:
        train, limit = {row.id for row in self.task.train}, self.task.constraints.max_demos
        for texts in as_chain(candidate).prompts:
            laid = self.laid[texts.name]
            if problem := laid.wrong(texts.system) or forbidden_in(texts.system, self.task):
                return problem
            if texts.demos and laid is not self.last:
                return f"demos in {texts.name}, whose answers are not known"
            if strangers := [demo.example_id for demo in texts.demos or () if demo.example_id not in train]:
                return f"demo {strangers[0]} is not a train row"
        count = as_chain(candidate).n_demos
        return f"{count} demos, more than max_demos = {limit}" if limit is not None and count > limit else ""

    def broken(self, outcomes: Sequence[Outcome]) -> str:
        return self._raised.on_all(outcomes)

    def shown(self, candidate: Candidate) -> Shown:
        text = "\n\n".join(self._texts(candidate))
        return Shown(candidate.id, "program", self.kind, text, n_demos=as_chain(candidate).n_demos)

    def template(self, candidate: Candidate) -> tuple[Message, ...]:
        """One message per prompt, to read and to compare: its name, its system text and its demos. Never sent."""
        names = [field.name for field in self.task.signature.inputs]
        return tuple(Message("system", escape(text, names)) for text in self._texts(candidate))

    def _texts(self, candidate: Candidate) -> list[str]:
        found = []
        for name, part in self.parts_of(candidate).items():
            demos = [json.dumps(demo, ensure_ascii=False) for demo in part["demos"] or ()]
            found.append("\n".join([f"{name}: {part['system']}", *demos]))
        return found

    def prompt_tokens(self, candidate: Candidate) -> int:
        """Tokens of all system texts and demos, as they are shown."""
        return self._lm.count_tokens("\n\n".join(self._texts(candidate)))

    def ablations(self, winner: Candidate, baseline: Candidate) -> list[Ablation]:
        won, found = as_chain(winner), list[Ablation]()
        for base in as_chain(baseline).prompts:
            texts = won.texts(base.name)
            if texts.system != base.system:
                made = won.with_texts(base.name, system=base.system)
                found.append(Ablation(f"instruction of {base.name}", made))
            if texts.demos != base.demos:
                found.append(Ablation("demos", won.with_texts(base.name, demos=base.demos)))
        return found

    def door(self, gateway: Gateway) -> Meter:
        self._meter = Meter(gateway)
        return self._meter

    # -- searching ----------------------------------------------------------------------------------------------------

    def strategy(self, name: str | None) -> str:
        name = name or DEFAULT
        if not STRATEGIES.get(name).suits(self.kind):
            fit = [one.name for one in STRATEGIES.usable().values() if one.suits(self.kind)]
            raise InputError(f"--strategy {name}: a LangChain chain takes {', '.join(fit)}")
        return name

    def moves(self, context: SearchContext) -> ChainMoves:
        return ChainMoves(context, self)

    # -- releasing ----------------------------------------------------------------------------------------------------

    async def write(self, candidate: Candidate, making: Making) -> Written:
        """chain.json, loaded into a chain that is made anew, as its user does, and run on rows of the sealed test."""
        path = making.folder / CHAIN_FILE
        texts = {"model": self._lm.name, "parameters": dict(making.parameters)}
        version = save_chain(path, self.parts_of(candidate), texts)

        def load() -> None:
            self._chains[candidate.id] = load_chain(path, self._source.made(chat_model))

        await prove(candidate, making, self._meter, path, load)
        return Written(path, version)


def read(said: Any, signature: Signature) -> Prediction:
    """What the chain gave as typed fields: a text or a message is read like a reply, an object by its fields."""
    from langchain_core.messages import BaseMessage

    if isinstance(said, BaseMessage):
        said = str(said.text)
    if isinstance(said, str):
        return parse_reply(said, signature.outputs)
    fields = plain(said)
    if not isinstance(fields, dict):
        words = f"the chain gave a {type(said).__name__}, not text, a dict or a pydantic object"
        return Prediction({}, label_text(fields) if isinstance(fields, list | float | int) else str(said), words)
    return read_fields(fields.get, signature, "dict")


def _gives_json(parser: Any) -> bool:
    from langchain_core.output_parsers import JsonOutputParser

    return isinstance(parser, JsonOutputParser)


def _typed(text: str, kind: str) -> Any:
    return json.loads(text) if kind in ("number", "json") else text
