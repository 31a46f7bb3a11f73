"""LangChain chains: their prompts are found and replaced, rows run side by side, and what they say is read."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.errors import BudgetExhausted, InputError, ReleaseError, RowRefused
from agent.programs.chain import ChainProgram, chat_model
from agent.programs.chain_file import load_chain, save_chain
from agent.programs.chain_parts import find_parts
from agent.programs.kinds import UserProgram, program_for
from agent.prompt.named_texts import TextsCandidate
from agent.types import Completion, Constraints, Demo, Example, Prediction, Request, Task, Usage
from tests.toys import FakeModel, make_task

HEAD = """
import threading
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser, StrOutputParser
from langchain_core.prompts import *
from langchain_core.runnables import *
from pydantic import BaseModel
"""
TWO = """
GIST = ChatPromptTemplate([("system", "Shorten {message} well."), ("human", "Now!")], name="gist")
TEAM = ChatPromptTemplate([("system", "Name {{the}} team."), ("human", "{message}")], name="team")

def build(model):
    return RunnablePassthrough.assign(gist=GIST | model | StrOutputParser()) | TEAM | model | StrOutputParser()
"""
EXAMPLE = Example("dev-1", {"message": "hello {there}"}, {"team": "billing"})


def task_of(folder: Path, source: str, **changes: Any) -> Task:
    (folder / "program.py").write_text(HEAD + source, "utf-8")
    return make_task(folder=str(folder), program="program:build", **changes)


def made(folder: Path, source: str, **changes: object) -> ChainProgram:
    program = program_for(task_of(folder, source, **changes), FakeModel(lambda request: "billing"))
    assert isinstance(program, ChainProgram)
    return program


class Line:
    """A row's `Call` to a model; `error` is what it raises in place of a reply, and stops everything if it `stops`."""

    logprobs = 0
    stopped = None

    def __init__(self, answer: Any = lambda request: "billing", error: Exception | None = None) -> None:
        self.sent: list[Request] = []
        self._answer, self._error = answer, error

    async def __call__(self, request: Request) -> Completion:
        self.sent.append(request)
        await asyncio.sleep(0)
        if self._error is not None:
            raise self._error
        text = self._answer(request)
        return Completion(text, "refusal" if text == "no!" else "stop", Usage(1, 1), "m")


def said(program: ChainProgram, line: Line, candidate: TextsCandidate | None = None, repeat: int = 0) -> Prediction:
    return asyncio.run(program.run(candidate or program.baseline(), EXAMPLE, line, repeat))


def texts(request: Request) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in request.messages]


def test_a_chain_is_run_as_it_is_written_and_a_candidate_changes_its_prompts(tmp_path: Path) -> None:
    program, line = made(tmp_path, TWO), Line()
    assert said(program, line).fields == {"team": "billing"}
    assert [texts(request) for request in line.sent] == [
        [("system", "Shorten hello {there} well."), ("user", "Now!")],
        [("system", "Name {the} team."), ("user", "hello {there}")],
    ]
    assert [request.max_tokens for request in line.sent] == [500, 500]
    demo = Demo("train-0", {"message": "a {row}"}, {"team": "refunds"})
    other = (
        program.baseline().with_text("gist", "Cut {message}.").with_text("team", "{x}").with_examples("team", (demo,))
    )
    line = Line()
    said(program, line, other)
    assert texts(line.sent[0])[0] == ("system", "Cut hello {there}.")
    assert texts(line.sent[1]) == [
        ("system", "{x}"),
        ("user", "a {row}"),
        ("assistant", "refunds"),
        ("user", "hello {there}"),
    ], "rows are never taken for templates"


PAIR = """
A = ChatPromptTemplate([("human", "{message}")])
B = ChatPromptTemplate([("system", "b"), ("human", "{message}")])
again = RunnableLambda(lambda m: {"message": m.text})

def build(model):
"""
WALKED = {
    "branch": "return RunnableBranch((lambda x: True, A | model), B | model)",
    "function": "last = B | model; return A | model | RunnableLambda(lambda m: last.invoke({'message': m.text}))",
    "bound method": "last = B | model; return A | model | again | RunnableLambda(last.invoke)",
    "parallel": "return RunnableParallel(a=(A | model).with_retry(), b=B | model) | (lambda x: x['a'])",
    "fallback": "return (A | model).with_fallbacks([B | model])",
    "each": "return (A | model).with_config(tags=['x']) | (lambda m: [{'message': m.text}]) | (B | model).map()",
    "twice the same": "return A | model | again | A | model | again | B | model",
}


