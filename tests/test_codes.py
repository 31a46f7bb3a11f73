"""What is decided is decided by a code, a type or a number, never by the words of a message: those are for people."""

import ast
from collections.abc import Iterator
from typing import get_args

from agent.errors import AgentError, ModelError
from agent.results.run_parts import BLOCKS, BlockCode
from tests.cases import each_case
from tests.test_layers import SOURCES

MESSAGES = {"reason", "why", "message", "error", "problem", "warning", "trouble", "blocked", "hint", "search_ended"}
"""Names of texts that say why; a variable that is made of one of them is one, too."""
LOOKS = {"startswith", "endswith", "partition", "rpartition", "find", "rfind", "index", "rindex", "count"}
PATTERNS = {"search", "match", "fullmatch", "findall", "finditer"}
SAME = {"lower", "upper", "casefold", "strip", "lstrip", "rstrip", "removeprefix", "removesuffix"}
"""What leaves a text the same text."""
FROM_OUTSIDE = {
    "models/transport.py": "a provider's error text is all that says which parameter it refuses",
    "models/langchain.py": "LangChain says in words alone that a model's class takes no max_retries",
    "safe_data.py": "tomllib names the line of a mistake in its message alone",
    "release/formats/dspy.py": "the first line of DSPy's error is shown; nothing is decided",
    "task/tables.py": "Python's csv says in words alone that a carriage return is what it cannot read",
    "gateway/limiter.py": "the advice behind a refusal is not shown again; nothing is decided",
}
"""Files that may look at the words of a message, and why."""


def looks(module: ast.Module) -> list[ast.expr]:
    """Every place where a file looks at the words of a message, in the order of its lines."""
    functions = [node for node in ast.walk(module) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    outside = ast.Module([node for node in module.body if not isinstance(node, ast.FunctionDef | ast.ClassDef)], [])
    found = {node for scope in (outside, *functions) for node in _looks_in(scope)}
    return sorted(found, key=lambda node: (node.lineno, node.col_offset))


def _looks_in(tree: ast.AST) -> Iterator[ast.expr]:
    """Those of one function, whose names are its own."""
    known = set(MESSAGES)
    while (more := {*known, *_made_of(tree, known)}) != known:
        known = more
    for node in ast.walk(tree):
        match node:
            case ast.Compare(_, ops, texts):
                asked = [text for op, text in zip(ops, texts, strict=True) if isinstance(op, ast.In | ast.NotIn)]
            case ast.Call(ast.Attribute(text, name)) if name in LOOKS:
                asked = [text]
            case ast.Call(ast.Attribute(_, name), texts) if name in PATTERNS:
                asked = texts
            case _:
                continue
        if any(_is_message(text, known) for text in asked):
            yield node


def _is_message(node: ast.AST, known: set[str]) -> bool:
    match node:
        case ast.Name(name) | ast.Attribute(attr=name) | ast.Subscript(slice=ast.Constant(str(name))):
            return name in known
        case ast.Call(ast.Attribute(_, "get"), [ast.Constant(str(name)), *_]):
            return name in known
        case ast.Call(ast.Name("str"), [text]):
            return _is_message(text, known)
        case ast.Call(ast.Attribute(text, name)) if name in SAME:
            return _is_message(text, known)
    return False


def _made_of(tree: ast.AST, known: set[str]) -> Iterator[str]:
    """Names that are given a message, or one after another of several; and those of exceptions that are caught."""
    for node in ast.walk(tree):
        match node:
            case ast.ExceptHandler(name=str(name)):
                yield name
            case ast.Assign([ast.Name(name)], value) | ast.NamedExpr(ast.Name(name), value):
                if isinstance(value, ast.Call | ast.Name) and _is_message(value, known):
                    yield name
            case ast.For(ast.Name(name), many) | ast.comprehension(ast.Name(name), many):
                if _is_message(many, known):
                    yield name


def test_no_file_decides_by_the_words_of_a_message() -> None:
    found = {name: [f"{node.lineno}: {ast.unparse(node)}" for node in looks(tree)] for name, tree in SOURCES.items()}
    unlisted = {name: places for name, places in found.items() if places and name not in FROM_OUTSIDE}
    assert unlisted == {}, "give it a code (an Enum, a Literal, a type of exception) and decide by that"
    assert [name for name in FROM_OUTSIDE if not found[name]] == [], "look at no message any more: take them out"


@each_case(
    "code",
    [
        "any(why.startswith('the gain') for why in result['blocked'])",
        "any(each.startswith('the gain') for each in result.blocked)",
        "'the gain' in outcome.reason",
        "outcome['error'].lower().endswith('late')",
        "re.search('late', event.get('why'))",
        "PATTERN.fullmatch(str(error).strip())",
        "try:\n    f()\nexcept ValueError as gone:\n    says = str(gone)\n    if 'x' in says.casefold():\n        g()",
        "head, _, tail = message.partition(':')",
    ],
)
def test_a_look_at_words_is_found(code: str) -> None:
    assert looks(ast.parse(code))


@each_case(
    "code",
    [
        "'gain_not_shown' in result.blocked_codes",
        "text.startswith('a')",
        "why in ('late', 'lost')",
        "f'{why}: {error}'",
        "if not reason:\n    f()",
    ],
)
def test_codes_and_other_texts_are_not(code: str) -> None:
    assert looks(ast.parse(code)) == []


def test_every_error_has_a_code_that_no_other_one_has() -> None:
    kinds, own = [AgentError], list[str]()
    for kind in kinds:
        kinds += kind.__subclasses__()
        own += [kind.code] if "code" in vars(kind) and kind is not ModelError else []
    assert len(own) == len(set(own))
    assert {"input", "budget_refused", "gate_failed", "interrupted", "rate_limit", "ledger_busy"} <= set(own)
    assert set(BLOCKS) == set(get_args(BlockCode))
