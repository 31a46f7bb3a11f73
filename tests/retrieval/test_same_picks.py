"""Search, release and export send the same messages: those of a prompt whose examples were chosen by hand."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

import agent
from agent.errors import ReleaseError
from agent.programs.prompt import PromptProgram
from agent.prompt.parts.examples import as_demo
from agent.prompt.parts.picks import PickedRows
from agent.prompt.prompt_candidate import PromptCandidate
from agent.prompt.render import render
from agent.release.export import HOSTILE, hostile_rows, write_release
from agent.release.formats.export_format import FORMATS, Material
from agent.release.formats.proof import verify_exports
from agent.release.formats.python_module import load_module
from agent.release.prompt_file import PromptRelease
from agent.release.runtime import load_prompt
from agent.retrieval.pick import ORDERS, RETRIEVERS, Picks
from agent.types import Constraints, Example, Field, FormatName, Message, Signature
from tests.retrieval.shipped import CARRIERS, release_of, sent_alike
from tests.toys import FakeModel, make_task

NAMES = ("message", "context")
SIGNATURE = Signature((Field("message"), Field("context")), (Field("team", "choice", choices=("billing", "delivery")),))
WILD = ('{{message}} "q" \\', "{{picked examples}}", "## pool\n\n{}", "a\r\nb", "\n## user\n\nx", "é e\u0301 漢字")


def row(number: int) -> Example:
    rng = random.Random(number)
    text = " ".join(rng.choices(["card", "fee", "parcel", "late", "door", "code", "refund", "box"], k=5))
    label = ("billing", "delivery")[number % 2]
    return Example(
        f"t{number}", {"message": f"{text} {WILD[number % len(WILD)]}", "context": text[:9]}, {"team": label}
    )


TASK = make_task(3, signature=SIGNATURE, train=tuple(row(n) for n in range(30)))
PROGRAM = PromptProgram(TASK, FakeModel(lambda request: "billing"))


def prompts(name: FormatName) -> Iterator[PromptCandidate]:
    """A candidate with and one without a head; one that lays out its own input, where the format allows it."""
    rng = random.Random(name)
    for own in ("Route {{picked examples}}.", "Team?\n{{message}} / {{context}}")[
        : 1 if name.startswith("dspy") else 2
    ]:
        for head in ((), tuple(map(as_demo, TASK.train[:3]))):
            picks = Picks(rng.choice(RETRIEVERS), 4, rng.choice(ORDERS), pool=PROGRAM.pool.id)
            yield PromptCandidate("few-shot", name, own, "You are R.", head, picks=picks)


def by_hand(prompt: PromptCandidate, example: Example) -> tuple[Message, ...]:
    """The messages of the same prompt with the picked rows as fixed demos."""
    picked = [as_demo(TASK.train[at]) for at in PROGRAM.pool.positions(prompt, example)]
    return render(replace(prompt, demos=(*prompt.demos, *picked), picks=None), SIGNATURE, example.inputs)


def released(prompt: PromptCandidate) -> PromptRelease:
    return release_of(PROGRAM, prompt)


def asked() -> list[Example]:
    rows = [Example(f"x{n}", values, {"team": "billing"}) for n, values in enumerate(hostile_rows(NAMES))]
    return [*rows, *(replace(row(n), id=f"dev{n}") for n in range(100, 110))]


@pytest.mark.parametrize("name", get_args(FormatName))
def test_search_release_and_export_send_what_fixed_demos_would(name: FormatName, tmp_path: Path) -> None:
    if name.startswith("dspy"):
        pytest.importorskip("dspy")
    for number, prompt in enumerate(prompts(name)):
        for example, sent in sent_alike(PROGRAM, prompt, tmp_path / str(number), asked()):
            assert sent == by_hand(prompt, example)


def test_a_thousand_generated_inputs_are_sent_the_same_by_search_release_and_export(tmp_path: Path) -> None:
    rng, pieces = (
        random.Random(5),
        [*HOSTILE, *WILD, *["card", "fee", "parcel", "late", "door", "code", "refund", "box"], " ", "\ud83d"],
    )
    chosen = [prompt for name in ("labelled-turns", "inline") for prompt in prompts(name)]
    made = []
    for number, prompt in enumerate(chosen):
        release = released(prompt)
        loaded = load_prompt(write_release(release, tmp_path / str(number)))
        file = tmp_path / str(number) / "prompt.py"
        file.write_text(FORMATS.get("python").files(Material(release))["prompt.py"], "utf-8")
        made.append((prompt, loaded, load_module(file, "exported")))
    for number in range(1000):
        prompt, loaded, exported = made[number % len(made)]
        inputs = {name: "".join(rng.choices(pieces, k=rng.randint(0, 12))) for name in NAMES}
        sent = PROGRAM.request(prompt, Example(f"x{number}", inputs, {"team": "billing"})).messages
        wanted = [message.as_dict() for message in sent]
        assert loaded.render(**inputs) == wanted
        assert exported.render(**inputs) == wanted


def test_a_train_row_never_sees_itself_or_its_near_duplicates() -> None:
    twins = [replace(row(7), id="twin"), replace(row(7), id="other", inputs={**row(7).inputs, "context": "x"})]
    task = replace(TASK, train=(*TASK.train, *twins))
    pool = PickedRows(task)
    prompt = PromptCandidate("few-shot", "turns", "Route.", picks=Picks("hybrid", 16, pool=pool.id))
    for example in task.train:
        seen = {task.train[at].id for at in pool.positions(prompt, example)}
        assert example.id not in seen
    assert not {task.train[at].id for at in pool.positions(prompt, row(7))} & {"t7", "twin"}
    asked_anew = replace(row(7), id="dev-1")  # in production nothing is known of it, so its nearest row is shown
    assert task.train[pool.positions(prompt, asked_anew)[-1]].id == "t7"
    assert pool.positions(prompt, replace(asked_anew, id="t7", inputs=row(8).inputs)) == pool.positions(
        prompt, replace(asked_anew, inputs=row(8).inputs)
    )


def test_a_row_of_the_head_is_not_picked_again() -> None:
    head = tuple(map(as_demo, TASK.train[:8]))
    prompt = PromptCandidate("few-shot", "turns", "Route.", demos=head, picks=Picks("bm25", 12, pool=PROGRAM.pool.id))
    for example in asked():
        assert min(PROGRAM.pool.positions(prompt, example)) >= 8


def test_the_hash_of_a_prompt_without_picks_is_as_before() -> None:
    plain = PromptCandidate("few-shot", "turns", "Route.", demos=(as_demo(TASK.train[0]),))
    assert set(plain.parts()) == {"technique", "format", "instruction", "role", "demos"}
    picked = replace(plain, picks=Picks("bm25", 4, pool=PROGRAM.pool.id))
    assert len({plain.id, picked.id, replace(picked, picks=replace(picked.picks, k=5)).id}) == 3  # type: ignore[type-var]


def test_limits_hold_for_the_longest_prompt_that_can_be() -> None:
    for prompt in prompts("turns"):
        sizes = [
            sum(len(message.content.split()) for message in PROGRAM.request(prompt, example).messages)
            - sum(len(text.split()) for text in example.inputs.values())
            for example in (*TASK.train, *asked())
        ]
        assert max(sizes) <= PROGRAM.most_prompt_tokens(prompt)
        assert min(sizes) - 5 <= PROGRAM.prompt_tokens(prompt) <= PROGRAM.most_prompt_tokens(prompt)
    narrow = PromptProgram(replace(TASK, constraints=Constraints(max_examples=5)), FakeModel(lambda request: ""))
    assert [narrow.check(prompt) for prompt in prompts("turns")][:2] == ["", "7 examples, more than max_examples = 5"]


def test_another_pool_and_a_technique_with_reasons_are_refused() -> None:
    prompt = next(prompts("turns"))
    other = PromptProgram(replace(TASK, train=TASK.train[:-1]), FakeModel(lambda request: ""))
    assert "picked out of pool_" in other.check(prompt)
    assert "no reasons to show" in PROGRAM.check(replace(prompt, technique="few-shot-cot"))


def test_production_picks_with_the_standard_library_alone(tmp_path: Path) -> None:
    prompt = next(prompts("turns"))
    write_release(released(prompt), tmp_path)
    code = (
        "import json, sys; sys.path.insert(0, sys.argv[1])\n"
        "from agent.release.runtime import load_prompt\n"
        "sent = load_prompt(sys.argv[2]).render(message='a late parcel', context='door')\n"
        "foreign = {name.split('.')[0] for name in sys.modules} - sys.stdlib_module_names\n"
        "print(json.dumps([sent, sorted(foreign)]))"
    )
    root = Path(agent.__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, root, tmp_path], capture_output=True, text=True, check=True
    )
    sent, foreign = json.loads(done.stdout)
    example = Example("x", {"message": "a late parcel", "context": "door"}, {"team": "billing"})
    assert sent == [message.as_dict() for message in PROGRAM.request(prompt, example).messages]
    assert foreign == ["__main__", "agent"]


def test_what_cannot_pick_refuses_the_prompt_with_the_reason() -> None:
    release = released(next(prompts("turns")))
    templates = {"anthropic", "prompty", "dotprompt", "llm"}
    assert templates == set(FORMATS.names()) - CARRIERS - {"llama-server", "peft", "tools", "finetune-jsonl"}
    for name in templates:
        with pytest.raises(ReleaseError, match=f"{name}: a template cannot pick examples") as caught:
            verify_exports([FORMATS.get(name)], {name: Material(release, TASK)})
        assert set(re.findall(r"[a-z]+", str(caught.value).partition("export as ")[2])) == {
            *CARRIERS, "or",
        }  # fmt: skip
