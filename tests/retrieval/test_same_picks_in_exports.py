"""A thousand hostile inputs: search, release and every export that looks rows and passages up send the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.programs.prompt import PromptProgram
from agent.prompt.parts.examples import as_demo
from agent.prompt.parts.passages import CHUNKS
from agent.prompt.prompt_candidate import PromptCandidate
from agent.release.export import write_release
from agent.release.formats.export_format import FORMATS, Format, Material, Render
from agent.release.formats.python_module import load_module
from agent.release.prompt_file import PromptRelease
from agent.release.runtime import load_prompt
from agent.retrieval.pick import ORDERS, RETRIEVERS, Picks
from agent.types import Example
from tests.knowledge.test_passages import NAMES, TASK, row
from tests.release.formats.sample import wanted
from tests.retrieval.hostile_inputs import PIECES, hostile_inputs
from tests.retrieval.shipped import CARRIERS, release_of
from tests.toys import FakeModel

WILD = ('{{message}} "q" \\', "{{picked examples}}", "{% if x %}{#", "a\r\nb\n", "## user\n\nx", "é e\u0301 漢字", "\0")
MADE = TASK.train
TRAIN = tuple(
    replace(one, inputs={**one.inputs, "message": f"{one.inputs['message']} {WILD[at % len(WILD)]}"})
    for at, one in enumerate(MADE)
)
PROGRAM = PromptProgram(
    replace(TASK, train=TRAIN, dev=tuple(row(number) for number in range(100, 104))), FakeModel(lambda request: "")
)
MODULES = {
    "python": "prompt.py",
    "langchain": "langchain_prompt.py",
    "mlflow": "mlflow_model.py",
    "promptfoo": "promptfoo/prompt.py",
}


def prompts() -> Iterator[PromptCandidate]:
    """Each retriever in a layout of its own, with passages and without, with fixed examples and without."""
    for number, retriever in enumerate(RETRIEVERS):
        how = PROGRAM.library.settings(retriever, 3, *CHUNKS[number])
        picks = Picks(retriever, 4, ORDERS[number % 2], bool(number), number == 2, PROGRAM.pool.id)
        own = ("Route.", "Route {{context}} now.", "{{context}}\nTeam?\n{{message}} / {{channel}}")[number]
        head = tuple(map(as_demo, TRAIN[:number]))
        layout = ("turns", "labelled-turns", "inline")[number]
        yield PromptCandidate("few-shot", layout, own, "You are R.", head, picks=picks, passages=how)  # type: ignore[arg-type]
        yield PromptCandidate("few-shot", layout, "Route.", "", head, picks=picks)  # type: ignore[arg-type]


def filled(messages: list[dict[str, str]]) -> list[dict[str, str]]:
    """Messages as a template engine fills them: Jinja2, which Nunjucks is made after."""
    from jinja2 import Environment

    engine = Environment(keep_trailing_newline=True, autoescape=False)
    return [{**message, "content": engine.from_string(message["content"]).render()} for message in messages]


def rendered_by(form: Format, release: PromptRelease, folder: Path) -> tuple[Render, Any]:
    """How a written export renders, and its module, where it is one."""
    for file, text in form.files(Material(release, PROGRAM.task)).items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(text.encode("utf-8"))
    module: Any = load_module(folder / MODULES[form.name], "exported") if form.name in MODULES else None
    if form.name == "promptfoo":  # the function itself; promptfoo as a whole is in tests/release/formats
        return lambda values: filled(json.loads(module.promptfoo_prompt({"vars": {"row": values}}))), module
    render = form.load(folder, release).render
    assert render is not None
    return render, module


@pytest.mark.parametrize("name", sorted(CARRIERS))
def test_a_thousand_hostile_inputs_are_sent_the_same(name: str, tmp_path: Path) -> None:
    form = FORMATS.get(name) if name == "promptfoo" else wanted(name)
    made = []
    for number, prompt in enumerate(prompts()):
        assert PROGRAM.check(prompt) == ""
        release = release_of(PROGRAM, prompt)
        loaded = load_prompt(write_release(release, tmp_path / f"release{number}"))
        made.append((prompt, release, loaded, *rendered_by(form.fitting(release), release, tmp_path / str(number))))
    sent_alike = 0
    for number, values in enumerate(hostile_inputs(NAMES)):
        prompt, release, loaded, render, module = made[number % len(made)]
        example = Example(f"x{number}", values, {"team": "billing"})
        sent = [message.as_dict() for message in PROGRAM.request(prompt, example).messages]
        assert loaded.render(**values) == sent
        if module:
            assert release.picks is not None
            shown = [release.picks.shown[at] for at in PROGRAM.pool.positions(prompt, example)]
            assert module._shown(values) == shown
        if not form.fitting(release).unfit(release, values):
            assert render(values) == sent
            sent_alike += 1
        elif name == "dspy":
            with pytest.raises(ValueError, match="surrogate"):
                render(values)
    assert sent_alike > 800 if name in ("dspy", "promptfoo") else sent_alike == 1000  # half characters are no JSON


def test_there_are_a_thousand_inputs_and_they_are_the_same_each_time() -> None:
    rows = list(hostile_inputs(NAMES))
    assert rows == list(hostile_inputs(NAMES))
    assert len(rows) == 1000
    texts = [text for values in rows for text in values.values()]
    assert len(set(texts)) > 600
    assert max(len(text.split()) for text in texts) == 10_000
    assert "" in texts
    for pieces in PIECES:
        assert all(any(piece in text for text in texts) for piece in pieces)