@pytest.mark.parametrize("body", WALKED.values(), ids=WALKED)
def test_prompts_are_found_wherever_a_chain_holds_them(tmp_path: Path, body: str) -> None:
    program = made(tmp_path, f"{PAIR}    {body}\n")
    assert {name: laid.system for name, laid in program.laid.items()} == {"prompt 1": "", "prompt 2": "b"}
    assert program.calls == 2


def test_a_system_message_and_few_shot_block_of_the_users_own_give_way(tmp_path: Path) -> None:
    program = made(
        tmp_path,
        """
shots = FewShotChatMessagePromptTemplate(
    examples=[{"q": "1", "a": "one"}], example_prompt=ChatPromptTemplate([("human", "{q}"), ("ai", "{a}")])
)
PROMPT = ChatPromptTemplate([("human", "Look: "), shots, ("human", "{message} {tone}")]).partial(tone="please")

def build(model):
    return PROMPT | model
""",
    )
    own, line = program.baseline(), Line()
    said(program, line)
    demo = Demo("train-0", {"message": "x"}, {"team": "refunds"})
    said(program, line, own.with_text("prompt 1", "Say {it}").with_examples("prompt 1", (demo,)))
    said(program, line, own.with_examples("prompt 1", ()))
    first, last = ("user", "Look: "), ("user", "hello {there} please")
    assert [texts(request) for request in line.sent] == [
        [first, ("user", "1"), ("assistant", "one"), last],
        [("system", "Say {it}"), first, ("user", "x please"), ("assistant", "refunds"), last],
        [first, last],
    ]


def test_hard_rules_are_told_with_the_prompt_that_breaks_them(tmp_path: Path) -> None:
    program = made(tmp_path, TWO, constraints=Constraints(max_examples=1, forbidden=("secret",)))
    own = program.baseline()
    demo, other = (Demo(i, {"message": "x"}, {"team": "refunds"}) for i in ("train-0", "train-1"))
    broken = {
        "lost the placeholder {message}": own.with_text("gist", "Shorten."),
        "strange placeholder {message.x}": own.with_text("gist", "{message} {message.x}"),
        "cannot be filled in": own.with_text("gist", "{message} {"),
        "text team is empty": own.with_text("team", " "),
        "forbidden text 'secret'": own.with_text("team", "A Secret."),
        "2 examples, more than max_examples = 1": own.with_examples("team", (demo, other)),
        "demo dev-1 is not a train row": own.with_examples("team", (replace(demo, example_id="dev-1"),)),
        "examples in gist": own.with_examples("gist", (demo,)),
    }
    assert program.check(own) == program.check(own.with_examples("team", (demo,))) == ""
    for why, candidate in broken.items():
        assert why in program.check(candidate), why


OUTPUTS = {
    "text": ("StrOutputParser()", "billing", {"team": "billing"}, ""),
    "message": ("(lambda m: m)", "billing", {"team": "billing"}, ""),
    "dict": ("JsonOutputParser()", '{"team": "refunds"}', {"team": "refunds"}, ""),
    "pydantic": ("PydanticOutputParser(pydantic_object=Team)", '{"team": "refunds"}', {"team": "refunds"}, ""),
    "no json": ("JsonOutputParser()", "refunds it is", {}, "could not be read: 'refunds it is'"),
    "lacking": ("JsonOutputParser()", '{"x": 1}', {}, "The dict lacks team."),
    "a list": ("(lambda m: [1])", "x", {}, "the chain gave a list"),
    "raised": ("(lambda m: 1 / 0)", "x", {}, "the chain of prompts raised ZeroDivisionError"),
}


@pytest.mark.parametrize(("parser", "reply", "fields", "error"), OUTPUTS.values(), ids=OUTPUTS)
def test_what_a_chain_gives_is_read_by_its_fields(
    tmp_path: Path, parser: str, reply: str, fields: dict[str, Any], error: str
) -> None:
    source = f"""
class Team(BaseModel):
    team: str

def build(model):
    return ChatPromptTemplate([("human", "{{message}}")]) | model | {parser}
"""
    program = made(tmp_path, source)
    found = said(program, Line(lambda request: reply))
    assert dict(found.fields) == fields
    assert error in found.error
    demo = Demo("train-0", {"message": "x"}, {"team": "refunds"})
    assert program.answer(demo) == ('{"team": "refunds"}' if "Output" in parser and "Str" not in parser else "refunds")


def test_functions_in_threads_ask_through_the_row_and_rows_run_side_by_side(tmp_path: Path) -> None:
    program = made(
        tmp_path,
        """
def build(model):
    inner = ChatPromptTemplate([("human", "{message}")]) | model | StrOutputParser()
    def work(found):
        assert threading.current_thread() is not threading.main_thread()
        return inner.invoke(found)
    return RunnableLambda(work)
""",
    )
    lines = {name: Line(lambda request, name=name: name) for name in ("billing", "refunds", "delivery")}

    async def work() -> list[Prediction]:
        rows = [program.run(program.baseline(), EXAMPLE, line) for line in lines.values()]
        return list(await asyncio.gather(*rows))

    assert threading.current_thread() is threading.main_thread()
    assert [one.fields["team"] for one in asyncio.run(work())] == list(lines)
    assert [len(line.sent) for line in lines.values()] == [1, 1, 1]


@pytest.mark.parametrize("guard", ["", ".with_retry(stop_after_attempt=2)", ".with_fallbacks([RunnableLambda(str)])"])
def test_a_stop_is_a_stop_whatever_the_chain_makes_of_it(tmp_path: Path, guard: str) -> None:
    source = f'def build(model):\n    return (ChatPromptTemplate([("human", "{{message}}")]) | model){guard}\n'
    program = made(tmp_path, source)
    with pytest.raises(BudgetExhausted):
        said(program, Line(error=BudgetExhausted("all gone")))


def test_a_refused_row_has_no_answer(tmp_path: Path) -> None:
    with pytest.raises(RowRefused):
        said(made(tmp_path, TWO), Line(lambda request: "no!"))


@pytest.mark.parametrize(
    ("asks", "what"),
    [
        ("model.bind(tools=[{}])", "tools"),
        ("model.bind(logprobs=True)", "logprobs"),
        (
            '(lambda p: [("tool", "x")]) | RunnableLambda(lambda p: [ToolMessage("x", tool_call_id="1")]) | model',
            "tool messages",
        ),
        ('(lambda p: [HumanMessage([{"type": "image_url", "image_url": {"url": "x"}}])]) | model', "image_url"),
        ('(lambda p: [AIMessage("", tool_calls=[{"name": "f", "args": {}, "id": "1"}])]) | model', "tools"),
    ],
)
def test_what_a_request_cannot_carry_is_refused_by_name(tmp_path: Path, asks: str, what: str) -> None:
    head = "from langchain_core.messages import AIMessage, HumanMessage, ToolMessage\n"
    source = f'{head}\ndef build(model):\n    return ChatPromptTemplate([("human", "{{message}}")]) | {asks}\n'
    line = Line()
    with pytest.raises(InputError, match=f"cannot carry {what}"):
        said(made(tmp_path, source), line)
    assert not line.sent


def test_a_chain_file_is_put_into_the_users_own_chain_and_nothing_else(tmp_path: Path) -> None:
    program = made(tmp_path, TWO)
    demo = Demo("train-0", {"message": "a {row}"}, {"team": "refunds"})
    parts = program.parts_of(program.baseline().with_text("team", "New.").with_examples("team", (demo,)))
    save_chain(tmp_path / "chain.json", parts, {"model": "m"})

    def fresh() -> Any:
        return UserProgram(program.task).made(chat_model)

    chain = load_chain(tmp_path / "chain.json", fresh())
    said_by = find_parts(chain).prompts["team"].format_messages(message="q")
    assert [message.content for message in said_by] == ["New.", "a {row}", "refunds", "q"]
    with pytest.raises(ReleaseError, match=r"chain\.json: the chain has the prompts prompt 1, and the file gist, team"):
        load_chain(tmp_path / "chain.json", find_parts(fresh()).prompts["team"].model_copy(update={"name": None}))
    for text, why in (("{", "cannot be read"), ("[]", "no chain.json"), ('{"prompts": {"a": 1}}', "no chain.json")):
        (tmp_path / "bad.json").write_text(text, "utf-8")
        with pytest.raises(ReleaseError, match=why):
            load_chain(tmp_path / "bad.json", fresh())
